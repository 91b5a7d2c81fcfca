"""
The times of connections: each is called at its own time, and nothing is left behind.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmqp.deadlines import Deadlines


class Someone:
    """Notes when it is called."""

    def __init__(self, clock: Clock, deadlines: Deadlines, again: float | None = None) -> None:
        self.called: list[float] = []
        self.clears: Someone | None = None
        self._clock = clock
        self._deadlines = deadlines
        self._again = again

    def overdue(self) -> None:
        self.called.append(self._clock.seconds())
        if self.clears is not None:
            self._deadlines.clear(self.clears)
        if self._again is not None:
            again, self._again = self._again, None
            self._deadlines.set(self, again)


class DeadlinesTests(SynchronousTestCase):
    """Several at a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)

    def someone(self, when: float, again: float | None = None) -> Someone:
        """
        @return: one who has a time.
        """
        one = Someone(self.clock, self.deadlines, again)
        self.deadlines.set(one, when)
        return one

    def test_each_at_its_time(self) -> None:
        """Whatever the order in which they came."""
        late, early, again = self.someone(30), self.someone(10), self.someone(20, again=40)
        for _ in range(50):
            self.clock.advance(1)
        self.assertEqual([late.called, early.called, again.called], [[30], [10], [20, 40]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_time(self) -> None:
        """Earlier or later than before: only the last one counts."""
        sooner, later = self.someone(20), self.someone(5)
        self.deadlines.set(sooner, 2)
        self.deadlines.set(later, 8)
        self.clock.pump([1] * 30)
        self.assertEqual((sooner.called, later.called), ([2], [8]))

    def test_cleared(self) -> None:
        """Nobody is called who has no time any more, not even by another one's doing; no call is left."""
        first, second, third = self.someone(10), self.someone(10), self.someone(20)
        first.clears = second
        self.assertIn(third, self.deadlines)
        self.deadlines.clear(third)
        self.assertNotIn(third, self.deadlines)
        self.clock.advance(60)
        self.assertEqual((first.called, second.called, third.called), ([60], [], []))
        fourth = self.someone(100)
        self.deadlines.clear(fourth)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 2e9))
    def test_never_early(self, times: list[float], start: float) -> None:
        """Nor lost, nor again and again, however the times round."""
        clock = Clock()
        clock.rightNow = start
        deadlines = Deadlines(clock)
        waiting = [Someone(clock, deadlines) for _ in times]
        for one, time in zip(waiting, times, strict=True):
            deadlines.set(one, start + time)
        while calls := clock.getDelayedCalls():
            clock.advance(max(calls[0].getTime() - clock.seconds(), 0.0))
        for one, time in zip(waiting, times, strict=True):
            self.assertEqual(len(one.called), 1)
            self.assertGreaterEqual(one.called[0], start + time)

    def test_defect(self) -> None:
        """One who fails does not keep the others from their time."""

        class Broken(Someone):
            def overdue(self) -> None:
                raise ZeroDivisionError

        self.deadlines.set(Broken(self.clock, self.deadlines), 1)
        other = self.someone(1)
        self.clock.advance(2)
        self.assertEqual(other.called, [2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
