"""
Perl's regular expressions, loosened until RE2 can search for them.

Takes a pattern as PCRE2 reads it, gives a text for RE2 that finds, in a block of keys
(L{IPatternTable<qmqpd_tx.tables.interface.IPatternTable>}), at least all that the pattern finds in any of the
keys. It may find more: what is looked ahead for is left out, a back-reference may be anything. So it serves
as a prefilter, and never as the answer. Pure. L{None} where a pattern is stranger than this: recursion,
conditions, verbs, Unicode properties.
"""

from __future__ import annotations

import re

from attrs import define, evolve, frozen

from qmqpd_tx.tables.interface import FOLD
from qmqpd_tx.tables.linear import (
    ANY,
    CLASSES,
    MAXIMAL_REPEAT,
    NEWLINE,
    WORD,
    both_cases,
    in_block,
    one_of,
    repeated,
)

_MAXIMAL_DEPTH = 100
"""How deep groups may be nested: reading them must not overflow our own stack. Nobody writes a tenth."""

_SPACE = CLASSES[b"space"]
_BLANK = frozenset(b"\t \xa0")
_VERTICAL = frozenset(b"\n\v\f\r\x85")
_SETS = {
    b"d": CLASSES[b"digit"],
    b"w": WORD,
    b"s": _SPACE,
    b"h": _BLANK,
    b"v": _VERTICAL,
}
_SETS |= {name.upper(): ANY - members for name, members in tuple(_SETS.items())}
_CONTROLS = {b"a": 7, b"e": 27, b"f": 12, b"n": 10, b"r": 13, b"t": 9}
_WHITE = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")
_KEY_START = b"(?m:^)"
_KEY_END = b"(?m:$)"
_ANYTHING = b"[^\\n]*"

_QUANTIFIER = re.compile(rb"(?:([*+?])|\{([0-9]+)(,?)([0-9]*)\})[+?]?")
_NOT_QUANTIFIER = re.compile(rb"\{ *,|\{ +[0-9]|\{[0-9]+ +|\{[0-9]+, +[0-9]")
_NUMBER = re.compile(
    rb"x\{(?P<braced>[0-9A-Fa-f]+)\}|x(?!\{)(?P<hex>[0-9A-Fa-f]{0,2})|o\{(?P<octal>[0-7]+)\}|(?P<zero>0[0-7]{0,2})"
)
_REFERENCE = re.compile(rb"g(?:\{-?[0-9A-Za-z_]+\}|-?[0-9]+)|k(?:\{\w+\}|<\w+>|'\w+')|[1-9]")
_OPENING = re.compile(rb"\(\?(?:(?P<look>=|!|<=|<!)|(?P<plain>[:>|]|P?<\w+>|'\w+')|(?P<same>P=\w+\)))")
_FLAGS = re.compile(rb"\(\?(\^?[imsxnUJ]*)(?:-([imsxnUJ]*))?([:)])")


class Unsure(Exception):
    """The pattern has something that is not known here."""


@frozen(slots=True)
class Flags:
    """
    How a pattern is read.

    @ivar fold: whether case does not matter.
    @ivar dot_all: whether C{.} matches a newline.
    @ivar spaced: whether white space in the pattern means nothing.
    @ivar lines: whether C{^} and C{$} match at the lines within a key.
    """

    fold: bool = True
    dot_all: bool = True
    spaced: bool = False
    lines: bool = False


