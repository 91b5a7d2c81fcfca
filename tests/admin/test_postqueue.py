"""
C{qmqpd-tx postqueue}: what a person sees of a real queue, and what the command ends with.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.admin.control import ControlService
from qmqpd_tx.bounce.records import encode_outcome
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import MessageNotFound
from qmqpd_tx.message import LogKind, Recipient
from qmqpd_tx.spool.store import FileMailQueue
from qmqpd_tx.status import Action, Outcome
from tests.admin.support import ARRIVAL, Case, command


class QueueCase(Case):
    """A queue on disk, and the command that looks at it."""

    def setUp(self) -> None:
        super().setUp()
        self.arguments = ("-c", str(self.folder), "postqueue")


class ShowTests(QueueCase):
    """-p and -j, while the service is down."""

    async def test_plain(self) -> None:
        """Each queue's messages, with marks, and reasons for those that were tried."""
        ids = await self.fill()
        status, output, errors = command(*self.arguments, "-p")
        self.assertEqual((status, errors), (0, ""))
        self.assertTrue(
            output.startswith("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient"), output
        )
        self.assertRegex(output, rf"(?m)^{ids['deferred']}      31 .* MAILER-DAEMON$")
        self.assertRegex(output, rf"(?m)^{ids['hold']}!      31 .* s@source.test$")
        self.assertRegex(output, rf"(?m)^{ids['active']}\*      31 ")
        self.assertRegex(output, rf"(?m)^{ids['incoming']}      31 ")
        self.assertTrue(output.endswith("-- 0 Kbytes in 4 Requests.\n"))
        deferred = next(part for part in output.split("\n\n") if ids["deferred"] in part)
        shown = [line.strip() for line in deferred.splitlines() if re.match(r"[ (]", line)]
        self.assertEqual(
            shown,
            [
                "(connect to x[192.0.2.1]:25: refused)",
                "c@dst.test",
                "(host x said: 450?no)",
                '"b b"@dst.test',
                "new@dst.test",
            ],
        )

    async def test_json(self) -> None:
        """One object a line and message."""
        ids = await self.fill()
        status, output, _ = command(*self.arguments, "-j")
        self.assertEqual(status, 0)
        records = {record["queue_name"]: record for record in map(json.loads, output.splitlines())}
        self.assertEqual({name: record["queue_id"] for name, record in records.items()}, ids)
        self.assertEqual(records["hold"]["arrival_time"], int(ARRIVAL))
        self.assertEqual(
            records["deferred"]["recipients"][0],
            {"address": "c@dst.test", "delay_reason": "connect to x[192.0.2.1]:25: refused"},
        )

    async def test_damaged(self) -> None:
        """A file that makes no sense is named; the rest is shown; the status says so."""
        ids = await self.fill()
        path = self.spool / "hold" / ids["hold"]
        path.write_bytes(b"garbage" + path.read_bytes()[7:])
        path.chmod(0o700)
        status, output, errors = command(*self.arguments, "-p")
        self.assertEqual(status, 65)
        self.assertIn("in 3 Requests", output)
        self.assertIn(f"hold/{ids['hold']}", errors)

    def test_empty(self) -> None:
        """An empty queue."""
        self.assertEqual(command(*self.arguments, "-p"), (0, "Mail queue is empty\n", ""))
        self.assertEqual(command(*self.arguments, "-j"), (0, "", ""))

    def test_looking_changes_nothing(self) -> None:
        """A listing makes no folder and no lock."""
        command(*self.arguments, "-p")
        self.assertEqual(list(self.spool.iterdir()), [])

    def test_reader_has_seen_enough(self) -> None:
        """A pipe that is closed early (C{| head}) is no error."""
        import subprocess
        import sys

        root = Path(__file__).resolve().parent.parent.parent
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "qmqpd_tx.admin.main", *self.arguments, "-p"],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write)
        self.assertEqual((done.returncode, done.stderr), (0, b""))


