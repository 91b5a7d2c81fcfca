"""Clients behind a proxy: qmqpd_upstream_proxy_protocol, qmqpd_upstream_proxy_timeout."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.proxied import BadHeader, ProxiedConnection, client_of, header_size
from qmqpd_tx.qmqp.server import QMQPServerFactory
from tests.qmqp.packets import CONTENT, cut, packet
from tests.qmqp.serving import ServerTestCase, Transport

PROXY = IPv4Address("TCP", "198.51.100.7", 40000)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 628\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
OK = encode(b"KOk: queued as ID1")


def v2(command: int, family: int, data: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(data)) + data


V2 = v2(1, 0x11, bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 1234, 628))
V2_IPV6 = v2(1, 0x21, bytes.fromhex("20010db8" + "0" * 23 + "7") + bytes(16) + struct.pack("!HH", 1234, 628))


class ProxyConnection:
    """The proxy's end of one connection."""

    def __init__(self, factory: QMQPServerFactory) -> None:
        protocol: Any = factory.buildProtocol(PROXY)
        assert isinstance(protocol, ProxiedConnection)
        self.server = protocol
        self.transport = Transport()
        self.transport.server = protocol  # type: ignore[assignment]
        protocol.makeConnection(self.transport)  # type: ignore[arg-type]

    @property
    def reply(self) -> bytes:
        return self.transport.value()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            assert self.transport.reading
            self.server.dataReceived(piece)

    def end(self) -> None:
        if self.transport.server is not None:
            self.transport.server = None
            self.server.connectionLost(Failure(ConnectionDone()))


