"""
C{qmqpd-tx postsuper} on a queue that no service has, and what its command line may say.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from qmqpd_tx.admin.steps import LINE_LIMIT, Step, UsageError, batches, lines, parse
from qmqpd_tx.config import config_from_text
from qmqpd_tx.message import Queue
from qmqpd_tx.spool.offline import Change
from qmqpd_tx.spool.store import FileMailQueue
from tests.admin.support import Case, command

ROOT = Path(__file__).resolve().parent.parent.parent


class StopCase(Case):
    """A filled queue without a service."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.ids = await self.fill()

    def run_it(self, *arguments: str, stdin: bytes = b"") -> tuple[int, list[str]]:
        """
        @return: exit status, and the lines on standard error.
        """
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status, output, errors = command("-c", str(self.folder), "postsuper", *arguments)
        self.assertEqual(output, "")
        return status, errors.splitlines()

    def places(self) -> dict[str, str]:
        """
        @return: queue by queue id.
        """
        return {
            path.name: queue.value
            for queue in Queue
            for path in (self.spool / queue.value).rglob("*")
            if path.is_file()
        }

    def logged(self) -> list[str]:
        """
        @return: what postsuper has put into the mail log.
        """
        text = self.log.read_text() if self.log.exists() else ""
        found = [line.split(" ", 4)[-1].partition("]: ") for line in text.splitlines()]
        return [line for program, _, line in found if program.startswith("postfix/postsuper[")]


class ChangeTests(StopCase):
    """Each change, by id."""

    def test_hold(self) -> None:
        """Mail is held from every queue but hold, and both terminal and log say so."""
        for queue in ("incoming", "active", "deferred"):
            said = [f"{self.ids[queue]}: placed on hold", "Placed on hold: 1 message"]
            status, errors = self.run_it("-h", self.ids[queue])
            self.assertEqual((status, errors), (0, [f"postsuper: {text}" for text in said]))
            self.assertEqual(self.logged()[-2:], said)
        self.assertEqual(set(self.places().values()), {"hold"})
        status, errors = self.run_it("-h", self.ids["hold"])
        self.assertEqual((status, errors), (0, ["postsuper: Placed on hold: 0 messages"]))

    def test_release(self) -> None:
        """Held mail goes to deferred; mail that is not held stays where it is."""
        status, errors = self.run_it("-H", self.ids["hold"], "-H", self.ids["active"])
        self.assertEqual(status, 0)
        said = [f"{self.ids['hold']}: released from hold", "Released from hold: 1 message"]
        self.assertEqual(errors, [f"postsuper: {text}" for text in said])
        self.assertEqual(self.places()[self.ids["hold"]], "deferred")
        self.assertEqual(self.places()[self.ids["active"]], "active")

    def test_delete(self) -> None:
        """A message is deleted wherever it is, with its logs."""
        for queue, queue_id in self.ids.items():
            status, errors = self.run_it("-d", queue_id)
            self.assertEqual((status, errors[0]), (0, f"postsuper: {queue_id}: removed"), queue)
            self.assertEqual(errors[1:], ["postsuper: Deleted: 1 message"])
        self.assertEqual(self.places(), {})
        self.assertEqual([path for path in (self.spool / "defer").rglob("*") if path.is_file()], [])

    def test_requeue(self) -> None:
        """A requeued message is due at once, from incoming."""
        arguments = [text for queue_id in self.ids.values() for text in ("-r", queue_id)]
        status, errors = self.run_it(*arguments)
        self.assertEqual((status, errors[-1]), (0, "postsuper: Requeued: 4 messages"))
        self.assertEqual(set(self.places().values()), {"incoming"})

    def test_unknown(self) -> None:
        """What is not there is passed over, and is no failure."""
        for queue_id in ("316BTD3SSHJ", "NOSUCH", "CDCC1222286"):
            self.assertEqual(self.run_it("-d", queue_id), (0, ["postsuper: Deleted: 0 messages"]))

    def test_impossible(self) -> None:
        """What cannot be a queue id is shown safely, goes nowhere, and is no failure."""
        for name, shown in (
            ("../../etc/passwd", "../../etc/passwd"),
            ("", ""),
            ("a b", "a b"),
            ("x\n\x1b[2J", "x??[2J"),
            ("\udcff\N{LATIN SMALL LETTER E WITH ACUTE}", "?\N{LATIN SMALL LETTER E WITH ACUTE}"),
            ("all", None),
        ):
            expected = [
                f"postsuper: warning: invalid mail queue id: {shown}",
                "postsuper: Deleted: 0 messages",
            ]
            self.assertEqual(self.run_it("-d", name), (0, expected[shown is None :]))
        self.assertEqual(len(self.places()), 4)

    def test_order(self) -> None:
        """Options are obeyed in their order, each to its end."""
        queue_id = self.ids["deferred"]
        status, errors = self.run_it("-h", queue_id, "-H", queue_id, "-h", queue_id, "-d", queue_id)
        expected = [
            f"{queue_id}: placed on hold",
            f"{queue_id}: released from hold",
            f"{queue_id}: placed on hold",
            f"{queue_id}: removed",
            "Deleted: 1 message",
            "Placed on hold: 2 messages",
            "Released from hold: 1 message",
        ]
        self.assertEqual((status, errors), (0, [f"postsuper: {text}" for text in expected]))
        self.assertEqual(self.logged(), expected)

    def test_queues(self) -> None:
        """Only the queues that are named are looked into."""
        queue_id = self.ids["deferred"]
        self.assertEqual(self.run_it("-d", queue_id, "hold"), (0, ["postsuper: Deleted: 0 messages"]))
        self.assertEqual(self.run_it("-d", queue_id, "bounce"), (0, ["postsuper: Deleted: 0 messages"]))
        status, errors = self.run_it("-d", queue_id, "active", "deferred")
        self.assertEqual((status, errors[-1]), (0, "postsuper: Deleted: 1 message"))


