"""
Intake first: how much time the queue manager may take while mail is arriving. Pure.

A client waits for its answer, and holds a connection and a process while it does; a message in the queue
can wait a little. So while mail keeps arriving, admission gets a share of the time (C{qmgr_intake_share});
as soon as it stops, or where the machine has time left for both, there is no limit. The opposite of
C{in_flow_delay}, which slows down clients.
"""

from __future__ import annotations

from typing import Final

_QUIET_SECONDS: Final = 0.05
"""Without an arrival for so long, intake is quiet."""

_CREDIT_SECONDS: Final = 0.005
"""The most that is saved up: what a burst after a quiet time may take at once."""

UNLIMITED: Final = float("inf")


class IntakeShare:
    """
    @param share: the part of the time that the queue manager gets while mail arrives, over 0 to 1; 1 is
        without limit.
    """

    __slots__ = ("_credit", "_last_arrival", "_last_time", "share")

    def __init__(self, share: float) -> None:
        self.share = share
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
        self._credit = min(_CREDIT_SECONDS, self._credit + elapsed * self.share)
        if self.share >= 1 or not 0 <= now - self._last_arrival < _QUIET_SECONDS:
            return UNLIMITED
        return self._credit

    def spent(self, seconds: float) -> None:
        """
        Work was done.
        """
        # The last step may have overdrawn it; a very long one must not silence the queue for long.
        self._credit = max(self._credit - seconds, -_CREDIT_SECONDS)

    def wait(self) -> float:
        """
        @return: in how many seconds there is something to spend again.
        """
        return max(0.0, _CREDIT_SECONDS / 10 - self._credit) / self.share
