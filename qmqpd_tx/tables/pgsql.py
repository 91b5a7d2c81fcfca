"""
C{pgsql:/file}: tables in a PostgreSQL database.

Takes a configuration as in pgsql_table(5); gives a table that asks one of C{hosts}, in random order, those
that failed last. A server that cannot be reached is left alone for C{table_retry_delay} as long as there are
others. Connections are made when they are needed, at most C{table_connection_limit} of them, are used again,
and are closed when they were idle for C{table_idle_time}. All values of all columns count. The library is
psycopg 3, of which only its layer over PostgreSQL's own client library is used: keys are quoted by that, with
the connection that the query goes to, queries go as they are, and values come as the server writes them. The
client encoding is C{encoding}, UTF8 by default. Everything that fails is a L{TableError}; a missing library
is a L{ConfigError}. Answers to Postfix's dict_pgsql (PGSQL_README).
"""

from __future__ import annotations

import random
import select
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from attrs import frozen
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables.indexed import missing_library
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.limits import ServerLimits
from qmqpd_tx.tables.query import Parts, Template
from qmqpd_tx.tables.sql import Question, Rows, SqlSettings, SqlTable
from qmqpd_tx.tables.words import encode, split_words

log = Logger(namespace="qmqpd_tx.tables")


def _word(value: str) -> str:
    """
    @return: a value as it stands in a connection string.
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@frozen(slots=True)
class Server:
    """
    One of C{hosts}.

    @ivar name: as it is configured.
    @ivar conninfo: how the client library is told.
    """

    name: str
    conninfo: str


def servers(settings: SqlSettings) -> Sequence[Server]:
    """
    @return: the hosts of a configuration.
    @raise ConfigError: something is missing.
    """
    # The names of the library's own parameters; a URI has all but those that are repeated in every setting.
    common = {"user": settings.text("user"), "password": settings.text("password")}
    database = settings.needed("dbname")
    found = []
    for host in split_words(settings.text("hosts")) or ["localhost"]:
        if host.startswith(("postgresql://", "postgres://")):
            found.append(Server(host.split("@")[-1], host))
            continue
        place = host.removeprefix("unix:").removeprefix("inet:")
        if place.startswith("/"):
            # The library wants the folder of the socket, and its port.
            folder, mark, port = place.partition("/.s.PGSQL.")
            values = {"host": folder, "port": port if mark else "5432"}
        elif place.startswith("["):
            address, _, port = place[1:].partition("]")
            values = {"host": address, "port": port.lstrip(":") or "5432"}
        else:
            name, _, port = place.partition(":")
            values = {"host": name, "port": port or "5432"}
        values = {**values, "dbname": database, **common}
        text = " ".join(f"{name}={_word(value)}" for name, value in values.items() if value)
        found.append(Server(host, text))
    return found


class Connection:
    """
    A connection to a server, for one thread at a time.

    @ivar server: to which.
    @ivar used: when it was used last, on the monotonic clock.
    @ivar closed: whether it is of no use any more.
    @param pq: psycopg's layer over the client library.
    @param encoding: the client encoding.
    @param deadline: on the monotonic clock.
    @raise TableError: it cannot be made.
    """

    def __init__(self, server: Server, pq: ModuleType, encoding: str, deadline: float) -> None:
        self.server = server
        self.used = 0.0
        self.closed = False
        self._pq = pq
        self._connection = pq.PGconn.connect_start(encode(server.conninfo))
        try:
            polling = pq.PollingStatus
            wanted = polling.WRITING
            while self._connection.status != pq.ConnStatus.OK:
                # Where it cannot even begin, there is nothing to wait for.
                failed = self._connection.status == pq.ConnStatus.BAD
                if failed or wanted not in (polling.READING, polling.WRITING):
                    raise TableError(self._message())
                self._wait(wanted == polling.WRITING, deadline)
                wanted = self._connection.connect_poll()
            self.run(lambda escape: b"SET client_encoding TO '%b'" % escape(encode(encoding)), deadline)
        except BaseException:
            self.close()
            raise

    def run(self, make: Callable[[Callable[[bytes], bytes]], bytes | None], deadline: float) -> Rows | None:
        """
        @param make: gives the query; takes what quotes a text.
        @return: the rows of its last statement; L{None} if there was no query.
        @raise TableError: it failed.
        """
        try:
            query = make(self._pq.Escaping(self._connection).escape_string)
            if query is None:
                return None
            self._connection.nonblocking = 1
            self._connection.send_query(query)
            while self._connection.flush():
                self._wait(True, deadline)
            result = None
            while True:
                while self._connection.is_busy():
                    self._wait(False, deadline)
                    self._connection.consume_input()
                following = self._connection.get_result()
                if following is None:
                    break
                result = following
                if result.status == self._pq.ExecStatus.FATAL_ERROR:
                    text = (result.error_message or b"").decode("utf-8", "replace")
                    raise TableError(" ".join(text.split()))
        except self._errors() as error:
            raise TableError(" ".join(str(error).split())) from None
        if result is None or result.status not in (
            self._pq.ExecStatus.TUPLES_OK,
            self._pq.ExecStatus.COMMAND_OK,
        ):
            raise TableError("the query gives no rows; it must be a SELECT")
        return [
            [result.get_value(row, column) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    def usable(self) -> bool:
        """
        @return: whether the next query can go over it.
        """
        idle = self._pq.TransactionStatus.IDLE
        return bool(
            self._connection.status == self._pq.ConnStatus.OK and self._connection.transaction_status == idle
        )

    def _errors(self) -> tuple[type[Exception], ...]:
        from psycopg import Error

        return (Error,)

    def _message(self) -> str:
        return " ".join((self._connection.error_message or b"").decode("utf-8", "replace").split())

    def _wait(self, writing: bool, deadline: float) -> None:
        left = deadline - time.monotonic()
        poller = select.poll()
        poller.register(self._connection.socket, select.POLLOUT | select.POLLIN if writing else select.POLLIN)
        if left <= 0 or not poller.poll(left * 1000):
            raise TableError("no answer in time")

    def close(self) -> None:
        """Close it."""
        self.closed = True
        self._connection.finish()


class PgsqlTable(SqlTable):
    """
    An open C{pgsql:} table.

    @param servers: C{hosts}.
    @param encoding: the client encoding.
    @param connect: makes a connection: takes server, encoding and deadline.
    @param chance: which server is asked first.
    """

    def __init__(
        self,
        settings: SqlSettings,
        context: TableContext,
        question: Question,
        limits: ServerLimits,
        servers: Sequence[Server],
        encoding: str,
        connect: Callable[[Server, str, float], Connection],
        chance: random.Random,
    ) -> None:
        super().__init__(settings, context, question, limits)
        self._servers = servers
        self._encoding = encoding
        self._connect = connect
        self._chance = chance
        self._limits = limits
        self._reactor = context.reactor
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._down: dict[Server, float] = {}
        self._timer: Any = None
        self._shut = False

    def lookup(self, key: bytes) -> Any:
        if self._reactor is not None and self._timer is None and not self._shut:
            self._timer = self._reactor.callLater(self._limits.idle, self._expire)
        return super().lookup(key)

    def ask(self, key: Parts, query: Template) -> Rows | None:
        def make(escape: Callable[[bytes], bytes]) -> bytes | None:
            return query.expand(key, key, escape)

        if query.expand(key, key) is None:
            return None
        deadline = time.monotonic() + self._limits.timeout
        reasons = []
        connection = self._kept()
        if connection is not None:
            try:
                return self._use(connection, make, deadline)
            except TableError:
                # It may have died since: that says nothing about the server.
                if not connection.closed:
                    raise
        for server in self._order():
            try:
                connection = self._connect(server, self._encoding, deadline)
            except TableError as error:
                self._failed(server, str(error))
                reasons.append(f"{server.name}: {error}")
                continue
            with self._lock:
                self._down.pop(server, None)
            try:
                return self._use(connection, make, deadline)
            except TableError as error:
                if not connection.closed:
                    raise
                self._failed(server, str(error))
                reasons.append(str(error))
        raise TableError(f"{self.name}: {'; '.join(reasons)}")

    def _use(
        self,
        connection: Connection,
        make: Callable[[Callable[[bytes], bytes]], bytes | None],
        deadline: float,
    ) -> Rows | None:
        """
        Ask over a connection, and keep it, or close it if it is of no use any more.
        """
        try:
            return connection.run(make, deadline)
        except TableError as error:
            raise TableError(f"{self.name}: {connection.server.name}: {error}") from None
        finally:
            if connection.usable():
                self._keep(connection)
            else:
                connection.close()

    def _kept(self) -> Connection | None:
        """
        @return: a connection that is not in use, if there is one, for the caller alone.
        """
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            connection.used = time.monotonic()
            if not self._shut:
                self._idle.append(connection)
                return
        connection.close()

    def _order(self) -> Sequence[Server]:
        """
        @return: the servers in random order; those that failed lately only if there are no others.
        """
        now = time.monotonic()
        with self._lock:
            up = [server for server in self._servers if self._down.get(server, 0.0) <= now]
            order = up or list(self._servers)
            self._chance.shuffle(order)
        return order

    def _failed(self, server: Server, reason: str) -> None:
        with self._lock:
            self._down[server] = time.monotonic() + self._limits.retry
        if self._reactor is not None:
            self._reactor.callFromThread(
                log.warn,
                "{table}: server {server}: {reason}",
                table=self.name,
                server=server.name,
                reason=reason,
            )

    def _expire(self) -> None:
        """Close what was not used for a while."""
        self._timer = None
        oldest = time.monotonic() - self._limits.idle
        with self._lock:
            stale = [connection for connection in self._idle if connection.used <= oldest]
            self._idle = [connection for connection in self._idle if connection.used > oldest]
            left = bool(self._idle)
        for connection in stale:
            connection.close()
        if left:
            self._timer = self._reactor.callLater(self._limits.idle, self._expire)

    def close(self) -> None:
        with self._lock:
            self._shut = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()


@implementer(ILookupTableType)
class PgsqlType:
    """
    Opens C{pgsql:} tables.

    @param chance: which server is asked first.
    """

    type = "pgsql"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def open(self, name: str, context: TableContext) -> ILookupTable:
        settings = SqlSettings(self.type, name, context)
        try:
            from psycopg import pq
        except ImportError:
            raise missing_library(context.parameter, settings.table, "psycopg", "pgsql") from None

        def connect(server: Server, encoding: str, deadline: float) -> Connection:
            return Connection(server, pq, encoding, deadline)

        return PgsqlTable(
            settings,
            context,
            Question.of(settings, context, functions=True),
            ServerLimits.of(context.setting),
            servers(settings),
            settings.needed("encoding", "UTF8"),
            connect,
            self._chance,
        )
