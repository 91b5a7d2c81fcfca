"""Netstrings: writing, and reading in any chunking within bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.netstring import (
    LARGEST_LENGTH,
    Fault,
    NetstringError,
    NetstringReader,
    encode,
    encoded_size,
    read_length,
)


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


class EncodeTests(SynchronousTestCase):
    def test_encode(self) -> None:
        self.assertEqual(encode(b""), b"0:,")
        self.assertEqual(encode(b"hello world!"), b"12:hello world!,")

    def test_encoded_size(self) -> None:
        for length in (0, 9, 10, 99, 100, 12345):
            self.assertEqual(encoded_size(length), len(encode(b"x" * length)))


class ReadLengthTests(SynchronousTestCase):
    def test_whole(self) -> None:
        progress = read_length(b"xx123:", 2, 6)
        self.assertEqual((progress.value, progress.position, progress.complete), (123, 6, True))

    def test_continued(self) -> None:
        first = read_length(b"12", 0, 2)
        self.assertFalse(first.complete)
        second = read_length(b"34:", 0, 3, first.value)
        self.assertEqual((second.value, second.complete), (1234, True))

    def test_stops_where_it_is_told(self) -> None:
        progress = read_length(b"1234:", 0, 2)
        self.assertEqual((progress.value, progress.position, progress.complete), (12, 2, False))

    def test_any_number_of_leading_zeros(self) -> None:
        progress = read_length(b"0" * 100_000 + b"7:", 0, 100_002)
        self.assertEqual((progress.value, progress.complete), (7, True))

    def test_no_digits_is_zero(self) -> None:
        self.assertEqual(read_length(b":", 0, 1).value, 0)

    def test_largest(self) -> None:
        data = b"%d:" % LARGEST_LENGTH
        self.assertEqual(read_length(data, 0, len(data)).value, LARGEST_LENGTH)

    def test_too_large_without_its_colon(self) -> None:
        for data in (b"%d" % (LARGEST_LENGTH + 1), b"9" * 1_000_000):
            error = self.assertRaises(NetstringError, read_length, data, 0, len(data))
            self.assertIs(error.fault, Fault.TOO_LONG)

    def test_malformed(self) -> None:
        for data in (b"x", b"-1:", b"+1:", b"1 :", b" 1:", b"1_0:", b"1,", "\u0661:".encode()):
            error = self.assertRaises(NetstringError, read_length, data, 0, len(data))
            self.assertIs(error.fault, Fault.FORMAT)


class NetstringReaderTests(SynchronousTestCase):
    def test_several_in_one_piece(self) -> None:
        self.assertEqual(NetstringReader(10).feed(b"3:abc,0:,1:x,"), [b"abc", b"", b"x"])

    @given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 30), max_size=20))
    @settings(max_examples=200)
    def test_any_chunking(self, items: list[bytes], sizes: list[int]) -> None:
        reader = NetstringReader(40)
        found = []
        for piece in _cut(b"".join(encode(item) for item in items), sizes):
            found += reader.feed(piece)
        self.assertEqual(found, items)
        self.assertTrue(reader.between)

    def test_unfinished(self) -> None:
        for data in (b"3", b"3:", b"3:ab", b"3:abc"):
            reader = NetstringReader(10)
            self.assertEqual(reader.feed(data), [])
            self.assertFalse(reader.between)

    def test_refused_when_announced(self) -> None:
        error = self.assertRaises(NetstringError, NetstringReader(10).feed, b"11:")
        self.assertIs(error.fault, Fault.TOO_LONG)

    def test_missing_comma(self) -> None:
        error = self.assertRaises(NetstringError, NetstringReader(10).feed, b"1:xy")
        self.assertIs(error.fault, Fault.FORMAT)
