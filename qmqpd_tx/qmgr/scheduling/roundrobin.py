"""
Which entry is next: round-robin over transports, then over the destinations of a transport, then first
come, first served within a destination.

Pure: no I/O, no timers; the caller says what time it is. Each step costs the same whatever is queued:
transports and destinations that may deliver now stand in rings, the others are out of sight until the
event that brings them back (an entry is done, a time comes). A destination without mail is forgotten,
window included, as in Postfix, so memory follows what is active. Answers to qmgr(8) and oqmgr(8).

Only L{RoundRobinScheduler.flush}, L{RoundRobinScheduler.reconfigure} and a clock that was set back walk over
what they change.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import Destination, Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus, IQueueScheduler, Wait, WaitingEntry
from qmqpd_tx.qmgr.scheduling.feedback import Window
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.status import DestinationFailure


class _Destination:
    """The state of one destination: its entries, its window, and until when it is left alone."""

    __slots__ = ("busy", "entries", "failure", "key", "queued", "resumes", "transport", "window")

    def __init__(self, transport: _Transport, key: Destination) -> None:
        self.transport = transport
        self.key = key
        self.window = Window(transport.settings.window)
        self.entries: deque[Entry] = deque()
        self.busy = 0
        self.failure: DestinationFailure | None = None
        self.resumes = 0.0
        self.queued = False

    def eligible(self) -> bool:
        return bool(self.entries) and self.busy < self.window.concurrency and not self.resumes


class _Message:
    """What is known of one message: its recipients in memory, and whether others are to be read."""

    __slots__ = ("hungry", "job", "more", "recipients", "slice_size")

    def __init__(self, job: Any) -> None:
        self.job = job
        self.recipients = 0
        self.slice_size = 0
        self.more = False
        self.hungry = False


class _Transport:
    """The state of one transport: its destinations, and a ring of those that may deliver."""

    __slots__ = ("busy", "destinations", "failure", "name", "queued", "resumes", "ring", "settings")

    def __init__(self, name: str, settings: TransportSettings) -> None:
        self.name = name
        self.settings = settings
        self.destinations: dict[str, _Destination] = {}
        self.ring: deque[_Destination] = deque()
        self.busy = 0
        self.failure: DestinationFailure | None = None
        self.resumes = 0.0
        self.queued = False

    def full(self) -> bool:
        limit = self.settings.process_limit
        return bool(limit) and self.busy >= limit

    def take(self) -> Entry | None:
        if self.resumes or self.full():
            return None
        ring = self.ring
        while ring:
            destination = ring.popleft()
            if not destination.eligible():
                destination.queued = False
                continue
            entry = destination.entries.popleft()
            destination.busy += 1
            self.busy += 1
            if destination.eligible():
                ring.append(destination)
            else:
                destination.queued = False
            return entry
        return None


def _by_domain(recipient: Recipient) -> tuple[bytes, bytes]:
    address = recipient.address.lower()
    return address.rpartition(b"@")[2], address


def _status(transport: _Transport, state: _Destination) -> DestinationStatus:
    return DestinationStatus(
        transport=transport.name,
        nexthop=state.key.nexthop,
        window=state.window.concurrency,
        busy=state.busy,
        waiting=len(state.entries),
        resumes=max(state.resumes, transport.resumes) or None,
        reason=transport.failure or state.failure,
    )


@implementer(IQueueScheduler)
class RoundRobinScheduler:
    """
    The first scheduler.

    Recipients are sorted by domain and address before they are cut into entries, so that mail for one
    domain travels together. Each call of L{add} makes entries of its own.
    """

    def __init__(
        self, settings: Callable[[str], TransportSettings], limits: RecipientLimits | None = None
    ) -> None:
        """
        @param settings: gives the settings of a transport by its name.
        @param limits: how many recipients may be in memory.
        """
        self._settings = settings
        self._limits = limits or RecipientLimits()
        self._messages: dict[Any, _Message] = {}
        self._hungry: deque[_Message] = deque()
        self._recipients = 0
        self._transports: dict[str, _Transport] = {}
        self._ring: deque[_Transport] = deque()
        self._timers: list[tuple[float, int, _Destination | _Transport]] = []
        self._serial = 0
        self._asleep: set[_Destination | _Transport] = set()
        self._now = 0.0

    def begin(self, job: Any, now: float) -> int:
        """See L{IQueueScheduler}."""
        self._messages[job] = _Message(job)
        return self._room()

    def refill(self, now: float) -> tuple[Any, int] | None:
        """See L{IQueueScheduler}."""
        while self._hungry:
            message = self._hungry.popleft()
            message.hungry = False
            if message.more:
                message.more = False
                return message.job, self._room()
        return None

    def refilled(self, job: Any, count: int, more: bool, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        message.recipients += count
        message.slice_size = message.recipients
        message.more = more
        self._recipients += count
        self._feed(message)

    def forgo(self, job: Any, count: int, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is not None:
            message.recipients -= count
            self._recipients -= count
            self._feed(message)

    def withdraw(self, job: Any, now: float) -> Sequence[Entry]:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is not None:
            message.more = False
        return self._take_back(lambda entry: entry.job == job, now)

    def end(self, job: Any, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.pop(job, None)
        if message is not None:
            message.more = False
            self._recipients -= message.recipients

    def recipients(self) -> int:
        """See L{IQueueScheduler}."""
        return self._recipients

    def add(
        self, job: Any, transport: str, nexthop: str, recipients: Sequence[Recipient], now: float
    ) -> None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        state = self._transports.get(transport) or self._transport(transport)
        limit = state.settings.recipient_limit
        if len(recipients) > 1:
            recipients = sorted(recipients, key=_by_domain)
        if limit == 1:
            for recipient in recipients:
                # Latin-1 keeps every byte, so that no two addresses share a key.
                self._put(state, job, recipient.address.decode("latin-1"), nexthop, (recipient,))
        elif not limit or len(recipients) <= limit:
            if recipients:
                self._put(state, job, nexthop, nexthop, recipients)
        else:
            for start in range(0, len(recipients), limit):
                self._put(state, job, nexthop, nexthop, recipients[start : start + limit])

    def next(self, now: float) -> Entry | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        if self._timers:
            self._wake(now)
        ring = self._ring
        while ring:
            transport = ring.popleft()
            entry = transport.take()
            if entry is not None:
                if transport.ring:
                    ring.append(transport)
                else:
                    transport.queued = False
                return entry
            transport.queued = False
        return None

    def done(self, entry: Entry, failed: DestinationFailure | None, now: float) -> Sequence[Entry]:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        transport = self._transports[entry.destination.transport]
        destination = transport.destinations[entry.destination.nexthop]
        returned: Sequence[Entry] = ()
        self.forgo(entry.job, len(entry.recipients), now)
        if failed is None:
            if destination.failure is not None:
                self._resume(destination)
            destination.window.succeeded(destination.busy)
        elif destination.failure is None and destination.window.failed():
            destination.failure = failed
            self._suspend(destination, now, transport.settings.dead_time)
            returned = list(destination.entries)
            destination.entries.clear()
            self._returned(returned, now)
        destination.busy -= 1
        transport.busy -= 1
        if transport.settings.rate_delay and not destination.resumes:
            self._suspend(destination, now, transport.settings.rate_delay)
        if not self._forget(destination):
            self._ready(destination)
        self._ready_transport(transport)
        return returned

    def dead(self, transport: str, nexthop: str, now: float) -> DestinationFailure | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        if not self._asleep:
            return None
        self._wake(now)
        state = self._transports.get(transport)
        if state is None:
            return None
        if state.failure is not None:
            return state.failure
        destination = state.destinations.get(nexthop)
        return destination.failure if destination is not None else None

    def wakeup(self, now: float) -> float | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        # Only L{next} may end a wait: what became ready here would be nobody's business.
        timers = self._timers
        while timers and timers[0][2].resumes != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def flush(self) -> None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}. What a rate delay holds back stays."""
        for state in [state for state in self._asleep if state.failure is not None]:
            self._resume(state)

    def per_recipient(self, transport: str) -> bool:
        """See L{IQueueScheduler}."""
        state = self._transports.get(transport) or self._transport(transport)
        return state.settings.recipient_limit == 1

    def throttle(self, transport: str, failure: DestinationFailure, now: float) -> Sequence[Entry]:
        """See L{IQueueScheduler}."""
        state = self._transports.get(transport) or self._transport(transport)
        state.failure = failure
        if not state.resumes:
            self._suspend(state, now, state.settings.retry_time)
        returned: list[Entry] = []
        for destination in list(state.destinations.values()):
            returned.extend(destination.entries)
            destination.entries.clear()
            self._forget(destination)
        self._returned(returned, now)
        return returned

    def reconfigure(self, settings: Callable[[str], TransportSettings], limits: RecipientLimits) -> None:
        """See L{IQueueScheduler}."""
        self._settings = settings
        self._limits = limits
        for transport in self._transports.values():
            transport.settings = settings(transport.name)
            for destination in transport.destinations.values():
                destination.window.adopt(transport.settings.window)
                self._ready(destination)
            self._ready_transport(transport)

    def destinations(self, now: float) -> Iterator[DestinationStatus]:
        """See L{IQueueScheduler}."""
        self._wake(now)
        for transport in self._transports.values():
            for state in transport.destinations.values():
                yield _status(transport, state)

    def destination(self, transport: str, nexthop: str, now: float) -> DestinationStatus | None:
        """See L{IQueueScheduler}."""
        self._wake(now)
        state = self._transports.get(transport)
        found = state.destinations.get(nexthop) if state is not None else None
        return _status(found.transport, found) if found is not None else None

    def waiting(self, job: Any, now: float) -> Iterator[WaitingEntry]:
        """See L{IQueueScheduler}."""
        for transport in self._transports.values():
            for state in transport.destinations.values():
                for ahead, entry in enumerate(state.entries):
                    if entry.job == job:
                        wait, until = Wait.TURN, None
                        if state.resumes or transport.resumes:
                            wait, until = Wait.DESTINATION_RATE, max(state.resumes, transport.resumes)
                        elif state.busy >= state.window.concurrency:
                            wait = Wait.WINDOW
                        elif transport.full():
                            wait = Wait.PROCESSES
                        behind = state.entries[0].job if ahead else None
                        yield WaitingEntry(
                            entry, wait, until, behind, ahead, state.window.concurrency, state.busy
                        )

    def _room(self) -> int:
        """A slice at a time, so that no message takes all there is at once."""
        room = min(self._limits.limit - self._recipients, self._limits.limit // 4)
        return max(self._limits.minimum, room)

    def _feed(self, message: _Message) -> None:
        if message.more and not message.hungry and message.recipients * 2 <= message.slice_size:
            message.hungry = True
            self._hungry.append(message)

    def _returned(self, entries: Sequence[Entry], now: float) -> None:
        for entry in entries:
            self.forgo(entry.job, len(entry.recipients), now)

    def _take_back(self, wanted: Callable[[Entry], bool], now: float) -> list[Entry]:
        returned: list[Entry] = []
        for transport in self._transports.values():
            for state in list(transport.destinations.values()):
                found = [entry for entry in state.entries if wanted(entry)]
                if found:
                    state.entries = deque(entry for entry in state.entries if not wanted(entry))
                    returned += found
                    self._forget(state)
        self._returned(returned, now)
        return returned

    def _transport(self, name: str) -> _Transport:
        state = self._transports[name] = _Transport(name, self._settings(name))
        return state

    def _put(
        self, transport: _Transport, job: Any, key: str, nexthop: str, recipients: Sequence[Recipient]
    ) -> None:
        destination = transport.destinations.get(key)
        if destination is None:
            destination = _Destination(transport, Destination(transport.name, key))
            transport.destinations[key] = destination
        destination.entries.append(Entry(job, destination.key, nexthop, recipients))
        if not destination.queued:
            self._ready(destination)
            self._ready_transport(transport)

    def _ready(self, destination: _Destination) -> None:
        if not destination.queued and destination.eligible():
            destination.queued = True
            destination.transport.ring.append(destination)

    def _ready_transport(self, transport: _Transport) -> None:
        if not transport.queued and transport.ring and not transport.resumes:
            transport.queued = True
            self._ring.append(transport)

    def _forget(self, destination: _Destination) -> bool:
        """Drop a destination that has nothing to do and nothing to remember."""
        if destination.entries or destination.busy or destination.resumes:
            return False
        # A place in the ring may outlive it: harmless, it is never eligible again.
        destination.transport.destinations.pop(destination.key.nexthop, None)
        return True

    def _suspend(self, state: _Destination | _Transport, now: float, seconds: float) -> None:
        self._now = max(self._now, now) if self._timers else now
        state.resumes = now + seconds
        self._serial += 1
        self._asleep.add(state)
        heapq.heappush(self._timers, (state.resumes, self._serial, state))

    def _resume(self, state: _Destination | _Transport) -> None:
        """Make it as new; its place among the timers is void, because its time no longer agrees."""
        self._asleep.discard(state)
        if state.failure is not None and isinstance(state, _Destination):
            state.window = Window(state.transport.settings.window)
        state.failure = None
        state.resumes = 0.0
        if isinstance(state, _Transport):
            self._ready_transport(state)
        elif not self._forget(state):
            self._ready(state)
            self._ready_transport(state.transport)

    def _wake(self, now: float) -> None:
        """Resume what has waited long enough; all of it when the clock was set back, which voids times."""
        if now < self._now - 1.0:
            for state in list(self._asleep):
                self._resume(state)
        self._now = now
        timers = self._timers
        while timers:
            when, _, state = timers[0]
            if state.resumes == when:
                if when > now:
                    return
                self._resume(state)
            heapq.heappop(timers)
