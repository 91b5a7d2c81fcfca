"""
Which entry is next, as oqmgr(8) does it: round-robin over transports, then over the destinations of a
transport, then first come, first served within a destination.

Pure: no I/O, no timers; the caller says what time it is. Each step costs the same whatever is queued: the
destinations of a transport that may deliver now stand in a ring, the others are out of sight until they open
(an entry is done, a time comes). What waits for a destination stands in batches, one for each time that a
message came to it, so that a message can be withdrawn without a look at others.

Recipients are read as long as there is room in C{qmgr_message_recipient_limit}, and
C{qmgr_message_recipient_minimum} when there is none; but a message never has more of them in memory than
C{qmgr_fudge_factor} percent of that limit, so that mail which comes later gets its turn between two reads. A
message reads on when all that it had in memory is done.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler, WaitingEntry
from qmqpd_tx.qmgr.scheduling.core import SchedulerCore, by_domain, waiting_entries
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.qmgr.scheduling.states import DestinationState, TransportState


class Message:
    """
    One message.

    @ivar job: the key that the caller knows it by.
    @ivar recipients: how many of its recipients are in memory.
    @ivar more: whether others are to be read.
    @ivar unread: how many those may be, at most.
    @ivar reading: how many are being read now.
    @ivar hungry: whether it stands in the queue of those that want to be read.
    @ivar batches: what waits of it.
    """

    __slots__ = ("batches", "hungry", "job", "more", "reading", "recipients", "unread")

    def __init__(self, job: Any, unread: int | None) -> None:
        self.job = job
        self.recipients = 0
        self.more = False
        self.unread = unread
        self.reading = 0
        self.hungry = False
        self.batches: dict[Batch, None] = {}


class Batch:
    """
    What came of one message to one destination at one time.

    @ivar entries: those that wait, the next one last.
    @ivar ordinal: how many entries the destination had ever had when it came.
    """

    __slots__ = ("destination", "entries", "message", "ordinal")

    def __init__(self, message: Message, destination: Turn, entries: list[Entry]) -> None:
        self.message = message
        self.destination = destination
        self.entries = entries
        self.ordinal = destination.put


class Turn(DestinationState):
    """
    A destination, with what waits for it in the order in which it came.

    @ivar queued: whether it stands in the ring of its transport.
    """

    __slots__ = ("batches", "queued")

    def __init__(self, transport: Ring, nexthop: str) -> None:
        super().__init__(transport, nexthop)
        self.batches: OrderedDict[Batch, None] = OrderedDict()
        self.queued = False


class Ring(TransportState):
    """
    A transport.

    @ivar ring: its destinations that may deliver.
    @ivar loaded: its destinations with waiting entries.
    """

    __slots__ = ("loaded", "ring")

    def __init__(self, name: str, settings: TransportSettings) -> None:
        super().__init__(name, settings)
        self.ring: deque[Turn] = deque()
        self.loaded: dict[Turn, None] = {}


@implementer(IQueueScheduler)
class RoundRobinScheduler(SchedulerCore[Ring, Turn]):
    """
    The scheduler of C{oqmgr}.

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
        super().__init__(settings, limits)
        self._messages: dict[Any, Message] = {}
        self._hungry: deque[Message] = deque()
        self._recipients = 0
        self._reserved = 0

    # --- messages ---

    def begin(self, job: Any, now: float, total: int | None = None) -> int:
        """See L{IQueueScheduler}."""
        message = self._messages[job] = Message(job, total)
        return self._reserve(message)

    def refill(self, now: float) -> tuple[Any, int] | None:
        """See L{IQueueScheduler}."""
        while self._hungry:
            message = self._hungry.popleft()
            message.hungry = False
            if message.more and not message.reading:
                return message.job, self._reserve(message)
        return None

    def refilled(self, job: Any, count: int, more: bool, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        self._reserved -= message.reading
        message.reading = 0
        message.recipients += count
        message.more = more
        if message.unread is not None:
            message.unread = max(0, message.unread - count)
        self._recipients += count
        self._feed(message)

    def forgo(self, job: Any, count: int, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is not None:
            self._left(message, count)

    def withdraw(self, job: Any, now: float) -> Sequence[Entry]:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return ()
        message.more = False
        returned: list[Entry] = []
        for batch in list(message.batches):
            self._drain_batch(batch, returned)
            self._forget(batch.destination)
        return returned

    def end(self, job: Any, now: float) -> None:
        """See L{IQueueScheduler}."""
        message = self._messages.pop(job, None)
        if message is not None:
            message.more = False
            self._recipients -= message.recipients
            self._reserved -= message.reading

    def recipients(self) -> int:
        """See L{IQueueScheduler}."""
        return self._recipients

    # --- entries ---

    def add(
        self, job: Any, transport: str, nexthop: str, recipients: Sequence[Recipient], now: float
    ) -> None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        count = len(recipients)
        if not count:
            return
        ring = self._transports.get(transport) or self._transport(transport)
        message = self._messages.get(job)
        if message is None:
            message = self._messages[job] = Message(job, 0)
            self.refilled(job, count, False, now)
        limit = ring.settings.recipient_limit
        if count > 1:
            recipients = sorted(recipients, key=by_domain)
        if limit == 1:
            for recipient in recipients:
                # Latin-1 keeps every byte, so that no two addresses share a key.
                self._put(message, ring, recipient.address.decode("latin-1"), nexthop, [(recipient,)])
        elif not limit or count <= limit:
            self._put(message, ring, nexthop, nexthop, [recipients])
        else:
            batches = [recipients[start : start + limit] for start in range(0, count, limit)]
            self._put(message, ring, nexthop, nexthop, batches)
        if not ring.listed:
            self._list(ring)

    def waiting(self, job: Any, now: float) -> Iterator[WaitingEntry]:
        """See L{IQueueScheduler}."""
        message = self._messages.get(job)
        if message is None:
            return
        for batch in message.batches:
            destination = batch.destination
            wait, until = self._wait(destination, now)
            first = next(iter(destination.batches))
            behind = first.message.job if first.message is not message else None
            yield from waiting_entries(destination, batch.entries, batch.ordinal, wait, until, behind)

    # --- hooks of the core ---

    def _make_transport(self, name: str, settings: TransportSettings) -> Ring:
        return Ring(name, settings)

    def _take(self, transport: Ring, now: float) -> Entry | None:
        ring = transport.ring
        while ring:
            destination = ring[0]
            if destination.resumes or destination.busy >= destination.window.concurrency:
                destination.queued = False
                ring.popleft()
                continue
            batches = destination.batches
            if not batches:
                destination.queued = False
                ring.popleft()
                continue
            batch = next(iter(batches))
            entry = batch.entries.pop()
            if not batch.entries:
                del batches[batch]
                del batch.message.batches[batch]
            destination.busy += 1
            destination.waiting -= 1
            transport.busy += 1
            transport.waiting -= 1
            if not destination.waiting:
                del transport.loaded[destination]
                destination.queued = False
                ring.popleft()
            elif len(ring) > 1:
                ring.rotate(-1)
            return entry
        return None

    def _opened(self, destination: Turn) -> None:
        if not destination.queued:
            destination.queued = True
            destination.transport.ring.append(destination)

    def _drain(self, destination: Turn, now: float) -> list[Entry]:
        returned: list[Entry] = []
        for batch in list(destination.batches):
            self._drain_batch(batch, returned)
        return returned

    def _drain_all(self, transport: Ring, now: float) -> list[Entry]:
        returned: list[Entry] = []
        for destination in list(transport.loaded):
            returned += self._drain(destination, now)
            self._forget(destination)
        return returned

    def _gone(self, entry: Entry, now: float) -> None:
        message = self._messages.get(entry.job)
        if message is not None:
            self._left(message, len(entry.recipients))

    # --- parts ---

    def _put(
        self,
        message: Message,
        ring: Ring,
        key: str,
        nexthop: str,
        batches: Sequence[Sequence[Recipient]],
    ) -> None:
        destination: Turn | None = ring.destinations.get(key)
        if destination is None:
            destination = ring.destinations[key] = Turn(ring, key)
        name, job = destination.key, message.job
        entries = [Entry(job, name, nexthop, batch) for batch in batches]
        entries.reverse()
        batch = Batch(message, destination, entries)
        destination.batches[batch] = message.batches[batch] = None
        count = len(entries)
        if not destination.waiting:
            ring.loaded[destination] = None
        destination.put += count
        destination.waiting += count
        ring.waiting += count
        if not destination.queued:
            self._reopen(destination)

    def _drain_batch(self, batch: Batch, returned: list[Entry]) -> None:
        destination = batch.destination
        transport: Ring = destination.transport
        entries = batch.entries
        entries.reverse()
        returned.extend(entries)
        del destination.batches[batch]
        del batch.message.batches[batch]
        count = len(entries)
        destination.waiting -= count
        transport.waiting -= count
        if not destination.waiting:
            del transport.loaded[destination]
        self._left(batch.message, sum(len(entry.recipients) for entry in entries))

    def _reserve(self, message: Message) -> int:
        """How many recipients are to be read now; they count as in memory until they are."""
        limits = self._limits
        room = max(limits.minimum, limits.limit - self._recipients - self._reserved)
        share = limits.limit * limits.fudge_factor // 100 - message.recipients
        room = max(1, min(room, share))
        message.reading = room if message.unread is None else max(1, min(room, message.unread))
        self._reserved += message.reading
        return room

    def _left(self, message: Message, count: int) -> None:
        message.recipients -= count
        self._recipients -= count
        if message.more:
            self._feed(message)

    def _feed(self, message: Message) -> None:
        if message.more and not message.hungry and not message.reading and not message.recipients:
            message.hungry = True
            self._hungry.append(message)
