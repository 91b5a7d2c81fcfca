"""A QMQP server on a clock, with connections that a test drives by hand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.qmqp.admission import ClientLists
from qmqpd_tx.qmqp.connection import QMQPConnection
from qmqpd_tx.qmqp.server import QMQPServerFactory
from tests.qmqp.cleanup import MemoryCleanup

CLIENT = IPv4Address("TCP", "192.0.2.1", 4321)


class Transport(StringTransport):
    """As TCP: can finish writing before reading, and has limits to what may be done after the end."""

    def __init__(self) -> None:
        super().__init__(peerAddress=CLIENT)
        self.finished_writing = False
        self.aborted = False
        self.server: QMQPConnection | None = None

    def loseWriteConnection(self) -> None:
        self.finished_writing = True

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.finished_writing and self.server is not None:
            # There is nothing left to write: the connection is lost at once, as with TCP.
            server, self.server = self.server, None
            server.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def write(self, data: bytes) -> None:
        assert not self.finished_writing and not self.disconnecting
        super().write(data)

    @property
    def reading(self) -> bool:
        return bool(self.producerState == "producing")


class Names:
    """Client names that a test gives, at once or later."""

    def __init__(self) -> None:
        self.name: str | Deferred[str] = "client.example"

    def lookup(self, address: str) -> str | Deferred[str]:
        return self.name


class Clients:
    """An access list that a test decides on."""

    immediate = True
    stable = False

    def __init__(self) -> None:
        self.answer: bool | Exception | Deferred[bool] = True
        self.asked: list[tuple[str, str]] = []

    def matches(self, name: str, address: str) -> bool:
        self.asked.append((name, address))
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, bool)
        return self.answer

    async def find(self, name: str, address: str) -> bool:
        self.asked.append((name, address))
        assert isinstance(self.answer, Deferred)
        return await self.answer


class Connection:
    """The client's end."""

    def __init__(self, factory: QMQPServerFactory, address: Any = CLIENT) -> None:
        protocol = factory.buildProtocol(address)
        assert isinstance(protocol, QMQPConnection)
        self.server = protocol
        self.transport = Transport()
        self.transport.server = protocol
        protocol.makeConnection(self.transport)

    @property
    def reply(self) -> bytes:
        return self.transport.value()

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            assert self.transport.reading
            self.server.dataReceived(piece)

    def finish_sending(self) -> None:
        self.server.readConnectionLost()

    def end(self, clean: bool = True) -> None:
        """The connection is over: what the reactor says after loseConnection, or when the client is gone."""
        if self.transport.server is not None:
            self.transport.server = None
            self.server.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))


class ServerTestCase(SynchronousTestCase):
    """Has a server on a clock, and what it logged."""

    config = ""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.cleanup = MemoryCleanup()
        self.names = Names()
        self.clients = Clients()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)
        self.factory = self.make_factory(self.config)

    def make_factory(
        self,
        config: str,
        max_connections: int = 0,
        lists: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> QMQPServerFactory:
        return QMQPServerFactory(
            config_from_text(config),
            self.clock,
            self.cleanup,
            ClientLists(access=self.clients, **lists),
            self.names,
            max_connections=max_connections,
            **more,
        )

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace") == "qmqpd_tx.qmqpd":
            level = event["log_level"].name
            prefix = {"warn": "warning: ", "critical": "fatal: "}.get(level, "")
            self.lines.append(prefix + formatEvent(event))

    def connect(self, factory: QMQPServerFactory | None = None) -> Connection:
        return Connection(factory or self.factory)

    def assert_quiet(self) -> None:
        """Nothing waits for anything any more."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connection_count, 0)
