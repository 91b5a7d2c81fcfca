"""
Which messages are marked as needing SMTPUTF8: smtputf8_enable, smtputf8_autodetect_classes. What counts was
watched in a running Postfix.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address.smtputf8 import ADDRESSES, HEADERS
from qmqpd_tx.message import SMTPUTF8
from tests.cleanup.cases import COMPLETE
from tests.cleanup.support import Intake

UTF8 = "ü@exämple.test".encode()
DETECT = "smtputf8_enable = yes\nsmtputf8_autodetect_classes = qmqpd\n"


class MarkTests(SynchronousTestCase):
    def mark(
        self,
        text: str = DETECT,
        content: bytes = COMPLETE + b"\nbody\n",
        sender: bytes = b"s@ex.test",
        recipients: tuple[bytes, ...] = (b"r@y.test", b"t@y.test"),
    ) -> bytes | None:
        stored = Intake(text).store(content, sender=sender, recipients=recipients)
        return stored.envelope.attributes.get(SMTPUTF8)

    def test_only_where_asked_for(self) -> None:
        subject = b"Subject: \xc3\xbc\n" + COMPLETE + b"\n"
        for text, mark in (
            ("", None),
            ("smtputf8_enable = yes\n", None),
            ("smtputf8_autodetect_classes = all\nsmtputf8_enable = no\n", None),
            ("smtputf8_autodetect_classes = all\nsmtputf8_enable = yes\n", HEADERS),
            (DETECT, HEADERS),
        ):
            self.assertEqual((text, self.mark(text, subject)), (text, mark))

    def test_what_counts(self) -> None:
        for content, mark in (
            (COMPLETE + b"\nbody\n", ADDRESSES),
            (COMPLETE + b"\n\xc3\xbc\n", ADDRESSES),
            (COMPLETE + b"X: \xc3\xbc\n\n", HEADERS),
            (COMPLETE + b"X: \xe9\n\n", HEADERS),
            (b"Subject: \xc3\xbc\n\n", HEADERS),
        ):
            self.assertEqual((content, self.mark(content=content)), (content, mark))

    def test_addresses_that_end_up_in_a_header(self) -> None:
        """A single recipient in Received, and a sender in From."""
        self.assertEqual(self.mark(recipients=(UTF8,)), HEADERS)
        self.assertEqual(self.mark(recipients=(UTF8, b"r@y.test")), ADDRESSES)
        self.assertEqual(self.mark(sender=UTF8), ADDRESSES)
        self.assertEqual(self.mark(sender=UTF8, content=b"Subject: x\n\n"), HEADERS)

    def test_header_section_in_pieces(self) -> None:
        headers = COMPLETE + b"".join(b"X-%d: %b\n" % (number, b"x" * 900) for number in range(200))
        self.assertEqual(self.mark(content=headers + b"\n"), ADDRESSES)
        self.assertEqual(self.mark(content=COMPLETE + b"X: \xc3\xbc\n" + headers + b"\n"), HEADERS)
