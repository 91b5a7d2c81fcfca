"""
The same delays through Postfix and through our bounce service: the notices have the same structure.

The words are our own; everything that programs read is the same, as in L{test_bounce}.
"""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred

from qmqpd_tx.message import QueueID, Recipient
from qmqpd_tx.status import Action, Outcome
from tests.bounce.support import BounceTestCase
from tests.cleanup.cases import Case
from tests.cleanup.sink import Sink
from tests.cleanup.support import Stored
from tests.interop.test_bounce import CONTENT, LARGE, Notice, notice
from tests.interop.test_content import SETTINGS, qmqp
from tests.peers import PrivatePostfix
from tests.service import wait_until

LATER = b"450 4.2.1 not now, and not before the end of the week: " + b"word " * 20 + b"end\r\n"
OK = b"250 2.0.0 Ok"


class DelayComparison(BounceTestCase):
    """Postfix and we agree on what a notice about a delay says."""

    def setUp(self) -> None:
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.__exit__)
        self.sink.refuse = {b"late": LATER}

    def start(self, **settings: str) -> None:
        """
        Start Postfix, which warns at once.
        """
        settings = {"delay_warning_time": "1s", **settings}
        relay = {"relayhost": f"[127.0.0.1]:{self.sink.port}"}
        self.postfix = PrivatePostfix({**relay, **SETTINGS, **settings})
        self.addCleanup(self.postfix.stop)
        self.postfix.start()
        self.configure("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def theirs(self, case: Case, delays: int) -> list[Notice]:
        """
        Let Postfix defer a message, and then deliver it.

        @return: its notices.
        """
        reply = qmqp(self.postfix.port, case)
        self.assertTrue(reply.startswith(b"K"), reply)
        queue_id = reply.rpartition(b" ")[2].decode()

        def deferred(times: int) -> bool:
            pattern = rf"{queue_id}: to=<[^>]*>.*status=deferred"
            return len(re.findall(pattern, self.postfix.log())) >= times * len(case.recipients)

        wait_until(lambda: deferred(1), 20, "an attempt")
        # The clock may have been at the end of a second.
        for times in (2, 3):
            wait_until(lambda: "deferred" in self.queues(queue_id), 20, "the message in deferred")
            self.postfix.command("postqueue", "-f")
            wait_until(lambda times=times: deferred(times), 20, "another attempt")
        self.sink.wait_for(delays, 20)
        self.sink.refuse = {}
        wait_until(lambda: "deferred" in self.queues(queue_id), 20, "the message in deferred")
        self.postfix.command("postqueue", "-f")
        wait_until(lambda: f"{queue_id}: removed" in self.postfix.log(), 20, "the end of the message")
        wait_until(lambda: not any(self.postfix.queue_files()), 20, "an empty queue")
        return [
            notice(delivery.sender, delivery.recipients, delivery.content, [queue_id])
            for delivery in self.sink.deliveries
            if b"multipart/report" in delivery.content
        ]

    def queues(self, queue_id: str) -> list[str]:
        """
        @return: where Postfix has a message.
        """
        places = [path.relative_to(self.postfix.spool) for path in self.postfix.queue_files()]
        return [place.parts[0] for place in places if place.name == queue_id]

    def ours(self, case: Case) -> list[Notice]:
        """
        @return: our notices for the same.
        """
        sender, verp = case.sender, None
        if sender.endswith(b"-@[]"):
            sender, verp = sender[:-4].replace(b"-@", b"@"), b"-="
        message, recipients = self.message(case.content, sender, case.recipients, verp)
        self.intake.clock.advance(1)
        for _ in range(2):
            late = [self.outcome(recipient, Action.DEFERRED, LATER) for recipient in recipients]
            self.successResultOf(self.bounces.deferred(message, late))
            warned: Deferred[QueueID | None] = self.bounces.delayed(message)
            self.successResultOf(warned)
        sent = [self.outcome(recipient, Action.SENT, OK) for recipient in recipients]
        self.successResultOf(self.bounces.delivered(message, sent))
        self.successResultOf(self.bounces.notify(message))
        return [self.notice(found, message.queue_id) for found in self.intake.arrivals.stored]

    def notice(self, found: Stored, queue_id: QueueID) -> Notice:
        """
        @return: one of ours, to be compared.
        """
        recipients = tuple(b"<%s>" % address for address, _ in found.recipients)
        return notice(b"<%s>" % found.envelope.sender, recipients, found.content, [queue_id])

    def outcome(self, recipient: Recipient, action: Action, reply: bytes) -> Outcome:
        """
        @return: what the SMTP client would report.
        """
        text = reply.decode().strip()
        dsn = text.split()[1]
        relay = f"127.0.0.1[127.0.0.1]:{self.sink.port}"
        said = f"host 127.0.0.1[127.0.0.1] said: {text} (in reply to RCPT TO command)"
        return Outcome(
            recipient, action, dsn, text if action is Action.SENT else said, relay, "127.0.0.1", text
        )

    def compare(self, case: Case, delays: int = 1, clears: int = 0) -> None:
        """
        @param delays: how many notices that a message is late.
        @param clears: how many that it was delivered.
        @raise FailTest: the notices differ.
        """
        theirs, ours = self.theirs(case, delays), self.ours(case)
        self.assertEqual(len(ours), delays + clears)
        self.assertEqual(sorted(theirs, key=repr), sorted(ours, key=repr))

    def test_warning(self) -> None:
        """
        One warning, however many attempts; none when the message is delivered.
        """
        self.start()
        self.compare(Case("one", CONTENT, recipients=(b"late@y.test",)))

    def test_confirmation(self) -> None:
        """
        With C{confirm_delay_cleared}, another when it is delivered, about all that it was delivered to.
        """
        self.start(confirm_delay_cleared="yes")
        self.compare(Case("two", LARGE, recipients=(b"late@y.test", b"late2")), 1, 1)

    def test_postmaster_copy(self) -> None:
        """
        The postmaster gets a copy of the warning, and none of the other.
        """
        self.start(confirm_delay_cleared="yes", notify_classes="delay, bounce")
        self.compare(Case("copy", CONTENT, recipients=(b"late@y.test",)), 2, 1)

    def test_verp(self) -> None:
        """
        Notices about a delay go to the sender as it was before its expansion, one for all recipients.
        """
        self.start(confirm_delay_cleared="yes")
        self.sink.refuse = {b"<late": LATER}
        self.compare(Case("verp", CONTENT, b"l-@x.test-@[]", (b"late@y.test", b"late@z.test")), 1, 1)

    def test_null_sender(self) -> None:
        """
        Nobody is told that a notice is late.
        """
        self.start(confirm_delay_cleared="yes", notify_classes="delay, 2bounce")
        self.compare(Case("null", CONTENT, b"", (b"late@y.test",)), 0, 0)

    def test_double_bounce_sender(self) -> None:
        """
        Nor that a notice to the postmaster is.
        """
        self.start(confirm_delay_cleared="yes", notify_classes="delay, 2bounce")
        self.compare(Case("double", CONTENT, b"double-bounce@relay.test", (b"late@y.test",)), 0, 0)
