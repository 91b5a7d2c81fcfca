"""
The open tables of one mail system.

Takes C{type:name}; gives an open table, the same one to everybody who asks for the same. A configuration is
a I{generation}: when the next one begins (L{Tables.renew}), tables whose files and parameters have not
changed since are given out again, so that a reload does not read a million lines for a changed word; others
are opened anew. A table that is made of others is opened anew when one of them is.
L{Tables.keep} closes what the new generation has not asked for, but not before C{table_close_delay}, because
messages that began before are still treated by the old one; L{Tables.undo} goes back to the tables of the one
before, and to the lists that were read for it, as they are in memory, whatever has become of their files.
L{Tables.changed} names the files that a reload would read again: those of tables, and those that lists have
read by way of L{Tables.read}.

A file is looked at before it is read. When it is another one afterwards, it is read again, a few times;
and whatever it becomes later, L{Tables.changed} has not missed it.

Thousands of patterns take seconds to read. L{Tables.read_ahead} does that in a thread for tables that have
changed, so that a reload after that finds them open, and nobody waits for it.

Parameters that say where mail goes have tables of their own, whose results hold nothing of the key
(L{ROUTES}).

Fails with L{ConfigError} when a table cannot be opened. Opening reads files at once, but for what was read
ahead: start-up and reload only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.limits import seconds
from qmqpd_tx.tables.registry import open_with
from qmqpd_tx.tables.words import read_file

log = Logger(namespace="qmqpd_tx.tables")

ROUTES = frozenset(
    {"sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps", "transport_maps"}
)
"""Parameters whose patterns must not put parts of an address into the result, see
L{TableContext.substitutes}."""

READ_WHOLE = frozenset({"cidr", "pcre", "regexp", "texthash"})
"""Kinds whose files are read from end to end when they are opened, and that need nothing else for that but
settings: such a table may be opened in a thread."""

READS = 3
"""How often a file that changes while it is read is read, before what was read last is taken."""

RETIRED = 100
"""How many tables that are not asked for any more may wait for their end: of more, the oldest are closed."""

Name = tuple[str, bool]
"""What a table is shared by: C{type:name}, and L{TableContext.substitutes}."""

Signature = tuple[int, ...]
"""What tells one content of a file from another without reading it; empty: there is no such file."""


def _unset(name: str) -> str:
    raise ConfigError(f"{name}: there is no configuration here")


def at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """
    Call a function that blocks, where nothing else could be done meanwhile.
    """
    return maybeDeferred(function, *arguments)


def _signature(path: str) -> Signature:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _differ(files: Iterable[tuple[str, Signature]]) -> Iterable[str]:
    """
    @return: the files that are not what they were.
    """
    return (path for path, signature in files if _signature(path) != signature)


@frozen(slots=True)
class _Kept:
    """
    An open table, the parameter that it was opened for first, what its files looked like before it was
    read, the tables that it is made of, by C{type:name} (they are opened for the same parameter), and the
    parameters that it has asked for.
    """

    table: ILookupTable
    parameter: str
    files: Sequence[tuple[str, Signature]]
    parts: Mapping[str, ILookupTable]
    settings: Mapping[str, str]


_Read = tuple[Signature, bytes]
"""What a file looked like before it was read, and what it said."""


@define(slots=True, eq=False)
class _Retired:
    """
    A table that the generations since have not asked for.

    @ivar end: closes it.
    """

    name: Name
    kept: _Kept
    end: Any = None


class Tables:
    """
    @param reactor: for time, and for tables that ask a server: those cannot be opened without it.
    @param in_thread: runs what blocks, as in L{TableContext}.
    @param setting: gives the text of a parameter; see L{Tables.renew}.
    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    """

    def __init__(
        self,
        reactor: Any = None,
        in_thread: Callable[..., Any] = at_once,
        setting: Callable[[str], str] = _unset,
        extra: Iterable[ILookupTableType] | None = None,
    ) -> None:
        self._reactor = reactor
        self._in_thread = in_thread
        self._setting = setting
        self._extra = None if extra is None else list(extra)
        self._open: dict[Name, _Kept] = {}
        self._read: dict[str, _Read] = {}
        # What was read ahead for the next generation.
        self._ahead: dict[Name, _Kept] = {}
        self._before: tuple[dict[Name, _Kept], dict[str, _Read], Callable[[str], str]] | None = None
        # Those of earlier generations, oldest first.
        self._retired: list[_Retired] = []

    def open(self, text: str, parameter: str) -> ILookupTable:
        """
        @param text: C{type:name}.
        @param parameter: on behalf of which parameter, for messages.
        @raise ConfigError: it cannot be opened.
        """
        name = text, parameter not in ROUTES
        kept = self._open.get(name) or self._unchanged(name, parameter) or self._open_anew(text, parameter)
        self._open[name] = kept
        return kept.table

    def read(self, path: str, parameter: str) -> bytes:
        """
        Read a file that is no table, as L{read_file<qmqpd_tx.tables.words.read_file>} does, once in a
        generation, and so that L{changed} knows of it.

        @raise ConfigError: it cannot be read.
        """
        known = self._read.get(path)
        if known is not None:
            return known[1]
        for _ in range(READS):
            signature = _signature(path)
            data = read_file(path, parameter)
            if _signature(path) == signature:
                break
        self._read[path] = signature, data
        return data

    def _unchanged(self, name: Name, parameter: str) -> _Kept | None:
        """
        @return: what was read ahead, or what the generation before had, or an earlier one that is not closed
            yet, if it would be the same now.
        """
        kept = self._ahead.get(name)
        if kept is None and self._before is not None:
            kept = self._before[0].get(name)
        if kept is None:
            kept = next((one.kept for one in reversed(self._retired) if one.name == name), None)
        if kept is None or any(_differ(kept.files)):
            return None
        if any(self._setting(asked) != text for asked, text in kept.settings.items()):
            return None
        for part, table in kept.parts.items():
            if self.open(part, parameter) is not table:
                return None
        return kept

    def _open_anew(self, text: str, parameter: str) -> _Kept:
        kept = self._read_once(text, parameter)
        for _ in range(READS - 1):
            if not any(_differ(kept.files)):
                break
            _shut(kept.table)
            kept = self._read_once(text, parameter)
        return kept

    def _read_once(self, text: str, parameter: str) -> _Kept:
        seen: dict[str, Signature] = {}
        parts: dict[str, ILookupTable] = {}
        settings: dict[str, str] = {}
        inner_files: set[str] = set()

        def open_part(part: str) -> ILookupTable:
            parts[part] = self.open(part, parameter)
            inner_files.update(parts[part].sources)
            return parts[part]

        def setting(name: str) -> str:
            settings[name] = self._setting(name)
            return settings[name]

        def watch(path: str) -> None:
            seen.setdefault(path, _signature(path))

        context = TableContext(
            parameter=parameter,
            open=open_part,
            reactor=self._reactor,
            in_thread=self._in_thread,
            setting=setting,
            watch=watch,
            substitutes=parameter not in ROUTES,
        )
        table = open_with(text, context, self._extra)
        for path in table.sources:
            if path not in inner_files:
                watch(path)
        return _Kept(table, parameter, list(seen.items()), parts, settings)

    def changed(self) -> Sequence[str]:
        """
        @return: the files of open tables, and of lists, that are not what they were when they were read.
        """
        lists = [(path, signature) for path, (signature, _) in self._read.items()]
        files = [*lists, *(one for kept in self._open.values() for one in kept.files)]
        return sorted(set(_differ(files)))

    def read_ahead(self) -> Deferred[None]:
        """
        Open changed tables in threads, where that takes long; the next generation finds them open, unless
        they change once more. What cannot be opened is left to it.

        @return: a Deferred that fires when that is done; it does not fail.
        """
        reading = []
        for name, kept in self._open.items():
            text, _ = name
            if text.partition(":")[0] in READ_WHOLE and any(_differ(kept.files)):
                opened = self._in_thread(self._open_anew, text, kept.parameter)
                reading.append(opened.addCallbacks(self._is_ahead, self._not_ahead, callbackArgs=(name,)))
        return DeferredList(reading).addCallback(lambda _: None)

    def _is_ahead(self, kept: _Kept, name: Name) -> None:
        before = self._ahead.get(name)
        self._ahead[name] = kept
        if before is not None:
            _shut(before.table)

    def _not_ahead(self, failure: Failure) -> None:
        if not isinstance(failure.value, ConfigError):
            log.failure("reading a table ahead", failure)

    def _leave_ahead(self) -> None:
        """
        Close what was read ahead and is not in use.
        """
        ahead, self._ahead = self._ahead, {}
        self._close(ahead, self._open)

    def renew(self, setting: Callable[[str], str] | None = None) -> None:
        """
        Begin a new generation. One that was neither kept nor undone is undone first.

        @param setting: gives the text of a parameter from now on; L{None}: as before.
        """
        self.undo()
        self._before = self._open, self._read, self._setting
        self._open, self._read = {}, {}
        if setting is not None:
            self._setting = setting

    def keep(self) -> None:
        """
        Stay with the new generation: close what only the one before had, when nobody can need it any more.
        """
        if self._before is not None:
            (before, _, _), self._before = self._before, None
            spared = {id(kept.table) for kept in self._open.values()}
            for one in [one for one in self._retired if id(one.kept.table) in spared]:
                # It is in use again.
                self._retired.remove(one)
                one.end.cancel()
            for name, kept in before.items():
                if id(kept.table) not in spared:
                    self._retire(name, kept)
        self._leave_ahead()

    def _retire(self, name: Name, kept: _Kept) -> None:
        if self._reactor is None:
            _shut(kept.table)
            return
        one = _Retired(name, kept)
        one.end = self._reactor.callLater(seconds(self._setting, "table_close_delay"), self._end, one)
        self._retired.append(one)
        if len(self._retired) > RETIRED:
            self._end(self._retired[0])

    def _end(self, one: _Retired) -> None:
        if one.end.active():
            one.end.cancel()
        self._retired.remove(one)
        _shut(one.kept.table)

    def undo(self) -> None:
        """
        Go back to the generation before: L{open} gives its tables, as they were. It reads no file, and does
        not fail.
        """
        if self._before is not None:
            ours = self._open
            (self._open, self._read, self._setting), self._before = self._before, None
            self._close(ours, self._open)
            self._leave_ahead()

    def close(self) -> None:
        """
        Close all.
        """
        self.keep()
        for one in list(self._retired):
            self._end(one)
        self._close(self._open, {})
        self._open, self._read = {}, {}

    def _close(self, these: dict[Name, _Kept], but: dict[Name, _Kept]) -> None:
        spared = {id(kept.table) for kept in [*but.values(), *(one.kept for one in self._retired)]}
        for kept in these.values():
            if id(kept.table) not in spared:
                _shut(kept.table)


def _shut(table: ILookupTable) -> None:
    """
    Close a table, whatever happens: those who go on do not need it any more.
    """
    try:
        table.close()
    except Exception:
        log.failure("cannot close table {table}", table=table.name)


def open_table(text: str, parameter: str, extra: Iterable[ILookupTableType] | None = None) -> ILookupTable:
    """
    Open one table where nobody keeps them, and where there is no reactor: a command, a test.

    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @raise ConfigError: it cannot be opened.
    """
    return Tables(extra=extra).open(text, parameter)
