"""
How long this thread has worked: what it did not do is not counted, what others kept it from doing is.
"""

from __future__ import annotations

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.worktime import SCHEDSTAT, WorkTime


class WorkTimeTests(SynchronousTestCase):
    """Of the test's own thread."""

    def work(self, seconds: float) -> None:
        """
        Use so much processor time.
        """
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    def check(self, path: str) -> None:
        """
        Work counts, at least as much as there was, and never more than there was time for it.
        """
        worked = WorkTime(path)
        self.addCleanup(worked.close)
        began, before = time.perf_counter(), worked()
        self.work(0.05)
        after, ended = worked(), time.perf_counter()
        self.assertGreaterEqual(after - before, 0.05)
        self.assertLess(after - before, ended - began + 0.02)

    def test_linux(self) -> None:
        """As the kernel tells, if it does."""
        self.check(SCHEDSTAT)

    def test_elsewhere(self) -> None:
        """Without that, or with something else there: the processor time."""
        self.check("/nowhere/schedstat")
        other = Path(self.mktemp())
        other.write_text("no figures\n")
        self.check(str(other))

    def test_waiting_is_work(self) -> None:
        """Time in the queue of a processor is no idle time."""
        stat = Path(self.mktemp())
        stat.write_text("1500000000 500000000 7\n")
        worked = WorkTime(str(stat))
        self.addCleanup(worked.close)
        before = worked()
        stat.write_text("1600000000 4500000000 9\n")
        self.assertTrue(4.0 <= worked() - before < 4.5)

    def test_up_to_date(self) -> None:
        """Work counts at once, not at the next tick of the scheduler."""
        worked = WorkTime()
        self.addCleanup(worked.close)
        for _ in range(50):
            before, used = worked(), time.process_time()
            sum(range(20_000))
            self.assertGreater(worked() - before, 0.5 * (time.process_time() - used) - 0.0001)
