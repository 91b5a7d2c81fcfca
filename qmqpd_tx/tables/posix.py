"""
POSIX regular expressions, as the C library of Linux understands them, for an engine that does not backtrack.

Takes an extended or a basic regular expression, gives texts for RE2 (L{qmqpd_tx.tables.linear}): one that
matches a key just as regexec(3) would, and one that finds in a block of keys
(L{IPatternTable<qmqpd_tx.tables.interface.IPatternTable>}) at least what the first one finds in any of the
keys. Pure. What is peculiar to the C library is kept, since tables were tried out with
it: its extensions (C{\\w}, C{\\<}, back-references); an expression whose case does not matter compares upper
case, so that C{\\d}, which means the letter, is never found. Fails with L{PatternError} in the words of
regerror(3). Answers to Postfix's regexp tables (regexp_table(5)), and to regex(7).

Back-references, and C{\\<} and C{\\>} where no word stands beside them, are beyond RE2:
L{Expression.beyond} is set, and the text is for PCRE2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from attrs import define, frozen

from qmqpd_tx.tables.linear import (
    ANY,
    CLASSES,
    NEWLINE,
    WORD,
    TooLarge,
    both_cases,
    in_block,
    one_of,
    repeated,
)

_MAXIMAL_REPEAT = 32767
"""How often the C library of Linux repeats something at most."""

_MAXIMAL_DEPTH = 100
"""How deep groups may be nested: reading them must not overflow our own stack. Nobody writes a tenth."""

_MAXIMAL_REFERENCE = 9
"""The last group that a back-reference can name."""

_SPACE = CLASSES[b"space"]


class PatternError(Exception):
    """A pattern that makes no sense; the text says why."""


@frozen(slots=True)
class Syntax:
    """
    How an expression is read.

    @ivar extended: as an extended regular expression, not a basic one.
    @ivar fold: whether case does not matter.
    @ivar newline: whether lines end at newlines: for C{^}, C{$}, C{.} and lists that exclude.
    """

    extended: bool = True
    fold: bool = True
    newline: bool = False


@frozen(slots=True)
class Expression:
    """
    An expression that makes sense.

    @ivar text: for RE2, or for PCRE2 where it is L{beyond} RE2.
    @ivar block: for RE2: finds the same in a block of keys, and perhaps more.
    @ivar groups: how many groups it has.
    @ivar beyond: whether RE2 cannot match it.
    """

    text: bytes
    block: bytes
    groups: int
    beyond: bool


@frozen(slots=True)
class _Piece:
    """
    A part of the expression.

    @ivar text: see L{Expression}.
    @ivar block: see L{Expression}.
    @ivar starts: whether all that it matches begins with a byte of a word.
    @ivar ends: whether it ends with one.
    @ivar edge: C{<} or C{>} for an edge of a word.
    """

    text: bytes
    block: bytes
    starts: bool = False
    ends: bool = False
    edge: bytes = b""


@lru_cache(maxsize=1000)
def _bytes(members: frozenset[int]) -> _Piece:
    word = bool(members) and members <= WORD
    return _Piece(one_of(members), one_of(in_block(members)), word, word)


def _upper(byte: int) -> int:
    return byte & ~0x20 if byte in CLASSES[b"lower"] else byte


@define(slots=True)
class _Parser:
    """
    Reads one expression from left to right.
    """

    data: bytes
    syntax: Syntax
    at: int = 0
    groups: int = 0
    closed: frozenset[int] = frozenset()
    beyond: bool = False

    def rest_starts(self, token: bytes) -> bool:
        return self.data.startswith(token, self.at)

    # The characters with a meaning, in both notations.
    def token(self, name: bytes) -> bytes:
        return name if self.syntax.extended else b"\\" + name

    def expression(self, depth: int) -> _Piece:
        if depth > _MAXIMAL_DEPTH:
            raise PatternError("Regular expression too big")
        before, start = self.closed, self.at
        branches = [self.branch(depth)]
        empty = self.at == start
        closed = self.closed
        while self.rest_starts(self.token(b"|")):
            self.at += len(self.token(b"|"))
            self.closed = before
            branches.append(self.branch(depth))
            closed |= self.closed
        self.closed = closed
        if len(branches) == 1:
            return branches[0]
        if empty:
            # The C library tries an empty first branch after the second one.
            branches[:2] = reversed(branches[:2])
        return _Piece(
            b"(?:" + b"|".join(one.text for one in branches) + b")",
            b"(?:" + b"|".join(one.block for one in branches) + b")",
            all(one.starts for one in branches),
            all(one.ends for one in branches),
        )

    def branch(self, depth: int) -> _Piece:
        pieces: list[_Piece] = []
        close = self.token(b")")
        while self.at < len(self.data) and not self.rest_starts(self.token(b"|")):
            if self.rest_starts(close) and (depth or not self.syntax.extended):
                if not depth:
                    raise PatternError("Unmatched ( or \\(")
                break
            first = not pieces
            piece, repeatable = self.atom(first, depth)
            pieces.append(self.repetitions(piece, repeatable))
        return self.joined(pieces)

    def joined(self, pieces: Sequence[_Piece]) -> _Piece:
        texts = []
        for index, piece in enumerate(pieces):
            text = piece.text
            beside = False
            if piece.edge == b"<":
                beside = index + 1 < len(pieces) and pieces[index + 1].starts
                text = b"\\b" if beside else b"\\b(?=\\w)"
            elif piece.edge == b">":
                beside = index > 0 and pieces[index - 1].ends
                text = b"\\b" if beside else b"\\b(?<=\\w)"
            if piece.edge and not beside:
                self.beyond = True
            texts.append(text)
        return _Piece(
            b"".join(texts),
            b"".join(piece.block for piece in pieces),
            bool(pieces) and pieces[0].starts,
            bool(pieces) and pieces[-1].ends,
        )

    def repetitions(self, piece: _Piece, repeatable: bool) -> _Piece:
        if not repeatable and not self.syntax.extended:
            return piece
        brace = self.token(b"{")
        seen = False
        while self.at < len(self.data):
            if seen and not self.syntax.extended and (self.rest_starts(brace) or self.rest_starts(b"*")):
                raise PatternError("Invalid preceding regular expression")
            if self.rest_starts(brace):
                self.at += len(brace)
                least, most = self.interval()
            elif self.rest_starts(b"*"):
                self.at += 1
                least, most = 0, None
            elif self.rest_starts(self.token(b"+")):
                self.at += len(self.token(b"+"))
                least, most = 1, None
            elif self.rest_starts(self.token(b"?")):
                self.at += len(self.token(b"?"))
                least, most = 0, 1
            else:
                break
            if not repeatable:
                raise PatternError("Invalid preceding regular expression")
            seen = True
            stays = least > 0
            piece = _Piece(
                repeated(piece.text, least, most),
                repeated(piece.block, least, most),
                piece.starts and stays,
                piece.ends and stays,
            )
        return piece

    def interval(self) -> tuple[int, int | None]:
        close = self.data.find(self.token(b"}"), self.at)
        if close < 0:
            raise PatternError("Unmatched \\{")
        least, comma, most = self.data[self.at : close].partition(b",")
        self.at = close + len(self.token(b"}"))
        if not all(not part or part.isdigit() for part in (least, most)) or not (least or comma):
            raise PatternError("Invalid content of \\{\\}")
        lower = int(least or b"0")
        upper = (int(most) if most else None) if comma else lower
        if upper is not None and upper < lower:
            raise PatternError("Invalid content of \\{\\}")
        if max(lower, upper or 0) > _MAXIMAL_REPEAT:
            raise PatternError("Regular expression too big")
        return lower, upper

    def atom(self, first: bool, depth: int) -> tuple[_Piece, bool]:
        """
        @return: the next piece, and whether it can be repeated.
        """
        for operator in (b"*", self.token(b"+"), self.token(b"?"), self.token(b"{")):
            if self.rest_starts(operator):
                if self.syntax.extended or operator == self.token(b"{"):
                    raise PatternError("Invalid preceding regular expression")
                self.at += len(operator)
                return self.literal(operator[-1]), True
        if self.rest_starts(self.token(b"(")):
            return self.group(depth), True
        byte = self.data[self.at]
        self.at += 1
        if byte == ord("["):
            return self.bracket(), True
        if byte == ord("."):
            return _bytes(ANY - NEWLINE if self.syntax.newline else ANY), True
        if byte == ord("^") and (self.syntax.extended or first):
            return self.edge(b"\\A", b"(?m:^)"), False
        if byte == ord("$") and (self.syntax.extended or self.at_end_of_branch()):
            return self.edge(b"\\z", b"(?m:$)"), False
        if byte == ord("\\"):
            return self.escaped()
        return self.literal(byte), True

    def at_end_of_branch(self) -> bool:
        return self.at == len(self.data) or self.rest_starts(b"\\)") or self.rest_starts(b"\\|")

    def edge(self, key: bytes, line: bytes) -> _Piece:
        # In a block the edges of lines within a key cannot be told, so they are anywhere.
        return _Piece(line, b"") if self.syntax.newline else _Piece(key, line)

    def literal(self, byte: int) -> _Piece:
        return _bytes(both_cases((byte,)) if self.syntax.fold else frozenset((byte,)))

    def group(self, depth: int) -> _Piece:
        self.at += len(self.token(b"("))
        self.groups += 1
        number = self.groups
        inner = self.expression(depth + 1)
        if not self.rest_starts(self.token(b")")):
            raise PatternError("Unmatched ( or \\(")
        self.at += len(self.token(b")"))
        if number <= _MAXIMAL_REFERENCE:
            self.closed |= {number}
        return _Piece(b"(" + inner.text + b")", b"(?:" + inner.block + b")", inner.starts, inner.ends)

    def escaped(self) -> tuple[_Piece, bool]:
        if self.at == len(self.data):
            raise PatternError("Trailing backslash")
        byte = self.data[self.at]
        self.at += 1
        char = bytes((byte,))
        if char == b")" and not self.syntax.extended:
            raise PatternError("Unmatched ) or \\)")
        sets = {b"w": WORD, b"W": ANY - WORD, b"s": _SPACE, b"S": ANY - _SPACE}
        if char in sets:
            return _bytes(sets[char]), True
        if char in b"bB":
            return _Piece(b"\\" + char, b"\\" + char), False
        if char in b"<>":
            return _Piece(b"", b"\\b", edge=char), False
        if char == b"`":
            return _Piece(b"\\A", b"(?m:^)"), False
        if char == b"'":
            return _Piece(b"\\z", b"(?m:$)"), False
        if char.isdigit() and char != b"0":
            if int(char) not in self.closed:
                raise PatternError("Invalid back reference")
            self.beyond = True
            same = b"(?i:\\g{%s})" if self.syntax.fold else b"\\g{%s}"
            return _Piece(same % char, b"[^\\n]*"), True
        # An escaped letter is not made upper case, while the text is.
        if self.syntax.fold and byte != _upper(byte):
            return _bytes(frozenset()), True
        return self.literal(byte), True

    def bracket(self) -> _Piece:
        """
        A list of characters, after its C{[}.
        """
        negated = self.rest_starts(b"^")
        self.at += negated
        members: set[int] = set()
        first = True
        while first or not self.rest_starts(b"]"):
            first = False
            start, single = self.element()
            is_range = single and self.rest_starts(b"-") and not self.rest_starts(b"-]")
            if not is_range:
                if not single and self.rest_starts(b"-") and not self.rest_starts(b"-]"):
                    raise PatternError("Invalid range end")
                members |= start
                continue
            self.at += 1
            end, single = self.element()
            if not single:
                raise PatternError("Invalid range end")
            (low,), (high,) = start, end
            if self.syntax.fold:
                low, high = _upper(low), _upper(high)
            if high < low or (self.rest_starts(b"-") and not self.rest_starts(b"-]")):
                raise PatternError("Invalid range end")
            members.update(range(low, high + 1))
        self.at += 1
        if self.syntax.fold:
            upper = {_upper(byte) for byte in members}
            members = {byte for byte in range(256) if _upper(byte) in upper}
        if negated:
            members = set(ANY) - members - (set(NEWLINE) if self.syntax.newline else set())
        return _bytes(frozenset(members))

    def element(self) -> tuple[frozenset[int], bool]:
        """
        @return: the next characters of a list, and whether they are a single one that can begin a range.
        """
        unmatched = PatternError("Unmatched [, [^, [:, [., or [=")
        if self.at >= len(self.data):
            raise unmatched
        for opening, wrong in ((b":", "Invalid character class name"), (b".", ""), (b"=", "")):
            if not self.rest_starts(b"[" + opening):
                continue
            close = self.data.find(opening + b"]", self.at + 2)
            if close < 0:
                raise unmatched
            name = self.data[self.at + 2 : close]
            self.at = close + 2
            if opening == b":":
                if name not in CLASSES:
                    raise PatternError(wrong)
                return CLASSES[name], False
            if len(name) != 1:
                raise PatternError("Invalid collation character")
            return frozenset(name), opening == b"."
        self.at += 1
        return frozenset(self.data[self.at - 1 : self.at]), True


def parse(data: bytes, syntax: Syntax) -> Expression:
    """
    @param data: the expression.
    @raise PatternError: it makes no sense, or is larger than this program takes.
    """
    parser = _Parser(data, syntax)
    try:
        whole = parser.expression(0)
    except TooLarge as error:
        raise PatternError(str(error)) from None
    return Expression(whole.text, whole.block, parser.groups, parser.beyond)
