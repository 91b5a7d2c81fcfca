"""
What the kinds of table in an indexed file have in common.

Takes C{type:/path} and a way to get a value out of the file beside it (C{/path.db}, C{/path.lmdb},
C{/path.cdb}); gives the table. Keys are folded. Postfix may have stored keys and values with a NUL at the end
or without one; which one is found out with the first key that is there, and remembered. A file that cannot be
opened is a L{ConfigError} that names it and says how to make it; one that turns out to be damaged is a
L{TableError}. Answers to Postfix's dict_db, dict_lmdb and dict_cdb.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable, ISequenceTable
from qmqpd_tx.tables.words import fold

LOCK_POLL = 0.01
"""Seconds between two attempts to get a lock that somebody else has."""


class Ends(enum.Enum):
    """How keys and values end in a file."""

    EITHER = enum.auto()
    NUL = enum.auto()
    NOTHING = enum.auto()


def stored(text: bytes, ends: Ends) -> bytes:
    """
    @return: a key or value as it stands in the file.
    """
    return text + b"\0" if ends is Ends.NUL else text


@implementer(ILookupTable, ISequenceTable)
class IndexedTable(ABC):
    """
    A table in an indexed file.

    @param name: C{type:name}.
    @param sources: the file, if it is to be opened again when it changes.
    """

    fixed_keys = True
    immediate = True
    stable = True

    def __init__(self, name: str, sources: Sequence[str]) -> None:
        self.name = name
        self.sources = sources
        self._ends = Ends.EITHER

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """
        @return: the value that is stored for exactly this key.
        @raise TableError: the file is damaged, or was closed.
        """

    @abstractmethod
    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """
        @return: all keys and values as they stand in the file.
        @raise TableError: as L{get}.
        """

    @abstractmethod
    def close(self) -> None:
        """See L{ILookupTable}."""

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """See L{ISequenceTable}."""
        bare = ((key.rstrip(b"\0"), value.rstrip(b"\0")) for key, value in self.pairs())
        return (entry for entry in bare if entry[0])

    def lookup(self, key: bytes) -> bytes | None:
        """See L{ILookupTable}."""
        return self.find(fold(key), self._ends)

    def find(self, key: bytes, ends: Ends) -> bytes | None:
        """
        Look up without folding.

        @param ends: how the file's keys end, if that is known.
        """
        if not key:
            return None
        for each in (Ends.NUL, Ends.NOTHING) if ends is Ends.EITHER else (ends,):
            value = self.get(stored(key, each))
            if value is not None:
                self._ends = each
                return value.rstrip(b"\0") or None
        return None


def absolute(type_name: str, name: str, parameter: str) -> str:
    """
    @raise ConfigError: the name is no absolute path.
    """
    if not name.startswith("/"):
        raise ConfigError(f"{parameter}: {type_name}:{name}: the file name must be absolute")
    return name


def open_file(path: str, parameter: str, table: str) -> int:
    """
    @return: a descriptor for reading.
    @raise ConfigError: it cannot be opened; says how to make it.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        remedy = f'; make it with "postmap {table}"' if error.errno == errno.ENOENT else ""
        raise ConfigError(f"{parameter}: open database {path}: {error.strerror}{remedy}") from None


def missing_library(parameter: str, table: str, library: str, extra: str) -> ConfigError:
    """
    @return: what to raise when a library that a kind needs is not there.
    """
    return ConfigError(
        f"{parameter}: {table}: the Python package {library} is not installed; "
        f"install qmqpd_tx with the extra [{extra}]"
    )


def take_lock(attempt: Callable[[], None], timeout: float, path: str) -> None:
    """
    Take a lock of a kind that only blocks or fails.

    @param attempt: takes it or raises L{BlockingIOError}.
    @param timeout: seconds to try for.
    @raise TableError: somebody else has it all the time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return attempt()
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= deadline:
                raise TableError(f"{path}: is being updated, and was locked for {timeout:g}s") from None
            time.sleep(LOCK_POLL)


def lock_whole(descriptor: int, exclusive: bool, timeout: float, path: str) -> None:
    """
    Take the lock that Postfix's programs take on Berkeley DB files, flock(2). It ends with the descriptor.

    @raise TableError: it was not free in time.
    """
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    take_lock(lambda: fcntl.flock(descriptor, kind | fcntl.LOCK_NB), timeout, path)
