"""
Opens C{type:name}.

Takes the text of a table as parameters hold it, gives an open L{ILookupTable}. Kinds are found among
the built-in ones and among Twisted plugins that provide L{ILookupTableType}; the first with the name
wins, built-in ones first. Fails with L{ConfigError}: an unknown type is named together with those
that exist. Answers to Postfix's dict_open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.plugin import getPlugins

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.inline import InlineType, StaticType
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType
from qmqpd_tx.tables.texthash import TextHashType
from qmqpd_tx.tables.words import split_words

BUILT_IN: Sequence[ILookupTableType] = (TextHashType(), InlineType(), StaticType())
"""The kinds that come with the package."""


def _plugins() -> Iterable[ILookupTableType]:
    return getPlugins(ILookupTableType)


def supported_types(extra: Iterable[ILookupTableType] | None = None) -> list[str]:
    """
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @return: the names of the kinds that can be opened, sorted.
    """
    return sorted({kind.type for kind in (*BUILT_IN, *(_plugins() if extra is None else extra))})


def open_table(text: str, parameter: str, extra: Iterable[ILookupTableType] | None = None) -> ILookupTable:
    """
    @param text: C{type:name}.
    @param parameter: on behalf of which parameter, for messages.
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @raise ConfigError: it cannot be opened.
    """
    type_name, colon, name = text.partition(":")
    if not colon or not type_name or not name:
        raise ConfigError(f'{parameter}: open dictionary: expecting "type:name" form instead of "{text}"')
    for kind in BUILT_IN:
        if kind.type == type_name:
            return kind.open(name, parameter)
    extra = list(_plugins() if extra is None else extra)
    for kind in extra:
        if kind.type == type_name:
            return kind.open(name, parameter)
    raise ConfigError(
        f"{parameter}: unsupported dictionary type: {type_name} (in {text}); "
        f"supported are: {', '.join(supported_types(extra))}"
    )


class TableList:
    """
    A parameter that lists tables, searched from left to right: the first that has the key answers.

    @ivar tables: the open tables.
    @param value: the parameter's text, as in C{texthash:/etc/x, inline:{ {a = b} }}.
    @param parameter: its name, for messages.
    @param open_table: opens one table for a parameter.
    @raise ConfigError: one of them cannot be opened.
    """

    __slots__ = ("tables",)

    def __init__(
        self, value: str, parameter: str, open_table: Callable[[str, str], ILookupTable] = open_table
    ) -> None:
        self.tables = [open_table(word, parameter) for word in split_words(value)]

    def __bool__(self) -> bool:
        return bool(self.tables)

    def lookup(self, key: bytes, partial: bool = False) -> bytes | None:
        """
        @param partial: whether the key is a part of an address, which only tables with fixed keys see.
        @return: the first value found, or L{None}.
        """
        for table in self.tables:
            if partial and not table.fixed_keys:
                continue
            value = table.lookup(key)
            if value is not None:
                return value
        return None
