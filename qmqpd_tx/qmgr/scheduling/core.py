"""
What both schedulers share: windows and their feedback, dead destinations and transports, rate delays, process
limits, turns of the transports.

Takes entries that were tried, with their result and the time; says which transport has its turn, and what is
not to be tried until when. Pure: no I/O, no timers. What waits, and in which order it goes, is the business
of the two schedulers, which fill in the hooks. Answers to qmgr(8) and oqmgr(8).

Each step costs the same whatever is queued. Transports that may deliver now stand in a ring; what is left
alone for a time stands in a heap by that time. A destination without mail is forgotten, window included, as
in Postfix, so memory follows what is active. The dead ones are the exception: they are remembered until their
time is over, but no more than C{qmgr_message_recipient_limit} of them, of which the oldest is forgotten
first; that costs no more than an attempt too many. Only L{SchedulerCore.reconfigure}, and a clock that was
set back, walk over all that is in memory.

Longer than most, because it is one class whose steps share all their state.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus, Wait, WaitingEntry
from qmqpd_tx.qmgr.scheduling.feedback import Window
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.qmgr.scheduling.states import DestinationState, TransportState
from qmqpd_tx.status import DestinationFailure

log = Logger(namespace="qmqpd_tx.qmgr")

_BACK: Final = 1.0
"""A clock that goes back by so many seconds was set; less is its own business."""

TransportT = TypeVar("TransportT", bound=TransportState)
DestinationT = TypeVar("DestinationT", bound=DestinationState)


def by_domain(recipient: Recipient) -> tuple[bytes, bytes]:
    """
    @return: what recipients are sorted by before they are cut into entries.
    """
    address = recipient.address.lower()
    return address.rpartition(b"@")[2], address


class SchedulerCore(ABC, Generic[TransportT, DestinationT]):
    """
    The common part of the schedulers. A scheduler says what a transport and a destination are besides, and
    what to do when one of them may go on.
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
        self._transports: dict[str, TransportT] = {}
        self._ring: deque[TransportT] = deque()
        self._timers: list[tuple[float, int, DestinationT | TransportT]] = []
        self._serial = 0
        self._asleep: dict[DestinationT | TransportT, None] = {}
        self._dead: OrderedDict[DestinationT | TransportT, None] = OrderedDict()
        self._now = 0.0

    # --- hooks ---

    @abstractmethod
    def _make_transport(self, name: str, settings: TransportSettings) -> TransportT:
        """A new transport."""

    @abstractmethod
    def _take(self, transport: TransportT, now: float) -> Entry | None:
        """The next entry of a transport that may deliver; its C{waiting} and C{busy} are counted here."""

    @abstractmethod
    def _opened(self, destination: DestinationT) -> None:
        """A destination with mail may deliver again."""

    @abstractmethod
    def _drain(self, destination: DestinationT, now: float) -> list[Entry]:
        """Take back all that waits for a destination."""

    @abstractmethod
    def _drain_all(self, transport: TransportT, now: float) -> list[Entry]:
        """Take back all that waits for a transport."""

    @abstractmethod
    def _gone(self, entry: Entry, now: float) -> None:
        """A delivery has ended: its recipients are out of memory."""

    # --- IScheduler ---

    def next(self, now: float) -> Entry | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        if self._timers:
            self._wake(now)
        ring = self._ring
        while ring:
            transport = ring[0]
            if not transport.resumes and transport.busy < transport.most:
                if not transport.rested:
                    self._rest(transport, now)
                else:
                    entry = self._take(transport, now)
                    if entry is not None:
                        transport.rested = not transport.settings.transport_rate_delay
                        if len(ring) > 1:
                            ring.rotate(-1)
                        return entry
            ring.popleft()
            transport.listed = False
        return None

    def done(self, entry: Entry, failed: DestinationFailure | None, now: float) -> Sequence[Entry]:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        key = entry.destination
        transport = self._transports[key.transport]
        destination: DestinationT = transport.destinations[key.nexthop]
        settings = transport.settings
        returned: Sequence[Entry] = ()
        self._gone(entry, now)
        if failed is None:
            if destination.failure is not None:
                self._resume(destination)
            before = destination.window.concurrency
            given = destination.window.succeeded(destination.busy)
            if settings.debug:
                feedback = settings.window.positive.amount(before) if given else None
                self._tell("unthrottle", destination, feedback, destination.window.concurrency)
        elif destination.failure is None:
            before = destination.window.concurrency
            dead = destination.window.failed()
            if settings.debug:
                feedback = None if dead else settings.window.negative.amount(before)
                self._tell("throttle", destination, feedback, 0 if dead else destination.window.concurrency)
            if dead:
                self._suspend(destination, now, settings.dead_time, failed)
                returned = self._drain(destination, now)
        destination.busy -= 1
        transport.busy -= 1
        if settings.rate_delay and not destination.resumes:
            self._suspend(destination, now, settings.rate_delay)
        if settings.transport_rate_delay and transport.waiting and not transport.resumes:
            self._rest(transport, now)
        if destination.waiting:
            if not destination.resumes and destination.busy < destination.window.concurrency:
                self._opened(destination)
        elif not destination.busy and not destination.resumes:
            del transport.destinations[key.nexthop]
        if transport.waiting and not transport.listed:
            self._list(transport)
        return returned

    def dead(self, transport: str, nexthop: str, now: float) -> DestinationFailure | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        # Only L{next} ends a wait: what becomes ready must be the business of somebody who asks for it.
        if not self._dead or now < self._now - _BACK:
            return None
        state = self._transports.get(transport)
        if state is None:
            return None
        if state.failure is not None and state.resumes > now:
            return state.failure
        destination = state.destinations.get(nexthop)
        if destination is None or destination.failure is None or destination.resumes <= now:
            return None
        failure: DestinationFailure = destination.failure
        return failure

    def wakeup(self, now: float) -> float | None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}."""
        timers = self._timers
        while timers and timers[0][2].resumes != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def flush(self) -> None:
        """See L{IScheduler<qmqpd_tx.interfaces.IScheduler>}. What a rate delay holds back stays."""
        for state in list(self._dead):
            self._resume(state)

    # --- IQueueScheduler ---

    def revive(self, transport: str, nexthop: str) -> None:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        state = self._transports.get(transport)
        if state is None:
            return
        if state.failure is not None:
            self._resume(state)
        destination = state.destinations.get(nexthop)
        if destination is not None and destination.failure is not None:
            self._resume(destination)

    def per_recipient(self, transport: str) -> bool:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        state = self._transports.get(transport) or self._transport(transport)
        return state.settings.recipient_limit == 1

    def throttle(self, transport: str, failure: DestinationFailure, now: float) -> Sequence[Entry]:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        state = self._transports.get(transport) or self._transport(transport)
        if now < self._now - _BACK:
            self._void(now)
        if state.failure is not None and state.resumes <= now:
            self._resume(state)
        if state.failure is None:
            self._suspend(state, now, state.settings.retry_time, failure)
        return self._drain_all(state, now)

    def reconfigure(self, settings: Callable[[str], TransportSettings], limits: RecipientLimits) -> None:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        self._settings = settings
        self._limits = limits
        for transport in self._transports.values():
            self._adopt(transport, settings(transport.name))
            for destination in transport.destinations.values():
                destination.window.adopt(transport.settings.window)
                self._reopen(destination)
            self._list(transport)

    def destinations(self, now: float) -> Iterator[DestinationStatus]:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        for transport in self._transports.values():
            for state in transport.destinations.values():
                status = state.status(now)
                if status is not None:
                    yield status

    def destination(self, transport: str, nexthop: str, now: float) -> DestinationStatus | None:
        """See L{IQueueScheduler<qmqpd_tx.qmgr.scheduling.control.IQueueScheduler>}."""
        state = self._transports.get(transport)
        found: DestinationT | None = state.destinations.get(nexthop) if state is not None else None
        return found.status(now) if found is not None else None

    # --- for the schedulers ---

    def _transport(self, name: str) -> TransportT:
        state = self._transports[name] = self._make_transport(name, self._settings(name))
        return state

    def _adopt(self, transport: TransportT, settings: TransportSettings) -> None:
        transport.adopt(settings)

    def _list(self, transport: TransportT) -> None:
        """Give a transport its place in the ring, if it may deliver."""
        if (
            not transport.listed
            and transport.waiting
            and not transport.resumes
            and transport.busy < transport.most
        ):
            transport.listed = True
            self._ring.append(transport)

    def _rest(self, transport: TransportT, now: float) -> None:
        """The pause before each delivery of a transport with a rate delay; the first too, as in Postfix."""
        transport.rested = True
        self._suspend(transport, now, transport.settings.transport_rate_delay)

    def _reopen(self, destination: DestinationT) -> None:
        if (
            destination.waiting
            and not destination.resumes
            and destination.busy < destination.window.concurrency
        ):
            self._opened(destination)

    def _forget(self, destination: DestinationT) -> None:
        """Drop a destination that has nothing to do and nothing to remember."""
        if not destination.waiting and not destination.busy and not destination.resumes:
            destination.transport.destinations.pop(destination.key.nexthop, None)

    def _wait(self, destination: DestinationT, now: float) -> tuple[Wait, float | None]:
        """What the entries of a destination wait for, and until when."""
        transport = destination.transport
        if transport.resumes > now:
            return Wait.TRANSPORT_RATE, transport.resumes
        if destination.resumes > now:
            return Wait.DESTINATION_RATE, destination.resumes
        if destination.busy >= destination.window.concurrency:
            return Wait.WINDOW, None
        if transport.busy >= transport.most:
            return Wait.PROCESSES, None
        return Wait.TURN, None

    # --- times ---

    def _suspend(
        self,
        state: DestinationT | TransportT,
        now: float,
        seconds: float,
        failure: DestinationFailure | None = None,
    ) -> None:
        """Leave something alone: dead with a failure, held back by a rate delay without."""
        if now < self._now - _BACK:
            self._void(now)
        self._now = max(self._now, now) if self._timers else now
        state.resumes = now + seconds
        self._serial += 1
        self._asleep[state] = None
        heapq.heappush(self._timers, (state.resumes, self._serial, state))
        if failure is not None:
            state.failure = failure
            dead = self._dead
            dead[state] = None
            if len(dead) > self._limits.limit:
                self._evict(next(iter(dead)), now)

    def _evict(self, state: DestinationT | TransportT, now: float) -> None:
        """Forget that something is dead; not that it keeps a distance."""
        delay = state.transport.settings.rate_delay if isinstance(state, DestinationState) else 0.0
        if not delay or not isinstance(state, DestinationState):
            self._resume(state)
            return
        del self._dead[state]
        state.failure = None
        state.window = Window(state.transport.settings.window)
        self._suspend(state, now, delay)

    def _resume(self, state: DestinationT | TransportT) -> None:
        """Make it as new; its place among the timers is void, because its time no longer agrees."""
        self._asleep.pop(state, None)
        if state.failure is not None:
            self._dead.pop(state, None)
            state.failure = None
            if isinstance(state, DestinationState):
                state.window = Window(state.transport.settings.window)
            else:
                state.rested = not state.settings.transport_rate_delay
        state.resumes = 0.0
        if isinstance(state, TransportState):
            self._list(state)
        else:
            self._forget(state)
            self._reopen(state)
            self._list(state.transport)

    def _void(self, now: float) -> None:
        """The clock was set back: no time means anything."""
        self._now = now
        for state in list(self._asleep):
            self._resume(state)

    def _wake(self, now: float) -> None:
        """Resume what has waited long enough."""
        if now < self._now - _BACK:
            self._void(now)
        self._now = now
        timers = self._timers
        while timers:
            when, _, state = timers[0]
            if state.resumes == when:
                if when > now:
                    return
                self._resume(state)
            heapq.heappop(timers)

    # --- words ---

    def _tell(self, what: str, destination: DestinationT, feedback: float | None, shown: int) -> None:
        """The lines of C{destination_concurrency_feedback_debug}, as Postfix writes them."""
        window = destination.window
        if feedback is not None:
            log.info("qmgr_queue_{what}: feedback {feedback}", what=what, feedback=f"{feedback:g}")
        log.info(
            "qmgr_queue_{what}: queue {nexthop}: limit {limit} window {window} success {success} "
            "failure {failure} fail_cohorts {fail_cohorts}",
            what=what,
            nexthop=destination.key.nexthop,
            limit=window.settings.limit,
            window=shown,
            success=f"{window.success:g}",
            failure=f"{window.failure:g}",
            fail_cohorts=f"{window.failed_cohorts:g}",
        )


def waiting_entries(
    destination: DestinationState,
    entries: Sequence[Entry],
    ordinal: int,
    wait: Wait,
    until: float | None,
    behind: Any | None,
) -> Iterator[WaitingEntry]:
    """
    @param entries: those of one message that wait for a destination, the next one last.
    @param ordinal: what C{put} of the destination was when the first of them came.
    @return: what they wait for. How many are before them is exact when entries leave in the order in which
        they came, and never more than there are.
    """
    gone = destination.put - destination.waiting
    for number, entry in enumerate(reversed(entries)):
        yield WaitingEntry(
            entry=entry,
            wait=wait,
            until=until,
            behind=behind,
            ahead=max(0, min(ordinal + number - gone, destination.waiting - 1)),
            window=destination.window.concurrency,
            busy=destination.busy,
        )
