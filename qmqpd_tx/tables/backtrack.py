"""
PCRE2 with limits.

Takes a pattern of PCRE2, gives an object that searches with it. Perl's expressions cannot all be matched in
bounded time, so bounds are what a table of them can promise. A search begins with few steps. Only if these do
not suffice, and RE2 cannot tell either, there is a I{long} search: one that takes more steps than
C{pattern_match_limit}, which some patterns do with some keys, raises L{TableError}; and so does each one when
those of the table have lately taken more time than C{pattern_time_limit}, since a text may have a thousand
lines that are each just below the limit of steps. The error names table and line. Fails with
L{PatternError<qmqpd_tx.tables.posix.PatternError>} when the pattern makes no sense, and with L{ConfigError}
when PCRE2 is not installed: it is the extra C{pcre}.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from typing import Any

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import TableContext
from qmqpd_tx.tables.limits import integer, seconds
from qmqpd_tx.tables.linear import Prefilter, TooLarge
from qmqpd_tx.tables.posix import PatternError

try:
    import pcre2
except ImportError:
    pcre2 = None


class Option(IntFlag):
    """PCRE2's option bits; the binding has names for some of them, and takes all."""

    CASELESS = 0x8
    DOLLAR_ENDONLY = 0x10
    DOTALL = 0x20
    EXTENDED = 0x80
    MULTILINE = 0x400
    UNGREEDY = 0x40000


QUICK_STEPS = 10_000
"""
What every search may take: some hundredths of a millisecond, and more than a well written pattern takes with
a line. Not a limit: a search that needs more is merely a long one from then on.
"""

SHARE = 0.1
"""
Which part of the time that passes is added to what long searches may take. So they keep us busy for no more
than this part of the time, however much hostile mail there is.
"""

_JIT_STACK_EXHAUSTED = -46
_MEMORY_KIB = 64 * 1024
_LITERAL = re.compile(rb"\\Q.*?(?:\\E|\Z)|\\(.)", re.DOTALL)
_HEX = re.compile(rb"\{([0-9A-Fa-f]+)\}|(?!\{)([0-9A-Fa-f]{0,2})")
_CLASS = rb"\[\^?\]?(?:\\Q.*?\\E|\\.|\[:[^\]]*:\]|[^\]\\])*\]"
_WHOLE = re.compile(rb"\\Q.*?(?:\\E|\Z)|(?P<whole>\(\*|\(\?(?:R\)|[-+]?0)|\\g[<']0)|\\.|" + _CLASS, re.DOTALL)
"""What is about the whole pattern, in C{whole}: verbs, and recursion into it. Elsewhere it is text."""
_SETTINGS = re.compile(
    rb"(?:\(\*(?:(?:ANY)?CRLF|CR|LF|ANY|NUL|BSR_ANYCRLF|BSR_UNICODE|UCP|NO_AUTO_POSSESS|NO_START_OPT|NO_JIT"
    rb"|LIMIT_(?:HEAP|MATCH|DEPTH|RECURSION)=\d+)\))*"
)
"""Verbs that may come first, and mean the same in front of anything."""
_ANYTHING = rb"[\x00-\xff]*"


class Budget:
    """
    The time that the long searches of one table may take: some at once, and then a part of the time that
    passes (L{SHARE}).

    @ivar allowed: seconds at once: C{pattern_time_limit}.
    @param now: gives the time in seconds.
    """

    __slots__ = ("_left", "_now", "_since", "allowed")

    def __init__(self, allowed: float, now: Callable[[], float]) -> None:
        self.allowed = allowed
        self._now = now
        self._left = allowed
        self._since = now()

    def begin(self) -> bool:
        """
        @return: whether a long search may begin now; if so, L{end} must follow.
        """
        now = self._now()
        self._left = min(self.allowed, self._left + (now - self._since) * SHARE)
        self._since = now
        return self._left > 0

    def end(self) -> None:
        """The long search is over."""
        now = self._now()
        # However long it was: the machine may have been asleep.
        self._left = max(self._left - (now - self._since), -self.allowed)
        self._since = now


@frozen(slots=True)
class Limits:
    """
    How long a search may take.

    @ivar steps: see C{pattern_match_limit}.
    @ivar budget: that of the table.
    @ivar parameter: on behalf of which parameter a table is opened, for messages.
    """

    steps: int
    budget: Budget
    parameter: str

    @classmethod
    def of(cls, context: TableContext) -> Limits:
        """
        @return: those of the configuration, for one table.
        """
        budget = Budget(seconds(context.setting, "pattern_time_limit"), context.now)
        return cls(integer(context.setting, "pattern_match_limit"), budget, context.parameter)


