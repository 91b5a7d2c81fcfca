"""Our QMQP server on a real port, for peers to talk to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.qmqp.admission import ClientLists
from qmqpd_tx.qmqp.hostnames import ClientNames
from qmqpd_tx.qmqp.hosts import HostsFile
from qmqpd_tx.qmqp.server import QMQPServerFactory
from tests.qmqp.cleanup import MemoryCleanup


class Everybody:
    """An access list that lets everybody in."""

    immediate = True
    stable = True

    def matches(self, name: str, address: str) -> bool:
        return True

    async def find(self, name: str, address: str) -> bool:
        return True


class QMQPServerTestCase(TestCase):
    """
    Has a server on a loopback port that keeps messages in memory.

    @ivar port: the port number.
    @ivar lines: what was logged.
    """

    config = ""
    max_connections = 0
    timeout = 120

    async def setUp(self) -> None:
        from twisted.internet import reactor

        clock: Any = reactor
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)
        self.cleanup = MemoryCleanup()
        # No DNS here: the hosts file knows the only client.
        names = ClientNames(clock, None, HostsFile(clock, None, "127.0.0.1 localhost"))  # type: ignore[arg-type]
        self.factory = QMQPServerFactory(
            config_from_text(self.config),
            clock,
            self.cleanup,
            ClientLists(access=Everybody()),
            names,
            max_connections=self.max_connections,
        )
        port = await self.factory.listen(TCP4ServerEndpoint(clock, 0, interface="127.0.0.1"))
        address: Any = port.getHost()
        self.port = int(address.port)

    def tearDown(self) -> Deferred[None]:
        return self.factory.stop()

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace") == "qmqpd_tx.qmqpd":
            prefix = "warning: " if event["log_level"].name == "warn" else ""
            self.lines.append(prefix + formatEvent(event))
