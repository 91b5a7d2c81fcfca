"""Our SMTP client against Postfix's smtp-sink, with its many ways to misbehave."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from qmqpd_tx.interfaces import TransportContext
from qmqpd_tx.status import Action
from qmqpd_tx.transports.smtp import SMTPAgent
from tests.peers import free_port
from tests.transports.smtp.support import Content, Zone, config, request

SINK = shutil.which("smtp-sink", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Sink(ProcessProtocol):
    """The process."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)


class AgainstSink(TestCase):
    timeout = 60

    def setUp(self) -> None:
        if SINK is None:
            if os.environ.get("CI"):
                self.fail("smtp-sink is missing: install the postfix package")
            raise SkipTest("smtp-sink is not installed (Debian package postfix)")
        context = TransportContext("smtp", config("smtp_helo_timeout = 2\n"), reactor, Zone({}))
        self.transport = SMTPAgent().transport(context)
        self.addCleanup(lambda: self.transport.stop())

    async def sink(self, *options: str) -> str:
        """@return: the nexthop of a running sink."""
        assert SINK is not None
        port = free_port()
        user = ("-u", "postfix") if os.getuid() == 0 else ()
        arguments = [SINK, *user, *options, f"127.0.0.1:{port}", "100"]
        protocol = Sink()
        process = reactor.spawnProcess(protocol, SINK, arguments, env=dict(os.environ))

        async def end() -> None:
            process.signalProcess("KILL")
            await protocol.ended

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await deferLater(reactor, 0.05)
        return f"[127.0.0.1]:{port}"

    async def deliver(self, nexthop: str, content: bytes = b"Subject: x\n\nhello\n") -> Any:
        recipients = [b"a@to.test", b"b@to.test"]
        return await self.transport.deliver(
            request(nexthop, recipients=recipients, content=Content(content), eight_bit=True)
        )

    async def actions(self, nexthop: str) -> set[tuple[Action, str]]:
        return {(outcome.action, outcome.dsn) for outcome in (await self.deliver(nexthop)).outcomes}

    async def test_many_messages(self) -> None:
        nexthop = await self.sink()
        reports = await gatherResults(
            [Deferred.fromCoroutine(self.deliver(nexthop)) for _ in range(50)], consumeErrors=True
        )
        again = [await self.deliver(nexthop) for _ in range(50)]
        for report in [*reports, *again]:
            self.assertEqual({outcome.action for outcome in report.outcomes}, {Action.SENT})
        self.assertGreater(again[-1].connection_uses, 10)

    async def test_without_extensions(self) -> None:
        for options in (["-p"], ["-e"], ["-8"]):
            self.assertEqual(await self.actions(await self.sink(*options)), {(Action.SENT, "2.0.0")})

    async def test_large(self) -> None:
        nexthop = await self.sink()
        report = await self.deliver(nexthop, b"Subject: x\n\n" + b"x" * 70 * 150_000)
        self.assertEqual({outcome.action for outcome in report.outcomes}, {Action.SENT})

    async def test_rejections(self) -> None:
        for verb in ("mail", "rcpt", "data", "."):
            self.assertEqual(
                {a for a, _ in await self.actions(await self.sink("-f", verb))}, {Action.BOUNCED}
            )
            self.assertEqual(
                {a for a, _ in await self.actions(await self.sink("-r", verb))}, {Action.DEFERRED}
            )

    async def test_disconnects(self) -> None:
        for verb in ("connect", "ehlo", "mail", "rcpt", "data", "."):
            self.assertEqual(await self.actions(await self.sink("-q", verb)), {(Action.DEFERRED, "4.4.2")})
