"""
A world to deliver mail in: a clock, a DNS, and servers that say what the test tells them to say.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IResolver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.names import dns, error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IConfig, TransportContext
from qmqpd_tx.message import SMTPUTF8, Envelope, QueueID, Recipient
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.smtp import SMTPAgent, SMTPTransport

EHLO = b"250-srv.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES"
NO_PIPELINING = b"250-srv.test\r\n250 8BITMIME"
MAIL = b"Subject: x\n\nhello\n"
ON_WIRE = b"Subject: x\r\n\r\nhello\r\n.\r\n"


def config(text: str = "") -> IConfig:
    return config_from_text(
        "myhostname = relay.test\ninet_protocols = ipv4\ninet_interfaces = loopback-only\n" + text
    )


class Content:
    """Message content in memory."""

    def __init__(self, data: bytes, piece: int | None = None) -> None:
        self.data = data
        self.size = len(data)
        self.memo: dict[Any, Any] = {}
        self.piece = piece
        self.reads = 0

    async def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.data[offset : offset + min(length, self.piece or length)]


def request(
    nexthop: str = "[127.0.0.1]:2525",
    recipients: Sequence[bytes] = (b"r0@to.test",),
    sender: bytes = b"s@from.test",
    content: Any = None,
    eight_bit: bool = False,
    smtputf8: bytes | None = None,
) -> DeliveryRequest:
    return DeliveryRequest(
        QueueID("Q1"),
        "smtp",
        nexthop,
        sender,
        [Recipient(address, address, position) for position, address in enumerate(recipients)],
        content if content is not None else Content(MAIL),
        Envelope(
            sender, 0.0, eight_bit=eight_bit, attributes={} if smtputf8 is None else {SMTPUTF8: smtputf8}
        ),
    )


@implementer(IResolver)
class Zone:
    """
    A DNS. Names map to lists of C{("MX", preference, host)}, C{("A", address)}, C{("AAAA", address)},
    C{("CNAME", name)}; or to an exception. What is not there does not exist.
    """

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records
        self.asked: list[tuple[str, str]] = []

    def _lookup(self, name: str, kind: str) -> Deferred[Any]:
        self.asked.append((name, kind))
        found = self.records.get(name)
        if found is None:
            return fail(error.DNSNameError(dns.Message()))
        if isinstance(found, Exception):
            return fail(found)
        if isinstance(found, Deferred):
            return found
        answers = []
        for record in found:
            if record[0] == kind or record[0] == "CNAME":
                payload: Any
                if record[0] == "MX":
                    payload = dns.Record_MX(record[1], record[2])
                elif record[0] == "A":
                    payload = dns.Record_A(record[1])
                elif record[0] == "AAAA":
                    payload = dns.Record_AAAA(record[1])
                else:
                    payload = dns.Record_CNAME(record[1])
                answers.append(dns.RRHeader(name, payload.TYPE, payload=payload))
        return succeed((answers, [], []))

    def lookupMailExchange(self, name: str, timeout: Any = None) -> Deferred[Any]:
        return self._lookup(name, "MX")

    def lookupAddress(self, name: str, timeout: Any = None) -> Deferred[Any]:
        return self._lookup(name, "A")

    def lookupIPV6Address(self, name: str, timeout: Any = None) -> Deferred[Any]:
        return self._lookup(name, "AAAA")


class Wire(StringTransport):
    """The server's view of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.aborted = False
        self.writes: list[bytes] = []
        self.no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.writes.append(data)
            super().write(data)

    def loseConnection(self) -> None:
        self.closed = True

    def abortConnection(self) -> None:
        self.closed = self.aborted = True


class Peer:
    """A server that the client connected to."""

    def __init__(self, host: str, port: int, factory: Any) -> None:
        self.host, self.port = host, port
        self.wire = Wire()
        self.protocol = factory.buildProtocol(None)
        self.gone = False
        self.protocol.makeConnection(self.wire)

    def say(self, *lines: bytes) -> None:
        self.protocol.dataReceived(b"".join(line + b"\r\n" for line in lines))

    def heard(self) -> bytes:
        """@return: what came since the last call."""
        data: bytes = self.wire.value()
        self.wire.clear()
        return data

    def close(self) -> None:
        if not self.gone:
            self.gone = True
            self.wire.closed = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def greet(self, ehlo: bytes = EHLO) -> None:
        """Complete the handshake."""
        self.say(b"220 srv.test ESMTP")
        assert self.heard() == b"EHLO relay.test\r\n"
        self.say(ehlo)


class World(SynchronousTestCase):
    """A test case with an SMTP transport, no network and a clock."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.zone = Zone({})
        self.peers: list[Peer] = []
        self.accepted = 0
        self.transports: list[SMTPTransport] = []
        self.configure("")

    def configure(self, text: str, seed: int = 1) -> None:
        agent = SMTPAgent(random.Random(seed))
        self.transport: SMTPTransport = agent.transport(
            TransportContext("smtp", config(text), self.reactor, self.zone)
        )
        self.transports.append(self.transport)

    def tearDown(self) -> None:
        stopped = [transport.stop() for transport in self.transports]
        for peer in self.peers:
            peer.close()
        for each in stopped:
            self.successResultOf(each)
        self.assertEqual(self.reactor.getDelayedCalls(), [], "a timer was left behind")

    def deliver(self, *args: Any, **kwargs: Any) -> Deferred[DeliveryReport]:
        return self.transport.deliver(request(*args, **kwargs))

    def pending(self) -> int:
        """@return: connection attempts not yet answered."""
        return len(self.reactor.tcpClients) - self.accepted

    def accept(self) -> Peer:
        host, port, factory, *_ = self.reactor.tcpClients[self.accepted]
        self.accepted += 1
        peer = Peer(host, port, factory)
        self.peers.append(peer)
        return peer

    def refuse(self, reason: Exception | None = None) -> str:
        """@return: the address of the host that refused."""
        host, _, factory, *_ = self.reactor.tcpClients[self.accepted]
        connector = self.reactor.connectors[self.accepted]
        self.accepted += 1
        factory.clientConnectionFailed(
            connector, Failure(reason or ConnectionRefusedError(osError=OSError(111, "Connection refused")))
        )
        return str(host)

    def report(self, delivery: Deferred[DeliveryReport]) -> DeliveryReport:
        """@return: the result, however often it is asked for."""
        report = self.successResultOf(delivery)
        delivery.addCallback(lambda _: report)
        return report

    def outcome(self, delivery: Deferred[DeliveryReport]) -> Outcome:
        outcomes = self.report(delivery).outcomes
        self.assertEqual(len(outcomes), 1)
        return outcomes[0]

    def check(self, outcome: Outcome, action: Action, dsn: str, text: str, relay: str | None = None) -> None:
        self.assertEqual((outcome.action, outcome.dsn, outcome.text), (action, dsn, text))
        if relay is not None:
            self.assertEqual(outcome.relay, relay)
