"""
What C{qmqpd-tx postmap} does, once its command line is read.

Takes L{Options} and table names; looks up, lists, builds and changes, and gives the exit status. Builds are
complete or leave the old file as it is; as root they are done with the rights of the text file's owner. Fails
with L{FatalError}, L{ConfigError} and L{TableError<qmqpd_tx.interfaces.TableError>}. Answers to postmap(1).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

import click
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from qmqpd_tx.admin.context import Exit, FatalError
from qmqpd_tx.admin.mapfile import message_keys, read_entries
from qmqpd_tx.config.model import Config
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.tables.building import Draft
from qmqpd_tx.tables.indexed import Ends, IndexedTable
from qmqpd_tx.tables.interface import ILookupTable, ISequenceTable, ITableBuilder, ITableWriter
from qmqpd_tx.tables.keeper import Tables
from qmqpd_tx.tables.limits import seconds
from qmqpd_tx.tables.registry import find_kind, supported_types
from qmqpd_tx.tables.wording import printable
from qmqpd_tx.tables.words import fold

FILES = frozenset({"btree", "cdb", "cidr", "hash", "lmdb", "pcre", "regexp", "texthash"})
"""The kinds whose name is a path, which on the command line may be relative."""

RULES = frozenset({"cidr", "pcre", "regexp"})
"""The kinds whose name may be the content of the table, in braces."""


@frozen(slots=True, kw_only=True)
class Options:
    """
    What the letters of the command line say.

    @ivar ends: C{-n} and C{-N}.
    """

    body: bool
    files: bool
    fold: bool
    headers: bool
    incremental: bool
    keep_root: bool
    default_mode: bool
    replace: bool
    skip: bool
    utf8: bool
    ends: Ends

    def folded(self, key: bytes) -> bytes:
        """
        @return: a key as it is to be stored.
        """
        if not self.fold:
            return key
        return fold(key) if self.utf8 else key.lower()


def fatal(message: object) -> FatalError:
    """
    @return: the end of the command.
    """
    return FatalError("postmap", str(message))


def warn(message: str) -> None:
    """
    Say something on standard error, and go on.
    """
    click.echo(f"postmap: warning: {message}", err=True)


class TableCommand:
    """
    One run.

    @param config: the configuration.
    @param options: what the command line says.
    """

    def __init__(self, config: Config, options: Options) -> None:
        self._config = config
        self._options = options
        self._reactor: Any = None
        self._tables: Tables | None = None

    def close(self) -> None:
        """Let go of all tables."""
        if self._tables is not None:
            self._tables.close()

    def _full(self, table: str) -> tuple[str, str, str]:
        """
        @return: the type, the name as given, and as an absolute path if it is a path.
        """
        kind, colon, name = table.partition(":")
        if not colon:
            kind, name = self._config.string("default_database_type"), table
        if not kind or not name:
            raise fatal(f'open dictionary: expecting "type:name" form instead of "{table}"')
        return kind, name, self._path(kind, name)

    def _path(self, kind: str, name: str) -> str:
        if kind == "proxy":
            inner, colon, rest = name.partition(":")
            return f"{inner}{colon}{self._path(inner, rest)}"
        if kind in RULES and name.startswith("{"):
            return name
        if kind in FILES or (kind in ("sqlite", "pgsql") and name.startswith(".")):
            return os.path.abspath(name)
        return name

    def _open(self, table: str) -> ILookupTable:
        kind, _, path = self._full(table)
        if self._tables is None:
            self._reactor = EPollReactor()  # type: ignore[no-untyped-call]
            self._tables = Tables(reactor=self._reactor, setting=self._setting)
        return self._tables.open(f"{kind}:{path}", "postmap")

    def _setting(self, name: str) -> str:
        """
        @return: what is configured; but whether to ask for UTF-8 the command line says.
        """
        if name == "smtputf8_enable":
            return "yes" if self._options.utf8 else "no"
        return self._config.setting(name)

    # --- looking up ---

    def query(self, key: str, tables: Sequence[str]) -> int:
        """
        C{-q}.

        @return: the exit status.
        """
        data = sys.stdin.buffer.read() if key == "-" else b""
        done = now_or_later(self._query(os.fsencode(key), data, tables))
        return cast(int, self._wait(done) if isinstance(done, Deferred) else done)

    def _wait(self, deferred: Deferred[Any]) -> Any:
        """
        Run the reactor until there is a result.
        """
        results: list[Any] = []

        def ended(result: Any) -> None:
            results.append(result)
            self._reactor.callLater(0, self._reactor.stop)

        # Not before it runs: it could not be stopped then.
        self._reactor.callWhenRunning(deferred.addBoth, ended)
        self._reactor.run(installSignalHandlers=False)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    async def _query(self, key: bytes, data: bytes, tables: Sequence[str]) -> int:
        output = sys.stdout.buffer
        if key != b"-":
            value = await self._find(key, tables)
            if value is None:
                return Exit.FAILED
            _write(output, value)
            return Exit.OK
        status = Exit.FAILED
        for each in self._keys(data):
            value = await self._find(each, tables)
            if value is not None:
                status = Exit.OK
                _write(output, each + b"\t" + value)
        return status

    def _keys(self, data: bytes) -> Iterator[bytes]:
        if self._options.headers or self._options.body:
            return message_keys(data, self._options.headers, self._options.body)
        return _lines(data)

    async def _find(self, key: bytes, tables: Sequence[str]) -> bytes | None:
        for name in tables:
            table = self._open(name)
            if self._options.utf8 and not _is_utf8(key):
                warn(f'{table.name}: non-UTF-8 key "{printable(key)}": malformed UTF-8 or invalid codepoint')
                continue
            value = self._lookup(table, key)
            if isinstance(value, Deferred):
                value = await value
            if value is not None:
                return self._value(table, key, cast(bytes, value))
        return None

    def _lookup(self, table: ILookupTable, key: bytes) -> Any:
        if isinstance(table, IndexedTable):
            return table.find(self._options.folded(key), self._options.ends)
        if table.fixed_keys and not self._options.fold:
            raise fatal(f"{table.name}: -f is for hash, btree, lmdb and cdb; leave it out")
        return table.lookup(key)

    def _value(self, table: ILookupTable, key: bytes, value: bytes) -> bytes:
        if self._options.files:
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error:
                raise fatal(
                    f"{table.name}: key {printable(key)}: the value is not base64; leave -F out"
                ) from None
        return value

    def walk(self, name: str) -> int:
        """
        C{-s}.

        @return: the exit status.
        """
        table = self._open(name)
        if not ISequenceTable.providedBy(table):
            raise fatal(f"table {name}: sequence operation is not supported")
        output = sys.stdout.buffer
        for key, value in cast(Any, table).entries():
            _write(output, key + b"\t" + self._value(table, key, value))
        return Exit.OK

    # --- changing ---

    def _builder(self, table: str, doing: str) -> tuple[ITableBuilder, str, str]:
        """
        @param doing: what it does not support, if it is of another kind.
        @return: what builds, and the name as given and in full.
        """
        kind, name, path = self._full(table)
        found = find_kind(kind)
        if found is None:
            raise fatal(
                f"unsupported dictionary type: {kind} (in {table}); "
                f"supported are: {', '.join(supported_types())}"
            )
        if not ITableBuilder.providedBy(found):
            raise fatal(f"unsupported dictionary type: {kind} does not support {doing}.")
        return cast(ITableBuilder, found), name, path

    def _draft(self, source: os.stat_result | None) -> Draft:
        timeout = seconds(self._config.setting, "table_lock_timeout")
        if source is None:
            return Draft(self._config.setting, ends=self._options.ends, timeout=timeout)
        mode = 0o644 if self._options.default_mode else 0o600 | (stat.S_IMODE(source.st_mode) & 0o044)
        return Draft(self._config.setting, mode, source.st_gid, self._options.ends, timeout)

    def build(self, table: str) -> None:
        """
        Build one file, or with C{-i} add to it.
        """
        builder, name, path = self._builder(table, "bulk-mode creation")
        if self._options.incremental:
            self._fill(builder.edit(path, self._draft(None), True), builder, name, sys.stdin.buffer, "stdin")
            return
        try:
            stream = open(path, "rb")  # noqa: SIM115 (the error of opening has a text of its own)
        except OSError as error:
            raise fatal(f"open {name}: {error.strerror}") from None
        with stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise fatal(f"open {name}: Is a directory")
            with self._owner(status):
                self._fill(builder.create(path, self._draft(status)), builder, name, stream, name)

    def _fill(
        self, writer: ITableWriter, builder: ITableBuilder, name: str, stream: BinaryIO, source: str
    ) -> None:
        """
        Add entries, and commit them.
        """
        options = self._options
        try:
            for _, key, value in read_entries(stream.read(), source, options.utf8, options.files, warn):
                folded = options.folded(key)
                if not options.replace and writer.has(folded):
                    if not options.skip:
                        warn(f'{builder.label(name)}: duplicate entry: "{printable(folded)}"')
                else:
                    writer.put(folded, value)
        except BaseException:
            writer.abort()
            raise
        writer.commit()

    @contextlib.contextmanager
    def _owner(self, status: os.stat_result) -> Iterator[None]:
        """
        Do something as the owner of a file, if we are root and he is not.
        """
        if self._options.keep_root or os.geteuid() != 0 or status.st_uid == 0:
            yield
            return
        groups, group = os.getgroups(), os.getegid()
        os.setgroups([status.st_gid])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(group)
            os.setgroups(groups)

    def delete(self, key: str, tables: Sequence[str]) -> int:
        """
        C{-d}.

        @return: the exit status.
        """
        keys = list(_lines(sys.stdin.buffer.read())) if key == "-" else [os.fsencode(key)]
        found = False
        for table in tables:
            builder, _, path = self._builder(table, "changes; it is read-only")
            if self._delete(builder.edit(path, self._draft(None)), keys):
                found = True
        return Exit.OK if found else Exit.FAILED

    def _delete(self, writer: ITableWriter, keys: Sequence[bytes]) -> bool:
        try:
            found = [key for key in keys if writer.delete(self._options.folded(key))]
        except BaseException:
            writer.abort()
            raise
        if found:
            writer.commit()
        else:
            writer.abort()
        return bool(found)


def _lines(data: bytes) -> Iterator[bytes]:
    return (line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n") if data)


def _write(output: BinaryIO, line: bytes) -> None:
    output.write(line + b"\n")
    output.flush()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
