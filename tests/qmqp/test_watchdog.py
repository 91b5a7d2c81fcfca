"""What ends a request that is stuck: daemon_timeout, ipc_timeout; and what a service does when it is idle."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from qmqpd_tx.netstring import encode
from tests.qmqp.packets import packet
from tests.qmqp.serving import ServerTestCase

STUCK = encode(b"ZError: watchdog timeout (not done within 20s)")


class DaemonTimeoutTests(ServerTestCase):
    config = "daemon_timeout = 20s\nqmqpd_timeout = 15s\n"

    def test_slow_sender(self) -> None:
        """A byte now and then satisfies qmqpd_timeout for ever, but not this."""
        client = self.connect()
        data = packet(b"x" * 1000)
        for position in range(19):
            client.send(data[position : position + 1])
            self.clock.advance(1)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertEqual(client.reply, STUCK)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertEqual(
            self.lines[-1],
            "warning: ID1: client.example[192.0.2.1]: Error: watchdog timeout (not done within 20s)",
        )
        self.clock.advance(5)
        self.assertTrue(client.transport.aborted)
        client.end(clean=False)
        self.assert_quiet()

    def test_a_thousand_slow_senders(self) -> None:
        clients = [self.connect() for _ in range(1000)]
        for client in clients:
            client.send(b"0")
        for _ in range(20):
            self.clock.advance(1)
            for client in clients:
                if client.transport.reading:
                    client.server.dataReceived(b"0" if client.reply == b"" else b"")
        self.clock.advance(5)
        for client in clients:
            self.assertEqual(client.reply, STUCK)
            client.end(clean=False)
        self.assert_quiet()

    def test_commit(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        self.clock.advance(14)
        client.send(packet())
        self.clock.advance(6)
        self.assertEqual(client.reply, STUCK)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertEqual(self.cleanup.accepted, [])
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_soft_bounce_changes_nothing(self) -> None:
        factory = self.make_factory(self.config + "soft_bounce = yes\n")
        self.cleanup.slow_store = True
        client = self.connect(factory)
        client.send(packet()[:20])
        self.clock.advance(20)
        self.assertEqual(client.reply, STUCK)

    def test_client_that_does_not_take_its_reply(self) -> None:
        client = self.connect()
        client.send(b"x")
        self.clock.advance(1)
        self.assertTrue(client.transport.finished_writing)
        self.clock.pump([1] * 14)
        self.assertFalse(client.transport.aborted)
        self.clock.pump([1] * 5)
        self.assertTrue(client.transport.aborted)
        client.end(clean=False)
        self.assert_quiet()

    def test_waiting_for_a_list(self) -> None:
        self.clients.immediate = False
        self.clients.answer = Deferred()
        client = self.connect()
        self.clock.advance(20)
        self.assertEqual(client.reply, STUCK)
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_waiting_for_a_turn_does_not_count(self) -> None:
        factory = self.make_factory(self.config, max_connections=1)
        first, second = self.connect(factory), self.connect(factory)
        self.clock.pump([1] * 10)
        first.end()
        self.clock.pump([1] * 14)
        second.send(packet())
        self.assertEqual(second.reply, encode(b"KOk: queued as ID1"))


class InternalTimeoutTests(ServerTestCase):
    """ipc_timeout: one wait for cleanup."""

    config = "ipc_timeout = 5s\n"
    late = encode(b"ZError: queue file write error (not done within 5s)")

    def test_commit(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        self.clock.advance(4)
        client.send(packet())
        self.clock.pump([1] * 4)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertEqual(client.reply, self.late)
        self.assertTrue(self.cleanup.begun[0].aborted)

    def test_content(self) -> None:
        self.cleanup.slow_store = True
        client = self.connect()
        self.clock.advance(3)
        client.send(packet()[:20])
        self.clock.pump([1] * 4)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertEqual(client.reply, self.late)

    def test_waits_do_not_add_up(self) -> None:
        self.cleanup.slow_store = True
        client = self.connect()
        data = packet(b"x" * 100)
        for start in range(0, 40, 10):
            client.send(data[start : start + 10])
            self.clock.pump([1] * 4)
            if self.cleanup.begun[0].waiting:
                self.cleanup.begun[0].waiting.pop().callback(None)
        self.assertEqual(client.reply, b"")
        self.assertTrue(client.transport.reading)


class UsageTests(ServerTestCase):
    """max_use and max_idle: when the configuration is looked at."""

    def setUp(self) -> None:
        super().setUp()
        self.looked = 0
        self.factory = self.make_factory("max_use = 3\nmax_idle = 10s\n", refresh=self.look)

    def look(self) -> None:
        self.looked += 1

    def use(self) -> None:
        client = self.connect()
        client.send(packet())
        client.end()

    def test_max_use(self) -> None:
        for looked in (0, 0, 1, 1, 1, 2):
            self.use()
            self.assertEqual(self.looked, looked)

    def test_max_idle(self) -> None:
        self.use()
        self.clock.advance(6)
        self.use()
        self.clock.advance(9)
        self.assertEqual(self.looked, 0)
        self.clock.advance(1)
        self.assertEqual(self.looked, 1)
        # Nobody has come since: there is no reason to look again.
        self.clock.pump([5] * 10)
        self.assertEqual(self.looked, 1)
        self.assert_quiet()

    def test_stop(self) -> None:
        self.use()
        self.successResultOf(self.factory.stop())
        self.assert_quiet()
        self.assertEqual(self.looked, 0)
