"""What is on hold waits for an operator."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import Queue
from tests.cleanup.support import Intake


class HoldTests(SynchronousTestCase):
    """HOLD in a table of checks."""

    def test_nobody_hears(self) -> None:
        """
        The message is accepted and in C{hold}; the queue manager does not hear of it.
        """
        intake = Intake("header_checks = static:HOLD\n")
        accepted = intake.send([b"Subject: x\n\nbody\n"], b"s@x.test", [b"r@y.test"])
        queue_id = self.successResultOf(accepted)
        self.assertEqual(intake.arrivals.stored, [])
        scan = intake.queue.scan(Queue.HOLD)
        self.assertEqual([entry.queue_id for entry in self.successResultOf(scan.next(10))], [queue_id])
        scan = intake.queue.scan(Queue.INCOMING)
        self.assertEqual(self.successResultOf(scan.next(10)), [])
