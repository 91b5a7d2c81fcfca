"""
C{qmqpd-tx postkick}: what reaches the queue manager's socket, and what a person is told.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.threads import deferToThread

from qmqpd_tx.qmgr.triggers import TriggerFactory, Triggers
from tests.admin.support import Case, command


class KickTests(Case):
    """postkick."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Triggers] = []

    def serve(self) -> None:
        """
        Listen as the queue manager does.
        """
        (self.spool / "public").mkdir()
        factory = TriggerFactory(self.seen.append, self.reactor)
        port = self.reactor.listenUNIX(os.fspath(self.spool / "public" / "qmgr"), factory, mode=0o600)
        self.addCleanup(port.stopListening)

    async def kick(self, *arguments: str) -> tuple[int, str, str]:
        """
        @return: exit status, standard output and standard error.
        """
        result: Any = await deferToThread(command, "-c", str(self.folder), "postkick", *arguments)
        return result

    async def until_seen(self, number: int) -> None:
        """
        Wait for requests.
        """
        from twisted.internet.task import deferLater

        while len(self.seen) < number:
            await deferLater(self.reactor, 0.001)

    async def test_letters(self) -> None:
        """Each letter arrives with its meaning; unknown ones arrive as well; -v says what is sent where."""
        self.serve()
        self.assertEqual(await self.kick("public", "qmgr", "FAD"), (0, "", ""))
        await self.until_seen(1)
        expected = Triggers(ignore_times=True, flush_dead=True, scan_deferred=True)
        self.assertEqual(self.seen, [expected])
        self.assertEqual(await self.kick("public", "qmgr", "I?\udcff"), (0, "", ""))
        await self.until_seen(2)
        self.assertEqual(self.seen[1], Triggers(scan_incoming=True, unknown=b"?\xff"))
        status, _, errors = await self.kick("-v", "public", "qmgr", "D")
        self.assertEqual((status, errors), (0, f"postkick: 1 bytes to {self.spool}/public/qmgr\n"))
        await self.until_seen(3)

    async def test_nothing(self) -> None:
        """An empty request needs nobody to listen."""
        self.assertEqual(await self.kick("public", "qmgr", ""), (0, "", ""))

    async def test_down(self) -> None:
        """Without a service, and with a socket that a dead one left behind: Postfix's words."""
        text = (
            "postkick: warning: Cannot contact class public service qmgr - perhaps the mail system is down\n"
        )
        self.assertEqual(await self.kick("public", "qmgr", "FAD"), (1, "", text))
        import socket

        (self.spool / "public").mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(os.fspath(self.spool / "public" / "qmgr"))
        self.assertEqual(await self.kick("public", "qmgr", "FAD"), (1, "", text))

    async def test_unknown_service(self) -> None:
        """Another class or service is refused by name, shown safely, and is no path."""
        for kind, service in (
            ("private", "qmgr"),
            ("public", "nosuch"),
            ("public", "../qmgr"),
            ("bogus", "x\n"),
        ):
            status, output, errors = await self.kick(kind, service, "D")
            self.assertEqual((status, output), (1, ""))
            shown = service.replace("\n", "?")
            self.assertEqual(
                errors,
                f"postkick: warning: Cannot contact class {kind} service {shown} - "
                "there is only public qmgr\n",
            )

    async def test_usage(self) -> None:
        """Too few, too many, unknown options, too long."""
        for arguments in ((), ("public", "qmgr"), ("public", "qmgr", "D", "x"), ("-x",)):
            status, _, errors = await self.kick(*arguments)
            self.assertEqual(status, 1)
            self.assertIn("postkick: fatal: usage: ", errors)
        status, _, errors = await self.kick("public", "qmgr", "A" * 5000)
        self.assertEqual((status, self.seen), (1, []))
        self.assertIn("too long", errors)

    async def test_no_configuration(self) -> None:
        """A missing main.cf."""
        (self.folder / "main.cf").unlink()
        status, _, errors = await self.kick("public", "qmgr", "D")
        self.assertEqual(status, 1)
        self.assertIn("main.cf", errors)
