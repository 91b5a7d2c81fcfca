"""
Which entry is next, as qmgr(8) does it: round-robin over transports; within a transport, message by message,
and a message with few entries may overtake one with many; within a message, round-robin over its
destinations.

Pure: no I/O, no timers; the caller says what time it is. Answers to SCHEDULER_README, "Preemptive
scheduling"; where that document is silent, the sequences of a running Postfix decide, and tests hold them.

I{The order.} Each transport has its jobs in a row, the oldest message first. The first one with an open
destination is the current job; it gives the next entry. With each entry it earns a credit. Before the entry
is chosen, the best candidate (L{candidates<qmqpd_tx.qmgr.scheduling.candidates>}) behind it is looked at:
when the credit is worth it (by slot cost, discount and loan), the candidate is put just before the current
job, which pays for the candidate's entries; so a job that does not owe anything is never delayed by more than
it can earn, k/(k-1) of its time in all for a cost of k, with those that overtake the overtakers. A candidate
whose destination is closed is put before as well, as Postfix does: it will be first when it opens. Entries
that were paid for and then not delivered (their destination is dead) are paid back.

I{Blockers.} A peer whose destination is closed (its window is full, or it rests) when it has its turn is
parked with that destination; a job without peers in its ring is out of the row. When a destination opens,
only the first of its parked peers comes back, the next one when that one has no more entries: the first in
the row is the only one that can be chosen. So an opening costs the same however many wait for it, and the
order is the same as if all of them were looked at.

I{Recipients.} L{pools<qmqpd_tx.qmgr.scheduling.pools>} says how many may be read.

The module is long because the steps of an entry, from C{add} to C{done}, share what they touch; what can be
said by itself (who may overtake, the order of candidates, the pools) is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.candidates import Candidates
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler, Wait, WaitingEntry
from qmqpd_tx.qmgr.scheduling.core import SchedulerCore, by_domain, waiting_entries
from qmqpd_tx.qmgr.scheduling.jobs import JobState, Lane, MessageState, PeerState, QueueState
from qmqpd_tx.qmgr.scheduling.ordered import Ordered
from qmqpd_tx.qmgr.scheduling.overtaking import overtake, overtaker, refund
from qmqpd_tx.qmgr.scheduling.pools import RecipientPools
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.qmgr.scheduling.states import MANY


@implementer(IQueueScheduler)
class PreemptiveScheduler(SchedulerCore[Lane, QueueState]):
    """
    The scheduler of C{qmgr}.

    Recipients are sorted by domain and address before they are cut into entries, so that mail for one
    domain travels together. What is added later goes into the last entry first, if that waits and has room.
    """

    def __init__(
        self, settings: Callable[[str], TransportSettings], limits: RecipientLimits | None = None
    ) -> None:
        """
        @param settings: gives the settings of a transport by its name.
        @param limits: how many recipients may be in memory.
        """
        super().__init__(settings, limits)
        self._messages: dict[Any, MessageState] = {}
        self._pools = RecipientPools(self._limits)
        self._began = 0
        self._last_began = 0.0

    # --- messages ---

    def begin(self, job: Any, now: float, total: int | None = None) -> int:
        """See L{IQueueScheduler}."""
        message = self._begin(job, now, MANY if total is None else total)
        return self._pools.begin(message)

    def refill(self, now: float) -> tuple[Any, int] | None:
        """See L{IQueueScheduler}."""
        found = self._pools.refill(now)
        return (found[0].job, found[1]) if found is not None else None

    def refilled(self, job: Any, count: int, more: bool, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        self._pools.read(message, count, more, now)
        for state in message.jobs.values():
            self._counted(state)

    def forgo(self, job: Any, count: int, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        message.pending = max(0, message.pending - count)
        self._pools.left(message, count)
        for state in message.jobs.values():
            self._counted(state)

    def withdraw(self, job: Any, now: float) -> Sequence[Entry]:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return ()
        message.more = False
        message.unread = 0
        returned: list[Entry] = []
        for state in message.jobs.values():
            self._pools.complete(state)
            for peer in list(state.peers.values()):
                destination = peer.destination
                self._drain_peer(peer, returned)
                self._forget(destination)
                self._reopen(destination)
        return returned

    def end(self, job: Any, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.pop(job, None)
        if message is not None:
            self._pools.end(message)
            for state in message.jobs.values():
                if state.parent is not None:
                    refund(state)
            # They know each other: apart, they are gone at once, without the help of the garbage collector.
            message.jobs.clear()

    def recipients(self) -> int:
        """See L{IQueueScheduler}."""
        return self._pools.recipients

    def reconfigure(self, settings: Callable[[str], TransportSettings], limits: RecipientLimits) -> None:
        """See L{IQueueScheduler}."""
        self._pools.limits = limits
        super().reconfigure(settings, limits)

    def wakeup(self, now: float) -> float | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}. A read that is due counts too."""
        when = super().wakeup(now)
        due = self._pools.wakeup()
        if when is None or due is None:
            return due if when is None else when
        return min(when, due)

    # --- entries ---

    def add(
        self, job: Any, transport: str, nexthop: str, recipients: Sequence[Recipient], now: float
    ) -> None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        count = len(recipients)
        if not count:
            return
        lane = self._transports.get(transport) or self._transport(transport)
        message = self._messages.get(job)
        if message is None:
            message = self._begin(job, now, 0)
            self._pools.begin(message)
            self._pools.read(message, count, False, now)
        state = message.jobs.get(transport)
        if state is None:
            state = message.jobs[transport] = JobState(message, lane)
        if message.pending > count:
            message.pending -= count
        else:
            message.pending = 0
        limit = lane.settings.recipient_limit
        if count == 1:
            key = nexthop if limit != 1 else recipients[0].address.decode("latin-1")
            # Mail with a sender for each recipient comes one by one, and has no entry of more than one.
            if not state.peers or not self._fill_up(state, lane, key, nexthop, recipients, limit, 2):
                self._put(state, lane, key, nexthop, (recipients,))
        elif limit == 1:
            for recipient in sorted(recipients, key=by_domain):
                # Latin-1 keeps every byte, so that no two addresses share a key.
                self._put(state, lane, recipient.address.decode("latin-1"), nexthop, ((recipient,),))
        else:
            recipients = sorted(recipients, key=by_domain)
            size = limit or count
            start = self._fill_up(state, lane, nexthop, nexthop, recipients, size, 1)
            batches = [recipients[at : at + size] for at in range(start, count, size)]
            if batches:
                self._put(state, lane, nexthop, nexthop, batches)
        self._pools.gained(state, count)
        self._counted(state)
        if not lane.listed:
            self._list(lane)

    def waiting(self, job: Any, now: float) -> Iterator[WaitingEntry]:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        for state in message.jobs.values():
            for destination, peer in state.peers.items():
                wait, until = self._wait(destination, now)
                other: JobState | None = None
                if wait is Wait.WINDOW:
                    parked = destination.parked.first() if destination.parked is not None else None
                    other = parked.job if parked is not None else None
                elif wait is Wait.TURN or wait is Wait.PROCESSES:
                    other = state.transport.runnable.first()
                behind = other.message.job if other is not None and other is not state else None
                yield from waiting_entries(destination, peer.entries, peer.ordinal, wait, until, behind)

    # --- hooks of the core ---

    def _make_transport(self, name: str, settings: TransportSettings) -> Lane:
        lane = Lane(name, settings, Candidates())
        self._pools.opened(lane)
        return lane

    def _adopt(self, transport: Lane, settings: TransportSettings) -> None:
        self._pools.adopt(transport, settings)
        transport.adopt(settings)

    def _take(self, transport: Lane, now: float) -> Entry | None:
        runnable = transport.runnable
        settings = transport.settings
        cost = settings.slot_cost
        while True:
            job = runnable.first()
            if job is None:
                return None
            peer = self._turn(job)
            if peer is None:
                runnable.discard(job)
                continue
            if job.credit > 0 and cost > 1:
                other = overtaker(job, settings, now)
                if other is not None:
                    overtake(job, other, cost)
                    self._moved(other)
                    continue
            break
        message = job.message
        if message.more:
            self._pools.consider(job, now)
        destination = peer.destination
        entry = peer.entries.pop()
        destination.busy += 1
        destination.waiting -= 1
        transport.busy += 1
        transport.waiting -= 1
        job.waiting -= 1
        job.selected += 1
        job.credit += 1
        if job.charged:
            job.charged -= 1
        ring = job.ring
        if not peer.entries:
            ring.popleft()
            del job.peers[destination]
            del destination.peers[job]
            if destination.parked and destination.busy < destination.window.concurrency:
                self._opened(destination)
        elif len(ring) > 1:
            ring.rotate(-1)
        if not ring:
            runnable.discard(job)
        self._counted(job)
        return entry

    def _opened(self, destination: QueueState) -> None:
        parked = destination.parked
        if parked is None:
            return
        peer = parked.first()
        if peer is not None:
            self._unpark(peer)

    def _drain(self, destination: QueueState, now: float) -> list[Entry]:
        returned: list[Entry] = []
        for peer in list(destination.peers.values()):
            self._drain_peer(peer, returned)
        return returned

    def _drain_all(self, transport: Lane, now: float) -> list[Entry]:
        returned: list[Entry] = []
        for job in list(transport.jobs):
            for peer in list(job.peers.values()):
                self._drain_peer(peer, returned)
                self._forget(peer.destination)
        return returned

    def _gone(self, entry: Entry, now: float) -> None:
        message = self._messages.get(entry.job)
        if message is None:
            return
        count = len(entry.recipients)
        self._pools.left(message, count)
        job = message.jobs[entry.destination.transport]
        self._pools.lost(job, count)
        if message.more:
            self._pools.consider(job, now)

    # --- jobs and peers ---

    def _begin(self, job: Any, now: float, total: float) -> MessageState:
        self._began += 1
        # So that the order of ages is the order of beginning, whatever the clock does.
        self._last_began = max(self._last_began, now)
        message = self._messages[job] = MessageState(job, self._began, self._last_began, total)
        return message

    def _put(
        self, job: JobState, lane: Lane, key: str, nexthop: str, batches: Sequence[Sequence[Recipient]]
    ) -> None:
        destination: QueueState | None = lane.destinations.get(key)
        if destination is None:
            destination = lane.destinations[key] = QueueState(lane, key)
        peer = job.peers.get(destination)
        if peer is None:
            peer = PeerState(job, destination, destination.put)
            job.peers[destination] = destination.peers[job] = peer
            if destination.resumes or destination.busy >= destination.window.concurrency:
                self._park(peer)
            else:
                job.ring.append(peer)
                if len(job.ring) == 1:
                    lane.runnable.push(job, job.place)
        if not job.waiting:
            lane.jobs[job] = None
        name = destination.key
        message_job = job.message.job
        count = len(batches)
        if count == 1:
            entries = [Entry(message_job, name, nexthop, batches[0])]
        else:
            entries = [Entry(message_job, name, nexthop, batch) for batch in batches]
            entries.reverse()
        # The next one is the last of the list.
        peer.entries[:0] = entries
        destination.put += count
        destination.waiting += count
        lane.waiting += count
        job.waiting += count

    def _fill_up(
        self,
        job: JobState,
        lane: Lane,
        key: str,
        nexthop: str,
        recipients: Sequence[Recipient],
        size: int,
        least: int,
    ) -> int:
        """
        Put recipients of a later read into the last entry of an earlier one, as far as it has room.

        @param size: the most recipients of an entry, 0 for no limit.
        @param least: how many it must have already.
        @return: how many.
        """
        destination = lane.destinations.get(key)
        peer = job.peers.get(destination) if destination is not None else None
        if peer is None:
            return 0
        last = peer.entries[0]
        room = min((size or MANY) - len(last.recipients), len(recipients))
        if room <= 0 or len(last.recipients) < least or last.nexthop != nexthop:
            return 0
        joined = [*last.recipients, *recipients[: int(room)]]
        peer.entries[0] = Entry(last.job, last.destination, nexthop, joined)
        return int(room)

    def _turn(self, job: JobState) -> PeerState | None:
        """The next peer that is open; those that are met closed are parked."""
        ring = job.ring
        while ring:
            peer = ring[0]
            destination = peer.destination
            if peer.entries:
                if not destination.resumes and destination.busy < destination.window.concurrency:
                    return peer
                self._park(peer)
            ring.popleft()
        return None

    def _park(self, peer: PeerState) -> None:
        """Its destination is closed: it stands there, in the order of jobs, until that opens."""
        peer.parked = True
        destination = peer.destination
        parked = destination.parked
        if parked is None:
            parked = destination.parked = Ordered()
        parked.push(peer, peer.job.place)

    def _moved(self, job: JobState) -> None:
        """A job stands before the current one now."""
        if job.ring:
            job.transport.runnable.push(job, job.place)
        for peer in job.peers.values():
            parked = peer.destination.parked
            if peer.parked and parked is not None:
                parked.push(peer, job.place)
                self._reopen(peer.destination)
        self._pools.overtook(job)

    def _unpark(self, peer: PeerState) -> None:
        job = peer.job
        parked = peer.destination.parked
        if parked is not None:
            parked.discard(peer)
        peer.parked = False
        job.ring.append(peer)
        if len(job.ring) == 1:
            job.transport.runnable.push(job, job.place)

    def _drain_peer(self, peer: PeerState, returned: list[Entry]) -> None:
        """Take back what a peer has. Its place in the ring may outlive it: it has no entries there."""
        job = peer.job
        message = job.message
        destination = peer.destination
        lane: Lane = job.transport
        entries = peer.entries
        peer.entries = []
        entries.reverse()
        returned.extend(entries)
        del job.peers[destination]
        del destination.peers[job]
        if peer.parked and destination.parked is not None:
            destination.parked.discard(peer)
        count = len(entries)
        destination.waiting -= count
        lane.waiting -= count
        job.waiting -= count
        recipients = sum(len(entry.recipients) for entry in entries)
        self._pools.lost(job, recipients)
        self._pools.left(message, recipients)
        if not job.waiting:
            job.ring.clear()
            lane.runnable.discard(job)
        self._counted(job)

    def _counted(self, job: JobState) -> None:
        """The number of entries that a job has, or may have, is another."""
        lane: Lane = job.transport
        if job.waiting:
            lane.candidates.changed(job)
        else:
            lane.jobs.pop(job, None)
            lane.candidates.forget(job)
        if job.parent is not None:
            refund(job)