class AllTests(StopCase):
    """ALL."""

    def test_hold_and_release(self) -> None:
        """All but what is held is held; all of it is released; single messages are not named."""
        self.assertEqual(self.run_it("-h", "ALL"), (0, ["postsuper: Placed on hold: 3 messages"]))
        self.assertEqual(set(self.places().values()), {"hold"})
        self.assertEqual(self.run_it("-H", "ALL"), (0, ["postsuper: Released from hold: 4 messages"]))
        self.assertEqual(set(self.places().values()), {"deferred"})
        self.assertEqual(self.logged(), ["Placed on hold: 3 messages", "Released from hold: 4 messages"])

    def test_one_queue(self) -> None:
        """ALL of one queue is all of that one."""
        for queue in ("incoming", "active", "deferred", "hold"):
            self.assertEqual(self.run_it("-d", "ALL", queue), (0, ["postsuper: Deleted: 1 message"]))
            self.assertNotIn(queue, self.places().values())

    def test_elsewhere(self) -> None:
        """Release finds nothing but in hold, hold nothing in hold."""
        self.assertEqual(
            self.run_it("-H", "ALL", "deferred"), (0, ["postsuper: Released from hold: 0 messages"])
        )
        self.assertEqual(self.run_it("-h", "ALL", "hold"), (0, ["postsuper: Placed on hold: 0 messages"]))

    def test_order(self) -> None:
        """Mixed with single messages: in the order of the command line."""
        held = self.ids["deferred"]
        status, errors = self.run_it("-h", held, "-d", "ALL", "-H", "ALL")
        expected = [
            f"postsuper: {held}: placed on hold",
            "postsuper: Deleted: 4 messages",
            "postsuper: Placed on hold: 1 message",
            "postsuper: Released from hold: 0 messages",
        ]
        self.assertEqual((status, errors), (0, expected))

    def test_verbose(self) -> None:
        """-v tells how far it is."""
        status, errors = self.run_it("-v", "-r", "ALL")
        self.assertEqual((status, errors[-1]), (0, "postsuper: Requeued: 4 messages"))
        self.assertIn("postsuper: requeue: 4 so far", errors)


