"""in_flow_delay: clients wait while the queue manager does not keep up."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.server import QMQPServerFactory
from tests.qmqp.packets import packet
from tests.qmqp.serving import ServerTestCase

TAKEN = encode(b"KOk: queued as ID1")


class FlowTests(ServerTestCase):
    config = "in_flow_delay = 3s\n"

    behind = True

    def make_factory(self, config: str, max_connections: int = 0, **more: object) -> QMQPServerFactory:
        return super().make_factory(config, max_connections, behind=lambda: self.behind, **more)

    def test_a_message_waits(self) -> None:
        """It is not read for so long, and then taken as ever, although nothing has changed."""
        client = self.connect()
        self.assertFalse(client.transport.reading)
        self.clock.advance(2.9)
        self.assertFalse(client.transport.reading)
        self.clock.advance(0.1)
        client.send(packet())
        self.assertEqual(client.reply, TAKEN)
        client.end()
        self.assert_quiet()

    def test_others_do_not_wait_for_it(self) -> None:
        """Who comes when the queue has room again is served before."""
        first = self.connect()
        self.behind = False
        second = self.connect()
        second.send(packet())
        self.assertEqual(second.reply, TAKEN)
        self.assertEqual(first.reply, b"")

    def test_keeps_up(self) -> None:
        """Nobody waits as long as the queue manager keeps up."""
        self.behind = False
        client = self.connect()
        client.send(packet())
        self.assertEqual(client.reply, TAKEN)

    def test_disabled(self) -> None:
        """0 is no wait."""
        client = self.connect(self.make_factory("in_flow_delay = 0\n"))
        client.send(packet())
        self.assertEqual(client.reply, TAKEN)

    def test_strangers_do_not_wait(self) -> None:
        """Who may not send is refused without it."""
        self.clients.answer = False
        client = self.connect(self.make_factory("in_flow_delay = 3s\nqmqpd_error_delay = 0\n"))
        self.assertIn(b"not authorized", client.reply)

    def test_client_goes_away(self) -> None:
        """A client that does not wait leaves nothing behind."""
        client = self.connect()
        client.end(clean=False)
        self.assertEqual(self.cleanup.begun, [])
        self.assert_quiet()

    def test_server_stops(self) -> None:
        """A server that stops lets it go."""
        client = self.connect()
        stopped = self.factory.stop()
        self.assertTrue(client.closed)
        client.end()
        self.successResultOf(stopped)
        self.assert_quiet()

    def test_after_a_late_name(self) -> None:
        """The name comes first, and its time counts for the answer."""
        self.names.name = name = Deferred()
        client = self.connect()
        self.clock.advance(4)
        name.callback("client.example")
        self.assertFalse(client.transport.reading)
        self.clock.advance(3)
        self.cleanup.slow_commit = True
        client.send(packet())
        self.clock.pump([1] * 52)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertIn(b"not done within 60s", client.reply)

    def test_with_a_full_house(self) -> None:
        """A client that waited for its turn waits for this, too."""
        factory = self.make_factory("in_flow_delay = 3s\n", max_connections=1)
        first, second = self.connect(factory), self.connect(factory)
        first.end(clean=False)
        self.assertFalse(second.transport.reading)
        self.clock.advance(3)
        second.send(packet())
        self.assertEqual(second.reply, TAKEN)
