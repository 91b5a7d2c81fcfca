"""
The open tables of one mail system.

Takes C{type:name}; gives an open table, the same one to everybody who asks for the same. A configuration is
a I{generation}: when the next one begins (L{Tables.renew}), tables whose files and parameters have not
changed since are given out again, so that a reload does not read a million lines for a changed word; others
are opened anew. A table that is made of others is opened anew when one of them is.
L{Tables.keep} closes what the new generation has not asked for; L{Tables.undo} goes back to the tables of the
one before, as they are in memory, whatever has become of their files. L{Tables.changed} names the files that
a reload would read again: those of tables, and those that lists have read by way of L{Tables.read}.

A file is looked at before it is read. When it is another one afterwards, it is read again, a few times;
and whatever it becomes later, L{Tables.changed} has not missed it.

Parameters that say where mail goes have tables of their own, whose results hold nothing of the key
(L{ROUTES}).

Fails with L{ConfigError} when a table cannot be opened. Opening reads files at once: start-up and reload
only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.registry import open_with
from qmqpd_tx.tables.words import read_file

log = Logger(namespace="qmqpd_tx.tables")

ROUTES = frozenset(
    {"sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps", "transport_maps"}
)
"""Parameters whose patterns must not put parts of an address into the result, see
L{TableContext.substitutes}."""

READS = 3
"""How often a file that changes while it is read is read, before what was read last is taken."""

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
    An open table, what its files looked like before it was read, the tables that it is made of, by
    C{type:name} (they are opened for the same parameter), and the parameters that it has asked for.
    """

    table: ILookupTable
    files: Sequence[tuple[str, Signature]]
    parts: Mapping[str, ILookupTable]
    settings: Mapping[str, str]


class Tables:
    """
    @param reactor: for tables that ask a server; L{None}: such cannot be opened.
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
        self._read: dict[str, Signature] = {}
        self._before: tuple[dict[Name, _Kept], dict[str, Signature], Callable[[str], str]] | None = None

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
        Read a file that is no table, as L{read_file<qmqpd_tx.tables.words.read_file>} does, so that
        L{changed} knows of it.

        @raise ConfigError: it cannot be read.
        """
        for _ in range(READS):
            signature = _signature(path)
            data = read_file(path, parameter)
            if _signature(path) == signature:
                break
        self._read.setdefault(path, signature)
        return data

    def _unchanged(self, name: Name, parameter: str) -> _Kept | None:
        """
        @return: what the generation before had, if it would be the same now.
        """
        if self._before is None:
            return None
        kept = self._before[0].get(name)
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
        return _Kept(table, list(seen.items()), parts, settings)

    def changed(self) -> Sequence[str]:
        """
        @return: the files of open tables, and of lists, that are not what they were when they were read.
        """
        files = [*self._read.items(), *(one for kept in self._open.values() for one in kept.files)]
        return sorted(set(_differ(files)))

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
        Stay with the new generation: close what only the one before had.
        """
        if self._before is not None:
            (before, _, _), self._before = self._before, None
            self._close(before, self._open)

    def undo(self) -> None:
        """
        Go back to the generation before: L{open} gives its tables, as they were. It reads no file, and does
        not fail.
        """
        if self._before is not None:
            ours = self._open
            (self._open, self._read, self._setting), self._before = self._before, None
            self._close(ours, self._open)

    def close(self) -> None:
        """
        Close all.
        """
        self.keep()
        self._close(self._open, {})
        self._open, self._read = {}, {}

    @staticmethod
    def _close(these: dict[Name, _Kept], but: dict[Name, _Kept]) -> None:
        spared = {id(kept.table) for kept in but.values()}
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
