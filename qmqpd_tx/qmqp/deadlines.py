"""
When each connection wants to see whether something is overdue: one delayed call for all of them.

Takes connections, each with a time; calls those whose time has come. Nearly every connection is over long
before, and a delayed call of its own would be made, sorted and thrown away for nothing. There is one as long
as there is a connection, so an idle server has none. A time is never early, and as late as the reactor is.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.events import Logger

log = Logger(namespace="qmqpd_tx.qmqpd")


class Waiter(Protocol):
    """Who has a time."""

    def overdue(self) -> None:
        """
        The time has come.
        """


class Deadlines:
    """
    The times of many.

    @param clock: the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._times: dict[Waiter, float] = {}
        self._call: IDelayedCall | None = None
        self._next = inf

    def set(self, waiter: Waiter, when: float) -> None:
        """
        Give it a time, in place of the one that it may have.

        @param when: seconds of the clock.
        """
        self._times[waiter] = when
        if when < self._next:
            self._wait(when)

    def clear(self, waiter: Waiter) -> None:
        """
        It has no time any more.
        """
        if self._times.pop(waiter, None) is not None and not self._times:
            self._stop()

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._times

    def _wait(self, when: float) -> None:
        now = self._clock.seconds()
        delay = max(0.0, when - now)
        while now + delay < when:
            delay = nextafter(delay, inf)
        self._next = when
        if self._call is None:
            self._call = self._clock.callLater(delay, self._due)
        else:
            self._call.reset(delay)

    def _stop(self) -> None:
        call, self._call = self._call, None
        self._next = inf
        if call is not None:
            call.cancel()

    def _due(self) -> None:
        self._call = None
        self._next = inf
        now = self._clock.seconds()
        for waiter in [waiter for waiter, when in self._times.items() if when <= now]:
            # The one before may have changed it.
            if self._times.get(waiter, inf) <= now:
                del self._times[waiter]
                try:
                    waiter.overdue()
                except Exception:
                    log.failure("a connection whose time has come")
        if self._times and (earliest := min(self._times.values())) < self._next:
            self._wait(earliest)
