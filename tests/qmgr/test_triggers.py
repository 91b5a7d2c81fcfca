"""Trigger bytes and the trigger socket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.triggers import TriggerFactory, TriggerProtocol, Triggers, read_triggers


class ReadTests(SynchronousTestCase):
    """Bytes to requests."""

    def test_collapsed(self) -> None:
        """Any number of any order is one request each."""
        self.assertEqual(
            read_triggers(b"DIDIFDAAF"),
            Triggers(ignore_times=True, flush_dead=True, scan_deferred=True, scan_incoming=True),
        )

    def test_single(self) -> None:
        """Each letter alone."""
        self.assertEqual(read_triggers(b"A"), Triggers(ignore_times=True))
        self.assertEqual(read_triggers(b"F"), Triggers(flush_dead=True))
        self.assertEqual(read_triggers(b"D"), Triggers(scan_deferred=True))
        self.assertEqual(read_triggers(b"I"), Triggers(scan_incoming=True))
        self.assertEqual(read_triggers(b"W"), Triggers(scan_incoming=True))
        self.assertEqual(read_triggers(b""), Triggers())

    @given(st.binary(max_size=5000))
    def test_any_bytes(self, data: bytes) -> None:
        """Unknown bytes change nothing and are not kept beyond a few."""
        triggers = read_triggers(data)
        self.assertEqual(triggers.scan_deferred, b"D" in data)
        self.assertEqual(bool(triggers.unknown), any(byte not in b"DIAFW" for byte in data))
        self.assertTrue(len(triggers.unknown) <= 20)


class SocketTests(SynchronousTestCase):
    """Clients of the socket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests: list[Triggers] = []
        self.factory = TriggerFactory(self.requests.append, self.clock, 10.0)
        self.warnings: list[LogEvent] = []
        globalLogPublisher.addObserver(self.warnings.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.warnings.append)

    def connect(self) -> tuple[TriggerProtocol, StringTransport]:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_request(self) -> None:
        """What a client sends is handed on, and its time limit ends with it."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"AFD")
        self.assertEqual(self.requests, [Triggers(True, True, True)])
        protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hanging_client(self) -> None:
        """A client that says nothing is dropped after the time limit."""
        _, transport = self.connect()
        self.clock.advance(9)
        self.assertFalse(transport.disconnecting or transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting or transport.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flood(self) -> None:
        """A client that does not stop is dropped after one buffer, and no more is obeyed."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"D" * 4096)
        self.assertTrue(transport.disconnecting or transport.disconnected)
        protocol.dataReceived(b"A")
        self.assertEqual(self.requests, [Triggers(scan_deferred=True)])

    def test_unknown(self) -> None:
        """Unknown bytes are logged, a few of them, and the known ones obeyed."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"x\n" * 1000 + b"I")
        self.assertEqual(len(self.requests), 1)
        self.assertTrue(self.requests[0].scan_incoming)
        self.assertEqual([event["request"] for event in self.warnings], [b"x\n" * 10])
        protocol.connectionLost()

    def test_crowd(self) -> None:
        """The number of clients is bounded, and a place becomes free when one leaves."""
        clients = [self.connect() for _ in range(101)]
        self.assertEqual(
            [transport.disconnecting or transport.disconnected for _, transport in clients],
            [False] * 100 + [True],
        )
        clients[-1][0].connectionLost()
        clients[0][0].connectionLost()
        last, transport = self.connect()
        self.assertFalse(transport.disconnecting or transport.disconnected)
        for protocol, _ in [*clients[1:-1], (last, transport)]:
            protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])
