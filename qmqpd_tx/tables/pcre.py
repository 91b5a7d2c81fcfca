"""
Tables of Perl's regular expressions: C{pcre:}.

As L{qmqpd_tx.tables.patterns}, but PCRE2 does the matching, within limits of steps and time; past them the
lookup raises L{TableError<qmqpd_tx.interfaces.TableError>}, which names table and line. Needs the extra
C{pcre}; without it, opening one is a L{ConfigError} that says so. Answers to Postfix's pcre_table(5).
"""

from __future__ import annotations

from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.tables.backtrack import Backtracker, Limits, Option
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.linear import TooLarge, compiled
from qmqpd_tx.tables.patterns import (
    CompiledPattern,
    PatternTable,
    WrittenPattern,
    make_rule,
    toggled,
    written_pattern,
)
from qmqpd_tx.tables.perl import Flags, loosened
from qmqpd_tx.tables.posix import PatternError
from qmqpd_tx.tables.rules import Line, Rule, RuleError, read_rules, shorten

log = Logger(namespace="qmqpd_tx.tables")


@implementer(ILookupTableType)
class PcreType:
    """Opens C{pcre:} tables."""

    type = "pcre"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        text = read_rules(self.type, name, context)
        limits = Limits.of(context)
        return PatternTable(
            text, lambda line: _rule(line, f"{text.name}, line {line.number}", limits), context
        )


def _rule(line: Line, where: str, limits: Limits) -> Rule[bytes]:
    written = written_pattern(line.text)
    return make_rule(line, written, _perl_pattern(written, where, limits))


def _perl_pattern(written: WrittenPattern, where: str, limits: Limits) -> CompiledPattern:
    flags = toggled(written.flags, b"imsxAEUX")
    if b"X" in flags:
        log.warn('{where}: ignoring obsolete regexp option "X"', where=where)
    ours = Flags(fold=b"i" not in flags, dot_all=b"s" not in flags, spaced=b"x" in flags, lines=b"m" in flags)
    options = (
        Option.CASELESS * ours.fold
        | Option.MULTILINE * ours.lines
        | Option.DOTALL * ours.dot_all
        | Option.EXTENDED * ours.spaced
        | Option.DOLLAR_ENDONLY * (b"E" in flags)
        | Option.UNGREEDY * (b"U" in flags)
    )
    block = loosened(written.pattern, ours)
    try:
        if block is not None:
            compiled(block, captures=False)
    except TooLarge:
        block = None
    try:
        engine = Backtracker(written.pattern, options, where, limits, block, anchored=b"A" in flags)
    except PatternError as error:
        raise RuleError(f"{error}: {shorten(written.pattern)}") from None
    return CompiledPattern(engine.search, engine.groups, block)
