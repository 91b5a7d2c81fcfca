"""
Searching in linear time: texts for RE2, and one pass for many patterns.

Takes pieces of patterns, gives the text that RE2 reads; takes many such texts, gives a L{Prefilter} that
tells whether one of them is in a block of keys. Pure. RE2 never backtracks: its time is linear in the text,
whatever the pattern, and its memory has a limit. Everything is bytes, one byte a character, and letters are
those of ASCII, as in Postfix, which runs in the C locale. Fails with L{TooLarge}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import re2

from qmqpd_tx.tables.interface import FOLD

WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
"""The bytes of words."""

NEWLINE = frozenset(b"\n")
ANY = frozenset(range(256))

CLASSES = {
    b"alpha": frozenset(byte for byte in range(128) if chr(byte).isalpha()),
    b"digit": frozenset(b"0123456789"),
    b"alnum": WORD - frozenset(b"_"),
    b"upper": frozenset(range(ord("A"), ord("Z") + 1)),
    b"lower": frozenset(range(ord("a"), ord("z") + 1)),
    b"space": frozenset(b" \t\n\v\f\r"),
    b"blank": frozenset(b" \t"),
    b"punct": frozenset(range(33, 127)) - WORD | frozenset(b"_"),
    b"print": frozenset(range(32, 127)),
    b"graph": frozenset(range(33, 127)),
    b"cntrl": frozenset((*range(32), 127)),
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}
"""The named classes of POSIX, in the C locale."""

MAXIMAL_REPEAT = 1000
"""How often RE2 repeats something at most."""

_MEMORY = 8 << 20
"""What a pattern may take; when its automaton outgrows it, RE2 begins a new one, or goes on without."""

_SHARED_MEMORY = 32 << 20
"""The same for many patterns in one."""

_CHUNK = 100
"""How many patterns share one automaton: more make its states many."""


class TooLarge(Exception):
    """A pattern, or its automaton, is larger than the limit; the text says which."""


def both_cases(members: Iterable[int]) -> frozenset[int]:
    """
    @return: the bytes, and for each letter also the other case.
    """
    found = set(members)
    for byte in tuple(found):
        if byte in CLASSES[b"alpha"]:
            found.add(byte ^ 0x20)
    return frozenset(found)


def in_block(members: frozenset[int]) -> frozenset[int]:
    """
    @return: these bytes of a key as a block of keys may have them. The newline is not among them: so nothing
        that is found in a block goes from one key into the next.
    """
    return members - NEWLINE | frozenset(FOLD) if members >= NEWLINE else members


@lru_cache(maxsize=1000)
def one_of(members: frozenset[int]) -> bytes:
    """
    @return: what matches one byte out of these.
    """
    if len(members) == 256:
        return b"(?s:.)"
    if len(members) == 1:
        return b"\\x%02x" % next(iter(members))
    ranges = []
    negated = len(members) > 128
    wanted = ANY - members if negated else members
    byte = 0
    while byte < 256:
        if byte in wanted:
            first = byte
            while byte + 1 in wanted:
                byte += 1
            ranges.append(b"\\x%02x" % first if first == byte else b"\\x%02x-\\x%02x" % (first, byte))
        byte += 1
    if not ranges:
        return b"[^\\x00-\\xff]"
    return b"[" + (b"^" if negated else b"") + b"".join(ranges) + b"]"


def repeated(text: bytes, least: int, most: int | None) -> bytes:
    """
    @param text: what is repeated.
    @param most: L{None}: any number of times.
    @return: the repetition.
    @raise TooLarge: a group that is kept is repeated too often.
    """
    whole = b"(?:" + text + b")"
    if most is None and least < 2:
        return whole + (b"*", b"+")[least]
    if (least, most) == (0, 1):
        return whole + b"?"
    if max(least, most or 0) <= MAXIMAL_REPEAT:
        return whole + (b"{%d,}" % least if most is None else b"{%d,%d}" % (least, most))
    if b"(" in text.replace(b"(?", b""):
        raise TooLarge(f"a group is repeated more than {MAXIMAL_REPEAT} times")
    parts = _copies(whole, least, b"{%d}")
    if most is None:
        parts.append(whole + b"*")
    else:
        parts += _copies(whole, most - least, b"{0,%d}")
    return b"(?:" + b"".join(parts) + b")"


def _copies(whole: bytes, count: int, how: bytes) -> list[bytes]:
    times, rest = divmod(count, MAXIMAL_REPEAT)
    return [whole + how % MAXIMAL_REPEAT] * times + ([whole + how % rest] if rest else [])


def _options(captures: bool, memory: int) -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.longest_match = True
    options.never_capture = not captures
    options.log_errors = False
    options.max_mem = memory
    return options


def compiled(text: bytes, captures: bool = True, memory: int = _MEMORY) -> Any:
    """
    @param captures: whether groups are wanted.
    @param memory: how many bytes it may take.
    @return: an object with C{search(bytes)}, which finds the leftmost of the longest matches.
    @raise TooLarge: RE2 does not take it.
    """
    try:
        return re2.compile(text, _options(captures, memory))
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise TooLarge(
            reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        ) from None


class Prefilter:
    """
    Tells in one pass whether one of many patterns is somewhere in a block of keys.

    @param texts: the patterns for RE2, each written so that it finds in a block all that it finds in a key.
    @raise TooLarge: one of them is.
    """

    # RE2 also has a set of patterns, which says which of them match; but it says "none" when its automaton
    # outgrows its memory, where a single pattern goes on without one. So this is a single pattern.

    __slots__ = ("_chunks",)

    def __init__(self, texts: Sequence[bytes]) -> None:
        unique = list(dict.fromkeys(texts))
        parts = (unique[start : start + _CHUNK] for start in range(0, len(unique), _CHUNK))
        self._chunks = [
            compiled(b"|".join(b"(?:" + text + b")" for text in part), False, _SHARED_MEMORY)
            for part in parts
        ]

    def may_match(self, block: bytes) -> bool:
        """
        @param block: as in L{IPatternTable}.
        @return: whether one of the patterns matches.
        """
        for chunk in self._chunks:  # noqa: SIM110 (any() would take as long as the search)
            if chunk.search(block) is not None:
                return True
        return False

    def may_match_key(self, key: bytes) -> bool:
        """
        @param key: a single key, as it is.
        @return: whether one of the patterns matches.
        """
        if b"\n" in key:
            if key.endswith(b"\n"):
                # Perl's $ matches before it, and what is in a block never ends in one.
                return True
            key = key.replace(b"\n", FOLD)
        return self.may_match(key)