class StreamTests(QueueCase):
    """Standard streams that are not as they should be."""

    def end(self, redirections: str, *arguments: str, encoding: str = "utf-8") -> tuple[int, bytes]:
        """
        @return: exit status and standard error of a real process.
        """
        import subprocess
        import sys

        root = Path(__file__).resolve().parent.parent.parent
        done = subprocess.run(
            [
                *("sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "qmqpd_tx.admin.main"),
                *("-c", str(self.folder), *arguments),
            ],
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": encoding},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stderr

    def test_full(self) -> None:
        """Output that cannot be written is an error in one line."""
        for arguments in (("postconf", "-d"), ("postqueue", "-p")):
            self.assertEqual(self.end(">/dev/full", *arguments), (75, b"qmqpd-tx: No space left on device\n"))

    def test_no_input(self) -> None:
        """Nor is there a message without a standard input."""
        for more in ((), ("--recipients-file", "-", "--message", "/dev/null")):
            status, errors = self.end("<&-", "send", "--from", "a@b", "--server", "127.0.0.1:9", *more, "c@d")
            self.assertEqual(errors.count(b"\n"), 1, errors)
            self.assertEqual(status, 55 if more else 54)

    async def test_encoding(self) -> None:
        """What the terminal cannot show does not end the listing."""
        ids = await self.fill()
        config = config_from_text(f"queue_directory = {self.spool}\n")
        store = FileMailQueue(config, self.reactor)
        await store.start()
        reason = Outcome(Recipient(b"c@dst.test", b"c@dst.test", 0), Action.DEFERRED, "4.0.0", "\u20ac full")
        await store.append_log(LogKind.DEFER, ids["deferred"], [encode_outcome(reason)], False)
        await store.stop()
        for option in ("-p", "-j"):
            self.assertEqual(self.end(">/dev/null", "postqueue", option, encoding="latin-1"), (0, b""))


class FlushTests(QueueCase):
    """-f and -i."""

    def serve(self) -> list[Any]:
        """
        Run a control socket.

        @return: the commands that come.
        """
        seen: list[Any] = []

        def deliver_now(members: Mapping[str, Any]) -> None:
            seen.append(members["queue_id"])
            if members["queue_id"] != "316BTD3SSHJ":
                raise MessageNotFound(f"{members['queue_id']}: not in the deferred queue")

        def flush_site(members: Mapping[str, Any]) -> int:
            seen.append(members["site"])
            if members["site"] != "dst.test":
                site = members["site"]
                raise ControlError(f'Flush service is not configured for destination "{site}"')
            return 3

        (self.spool / "public").mkdir()
        service = ControlService(
            reactor=self.reactor,
            clock=self.reactor,
            path=self.spool / "public" / "control",
            handlers={
                "flush": lambda _: seen.append("flush"),
                "deliver_now": deliver_now,
                "flush_site": flush_site,
            },
        )
        service.startService()

        def stop() -> Deferred[None]:
            return service.stopService()

        self.addCleanup(stop)
        return seen

    async def test_flush(self) -> None:
        """-f reaches the service."""
        seen = self.serve()
        self.assertEqual(await deferToThread(command, *self.arguments, "-f"), (0, "", ""))
        self.assertEqual(seen, ["flush"])

    async def test_one(self) -> None:
        """-i reaches the service with its id."""
        seen = self.serve()
        self.assertEqual(await deferToThread(command, *self.arguments, "-i", "316BTD3SSHJ"), (0, "", ""))
        self.assertEqual(seen, ["316BTD3SSHJ"])

    async def test_unknown(self) -> None:
        """An id that is not in the queue is an error that says so."""
        self.serve()
        status, _, errors = await deferToThread(command, *self.arguments, "-i", "NOSUCH")
        self.assertEqual((status, errors), (69, "qmqpd-tx: NOSUCH: not in the deferred queue\n"))

    async def test_site(self) -> None:
        """-s reaches the service with its site; -v says how much there was."""
        seen = self.serve()
        self.assertEqual(await deferToThread(command, *self.arguments, "-s", "dst.test"), (0, "", ""))
        status, _, errors = await deferToThread(command, *self.arguments, "-v", "-s", "dst.test")
        self.assertEqual((status, errors.splitlines()[-1]), (0, "qmqpd-tx: 3 messages made active"))
        self.assertEqual(seen, ["dst.test"] * 2)

    async def test_other_site(self) -> None:
        """A site that is not served is named safely."""
        self.serve()
        status, _, errors = await deferToThread(command, *self.arguments, "-s", "x\n")
        self.assertEqual(status, 69)
        self.assertEqual(errors, 'qmqpd-tx: Flush service is not configured for destination "x?"\n')

    def test_down(self) -> None:
        """Without a service: Postfix's words, and 69."""
        for arguments in (("-f",), ("-i", "316BTD3SSHJ"), ("-s", "dst.test")):
            self.assertEqual(
                command(*self.arguments, *arguments),
                (69, "", "qmqpd-tx: cannot flush mail queue - mail system is down\n"),
            )

    def test_bad_id(self) -> None:
        """What is no queue id goes nowhere, and is shown safely."""
        status, _, errors = command(*self.arguments, "-i", "../x\n\x1b[2J")
        self.assertEqual(status, 64)
        self.assertEqual(errors, 'qmqpd-tx: cannot flush queue ID - invalid name: "../x??[2J"\n')


class UsageTests(QueueCase):
    """Wrong use of the command."""

    def test_action(self) -> None:
        """Exactly one action."""
        for arguments in ((), ("-p", "-j"), ("-f", "-i", "ABC"), ("-s", "x", "-f"), ("--explain", "A", "-p")):
            status, output, errors = command(*self.arguments, *arguments)
            self.assertEqual((status, output), (64, ""))
            self.assertIn("exactly one of", errors)

    def test_unknown_command(self) -> None:
        """An unknown command or option is wrong usage."""
        self.assertEqual(command("nosuch")[0], 64)
        self.assertEqual(command(*self.arguments, "--nosuch")[0], 64)

    def test_help(self) -> None:
        """Every command explains itself, without any configuration."""
        status, output, _ = command("--help")
        self.assertEqual(status, 0)
        for name in ("postconf", "postqueue", "send"):
            self.assertIn(name, output)
            status, text, _ = command("-c", "/nonexistent", name, "--help")
            self.assertEqual(status, 0)
            self.assertIn("Usage: qmqpd-tx", text)

    def test_no_configuration(self) -> None:
        """A missing main.cf is named, with what to do."""
        status, _, errors = command("-c", "/nonexistent", "postqueue", "-p")
        self.assertEqual(status, 78)
        self.assertIn("/nonexistent/main.cf", errors)
        self.assertIn("-c", errors)

    def test_no_queue(self) -> None:
        """A queue_directory that is not there is not an empty queue."""
        self.spool.rmdir()
        status, output, errors = command(*self.arguments, "-p")
        self.assertEqual((status, output), (78, ""))
        self.assertIn("queue_directory", errors)

    def test_mail_config(self) -> None:
        """MAIL_CONFIG names the folder, as for Postfix's commands."""
        self.patch(os, "environ", {**os.environ, "MAIL_CONFIG": str(self.folder)})
        self.assertEqual(command("postqueue", "-p"), (0, "Mail queue is empty\n", ""))
