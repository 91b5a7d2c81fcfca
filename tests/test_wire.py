"""
What is done without the reactor ends like what the reactor does: the same bytes, in order, and a clean close.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmqpd_tx.wire import DirectWriter, read_now, write_last


class Client(Protocol):
    """Collects what comes until the end."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[str] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.ended.callback(reason.type.__name__)


class Answering(Protocol):
    """Answers its first input, and closes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.reason: Failure | None = None

    def connectionMade(self) -> None:
        """Take what is there."""
        read_now(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        assert self.transport is not None
        write_last(self.transport, self.answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.reason = reason


class SocketTests(TestCase):
    """On real sockets."""

    async def exchange(self, answer: bytes) -> tuple[Client, Answering]:
        """
        @return: both ends after one question and its answer.
        """
        served: list[Answering] = []

        class Server(Factory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> Answering:
                served.append(Answering(answer))
                return served[-1]

        port = reactor.listenTCP(0, Server(), interface="127.0.0.1")
        try:
            client = Client()
            factory = Factory.forProtocol(lambda: client)
            factory.noisy = False
            await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(factory)
            client.transport.write(b"question")
            self.assertEqual(await client.ended, "ConnectionDone")
        finally:
            await port.stopListening()
        return client, served[0]

    def test_short_answer(self) -> Deferred[None]:
        """A short answer arrives whole, and both ends see a clean close."""

        async def run() -> None:
            client, server = await self.exchange(b"answer")
            self.assertEqual(client.received, b"answer")
            assert server.reason is not None
            server.reason.trap(connectionDone.type)

        return Deferred.fromCoroutine(run())

    def test_long_answer(self) -> Deferred[None]:
        """So does one that the socket cannot take at once."""

        async def run() -> None:
            client, _ = await self.exchange(b"0123456789abcdef" * 1_000_000)
            self.assertEqual(client.received, b"0123456789abcdef" * 1_000_000)

        return Deferred.fromCoroutine(run())


class OtherTransportTests(SynchronousTestCase):
    """On anything that is no plain TCP transport."""

    def test_ordinary(self) -> None:
        """The transport's own ways are used."""
        transport = StringTransport()
        read_now(transport)
        DirectWriter(transport).write(b"first ")
        write_last(transport, b"last")
        self.assertEqual(transport.value(), b"first last")
        self.assertTrue(transport.disconnecting)
