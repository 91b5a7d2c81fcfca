"""
Simulated time: an L{IReactorTime<twisted.internet.interfaces.IReactorTime>} that jumps from one delayed call
to the next.

Takes delayed calls; makes them, in order of their times and, at one time, of their making. Nothing waits and
nothing is real. A heap, because a simulated day is some millions of calls:
L{Clock<twisted.internet.task.Clock>} sorts all of them each time one is added. An exception from a call ends
L{SimulatedClock.run} and is the caller's.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

_SWEEP: Final = 1000
"""With so many cancelled calls in the heap, it is worth looking whether they are most of it."""


@implementer(IDelayedCall)
class SimulatedCall:
    """
    See L{IDelayedCall}.

    @ivar when: its time.
    @ivar function: what is called; L{None} when it was called or cancelled.
    """

    __slots__ = ("_clock", "arguments", "cancelled", "function", "keywords", "when")

    def __init__(
        self,
        clock: SimulatedClock,
        when: float,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._clock = clock
        self.when = when
        self.function: Callable[..., Any] | None = function
        self.arguments = arguments
        self.keywords = keywords
        self.cancelled = False

    def getTime(self) -> float:
        """See L{IDelayedCall}."""
        return self.when

    def cancel(self) -> None:
        """See L{IDelayedCall}."""
        self._check()
        self.function = None
        self.cancelled = True
        self._clock.dropped()

    def delay(self, secondsLater: float) -> None:
        """See L{IDelayedCall}."""
        self._check()
        self.when += secondsLater
        self._clock.enter(self)

    def reset(self, secondsFromNow: float) -> None:
        """See L{IDelayedCall}."""
        self._check()
        self.when = self._clock.seconds() + secondsFromNow
        self._clock.enter(self)

    def active(self) -> bool:
        """See L{IDelayedCall}."""
        return self.function is not None

    def _check(self) -> None:
        if self.cancelled:
            raise AlreadyCancelled()
        if self.function is None:
            raise AlreadyCalled()


@implementer(IReactorTime)
class SimulatedClock:
    """
    @ivar calls: how many calls were made so far.
    @ivar exhausted: whether L{run} has ended because there were too many.
    """

    def __init__(self, now: float, most: int = sys.maxsize) -> None:
        """
        @param now: POSIX seconds.
        @param most: how many calls may be made.
        """
        self.calls = 0
        self.exhausted = False
        self._most = most
        self._now = now
        self._heap: list[tuple[float, int, SimulatedCall]] = []
        self._serial = 0
        self._dropped = 0
        self._stopped = False

    def seconds(self) -> float:
        """See L{IReactorTime}."""
        return self._now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> SimulatedCall:
        """See L{IReactorTime}."""
        if not delay >= 0:
            raise ValueError(f"callLater: a delay of {delay} seconds")
        call = SimulatedCall(self, self._now + delay, callable, args, kw)
        self._serial += 1
        heapq.heappush(self._heap, (call.when, self._serial, call))
        return call

    def getDelayedCalls(self) -> Sequence[SimulatedCall]:
        """See L{IReactorTime}."""
        return list({call: None for when, _, call in self._heap if call.function and when == call.when})

    def stop(self) -> None:
        """
        End L{run} after the call under way.
        """
        self._stopped = True

    def run(self, until: float) -> bool:
        """
        Make the calls up to a time.

        @param until: POSIX seconds; it is this time at the end, unless L{stop} was called or there were
            too many.
        @return: whether L{stop} was called.
        """
        most = self._most
        heap = self._heap
        pop = heapq.heappop
        self._stopped = False
        while heap and heap[0][0] <= until:
            when, _, call = pop(heap)
            function = call.function
            if function is None:
                self._dropped -= call.when == when
                continue
            if call.when != when:
                continue  # It was put off: it stands somewhere else, too.
            self._now = max(self._now, when)
            if self.calls >= most:
                self.exhausted = True
                return False
            call.function = None
            self.calls += 1
            function(*call.arguments, **call.keywords)
            if self._stopped:
                return True
        self._now = max(self._now, until)
        return False

    def enter(self, call: SimulatedCall) -> None:
        """
        A call has a new time.
        """
        self._serial += 1
        heapq.heappush(self._heap, (call.when, self._serial, call))

    def dropped(self) -> None:
        """
        A call was cancelled. Timers that are mostly cancelled must not fill the heap.
        """
        self._dropped += 1
        if self._dropped >= _SWEEP and self._dropped * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].function and entry[2].when == entry[0]]
            heapq.heapify(self._heap)
            self._dropped = 0
