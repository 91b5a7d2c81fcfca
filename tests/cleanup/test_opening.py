"""
The start of a message, and which of several treatments of content comes first. The expected bytes were
watched in a running Postfix.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.opening import Opening
from qmqpd_tx.interfaces import IntakeError, Treatment
from qmqpd_tx.maillog.render import TextFormatter
from tests.cleanup.cases import COMPLETE
from tests.cleanup.support import CLIENT, Intake


def opened(chunks: list[bytes], limit: int = 2048) -> bytes:
    """
    @return: what the start of a message becomes.
    """
    opening = Opening(limit)
    output = b""
    for data in chunks:
        output += data if opening.is_over else opening.feed(data)
    return output if opening.is_over else output + opening.close()


def single(content: bytes) -> list[bytes]:
    """
    @return: its bytes.
    """
    return [content[at : at + 1] for at in range(len(content))]


class OpeningTests(SynchronousTestCase):
    """L{Opening}."""

    def test_watched(self) -> None:
        """
        Only the client's own bytes count, and a From line that is too long is the last one.
        """
        for content, expected in (
            (b"", b""),
            (
                b"From a\n>From b\nX: y\nFrom c\n",
                b"X-Mailbox-Line: From a\nX-Mailbox-Line: >From b\nX: y\nFrom c\n",
            ),
            (b"From a", b"X-Mailbox-Line: From a"),
            (b"From \0a\n", b"X-Mailbox-Line: From \n"),
            (b">>Fro", b">>Fro"),
            (b"From: a\n", b"From: a\n"),
            (b"From\ra\n", b"From\ra\n"),
            (b" a\n", b"\n a\n"),
            (b"From a\n\tb\n", b"X-Mailbox-Line: From a\n\n\tb\n"),
            (b"From a\n\r b\n", b"X-Mailbox-Line: From a\n\r b\n"),
            (b"\nFrom a\n", b"\nFrom a\n"),
            (b"From 78\nFrom a\nX\n", b"X-Mailbox-Line: From 78\nX-Mailbox-Line: From a\nX\n"),
            (b"From 789\nFrom a\n", b"X-Mailbox-Line: From 789\nFrom a\n"),
            (b"From 789\n b\n", b"X-Mailbox-Line: From 789\n b\n"),
            (b">>>>>>>>From a\n", b">>>>>>>>From a\n"),
        ):
            self.assertEqual(opened([content], 7), expected)
            self.assertEqual(opened(single(content), 7), expected)

    @given(st.lists(st.sampled_from([b">", b"From ", b"From", b" ", b"\n", b"x", b"\0"]), max_size=12))
    def test_chunks(self, words: list[bytes]) -> None:
        """
        Any chunking gives the same.
        """
        content = b"".join(words)
        self.assertEqual(opened(single(content), 9), opened([content], 9))
        self.assertEqual(opened(words, 9), opened([content], 9))

    def test_bounds(self) -> None:
        """
        What is held is never more than a line.
        """
        opening = Opening(100)
        self.assertEqual(len(opening.feed(b">" * 101)), 101)
        self.assertTrue(opening.is_over)


class Order(SynchronousTestCase):
    """What is done to content before what."""

    def check(self, content: bytes, expected: bytes, text: str) -> None:
        """
        Store a message in one piece, and in pieces of a byte.
        """
        for chunks in ([content], single(content)):
            intake = Intake(text)
            self.successResultOf(intake.send(chunks))
            self.assertEqual(intake.arrivals.stored.pop().body, expected)

    def refused(self, content: bytes, text: str) -> tuple[str, list[str]]:
        """
        @return: the reply to a message, and the log.
        """
        with capturedLogs() as events:
            error = self.failureResultOf(Intake(text).send([content]), IntakeError).value
        return error.text, [TextFormatter().text(event) for event in events]

    def test_start(self) -> None:
        """
        A CR or a character that is stripped hides a From line or a blank; the lines that only then begin with
        a blank stay in the header section.
        """
        for content, expected in (
            (b"\rX: y\n" + COMPLETE + b"\nb\n", b" X: y\n" + COMPLETE + b"\nb\n"),
            (b"\7 X: y\n\r\n" + COMPLETE + b"\nb\n", b" X: y\n \n" + COMPLETE + b"\nb\n"),
            (b"From a\n\rX: y\n" + COMPLETE, b"X-Mailbox-Line: From a\n X: y\n" + COMPLETE),
            (b"From a\7b\n" + COMPLETE + b"\n", b"X-Mailbox-Line: From ab\n" + COMPLETE + b"\n"),
            (b"\r" + b"x" * 300000 + b"\n" + COMPLETE, b" " + b"x" * 300000 + b"\n" + COMPLETE),
        ):
            if len(content) < 1000:
                self.check(content, expected, "message_strip_characters = \\007\n")
            else:
                self.assertEqual(Intake().store(content).body, expected)
        body = Intake().store(b"\r").body
        self.assertTrue(body.startswith(b" \nMessage-Id: "), body)

    def test_cr(self) -> None:
        """
        A CR is a blank before characters are refused or stripped.
        """
        self.check(
            COMPLETE + b"X: a\r\n\nb\rc\n", COMPLETE + b"X: a \n\nb c\n", "message_reject_characters = \\r\n"
        )
        self.check(
            COMPLETE + b"X: a\r\n\nb\rc\n", COMPLETE + b"X: a \n\nb c\n", "message_strip_characters = \\r\n"
        )

    def test_nothing_is_checked(self) -> None:
        """
        C{no_header_body_checks} goes for the form and for characters, too.
        """
        text = "strict_8bitmime = yes\nmessage_strip_characters = \\007\nmessage_reject_characters = \\010\n"
        intake = Intake(text)
        content = COMPLETE + b"Subject: \xe9\7\n\n\xe9\7\x08\n"
        incoming = intake.cleanup.begin(CLIENT, treatment=Treatment(checks=False))
        incoming.content(content)
        incoming.sender(b"s@ex.test")
        incoming.recipient(b"r@dest.test")
        self.successResultOf(incoming.finish())
        self.assertEqual(intake.arrivals.stored.pop().body, content)

    def test_checks_before_characters(self) -> None:
        """
        What is found in the lines before a character counts.
        """
        text = "header_checks = regexp:{{/^X-W/ WARN},{/^X-D/ DISCARD}}\nmessage_reject_characters = \\0\n"
        error, log = self.refused(COMPLETE + b"X-W: 1\nX-W: 2\nX-W: 3\n\na\0b\n", text)
        self.assertEqual(error, "Error: 5.7.1 disallowed character")
        self.assertEqual(len([line for line in log if "warning: header X-W" in line]), 3)
        self.assertEqual(len([line for line in log if "reject: content a from" in line]), 1)
        intake = Intake(text)
        self.successResultOf(intake.send([COMPLETE + b"X-D: 1\n\na\0b\n"]))
        self.assertEqual(intake.arrivals.stored, [])

    def test_hops_before_checks(self) -> None:
        """
        Nothing is checked after a header that is one hop too many.
        """
        text = "header_checks = regexp:{{/^X-W/ WARN},{/^X-J/ REJECT}}\nhopcount_limit = 3\n"
        error, log = self.refused(b"Received: a\nX-W: 1\nReceived: b\nX-W: 2\nX-J: 3\n\nb\n", text)
        self.assertEqual(error, "Error: too many hops")
        self.assertEqual(len([line for line in log if "warning: header X-W" in line]), 1)

    def test_names_in_the_log(self) -> None:
        """
        Log lines have the addresses as they are mapped, even if the message is refused.
        """
        text = (
            "header_checks = regexp:{{/^X-J/ REJECT},{/^X-W/ WARN}}\n"
            "canonical_maps = inline:{s@ex.test=from@b.test, r@dest.test=to@b.test}\n"
        )
        _, log = self.refused(COMPLETE + b"X-J: 1\n\nb\n", text)
        self.assertTrue(any("from=<from@b.test> to=<to@b.test>" in line for line in log), log)
        with capturedLogs() as events:
            self.successResultOf(Intake(text).send([COMPLETE + b"X-W: 1\n\nb\n"]))
        self.assertTrue(
            any("from=<from@b.test> to=<to@b.test>" in TextFormatter().text(event) for event in events)
        )


class Replaced(SynchronousTestCase):
    """Headers that are dropped, replaced and rewritten."""

    def test_mime_headers(self) -> None:
        """
        MIME headers are never dropped, and what is put in their place is not looked at.
        """
        text = "message_drop_headers = Content-Type, X-A\n"
        content = COMPLETE + b"Content-Type: text/plain\nX-B: b\n\nb\n"
        for more in ("", "header_checks = regexp:{{/^Nothing/ WARN}}\n"):
            self.assertEqual(Intake(text + more).store(content).body, content)
        text += "mime_header_checks = regexp:{{/^Content-Id: / REPLACE To: joe}}\n"
        self.assertEqual(
            Intake(text).store(COMPLETE + b"Content-Id: x\nX-A: y\n\nb\n").body, COMPLETE + b"To: joe\n\nb\n"
        )

    def test_own_received(self) -> None:
        """
        C{message_drop_headers} goes for ours, too, but not for what a check puts before it.
        """
        text = "message_drop_headers = received\n"
        content = COMPLETE + b"\nb\n"
        self.assertEqual(Intake(text).store(content).content, content)
        text += "header_checks = regexp:{{/^Received/ PREPEND X-B: y}}\n"
        self.assertEqual(Intake(text).store(content).content, b"X-B: y\n" + content)

    def test_blank_before_the_colon(self) -> None:
        """
        It stays in what a check puts in place of a header.
        """
        text = "header_checks = regexp:{{/^X-R:/ REPLACE Subject : b}}\n"
        self.assertEqual(
            Intake(text).store(COMPLETE + b"X-R: x\n\nb\n").body, COMPLETE + b"Subject : b\n\nb\n"
        )

    def test_rewritten(self) -> None:
        """
        A rewritten header is cut at the limit, which counts each line end with its tab as one.
        """
        stored = (
            Intake("header_size_limit = 300\n").store(COMPLETE + b"Cc: " + b"joe, " * 50 + b"joe\n\nb\n").body
        )
        header = stored.removeprefix(COMPLETE).removesuffix(b"\n\nb\n")
        self.assertEqual((len(header), header[-8:], header.count(b"\n\t")), (304, b"joe@rela", 4))
