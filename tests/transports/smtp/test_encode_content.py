"""Content on the wire, byte for byte as Postfix 3.7 delivers it, in any chunking."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.transports.smtp.content import WHOLE_LIMIT, StreamedContent, content_for
from qmqpd_tx.transports.smtp.encode import ContentEncoder, encode
from tests.transports.smtp.support import Content


def reference(data: bytes, limit: int) -> bytes:
    """The same, slowly: a line at a time, a byte at a time."""
    data = data.replace(b"\r", b" ")
    if data and not data.endswith(b"\n"):
        data += b"\n"
    out = b""
    for line in data.split(b"\n")[:-1]:
        pieces, current, room = [], b"", limit
        for byte in line:
            if limit and room == 0:
                pieces.append(current)
                current, room = b" ", limit - 1
            current += bytes((byte,))
            room -= 1
        pieces.append(current)
        if pieces[0].startswith(b"."):
            pieces[0] = b"." + pieces[0]
        out += b"".join(piece + b"\r\n" for piece in pieces)
    return out + b".\r\n"


TEXT = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b".", b"\r", b"\n.", b"\r\n", b"\0", b" ", b"a" * 9, b"b" * 11, b"\xe9"]),
        st.binary(max_size=4),
    ),
    max_size=40,
).map(b"".join)


def feed(encoder: ContentEncoder, data: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [encoder.feed(data[start:end]) for start, end in pairwise(edges)]
    return b"".join(pieces) + encoder.finish()


class Properties(SynchronousTestCase):
    @given(TEXT, st.sampled_from([0, 2, 3, 10, 998]), st.lists(st.integers(0, 200), max_size=10))
    @example(b"x" * 10, 10, [10])
    @example(b"x" * 10 + b"\n.", 10, [10, 11])
    @example(b"x" * 20 + b".", 10, [10, 20])
    def test_any_chunking_equals_the_reference(self, data: bytes, limit: int, cuts: list[int]) -> None:
        expected = reference(data, limit)
        self.assertEqual(encode(data, limit), expected)
        self.assertEqual(feed(ContentEncoder(limit), data, cuts), expected)
        self.assertEqual(feed(ContentEncoder(limit), data, list(range(len(data)))), expected)

    @given(TEXT)
    def test_nothing_in_the_content_can_end_it(self, data: bytes) -> None:
        encoded = encode(data, 998)
        self.assertEqual((b"\r\n" + encoded).count(b"\r\n.\r\n"), 1)
        self.assertTrue(encoded.endswith(b".\r\n"))
        self.assertEqual(encoded.replace(b"\r\n", b"").count(b"\r"), 0)
        self.assertEqual(encoded.replace(b"\r\n", b"").count(b"\n"), 0)


class AsPostfix(SynchronousTestCase):
    """Pairs of what the queue has and what Postfix 3.7.11 sent to a server."""

    def test_pairs(self) -> None:
        digits = b"0123456789" * 500
        for content, wire in [
            (b"hello", b"hello\r\n"),
            (b".\n..\n.a\na.\n.\n", b"..\r\n...\r\n..a\r\na.\r\n..\r\n"),
            (b"a\n.", b"a\r\n..\r\n"),
            (b"a\rb\n\rc\nd\r\n", b"a b\r\n c\r\nd \r\n"),
            (b"a\n\r", b"a\r\n \r\n"),
            (b"a\0b\n\0\n", b"a\0b\r\n\0\r\n"),
            (b"caf\xc3\xa9\n", b"caf\xc3\xa9\r\n"),
            (digits[:998] + b"\n", digits[:998] + b"\r\n"),
            (digits[:999] + b"\n", digits[:998] + b"\r\n 8\r\n"),
            (digits[:1996] + b"\n", digits[:998] + b"\r\n " + digits[998:1995] + b"\r\n 5\r\n"),
            (digits[:998] + b".....\n", digits[:998] + b"\r\n .....\r\n"),
            (b"." + digits[:998] + b"\n", b".." + digits[:997] + b"\r\n 7\r\n"),
        ]:
            self.assertEqual(encode(content, 998), wire + b".\r\n")

    def test_no_limit_breaks_nothing(self) -> None:
        self.assertEqual(encode(b"x" * 5000 + b"\n", 0), b"x" * 5000 + b"\r\n.\r\n")


class Once(SynchronousTestCase):
    def test_small_content_is_encoded_once_for_all_its_deliveries(self) -> None:
        content = Content(b"a\n.b\n", piece=2)
        first = self.run_now(content_for(content, 998, False))
        reads = content.reads
        second = self.run_now(content_for(content, 998, False))
        self.assertEqual(first, (b"a\r\n..b\r\n.\r\n", 8))
        self.assertIs(first[0], second[0])
        self.assertEqual(content.reads, reads)

    def test_large_content_is_streamed_in_bounded_pieces(self) -> None:
        line = b"." + b"x" * 1200 + b"\n"
        content = Content(line * 2000, piece=70001)
        source, size = self.run_now(content_for(content, 998, False))
        self.assertIsInstance(source, StreamedContent)
        self.assertEqual((size, content.memo), (content.size, {}))
        pieces, last = [], False
        while not last:
            piece, last = self.run_now(source.next())
            pieces.append(piece)
        self.assertLess(max(map(len, pieces)), WHOLE_LIMIT)
        self.assertEqual(b"".join(pieces), encode(content.data, 998))

    def run_now(self, coroutine):
        from twisted.internet.defer import Deferred

        return self.successResultOf(Deferred.fromCoroutine(coroutine))
