"""
How long this thread has worked: what it did not do is not counted, what others kept it from doing is.
"""

from __future__ import annotations

import os
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
        # The scheduler's figures are a tick old.
        self.assertGreater(after - before, 0.03)
        self.assertLess(after - before, ended - began + 0.02)

    def test_linux(self) -> None:
        """As the kernel tells."""
        if not os.path.exists(SCHEDSTAT):
            self.skipTest(f"there is no {SCHEDSTAT} here")
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
        self.assertEqual(worked(), 2.0)
        stat.write_text("1600000000 900000000 9\n")
        self.assertEqual(worked(), 2.5)
