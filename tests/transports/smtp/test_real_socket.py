"""Over real sockets on loopback: the same failures, large content, and back-pressure."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from qmqpd_tx.interfaces import TransportContext
from qmqpd_tx.status import Action
from qmqpd_tx.transports.smtp import SMTPAgent
from tests.transports.smtp.support import MAIL, Content, Zone, config, request


class Server(LineReceiver):
    """
    A server with a script: the stage (C{connect}, a verb, C{body} or C{.}) to its reply; L{None} is
    silence, C{b""} closes.
    """

    factory: Any
    silent = False

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.received = bytearray()
        self.answer("connect")

    def answer(self, stage: str) -> None:
        reply = self.factory.script.get(stage, b"250 2.0.0 Ok")
        if reply == b"":
            self.transport.abortConnection()
        elif reply is None:
            self.silent = True
        elif not self.silent:
            self.sendLine(reply)

    def lineReceived(self, line: bytes) -> None:
        verb = line[:4].decode().strip().upper()
        self.answer(verb)
        if verb == "DATA" and self.factory.script["DATA"].startswith(b"354"):
            self.setRawMode()
            if self.factory.slow:
                self.transport.pauseProducing()
                self.factory.resume = self.transport.resumeProducing

    def rawDataReceived(self, data: bytes) -> None:
        self.received += data
        if "body" in self.factory.script:
            self.answer("body")
        elif self.received.endswith(b"\r\n.\r\n"):
            self.factory.messages.append(bytes(self.received))
            self.received.clear()
            self.setLineMode()
            self.answer(".")


class Loopback(TestCase):
    timeout = 30

    def serve(self, slow: bool = False, **script: bytes | None) -> Any:
        factory: Any = Factory.forProtocol(Server)
        factory.noisy = False
        factory.script = {
            "connect": b"220 srv.test ESMTP",
            "EHLO": b"250-srv.test\r\n250-PIPELINING\r\n250 8BITMIME",
            "DATA": b"354 go",
            "QUIT": b"221 bye",
            **{name.replace("END", "."): value for name, value in script.items()},
        }
        factory.messages, factory.connections, factory.slow = [], 0, slow
        factory.resume = None
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        factory.nexthop = f"[127.0.0.1]:{port.getHost().port}"
        factory.host = f"127.0.0.1[127.0.0.1]:{port.getHost().port}"
        return factory

    def setUp(self) -> None:
        text = "".join(
            f"smtp_{name}_timeout = 1\n"
            for name in ("helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "quit")
        )
        context = TransportContext("smtp", config(text), reactor, Zone({}))
        self.transport = SMTPAgent().transport(context)
        self.addCleanup(lambda: self.transport.stop())

    async def outcome(self, server: Any, content: bytes = MAIL) -> tuple[Action, str, str]:
        report = await self.transport.deliver(request(server.nexthop, content=Content(content)))
        (outcome,) = report.outcomes
        return outcome.action, outcome.dsn, outcome.text

    async def test_messages_share_a_connection(self) -> None:
        server = self.serve()
        for _ in range(3):
            self.assertEqual(await self.outcome(server), (Action.SENT, "2.0.0", "250 2.0.0 Ok"))
        self.assertEqual(server.messages, [b"Subject: x\r\n\r\nhello\r\n.\r\n"] * 3)
        self.assertEqual(server.connections, 1)

    async def test_refused(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        report = await self.transport.deliver(request(f"[127.0.0.1]:{number}"))
        text = f"connect to 127.0.0.1[127.0.0.1]:{number}: Connection refused"
        self.assertEqual(report.outcomes[0].text, text)
        self.assertEqual(report.destination_failure.dsn, "4.4.1")

    async def test_replies_at_each_stage(self) -> None:
        for stage in ("MAIL", "RCPT", "DATA", "END"):
            for reply, action in ((b"451 4.7.1 no", Action.DEFERRED), (b"550 5.7.1 no", Action.BOUNCED)):
                server = self.serve(**{stage: reply})
                self.assertEqual((await self.outcome(server))[0], action, stage)

    async def test_silence_at_each_stage(self) -> None:
        words = {
            "connect": "receiving the initial server greeting",
            "EHLO": "performing the EHLO handshake",
            "MAIL": "sending MAIL FROM",
            "RCPT": "sending RCPT TO",
            "END": "sending end of data -- message may be sent more than once",
        }
        deliveries = {
            stage: Deferred.fromCoroutine(self.outcome(self.serve(**{stage: None}))) for stage in words
        }
        for stage, doing in words.items():
            action, dsn, text = await deliveries[stage]
            self.assertEqual((action, dsn), (Action.DEFERRED, "4.4.2"))
            self.assertEqual(text, f"conversation with 127.0.0.1[127.0.0.1] timed out while {doing}")

    BIG = b"Subject: big\n\n" + (b"." + b"0123456789" * 7 + b"\n") * 145000

    async def test_ten_megabytes_arrive_byte_for_byte(self) -> None:
        server = self.serve()
        self.assertGreater(len(self.BIG), 10_000_000)
        self.assertEqual((await self.outcome(server, self.BIG))[0], Action.SENT)
        (message,) = server.messages
        self.assertEqual(message, self.BIG.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b".\r\n")

    async def test_closed_in_the_middle_of_the_content(self) -> None:
        action, dsn, text = await self.outcome(self.serve(body=b""), self.BIG)
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.4.2"))
        self.assertEqual(text, "lost connection with 127.0.0.1[127.0.0.1] while sending message body")

    async def test_a_server_that_stops_reading_stops_us(self) -> None:
        reads: list[int] = []

        class Watched(Content):
            async def read(self, offset: int, length: int) -> bytes:
                reads.append(offset)
                return await super().read(offset, length)

        server = self.serve(slow=True)
        report = await self.transport.deliver(request(server.nexthop, content=Watched(self.BIG * 2)))
        text = "conversation with 127.0.0.1[127.0.0.1] timed out while sending message body"
        self.assertEqual(report.outcomes[0].text, text)
        self.assertLess(max(reads), len(self.BIG), "it was read no further than the network took it")

    async def test_stop_says_quit(self) -> None:
        server = self.serve()
        await self.outcome(server)
        await self.transport.stop()
