"""
When a service has done enough to look at its configuration again: C{max_use} and C{max_idle}.

Takes each connection that ends; calls somebody after every C{max_use} of them, and when nobody has come for
C{max_idle} since the last. A service that nobody uses looks at nothing and has no timer. There is one timer,
which is not moved for every connection. Answers to the end of life of Postfix's daemons, which read their
configuration when they start.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.qmqp.settings import Settings


class Usage:
    """
    @ivar settings: C{max_use} and C{max_idle}; may be replaced at any time.
    @param clock: the time.
    @param refresh: what to call.
    """

    __slots__ = ("_call", "_clock", "_count", "_last", "_refresh", "settings")

    def __init__(self, clock: IReactorTime, refresh: Callable[[], None], settings: Settings) -> None:
        self.settings = settings
        self._clock: IReactorTime = clock
        self._refresh = refresh
        self._count = 0
        self._last = 0.0
        self._call: IDelayedCall | None = None

    def used(self) -> None:
        """
        A connection has ended.
        """
        self._count += 1
        self._last = self._clock.seconds()
        if self._count >= self.settings.max_use:
            self._look()
        elif self._call is None:
            self._call = self._clock.callLater(self.settings.max_idle, self._idle)

    def stop(self) -> None:
        """
        The service ends.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _idle(self) -> None:
        self._call = None
        if not self._count:
            return
        left = self._last + self.settings.max_idle - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._idle)
        else:
            self._look()

    def _look(self) -> None:
        self._count = 0
        self._refresh()
