"""
The open tables of one mail system.

Takes C{type:name}; gives an open table, the same one to everybody who asks for the same. A configuration is
a I{generation}: when the next one begins (L{Tables.renew}), tables whose files have not changed since are
given out again, so that a reload does not read a million lines for a changed word; others are opened anew.
L{Tables.keep} closes what the new generation has not asked for; L{Tables.undo} goes back to the tables of the
one before, as they are in memory, whatever has become of their files. L{Tables.changed} names the files that
a reload would read again.

Fails with L{ConfigError} when a table cannot be opened. Opening reads files at once: start-up and reload
only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.registry import open_with

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
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@frozen(slots=True)
class _Kept:
    """
    An open table, and what its files looked like when it was read.
    """

    table: ILookupTable
    files: Sequence[tuple[str, Signature]]

    def changed(self) -> Iterable[str]:
        return (path for path, signature in self.files if _signature(path) != signature)


class Tables:
    """
    @param reactor: for tables that ask a server; L{None}: such cannot be opened.
    @param in_thread: runs what blocks, as in L{TableContext}.
    @param setting: gives the text of a parameter; see L{renew}.
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
        self._open: dict[str, _Kept] = {}
        self._before: dict[str, _Kept] | None = None
        self._setting_before = setting

    def open(self, text: str, parameter: str) -> ILookupTable:
        """
        @param text: C{type:name}.
        @param parameter: on behalf of which parameter, for messages.
        @raise ConfigError: it cannot be opened.
        """
        kept = self._open.get(text)
        if kept is None and self._before is not None:
            kept = self._before.get(text)
            if kept is not None and any(kept.changed()):
                kept = None
        if kept is None:
            kept = self._open_anew(text, parameter)
        self._open[text] = kept
        return kept.table

    def _open_anew(self, text: str, parameter: str) -> _Kept:
        context = TableContext(
            parameter=parameter,
            open=lambda inner: self.open(inner, parameter),
            reactor=self._reactor,
            in_thread=self._in_thread,
            setting=self._setting,
        )
        table = open_with(text, context, self._extra)
        files = [(path, _signature(path)) for path in table.sources]
        return _Kept(table, files)

    def changed(self) -> Sequence[str]:
        """
        @return: the files of open tables that are not what they were when they were read.
        """
        return sorted({path for kept in self._open.values() for path in kept.changed()})

    def renew(self, setting: Callable[[str], str] | None = None) -> None:
        """
        Begin a new generation. One that was neither kept nor undone is undone first.

        @param setting: gives the text of a parameter from now on; L{None}: as before.
        """
        if self._before is not None:
            self.undo()
        self._before, self._open = self._open, {}
        self._setting_before = self._setting
        if setting is not None:
            self._setting = setting

    def keep(self) -> None:
        """
        Stay with the new generation: close what only the one before had.
        """
        before, self._before = self._before or {}, None
        self._close(before, self._open)

    def undo(self) -> None:
        """
        Go back to the generation before: L{open} gives its tables, as they were.
        """
        if self._before is not None:
            ours, self._open, self._before = self._open, self._before, None
            self._setting = self._setting_before
            self._close(ours, self._open)

    def close(self) -> None:
        """
        Close all.
        """
        self.keep()
        self._close(self._open, {})
        self._open = {}

    @staticmethod
    def _close(these: dict[str, _Kept], but: dict[str, _Kept]) -> None:
        spared = {id(kept.table) for kept in but.values()}
        for kept in these.values():
            if id(kept.table) not in spared:
                kept.table.close()


def open_table(text: str, parameter: str, extra: Iterable[ILookupTableType] | None = None) -> ILookupTable:
    """
    Open one table where nobody keeps them, and where there is no reactor: a command, a test.

    @param extra: kinds beside the built-in ones; the installed plugins when L{None}.
    @raise ConfigError: it cannot be opened.
    """
    return Tables(extra=extra).open(text, parameter)
