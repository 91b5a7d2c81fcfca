"""
Opens C{type:name}.

Takes the text of a table as parameters hold it, gives an open L{ILookupTable}. Kinds are found among
the built-in ones and among Twisted plugins that provide L{ILookupTableType}; the first with the name
wins, built-in ones first. Fails with L{ConfigError}: an unknown type is named together with those
that exist. Answers to Postfix's dict_open.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import cast

from twisted.plugin import getPlugins

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.berkeley import BerkeleyType
from qmqpd_tx.tables.cdb import CdbType
from qmqpd_tx.tables.cidr import CidrType
from qmqpd_tx.tables.combine import PipeMapType, RandMapType, UnionMapType
from qmqpd_tx.tables.inline import InlineType, StaticType
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.lmdb_file import LmdbType
from qmqpd_tx.tables.patterns import RegexpType
from qmqpd_tx.tables.pcre import PcreType
from qmqpd_tx.tables.pgsql import PgsqlType
from qmqpd_tx.tables.proxy import ProxyType
from qmqpd_tx.tables.servers import SocketmapType, TcpType
from qmqpd_tx.tables.special import EnvironType, FailType
from qmqpd_tx.tables.sqlite import SqliteType
from qmqpd_tx.tables.texthash import TextHashType
from qmqpd_tx.tables.unix import UnixType

BUILT_IN: Sequence[ILookupTableType] = (
    TextHashType(),
    InlineType(),
    StaticType(),
    RegexpType(),
    PcreType(),
    CidrType(),
    EnvironType(),
    FailType(),
    PipeMapType(),
    UnionMapType(),
    RandMapType(),
    UnixType(),
    BerkeleyType("hash"),
    BerkeleyType("btree"),
    LmdbType(),
    CdbType(),
    SqliteType(),
    PgsqlType(random.Random()),
    TcpType(),
    SocketmapType(),
    ProxyType(),
)
"""The kinds that come with the package."""

POSTFIX_TYPES = frozenset({"dbm", "internal", "ldap", "memcache", "mysql", "nis", "nisplus", "sdbm"})
"""The kinds that Postfix has, or had, beside these."""


def _plugins() -> Iterable[ILookupTableType]:
    return getPlugins(ILookupTableType)


def find_kind(type_name: str, extra: Iterable[ILookupTableType] | None = None) -> ILookupTableType | None:
    """
    @param type_name: what stands before the colon.
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @return: the kind of that name, or L{None}.
    """
    for kind in BUILT_IN:
        if kind.type == type_name:
            return kind
    return next((kind for kind in (_plugins() if extra is None else extra) if kind.type == type_name), None)


def supported_types(extra: Iterable[ILookupTableType] | None = None) -> list[str]:
    """
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @return: the names of the kinds that can be opened, sorted.
    """
    return sorted({kind.type for kind in (*BUILT_IN, *(_plugins() if extra is None else extra))})


def open_with(
    text: str, context: TableContext, extra: Iterable[ILookupTableType] | None = None
) -> ILookupTable:
    """
    @param text: C{type:name}.
    @param context: what the table may use, and for which parameter it is opened.
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @raise ConfigError: it cannot be opened.
    """
    type_name, colon, name = text.partition(":")
    if not colon or not type_name or not name:
        raise ConfigError(
            f'{context.parameter}: open dictionary: expecting "type:name" form instead of "{text}"'
        )
    kind = find_kind(type_name, extra)
    if kind is not None:
        return cast(ILookupTable, kind.open(name, context))
    remedy = "a plugin can bring it (see own-table in the documentation); " * (type_name in POSTFIX_TYPES)
    raise ConfigError(
        f"{context.parameter}: unsupported dictionary type: {type_name} (in {text}); "
        f"{remedy}supported are: {', '.join(supported_types(extra))}"
    )
