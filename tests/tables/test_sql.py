"""
Tables in databases: C{sqlite} and C{pgsql}. What their queries expand to is compared with Postfix's in the
interop tests.
"""

from __future__ import annotations

import atexit
import functools
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs, formatEvent
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.keeper import Tables
from qmqpd_tx.tables.limits import DEFAULTS
from qmqpd_tx.tables.query import Parts, Template
from tests.peers import free_port
from tests.peers_postgres import PrivatePostgres


@functools.cache
def shared_server() -> PrivatePostgres:
    """
    @return: one for all tests: it takes seconds to make.
    """
    server = PrivatePostgres()
    atexit.register(server.stop)
    server.start()
    server.execute("create table t (k text, v text); insert into t values ('foo', 'bar'), ('\u20ac', 'e');")
    return server


class TemplateTests(SynchronousTestCase):
    """C{%} expansions."""

    @given(st.binary(max_size=40))
    def test_quoted(self, key: bytes) -> None:
        """Everything that comes from a key is quoted."""
        template = Template("<%s|%u|%d|%1>", "x", "query")
        parts = Parts.of(key)
        text = template.expand(parts, parts, lambda part: b"Q")
        self.assertIn(text, (None, b"<Q|Q|Q|Q>"))


class Case(TestCase):
    """Tables with threads."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        pool = ThreadPool(0, 10, "tables")
        pool.start()
        self.addCleanup(pool.stop)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.settings = dict(DEFAULTS)
        self.tables = Tables(
            reactor=self.reactor,
            in_thread=lambda call, *arguments: deferToThreadPool(self.reactor, pool, call, *arguments),
            setting=self.setting,
        )
        self.addCleanup(self.tables.close)

    def setting(self, name: str) -> str:
        """
        As the configuration gives it.
        """
        return self.settings[name]

    def config(self, text: str, name: str = "x.cf") -> str:
        """
        @return: the name of a file with this text.
        """
        (self.folder / name).write_text(text)
        return str(self.folder / name)


class SqliteTests(Case):
    """C{sqlite:}."""

    def setUp(self) -> None:
        super().setUp()
        with sqlite3.connect(self.folder / "data") as database:
            database.execute("create table t (k text, v text)")
            database.executemany("insert into t values (?, ?)", [("foo", "bar"), ("m", "1"), ("m", "2")])
        database.close()
        self.text = f"dbpath = {self.folder}/data\nquery = select v from t where k = '%s'\n"

    async def test_lookup(self) -> None:
        """Answers come from a thread; many at a time come as well."""
        table = self.tables.open(f"sqlite:{self.config(self.text)}", "p")
        self.assertEqual((table.immediate, table.stable, table.fixed_keys), (False, False, True))
        self.assertEqual(await table.lookup(b"FOO"), b"bar")
        values = await gatherResults([table.lookup(b"m") for _ in range(100)])
        self.assertEqual(set(values), {b"1,2"})
        self.assertIsNone(await table.lookup(b"' or 1=1 --"))
        for key in (b"", b"\xff", b"a\0b"):
            self.assertIsNone(table.lookup(key))

    async def test_negative_limit(self) -> None:
        """An C{expansion_limit} below zero is none, as with 0."""
        for limit in ("-1", "0", "+2"):
            table = self.tables.open(f"sqlite:{self.config(self.text + f'expansion_limit = {limit}')}", "p")
            self.assertEqual(await table.lookup(b"m"), b"1,2")
            self.tables.renew()
            self.tables.keep()

    async def test_empty_domain(self) -> None:
        """An address whose domain is empty has one; C{domain} is asked about it."""
        text = f"dbpath = {self.folder}/data\nquery = select '<%s>'\ndomain = static:x\n"
        table = self.tables.open(f"sqlite:{self.config(text)}", "p")
        self.assertEqual(await table.lookup(b"user@"), b"<user@>")
        for key in (b"@", b"@x", b"user"):
            self.assertIsNone(table.lookup(key))

    async def test_empty_value(self) -> None:
        """A value that is empty is left out, with a warning; one that is NULL without."""
        text = f"dbpath = {self.folder}/data\nquery = select 'a' union all select '' union all select null\n"
        table = self.tables.open(f"sqlite:{self.config(text)}", "p")
        with capturedLogs() as events:
            self.assertEqual(await table.lookup(b"E"), b"a")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f'table "{table.name}": empty lookup result for: "e" -- ignored'],
        )

    async def test_failures(self) -> None:
        """A database that cannot answer is an error."""
        for text, reason in (
            (f"dbpath = {self.folder}/none\nquery = select 1\n", "unable to open"),
            (f"dbpath = {self.folder}/data\nquery = select nonsense\n", "no such column"),
            (f"dbpath = {self.folder}/data\nquery = select 1; select 2\n", "one statement"),
            (f"dbpath = {self.folder}/data\nquery = delete from t\n", "readonly"),
            (self.text + "expansion_limit = 1\n", "expansion_limit = 1"),
        ):
            table = self.tables.open(f"sqlite:{self.config(text)}", "p")
            error = await self.assertFailure(table.lookup(b"m"), TableError)
            self.assertIn(reason, str(error))
            self.tables.renew()
            self.tables.keep()
        (self.folder / "x.cf").write_bytes(b"dbpath = /no/\xff\nquery = select '\xff'\n")
        await self.assertFailure(self.tables.open(f"sqlite:{self.folder}/x.cf", "p").lookup(b"m"), TableError)

    async def test_bounded(self) -> None:
        """More than may wait are refused; closing ends the others."""
        self.settings["table_queue_limit"] = "2"
        path = self.config(
            f"dbpath = {self.folder}/data\nquery = with recursive c(x) as "
            "(select 1 union all select x + 1 from c) select count(x) from c\n"
        )
        table = self.tables.open(f"sqlite:{path}", "p")
        waiting: list[Deferred[Any]] = [table.lookup(b"k") for _ in range(3)]
        error = self.assertRaises(TableError, table.lookup, b"k")
        self.assertIn("table_queue_limit = 2", str(error))
        table.close()
        for one in waiting:
            await self.assertFailure(one, TableError)

    async def test_in_main_cf(self) -> None:
        """A name without a slash means parameters."""
        self.settings["mine_dbpath"] = f"{self.folder}/data"
        self.settings["mine_query"] = "select v from t where k = '%s'"
        self.setting = lambda name: self.settings[name]  # type: ignore[method-assign]
        self.assertEqual(await self.tables.open("sqlite:mine", "p").lookup(b"foo"), b"bar")

    def test_bad_configuration(self) -> None:
        """Errors name the file, the line and what to do."""
        for text, reason in (
            ("query = select 1\n", 'dbpath is not set; add a line "dbpath = ..."'),
            ("dbpath = rel\nquery = select 1\n", "must be absolute"),
            (f"dbpath = {self.folder}/data\n", "query is not set"),
            (f"dbpath = {self.folder}/data\ntable = t\n", "select_field is not set"),
            ("dbpath\n", "line 1: missing '='"),
            (" dbpath = x\n", "line 1: missing '='"),
            (self.text + "expansion_limit = -1x\n", "expansion_limit = -1x"),
            (self.text + "expansion_limit = -99999999999\n", "expansion_limit = -99999999999"),
            (self.text + "result_format = %q\n", "Invalid result template: %q"),
            (self.text + "domain = nosuch:x\n", "unsupported dictionary type"),
        ):
            path = self.config(text)
            error = self.assertRaises(ConfigError, self.tables.open, f"sqlite:{path}", "p")
            self.assertIn(reason, str(error))
            if "domain" not in text:
                self.assertIn(path, str(error))
        error = self.assertRaises(ConfigError, self.tables.open, "sqlite:/no/such", "p")
        self.assertIn("cannot read /no/such", str(error))


class PgsqlHostTests(Case):
    """C{pgsql:}, where nobody is."""

    async def test_nobody_there(self) -> None:
        """A lookup fails, and says which of the servers has which trouble."""
        # A short path, wherever this checkout is: the name of a socket has at most 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-"))
        self.addCleanup(folder.rmdir)
        missing = f"unix:{folder}/.s.PGSQL.5432"
        hosts = f"{missing} postgresql://[bad/x 127.0.0.1:{free_port()}"
        text = f"hosts = {hosts}\npassword = p\udcff\ndbname = d\nquery = select 1\n"
        (self.folder / "x.cf").write_bytes(text.encode("utf-8", "surrogateescape"))
        table = self.tables.open(f"pgsql:{self.folder}/x.cf", "p")
        error = str(await self.assertFailure(table.lookup(b"k"), TableError))
        for host in hosts.split():
            self.assertIn(host.removeprefix("postgresql://"), error)
        self.assertIn("No such file or directory", error)
        self.assertIn("Connection refused", error)


class PgsqlTests(Case):
    """C{pgsql:}."""

    def setUp(self) -> None:
        super().setUp()
        self.server = shared_server()

    def open(self, hosts: str, query: str = "select v from t where k = '%s'") -> Any:
        """
        Open a table.
        """
        text = f"hosts = {hosts}\nuser = mail\ndbname = postgres\nquery = {query}\n"
        return self.tables.open(f"pgsql:{self.config(text)}", "p")

    async def test_lookup(self) -> None:
        """All ways to name a server; UTF-8; quoting; what is wrong with a query."""
        port = self.server.port
        for hosts in (
            f"127.0.0.1:{port}",
            f"inet:127.0.0.1:{port}",
            f"unix:{self.server.folder}/.s.PGSQL.{port}",
            f"postgresql://mail@127.0.0.1:{port}/postgres",
            f"127.0.0.1:{free_port()} 127.0.0.1:{port}",
        ):
            table = self.open(hosts)
            self.assertEqual(await table.lookup(b"Foo"), b"bar", hosts)
            self.assertIsNone(await table.lookup(b"zz"))
            self.assertIsNone(await table.lookup(b"' or '1'='1"))
            self.assertIsNone(await table.lookup(b"\\' or 1=1 --"))
            self.assertEqual(await table.lookup("\u20ac".encode()), b"e")
            self.tables.renew()
            self.tables.keep()
        table = self.open(f"127.0.0.1:{port}", "select nothing")
        error = await self.assertFailure(table.lookup(b"k"), TableError)
        self.assertIn('column "nothing" does not exist', str(error))

    async def test_many(self) -> None:
        """Many at a time go over few connections."""
        # Connections of the tests before may still be about to go.
        query = "select count(*) from pg_stat_activity where query ~ 'by few'"
        table = self.open(f"127.0.0.1:{self.server.port}", query)
        counts = await gatherResults([table.lookup(b"%d" % number) for number in range(60)])
        self.assertLessEqual(max(map(int, counts)), 5)

    async def test_restarted(self) -> None:
        """A server that is gone is an error; when it is back, so is the table."""
        table = self.open(f"127.0.0.1:{self.server.port}")
        self.assertEqual(await table.lookup(b"foo"), b"bar")
        self.server.halt()
        error = await self.assertFailure(table.lookup(b"foo"), TableError)
        self.assertIn(f"127.0.0.1:{self.server.port}", str(error))
        self.server.run()
        self.assertEqual(await table.lookup(b"foo"), b"bar")

    async def test_silent(self) -> None:
        """A query that takes too long is an error, and its thread ends, too."""
        self.settings["table_request_timeout"] = "1s"
        table = self.open(f"127.0.0.1:{self.server.port}", "select pg_sleep(100)")
        before = threading.active_count()
        await self.assertFailure(table.lookup(b"foo"), TableError)
        self.assertLessEqual(threading.active_count(), before + 1)

    def test_bad_configuration(self) -> None:
        """A database is needed."""
        path = self.config("hosts = x\nquery = select 1\n")
        error = self.assertRaises(ConfigError, self.tables.open, f"pgsql:{path}", "p")
        self.assertIn("dbname is not set", str(error))
