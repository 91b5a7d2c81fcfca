"""
Tables on servers: C{tcp} and C{socketmap}, against real servers on loopback.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.netstring import encode
from qmqpd_tx.tables.keeper import Tables
from qmqpd_tx.tables.limits import DEFAULTS
from qmqpd_tx.tables.servers import quote_tcp, unquote_tcp


class Talker(Protocol):
    """
    Answers each piece that comes with what its server's function gives.
    """

    factory: Talking

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0

    def dataReceived(self, data: bytes) -> None:
        self.factory.requests.append(data)
        reply = self.factory.answer(data)
        if reply is None:
            self.transport.loseConnection()  # type: ignore[union-attr]
        else:
            self.transport.write(reply)  # type: ignore[union-attr]


class Talking(Factory):
    """
    @ivar answer: gives the reply to a request; L{None} closes the connection.
    """

    protocol = Talker
    noisy = False

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes | None] = lambda data: b""
        self.requests: list[bytes] = []
        self.connections: list[Talker] = []


class Case(TestCase):
    """A server and open tables."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = Talking()
        port = self.reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.place = f"127.0.0.1:{port.getHost().port}"
        self.settings = dict(DEFAULTS)
        self.tables = Tables(reactor=self.reactor, setting=self.settings.__getitem__)
        self.addCleanup(self.end)

    async def end(self) -> None:
        """
        Close the tables, and wait until the server has noticed.
        """
        self.tables.close()
        while any(each.connected for each in self.server.connections):
            await deferLater(self.reactor, 0.005)

    async def lookup(self, table: str, key: bytes = b"k") -> bytes | None:
        """
        Look up.
        """
        return await self.tables.open(table, "p").lookup(key)  # type: ignore[no-any-return]

    async def fails(self, table: str, key: bytes = b"k") -> str:
        """
        @return: why a lookup fails.
        """
        try:
            value = await self.lookup(table, key)
        except TableError as error:
            return str(error)
        raise AssertionError(f"{value!r}, no failure")


class TcpTests(Case):
    """C{tcp:}."""

    async def test_replies(self) -> None:
        """What each reply means, as C{postmap -q} shows for Postfix."""
        table = f"tcp:{self.place}"
        for reply, value in (
            (b"200 foo%20bar\n", b"foo bar"),
            (b"200 foo bar\n", b"foo bar"),
            (b"200 %c3%A9\n", b"\xc3\xa9"),
            (b"200 x\r\n", b"x"),
            (b"200 \n", None),
            (b"500 nope\n", None),
            (b"200 " + b"x" * 4091 + b"\n", b"x" * 4091),
        ):
            self.server.answer = lambda data, reply=reply: reply  # type: ignore[misc]
            self.assertEqual(await self.lookup(table), value, reply)
        for reply, reason in (
            (b"400 later\n", "the server says: later"),
            (b"300 what\n", "bad status code"),
            (b"200 foo%zz\n", "malformed reply: 200 foo%zz"),
            (b"500 %zz\n", "malformed reply"),
            (b"200 %4\n", "malformed reply"),
            (b"200\n", "malformed reply"),
            (b"2000 x\n", "malformed reply"),
            (b"\n", "malformed reply"),
            (b"200 a\n200 b\n", "two replies"),
            (b"200 " + b"x" * 4092 + b"\n", "tcp_table_reply_size_limit = 4096"),
            (b"x" * 5000, "tcp_table_reply_size_limit = 4096"),
            (None, "closed the connection"),
        ):
            self.server.answer = lambda data, reply=reply: reply  # type: ignore[misc]
            self.assertIn(reason, await self.fails(table), reply)
        self.flushLoggedErrors()

    async def test_request(self) -> None:
        """The key is sent as it is, encoded, and is never part of another request."""
        self.server.answer = lambda data: b"500 no\n"
        await self.lookup(f"tcp:{self.place}", b"Key %\xc3\xa4\nget x")
        self.assertEqual(self.server.requests, [b"get Key%20%25%C3%A4%0Aget%20x\n"])
        self.assertFalse(self.tables.open(f"tcp:{self.place}", "p").fixed_keys)

    def test_quoting(self) -> None:
        """Every byte comes through."""
        every = bytes(range(256))
        self.assertEqual(unquote_tcp(quote_tcp(every)), every)

    async def test_reused(self) -> None:
        """One after the other goes over one connection; many at a time over few."""
        self.server.answer = lambda data: b"200 v\n"
        table = f"tcp:{self.place}"
        for _ in range(3):
            await self.lookup(table)
        self.assertEqual(len(self.server.connections), 1)
        asked = self.tables.open(table, "p")
        values = await gatherResults([asked.lookup(b"%d" % number) for number in range(50)])
        self.assertEqual(values, [b"v"] * 50)
        # The others may have done it all before the last one is there.
        self.assertIn(len(self.server.connections), (2, 3, 4, 5))

    async def test_reconnected(self) -> None:
        """A connection that the server has closed meanwhile is made again, without a failure."""
        self.server.answer = lambda data: b"200 v\n"
        table = f"tcp:{self.place}"
        await self.lookup(table)
        self.server.connections[0].transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await self.lookup(table), b"v")
        self.assertEqual(len(self.server.connections), 2)

    async def test_unasked(self) -> None:
        """What a server sends before it is asked is nobody's answer."""
        table = f"tcp:{self.place}"
        self.server.answer = lambda data: b"200 right\n"
        await self.lookup(table)
        self.server.connections[0].transport.write(b"200 wrong\n")  # type: ignore[union-attr]
        await deferLater(self.reactor, 0.05)
        self.assertEqual(await self.lookup(table), b"right")

    async def test_late(self) -> None:
        """No answer in time is a failure, and does not answer the next one."""
        self.settings["table_request_timeout"] = "1s"
        self.settings["table_connection_limit"] = "1"
        table = self.tables.open(f"tcp:{self.place}", "p")
        failed = [table.lookup(key) for key in (b"a", b"b")]
        for one in failed:
            await self.assertFailure(one, TableError)
        self.server.answer = lambda data: b"200 v\n"
        self.assertEqual(await table.lookup(b"c"), b"v")

    async def test_others_go_on(self) -> None:
        """What waits for a connection that has to be dropped gets another one."""
        self.settings["table_connection_limit"] = "1"
        replies = iter([b"200 a\n200 b\n", b"200 v\n", b"200 w\n"])
        self.server.answer = lambda data: next(replies)
        table = self.tables.open(f"tcp:{self.place}", "p")
        first, *others = [table.lookup(b"k") for _ in range(3)]
        error = await self.assertFailure(first, TableError)
        self.assertIn("two replies", str(error))
        self.assertEqual(await gatherResults(others), [b"v", b"w"])

    async def test_bounded(self) -> None:
        """More than may wait are refused at once; those that wait fail when the table is closed."""
        self.settings["table_queue_limit"] = "2"
        self.settings["table_connection_limit"] = "1"
        table = self.tables.open(f"tcp:{self.place}", "p")
        waiting: list[Deferred[Any]] = [table.lookup(b"k") for _ in range(2)]
        self.assertIn("table_queue_limit = 2", str(self.failureResultOf(table.lookup(b"k")).value))
        table.close()
        for one in waiting:
            self.failureResultOf(one, TableError)
        self.failureResultOf(table.lookup(b"k"), TableError)

    async def test_nobody_there(self) -> None:
        """A server that is not there is a failure, not an answer."""
        self.assertIn("cannot connect", await self.fails("tcp:127.0.0.1:1"))

    async def test_idle(self) -> None:
        """An unused connection is closed."""
        self.settings["table_idle_time"] = "0s"
        self.server.answer = lambda data: b"200 v\n"
        await self.lookup(f"tcp:{self.place}")
        while self.server.connections[0].connected:
            await deferLater(self.reactor, 0.005)

    def test_bad_place(self) -> None:
        """The error says what to write."""
        for text, reason in (
            ("tcp:host", "write host:port"),
            ("tcp::25", "write host:port"),
            ("tcp:host:smtp", 'bad port "smtp"'),
            ("tcp:host:0", "bad port"),
            ("tcp:host:65536", "bad port"),
            ("socketmap:inet:host:25", "bad server"),
            ("socketmap:foo", "write socketmap:inet:host:port:name"),
            ("socketmap:bogus:host:25:name", "write socketmap:inet:host:port:name"),
            ("socketmap:unix:rel:name", "must be absolute"),
        ):
            self.assertIn(reason, str(self.assertRaises(ConfigError, self.tables.open, text, "p")))
        error = self.assertRaises(ConfigError, Tables().open, "tcp:host:25", "p")
        self.assertIn("cannot be asked here", str(error))


