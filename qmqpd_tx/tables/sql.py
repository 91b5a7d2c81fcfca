"""
What the kinds of table on an SQL database have in common: their configuration, and the way of a lookup.

Takes C{type:/file}, a file in main.cf's form without expansion of C{$}, or C{type:name}, whose parameters are
C{name_query} and so on in main.cf; gives the settings, and a table that asks the database in threads. Threads
are few, and lookups that wait for one are bounded: one too many, one that takes too long, and whatever the
database complains about is a L{TableError}. Nothing that comes from a message gets into a query unquoted.
Mistakes in the file are L{ConfigError}s that name it and the line. Answers to Postfix's cfg_parser and
db_common.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable, TableContext
from qmqpd_tx.tables.limits import ServerLimits
from qmqpd_tx.tables.query import DomainFilter, Parts, Template, join_values
from qmqpd_tx.tables.words import decode, fold, logical_lines, read_file

Rows = Sequence[Sequence[bytes | None]]
"""What a query gives."""


_NUMBER = re.compile(r"[-+]?[0-9]{1,9}")


class SqlSettings:
    """
    The configuration of one table.

    @ivar sources: the file that it stands in, if it is a file.
    @ivar where: the file, or the parameters' common name, for messages.
    @param type_name: as in C{sqlite}.
    @param name: what comes after the colon.
    @raise ConfigError: the file cannot be read, or has a line that makes no sense.
    """

    def __init__(self, type_name: str, name: str, context: TableContext) -> None:
        self.table = f"{type_name}:{name}"
        self.sources: Sequence[str] = ()
        self._context = context
        self._entries: Mapping[str, str] | None = None
        if name.startswith(("/", ".")):
            if name.startswith("."):
                raise ConfigError(f"{context.parameter}: {self.table}: the file name must be absolute")
            context.watch(name)
            self.sources = (name,)
            self.where = name
            self._entries = _parse(read_file(name, context.parameter), name)
        else:
            self.where = name

    def text(self, name: str, default: str = "") -> str:
        """
        @return: a setting.
        """
        if self._entries is not None:
            return self._entries.get(name, default)
        try:
            return self._context.setting(f"{self.where}_{name}")
        except (ConfigError, KeyError):
            return default

    def needed(self, name: str, default: str = "") -> str:
        """
        @return: a setting that must not be empty.
        @raise ConfigError: it is.
        """
        value = self.text(name, default)
        if not value:
            raise ConfigError(f'{self.where}: {name} is not set; add a line "{name} = ..."')
        return value

    def number(self, name: str) -> int:
        """
        @return: a number, 0 by default.
        @raise ConfigError: it is none.
        """
        value = self.text(name, "0")
        if _NUMBER.fullmatch(value) is None:
            raise ConfigError(f"{self.where}: bad numerical configuration: {name} = {value}; write a number")
        return int(value)


def _parse(data: bytes, path: str) -> dict[str, str]:
    entries = {}
    for number, line in logical_lines(data):
        name, equals, value = (part.strip() for part in decode(line).partition("="))
        if line[:1].isspace() or not equals or not name:
            raise ConfigError(
                f"{path}, line {number}: missing '=' after attribute name: "
                f'"{decode(line)[:80]}"; write name = value, at the beginning of a line'
            )
        entries[name] = value
    return entries


def legacy_query(settings: SqlSettings, functions: bool) -> str:
    """
    The query that C{table}, C{select_field}, C{where_field} and C{additional_conditions} make, or
    C{select_function}.

    @param functions: whether this kind of table has C{select_function}.
    @raise ConfigError: one of them is missing.
    """
    function = settings.text("select_function") if functions else ""
    if function:
        return f"SELECT {function}('%s')"
    if not settings.text("table"):
        raise ConfigError(f'{settings.where}: query is not set; add a line "query = SELECT ..."')
    table, field, where = (settings.needed(name) for name in ("table", "select_field", "where_field"))
    return f"SELECT {field} FROM {table} WHERE {where} = '%s' {settings.text('additional_conditions')}"


@frozen(slots=True)
class Question:
    """
    How a key becomes a query and rows a value.

    @ivar query: its text.
    @ivar result: how each value is written.
    @ivar limit: C{expansion_limit}.
    @ivar domains: C{domain}.
    """

    query: Template
    result: Template
    limit: int
    domains: DomainFilter

    @classmethod
    def of(cls, settings: SqlSettings, context: TableContext, functions: bool = False) -> Question:
        """
        @raise ConfigError: the settings make no sense.
        """
        query = settings.text("query") or legacy_query(settings, functions)
        return cls(
            query=Template(query, settings.where, "query"),
            result=Template(settings.needed("result_format", "%s"), settings.where, "result"),
            limit=max(0, settings.number("expansion_limit")),
            domains=DomainFilter(settings.text("domain"), settings.where, context.open),
        )


class Workers:
    """
    A few threads for one table.

    @param in_thread: runs a call in a thread; gives a Deferred.
    @param limits: how many at a time, how many may wait and how long.
    @param table: C{type:name}, for messages.
    @param reactor: the time; L{None}: nobody can wait.
    """

    def __init__(
        self, in_thread: Callable[..., Deferred[Any]], limits: ServerLimits, table: str, reactor: Any
    ) -> None:
        self._in_thread = in_thread
        self._limits = limits
        self._table = table
        self._reactor = reactor
        self._semaphore = DeferredSemaphore(limits.connections)
        self._waiting: set[Deferred[Any]] = set()
        self._closed = False

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """
        @return: what the call gives.
        @raise TableError: it does, or there are too many, or it takes too long, or the table was closed.
        """
        if self._closed:
            raise TableError(f"{self._table}: is closed")
        if len(self._waiting) >= self._limits.connections + self._limits.queue:
            raise TableError(
                f"{self._table}: more than table_queue_limit = {self._limits.queue} lookups wait"
            )
        answer: Deferred[Any] = Deferred()

        def start() -> Deferred[Any]:
            # Whoever has given up in the queue does not take a thread.
            return succeed(None) if answer.called else self._in_thread(call, *arguments)

        self._semaphore.run(start).addBoth(self._answered, answer)
        if answer.called:
            return await answer
        self._waiting.add(answer)
        if self._reactor is not None:
            answer.addTimeout(self._limits.timeout, self._reactor)
        try:
            return await answer
        except CancelledError:
            raise TableError(f"{self._table}: was closed while a lookup was under way") from None
        except TimeoutError:
            raise TableError(f"{self._table}: no answer after {self._limits.timeout:g}s") from None
        finally:
            self._waiting.discard(answer)

    @staticmethod
    def _answered(result: Any, answer: Deferred[Any]) -> None:
        if not answer.called:
            (answer.errback if isinstance(result, Failure) else answer.callback)(result)

    def close(self) -> None:
        """
        Fail all lookups. Calls that are under way in a thread end there.
        """
        self._closed = True
        for answer in list(self._waiting):
            answer.cancel()


@implementer(ILookupTable)
class SqlTable(ABC):
    """
    A table that asks an SQL database.

    @param settings: where it was configured.
    @param context: what it may use.
    @param question: the query.
    @param limits: what it may take.
    """

    fixed_keys = True
    immediate = False
    stable = False

    def __init__(
        self, settings: SqlSettings, context: TableContext, question: Question, limits: ServerLimits
    ) -> None:
        self.name = settings.table
        self.sources = settings.sources
        self._question = question
        self._workers = Workers(context.in_thread, limits, self.name, context.reactor)

    @abstractmethod
    def ask(self, key: Parts, query: Template) -> Rows | None:
        """
        Called in a thread.

        @return: the rows, or L{None} if the key does not have what the query asks for.
        @raise TableError: the database cannot say.
        """

    def lookup(self, key: bytes) -> bytes | Deferred[bytes | None] | None:
        """See L{ILookupTable}."""
        return now_or_later(self._lookup(key))

    async def _lookup(self, key: bytes) -> bytes | None:
        if not key or not _is_text(key):
            return None
        parts = Parts.of(fold(key))
        if not self._question.result.suits(parts) or not await self._question.domains.takes(parts):
            return None
        rows = await self._workers.run(self.ask, parts, self._question.query)
        if rows is None:
            return None
        return join_values(rows, parts, self._question.result, self._question.limit, self.name)

    def close(self) -> None:
        """See L{ILookupTable}."""
        self._workers.close()


def _is_text(key: bytes) -> bool:
    """
    @return: whether a database can have the key at all.
    """
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in key
