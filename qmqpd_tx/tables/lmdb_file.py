"""
C{lmdb:/path}: the memory-mapped database C{/path.lmdb}.

Takes a file as Postfix's postmap or this module makes it; gives a table that is always current: each lookup
reads what is committed then, also when the file has grown or was replaced, and so its answers are not to be
kept. Postfix does not use LMDB's own locks but fcntl(2) locks on the whole file, shared for a reading
transaction and exclusive for a writing one, and so does this module (lmdb_table(5)). A lookup waits at most
C{table_lock_timeout} for a writer, and then fails with L{TableError}. A change is one transaction, which is
made again with twice the size when the file is full.

The library is C{lmdb}, LMDB with its usual binding. Answers to Postfix's dict_lmdb (LMDB_README).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.building import Draft, DraftWriter, nothing
from qmqpd_tx.tables.indexed import (
    Ends,
    IndexedTable,
    absolute,
    missing_library,
    open_file,
    take_lock,
)
from qmqpd_tx.tables.interface import (
    ILookupTable,
    ILookupTableType,
    ITableBuilder,
    ITableWriter,
    TableContext,
)
from qmqpd_tx.tables.limits import integer, seconds


def _library(parameter: str, name: str) -> ModuleType:
    try:
        import lmdb
    except ImportError:
        raise missing_library(parameter, f"lmdb:{name}", "lmdb", "lmdb") from None
    module: ModuleType = lmdb
    return module


def _lock(descriptor: int, kind: int, timeout: float, path: str) -> None:
    take_lock(lambda: fcntl.lockf(descriptor, kind | fcntl.LOCK_NB), timeout, path)


class LmdbFile:
    """
    An open file, which all tables that are made of it share.

    @ivar users: how many there are; the last one closes it.
    @param path: the C{.lmdb} file.
    @param library: the binding.
    """

    def __init__(self, path: str, library: ModuleType) -> None:
        self.users = 0
        self._path = path
        self._library = library
        self._environment: Any = None
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        # For locks: they end when any descriptor of the file is closed, so that this one stays.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._environment = self._library.open(
                self._path, subdir=False, readonly=True, lock=False, create=False, max_spare_txns=1
            )
        except BaseException:
            self.shut()
            raise
        status = os.fstat(self._descriptor)
        self._file = status.st_dev, status.st_ino

    @contextlib.contextmanager
    def reading(self, timeout: float) -> Iterator[Any]:
        """
        @param timeout: seconds to wait for a writer.
        @return: a transaction, under a lock.
        """
        status = os.stat(self._path)
        if self._environment is None or (status.st_dev, status.st_ino) != self._file:
            self.shut()
            self._open()
        descriptor = self._descriptor
        _lock(descriptor, fcntl.LOCK_SH, timeout, self._path)
        try:
            with self._begin() as transaction:
                yield transaction
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)

    def _begin(self) -> Any:
        try:
            return self._environment.begin()
        except self._library.MapResizedError:
            self._environment.set_mapsize(0)
            return self._environment.begin()

    def max_key_size(self) -> int:
        """
        @return: the length of the longest key, in bytes.
        """
        size: int = self._environment.max_key_size()
        return size

    def shut(self) -> None:
        """
        Close it.
        """
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_FILES: dict[str, LmdbFile] = {}
"""
The open files, by their real paths. It is the process that can have a file of LMDB open only once; so it is
the process that knows which are open.
"""


class LmdbTable(IndexedTable):
    """
    An open C{lmdb:} table.

    @param name: C{type:name}.
    @param path: the C{.lmdb} file.
    @param library: the binding.
    @param timeout: seconds to wait for a writer.
    """

    stable = False

    def __init__(self, name: str, path: str, library: ModuleType, timeout: float) -> None:
        # No sources: nothing has to be opened again.
        super().__init__(name, ())
        self._path = path
        self._library = library
        self._timeout = timeout
        self._closed = False
        self._place = os.path.realpath(path)
        file = _FILES.get(self._place)
        if file is None:
            file = _FILES[self._place] = LmdbFile(path, library)
        file.users += 1
        self._file = file

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        """
        @return: a transaction.
        """
        if self._closed:
            raise TableError(f"{self.name}: is closed")
        try:
            with self._file.reading(self._timeout) as transaction:
                yield transaction
        except (self._library.Error, OSError) as error:
            raise TableError(f"{self.name}: read {self._path}: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        with self._reading() as transaction:
            value: bytes | None = transaction.get(key) if len(key) <= self._file.max_key_size() else None
        return value

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        with self._reading() as transaction:
            yield from transaction.cursor()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._file.users -= 1
        if not self._file.users:
            del _FILES[self._place]
            self._file.shut()


@implementer(ILookupTableType, ITableBuilder)
class LmdbType:
    """Opens and builds C{lmdb:} tables."""

    type = "lmdb"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter, table = context.parameter, f"lmdb:{name}"
        path = absolute(self.type, name, parameter) + ".lmdb"
        library = _library(parameter, name)
        os.close(open_file(path, parameter, table))
        timeout = seconds(context.setting, "table_lock_timeout")
        try:
            return LmdbTable(table, path, library, timeout)
        except library.Error as error:
            raise ConfigError(f"{parameter}: open database {path}: {error}") from None

    def label(self, name: str) -> str:
        """See L{ITableBuilder}."""
        return f"lmdb:{name}"

    def create(self, name: str, draft: Draft) -> ITableWriter:
        """See L{ITableBuilder}."""
        return self._writer(name, draft, True)

    def edit(self, name: str, draft: Draft, make: bool = False) -> ITableWriter:
        """See L{ITableBuilder}."""
        if not make:
            os.close(open_file(name + ".lmdb", "postmap", f"lmdb:{name}"))
        return self._writer(name, draft, False)

    def _writer(self, name: str, draft: Draft, empty: bool) -> ITableWriter:
        library = _library("postmap", name)
        path = name + ".lmdb"
        try:
            descriptor = _open_to_write(path, draft)
        except OSError as error:
            raise ConfigError(f"open database {path}: {error.strerror}") from None
        try:
            _lock(descriptor, fcntl.LOCK_EX, draft.timeout, path)
            size = max(integer(draft.setting, "lmdb_map_size"), os.fstat(descriptor).st_size)
            environment = library.open(path, subdir=False, lock=False, map_size=size)
        except TableError as error:
            os.close(descriptor)
            raise ConfigError(f"open database {error}") from None
        except library.Error as error:
            os.close(descriptor)
            raise ConfigError(f"open database {path}: {error}") from None

        def read(key: bytes) -> bytes | None:
            if len(key) > environment.max_key_size():
                return None
            with environment.begin() as transaction:
                value: bytes | None = transaction.get(key)
            return value

        def apply(changes: Mapping[bytes, bytes | None]) -> None:
            try:
                while not _apply(environment, library, changes, empty):
                    environment.set_mapsize(2 * environment.info()["map_size"])
            except library.Error as error:
                raise ConfigError(f"write database {path}: {error}") from None

        def release() -> None:
            environment.close()
            os.close(descriptor)

        ends = Ends.NUL if draft.ends is Ends.EITHER else draft.ends
        reader: Callable[[bytes], bytes | None] = nothing if empty else read
        return DraftWriter(reader, apply, release, ends)


def _apply(environment: Any, library: ModuleType, changes: Mapping[bytes, bytes | None], empty: bool) -> bool:
    """
    @return: whether there was room for the changes; if not, nothing has happened.
    """
    try:
        with environment.begin(write=True) as transaction:
            if empty:
                transaction.drop(environment.open_db(txn=transaction), delete=False)
            for key, value in changes.items():
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)
    except library.MapFullError:
        return False
    return True


def _open_to_write(path: str, draft: Draft) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, -1, -1 if draft.group is None else draft.group)
    os.fchmod(descriptor, draft.mode)
    return descriptor
