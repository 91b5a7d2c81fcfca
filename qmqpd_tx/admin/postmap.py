"""
C{qmqpd-tx postmap}: look up in tables, and build and change those in indexed files.

Takes C{type:name}; C{hash}, C{btree}, C{lmdb} and C{cdb} are built from the text file C{name}. Builds are
complete or leave the old file as it is. As root it does not do with the rights of root what the owner of the
text file could not do, unless C{-o} says so. The exit status is Postfix's: 0 found or done, 1 not found or
failed, with one line on standard error that says why. Tables on servers are asked through a reactor of the
command's own.

Answers to: postmap(1).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import click
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from qmqpd_tx.admin.context import Context, Exit, FatalError, default_config_dir
from qmqpd_tx.admin.mapfile import message_keys, read_entries, shown
from qmqpd_tx.config.expression import expand
from qmqpd_tx.config.model import Config
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.building import Draft
from qmqpd_tx.tables.indexed import Ends, IndexedTable
from qmqpd_tx.tables.interface import ILookupTable, ISequenceTable, ITableBuilder, ITableWriter
from qmqpd_tx.tables.keeper import Tables
from qmqpd_tx.tables.limits import seconds
from qmqpd_tx.tables.registry import find_kind, supported_types
from qmqpd_tx.tables.words import encode, fold

FILES = frozenset({"btree", "cdb", "cidr", "hash", "lmdb", "pcre", "regexp", "texthash"})
"""The kinds whose name is a path, which on the command line may be relative."""


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


def _fatal(message: object) -> FatalError:
    return FatalError("postmap", str(message))


def _warn(message: str) -> None:
    click.echo(f"postmap: warning: {message}", err=True)


@provider(ILogObserver)
def _observe(event: Any) -> None:
    """Show what tables warn of."""
    if event.get("log_level", LogLevel.info) >= LogLevel.warn:
        _warn(shown(encode(formatEvent(event)), 1000))


@click.command("postmap", context_settings={"help_option_names": ["--help"]})
@click.option("-b", "body", is_flag=True, help='With "-q -": the lines of a message body are the keys.')
@click.option("-c", "config_dir", metavar="CONFIG_DIR", help="The folder of main.cf.")
@click.option("-d", "delete", metavar="KEY", help="Remove an entry; - reads keys from standard input.")
@click.option("-f", "exact", is_flag=True, help="Do not fold keys to lower case.")
@click.option("-F", "files", is_flag=True, help="Values are names of files whose content is meant.")
@click.option("-h", "headers", is_flag=True, help='With "-q -": the headers of a message are the keys.')
@click.option("-i", "incremental", is_flag=True, help="Add entries from standard input.")
@click.option("-m", "mime", is_flag=True, help="(not here) With -b and -h: look into MIME.")
@click.option("-N", "nulls", is_flag=True, help="Keys and values end with a NUL.")
@click.option("-n", "no_nulls", is_flag=True, help="Keys and values do not end with a NUL.")
@click.option("-o", "keep_root", is_flag=True, help="Use the rights of root also for somebody else's file.")
@click.option("-p", "default_mode", is_flag=True, help="New files get mode 0644, not that of the text.")
@click.option("-q", "query", metavar="KEY", help="Look up; - reads keys from standard input.")
@click.option("-r", "replace", is_flag=True, help="Replace existing entries without a warning.")
@click.option("-s", "sequence", is_flag=True, help="List all entries of the first table.")
@click.option("-u", "no_utf8", is_flag=True, help="Do not ask for UTF-8.")
@click.option("-U", "force_utf8", is_flag=True, help="Ask for UTF-8 also with -b and -h.")
@click.option("-v", "verbose", is_flag=True, help="(not here) More logging.")
@click.option("-w", "skip", is_flag=True, help="Leave existing entries as they are without a warning.")
@click.argument("tables", nargs=-1, metavar="[TYPE:]NAME...")
@click.pass_context
def postmap_command(
    ctx: click.Context,
    body: bool,
    config_dir: str | None,
    delete: str | None,
    exact: bool,
    files: bool,
    headers: bool,
    incremental: bool,
    mime: bool,
    nulls: bool,
    no_nulls: bool,
    keep_root: bool,
    default_mode: bool,
    query: str | None,
    replace: bool,
    sequence: bool,
    no_utf8: bool,
    force_utf8: bool,
    verbose: bool,
    skip: bool,
    tables: Sequence[str],
) -> int:
    """Look up in Postfix tables (-q, -s), or build hash, btree, lmdb and cdb files, as Postfix's postmap."""
    if mime:
        raise _fatal("-m: MIME is not looked into here; leave -m out, and give the part's headers with -h")
    if verbose:
        raise _fatal("-v: there is no verbose mode; leave -v out")
    if sum((query is not None, delete is not None, sequence)) > 1:
        raise _fatal("specify only one of -s -q or -d")
    if (body or headers) and query != "-":
        raise _fatal('specify -b -h or -m only with "-q -"')
    if not tables:
        raise _fatal("usage: postmap [-bfFhinNoprsuUw] [-c config_dir] [-d key] [-q key] [map_type:]file...")
    config = _config(ctx, config_dir)
    utf8 = not no_utf8 and config.boolean("smtputf8_enable") and (force_utf8 or not (body or headers))
    options = Options(
        body=body,
        files=files,
        fold=not exact,
        headers=headers,
        incremental=incremental,
        keep_root=keep_root,
        default_mode=default_mode,
        replace=replace and not skip,
        skip=skip,
        utf8=utf8,
        ends=Ends.NUL if nulls else Ends.NOTHING if no_nulls else Ends.EITHER,
    )
    command = _Command(config, options)
    globalLogPublisher.addObserver(_observe)
    try:
        if query is not None:
            return command.query(query, tables)
        if delete is not None:
            return command.delete(delete, tables)
        if sequence:
            return command.list(tables[0])
        for table in tables:
            command.build(table)
    except (ConfigError, TableError) as error:
        raise _fatal(error) from error
    finally:
        command.close()
        globalLogPublisher.removeObserver(_observe)
    return Exit.OK


