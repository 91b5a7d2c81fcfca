"""
What a lookup table is, and what a kind of lookup table is.

Takes nothing, does nothing: the interfaces of this room. A table maps a key to a value, both L{bytes}
(addresses are bytes). A table in memory or in a mapped file answers at once; one that has to ask somebody
gives a Deferred. "There is no such key" is L{None}, and "I could not find out" is a
L{TableError<qmqpd_tx.interfaces.TableError>}: never one for the other. What is wrong with a table's name or
content is said when it is opened. Answers to Postfix's dictionaries (DATABASE_README).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import frozen
from zope.interface import Attribute, Interface

FOLD = b"\v"
"""How a newline within a key is written in a block of keys; see L{IPatternTable}."""


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


class IPatternTable(Interface):
    """
    What a table of patterns also provides, where somebody looks up every line of a text: one pass over many
    lines tells that none of them needs to be looked up.

    What is looked up is a I{key}: one line, or several lines joined by newlines (a header that is folded). A
    I{block} is keys with a newline between one and the next; it may end in one. A newline within a key is
    written as L{FOLD} there; a key that ends in a newline has no place in a block, since Perl's C{$} also
    matches before that. Apart from that its bytes are the keys' bytes: who changes a line before it is
    looked up, or cuts a long line into pieces, asks about what is looked up.
    """

    def may_match(block: bytes) -> bool:
        """
        Takes time linear in the size of the block, and does not make copies of it.

        @param block: the keys.
        @return: False: L{lookup<ILookupTable.lookup>} surely gives L{None} for each key in the block, and
            does not fail. True: one of them may be found; look them up one by one. A table with negated
            patterns, or with some that cannot be checked in this way, always says True.
        """


class ISequenceTable(Interface):
    """What a table that can be walked also provides: C{qmqpd-tx postmap -s}."""

    def entries() -> Any:
        """
        @return: an iterator of (key, value), in the table's own order.
        @raise TableError: (also later, from the iterator) it cannot be read.
        """


class ITableWriter(Interface):
    """
    Changes to an indexed file that nobody sees before they are committed. Keys are taken as they are.
    """

    def has(key: bytes) -> bool:
        """
        @return: whether the key is in the file, the changes included.
        """

    def put(key: bytes, value: bytes) -> None:
        """
        Add an entry, or replace the one that has the key.
        """

    def delete(key: bytes) -> bool:
        """
        @return: whether there was such an entry.
        """

    def commit() -> None:
        """
        Make the changes, completely or not at all: whoever reads the file has the old or the new one.

        @raise ConfigError: it cannot be written.
        """

    def abort() -> None:
        """
        Forget the changes.
        """


class ITableBuilder(Interface):
    """
    What a kind of table that is an indexed file also provides: it can be built from a text and changed, as
    C{qmqpd-tx postmap} does.
    """

    def label(name: str) -> str:
        """
        @return: what messages about entries call the file.
        """

    def create(name: str, draft: Any) -> ITableWriter:
        """
        Begin a new file.

        @param name: what comes after the colon.
        @param draft: a L{Draft<qmqpd_tx.tables.building.Draft>}.
        @raise ConfigError: it cannot be written.
        """

    def edit(name: str, draft: Any, make: bool = False) -> ITableWriter:
        """
        Begin to change a file.

        @param make: whether to begin a new one if there is none.
        @raise ConfigError: there is none, it cannot be changed, or somebody else does so.
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
    @ivar watch: takes the path of a file that is about to be read, so that a change while it is being read is
        noticed; without this, only changes after that are.
    @ivar substitutes: whether results may contain parts of the key (C{$1}). False for parameters that say
        where mail goes: who sends it would have a say in that. A kind of table that has such results then
        leaves these rules out, with a warning.
    @ivar now: gives the time in seconds, since any moment, for what is measured within a lookup.
    """

    parameter: str
    open: Callable[[str], Any]
    reactor: Any
    in_thread: Callable[..., Any]
    setting: Callable[[str], str]
    watch: Callable[[str], None] = lambda path: None
    substitutes: bool = True
    now: Callable[[], float] = time.perf_counter


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
