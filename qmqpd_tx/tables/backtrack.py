"""
PCRE2 with a limit.

Takes a pattern of PCRE2, gives an object that searches with it. A search that takes more steps than
C{pattern_match_limit}, which some patterns do with some keys, raises L{TableError}; it names table and line.
Perl's expressions cannot all be matched in bounded time, so this bound is what a table of them can promise.
Fails with L{PatternError<qmqpd_tx.tables.posix.PatternError>} when the pattern makes no sense, and with
L{ConfigError} when PCRE2 is not installed: it is the extra C{pcre}.
"""

from __future__ import annotations

import re
from contextlib import suppress
from enum import IntFlag
from typing import Any

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import TableContext
from qmqpd_tx.tables.linear import Prefilter, TooLarge
from qmqpd_tx.tables.posix import PatternError

try:
    import pcre2
except ImportError:
    pcre2 = None

MATCH_LIMIT = 1_000_000
"""C{pattern_match_limit} where there is no configuration."""


class Option(IntFlag):
    """PCRE2's option bits; the binding has names for some of them, and takes all."""

    CASELESS = 0x8
    DOLLAR_ENDONLY = 0x10
    DOTALL = 0x20
    EXTENDED = 0x80
    MULTILINE = 0x400
    UNGREEDY = 0x40000


_JIT_STACK_EXHAUSTED = -46
_MEMORY_KIB = 64 * 1024
_LITERAL = re.compile(rb"\\Q.*?(?:\\E|\Z)|\\(.)", re.DOTALL)
_HEX = re.compile(rb"\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{0,2})")


@frozen(slots=True)
class Limits:
    """
    How long a search may take.

    @ivar steps: see C{pattern_match_limit}.
    @ivar parameter: on behalf of which parameter a table is opened, for messages.
    """

    steps: int
    parameter: str

    @classmethod
    def of(cls, context: TableContext) -> Limits:
        """
        @return: those of the configuration; where there is none, its default.
        """
        try:
            steps = int(context.setting("pattern_match_limit"))
        except ConfigError:
            steps = MATCH_LIMIT
        return cls(steps, context.parameter)


def _plain_hex(pattern: bytes) -> bytes:
    """
    Write C{\\x} as two digits: the binding makes PCRE2 read it as JavaScript does, which knows no other way.

    @raise PatternError: the number is larger than a byte, or the escape means nothing.
    """
    parts = []
    at = 0
    while (found := _LITERAL.search(pattern, at)) is not None:
        if found[1] in (b"u", b"U"):
            raise PatternError("PCRE2 does not support \\F, \\L, \\l, \\N{name}, \\U, or \\u")
        if found[1] != b"x":
            parts.append(pattern[at : found.end()])
            at = found.end()
            continue
        digits = _HEX.match(pattern, found.end())
        assert digits is not None, "it matches nothing as well"
        value = int(digits[1] or digits[2] or b"0", 16)
        if value > 255:
            raise PatternError("character code point value in \\x{} or \\o{} is too large")
        parts.append(pattern[at : found.start()] + b"\\x%02x" % value)
        at = digits.end()
    parts.append(pattern[at:])
    return b"".join(parts)


class Backtracker:
    """
    @ivar groups: how many groups the pattern has.
    @param pattern: for PCRE2; one byte is one character.
    @param options: L{Option} bits.
    @param where: table and line.
    @param limits: how long a search may take.
    @param gate: as for a L{Prefilter}: finds whatever the pattern finds, and more; L{None} when there is no
        such thing.
    @param anchored: whether it matches only at the start of a key.
    @raise PatternError: the pattern makes no sense.
    @raise ConfigError: there is no PCRE2.
    """

    __slots__ = ("_anchored", "_fast", "_gate", "_slow", "_where", "groups")

    def __init__(
        self,
        pattern: bytes,
        options: int,
        where: str,
        limits: Limits,
        gate: bytes | None,
        anchored: bool = False,
    ) -> None:
        if pcre2 is None:
            raise ConfigError(
                f"{limits.parameter}: {where}: PCRE2 is not installed: pip install 'qmqpd_tx[pcre]'"
            )
        self._where = where
        self._anchored = anchored
        pattern = _plain_hex(pattern)
        try:
            self.groups: int = pcre2.compile(pattern, int(options), jit=False).groups
        except pcre2.PatternError as error:
            reason = str(error).partition("; ")[2]
            raise PatternError(f"error in regex at offset {error.pos}: {reason}") from None
        bounded = b"(*LIMIT_MATCH=%d)(*LIMIT_HEAP=%d)" % (limits.steps, _MEMORY_KIB) + pattern
        self._slow = self._fast = self._compiled(bounded, options, jit=False)
        # Some systems forbid to make code at run time.
        with suppress(pcre2.LibraryError):
            self._fast = self._compiled(bounded, options, jit=True)
        self._gate: Prefilter | None = None
        if gate is not None:
            try:
                self._gate = Prefilter([gate])
            except TooLarge:
                self._gate = None

    def _compiled(self, pattern: bytes, options: int, jit: bool) -> Any:
        found = pcre2.compile(pattern, int(options), jit=jit)
        return found.match if self._anchored else found.search

    def search(self, key: bytes) -> Any:
        """
        @return: a match, or L{None}.
        @raise TableError: it took more than the limit.
        """
        try:
            return self._fast(key)
        except pcre2.LibraryError as error:
            return self._search_again(key, error)

    def _search_again(self, key: bytes, error: Any) -> Any:
        if self._gate is not None and not self._gate.may_match_key(key):
            # RE2 has seen in linear time that there is no match.
            return None
        if error.code == _JIT_STACK_EXHAUSTED:
            try:
                return self._slow(key)
            except pcre2.LibraryError as again:
                error = again
        raise TableError(
            f"{self._where}: {error.msg}; write the pattern without nested repetitions, "
            "or raise pattern_match_limit"
        )