class ProxyTests(ServerTestCase):
    config = "qmqpd_upstream_proxy_protocol = haproxy\nqmqpd_upstream_proxy_timeout = 3s\n"

    def test_the_client_is_who_the_proxy_says(self) -> None:
        for header, address in ((V1, "192.0.2.7"), (V2, "192.0.2.7"), (V2_IPV6, "2001:db8::7")):
            self.cleanup.accepted.clear()
            client = ProxyConnection(self.factory)
            client.send(header + packet())
            self.assertIn(b"KOk: queued as", client.reply)
            self.assertEqual(self.clients.asked[-1], ("client.example", address))
            [message] = self.cleanup.accepted
            self.assertEqual(message.client, ClientInfo(address, "client.example", 1234))
            client.end()
            self.assertEqual(self.lines[-1], f"disconnect from client.example[{address}]")
            self.assert_quiet()

    @given(st.sampled_from([V1, V2, V2_IPV6]), st.lists(st.integers(1, 30), max_size=12))
    @settings(max_examples=100)
    def test_any_chunking(self, header: bytes, sizes: list[int]) -> None:
        self.cleanup.accepted.clear()
        client = ProxyConnection(self.make_factory(self.config))
        client.send(*cut(header + packet(), sizes))
        self.assertIn(b"KOk: queued as", client.reply)
        self.assertEqual(self.cleanup.accepted[0].body, CONTENT)
        client.end()

    def test_health_check_of_the_proxy(self) -> None:
        """LOCAL: the proxy connects for itself."""
        client = ProxyConnection(self.factory)
        client.send(v2(0, 0, b""))
        self.assertEqual(self.clients.asked, [("client.example", "198.51.100.7")])
        client.end()

    def test_access_is_the_clients(self) -> None:
        self.clients.answer = False
        client = ProxyConnection(self.factory)
        client.send(V1)
        self.clock.advance(1)
        self.assertIn(b"client.example[192.0.2.7] is not authorized", client.reply)

    def test_bad_headers(self) -> None:
        for header, reason in (
            (b"75:", "short protocol header: '75:'"),
            (packet(), "short protocol header"),
            (b"PROXY UNKNOWN\r\n", "bad or missing protocol type"),
            (b"PROXY TCP4 x y 1 2\r\n", "bad or missing client address"),
            (b"PROXY TCP4 192.0.2.7\r\n", "bad or missing protocol type"),
            (b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n", "bad or missing client address"),
            (b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n", "bad or missing client address"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.8 99999 2\r\n", "bad or missing client port"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.8 -1 2\r\n", "bad or missing client port"),
            (b"PROXY TCP4 192.0.2.7 192.0.2.8 x 2\r\n", "bad or missing client address or port"),
            (b"PROXY TCP4 \xff\xfe 192.0.2.8 1 2\r\n", "bad or missing client address or port"),
            (b"PROXY TCP6 fe80::1%\x1b[31m ::1 1 2\r\n", "bad or missing client address"),
            (b"PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n", "bad or missing protocol type"),
            (b"PROXY " + b"x" * 200, "bad or missing newline"),
            (SIGNATURE + b"\x41\x11\0\x0c" + bytes(12), "unrecognized protocol version"),
            (SIGNATURE + b"\x21\x11\xff\xff", "too long protocol header"),
            (v2(1, 0x00, b""), "unsupported network protocol"),
            (v2(1, 0x31, bytes(216)), "unsupported network protocol"),
            (v2(1, 0x12, bytes(12)), "unsupported network protocol"),
            (v2(1, 0x13, bytes(12)), "bad or missing protocol type"),
            (v2(1, 0x51, bytes(12)), "bad or missing protocol type"),
            (v2(1, 0x11, bytes(4)), "bad or missing protocol type"),
            (v2(7, 0x11, bytes(12)), "bad or missing protocol type"),
        ):
            self.lines.clear()
            client = ProxyConnection(self.factory)
            client.send(header)
            self.assertTrue(client.transport.aborted, header)
            self.assertEqual(client.reply, b"")
            [line] = self.lines
            self.assertTrue(line.startswith(f"warning: haproxy read: {reason}"), line)
            self.assertTrue(line.endswith(" from 198.51.100.7"), line)
            self.assertTrue(line.isascii() and line.isprintable(), line)
            client.server.dataReceived(V1)
            client.end()
            self.assertEqual(self.lines, [line])
        self.assert_quiet()
        self.assertEqual(self.cleanup.begun, [])

    @given(
        st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 "])
    )
    @settings(max_examples=300)
    def test_noise(self, noise: bytes, start: bytes) -> None:
        data = start + noise
        try:
            size = header_size(data, 4096)
            if size:
                client_of(data[:size])
        except BadHeader as problem:
            self.assertTrue(str(problem))

    def test_slow_proxy(self) -> None:
        client = ProxyConnection(self.factory)
        client.send(V1[:20])
        self.clock.advance(2.9)
        self.assertFalse(client.transport.aborted)
        self.clock.advance(0.1)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(self.lines[0].startswith("warning: haproxy read: timeout error"))
        client.end()
        self.assert_quiet()

    def test_end_instead_of_a_header(self) -> None:
        client = ProxyConnection(self.factory)
        client.server.readConnectionLost()
        self.assertTrue(client.transport.aborted)
        self.assertTrue(self.lines[0].startswith("warning: haproxy read: EOF"))
        client.end()
        gone = ProxyConnection(self.factory)
        gone.end()
        self.assert_quiet()

    def test_too_many_without_header(self) -> None:
        """qmqpd_upstream_proxy_pending_limit"""
        factory = self.make_factory(self.config + "qmqpd_upstream_proxy_pending_limit = 3\n")
        first, *_ = [ProxyConnection(factory) for _ in range(3)]
        self.assertIsNone(factory.buildProtocol(PROXY))
        first.send(V1)
        self.assertIsNotNone(factory.buildProtocol(PROXY))

    def test_long_header(self) -> None:
        """qmqpd_upstream_proxy_header_limit"""
        long = V2[:14] + (12 + 9000).to_bytes(2, "big") + V2[16:28] + b"\x04\x23\x25" + bytes(8997)
        client = ProxyConnection(self.factory)
        client.send(long + packet())
        self.assertTrue(client.transport.aborted)
        self.assertIn("too long protocol header", self.lines[0])
        client.end()
        factory = self.make_factory(self.config + "qmqpd_upstream_proxy_header_limit = 10000\n")
        client = ProxyConnection(factory)
        client.send(long + packet())
        self.assertIn(b"KOk: queued as", client.reply)
        client.end()

    def test_early_data_waits_for_a_slow_name(self) -> None:
        name: Deferred[str] = Deferred()
        self.names.name = name
        client = ProxyConnection(self.factory)
        client.send(V1 + packet())
        self.assertFalse(client.transport.reading)
        self.assertEqual(client.reply, b"")
        name.callback("late.example")
        self.assertEqual(client.reply, OK)
        client.end()
        self.assert_quiet()

    def test_early_data_waits_for_its_turn(self) -> None:
        factory = self.make_factory(self.config, max_connections=1)
        first, second = ProxyConnection(factory), ProxyConnection(factory)
        first.send(V1)
        second.send(V1 + packet())
        self.assertFalse(second.transport.reading)
        first.end()
        self.assertEqual(second.reply, OK)

    def test_back_pressure(self) -> None:
        self.cleanup.slow_store = True
        client = ProxyConnection(self.factory)
        data = packet()
        client.send(V1 + data[:20])
        self.assertFalse(client.transport.reading)
        self.cleanup.slow_store = False
        self.cleanup.begun[0].waiting.pop().callback(None)
        self.assertTrue(client.transport.reading)
        client.send(data[20:])
        self.assertEqual(client.reply, OK)

    def test_client_finishes_sending_first(self) -> None:
        self.cleanup.slow_commit = True
        client = ProxyConnection(self.factory)
        client.send(V2 + packet())
        client.server.readConnectionLost()
        client.server.writeConnectionLost()
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, OK)

    def test_stop(self) -> None:
        waiting, committing = ProxyConnection(self.factory), ProxyConnection(self.factory)
        self.cleanup.slow_commit = True
        committing.send(V1 + packet())
        stopped = self.factory.stop()
        self.assertTrue(waiting.transport.aborted)
        waiting.end()
        self.assertNoResult(stopped)
        self.cleanup.begun[0].done()
        self.assertEqual(committing.reply, OK)
        committing.end()
        self.successResultOf(stopped)
        self.assert_quiet()

    def test_header_while_stopping(self) -> None:
        client = ProxyConnection(self.factory)
        self.factory._stopping = True
        client.send(V1)
        self.assertTrue(client.transport.aborted)
        client.end()

    def test_reload(self) -> None:
        """Connections from now on; a port that was made for a proxy stays one."""
        self.factory.reconfigure(config_from_text(""))
        self.assertNotIsInstance(self.factory.buildProtocol(PROXY), ProxiedConnection)
        self.assertIsInstance(self.factory.proxied.buildProtocol(PROXY), ProxiedConnection)

    def test_unknown_protocol(self) -> None:
        error = self.assertRaises(ConfigError, config_from_text, "qmqpd_upstream_proxy_protocol = nginx\n")
        self.assertIn("haproxy", str(error))
