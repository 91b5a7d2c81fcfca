"""Requeued mail through a real cleanup service: who gets it, and who hears of it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import IStoredMessage
from qmqpd_tx.message import Queue
from qmqpd_tx.qmgr.job import ActiveQueue
from qmqpd_tx.qmgr.requeue import Requeuer
from tests.cleanup.maps import BASE, inline
from tests.cleanup.support import Intake, run


class CopyTests(SynchronousTestCase):
    """Automatic copies of a message that is requeued."""

    def recipients(self, text: str) -> list[tuple[bytes, bool]]:
        """
        @return: who gets a message to r@x.test after it was requeued, and whether silently.
        """
        intake = Intake(BASE + text)
        kept: list[IStoredMessage] = []
        intake.arrivals.arrived = kept.append  # type: ignore[method-assign]
        intake.send([b"Subject: copy me\n\nbody\n"], recipients=[b"r@x.test"])
        requeuer = Requeuer(intake.cleanup, ActiveQueue(), lambda: "")
        done = Deferred.fromCoroutine(requeuer.requeue(kept[0]))
        self.assertIsInstance(self.successResultOf(done), str)
        found = run(kept[1].recipients(None, 100)).recipients
        return [(one.address, one.silent) for one in found]

    def test_silent(self) -> None:
        """
        A copy stays a copy, of which the sender does not hear, and nobody gets another one.
        """
        for text in (
            "always_bcc = log@x.test\n",
            f"sender_bcc_maps = {inline({'s@ex.test': 'log@x.test'})}\n",
            f"recipient_bcc_maps = {inline({'r@x.test': 'log@x.test'})}\n",
            "header_checks = pcre:{{/^Subject: copy/ BCC log@x.test}}\n",
        ):
            self.assertEqual(
                sorted(self.recipients(text)), [(b"log@x.test", True), (b"r@x.test", False)], text
            )

    def test_mapped(self) -> None:
        """
        Copies are mapped by today's rules, as all other recipients are.
        """
        alias = inline({"log@x.test": "one@x.test, two@x.test", "one@x.test": "one@x.test"})
        self.assertEqual(
            sorted(self.recipients(f"always_bcc = log@x.test\nvirtual_alias_maps = {alias}\n")),
            [(b"one@x.test", True), (b"r@x.test", False), (b"two@x.test", True)],
        )

    def test_nobody_else(self) -> None:
        """
        The message is in the queue once.
        """
        intake = Intake("always_bcc = log@x.test\n")
        intake.send([b"\nbody\n"])
        found: list[object] = []
        intake.queue.scan(Queue.INCOMING).next(10).addCallback(found.extend)
        self.assertEqual(len(found), 1)
