"""
Intake first: how much time the queue manager may take while mail is arriving. Pure.

A client waits for its answer, and holds a connection and a process while it does; a message in the queue
can wait a little. So while mail keeps arriving, the queue manager gets a share of the time
(C{qmgr_intake_share}), and what nobody else wants: where the reactor's thread would be idle there is no need
to wait, and a steady stream must not fill the queue. As soon as nothing arrives there is no limit. The
opposite of C{in_flow_delay}, which slows down clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_QUIET_SECONDS: Final = 0.05
"""Without an arrival for so long, intake is quiet."""

_CREDIT_SECONDS: Final = 0.005
"""The most that is saved up: what a burst after a quiet time may take at once."""

_BUSY: Final = 0.75
"""
From which part of the time on the reactor's thread counts as busy: some of the rest it waits for a processor,
and a client should not often wait for the end of a turn.
"""

_WAIT_SECONDS: Final = 0.01
"""The longest wait for something to spend: there may be idle time before."""

UNLIMITED: Final = float("inf")


class IntakeShare:
    """
    @param share: the part of the time that the queue manager gets while mail arrives, over 0 to 1; 1 is
        without limit.
    @param worked: gives how many seconds the reactor's thread has worked; L{None}: it always does.
    """

    __slots__ = ("_credit", "_last_arrival", "_last_others", "_last_time", "_spent", "_worked", "share")

    def __init__(self, share: float, worked: Callable[[], float] | None = None) -> None:
        self.share = share
        self._worked = worked
        # How long it has worked for anybody else, and for the queue manager's turns.
        self._last_others = 0.0
        self._spent = 0.0
        self._credit = _CREDIT_SECONDS
        self._last_arrival = -UNLIMITED
        self._last_time = 0.0

    def arrived(self, now: float) -> None:
        """
        A message came in.
        """
        self._last_arrival = now

    def allowance(self, now: float) -> float:
        """
        @return: how many seconds of work may be done now; not over 0 if none; L{UNLIMITED} when nothing
            arrives.
        """
        # A clock that was set back must not count against anybody.
        elapsed = max(0.0, now - self._last_time)
        self._last_time = now
        earned = elapsed * self.share
        if self._worked is not None:
            others = self._worked() - self._spent
            earned = max(earned, elapsed * _BUSY - (others - self._last_others))
            self._last_others = others
        self._credit = min(_CREDIT_SECONDS, self._credit + earned)
        if self.share >= 1 or not 0 <= now - self._last_arrival < _QUIET_SECONDS:
            return UNLIMITED
        return self._credit

    def spent(self, seconds: float) -> None:
        """
        Work was done.
        """
        self._spent += seconds
        # The last step may have overdrawn it; a very long one must not silence the queue for long.
        self._credit = max(self._credit - seconds, -_CREDIT_SECONDS)

    def wait(self) -> float:
        """
        @return: in how many seconds there may be something to spend again.
        """
        return min(_WAIT_SECONDS, max(0.0, _CREDIT_SECONDS / 10 - self._credit) / self.share)
