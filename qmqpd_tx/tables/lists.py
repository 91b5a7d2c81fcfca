"""
Parameters that list tables.

Takes the text of such a parameter; gives one object that is looked up in. A lookup gives a
L{TableError<qmqpd_tx.interfaces.TableError>} where a table cannot say. Answers to Postfix's maps_find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred

from qmqpd_tx.tables.interface import ILookupTable
from qmqpd_tx.tables.keeper import Tables, open_table
from qmqpd_tx.tables.words import ReadFile, is_utf8, read_file, split_words

OpenTable = Callable[[str, str], ILookupTable]
"""Takes C{type:name} and the parameter on behalf of which it is opened."""


def reader_of(open_table: OpenTable) -> ReadFile:
    """
    @param open_table: what a list opens its tables with.
    @return: what it reads its files with: where the tables have a keeper, it also keeps an eye on the files.
    """
    keeper = getattr(open_table, "__self__", None)
    return keeper.read if isinstance(keeper, Tables) else read_file


class TableList:
    """
    A parameter that lists tables, searched from left to right: the first that has the key answers, and one
    that cannot be asked ends the search.

    @ivar tables: the open tables.
    @ivar immediate: whether no lookup has to be waited for.
    @ivar stable: whether answers may be kept for as long as the tables are open.
    @param value: the parameter's text, as in C{texthash:/etc/x, inline:{ {a = b} }}.
    @param parameter: its name, for messages.
    @param open_table: opens one table for a parameter.
    @param utf8: C{smtputf8_enable}, for tables of addresses: whether a key that is not UTF-8 is for tables
        with fixed keys only.
    @raise ConfigError: one of them cannot be opened.
    """

    __slots__ = ("_utf8", "immediate", "stable", "tables")

    def __init__(
        self, value: str, parameter: str, open_table: OpenTable = open_table, utf8: bool = False
    ) -> None:
        self._utf8 = utf8
        self.tables = [open_table(word, parameter) for word in split_words(value)]
        self.immediate: bool = all(table.immediate for table in self.tables)
        self.stable: bool = all(table.stable for table in self.tables)

    def __bool__(self) -> bool:
        return bool(self.tables)

    def lookup_now(self, key: bytes, partial: bool = False) -> bytes | None:
        """
        Where all tables are L{immediate}.

        @param partial: whether the key is a part of an address, which only tables with fixed keys see.
        @return: the first value found, or L{None}.
        @raise TableError: a table could not say.
        """
        fixed_only = partial or (self._utf8 and not key.isascii() and not is_utf8(key))
        for table in self.tables:
            if fixed_only and not table.fixed_keys:
                continue
            value: bytes | None = table.lookup(key)
            if value is not None:
                return value
        return None

    async def lookup(self, key: bytes, partial: bool = False) -> bytes | None:
        """
        As L{lookup_now}, with any tables. Does not suspend when the answer is there at once.
        """
        fixed_only = partial or (self._utf8 and not key.isascii() and not is_utf8(key))
        for table in self.tables:
            if fixed_only and not table.fixed_keys:
                continue
            value = table.lookup(key)
            if isinstance(value, Deferred):
                value = await value
            if value is not None:
                return cast(bytes, value)
        return None
