"""
C{hash:/path} and C{btree:/path}: the Berkeley DB file C{/path.db}.

Takes a file as Postfix's postmap or this module makes it; gives a table. Postfix's postmap writes into the
file that others have open, under an exclusive flock(2), and Berkeley DB keeps pages in memory, so that a
reader can get garbage even if it locks. So a table is made of a private copy that is taken under a shared
lock when it is opened, and that has no name any more; the keeper opens a new one when the file has changed.
New files take the place of the old ones and are never written into.

The library is a binding of Oracle's, C{berkeleydb}; it is looked after by the author of the one that was in
Python 2. Fails with L{ConfigError} when the file cannot be opened, or stays locked for C{table_lock_timeout},
and with L{TableError} when it turns out to be damaged. Answers to Postfix's dict_db (DB_README).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.building import Draft, DraftWriter, Replacement, nothing
from qmqpd_tx.tables.indexed import (
    Ends,
    IndexedTable,
    absolute,
    lock_whole,
    missing_library,
    open_file,
)
from qmqpd_tx.tables.interface import (
    ILookupTable,
    ILookupTableType,
    ITableBuilder,
    ITableWriter,
    TableContext,
)
from qmqpd_tx.tables.limits import integer, seconds


class BerkeleyTable(IndexedTable):
    """
    An open C{hash:} or C{btree:} table.

    @param name: C{type:name}.
    @param path: the C{.db} file.
    @param database: the open database.
    @param error: what it raises.
    """

    def __init__(self, name: str, path: str, database: Any, error: type[Exception]) -> None:
        super().__init__(name, [path])
        self._path = path
        self._database = database
        self._error = error

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except self._error as error:
            raise TableError(f"{self.name}: read {self._path}: {error}") from None
        return value

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            cursor = self._database.cursor()
            try:
                entry = cursor.first()
                while entry is not None:
                    yield entry
                    entry = cursor.next()
            finally:
                cursor.close()
        except self._error as error:
            raise TableError(f"{self.name}: read {self._path}: {error}") from None

    def close(self) -> None:
        self._database.close()


@implementer(ILookupTableType, ITableBuilder)
class BerkeleyType:
    """
    Opens and builds Berkeley DB tables of one kind.

    @param type_name: C{hash} or C{btree}.
    """

    def __init__(self, type_name: str) -> None:
        self.type = type_name

    def _library(self, parameter: str, name: str) -> ModuleType:
        try:
            from berkeleydb import db
        except ImportError:
            table = f"{self.type}:{name}"
            raise missing_library(parameter, table, "berkeleydb", "berkeley") from None
        module: ModuleType = db
        return module

    def _database(self, library: ModuleType, path: str, buffer: int, flags: int) -> Any:
        database = library.DB()
        try:
            database.set_cachesize(0, buffer)
            kind = library.DB_HASH if self.type == "hash" else library.DB_BTREE
            database.open(path, None, kind, flags)
        except library.DBError:
            with contextlib.suppress(library.DBError):
                database.close()
            raise
        return database

    def open(self, name: str, context: TableContext) -> ILookupTable:
        parameter, table = context.parameter, f"{self.type}:{name}"
        path = absolute(self.type, name, parameter) + ".db"
        library = self._library(parameter, name)
        context.watch(path)
        descriptor = open_file(path, parameter, table)
        buffer = integer(context.setting, "berkeley_db_read_buffer_size")
        try:
            lock_whole(descriptor, False, seconds(context.setting, "table_lock_timeout"), path)
            with tempfile.NamedTemporaryFile(prefix="qmqpd_tx-") as copy:
                with os.fdopen(os.dup(descriptor), "rb") as stream:
                    shutil.copyfileobj(stream, copy, 1 << 20)
                copy.flush()
                database = self._database(library, copy.name, buffer, library.DB_RDONLY)
        except TableError as error:
            raise ConfigError(f"{parameter}: open database {error}") from None
        except OSError as error:
            raise ConfigError(f"{parameter}: open database {path}: {error.strerror}") from None
        except library.DBError:
            raise ConfigError(
                f"{parameter}: open database {path}: is not a {self.type} file, or damaged; build it again"
            ) from None
        finally:
            os.close(descriptor)
        return BerkeleyTable(table, path, database, library.DBError)

    def label(self, name: str) -> str:
        """See L{ITableBuilder}."""
        return name + ".db"

    def create(self, name: str, draft: Draft) -> ITableWriter:
        """See L{ITableBuilder}."""
        library = self._library("postmap", name)
        replacement = Replacement(name + ".db", draft)
        try:
            return self._writer(library, replacement, draft, library.DB_CREATE, True, lambda: None)
        except BaseException:
            replacement.abort()
            raise

    def edit(self, name: str, draft: Draft, make: bool = False) -> ITableWriter:
        """See L{ITableBuilder}."""
        path = name + ".db"
        if make and not os.path.exists(path):
            return self.create(name, draft)
        library = self._library("postmap", name)
        descriptor = open_file(path, "postmap", f"{self.type}:{name}")
        try:
            lock_whole(descriptor, True, draft.timeout, path)
            replacement = Replacement(path, draft)
            try:
                shutil.copyfile(path, replacement.path)
                return self._writer(library, replacement, draft, 0, False, lambda: os.close(descriptor))
            except BaseException:
                replacement.abort()
                raise
        except TableError as error:
            os.close(descriptor)
            raise ConfigError(f"open database {error}") from None
        except BaseException:
            os.close(descriptor)
            raise

    def _writer(
        self,
        library: ModuleType,
        replacement: Replacement,
        draft: Draft,
        flags: int,
        empty: bool,
        unlock: Callable[[], None],
    ) -> ITableWriter:
        buffer = integer(draft.setting, "berkeley_db_create_buffer_size")
        try:
            database = self._database(library, replacement.path, buffer, flags)
        except library.DBError as error:
            raise ConfigError(f"open database {replacement.target}: {error}") from None

        def apply(changes: Mapping[bytes, bytes | None]) -> None:
            try:
                for key, value in changes.items():
                    if value is not None:
                        database.put(key, value)
                    elif database.has_key(key):
                        database.delete(key)
                database.close()
            except library.DBError as error:
                raise ConfigError(f"write database {replacement.target}: {error}") from None
            replacement.finish()

        def release() -> None:
            with contextlib.suppress(library.DBError):
                database.close()
            replacement.abort()
            unlock()

        ends = Ends.NUL if draft.ends is Ends.EITHER else draft.ends
        return DraftWriter(nothing if empty else database.get, apply, release, ends)
