"""8-bit mail for 7-bit servers: what Postfix 3.7.11 sent for the same message, and any chunking of it."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.transports.smtp.downgrade import Downgrader

CTE = b"Content-Transfer-Encoding: "
QP = CTE + b"quoted-printable\n"
EIGHT = CTE + b"8bit\n"


def convert(*chunks: bytes) -> bytes:
    downgrader = Downgrader()
    return b"".join(map(downgrader.feed, chunks)) + downgrader.finish()


def multipart(header: bytes, *parts: bytes) -> bytes:
    return header + b"\n" + b"".join(b"--xx\n" + part for part in parts) + b"--xx--\nepilogue \xe9\n"


MIXED = b'Content-Type: multipart/mixed; boundary="xx"\n'
PAIRS = [
    # Only what is declared 8bit or binary is converted.
    (b"A: b\n\ncaf\xc3\xa9\n", b"A: b\n\ncaf\xc3\xa9\n"),
    (CTE + b"7bit\n\n\xe9\n", CTE + b"7bit\n\n\xe9\n"),
    (CTE + b"base64\n\n\xe9\n", CTE + b"base64\n\n\xe9\n"),
    (CTE + b"x-foo\n\n\xe9\n", CTE + b"x-foo\n\n\xe9\n"),
    (EIGHT + b"\nplain = text\n", QP + b"\nplain =3D text\n"),
    (CTE + b"binary\n\n\0\xff\n", QP + b"\n=00=FF\n"),
    (CTE + b"  8BIT (x)\n\n\xe9\n", QP + b"\n=E9\n"),
    (CTE + b'(c) "8bit"\n\n\xe9\n', CTE + b'(c) "8bit"\n\n\xe9\n'),
    (CTE.strip() + b"\n 8bit\n\n\xe9\n", QP + b"\n=E9\n"),
    # The header moves to the end of its block.
    (
        EIGHT + b"X: y\nContent-Type: text/plain;\n charset=utf-8\nZ: q\n\n\xe9\n",
        b"X: y\nContent-Type: text/plain;\n charset=utf-8\nZ: q\n" + QP + b"\n=E9\n",
    ),
    (EIGHT + CTE + b"base64\n\n\xe9\n", CTE + b"base64\n\n\xe9\n"),
    (CTE + b"base64\n" + EIGHT + b"\n\xe9\n", CTE + b"base64\n" + QP + b"\n=E9\n"),
    (EIGHT + EIGHT + b"\n\xe9\n", QP + b"\n=E9\n"),
    (b"A: b\n" + EIGHT, b"A: b\n" + QP),
    # White space at the end of a line, controls, a missing last line end.
    (EIGHT + b"\n\xe9 \n\xe9\t\n \na\tb  c\n\n\x01\x7f", QP + b"\n=E9=20\n=E9=09\n=20\na\tb  c\n\n=01=7F\n"),
    # Line length.
    (EIGHT + b"\n" + b"a" * 73 + b"\n", QP + b"\n" + b"a" * 73 + b"\n"),
    (EIGHT + b"\n" + b"a" * 74 + b"\n", QP + b"\n" + b"a" * 73 + b"=\na\n"),
    (EIGHT + b"\n" + b"a" * 72 + b"\xe9\n", QP + b"\n" + b"a" * 72 + b"=E9\n"),
    (EIGHT + b"\n" + b"a" * 73 + b"\xe9\n", QP + b"\n" + b"a" * 73 + b"=\n=E9\n"),
    (EIGHT + b"\n" + b"a" * 72 + b" \n", QP + b"\n" + b"a" * 72 + b"=20\n"),
    (EIGHT + b"\n" + b"a" * 73 + b" \n", QP + b"\n" + b"a" * 73 + b"=\n=20\n"),
    (EIGHT + b"\n" + b"\xe9" * 60 + b"\n", QP + b"\n" + (b"=E9" * 25 + b"=\n") * 2 + b"=E9" * 10 + b"\n"),
    # Multipart: each part for itself; preamble and epilogue stay.
    (
        multipart(
            MIXED + EIGHT,
            b"Content-Type: text/plain\n" + EIGHT + b"\ncaf\xc3\xa9=\n",
            b"\nplain 7 = bit \xe8\n",
            CTE + b"base64\n\nYWJj\n",
        ),
        multipart(
            MIXED + CTE + b"7bit\n",
            b"Content-Type: text/plain\n" + QP + b"\ncaf=C3=A9=3D\n",
            b"\nplain 7 = bit \xe8\n",
            CTE + b"base64\n\nYWJj\n",
        ),
    ),
    (
        b'Content-Type: (hi) multipart / mixed ; foo=bar; (x) boundary = "x\\x" (y)\n\n--xx\n'
        + EIGHT
        + b"\n\xe9\n--xx--\n",
        b'Content-Type: (hi) multipart / mixed ; foo=bar; (x) boundary = "x\\x" (y)\n\n--xx\n'
        + QP
        + b"\n=E9\n--xx--\n",
    ),
    (
        MIXED + b"\n--xx\n" + EIGHT + b"--xx\nA: b\nbad \xe9\n--xx--\n",
        MIXED + b"\n--xx\n" + QP + b"--xx\nA: b\nbad \xe9\n--xx--\n",
    ),
    (
        b"Content-Type: multipart/mixed; boundary=aa\n\n--aa\n"
        + MIXED
        + b"\n--xx\n"
        + EIGHT
        + b"\n\xe9\n--xx--\n--aa\n\n\xe8\n--aa--\n",
        b"Content-Type: multipart/mixed; boundary=aa\n\n--aa\n"
        + MIXED
        + b"\n--xx\n"
        + QP
        + b"\n=E9\n--xx--\n--aa\n\n\xe8\n--aa--\n",
    ),
    (
        b"Content-Type: multipart/digest; boundary=xx\n\n--xx\n\nSubject: inner\n"
        + EIGHT
        + b"\n\xe9\n--xx--\n",
        b"Content-Type: multipart/digest; boundary=xx\n\n--xx\n\nSubject: inner\n" + QP + b"\n=E9\n--xx--\n",
    ),
    # Messages in messages.
    (
        b"Content-Type: message/rfc822\n" + EIGHT + b"\nSubject: \xe9\n" + EIGHT + b"\n\xe9\n",
        b"Content-Type: message/rfc822\n" + CTE + b"7bit\n\nSubject: \xe9\n" + QP + b"\n=E9\n",
    ),
    (
        b"Content-Type: message/partial\n" + EIGHT + b"\nSubject: q\n\n\xe9\n",
        b"Content-Type: message/partial\n" + CTE + b"7bit\n\nSubject: q\n\n=E9\n",
    ),
    (
        b"Content-Type: message/global\n" + EIGHT + b"\nSubject: q\n" + EIGHT + b"\n\xe9\n",
        b"Content-Type: message/global\n" + QP + b"\nSubject: q\n" + EIGHT + b"\n=E9\n",
    ),
]


class AsPostfix(SynchronousTestCase):
    def test_pairs(self) -> None:
        for content, converted in PAIRS:
            self.assertEqual(convert(content), converted)

    @given(st.sampled_from(PAIRS), st.lists(st.integers(0, 300), max_size=8))
    def test_any_chunking(self, pair: tuple[bytes, bytes], cuts: list[int]) -> None:
        content, converted = pair
        edges = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
        chunks = [content[start:end] for start, end in pairwise(edges)]
        self.assertEqual(convert(*chunks), converted)


class Bounds(SynchronousTestCase):
    def test_comments_without_end(self) -> None:
        """Time is linear in the length of a header, however its comments and quotes nest."""
        for value in (b"(" * 30_000 + b")" * 30_000, b"(\\" * 30_000, b"(" + b'"\\' * 30_000):
            begun = time.monotonic()
            convert(b"Content-Type: " + value + b"\n\n\xe9\n")
            self.assertLess(time.monotonic() - begun, 5)

    def test_a_line_without_end_is_not_kept(self) -> None:
        downgrader = Downgrader()
        downgrader.feed(EIGHT + b"\n")
        for _ in range(100):
            self.assertGreater(len(downgrader.feed(b"\xe9" * 65536)), 0)
            self.assertLess(len(downgrader._pending), 65536)

    @given(st.integers(16000, 50000), st.lists(st.integers(0, 50000), max_size=5))
    def test_long_lines_in_any_chunking(self, size: int, cuts: list[int]) -> None:
        for header in (EIGHT, b"A: b\n"):
            content = header + b"\n" + b"a\xe9 b" * (size // 4) + b"\nlast\n"
            edges = [0, *sorted(cut for cut in cuts if cut < len(content)), len(content)]
            chunks = [content[start:end] for start, end in pairwise(edges)]
            self.assertEqual(convert(*chunks), convert(content))

    def test_endless_nesting_and_headers_do_no_harm(self) -> None:
        deep = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(300)
        )
        self.assertEqual(convert(deep + b"\nx\n"), deep + b"\nx\n")
        rfc822 = b"Content-Type: message/rfc822\n\n" * 500
        self.assertEqual(convert(rfc822 + b"\nx\n"), rfc822 + b"\nx\n")
        self.assertEqual(
            convert(b"X: " + b"y" * 300000 + b"\n\n\xe9\n"), b"X: " + b"y" * 300000 + b"\n\n\xe9\n"
        )

    @given(st.binary(max_size=300))
    def test_anything_goes_through(self, data: bytes) -> None:
        convert(EIGHT + b"\n" + data)
        convert(MIXED + b"\n--xx\n" + data)
