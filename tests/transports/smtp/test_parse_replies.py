"""Replies: any chunking of any byte stream gives the same replies; bounded; codes as smtp(8) reads them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.transports.smtp.replies import Reply, ReplyParser

LINES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"250 ok\r\n", b"250-a\r\n", b"250\n", b"xyz\r\n", b"550 5.1.1 no\r\n", b"2500 x\n", b"\r\n"]
    ),
)


def parse(chunks: list[bytes], limit: int = 64) -> tuple[list[Reply], int]:
    parser = ReplyParser(limit)
    replies = [reply for chunk in chunks for reply in parser.feed(chunk)]
    return replies, parser.garbage


class Parsing(SynchronousTestCase):
    @given(st.lists(LINES, max_size=30).map(b"".join), st.lists(st.integers(0, 400), max_size=12))
    def test_any_chunking_gives_the_same_replies(self, data: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        chunks = [data[start:end] for start, end in pairwise(edges)]
        self.assertEqual(parse(chunks), parse([data]))
        self.assertEqual(parse([data[i : i + 1] for i in range(len(data))]), parse([data]))

    def test_multi_line_reply_is_one_reply_with_the_last_code(self) -> None:
        replies, garbage = parse([b"250-one\r\n250-two\r\n550 three\r\n"])
        self.assertEqual(replies, [Reply(550, [b"250-one", b"250-two", b"550 three"])])
        self.assertEqual(replies[0].text, "250-one 250-two 550 three")
        self.assertEqual(garbage, 0)

    def test_lines_that_are_no_replies_are_counted_and_skipped(self) -> None:
        self.assertEqual(parse([b"hello\r\n25 x\r\n250x\r\n250 ok\r\n"]), ([Reply(250, [b"250 ok"])], 3))

    def test_endless_lines_and_replies_use_bounded_memory(self) -> None:
        parser = ReplyParser(2048)
        for _ in range(1000):
            self.assertEqual(parser.feed(b"2" * 4096), [])
        self.assertLessEqual(len(parser._pending), 2048)
        parser = ReplyParser(2048)
        for _ in range(1000):
            parser.feed(b"250-" + b"x" * 1000 + b"\r\n")
        (reply,) = parser.feed(b"250 end\r\n")
        self.assertLess(sum(map(len, reply.lines)), 5000)
        self.assertEqual(reply.lines[-1], b"250 end")


class Codes(SynchronousTestCase):
    """Watched of Postfix 3.7."""

    def test_codes(self) -> None:
        for line, dsn in [
            (b"250 2.1.5 Ok", "2.1.5"),
            (b"250", "2.0.0"),
            (b"550 5.1.1", "5.1.1"),
            (b"550 5.1.10 x", "5.1.10"),
            (b"550 5.7.509x y", "5.0.0"),
            (b"550 5.1 z", "5.0.0"),
            (b"550 5.1234.1 z", "5.0.0"),
            (b"550 #5.1.1 hash", "5.0.0"),
            (b"550 4.1.1 mismatch", "5.0.0"),
            (b"450 5.0.0 mismatch", "4.0.0"),
            (b"250 4.0.0 mismatch", "2.0.0"),
            (b"354 odd", "5.5.0"),
        ]:
            self.assertEqual(Reply(int(line[:3]), [line]).dsn, dsn, line)

    def test_the_last_line_of_several_counts(self) -> None:
        reply = parse([b"550-5.7.1 first\r\n550-second\r\n550 5.7.2 third\r\n"])[0][0]
        self.assertEqual(reply.dsn, "5.7.2")

    def test_text_that_is_not_utf8_is_kept_readable(self) -> None:
        self.assertEqual(Reply(550, [b"550 caf\xc3\xa9"]).text, "550 caf\u00e9")
        self.assertEqual(Reply(550, [b"550 caf\xe9"]).text, "550 caf\\xe9")
