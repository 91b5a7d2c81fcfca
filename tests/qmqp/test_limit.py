"""How many connections are served, and how the server stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.server import ACCEPTED_AT_ONCE
from tests.qmqp.packets import packet
from tests.qmqp.serving import CLIENT, Connection, ServerTestCase


@implementer(IListeningPort, IStreamServerEndpoint)
class Port:
    """A port of a reactor, and the endpoint that makes it."""

    def __init__(self) -> None:
        self.reading = True
        self.closed = False

    def listen(self, factory: object) -> Deferred[Port]:
        return succeed(self)

    def startReading(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startListening(self) -> None:
        pass

    def stopListening(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)

    def getHost(self) -> object:
        return CLIENT


class MaximumTests(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.factory = self.make_factory("", max_connections=2)
        self.port = Port()
        self.successResultOf(self.factory.listen(self.port))

    def test_port_is_not_read_at_the_limit(self) -> None:
        first = self.connect()
        self.assertTrue(self.port.reading)
        second = self.connect()
        self.assertFalse(self.port.reading)
        first.end()
        self.assertTrue(self.port.reading)
        second.end()

    def test_port_that_comes_later(self) -> None:
        clients = [self.connect(), self.connect()]
        other = Port()
        self.factory.add_port(other)
        self.assertFalse(other.reading)
        for client in clients:
            client.end()
        self.assertTrue(other.reading)

    def test_accepted_beyond_the_limit(self) -> None:
        """The reactor accepts several connections at a time: they wait for their turn."""
        first, second = self.connect(), self.connect()
        third = self.connect()
        self.assertFalse(third.transport.reading)
        self.assertEqual(len(self.lines), 2)
        first.end()
        self.assertTrue(third.transport.reading)
        self.assertFalse(self.port.reading)
        third.send(packet())
        self.assertEqual(third.reply, encode(b"KOk: queued as ID1"))
        third.end()
        second.end()
        self.assertTrue(self.port.reading)
        self.assert_quiet()

    def test_waiting_client_goes_away(self) -> None:
        clients = [self.connect() for _ in range(3)]
        clients[2].end()
        self.assertEqual(self.factory.connection_count, 2)

    def test_far_too_many(self) -> None:
        for _ in range(2 + ACCEPTED_AT_ONCE):
            self.connect()
        self.assertIsNone(self.factory.buildProtocol(CLIENT))

    def test_limit_is_raised(self) -> None:
        self.connect()
        self.connect()
        third = self.connect()
        self.factory.reconfigure(config_from_text(""), max_connections=4)
        self.assertTrue(third.transport.reading)
        self.assertTrue(self.port.reading)

    def test_no_limit(self) -> None:
        factory = self.make_factory("")
        factory.add_port(self.port)
        for _ in range(500):
            self.connect(factory)
        self.assertTrue(self.port.reading)


class StopTests(ServerTestCase):
    def test_idle(self) -> None:
        port = Port()
        self.successResultOf(self.factory.listen(port))
        self.successResultOf(self.factory.stop())
        self.assertTrue(port.closed)
        self.assertIsNone(self.factory.buildProtocol(CLIENT))

    def test_commit_under_way_is_answered(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet())
        stopped = self.factory.stop()
        self.assertNoResult(stopped)
        self.assertFalse(client.closed)
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, encode(b"KOk: queued as ID1"))
        self.assertNoResult(stopped)
        client.end()
        self.successResultOf(stopped)
        self.assert_quiet()

    def test_others_are_dropped(self) -> None:
        silent = self.connect()
        receiving = self.connect()
        receiving.send(b"120:100:abc")
        refused = self.connect()
        refused.send(b"x")
        name: Deferred[str] = Deferred()
        self.names.name = name
        unnamed = self.connect()
        stopped = self.factory.stop()
        for client in (silent, receiving, refused, unnamed):
            self.assertTrue(client.closed)
            self.assertEqual(client.reply, b"")
            self.assertNoResult(stopped)
            client.end()
        self.successResultOf(stopped)
        name.callback("late.example")
        self.assertTrue(all(message.aborted for message in self.cleanup.begun))
        self.assert_quiet()

    def test_those_that_wait_for_their_turn(self) -> None:
        factory = self.make_factory("", max_connections=1)
        first, second = self.connect(factory), self.connect(factory)
        stopped = factory.stop()
        self.assertTrue(second.closed)
        first.end()
        second.end()
        self.successResultOf(stopped)

    def test_reply_under_way_has_a_few_seconds(self) -> None:
        client = self.connect()
        client.send(packet())
        stopped = self.factory.stop()
        self.clock.advance(4.9)
        self.assertFalse(client.transport.aborted)
        self.clock.advance(0.1)
        self.assertTrue(client.transport.aborted)
        client.end()
        self.successResultOf(stopped)
        self.assert_quiet()

    def test_client_that_has_its_reply_and_does_not_close(self) -> None:
        client = self.connect()
        client.send(b"x")
        self.clock.advance(1)
        self.assertTrue(client.transport.finished_writing)
        self.successResultOf(self.factory.stop())
        self.assertTrue(client.closed)
        self.assert_quiet()

    def test_twice(self) -> None:
        client: Connection = self.connect()
        first, second = self.factory.stop(), self.factory.stop()
        client.end()
        self.successResultOf(first)
        self.successResultOf(second)
