"""
Tables that stand in the parameter itself: C{inline:{ }} and C{static:}.

Takes the text after the colon, gives a table in memory. C{inline:{ {key = value}, key=value }}: an
entry in braces may hold white space and commas, and the last of duplicate keys wins (unlike texthash);
keys are folded. C{static:text} and C{static:{ text }} answer every key with the text. Fails with
L{ConfigError} on bad syntax. Answers to Postfix's inline and static dictionaries (DATABASE_README).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.texthash import ListedTable
from qmqpd_tx.tables.wording import not_empty
from qmqpd_tx.tables.words import encode, fold, split_words, unbrace

_ENTRY = re.compile(r"""\s*((?:[^\s="\\]|\\.|"(?:[^"\\]|\\.)*")*)\s*=(.*)""", re.DOTALL)
"""A name has white space and C{=} only within quotes, or after a backslash; both stay."""


class InlineTable(ListedTable):
    """
    A dictionary whose values may be empty, which are then none.
    """

    __slots__ = ()

    def lookup(self, key: bytes) -> bytes | None:
        return not_empty(self.name, key, super().lookup(key))


@implementer(ILookupTableType)
class InlineType:
    """Opens C{inline:} tables."""

    type = "inline"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter = context.parameter
        shown = f"inline:{name}"
        need = 'need "inline:{name=value...}"'
        if not name.startswith("{"):
            raise ConfigError(f'{parameter}: bad syntax: "{shown}"; {need}')
        entries: dict[bytes, bytes] = {}
        for word in split_words(unbrace(name, shown, parameter)):
            entry = unbrace(word, shown, parameter) if word.startswith("{") else word
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise ConfigError(f"{parameter}: missing '=' after attribute name: \"{shown}\"; {need}")
            entries[fold(encode(match[1]))] = encode(match[2].strip())
        if not entries:
            raise ConfigError(f'{parameter}: empty table: "{shown}"; {need}')
        return InlineTable(shown, entries)


@implementer(ILookupTable)
class StaticTable:
    """
    A table that answers every key alike.

    @param name: C{type:name}.
    @param value: the answer.
    """

    __slots__ = ("_value", "name")
    fixed_keys = True
    immediate = True
    stable = True
    sources: Sequence[str] = ()

    def __init__(self, name: str, value: bytes) -> None:
        self.name = name
        self._value = value

    def lookup(self, key: bytes) -> bytes | None:
        return self._value

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class StaticType:
    """Opens C{static:} tables."""

    type = "static"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter = context.parameter
        shown = f"static:{name}"
        text = unbrace(name, shown, parameter) if name.startswith("{") else name
        if not text:
            raise ConfigError(f'{parameter}: empty text in "{shown}"')
        return StaticTable(shown, encode(text))
