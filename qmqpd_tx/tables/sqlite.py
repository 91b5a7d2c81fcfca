"""
C{sqlite:/file}: tables in an SQLite database.

Takes a configuration as in sqlite_table(5); gives a table that reads the database of C{dbpath} through
Python's own C{sqlite3}, in a thread, read-only, over one connection that is made with the first lookup. The
first column of each row counts. Fails with L{TableError} when the database is not there, locked for too long,
or does not understand the query. Answers to Postfix's dict_sqlite (SQLITE_README).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from urllib.parse import quote

from attrs import evolve
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.limits import ServerLimits
from qmqpd_tx.tables.query import Parts, Template
from qmqpd_tx.tables.sql import Question, Rows, SqlSettings, SqlTable
from qmqpd_tx.tables.words import decode

STEPS = 10_000
"""How many instructions SQLite does, in about a millisecond, before it asks whether to go on."""


def _quoted(part: bytes) -> bytes:
    """
    SQLite's strings know one special character, the quote, which is doubled
    (U{https://sqlite.org/lang_expr.html#literal_values_constants_}).
    """
    return part.replace(b"'", b"''")


def _bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogateescape")


class SqliteTable(SqlTable):
    """
    An open C{sqlite:} table.

    @param path: the database.
    """

    def __init__(
        self,
        settings: SqlSettings,
        context: TableContext,
        question: Question,
        limits: ServerLimits,
        path: str,
    ) -> None:
        # One connection serves one thread at a time.
        super().__init__(settings, context, question, evolve(limits, connections=1))
        self._path = path
        self._timeout = limits.timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._deadline = 0.0
        self._shut = False

    def ask(self, key: Parts, query: Template) -> Rows | None:
        text = query.expand(key, key, _quoted)
        if text is None:
            return None
        with self._lock:
            if self._shut:
                raise TableError(f"{self.name}: is closed")
            self._deadline = time.monotonic() + self._timeout
            try:
                if self._connection is None:
                    self._connection = self._connect()
                rows = self._connection.execute(decode(text)).fetchall()
            except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
                raise TableError(f"{self.name}: {self._path}: {error}") from None
        return [[_bytes(row[0])] for row in rows]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self._path)}?mode=ro",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes
        connection.set_progress_handler(self._enough, STEPS)
        return connection

    def _enough(self) -> bool:
        """
        @return: whether a query that is under way is to end.
        """
        return self._shut or time.monotonic() > self._deadline

    def close(self) -> None:
        super().close()
        # A query that is under way notices, so that the lock is soon free.
        self._shut = True
        with self._lock:
            if self._connection is not None:
                self._connection.close()


@implementer(ILookupTableType)
class SqliteType:
    """Opens C{sqlite:} tables."""

    type = "sqlite"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        settings = SqlSettings(self.type, name, context)
        path = settings.needed("dbpath")
        if not path.startswith("/"):
            raise ConfigError(f"{settings.where}: dbpath = {path}: the file name must be absolute")
        limits = ServerLimits.of(context.setting)
        return SqliteTable(settings, context, Question.of(settings, context), limits, path)