@define(slots=True)
class _Loosener:
    data: bytes
    flags: Flags
    at: int = 0

    def starts(self, token: bytes) -> bool:
        return self.data.startswith(token, self.at)

    def one(self, members: frozenset[int]) -> bytes:
        return one_of(in_block(both_cases(members) if self.flags.fold else members))

    def alternatives(self, depth: int) -> bytes:
        """
        Up to the closing parenthesis. The flags that are set within are set until there.
        """
        if depth > _MAXIMAL_DEPTH:
            raise Unsure
        before = self.flags
        branches = [self.branch(depth)]
        while self.starts(b"|"):
            self.at += 1
            branches.append(self.branch(depth))
        self.flags = before
        return b"(?:" + b"|".join(branches) + b")" if len(branches) > 1 else branches[0]

    def branch(self, depth: int) -> bytes:
        pieces: list[bytes] = []
        while self.at < len(self.data) and not self.starts(b"|") and not self.starts(b")"):
            if self.skipped():
                continue
            piece = self.atom(depth)
            while self.skipped():
                pass
            pieces.append(self.quantified(piece))
        return b"".join(pieces)

    def skipped(self) -> bool:
        """
        Skip what means nothing, and does not come between something and its repetition.
        """
        if self.starts(b"\\E"):
            self.at += 2
            return True
        if self.starts(b"(?#"):
            end = self.data.find(b")", self.at)
        elif self.flags.spaced and self.starts(b"#"):
            end = self.data.find(b"\n", self.at)
        elif self.flags.spaced and self.data[self.at : self.at + 1] in _WHITE:
            end = self.at
        else:
            return False
        self.at = len(self.data) if end < 0 else end + 1
        return True

    def quantified(self, piece: bytes) -> bytes:
        while True:
            if _NOT_QUANTIFIER.match(self.data, self.at):
                raise Unsure  # Which of these repeat depends on the version of PCRE2.
            found = _QUANTIFIER.match(self.data, self.at)
            if found is None:
                return piece
            self.at = found.end()
            least, most = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}.get(found[1], (0, 0))
            if found[1] is None:
                least = int(found[2])
                most = (int(found[4]) if found[4] else None) if found[3] else least
            # Fewer times, and more, also finds it.
            least = min(least, MAXIMAL_REPEAT)
            most = None if most is None or most > MAXIMAL_REPEAT else most
            piece = repeated(piece, least, most)

    def atom(self, depth: int) -> bytes:
        if self.starts(b"("):
            return self.group(depth)
        if self.starts(b"\\"):
            self.at += 1
            return self.escaped()
        byte = self.data[self.at]
        self.at += 1
        if byte == ord("["):
            return self.one_listed()
        if byte == ord("."):
            return one_of(in_block(ANY if self.flags.dot_all else ANY - NEWLINE))
        if byte in b"^$" and self.flags.lines:
            # In a block the lines within a key cannot be told, so their edges are anywhere.
            return b""
        if byte == ord("^"):
            return _KEY_START
        if byte == ord("$"):
            return _KEY_END
        if byte in b"*+?":
            raise Unsure
        return self.one(frozenset((byte,)))

    def group(self, depth: int) -> bytes:
        if not self.starts(b"(?"):
            if self.starts(b"(*"):
                raise Unsure
            self.at += 1
            return self.inside(depth)
        found = _OPENING.match(self.data, self.at)
        if found is not None:
            self.at = found.end()
            if found["same"]:
                return _ANYTHING
            inner = self.inside(depth)
            return b"" if found["look"] else inner
        found = _FLAGS.match(self.data, self.at)
        if found is None:
            raise Unsure
        self.at = found.end()
        before = self.flags
        self.flags = self.changed(found[1], found[2] or b"")
        if found[3] == b")":
            return b""
        inner = self.inside(depth)
        self.flags = before
        return inner

    def changed(self, on: bytes, off: bytes) -> Flags:
        flags = self.flags
        if on.startswith(b"^"):
            flags = Flags(fold=False, dot_all=False, spaced=False, lines=False)
        for letters, value in ((on, True), (off, False)):
            if b"i" in letters:
                flags = evolve(flags, fold=value)
            if b"s" in letters:
                flags = evolve(flags, dot_all=value)
            if b"m" in letters:
                flags = evolve(flags, lines=value)
            if b"x" in letters:
                # Twice: white space means nothing in lists of characters either.
                if b"xx" in letters:
                    raise Unsure
                flags = evolve(flags, spaced=value)
        return flags

    def inside(self, depth: int) -> bytes:
        inner = self.alternatives(depth + 1)
        if not self.starts(b")"):
            raise Unsure
        self.at += 1
        return b"(?:" + inner + b")"

    def escaped(self) -> bytes:
        char = self.data[self.at : self.at + 1]
        if char in (b"A", b"G"):
            self.at += 1
            return _KEY_START
        if char in (b"z", b"Z"):
            self.at += 1
            return _KEY_END
        if char in (b"b", b"B"):
            self.at += 1
            return b"\\" + char
        if char == b"K":
            self.at += 1
            return b""
        if char == b"Q":
            end = self.data.find(b"\\E", self.at)
            quoted = self.data[self.at + 1 : len(self.data) if end < 0 else end]
            self.at = len(self.data) if end < 0 else end + 2
            if len(quoted) != 1 and _QUANTIFIER.match(self.data, self.at):
                raise Unsure  # It repeats the last character alone.
            return b"".join(self.one(frozenset((byte,))) for byte in quoted)
        if char == b"R":
            self.at += 1
            return b"(?:\\r" + FOLD + b"|" + one_of(in_block(_VERTICAL)) + b")"
        if char == b"N" and self.data[self.at + 1 : self.at + 2] != b"{":
            self.at += 1
            return one_of(ANY - NEWLINE)
        found = _REFERENCE.match(self.data, self.at)
        if found is not None:
            if char.isdigit() and self.data[found.end() : found.end() + 1].isdigit():
                raise Unsure  # A reference or a number, depending on how many groups there are.
            self.at = found.end()
            return _ANYTHING
        return self.one(self.escaped_members())

    def escaped_members(self) -> frozenset[int]:
        """
        What stands for bytes after a backslash, within a list of characters and outside of one.
        """
        char = self.data[self.at : self.at + 1]
        if not char:
            raise Unsure
        if char in _SETS:
            self.at += 1
            return _SETS[char]
        if char in _CONTROLS:
            self.at += 1
            return frozenset((_CONTROLS[char],))
        found = _NUMBER.match(self.data, self.at)
        if found is not None:
            self.at = found.end()
            if found["octal"] or found["zero"]:
                value = int(found["octal"] or found["zero"], 8)
            else:
                value = int(found["braced"] or found["hex"] or b"0", 16)
            if value > 255:
                raise Unsure
            return frozenset((value,))
        if char.isalnum():
            raise Unsure
        self.at += 1
        return frozenset(char)

    def one_listed(self) -> bytes:
        """
        A list of characters, after its C{[}.
        """
        negated = self.starts(b"^")
        self.at += negated
        members: set[int] = set()
        first = True
        while first or not self.starts(b"]"):
            start = self.element()
            first = False
            if not self.starts(b"-") or self.starts(b"-]"):
                members |= start
                continue
            self.at += 1
            end = self.element()
            if len(start) != 1 or len(end) != 1:
                members |= start | end | {ord("-")}
                if negated:
                    raise Unsure
                continue
            members.update(range(min(start), max(end) + 1))
        self.at += 1
        found = both_cases(members) if self.flags.fold else frozenset(members)
        return one_of(in_block(ANY - found if negated else found))

    def element(self) -> frozenset[int]:
        if self.at >= len(self.data):
            raise Unsure
        if self.starts(b"[:"):
            close = self.data.find(b":]", self.at)
            name = self.data[self.at + 2 : close] if close > 0 else b""
            bare = name.removeprefix(b"^")
            members = WORD if bare == b"word" else CLASSES.get(bare)
            if members is not None:
                self.at = close + 2
                if self.flags.fold and bare in (b"upper", b"lower"):
                    members = CLASSES[b"alpha"]
                return ANY - members if name != bare else members
        if self.starts(b"[.") or self.starts(b"[="):
            raise Unsure
        if self.starts(b"\\"):
            self.at += 1
            if self.starts(b"b"):
                self.at += 1
                return frozenset((8,))
            if self.data[self.at : self.at + 1] in (b"Q", b"E") or self.data[self.at : self.at + 1].isdigit():
                raise Unsure
            return self.escaped_members()
        self.at += 1
        return frozenset(self.data[self.at - 1 : self.at])


def loosened(pattern: bytes, flags: Flags) -> bytes | None:
    """
    @param pattern: one that PCRE2 takes.
    @return: what finds at least as much, or L{None} when this is not known.
    """
    loosener = _Loosener(pattern, flags)
    try:
        found = loosener.alternatives(0)
    except Unsure:
        return None
    return found if loosener.at == len(pattern) else None