def _config(ctx: click.Context, config_dir: str | None) -> Config:
    found = ctx.obj if isinstance(ctx.obj, Context) else Context(Path(default_config_dir()))
    return cast(Config, (Context(Path(config_dir)) if config_dir else found).config())


class _Command:
    """One run."""

    def __init__(self, config: Config, options: Options) -> None:
        self._config = config
        self._options = options
        self._reactor: Any = None
        self._tables: Tables | None = None

    def close(self) -> None:
        """Let go of all tables."""
        if self._tables is not None:
            self._tables.close()

    def _setting(self, name: str) -> str:
        try:
            return self._config.string(name)
        except KeyError:
            raw = self._config.lookup(name)
            if raw is None:
                raise ConfigError(f"{name}: is not set in {self._config.file}") from None
            return expand(raw, self._config.lookup)

    def _full(self, table: str) -> tuple[str, str, str]:
        """
        @return: the type, the name as given, and as an absolute path if it is a path.
        """
        kind, colon, name = table.partition(":")
        if not colon:
            kind, name = self._config.string("default_database_type"), table
        if not kind or not name:
            raise _fatal(f'open dictionary: expecting "type:name" form instead of "{table}"')
        return kind, name, self._path(kind, name)

    def _path(self, kind: str, name: str) -> str:
        if kind == "proxy":
            inner, colon, rest = name.partition(":")
            return f"{inner}{colon}{self._path(inner, rest)}"
        if kind in FILES or (kind in ("sqlite", "pgsql") and name.startswith(".")):
            return os.path.abspath(name)
        return name

    def _open(self, table: str) -> ILookupTable:
        kind, _, path = self._full(table)
        if self._tables is None:
            self._reactor = EPollReactor()  # type: ignore[no-untyped-call]
            self._tables = Tables(reactor=self._reactor, setting=self._setting)
        return self._tables.open(f"{kind}:{path}", "postmap")

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
        output = click.get_binary_stream("stdout")
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
                _warn(f'{table.name}: non-UTF-8 key "{shown(key)}": malformed UTF-8 or invalid codepoint')
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
            raise _fatal(f"{table.name}: -f is for hash, btree, lmdb and cdb; leave it out")
        return table.lookup(key)

    def _value(self, table: ILookupTable, key: bytes, value: bytes) -> bytes:
        if self._options.files:
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error:
                raise _fatal(
                    f"{table.name}: key {shown(key)}: the value is not base64; leave -F out"
                ) from None
        return value

    def list(self, name: str) -> int:
        """
        C{-s}.

        @return: the exit status.
        """
        table = self._open(name)
        if not ISequenceTable.providedBy(table):
            raise _fatal(f"table {name}: sequence operation is not supported")
        output = click.get_binary_stream("stdout")
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
            raise _fatal(
                f"unsupported dictionary type: {kind} (in {table}); "
                f"supported are: {', '.join(supported_types())}"
            )
        if not ITableBuilder.providedBy(found):
            raise _fatal(f"unsupported dictionary type: {kind} does not support {doing}.")
        return cast(ITableBuilder, found), name, path

    def _draft(self, source: os.stat_result | None) -> Draft:
        timeout = seconds(self._setting, "table_lock_timeout")
        if source is None:
            return Draft(self._setting, ends=self._options.ends, timeout=timeout)
        mode = 0o644 if self._options.default_mode else 0o600 | (stat.S_IMODE(source.st_mode) & 0o044)
        return Draft(self._setting, mode, source.st_gid, self._options.ends, timeout)

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
            raise _fatal(f"open {name}: {error.strerror}") from None
        with stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise _fatal(f"open {name}: Is a directory")
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
            for _, key, value in read_entries(stream.read(), source, options.utf8, options.files, _warn):
                folded = options.folded(key)
                if not options.replace and writer.has(folded):
                    if not options.skip:
                        _warn(f'{builder.label(name)}: duplicate entry: "{shown(folded)}"')
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
