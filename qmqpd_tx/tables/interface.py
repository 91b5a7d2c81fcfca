"""
What a lookup table is, and what a kind of lookup table is.

Takes nothing, does nothing: the interfaces of this room. A table maps a key to a value, both L{bytes}
(addresses are bytes). A table in memory or in a mapped file answers at once; one that has to ask somebody
gives a Deferred. "There is no such key" is L{None}, and "I could not find out" is a
L{TableError<qmqpd_tx.interfaces.TableError>}: never one for the other. What is wrong with a table's name or
content is said when it is opened. Answers to Postfix's dictionaries (DATABASE_README).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from zope.interface import Attribute, Interface


class ILookupTable(Interface):
    """An open table."""

    name = Attribute("L{str}: the C{type:name} that it was opened as, for messages.")
    fixed_keys = Attribute(
        "L{bool}: whether keys are fixed strings, so that a caller also looks up the parts of an address "
        "(user, domain, parent domains); with patterns the whole address is looked up, once."
    )
    immediate = Attribute(
        "L{bool}: whether L{lookup} never gives a Deferred. Header and body checks, and lists that are "
        "matched in the middle of something, take only such tables."
    )
    stable = Attribute(
        "L{bool}: whether the same key gives the same answer for as long as the table is open, so that a "
        "caller may keep answers. A table that asks a server, or draws lots, is not."
    )
    sources = Attribute(
        "A sequence of L{str}: the files that it was made from. When one of them changes, the table is "
        "opened again."
    )

    def lookup(key: bytes) -> Any:
        """
        @param key: in any case: a table with fixed keys folds it.
        @return: the value, never empty, or L{None} when there is none; or a Deferred that gives one of
            these.
        @raise TableError: (or a failure of the Deferred) the answer could not be found out.
        """

    def close() -> None:
        """
        Let go of files and connections. Lookups that are under way may fail. Safe to call twice.
        """


class ISequenceTable(Interface):
    """What a table that can be walked also provides: C{qmqpd-tx postmap -s}."""

    def entries() -> Any:
        """
        @return: an iterator of (key, value), in the table's own order.
        @raise TableError: (also later, from the iterator) it cannot be read.
        """


class ITableBuilder(Interface):
    """
    What a kind of table that is an indexed file also provides: it can be built from a text, as
    C{qmqpd-tx postmap TYPE:NAME} does.
    """

    def build(name: str, entries: Any, setting: Callable[[str], int]) -> None:
        """
        Build the index beside the text file, completely or not at all: whoever reads the old one goes on
        with the old one.

        @param name: what comes after the colon, the text file.
        @param entries: an iterable of (key, value), in order, without duplicates, not yet folded.
        @param setting: gives a size parameter, as in C{lmdb_map_size}.
        @raise ConfigError: it cannot be written.
        """


@frozen(slots=True)
class TableContext:
    """
    What a table may use.

    @ivar parameter: on behalf of which parameter it is opened (with file and line, where it stands in a
        file), for messages.
    @ivar open: opens another table (C{unionmap}, C{pipemap}, C{proxy}): takes C{type:name}.
    @ivar reactor: the reactor: time, sockets. L{None} where there is none, as in a command without one: a
        kind that needs it then raises L{ConfigError}.
    @ivar in_thread: runs a call that blocks, in a thread: takes the callable and its arguments, gives a
        Deferred of the result. Where there is no reactor it runs it at once, and gives a Deferred that has
        fired.
    @ivar setting: gives the text of a parameter, expanded, as in C{import_environment}.
    """

    parameter: str
    open: Callable[[str], Any]
    reactor: Any
    in_thread: Callable[..., Any]
    setting: Callable[[str], str]


class ILookupTableType(Interface):
    """
    A kind of lookup table, found by the part before the colon. Built-in kinds come first, then the
    Twisted plugins (package C{twisted.plugins}) that provide this interface.
    """

    type = Attribute("L{str}: the name before the colon, as in C{texthash}.")

    def open(name: str, context: TableContext) -> Any:
        """
        @param name: what comes after the colon.
        @param context: what the table may use.
        @return: an L{ILookupTable}, whose content was read, or whose server will be asked when the first key
            is looked up. Opening it again reads it again.
        @raise ConfigError: it cannot be read or makes no sense; the text names file and line.
        """
