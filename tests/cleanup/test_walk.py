"""
Bodies in any chunking, and hostile ones.
"""

from __future__ import annotations

import re
import time
import tracemalloc
from itertools import pairwise

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.actions import Check
from qmqpd_tx.cleanup.checks import CheckTable
from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.verdict import Verdict
from tests.cleanup.inspection import CLIENT, QUEUE_ID, Patterns, content_checks, inspect

LIMITS = "header_size_limit = 40\nbody_checks_size_limit = 60\nmime_nesting_limit = 2\n"
LINE_LIMIT = 16
ACTIONS = (
    "^w = WARN\n^i = IGNORE\n^r(.*) = REPLACE x\\1\n^p = PREPEND pre\n^--b pre = PREPEND --b\n"
    "^X-Old = REPLACE X-New: y\n^X-Gone = IGNORE\n^X-Late = PREPEND X-Early: z\n^h = HOLD\n"
    "^stop = REDIRECT a@b"
)
WORDS = st.sampled_from(
    [
        b"\n",
        b"\n\n",
        b"Content-Type: multipart/mixed; boundary=b\n",
        b"Content-Type: multipart/digest; boundary=bc\n",
        b"Content-Type: message/rfc822\n",
        b"Content-Transfer-Encoding: 8bit\n",
        b"--b\n",
        b"--bc\n",
        b"--bc--\n",
        b"--b--\n",
        b"--",
        b"X-Old: a\n",
        b"X-Gone : a\n b\n",
        b"X-Late: a\n\tb\n",
        b" ",
        b"w\n",
        b"i\n",
        b"ignored " * 4,
        b"r 12345678901234567890\n",
        b"p\n",
        b"h",
        b"stop\n",
        b"\0",
        b"\xe9",
        b"x" * 15,
        b"x" * 16,
        b"x" * 40,
    ]
)
TEXT = (
    st.lists(WORDS | st.binary(max_size=5), max_size=25)
    .map(b"".join)
    .map(lambda raw: raw.replace(b"\r", b" "))
)


TABLES = {"header_checks": ACTIONS, "body_checks": ACTIONS}
PLAIN = content_checks(TABLES, LIMITS, LINE_LIMIT)
STRICT = content_checks(TABLES, LIMITS + "strict_8bitmime = yes\n", LINE_LIMIT)
FILTERED = content_checks({name: Patterns(ACTIONS, filters=True) for name in TABLES}, LIMITS, LINE_LIMIT)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    """
    @return: the content, cut at these places.
    """
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(places)]


def records(body: bytes, limit: int) -> list[bytes]:
    """
    @return: lines and pieces of a body without parts, as body checks see them.
    """
    found: list[bytes] = []
    for line in body.split(b"\n"):
        found += [line[start : start + limit] for start in range(0, max(len(line), 1), limit)]
    return [text for record in found if (text := record.partition(b"\0")[0])]


class Chunking(SynchronousTestCase):
    """Any chunking gives the same."""

    @settings(max_examples=300)
    @given(TEXT, st.lists(st.integers(0, 2000), max_size=8), st.booleans())
    def test_same(self, content: bytes, cuts: list[int], strict: bool) -> None:
        """
        The same bytes, the same decisions and the same log lines.
        """
        checks = STRICT if strict else PLAIN
        whole = inspect(checks, [content])
        for chunks in (pieces(content, cuts), [bytes((byte,)) for byte in content]):
            found = inspect(checks, chunks)
            self.assertEqual(found.content, whole.content)
            self.assertEqual(sorted(found.log), sorted(whole.log))
            self.assertEqual(found.reply, whole.reply)

    @settings(max_examples=200)
    @given(TEXT, st.lists(st.integers(0, 2000), max_size=4))
    def test_filter_changes_nothing(self, content: bytes, cuts: list[int]) -> None:
        """
        Asking a table about many lines at once gives what looking up each of them gives.
        """
        chunks = pieces(content, cuts)
        self.assertEqual(inspect(FILTERED, chunks).content, inspect(PLAIN, chunks).content)

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\0", b"-", b":", b" ", b"x" * 7]), max_size=60))
    def test_lines(self, words: list[bytes]) -> None:
        """
        A body without parts: each line, or piece of one, once and in order; and it is stored as it came.
        """
        body = b"".join(words)
        table = Patterns("")
        looked = CheckTable(Check("body_checks", "body"), table.lookup, lambda block: True)
        checks = evolve(PLAIN, headers=None, mime=None, nested=None, body=looked, body_limit=10_000)
        content = b"X: y\n\n" + body
        stored = inspect(checks, [content]).content
        self.assertEqual(table.keys, records(body, 16))
        self.assertEqual(stored.removesuffix(b"\n"), content.removesuffix(b"\n"))


