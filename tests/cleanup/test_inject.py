"""
What a message, through a table of patterns, or a table itself may smuggle into headers and addresses.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import CONTENT_FILTER
from tests.cleanup.inspection import Patterns, content_checks, inspect
from tests.cleanup.support import Intake, Stored

FOLDED = b"Subject: one\n Bcc: two@evil.test\n \n three\nFrom: a@b.test\n\nbody\n"


def stored(rule: str) -> bytes:
    """
    @return: what a header check leaves of a message, without the headers that are added.
    """
    checks = content_checks({"header_checks": Patterns(rule)})
    return inspect(checks, [FOLDED]).content


class InjectedHeaders(SynchronousTestCase):
    """A pattern copies a piece of a folded header, its line end included."""

    def test_replace(self) -> None:
        """
        What follows a line end in the new text is a continuation, not a header of its own.
        """
        self.assertEqual(
            stored(r"\ASubject: (\w+\n) (Bcc.*) = REPLACE X-Was: \1\2"),
            b"X-Was: one\n\tBcc: two@evil.test\nFrom: a@b.test\n\nbody\n",
        )

    def test_prepend(self) -> None:
        """
        The same where a header is put before it.
        """
        self.assertEqual(
            stored(r"\ASubject: (\w+\n) (Bcc.*) = PREPEND X-Was: \1\2"),
            b"X-Was: one\n\tBcc: two@evil.test\n" + FOLDED,
        )

    def test_end_of_headers(self) -> None:
        """
        An empty line in the new text does not end the header section.
        """
        self.assertEqual(
            stored(r"\ASubject: (\w+\n) (Bcc.*\n)([ \n]*) (three) = REPLACE X-Was: \1\3\4\2"),
            b"X-Was: one\n \n\tthreeBcc: two@evil.test\n\t\nFrom: a@b.test\n\nbody\n",
        )

    def test_folded(self) -> None:
        """
        A header that is copied as it is folded stays as it is.
        """
        self.assertEqual(
            stored(r"\ASubject: (one\n Bcc: .*) = REPLACE X-Was: \1"),
            b"X-Was: one\n Bcc: two@evil.test\nFrom: a@b.test\n\nbody\n",
        )

    def test_controls(self) -> None:
        """
        A CR or NUL that comes from a table is a space, as a CR from a client is: it is not to pass for a line
        end anywhere.
        """
        self.assertEqual(
            stored(r"\ASubject = REPLACE X-Was: a\rb\0c"), b"X-Was: a b c\nFrom: a@b.test\n\nbody\n"
        )
        checks = content_checks({"body_checks": Patterns(r"body = REPLACE a\r\n.\r\nb")})
        self.assertEqual(
            inspect(checks, [b"From: a@b.test\n\nbody\n"]).content, b"From: a@b.test\n\na  .  b\n"
        )


class InjectedAddresses(SynchronousTestCase):
    """A pattern copies a piece of a header into an address or a destination."""

    def store(self, action: str) -> Stored:
        """
        @return: what becomes of the message.
        """
        return Intake(f"header_checks = pcre:{{{{/^Subject: (\\w+\\n)/ {action}}}}}\n").store(FOLDED)

    def test_redirect(self) -> None:
        """
        Control characters do not get into an address.
        """
        self.assertEqual(self.store("REDIRECT $${1}x@y.test").recipients, [(b"one x@y.test", b"r@dest.test")])

    def test_filter(self) -> None:
        """
        Nor into a destination.
        """
        self.assertEqual(
            self.store("FILTER smtp:$${1}x").envelope.attributes, {CONTENT_FILTER: b"smtp:one x"}
        )