class StreamTests(StopCase):
    """Ids on standard input."""

    def test_mixed(self) -> None:
        """Good, unknown and impossible lines, the last without an end: only the good ones count."""
        first, second = self.ids["deferred"], self.ids["active"]
        stdin = f"NOSUCH\n../../etc\n\n {second} \n{first}\r\n{first}\n{first}\n{second}".encode()
        status, errors = self.run_it("-d", "-", stdin=stdin)
        warned = ["../../etc", "", f" {second} ", f"{first}?"]
        expected = [f"postsuper: warning: invalid mail queue id: {name}" for name in warned]
        expected += [f"postsuper: {first}: removed", f"postsuper: {second}: removed"]
        self.assertEqual((status, errors), (0, [*expected, "postsuper: Deleted: 2 messages"]))

    def test_long_line(self) -> None:
        """A line of ten million bytes is one impossible id, and the next line is read."""
        queue_id = self.ids["hold"]
        status, errors = self.run_it("-H", "-", stdin=b"A" * 10_000_000 + b"\n" + queue_id.encode() + b"\n")
        self.assertEqual(status, 0)
        self.assertEqual(errors[0], f"postsuper: warning: invalid mail queue id: {'A' * 100}...")
        self.assertEqual(
            errors[1:],
            [f"postsuper: {queue_id}: released from hold", "postsuper: Released from hold: 1 message"],
        )

    def test_binary(self) -> None:
        """Control characters and bytes that are no text are shown safely."""
        status, errors = self.run_it("-d", "-", stdin=b"\x00AB\n\x1b[2J\n\xff\xc3\xa9\n")
        self.assertEqual(status, 0)
        shown = [line.rpartition(": ")[2] for line in errors[:-1]]
        self.assertEqual(shown, ["?AB", "?[2J", "?\N{LATIN SMALL LETTER E WITH ACUTE}"])

    def test_nothing(self) -> None:
        """An empty or closed standard input is no id; a second - finds nothing any more."""
        self.assertEqual(self.run_it("-d", "-"), (0, ["postsuper: Deleted: 0 messages"]))
        done = subprocess.run(
            [
                *("sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "qmqpd_tx.admin.main"),
                *("-c", str(self.folder), "postsuper", "-d", "-"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b"postsuper: Deleted: 0 messages\n"))
        queue_id = self.ids["deferred"]
        status, errors = self.run_it("-h", "-", "-d", "-", stdin=queue_id.encode())
        self.assertEqual(
            (status, errors[1:]),
            (0, ["postsuper: Deleted: 0 messages", "postsuper: Placed on hold: 1 message"]),
        )


class RefuseTests(StopCase):
    """What postsuper does not do."""

    def fatal(self, *arguments: str) -> str:
        """
        @return: the line with which it fails; nothing was done.
        """
        before = self.places()
        status, errors = self.run_it(*arguments)
        self.assertEqual((status, len(errors)), (1, 1), errors)
        self.assertEqual(self.places(), before)
        self.assertTrue(errors[0].startswith("postsuper: fatal: "), errors)
        return errors[0].removeprefix("postsuper: fatal: ")

    def test_usage(self) -> None:
        """Wrong usage is fatal before anything is done."""
        self.assertIn("usage: ", self.fatal("-x"))
        self.assertIn("usage: ", self.fatal("-d"))
        self.assertEqual(self.fatal("-h", "ALL", "nosuchqueue"), "invalid directory name: nosuchqueue")
        self.assertEqual(self.fatal("-h", "ALL", "corrupt"), "invalid directory name: corrupt")
        self.assertEqual(self.fatal("-d", "ALL", "/etc"), "invalid directory name: /etc")
        self.assertEqual(self.fatal("deferred", "-d", "ALL"), "invalid directory name: -d")
        self.assertEqual(self.fatal("-d", "ALL", "x\n\x1b"), "invalid directory name: x??")
        self.assertIn("not supported", self.fatal("-e", "ALL"))
        self.assertIn("not supported", self.fatal("-f", "ALL"))

    async def test_locked(self) -> None:
        """A service that has the queue but takes no commands keeps it."""
        config = config_from_text(f"queue_directory = {self.spool}\n")
        store = FileMailQueue(config, self.reactor)
        await store.start()
        await store.recovered()
        try:
            text = self.fatal("-d", "ALL")
        finally:
            await store.stop()
        self.assertIn("it is starting or stopping", text)
        self.assertIn(str(os.getpid()), text)

    def test_no_queue(self) -> None:
        """A wrong configuration is named."""
        (self.folder / "main.cf").write_text("queue_directory = /nonexistent/x\n")
        self.assertIn(
            "/nonexistent/x: No such file or directory; check queue_directory", self.fatal("-d", "ALL")
        )
        (self.folder / "main.cf").unlink()
        self.assertIn("main.cf", self.fatal("-d", "ALL"))

    def test_structure(self) -> None:
        """-s, -S, -p and nothing at all are accepted: there is nothing to do."""
        for arguments in (("-s",), ("-S",), ("-p",), (), ("-ps", "deferred")):
            self.assertEqual(self.run_it(*arguments), (0, []))
        status, errors = self.run_it("-v")
        self.assertEqual((status, len(errors)), (0, 1))

    def test_log_is_not_there(self) -> None:
        """A log that cannot be written does not keep anybody from the queue."""
        self.log.mkdir()
        status, errors = self.run_it("-d", "ALL")
        self.assertEqual((status, errors[-1]), (0, "postsuper: Deleted: 4 messages"))
        self.assertIn("warning: this is not logged", errors[0])


class OwnerTests(StopCase):
    """Who may."""

    def as_user(self, user: int, *arguments: str) -> tuple[int, str]:
        """
        @return: exit status and standard error of the command as another user.
        """
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        # The interpreter may be where only root can read.
        program = (
            "import difflib, os, qmqpd_tx.config, qmqpd_tx.admin.postsuper, qmqpd_tx.admin.main as command\n"
            f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
            "command.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "-c", str(self.folder), "postsuper", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    def give(self, owner: int) -> None:
        """
        Give the queue to somebody.
        """
        self.folder.chmod(0o755)
        for path in (self.spool, *self.spool.rglob("*")):
            os.chown(path, owner, owner)

    def test_stranger(self) -> None:
        """Neither root nor the owner: nothing is done."""
        self.give(12345)
        before = self.places()
        status, errors = self.as_user(12346, "-d", "ALL")
        self.assertEqual(status, 1)
        text = "use of this command is reserved for the superuser and user 12345, who has the queue"
        self.assertEqual(errors, f"postsuper: fatal: {text}\n")
        self.assertEqual(self.places(), before)

    def test_owner(self) -> None:
        """The owner may; a log that is not theirs is no obstacle."""
        self.give(12345)
        status, errors = self.as_user(12345, "-h", "ALL")
        self.assertEqual(status, 0)
        self.assertIn("warning: this is not logged: ", errors)
        self.assertTrue(errors.endswith("postsuper: Placed on hold: 3 messages\n"))

    def test_root(self) -> None:
        """What root does leaves nothing of root's in the queue, nor a log."""
        self.give(12345)
        self.folder.chmod(0o777)
        self.assertEqual(self.as_user(0, "-h", "ALL"), (0, "postsuper: Placed on hold: 3 messages\n"))
        self.assertEqual({path.stat().st_uid for path in self.spool.rglob("*")}, {12345})
        self.assertEqual(self.log.stat().st_uid, 12345)


class ParseTests(SynchronousTestCase):
    """Command lines and ids, without any queue."""

    def test_letters(self) -> None:
        """Each option is its change, in order, in any manner of writing."""
        request = parse(["-dA", "-h", "B", "-vH", "C", "-r", "-", "hold", "active", "hold"])
        changes = [Change.DELETE, Change.HOLD, Change.RELEASE, Change.REQUEUE]
        self.assertEqual(
            request.steps, [Step(change, name) for change, name in zip(changes, "ABC-", strict=True)]
        )
        self.assertEqual((request.queues, request.verbose), ([Queue.HOLD, Queue.ACTIVE], 1))
        self.assertIsNone(parse([]).queues)
        self.assertEqual(parse(["-d", "ALL", "bounce"]).queues, [])

    @given(st.lists(st.text(max_size=8), max_size=6))
    def test_anything(self, arguments: list[str]) -> None:
        """Any words make sense or are refused."""
        try:
            parse(arguments)
        except UsageError as problem:
            self.assertTrue(str(problem))

    @given(st.binary(max_size=3 * LINE_LIMIT))
    def test_lines(self, data: bytes) -> None:
        """Lines are those of the stream, each cut at a limit."""
        expected = data.split(b"\n")
        if not expected[-1]:
            expected.pop()
        found = [line.encode("utf-8", "surrogateescape") for line in lines(io.BytesIO(data))]
        self.assertEqual([line[:200] for line in found], [line[:200] for line in expected])
        self.assertTrue(all(len(line) <= LINE_LIMIT for line in found))

    @given(st.lists(st.sampled_from(["A", "B", "ALL", "-", "?"]), max_size=20), st.integers(1, 4))
    def test_batches(self, names: list[str], limit: int) -> None:
        """However it is cut, everything is asked for once, in order, and no piece is too long."""
        stream = io.BytesIO(b"X\nY\n!\nZ\n")
        refused: list[str] = []
        changes = [Change.HOLD, Change.DELETE]
        steps = [Step(changes[number // 3 % 2], name) for number, name in enumerate(names)]
        found = list(batches(steps, lambda: stream, refused.append, limit))
        expected: list[tuple[Change, str]] = []
        streamed = False
        for step in steps:
            if step.name != "-":
                expected += [(step.change, step.name)] * (step.name != "?")
            elif not streamed:
                streamed = True
                expected += [(step.change, name) for name in "XYZ"]
        flat = [(change, name) for change, ids in found for name in (["ALL"] if ids is None else ids)]
        # ALL and ALL again is ALL.
        self.assertEqual(
            flat, [one for key, run in groupby(expected) for one in ([key] if key[1] == "ALL" else run)]
        )
        self.assertTrue(all(1 <= len(ids) <= limit for _, ids in found if ids is not None))
        self.assertEqual(refused.count("!"), streamed)
