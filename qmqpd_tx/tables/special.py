"""
Tables that are not tables: C{environ:} and C{fail:}.

C{environ:anything} maps the names of environment variables to their values; as everywhere with fixed keys,
the name is folded, so that only variables with lower-case names are found. It holds what the environment was
when it was opened: the variables of C{import_environment}, since that is what Postfix's programs see, or all
of them where there is no configuration. C{fail:anything} fails each lookup, for tests of what happens then.
Answer to Postfix's environ and fail dictionaries (DATABASE_README).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.texthash import DictTable
from qmqpd_tx.tables.words import split_words


def imported_environment(words: str) -> dict[bytes, bytes]:
    """
    @param words: as in C{import_environment}: names, and C{NAME=VALUE}.
    @return: the variables that are set, and not empty.
    """
    found: dict[bytes, bytes] = {}
    for word in split_words(words):
        name, equals, value = word.strip("{}").strip().partition("=")
        key = os.fsencode(name.strip())
        found[key] = os.fsencode(value.strip()) if equals else os.environb.get(key, b"")
    return {name: value for name, value in found.items() if value}


@implementer(ILookupTableType)
class EnvironType:
    """Opens C{environ:} tables."""

    type = "environ"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        try:
            entries = imported_environment(context.setting("import_environment"))
        except ConfigError:
            entries = {name: value for name, value in os.environb.items() if value}
        return DictTable(f"environ:{name}", entries)


@implementer(ILookupTable)
class FailTable:
    """
    A table that fails.

    @param name: C{type:name}.
    """

    __slots__ = ("name",)
    fixed_keys = True
    immediate = True
    stable = True
    sources: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def lookup(self, key: bytes) -> bytes | None:
        raise TableError(f"table {self.name}: query error: Application error")

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class FailType:
    """Opens C{fail:} tables."""

    type = "fail"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return FailTable(f"fail:{name}")
