"""
Tables of patterns: C{regexp:} and what it has in common with C{pcre:}.

Takes the name of a table, gives an open table whose rules are tried in order. Each lookup begins with one
pass of a L{Prefilter} for all rules, since nearly all keys match none of them; the same pass over a whole
header or body tells a caller that nothing in it needs to be looked up (L{IPatternTable}). A pattern of
C{regexp:} takes time linear in the key, and so does the prefilter; what only PCRE2 can match has limits
(L{qmqpd_tx.tables.backtrack}), and past them the lookup raises L{TableError}, which names table and line.
Rules that make no sense are a L{ConfigError}; rules with C{$1} are left out where that is not allowed.
Answers to Postfix's regexp_table(5).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.tables import posix
from qmqpd_tx.tables.backtrack import Backtracker, Limits
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, IPatternTable, TableContext
from qmqpd_tx.tables.linear import Prefilter, TooLarge, compiled
from qmqpd_tx.tables.rules import (
    Groups,
    Line,
    Program,
    Rule,
    RuleError,
    RuleText,
    blocks,
    make_result,
    not_marks,
    read_rules,
    shorten,
    substitutes,
)
from qmqpd_tx.tables.wording import not_empty

log = Logger(namespace="qmqpd_tx.tables")


@implementer(ILookupTable, IPatternTable)
class PatternTable:
    """
    A table of patterns.

    @param text: where its rules stand.
    @param understand: makes a rule of a line.
    @param context: for messages.
    @raise ConfigError: a rule makes no sense.
    """

    __slots__ = ("_prefilter", "_program", "name", "sources")
    fixed_keys = False
    immediate = True
    stable = True

    def __init__(
        self, text: RuleText, understand: Callable[[Line], Rule[bytes]], context: TableContext
    ) -> None:
        self.name = text.name
        self.sources = text.sources
        rules: list[Rule[bytes]] = []

        def keep(line: Line) -> Rule[bytes] | None:
            if line.keyword == "endif":
                return None
            rule = understand(line)
            if rule.substitutes and not context.substitutes:
                log.warn(
                    "{parameter}: {table}, line {line}: regular expression substitution is not allowed: "
                    "skipping this rule",
                    parameter=context.parameter,
                    table=text.name,
                    line=line.number,
                )
                # It has nothing to find, and is no step of the program.
                rules.append(evolve(rule, block=()))
                return None
            rules.append(rule)
            return rule

        self._program: Program[bytes] = Program(text, keep, context)
        possible = blocks(text, rules)
        self._prefilter: Prefilter | None = None
        if possible is not None:
            try:
                self._prefilter = Prefilter(possible)
            except TooLarge:
                # Each pattern is small enough, or its rule would have been refused; together they are not.
                self._prefilter = None

    def lookup(self, key: bytes) -> bytes | None:
        if self._prefilter is not None and not self._prefilter.may_match_key(key):
            return None
        return not_empty(self.name, key, self._program.run(key))

    def may_match(self, block: bytes) -> bool:
        return self._prefilter is None or self._prefilter.may_match(block)

    def close(self) -> None:
        """See L{ILookupTable}."""


@frozen(slots=True)
class WrittenPattern:
    """
    A pattern between its delimiters.

    @ivar negated: whether an odd number of C{!} stands before it.
    @ivar pattern: what is between the delimiters.
    @ivar flags: the letters after it.
    @ivar rest: what follows, from the first character that is neither a letter nor a digit.
    """

    negated: bool
    pattern: bytes
    flags: bytes
    rest: bytes


def written_pattern(text: bytes) -> WrittenPattern:
    """
    @param text: begins with the pattern, or with C{!}.
    @raise RuleError: there is none, or its end is missing.
    """
    negated, bare = not_marks(text)
    if not bare:
        raise RuleError("no regexp; write /pattern/ after it")
    delimiter = bare[:1]
    if delimiter.isalnum() or delimiter == b"\\":
        raise RuleError(f"unrecognized request: {shorten(text)}; write /pattern/flags result")
    end = 1
    while bare[end : end + 1] not in (delimiter, b""):
        end += 2 if bare[end : end + 1] == b"\\" else 1
    if end >= len(bare):
        raise RuleError(f"no closing regexp delimiter {shorten(delimiter)}: {shorten(text)}")
    after = end + 1
    while bare[after : after + 1].isalnum():
        after += 1
    return WrittenPattern(negated, bare[1:end], bare[end + 1 : after], bare[after:])


def toggled(flags: bytes, known: bytes) -> frozenset[bytes]:
    """
    @param known: the letters that mean something.
    @return: the letters that stand an odd number of times.
    @raise RuleError: one of them is not known.
    """
    for index in range(len(flags)):
        if flags[index : index + 1] not in known:
            raise RuleError(
                f"unknown regexp option {shorten(flags[index : index + 1])}; "
                f"there are: {', '.join(known.decode('ascii'))}"
            )
    return frozenset(bytes((flag,)) for flag in set(flags) if flags.count(flag) % 2)


Find = Callable[[bytes], Groups]


@frozen(slots=True)
class CompiledPattern:
    """
    A pattern that makes sense.

    @ivar find: takes the key, gives a match or L{None}.
    @ivar groups: how many groups it has.
    @ivar block: for L{Rule}.
    """

    find: Find
    groups: int
    block: bytes | None


def negation(find: Find) -> Find:
    """
    @return: what finds something where the other one finds nothing.
    """
    return lambda key: None if find(key) is not None else True


def _both(first: Find, second: Find) -> Find:
    def find(key: bytes) -> Groups:
        found = first(key)
        return None if found is None or second(key) is None else found

    return find


def make_rule(
    line: Line, written: WrittenPattern, pattern: CompiledPattern, also: Find | None = None
) -> Rule[bytes]:
    """
    @param also: must find something too.
    @return: the rule of a line.
    @raise RuleError: its result makes no sense.
    """
    find = negation(pattern.find) if written.negated else pattern.find
    if also is not None:
        find = _both(find, also)
    block = None if written.negated or pattern.block is None else (pattern.block,)
    rest = written.rest.strip()
    if line.keyword:
        if rest:
            raise RuleError(
                f"extra text after IF statement: {shorten(rest)}; "
                "remove it, and do not prepend whitespace to statements between IF and ENDIF"
            )
        return Rule(line.number, find, None, block)
    if written.rest and not written.rest[:1].isspace():
        raise RuleError(f"unknown regexp option {shorten(written.rest[:1])}; write /pattern/flags result")
    result = make_result(rest, None if written.negated else pattern.groups)
    return Rule(line.number, find, result, block, substitutes(rest))


@implementer(ILookupTableType)
class RegexpType:
    """Opens C{regexp:} tables."""

    type = "regexp"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        text = read_rules(self.type, name, context)
        limits = Limits.of(context)
        return PatternTable(text, lambda line: self._rule(line, text.name, limits), context)

    def _rule(self, line: Line, table: str, limits: Limits) -> Rule[bytes]:
        where = f"{table}, line {line.number}"
        written = written_pattern(line.text)
        if line.keyword or not written.rest.startswith(b"!"):
            return make_rule(line, written, _posix_pattern(written, where, limits))
        second = written_pattern(written.rest)
        other = _posix_pattern(second, where, limits)
        also = negation(other.find) if second.negated else other.find
        first = WrittenPattern(written.negated, written.pattern, written.flags, second.rest)
        return make_rule(line, first, _posix_pattern(first, where, limits), also)


def _posix_pattern(written: WrittenPattern, where: str, limits: Limits) -> CompiledPattern:
    flags = toggled(written.flags, b"imx")
    syntax = posix.Syntax(extended=b"x" not in flags, fold=b"i" not in flags, newline=b"m" in flags)
    try:
        expression = posix.parse(written.pattern, syntax)
        wanted = bool(expression.groups) and b"$" in written.rest
        compiled(expression.block, captures=False)
        if expression.beyond:
            engine = Backtracker(expression.text, 0, where, limits, expression.block)
            return CompiledPattern(engine.search, expression.groups, expression.block)
        linear = compiled(expression.text, captures=wanted)
    except (posix.PatternError, TooLarge) as error:
        raise RuleError(f"{error}: {shorten(written.pattern)}") from None
    return CompiledPattern(linear.search, expression.groups, expression.block)