class Hostile(SynchronousTestCase):
    """Bounded time and memory."""

    def took(self, content: list[bytes], limits: str = "") -> float:
        """
        @return: seconds.
        """
        checks = content_checks(
            {"header_checks": "^zz = WARN", "body_checks": "^zz = WARN"}, "strict_8bitmime = yes\n" + limits
        )
        start = time.process_time()
        inspect(checks, content)
        return time.process_time() - start

    def test_floods(self) -> None:
        """
        A megabyte of what is hard costs seconds at most: twice as much costs about twice as much.
        """
        mixed = b"Content-Type: multipart/mixed; boundary=%s\n"
        bomb = b"".join(mixed % b"%06d" % n + b"\n--%06d\n" % n for n in range(10_000))
        for name, content in (
            ("nesting", bomb),
            ("nested messages", b"Content-Type: message/rfc822\n\n" * 20_000),
            ("content types", (mixed % b"x") * 20_000 + b"\n"),
            ("parameters", b"Content-Type: multipart/x" + b";boundary=x" * 80_000 + b"\n\n"),
            ("comments", b"Content-Type: multipart/x" + b"(" * 500_000 + b"\n\n"),
            ("quotes", b"Content-Type: multipart/x" + b'"\\' * 250_000 + b"\n\n"),
            ("folded", b"Content-Type: multipart/x\n" + b" ;\n" * 250_000 + b"\n"),
            ("boundaries", mixed % b"x" + b"\n" + b"--x\n" * 100_000),
            ("no boundaries", mixed % b"x" + b"\n" + b"--y\n" * 100_000),
            ("headers of a part", mixed % b"x" + b"\n--x\n" + b"A: b\n" * 50_000),
            ("a header of a part", mixed % b"x" + b"\n--x\nA: b\n" + b" c\n" * 200_000),
            ("a name without end", mixed % b"x" + b"\n--x\n" + b"A" * 1_000_000),
            ("no end", mixed % b"x" + b"\n" + b"x" * 1_000_000),
            ("nothing but NUL", b"A: b\n\n" + b"\0" * 1_000_000),
            ("eight bits", b"A: b\n\n" + b"\xff\n" * 100_000),
        ):
            with self.subTest(name):
                chunks = [content[start : start + 65536] for start in range(0, len(content), 65536)]
                self.assertLess(self.took(chunks), 5, name)

    def test_drip(self) -> None:
        """
        One byte at a time is not quadratic.
        """
        mixed = b"Content-Type: multipart/mixed; boundary=x\n\n--x\nA: "
        for content in (mixed + b"b\n c" * 20_000, b"A: b\n\n" + b"x" * 60_000):
            self.assertLess(self.took([bytes((byte,)) for byte in content]), 5)

    def test_memory(self) -> None:
        """
        Nothing grows with the size of the message.
        """
        checks = content_checks({"body_checks": "^zz = WARN"}, "header_size_limit = 10000\n")
        for line in (b" folded\n", b"x" * 1000, b"--y\n", b"\0"):
            inspector = Inspector(checks, Verdict(), QUEUE_ID, CLIENT)
            inspector.primary(b"content-type", b"Content-Type: multipart/mixed; boundary=x")
            inspector.begin_body(False)
            inspector.body(b"\n--x\nA: b\n")
            chunk = line * (60_000 // len(line))
            inspector.body(chunk)
            tracemalloc.start()
            try:
                for _ in range(50):
                    inspector.body(chunk)
                size, _peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(size, 200_000, line[:8])

    def test_no_backtracking_in_the_filter(self) -> None:
        """
        The search for long lines takes time in proportion to the body.
        """
        table = Patterns("zz = WARN", filters=True)
        checks = content_checks({"body_checks": table}, "body_checks_size_limit = 10000000\n")
        start = time.process_time()
        inspect(checks, [b"A: b\n\n", b"x" * 2040 + b"\n", (b"x" * 2040 + b"\n") * 1000])
        self.assertLess(time.process_time() - start, 2)
        self.assertFalse(any(re.search(b"zz", key) for key in table.keys))
