"""
When the queue manager works: in turns on the reactor, each bounded in time, so that intake can answer its
clients between two of them.

Takes the steps of which a turn is made, and takes them until none has anything to do; then sleeps until
somebody wakes it, or the scheduler's next time has come. While mail arrives, it works no more than its share
of the time, or what is left of it (L{share<qmqpd_tx.qmgr.share>}). An exception from a step is a bug: it is
logged, and a pause follows, so that it neither stops the queue nor fills the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.events import Logger
from qmqpd_tx.qmgr.share import IntakeShare

log = Logger(namespace="qmqpd_tx.qmgr")

_TURN_SECONDS: Final = 0.005
"""How long one turn may keep the reactor."""

_TURN_STEPS: Final = 200
"""How many steps one turn may take, whatever the clock says."""

_BUG_SECONDS: Final = 1.0
"""How long to wait after a turn that ended in an exception."""

_IDLE_SECONDS: Final = 300.0
"""The longest wait for a time before the clock is looked at again."""


class Turns:
    """
    The queue manager's turns.

    @ivar share: how much of the time they may take.
    """

    def __init__(self, clock: IReactorTime, share: float, worked: Callable[[], float] | None = None) -> None:
        """
        @param clock: time and timers.
        @param share: C{qmgr_intake_share}, over 0 to 1.
        @param worked: as in L{IntakeShare}.
        """
        self._clock = clock
        self.share = IntakeShare(share, worked)
        self._steps: tuple[Callable[[], bool], Callable[[], bool], Callable[[], bool]] | None = None
        self._next_time: Callable[[float], float | None] = lambda now: None
        self._running = False
        self._in_turn = False
        self._turn_call: IDelayedCall | None = None
        self._wakeup_call: IDelayedCall | None = None

    def start(
        self,
        admit: Callable[[], bool],
        deliver: Callable[[], bool],
        read: Callable[[], bool],
        next_time: Callable[[float], float | None],
    ) -> None:
        """
        Begin to work.

        @param admit: admits a message; says whether there was one.
        @param deliver: begins a delivery, likewise.
        @param read: reads recipients, likewise.
        @param next_time: when there may be something to do without being woken, POSIX seconds.
        """
        self._steps = (admit, deliver, read)
        self._next_time = next_time
        self._running = True

    def stop(self) -> None:
        """
        Work no more.
        """
        self._running = False
        for call in (self._turn_call, self._wakeup_call):
            if call is not None and call.active():
                call.cancel()
        self._turn_call = self._wakeup_call = None

    def wake(self) -> None:
        """
        There may be something to do.
        """
        if self._turn_call is None and not self._in_turn and self._running:
            self._turn_call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        assert self._steps is not None
        clock = self._clock.seconds
        admit, deliver, read = self._steps
        share = self.share
        began = clock()
        allowance = share.allowance(began)
        if allowance <= 0:
            self._turn_call = self._clock.callLater(share.wait(), self._turn)
            return
        self._in_turn = True
        limit = min(_TURN_SECONDS, allowance)
        steps = 0
        pause = 0.0
        try:
            while admit() | read() | deliver():
                steps += 1
                if steps >= _TURN_STEPS or not 0 <= clock() - began < limit:
                    break
            else:
                self._sleep()
                return
        except Exception:
            log.failure("queue manager turn")
            pause = _BUG_SECONDS
        finally:
            self._in_turn = False
            share.spent(clock() - began)
        if self._running:
            self._turn_call = self._clock.callLater(pause, self._turn)

    def _sleep(self) -> None:
        """Nothing to do: see that a rate delay or the end of a suspension wakes us."""
        now = self._clock.seconds()
        when = self._next_time(now)
        call = self._wakeup_call
        if call is not None and call.active():
            call.cancel()
        self._wakeup_call = None
        if when is not None and self._running:
            delay = min(max(when - now, 0.0), _IDLE_SECONDS)
            self._wakeup_call = self._clock.callLater(delay, self.wake)
