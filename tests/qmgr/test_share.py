"""
Intake first, and never for long.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.share import UNLIMITED, IntakeShare


class IntakeShareTests(SynchronousTestCase):
    """
    What the queue manager may take while mail arrives.
    """

    def test_quiet(self) -> None:
        """
        When nothing arrives there is no limit, whatever was spent.
        """
        share = IntakeShare(0.1)
        share.spent(10.0)
        self.assertEqual(share.allowance(100.0), UNLIMITED)

    def test_one_message(self) -> None:
        """
        A message that arrives in a quiet time is not held up.
        """
        share = IntakeShare(0.1)
        share.allowance(100.0)
        share.arrived(101.0)
        self.assertGreater(share.allowance(101.0), 0.001)

    def test_flood(self) -> None:
        """
        Under a flood the work done comes to the share of the time, and C{wait} says when to go on.
        """
        share = IntakeShare(0.1)
        now, worked = 100.0, 0.0
        while now < 110.0:
            share.arrived(now)
            if share.allowance(now) <= 0:
                now += max(share.wait(), 0.0001)
                continue
            share.spent(0.001)
            worked += 0.001
            now += 0.001
        self.assertTrue(0.9 < worked < 1.1, worked)

    def stream(self, each: float, work: float) -> float:
        """
        A steady stream of mail.

        @param each: one message comes every so many seconds.
        @param work: how many seconds the thread works to take one.
        @return: what part of the time the queue manager may take, if it always has something to do.
        """
        worked = 0.0
        share = IntakeShare(0.1, lambda: worked)
        now, taken = 100.0, 0.0
        while now < 110.0:
            share.arrived(now)
            worked += work
            used = min(max(share.allowance(now + work), 0.0), each - work)
            share.spent(used)
            worked += used
            taken += used
            now += each
        return taken / 10

    def test_idle_time(self) -> None:
        """
        A steady stream leaves time for deliveries: the queue manager may take it. When intake needs all of
        the time, the queue manager has its share.
        """
        self.assertGreater(self.stream(0.003, 0.0005), 0.5)
        self.assertGreater(self.stream(0.001, 0.0005), 0.2)
        self.assertTrue(0.05 < self.stream(0.001, 0.0009) < 0.11)

    def test_flood_ends(self) -> None:
        """
        Soon after the last arrival there is no limit any more.
        """
        share = IntakeShare(0.1)
        share.arrived(100.0)
        share.allowance(100.0)
        share.spent(1.0)
        self.assertLessEqual(share.allowance(100.0), 0.0)
        self.assertEqual(share.allowance(100.1), UNLIMITED)

    def test_clock_set_back(self) -> None:
        """
        A clock that steps back lifts the limit instead of keeping it for as long as the step.
        """
        share = IntakeShare(0.1)
        share.arrived(1000.0)
        share.spent(1.0)
        self.assertEqual(share.allowance(500.0), UNLIMITED)

    def test_no_priority(self) -> None:
        """
        A share of all of the time is no limit.
        """
        share = IntakeShare(1.0)
        share.arrived(100.0)
        share.spent(1.0)
        self.assertEqual(share.allowance(100.0), UNLIMITED)