def _plain_hex(pattern: bytes) -> bytes:
    """
    Write C{\\x} as two digits: the binding makes PCRE2 read it as JavaScript does, which knows no other way.

    @raise PatternError: the number is none, or larger than a byte, or the escape means nothing.
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
        if digits is None:
            raise PatternError("non-hex character in \\x{} (closing brace missing?)")
        value = int(digits[1] or digits[2] or b"0", 16)
        if value > 255:
            raise PatternError("character code point value in \\x{} or \\o{} is too large")
        parts.append(pattern[at : found.start()] + b"\\x%02x" % value)
        at = digits.end()
    parts.append(pattern[at:])
    return b"".join(parts)


def _in_one_go(pattern: bytes, options: int, anchored: bool) -> bytes | None:
    """
    Write a pattern so that it goes through the key by itself. PCRE2 would begin anew at each byte of the key,
    and count steps anew as well.

    @return: L{None} where this would change what the pattern means.
    """
    first = _SETTINGS.match(pattern)
    assert first is not None, "it matches nothing as well"
    settings, pattern = first[0], pattern[first.end() :]
    if any(found["whole"] for found in _WHOLE.finditer(pattern)):
        return None
    # It may begin anywhere, unless its own first part already goes through the key.
    through = options & Option.DOTALL and pattern.startswith(b".*") and b"|" not in pattern
    skip = b"" if anchored or through else _ANYTHING if options & Option.UNGREEDY else _ANYTHING + b"?"
    # A pattern may end in a quotation, or in a comment, which would hide the parenthesis.
    for end in (b"\\E)", b"\\E\n)"):
        whole = settings + b"\\A" + skip + b"(?:" + pattern + end
        if _makes_sense(whole, options):
            return whole
    return None


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

    __slots__ = ("_budget", "_gate", "_long", "_quick", "_remedy", "_slow", "_where", "groups")

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
        self._budget = limits.budget
        pattern = _plain_hex(pattern)
        try:
            self.groups: int = pcre2.compile(pattern, int(options), jit=False).groups
        except pcre2.PatternError as error:
            reason = str(error).partition("; ")[2]
            raise PatternError(f"error in regex at offset {error.pos}: {reason}") from None
        quick, steps = min(limits.steps, QUICK_STEPS), limits.steps
        self._remedy = "or raise pattern_match_limit"
        whole = _in_one_go(pattern, options, anchored)
        if whole is None:
            # As it is written, steps are counted anew at each byte of the key: so they must be few.
            whole, steps = pattern, quick
            self._remedy = "or without verbs and recursion into the whole"
        else:
            anchored = False
        self._quick = _search(whole, options, anchored, quick)
        self._long = _search(whole, options, anchored, steps)
        self._slow = _search(whole, options, anchored, steps, jit=False)
        self._gate: Prefilter | None = None
        if gate is not None:
            with suppress(TooLarge):
                self._gate = Prefilter([gate])

    def search(self, key: bytes) -> Any:
        """
        @return: a match, or L{None}.
        @raise TableError: it took more than a limit.
        """
        try:
            return self._quick(key)
        except pcre2.LibraryError:
            return self._search_long(key)

    def _search_long(self, key: bytes) -> Any:
        if self._gate is not None and not self._gate.may_match_key(key):
            # RE2 has seen in linear time that there is no match.
            return None
        budget = self._budget
        if not budget.begin():
            raise TableError(
                f"{self._where}: the searches of this table have lately taken more than "
                f"{budget.allowed:g} seconds; write the pattern without nested repetitions, "
                "or raise pattern_time_limit"
            )
        try:
            try:
                return self._long(key)
            except pcre2.LibraryError as error:
                if error.code != _JIT_STACK_EXHAUSTED:
                    raise
                return self._slow(key)
        except pcre2.LibraryError as error:
            raise TableError(
                f"{self._where}: {error.msg}; write the pattern without nested repetitions, {self._remedy}"
            ) from None
        finally:
            budget.end()


def _makes_sense(pattern: bytes, options: int) -> bool:
    try:
        pcre2.compile(pattern, int(options), jit=False)
    except pcre2.PatternError:
        return False
    return True


def _search(
    pattern: bytes, options: int, anchored: bool, steps: int, jit: bool = True
) -> Callable[[bytes], Any]:
    """
    @return: what searches in a key, and fails after so many steps.
    """
    bounded = b"(*LIMIT_MATCH=%d)(*LIMIT_HEAP=%d)" % (steps, _MEMORY_KIB) + pattern
    try:
        compiled = pcre2.compile(bounded, int(options), jit=jit)
    except pcre2.LibraryError:
        # Some systems forbid to make code at run time.
        compiled = pcre2.compile(bounded, int(options), jit=False)
    return compiled.match if anchored else compiled.search  # type: ignore[no-any-return]
