"""
What a header section becomes. The expected bytes were watched in a running Postfix.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.spool.memory import MemoryMessageWriter
from tests.cleanup.cases import ADDRESSES, COMPLETE, CONTENT, Case
from tests.cleanup.support import Intake

ADDED = b"Message-Id: <20261122050052.%s@relay.test>\nDate: Sun, 22 Nov 2026 05:00:52 +0000 (UTC)\nFrom: %s\n"


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    """
    @return: the content, cut at these places.
    """
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(places)]


class MissingHeaders(SynchronousTestCase):
    """Message-Id, Date and From are added when missing, in this order."""

    def setUp(self) -> None:
        self.intake = Intake()

    def test_all_missing(self) -> None:
        """
        They follow the other headers.
        """
        stored = self.intake.store(b"Subject: x\n\nbody\n")
        added = ADDED % (stored.queue_id.encode(), b"s@ex.test")
        self.assertEqual(stored.body, b"Subject: x\n" + added + b"\nbody\n")

    def test_none_missing(self) -> None:
        """
        A complete message stays what it is.
        """
        content = COMPLETE + b"X: y\n\nbody\n"
        self.assertEqual(self.intake.store(content).body, content)

    def test_empty_message(self) -> None:
        """
        No body, so no empty line.
        """
        stored = self.intake.store(b"")
        self.assertEqual(stored.body, ADDED % (stored.queue_id.encode(), b"s@ex.test"))

    def test_only_a_body(self) -> None:
        """
        An empty line comes between the added headers and the body.
        """
        stored = self.intake.store(b"hello\nworld")
        added = ADDED % (stored.queue_id.encode(), b"s@ex.test")
        self.assertEqual(stored.body, added + b"\nhello\nworld\n")

    def test_null_sender(self) -> None:
        """
        The null sender's From header.
        """
        stored = self.intake.store(b"Message-Id: <m@x>\nDate: d\n\nb\n", sender=b"")
        self.assertEqual(stored.body, b"Message-Id: <m@x>\nDate: d\nFrom: MAILER-DAEMON\n\nb\n")

    def test_quoted_sender(self) -> None:
        """
        The From header has the external form of the address.
        """
        stored = self.intake.store(b"Message-Id: <m@x>\nDate: d\n\nb\n", sender=b"a b@x.test")
        self.assertIn(b'From: "a b"@x.test\n', stored.body)

    def test_resent(self) -> None:
        """
        A resent message gets the Resent- headers instead.
        """
        stored = self.intake.store(b"Resent-To: a@b\n\nb\n")
        added = ADDED.replace(b"Message-Id", b"Resent-Message-Id").replace(b"Date", b"Resent-Date")
        added = added.replace(b"From", b"Resent-From") % (stored.queue_id.encode(), b"s@ex.test")
        self.assertEqual(stored.body, b"Resent-To: a@b\n" + added + b"\nb\n")

    def test_dropped_resent_bcc(self) -> None:
        """
        A Resent-Bcc header makes a message resent, though it is dropped.
        """
        body = self.intake.store(b"Resent-Bcc: x\n\nb\n").body
        self.assertNotIn(b"Bcc", body)
        self.assertIn(b"Resent-Message-Id: ", body)

    def test_from_missing_in_a_long_section(self) -> None:
        """
        If the section is too long to wait for the sender, From comes first; nothing is lost.
        """
        headers = b"".join(b"X-%d: %s\n" % (number, b"y" * 1000) for number in range(300))
        incoming = self.intake.cleanup.begin(None)
        for piece in pieces(headers + b"\nb\n", list(range(0, 300000, 5000))):
            incoming.content(piece)
        incoming.sender(b"s@ex.test")
        incoming.recipient(b"r@dest.test")
        incoming.finish()
        body = self.intake.arrivals.stored[0].content.partition(b"(UTC)\n")[2]
        self.assertTrue(body.startswith(b"From: s@ex.test\nX-0: "))
        self.assertTrue(body.replace(b"From: s@ex.test\n", b"").startswith(headers))
        self.assertTrue(body.endswith(b"+0000 (UTC)\n\nb\n"))

    def test_undisclosed_recipients(self) -> None:
        """
        C{undisclosed_recipients_header} is for messages without recipient headers.
        """
        intake = Intake("undisclosed_recipients_header = To: undisclosed-recipients:;\n")
        self.assertIn(b"To: undisclosed-recipients:;\n", intake.store(COMPLETE + b"\nb\n").body)
        self.assertNotIn(b"undisclosed", intake.store(COMPLETE + b"Cc: a@b\n\nb\n").body)


class OddHeaders(SynchronousTestCase):
    """What is hardly a header."""

    def check(self, headers: bytes, expected: bytes, text: str = "") -> None:
        """
        Store a message with these headers and see what they become.
        """
        stored = Intake(text).store(COMPLETE + headers)
        self.assertEqual(stored.body, COMPLETE + expected)

    def test_mailbox_lines(self) -> None:
        """
        From lines at the start become headers.
        """
        stored = Intake().store(b"From joe Mon\n>From bill\n" + COMPLETE + b"\nFrom b\n")
        expected = b"X-Mailbox-Line: From joe Mon\nX-Mailbox-Line: >From bill\n"
        self.assertEqual(stored.body, expected + COMPLETE + b"\nFrom b\n")

    def test_blank_before_colon(self) -> None:
        """
        It is removed; other spacing stays.
        """
        self.check(b"Subject : a\nX\t: b\nY:  two\n\nb\n", b"Subject: a\nX: b\nY:  two\n\nb\n")

    def test_vertical_tab(self) -> None:
        """
        It is no line end.
        """
        headers = b"X: a\v b\nTo: c@x.test,\n d@x.test,\v e@x.test\nY: z\v\tw\n\nb\n"
        self.check(headers, headers)
        self.check(
            b"X: a\v b\nTo: a,\n b\n\nb\n",
            b"X: a\v b\nTo: a@origin.test, b@origin.test\n\nb\n",
            "myorigin = origin.test\n",
        )

    def test_name_without_colon(self) -> None:
        """
        The name of a header alone is no header, though it was seen in one.
        """
        intake = Intake()
        for line, expected in ((b"Subject: x\n", b"Subject: x\n\nb\n"), (b"Subject\n", b"\nSubject\n\nb\n")):
            self.assertEqual(intake.store(COMPLETE + line + b"\nb\n").body, COMPLETE + expected)

    def test_long_name(self) -> None:
        """
        A name as long as a line may be is none.
        """
        for length, gap in ((2047, b""), (2048, b"\n")):
            headers = b"X" * length + b": y\n\nb\n"
            self.check(headers, gap + headers)

    def test_headers_that_come_again(self) -> None:
        """
        What is done to a header is done to it in each message, and to others like it.
        """
        intake = Intake("myorigin = origin.test\n")
        for line, expected in (
            (b"To: a\n", b"To: a@origin.test\n"),
            (b"To: a@b.test\n", b"To: a@b.test\n"),
            (b"TO: a\n", b"TO: a@origin.test\n"),
            (b"To:a@b.test\n", b"To:a@b.test\n"),
            (b"To: a,\n b\n", b"To: a@origin.test, b@origin.test\n"),
        ) * 2:
            self.assertEqual(intake.store(COMPLETE + line + b"\nb\n").body, COMPLETE + expected + b"\nb\n")

    def test_no_header(self) -> None:
        """
        A line that is no header starts the body, after an empty line.
        """
        self.check(b"broken line\nX: y\n\nb\n", b"\nbroken line\nX: y\n\nb\n")

    def test_carriage_returns(self) -> None:
        """
        Each becomes a blank, everywhere.
        """
        self.check(b"Subject: a\rb\nX: y\r\n\nbo\rdy\r\r\n", b"Subject: a b\nX: y \n\nbo dy  \n")

    def test_nul(self) -> None:
        """
        Header lines end there; the body keeps it.
        """
        self.check(b"Subject: a\0b\n cd\0e\nX: y\n\nbo\0dy\n", b"Subject: a\n cd\nX: y\n\nbo\0dy\n")

    def test_dropped(self) -> None:
        """
        C{message_drop_headers}, with their continuation lines.
        """
        headers = b"Return-Path: <a@b>\nBcc: x@y, \n z@y\nContent-Length: 9\nX: y\n\nb\n"
        self.check(headers, b"X: y\n\nb\n")
        self.check(b"X: y\nBcc: z@y\n\nb\n", b"Bcc: z@y\n\nb\n", "message_drop_headers = x\n")

    def test_size_limit(self) -> None:
        """
        A header is cut at the limit, and then at a line end in its last tenth.
        """
        small = "header_size_limit = 200\n"
        self.check(b"X: " + b"a" * 300 + b"\nY: z\n\nb\n", b"X: " + b"a" * 197 + b"\nY: z\n\nb\n", small)
        start = b"X: " + b"a" * 146
        self.check(start + b"\n " + b"b" * 100 + b"\n\nb\n", start + b"\n " + b"b" * 49 + b"\n\nb\n", small)
        start = b"X: " + b"a" * 177
        self.check(start + b"\n " + b"b" * 100 + b"\nY: z\n\nb\n", start + b"\nY: z\n\nb\n", small)

    def test_endless_header_is_not_held(self) -> None:
        """
        A header without end takes no more memory than its limit, whatever comes; what follows it counts.
        """
        intake = Intake()
        incoming = intake.cleanup.begin(None)
        incoming.content(COMPLETE + b"X: ")
        for _ in range(400):
            incoming.content(b"a" * 10000)
        incoming.content(b"\nY: z\n\nb\n")
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        incoming.finish()
        body = intake.arrivals.stored[0].body
        self.assertEqual(body, COMPLETE + b"X: " + b"a" * (102400 - 3) + b"\nY: z\n\nb\n")

    def test_endless_line_goes_to_disk(self) -> None:
        """
        A first line that is no header is body from the start, and is not held.
        """
        intake = Intake("message_size_limit = 0\n")
        writers = []
        create = intake.queue.create

        def remember(arrival_time: float) -> MemoryMessageWriter:
            writers.append(create(arrival_time))
            return writers[-1]

        intake.queue.create = remember  # type: ignore[method-assign]
        incoming = intake.cleanup.begin(None)
        for _ in range(100):
            incoming.content(b"a" * 10000)
        self.assertGreaterEqual(writers[0].size, 1000000)
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        incoming.finish()
        self.assertTrue(intake.arrivals.stored[0].body.endswith(b"\n\n" + b"a" * 1000000 + b"\n"))


class Chunking(SynchronousTestCase):
    """How content is cut into chunks never matters."""

    @given(st.sampled_from(CONTENT), st.lists(st.integers(0, 10**6), max_size=8))
    @settings(max_examples=150)
    def test_known_messages(self, case: Case, cuts: list[int]) -> None:
        """
        The messages that are compared with Postfix.
        """
        self.same(case.content, cuts)

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"\n",
                    b"\r",
                    b" ",
                    b"\t",
                    b":",
                    b"From ",
                    b">",
                    b"a",
                    b"To: ",
                    b"X: y\n",
                    b"\0",
                    b"joe",
                    b",",
                ]
            ),
            max_size=30,
        ),
        st.lists(st.integers(0, 100), max_size=8),
    )
    @settings(max_examples=300)
    def test_invented_messages(self, parts: list[bytes], cuts: list[int]) -> None:
        """
        Anything that looks a little like a header section.
        """
        self.same(b"".join(parts), cuts)

    @given(st.sampled_from(ADDRESSES))
    @settings(max_examples=30)
    def test_byte_by_byte(self, header: bytes) -> None:
        """
        The smallest chunks.
        """
        content = header + b"\n\nb\n"
        self.same(content, list(range(len(content))))

    def same(self, content: bytes, cuts: list[int]) -> None:
        """
        @raise FailTest: whole and in chunks, something else is stored or answered.
        """
        whole, cut = Intake(), Intake()
        results = []
        for intake, chunks in ((whole, [content]), (cut, pieces(content, cuts))):
            finished = intake.send(chunks)
            finished.addErrback(lambda failure: failure.value.text)
            results.append(self.successResultOf(finished))
        self.assertEqual(bool(whole.arrivals.stored), bool(cut.arrivals.stored))
        if whole.arrivals.stored:
            first, second = whole.arrivals.stored[0], cut.arrivals.stored[0]
            self.assertEqual(
                first.content.replace(first.queue_id.encode(), b"ID"),
                second.content.replace(second.queue_id.encode(), b"ID"),
            )
            self.assertEqual(first.envelope.eight_bit, second.envelope.eight_bit)
        else:
            self.assertEqual(*results)
