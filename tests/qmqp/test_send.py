"""The QMQP client, and the choice of a server."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.client import (
    CHUNK_SIZE,
    ClientError,
    ConnectionBroken,
    MalformedReply,
    QMQPClientProtocol,
    Reply,
    ReplyReader,
    make_packet,
)
from qmqpd_tx.qmqp.replies import ReplyClass
from qmqpd_tx.qmqp.send import (
    ExitStatus,
    Result,
    Server,
    envelope_fault,
    parse_server,
    parse_servers,
    send_message,
)
from tests.qmqp.packets import CONTENT, RECIPIENT, SENDER, packet


class PacketTests(SynchronousTestCase):
    @given(st.binary(max_size=300), st.binary(max_size=30), st.lists(st.binary(max_size=30), max_size=5))
    @settings(max_examples=100)
    def test_as_the_server_reads_it(self, content: bytes, sender: bytes, recipients: list[bytes]) -> None:
        made = make_packet(len(content), sender, recipients)
        self.assertEqual(made.head + content + made.tail, packet(content, sender, recipients))


class ReplyTests(SynchronousTestCase):
    def test_each_class(self) -> None:
        for reply_class in ReplyClass:
            reader = ReplyReader()
            data = encode(reply_class.value + b"text")
            self.assertIsNone(reader.feed(data[:3]))
            self.assertEqual(reader.feed(data[3:]), Reply(reply_class, b"text"))

    def test_malformed(self) -> None:
        for data in (b"x", b"0:,", b"2:Xy,", b"2:Kyx", b"10001:", b"220 smtp.example.org ESMTP\r\n"):
            self.assertRaises(MalformedReply, ReplyReader().feed, data)


class ClientTestCase(SynchronousTestCase):
    def start(self, content: bytes = CONTENT, timeout: float = 60.0) -> None:
        self.clock = Clock()
        made = make_packet(len(content), SENDER, [RECIPIENT])
        self.client = QMQPClientProtocol(made, io.BytesIO(content), len(content), self.clock, timeout)
        self.transport = StringTransport()
        self.client.makeConnection(self.transport)

    def send_all(self) -> None:
        while self.transport.producer is not None:
            self.client.resumeProducing()


class ClientTests(ClientTestCase):
    def test_sends_the_packet(self) -> None:
        content = b"x" * (3 * CHUNK_SIZE + 1)
        for body in (content, b"", CONTENT):
            self.start(body)
            self.assertFalse(self.client.sent)
            self.send_all()
            self.assertTrue(self.client.sent)
            self.assertEqual(self.transport.value(), packet(body))

    def test_a_piece_at_a_time(self) -> None:
        self.start(b"x" * (3 * CHUNK_SIZE))
        self.client.resumeProducing()
        self.assertLess(len(self.transport.value()), CHUNK_SIZE + 100)

    def test_reply(self) -> None:
        self.start()
        self.send_all()
        self.client.dataReceived(b"3:K")
        self.assertNoResult(self.client.result)
        self.client.dataReceived(b"ok,")
        self.assertEqual(self.successResultOf(self.client.result), Reply(ReplyClass.ACCEPTED, b"ok"))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.client.connectionLost(Failure(ConnectionDone()))

    def test_early_refusal(self) -> None:
        self.start(b"x" * (3 * CHUNK_SIZE))
        self.client.resumeProducing()
        self.client.dataReceived(b"3:Dno,")
        self.assertEqual(self.successResultOf(self.client.result).reply_class, ReplyClass.PERMANENT)
        self.assertIsNone(self.transport.producer)

    def test_lost(self) -> None:
        self.start()
        self.send_all()
        self.client.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(self.client.result, ConnectionBroken)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        self.start(timeout=10)
        self.clock.advance(9)
        self.send_all()
        self.clock.advance(9)
        self.assertNoResult(self.client.result)
        self.clock.advance(1)
        self.failureResultOf(self.client.result, ConnectionBroken)
        self.assertTrue(self.transport.disconnecting)

    def test_malformed_reply(self) -> None:
        self.start()
        self.send_all()
        self.client.dataReceived(b"HTTP/1.0 400")
        self.failureResultOf(self.client.result, MalformedReply)

    def test_content_that_shrinks(self) -> None:
        self.start()
        short = QMQPClientProtocol(make_packet(50, b"", [b"a"]), io.BytesIO(b"x"), 50, Clock(), 60)
        short.makeConnection(StringTransport())
        short.resumeProducing()
        short.resumeProducing()
        self.failureResultOf(short.result, ClientError)

    def test_cancel(self) -> None:
        self.start()
        self.client.result.addErrback(lambda failure: None)
        self.client.result.cancel()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ScriptedEndpoint:
    """Fails, or connects to a server that says what it is told to."""

    def __init__(self, script: Any, seen: list[bytes]) -> None:
        self.script = script
        self.seen = seen

    def connect(self, factory: Any) -> Deferred[Any]:
        if isinstance(self.script, Exception):
            return fail(self.script)
        client = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 628))
        transport = StringTransport()
        client.makeConnection(transport)
        if self.script is not ConnectionDone:
            while transport.producer is not None:
                client.resumeProducing()
        self.seen.append(transport.value())
        if isinstance(self.script, bytes):
            client.dataReceived(self.script)
        else:
            client.connectionLost(Failure(ConnectionDone()))
        return succeed(client)


class FailOverTests(SynchronousTestCase):
    """What each server does, in turn; an exception: no connection; None: hangs up having got everything."""

    def send(self, *scripts: Any) -> Result:
        self.seen: list[bytes] = []
        servers = [Server("192.0.2.1", 1000 + number) for number in range(len(scripts))]
        sending = send_message(
            servers,
            lambda server: ScriptedEndpoint(scripts[server.port - 1000], self.seen),  # type: ignore[arg-type,return-value]
            Clock(),
            io.BytesIO(CONTENT),
            len(CONTENT),
            SENDER,
            [RECIPIENT],
            60.0,
        )
        return self.successResultOf(Deferred.fromCoroutine(sending))

    def test_accepted(self) -> None:
        result = self.send(b"3:Kok,")
        self.assertEqual(result, Result(ExitStatus.ACCEPTED, "ok", Server("192.0.2.1", 1000)))
        self.assertEqual(self.seen, [packet()])

    def test_next_server_when_there_is_no_connection(self) -> None:
        bad_name = ValueError("invalid hostname: a..b")
        for problem in (
            ConnectionRefusedError(),
            TimeoutError(),
            DNSLookupError("x"),
            OSError("x"),
            bad_name,
        ):
            result = self.send(problem, b"3:Kok,", b"3:Kno,")
            self.assertEqual(result, Result(ExitStatus.ACCEPTED, "ok", Server("192.0.2.1", 1001)))
            self.assertEqual(self.seen, [packet()])

    def test_nobody_there(self) -> None:
        for problem, status in (
            (ConnectionRefusedError(), ExitStatus.CONNECTION_REJECTED),
            (TimeoutError(), ExitStatus.CONNECTION_TIMED_OUT),
            (DNSLookupError("x"), ExitStatus.NETWORK),
            (ValueError("invalid hostname: a..b"), ExitStatus.NETWORK),
        ):
            self.assertIs(self.send(ConnectionRefusedError(), problem).status, status)

    def test_a_connected_server_decides(self) -> None:
        for script, status in (
            (b"3:Zno,", ExitStatus.REFUSED_TEMPORARILY),
            (b"3:Dno,", ExitStatus.REFUSED_PERMANENTLY),
            (b"nonsense", ExitStatus.COMMUNICATION_FAILED),
            (None, ExitStatus.COMMUNICATION_FAILED),
        ):
            result = self.send(script, b"3:Kok,")
            self.assertIs(result.status, status)
            self.assertEqual(result.server.port, 1000)

    def test_hang_up_before_the_message(self) -> None:
        self.assertIs(self.send(ConnectionDone, b"3:Kok,").status, ExitStatus.ACCEPTED)
        self.assertEqual(self.seen[1], packet())


class ServerListTests(SynchronousTestCase):
    def test_server(self) -> None:
        for text, server in (
            ("192.0.2.1", Server("192.0.2.1")),
            ("192.0.2.1:6628", Server("192.0.2.1", 6628)),
            ("mail.example.org:1", Server("mail.example.org", 1)),
            ("::1", Server("::1")),
            ("[::1]:6628", Server("::1", 6628)),
            ("[::1]", Server("::1")),
            (" 192.0.2.1\r", Server("192.0.2.1")),
        ):
            self.assertEqual(parse_server(text), server)
            self.assertEqual(parse_server(str(server)), server)

    def test_wrong_server(self) -> None:
        for text in ("", ":628", "a:", "a:0", "a:65536", "a:x", "a b", "[::1", "[::1]x", "a:" + "9" * 99):
            self.assertRaises(ValueError, parse_server, text)

    def test_list(self) -> None:
        self.assertEqual(
            parse_servers("# servers\n192.0.2.1\n\n192.0.2.2:6628\n"),
            [Server("192.0.2.1"), Server("192.0.2.2", 6628)],
        )
        error = self.assertRaises(ValueError, parse_servers, "192.0.2.1\na b\n")
        self.assertTrue(str(error).startswith("line 2: "))


class EnvelopeTests(SynchronousTestCase):
    def test_faults(self) -> None:
        for sender, recipients, status in (
            (b"a", [], ExitStatus.ENVELOPE_FORMAT),
            (b"a", [b""], ExitStatus.ENVELOPE_FORMAT),
            (b"a\0", [b"b"], ExitStatus.ENVELOPE_FORMAT),
            (b"a", [b"b\nc"], ExitStatus.ENVELOPE_FORMAT),
            (b"a", [b"b", b"x" * 1001], ExitStatus.ADDRESS_TOO_LONG),
        ):
            fault = envelope_fault(sender, recipients)
            assert fault is not None
            self.assertIs(fault[0], status)

    def test_right(self) -> None:
        self.assertIsNone(envelope_fault(b"", [b"x" * 1000]))
