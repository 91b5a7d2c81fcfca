"""
How long a delivery may take: its transport's C{daemon_timeout}.

Looks after all deliveries under way with one timer, at the earliest deadline. A delivery that is late is
cancelled, and has a few seconds to say what is certain; one that does not end even then is given up.
Answers to the watchdog that Postfix's delivery agents have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import Entry
from qmqpd_tx.status import DeliveryReport

log = Logger(namespace="qmqpd_tx.qmgr")

CANCEL_SECONDS: Final = 5.0
"""How long a cancelled delivery may take to say what is certain."""

_NEVER: Final = float("inf")


class Delivery:
    """
    One delivery under way.

    @ivar report: gives its result.
    @ivar started: when it began, POSIX seconds.
    @ivar deadline: when something has to be done about it, POSIX seconds.
    @ivar cancelled: whether that was done.
    """

    __slots__ = ("cancelled", "deadline", "report", "started")

    def __init__(self, report: Deferred[DeliveryReport], started: float, deadline: float) -> None:
        self.report = report
        self.started = started
        self.deadline = deadline
        self.cancelled = False


class Deadlines:
    """
    The deadlines of the deliveries under way.

    @ivar next: when they are looked at, POSIX seconds. A delivery with an earlier deadline needs L{look_at}.
    """

    def __init__(
        self,
        clock: IReactorTime,
        under_way: Mapping[Entry, Delivery],
        time_limit: Callable[[str], float],
        give_up: Callable[[Entry, Delivery], None],
    ) -> None:
        """
        @param clock: time and timer.
        @param under_way: the deliveries.
        @param time_limit: how long one of a transport may take, seconds.
        @param give_up: called with one that does not end; it is not under way any more then.
        """
        self._clock = clock
        self._under_way = under_way
        self._time_limit = time_limit
        self._give_up = give_up
        self._limits: dict[str, float] = {}
        self._call: IDelayedCall | None = None
        self.next = _NEVER

    def limit(self, transport: str) -> float:
        """
        @return: how long a delivery of a transport may take, seconds.
        """
        limit = self._limits.get(transport)
        if limit is None:
            limit = self._limits[transport] = self._time_limit(transport)
        return limit

    def reconfigure(self) -> None:
        """
        Ask anew for the limits, for deliveries that begin from now on.
        """
        self._limits.clear()

    def stop(self) -> None:
        """
        Look no more.
        """
        self.look_at(_NEVER)

    def look_at(self, when: float) -> None:
        """
        Look at the deliveries at that time.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self.next = when
        if when < _NEVER:
            delay = max(0.0, when - self._clock.seconds())
            self._call = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._call = None
        self.next = _NEVER
        now = self._clock.seconds()
        following = _NEVER
        for entry, delivery in list(self._under_way.items()):
            if delivery.deadline <= now:
                if delivery.cancelled:
                    self._give_up(entry, delivery)
                    continue
                log.warn(
                    "{queue_id}: transport {transport}: delivery not done within {limit} seconds"
                    " (daemon_timeout): cancelled",
                    queue_id=entry.job.queue_id,
                    transport=entry.destination.transport,
                    limit=round(delivery.deadline - delivery.started),
                )
                delivery.cancelled = True
                delivery.deadline = now + CANCEL_SECONDS
                delivery.report.cancel()
            if entry in self._under_way:
                following = min(following, delivery.deadline)
        # What has begun meanwhile has set a time of its own.
        if following < self.next:
            self.look_at(following)