class SocketmapTests(Case):
    """C{socketmap:}."""

    async def test_replies(self) -> None:
        """What each reply means, as C{postmap -q} shows for Postfix."""
        table = f"socketmap:inet:{self.place}:nm"
        for reply, value in (
            (encode(b"OK v"), b"v"),
            (encode(b"OK a b"), b"a b"),
            (encode(b"OK "), None),
            (encode(b"OK"), None),
            (encode(b"NOTFOUND "), None),
            (encode(b"NOTFOUND"), None),
            (encode(b"NOTFOUND x"), None),
            (encode(b"OK " + b"x" * 99997), b"x" * 99997),
        ):
            self.server.answer = lambda data, reply=reply: reply  # type: ignore[misc]
            self.assertEqual(await self.lookup(table, b"Key %"), value, reply)
        self.assertEqual(set(self.server.requests), {b"8:nm Key %,"})
        for reply, reason in (
            (encode(b"TEMP x"), "temporary error: x"),
            (encode(b"TEMP "), "temporary error"),
            (encode(b"TIMEOUT x"), "timeout error: x"),
            (encode(b"PERM x"), "permanent error: x"),
            (encode(b"ok v"), "unknown error"),
            (encode(b""), "unknown error"),
            (b"xx", "format error"),
            (b"100001:", "exceeds storage limit"),
            (encode(b"OK v") * 2, "two replies"),
            (None, "closed the connection"),
        ):
            self.server.answer = lambda data, reply=reply: reply  # type: ignore[misc]
            self.assertIn(reason, await self.fails(table), reply)

    async def test_unix(self) -> None:
        """A server on a socket in the file system."""
        folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        port = self.reactor.listenUNIX(str(folder / "s"), self.server)
        self.addCleanup(port.stopListening)
        self.server.answer = lambda data: encode(b"OK v")
        self.assertEqual(await self.lookup(f"socketmap:unix:{folder}/s:nm"), b"v")
        self.assertIn("cannot connect", await self.fails(f"socketmap:unix:{folder}/none:nm"))

    async def test_proxy(self) -> None:
        """C{proxy:} is the same table."""
        table = f"socketmap:inet:{self.place}:nm"
        self.assertIs(self.tables.open(f"proxy:{table}", "p"), self.tables.open(table, "p"))
