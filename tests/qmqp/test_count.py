"""Limits for each client: connections at a time, connections in a while."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.limits import ClientLimits, Excess, LimitSettings, network_of
from tests.qmqp.packets import packet
from tests.qmqp.serving import Clients, Connection, ServerTestCase

TOO_MANY = encode(b"ZError: too many connections from 192.0.2.1")


class CountTests(ServerTestCase):
    config = "qmqpd_client_connection_count_limit = 2\n"

    def test_third_connection(self) -> None:
        first, second = self.connect(), self.connect()
        third = self.connect()
        self.assertEqual(third.reply, TOO_MANY)
        self.assertIn(
            "warning: Connection concurrency limit exceeded: 3 from client.example[192.0.2.1] "
            "for service qmqpd",
            self.lines,
        )
        first.send(packet())
        self.assertEqual(first.reply, encode(b"KOk: queued as ID1"))
        for client in (first, second, third):
            client.end()
        self.connect().end()
        self.assertEqual(self.lines[-1], "disconnect from client.example[192.0.2.1]")
        self.assert_quiet()
        self.assertEqual(self.factory.limits.size, 0)

    def test_others_may_come(self) -> None:
        self.connect()
        self.connect()
        other = Connection(self.factory, IPv4Address("TCP", "192.0.2.2", 1))
        other.send(packet())
        self.assertEqual(other.reply, encode(b"KOk: queued as ID1"))

    def test_a_thousand_connections_of_one_client(self) -> None:
        """They hold nothing: each is told at once, and gone when it has read that, or soon."""
        clients = [self.connect() for _ in range(1000)]
        self.assertEqual([client.reply for client in clients[2:]], [TOO_MANY] * 998)
        self.clock.advance(5)
        for client in clients[2:]:
            self.assertTrue(client.transport.aborted)
            client.end(clean=False)
        self.assertEqual(self.factory.connection_count, 2)
        self.assertEqual(self.cleanup.begun, [])

    def test_before_the_access_list(self) -> None:
        self.clients.answer = False
        self.connect()
        self.connect()
        self.assertEqual(self.connect().reply, TOO_MANY)
        self.assertEqual(len(self.clients.asked), 2)

    def test_exceptions(self) -> None:
        """qmqpd_client_event_limit_exceptions"""
        exceptions = Clients()
        factory = self.make_factory(self.config, lists={"exceptions": exceptions})
        for _ in range(5):
            client = self.connect(factory)
            client.send(packet())
            self.assertIn(b"KOk", client.reply)
        self.assertEqual(exceptions.asked, [("client.example", "192.0.2.1")] * 5)
        exceptions.answer = False
        for _ in range(2):
            self.connect(factory)
        self.assertEqual(self.connect(factory).reply, TOO_MANY)

    def test_exceptions_that_cannot_be_asked(self) -> None:
        exceptions = Clients()
        exceptions.answer = TableError("tcp:x: no answer")
        client = self.connect(self.make_factory(self.config, lists={"exceptions": exceptions}))
        self.clock.advance(1)
        self.assertEqual(client.reply, encode(b"ZError: server configuration error"))
        self.assertIn("warning: qmqpd_client_event_limit_exceptions: tcp:x: no answer", self.lines)
        self.assertEqual(self.cleanup.begun, [])

    def test_a_reload_counts_those_that_are_there(self) -> None:
        first, second = self.connect(), self.connect()
        self.factory.reconfigure(config_from_text("qmqpd_client_connection_count_limit = 1\n"))
        self.assertEqual(self.connect().reply, TOO_MANY)
        first.end()
        self.assertEqual(self.connect().reply, TOO_MANY)
        second.end()
        third = self.connect()
        third.send(packet())
        self.assertIn(b"KOk", third.reply)

    def test_no_limit_counts_nothing(self) -> None:
        factory = self.make_factory("")
        for _ in range(100):
            self.connect(factory)
        self.assertEqual(factory.limits.size, 0)


class RateTests(ServerTestCase):
    config = "qmqpd_client_connection_rate_limit = 2\nanvil_rate_time_unit = 30s\n"

    def test_third_in_a_while(self) -> None:
        for _ in range(2):
            client = self.connect()
            client.send(packet())
            self.assertIn(b"KOk", client.reply)
            client.end()
        refused = self.connect()
        self.assertEqual(refused.reply, TOO_MANY)
        self.assertIn(
            "warning: Connection rate limit exceeded: 3 from client.example[192.0.2.1] for service qmqpd",
            self.lines,
        )
        refused.end()
        self.clock.advance(29)
        refused = self.connect()
        self.assertEqual(refused.reply, TOO_MANY)
        refused.end()
        self.clock.advance(1)
        client = self.connect()
        client.send(packet())
        self.assertIn(b"KOk", client.reply)
        client.end()


class NetworkTests(ServerTestCase):
    def served(self, config: str, *addresses: str) -> list[bool]:
        factory = self.make_factory(f"qmqpd_client_connection_count_limit = 1\n{config}")
        served = []
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            served.append(Connection(factory, kind("TCP", address, 9)).reply == b"")
        return served

    def test_one_network_is_one_client(self) -> None:
        addresses = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2")
        self.assertEqual(self.served("", *addresses), [True, False, True, True, True])
        self.assertEqual(
            self.served("qmqpd_client_ipv6_prefix_length = 128\n", *addresses), [True, True, True, True, True]
        )
        self.assertEqual(
            self.served("qmqpd_client_ipv4_prefix_length = 24\n", *addresses),
            [True, False, True, True, False],
        )

    def test_names(self) -> None:
        self.assertEqual(network_of("192.0.2.77", 32, 64), "192.0.2.77")
        self.assertEqual(network_of("192.0.2.77", 24, 64), "192.0.2.0/24")
        self.assertEqual(network_of("2001:db8::77", 32, 64), "2001:db8::/64")
        self.assertEqual(network_of("fe80::1%eth0", 32, 128), "fe80::1")
        self.assertEqual(network_of("nonsense", 32, 64), "nonsense")


class MemoryTests(SynchronousTestCase):
    """qmqpd_client_event_cache_size"""

    def test_a_million_clients(self) -> None:
        limits = ClientLimits(LimitSettings(rate=3, windows=1000))
        for number in range(1_000_000):
            key = str(number)
            self.assertIsNone(limits.opened(key, number / 1000))
            limits.closed(key)
        self.assertLessEqual(limits.size, 1000)

    def test_the_oldest_is_forgotten(self) -> None:
        limits = ClientLimits(LimitSettings(rate=1, windows=2))
        for key in ("a", "b", "c"):
            self.assertIsNone(limits.opened(key, 0))
        self.assertEqual(limits.opened("c", 1), Excess("Connection rate", 2))
        self.assertIsNone(limits.opened("a", 1))

    def test_what_has_run_out_goes(self) -> None:
        limits = ClientLimits(LimitSettings(rate=1, window=10))
        for number in range(100):
            self.assertIsNone(limits.opened(str(number), 0))
            limits.closed(str(number))
        for number in range(200, 260):
            self.assertIsNone(limits.opened(str(number), 10))
            limits.closed(str(number))
        self.assertEqual(limits.size, 60)

    def test_a_clock_that_is_set_back(self) -> None:
        limits = ClientLimits(LimitSettings(rate=1))
        self.assertIsNone(limits.opened("a", 1000))
        self.assertIsNone(limits.opened("a", 10))

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 3))
    @settings(max_examples=100)
    def test_never_more_than_allowed(self, steps: list[tuple[str, bool]], limit: int) -> None:
        limits = ClientLimits(LimitSettings(connections=limit))
        open_now = dict.fromkeys("abc", 0)
        for key, come in steps:
            if come:
                excess = limits.opened(key, 0)
                self.assertEqual(excess is not None, open_now[key] == limit)
                open_now[key] += excess is None
            elif open_now[key]:
                limits.closed(key)
                open_now[key] -= 1
        self.assertEqual(limits.size, sum(map(bool, open_now.values())))


class WaitingListTests(ServerTestCase):
    """Lists with tables that have to be waited for."""

    def setUp(self) -> None:
        super().setUp()
        self.answer: Deferred[bool] = Deferred()
        self.clients.immediate = False
        self.clients.answer = self.answer

    def test_yes(self) -> None:
        client = self.connect()
        self.assertFalse(client.transport.reading)
        self.assertEqual(self.lines, ["connect from client.example[192.0.2.1]"])
        self.answer.callback(True)
        client.send(packet())
        self.assertEqual(client.reply, encode(b"KOk: queued as ID1"))
        client.end()
        self.assert_quiet()

    def test_no(self) -> None:
        client = self.connect()
        self.answer.callback(False)
        self.assertTrue(client.transport.reading)
        self.clock.advance(1)
        self.assertIn(b"DError: client.example[192.0.2.1] is not authorized", client.reply)

    def test_cannot_say(self) -> None:
        """A table error is never a yes or a no."""
        client = self.connect()
        self.answer.errback(TableError("pgsql:x: table lookup problem"))
        self.clock.advance(1)
        self.assertEqual(client.reply, encode(b"ZError: server configuration error"))
        self.assertIn("warning: qmqpd_authorized_clients: pgsql:x: table lookup problem", self.lines)
        self.assertEqual(self.cleanup.begun, [])
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_ipc_timeout(self) -> None:
        client = self.connect(self.make_factory("ipc_timeout = 7s\n"))
        self.clock.advance(6.9)
        self.assertEqual(client.reply, b"")
        self.clock.advance(0.1)
        self.assertEqual(client.reply, encode(b"ZError: server configuration error"))
        self.assertTrue(client.transport.reading)
        self.assertTrue(self.answer.called)
        client.finish_sending()
        client.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_goes_away(self) -> None:
        client = self.connect()
        client.end(clean=False)
        self.assertEqual(
            self.lines,
            ["connect from client.example[192.0.2.1]", "disconnect from client.example[192.0.2.1]"],
        )
        self.assert_quiet()

    def test_server_stops(self) -> None:
        client = self.connect()
        stopped = self.factory.stop()
        self.assertTrue(client.closed)
        client.end()
        self.successResultOf(stopped)
        self.assert_quiet()
