"""
Characters that no message may have, and headers that mail from elsewhere lacks.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.characters import characters
from qmqpd_tx.interfaces import IntakeError, Treatment
from qmqpd_tx.message import QueueID
from tests.cleanup.support import CLIENT, Intake

HEAD = b"From: a@b.test\nTo: c@d.test\nDate: x\nMessage-Id: <m@b.test>\n"


class CharacterTests(SynchronousTestCase):
    """C{message_reject_characters} and C{message_strip_characters}."""

    def test_escapes(self) -> None:
        """
        Escapes are as in C; a newline is never meant.
        """
        for text, expected in (
            (b"", b""),
            (b"\\0", b"\0"),
            (b"\\0\\001Q", b"\0\x01Q"),
            (b"\\a\\b\\f\\n\\r\\t\\v", b"\x07\x08\t\x0b\x0c\r"),
            (b"\\1234", b"4S"),
            (b"\\\\x", b"\\x"),
            (b"\\q\\", b"q"),
            (b"aab", b"ab"),
        ):
            self.assertEqual(characters(text), expected, text)

    @given(st.binary(max_size=30))
    def test_any_text(self, text: bytes) -> None:
        """
        Any text names some bytes.
        """
        self.assertNotIn(b"\n", characters(text))

    def test_rejected(self) -> None:
        """
        One of them anywhere in the content refuses the message for good, in Postfix's words.
        """
        for content in (
            HEAD + b"Subject: a\0b\n\nx\n",
            HEAD + b"\nbo\0dy\n",
            HEAD + b"\n" + b"x\n" * 99 + b"\0",
        ):
            intake = Intake("message_reject_characters = \\0\n")
            with capturedLogs() as events:
                error = self.failureResultOf(intake.send([content[:90], content[90:]]), IntakeError).value
            self.assertEqual((error.permanent, error.dsn), (True, "5.7.1"))
            self.assertEqual(error.text, "Error: 5.7.1 disallowed character")
            self.assertEqual(intake.arrivals.stored, [])
            (line,) = [text for event in events if "reject" in (text := formatEvent(event) or "")]
            self.assertIn("reject: content ", line)
            self.assertIn("5.7.1 disallowed character", line)
        stored = Intake("message_reject_characters = \\0\n").store(HEAD + b"\nbody\n")
        self.assertEqual(stored.body, HEAD + b"\nbody\n")

    def test_stripped(self) -> None:
        """
        They are taken out wherever they are, before anything else is done.
        """
        stored = Intake("message_strip_characters = \\0X\n").store(HEAD + b"SuXbject: a\0b\n\nbo\0dyX\n")
        self.assertEqual(stored.body, HEAD + b"Subject: ab\n\nbody\n")


class RemoteTests(SynchronousTestCase):
    """Mail whose headers are not ours to complete."""

    def take(self, text: str, remote_domain: str | None) -> bytes:
        """
        @return: what is stored of a message that lacks headers.
        """
        intake = Intake(text)
        incoming = intake.cleanup.begin(CLIENT, treatment=Treatment(remote_domain=remote_domain))
        incoming.content(b"Cc: joe\nSubject: s\n\nbody\n")
        incoming.sender(b"s@ex.test")
        incoming.recipient(b"r@dest.test")
        finished: Deferred[QueueID] = incoming.finish()
        self.successResultOf(finished)
        return intake.arrivals.stored.pop().body

    def test_remote(self) -> None:
        """
        Nothing is added to mail from elsewhere, unless C{always_add_missing_headers} says so; incomplete
        addresses get the domain for remote mail, if there is one.
        """
        body = b"Subject: s\n\nbody\n"
        self.assertEqual(self.take("", ""), b"Cc: joe\n" + body)
        self.assertEqual(self.take("", "domain.invalid"), b"Cc: joe@domain.invalid\n" + body)
        added = self.take("always_add_missing_headers = yes\n", "")
        self.assertTrue(added.startswith(b"Cc: joe\nSubject: s\nMessage-Id: <"))
        self.assertIn(b"\nFrom: s@ex.test\n\nbody\n", added)

    def test_local(self) -> None:
        """
        Mail from here gets all of them.
        """
        stored = self.take("", None)
        self.assertTrue(stored.startswith(b"Cc: joe@relay.test\nSubject: s\nMessage-Id: <"))
        self.assertIn(b"\nFrom: s@ex.test\n", stored)
