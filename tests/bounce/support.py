"""
Bounces over a cleanup service and a queue in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.bounce import Bounces
from qmqpd_tx.interfaces import IStoredMessage
from qmqpd_tx.message import Queue, QueueID, Recipient
from qmqpd_tx.status import Action, Outcome
from tests.cleanup.cases import COMPLETE
from tests.cleanup.support import CLIENT, Intake, Stored, config, run

CONTENT = COMPLETE + b"Subject: hey\n\nbody\n"


def failure(recipient: Recipient, text: str = "no such user", dsn: str = "5.1.1", **more: str) -> Outcome:
    """
    @return: a recipient's failure.
    """
    return Outcome(recipient, Action.BOUNCED, dsn, text, **more)


class BounceTestCase(SynchronousTestCase):
    """
    Sends messages and lets them fail.

    @ivar intake: cleanup and queue.
    @ivar bounces: the service under test.
    """

    def setUp(self) -> None:
        self.configure("")

    def configure(self, text: str) -> None:
        """
        Start afresh with these main.cf lines.
        """
        self.intake = Intake(text)
        self.bounces = Bounces(
            config=config(text),
            clock=self.intake.clock,
            queue=self.intake.queue,
            cleanup=self.intake.cleanup,
            timezone=lambda _: 0,
        )

    def message(
        self,
        content: bytes = CONTENT,
        sender: bytes = b"s@ex.test",
        recipients: Sequence[bytes] = (b"bad@y.test",),
        verp: bytes | None = None,
    ) -> tuple[IStoredMessage, list[Recipient]]:
        """
        @return: a message in the queue, and its recipients.
        """
        incoming = self.intake.cleanup.begin(CLIENT, verp)
        incoming.content(content)
        incoming.sender(sender)
        for recipient in recipients:
            incoming.recipient(recipient)
        queue_id: QueueID = self.successResultOf(incoming.finish())
        self.intake.arrivals.stored.clear()
        message: IStoredMessage = self.successResultOf(self.intake.queue.open(queue_id, Queue.INCOMING))
        return message, run(message.recipients(None, 1000000)).recipients

    def notices(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> list[Stored]:
        """
        @return: the notices that come of these failures.
        """
        self.successResultOf(self.bounces.bounced(message, outcomes))
        finished: Deferred[QueueID | None] = self.bounces.notify(message)
        notice = self.successResultOf(finished)
        stored = list(self.intake.arrivals.stored)
        self.intake.arrivals.stored.clear()
        if notice is not None:
            self.assertIn(notice, [found.queue_id for found in stored])
        return stored

    def parse(self, notice: Stored) -> tuple[Message, str, list[Message], Message]:
        """
        @return: the notice, its text, the blocks of its delivery status, and its last part.
        """
        report = message_from_bytes(notice.content)
        self.assertEqual(report.defects, [])
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        text, status, original = report.get_payload()
        self.assertEqual(text.get_content_type(), "text/plain")
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        return report, text.get_payload(decode=True).decode(), status.get_payload(), original
