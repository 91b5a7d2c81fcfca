"""
The same failures through Postfix and through our bounce service: the notices have the same structure.

The words are our own, and the encoding is declared more exactly than Postfix does; everything that programs
read is the same.
"""

from __future__ import annotations

import re
import time
from email import message_from_bytes
from email.message import Message

from attrs import frozen

from qmqpd_tx.address import quote_address
from qmqpd_tx.message import Recipient
from qmqpd_tx.status import Action, Outcome
from tests.bounce.support import BounceTestCase
from tests.cleanup.cases import COMPLETE, Case
from tests.cleanup.sink import Sink
from tests.interop.test_content import SETTINGS, neutral, qmqp
from tests.peers import PrivatePostfix

REFUSALS = {
    b"bad@": b"550 5.1.1 <bad> no such user here\r\n",
    b"multi@": b"550-5.7.1 line one\r\n550 5.7.1 line two\r\n",
    b"plain@": b"554 plain reply that is so long that it has to be folded: " + b"word " * 30 + b"end\r\n",
}
CONTENT = COMPLETE + b"Subject: hey\n\nbody\n"
LARGE = CONTENT + b"a line of fifty characters with nothing in it .....\n" * 2000


@frozen
class Notice:
    """
    What can be compared of a notice.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...]
    parts: tuple[str, ...]
    status: tuple[tuple[tuple[str, str], ...], ...]
    attached: str


def neutral_text(text: str) -> str:
    """
    @return: a value without spacing, queue ids and dates; names of fields do not matter here.
    """
    text = re.sub(r"[A-Z][a-z]{2}, [ 0-9]\d [A-Z][a-z]{2} \d{4} [\d:]{8} \+0000( \(UTC\))?", "DATE", text)
    return " ".join(text.replace("rfc822;", "rfc822; ").replace("X-Postfix", "x-postfix").split())


def notice(sender: bytes, recipients: tuple[bytes, ...], content: bytes, ids: list[str]) -> Notice:
    """
    @param ids: queue ids, which differ.
    """
    text = neutral(content.replace(b"\r\n", b"\n"))
    for queue_id in ids:
        text = text.replace(queue_id.encode(), b"ORIGINAL")
    report: Message = message_from_bytes(text)
    assert report.is_multipart() and not report.defects, content
    parts: list[Message] = report.get_payload()
    last = parts[2].get_payload()
    attached = last[0].as_string() if isinstance(last, list) else last
    skip = {"Received", "Content-Type", "Content-Transfer-Encoding", "Message-Id", "Date"}
    return Notice(
        sender.partition(b" ")[0],
        recipients,
        tuple((name, value) for name, value in report.items() if name not in skip),
        tuple(f"{part.get_content_type()} {part['Content-Description']}" for part in parts),
        tuple(
            sorted(
                tuple((name, neutral_text(value)) for name, value in block.items())
                for block in parts[1].get_payload()
            )
        ),
        neutral_text(attached),
    )


class BounceComparison(BounceTestCase):
    """Postfix and we agree on what a notice says."""

    def setUp(self) -> None:
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.__exit__)
        self.sink.refuse = dict(REFUSALS)

    def start(self, **settings: str) -> None:
        """
        Start Postfix.
        """
        self.postfix = PrivatePostfix({"relayhost": f"[127.0.0.1]:{self.sink.port}", **SETTINGS, **settings})
        self.addCleanup(self.postfix.stop)
        self.postfix.start()
        self.configure("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def theirs(self, case: Case, count: int) -> list[Notice]:
        """
        @return: Postfix's notices for a message.
        """
        reply = qmqp(self.postfix.port, case)
        self.assertTrue(reply.startswith(b"K"), reply)
        queue_id = reply.rpartition(b" ")[2].decode()
        end = time.monotonic() + 20
        while f"{queue_id}: removed" not in self.postfix.log():
            self.assertLess(time.monotonic(), end, self.postfix.log()[-2000:])
            self.sink.wait_for(count + 1, 0.05)
        deliveries = self.sink.wait_for(count, 20 if count else 0.5)
        self.assertEqual(len(deliveries), count)
        return [
            notice(delivery.sender, delivery.recipients, delivery.content, [queue_id])
            for delivery in deliveries
        ]

    def ours(self, case: Case) -> list[Notice]:
        """
        @return: our notices for the same failures.
        """
        sender, verp = case.sender, None
        if sender.endswith(b"-@[]"):
            sender, verp = sender[:-4].replace(b"-@", b"@"), b"-="
        message, recipients = self.message(case.content, sender, case.recipients, verp)
        stored = self.notices(message, [self.outcome(recipient) for recipient in recipients])
        return [
            notice(
                b"<%s>" % found.envelope.sender,
                tuple(b"<%s>" % quote_address(address) for address, _ in found.recipients),
                found.content,
                [message.queue_id],
            )
            for found in stored
        ]

    def outcome(self, recipient: Recipient) -> Outcome:
        """
        @return: what the SMTP client would report.
        """
        reply = next(reply for key, reply in REFUSALS.items() if key in recipient.address)
        text = reply.replace(b"\r\n", b" ").decode().strip()
        found = re.search(r"\b5\.\d\.\d\b", text)
        return Outcome(
            recipient,
            Action.BOUNCED,
            found.group() if found else "5.0.0",
            f"host 127.0.0.1[127.0.0.1] said: {text} (in reply to RCPT TO command)",
            f"127.0.0.1[127.0.0.1]:{self.sink.port}",
            "127.0.0.1",
            text,
        )

    def compare(self, case: Case, count: int = 1) -> None:
        """
        @raise FailTest: the notices differ.
        """
        theirs, ours = self.theirs(case, count), self.ours(case)
        self.assertEqual(len(ours), count)
        self.assertEqual(sorted(theirs, key=repr), sorted(ours, key=repr))

    def test_one_recipient(self) -> None:
        """
        A single failure.
        """
        self.start()
        self.compare(Case("one", CONTENT, recipients=(b"bad@y.test",)))

    def test_many_recipients(self) -> None:
        """
        Several failures, with folded and multi-line replies, and an address that was completed.
        """
        self.start()
        self.compare(Case("many", CONTENT, recipients=(b"bad@y.test", b"multi", b"plain@y.test")))

    def test_large(self) -> None:
        """
        Only the headers of a large message.
        """
        self.start()
        self.compare(Case("large", LARGE, recipients=(b"bad@y.test",)))

    def test_eight_bit(self) -> None:
        """
        Bytes above 127 in header and body.
        """
        self.start()
        content = CONTENT.replace(b"hey", b"h\xe9y") + b"\xff\n"
        self.compare(Case("8 bit", content, recipients=(b"bad@y.test",)))

    def test_null_sender(self) -> None:
        """
        Nobody is told.
        """
        self.start()
        self.compare(Case("null", CONTENT, b"", (b"bad@y.test",)), 0)

    def test_double_bounce(self) -> None:
        """
        The postmaster is told about a notice that failed.
        """
        self.start(notify_classes="2bounce", myorigin="origin.test")
        self.compare(Case("null", CONTENT, b"", (b"bad@y.test",)))

    def test_double_bounce_sender(self) -> None:
        """
        Nobody is told about the postmaster's notices.
        """
        self.start(notify_classes="bounce, 2bounce")
        self.compare(Case("double", CONTENT, b"double-bounce@relay.test", (b"bad@y.test",)), 0)

    def test_postmaster_copy(self) -> None:
        """
        The postmaster gets a copy with the headers.
        """
        self.start(notify_classes="bounce")
        self.compare(Case("copy", CONTENT, recipients=(b"bad@y.test",)), 2)

    def test_verp(self) -> None:
        """
        One notice for each recipient.
        """
        self.start()
        self.sink.refuse = {b"<" + key: reply for key, reply in REFUSALS.items()}
        self.compare(Case("verp", CONTENT, b"l-@x.test-@[]", (b"bad@y.test", b"plain@z.test")), 2)

    def test_verp_quoted(self) -> None:
        """
        A recipient that needs quotes has them in the address to which the notice goes.
        """
        self.start()
        self.sink.refuse = {b'<"one bad"@': REFUSALS[b"bad@"]}
        case = Case("quoted", CONTENT, b"l-@x.test-@[]", (b"one bad@y.test",))
        (theirs,), (ours,) = self.theirs(case, 1), self.ours(case)
        self.assertEqual((theirs.sender, theirs.recipients), (ours.sender, ours.recipients))
