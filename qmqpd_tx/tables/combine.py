"""
Tables that are made of other tables, or of lots: C{pipemap:}, C{unionmap:} and C{randmap:}.

C{pipemap:{type:name, type:name}} asks the first table, and each next one with the value that the one before
gave; no value ends it. C{unionmap:{type:name, type:name}} asks all and joins what they have with commas. One
that cannot be asked fails the lookup. C{randmap:{value, value}} answers any key with one of the values, drawn
anew each time. Wrong syntax, and whatever is wrong with a table inside, is a L{ConfigError}. Tables inside
are shared with others that name them, and opened again when their files change. Answers to Postfix's pipemap,
unionmap and randmap dictionaries (DATABASE_README).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.words import encode, fold, split_words, unbrace


def _words(kind: str, name: str, what: str, context: TableContext) -> list[str]:
    """
    @return: what is listed between the braces, at least one.
    """
    shown = f"{kind}:{name}"
    need = f'need "{kind}:{{{what}...}}"'
    if not name.startswith("{") or not name.endswith("}"):
        raise ConfigError(f'{context.parameter}: bad syntax: "{shown}"; {need}')
    words = split_words(unbrace(name, shown, context.parameter))
    if not words:
        raise ConfigError(f'{context.parameter}: bad syntax: "{shown}"; {need}')
    return words


def _tables(kind: str, name: str, context: TableContext) -> list[ILookupTable]:
    words = _words(kind, name, "type:name", context)
    for word in words:
        if ":" not in word:
            need = f'need "{kind}:{{type:name...}}"'
            raise ConfigError(f'{context.parameter}: bad syntax: "{word}" in "{kind}:{name}"; {need}')
    return [context.open(word) for word in words]


async def _asked(table: ILookupTable, key: bytes) -> bytes | None:
    found: Any = table.lookup(key)
    if isinstance(found, Deferred):
        found = await found
    return found  # type: ignore[no-any-return]


async def _piped(tables: Sequence[ILookupTable], key: bytes) -> bytes | None:
    for table in tables:
        value = await _asked(table, key)
        if value is None:
            return None
        key = value
    return key


async def _joined(tables: Sequence[ILookupTable], key: bytes) -> bytes | None:
    values: list[bytes] = []
    for table in tables:
        value = await _asked(table, key)
        if value is not None:
            values.append(value)
        if table.fixed_keys:
            # Tables after one with fixed keys see what that one has made of the key.
            key = fold(key)
    return b",".join(values) or None


@implementer(ILookupTable)
class CombinedTable:
    """
    A table made of others.

    @param name: C{type:name}.
    @param tables: the others, in order; whoever opened them closes them.
    @param combine: looks a key up in them.
    """

    __slots__ = ("_combine", "_tables", "fixed_keys", "immediate", "name", "sources", "stable")

    def __init__(self, name: str, tables: Sequence[ILookupTable], combine: Callable[..., Any]) -> None:
        self.name = name
        self._tables = tables
        self._combine = combine
        self.immediate: bool = all(table.immediate for table in tables)
        self.stable: bool = all(table.stable for table in tables)
        self.sources: Sequence[str] = [path for table in tables for path in table.sources]
        # As with Postfix: one table of patterns makes the whole one.
        self.fixed_keys: bool = all(table.fixed_keys for table in tables)

    def lookup(self, key: bytes) -> Any:
        return now_or_later(self._combine(self._tables, key))

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class PipeMapType:
    """Opens C{pipemap:} tables."""

    type = "pipemap"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return CombinedTable(f"pipemap:{name}", _tables(self.type, name, context), _piped)


@implementer(ILookupTableType)
class UnionMapType:
    """Opens C{unionmap:} tables."""

    type = "unionmap"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return CombinedTable(f"unionmap:{name}", _tables(self.type, name, context), _joined)


@implementer(ILookupTable)
class RandomTable:
    """
    A table that draws lots.

    @param name: C{type:name}.
    @param values: what it draws from.
    @param chance: draws.
    """

    __slots__ = ("_chance", "_values", "name")
    fixed_keys = False
    immediate = True
    stable = False
    sources: Sequence[str] = ()

    def __init__(self, name: str, values: Sequence[bytes], chance: random.Random) -> None:
        self.name = name
        self._values = values
        self._chance = chance

    def lookup(self, key: bytes) -> bytes | None:
        return self._chance.choice(self._values)

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class RandMapType:
    """
    Opens C{randmap:} tables.

    @param chance: for their draws.
    """

    type = "randmap"

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()

    def open(self, name: str, context: TableContext) -> ILookupTable:
        words = _words(self.type, name, "value", context)
        return RandomTable(f"randmap:{name}", [encode(word) for word in words], self._chance)
