"""
What the trigger bytes do, and C{postqueue -f}, C{-i} and C{postkick}: the same as in a running Postfix.

One scenario is played on both sides, step by step: mail is deferred at dead destinations and by
C{defer_transports}, and not due; then triggers are written, and it is noted what was tried, by whom, and
with which result. A trigger has no answer and no log line, so that I{nothing} is seen by something that comes
after it: new mail, which always comes through.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from signal import SIGPIPE

from tests.interop.qmgr_peers import OurSide, PostfixSide, Side, SideBySideTestCase, routes
from tests.peers import free_port, require
from tests.service import environment

HOURS = "5h"
"""More than any test takes: nothing is tried without a trigger."""

SETTINGS = {
    "minimal_backoff_time": HOURS,
    "maximal_backoff_time": HOURS,
    "queue_run_delay": HOURS,
    "initial_destination_concurrency": "1",
    "defer_transports": "slow",
}

MASTER = "slow unix - - n - - smtp\n"

TRIED, SUSPENDED, DEFERRED, SENT = "tried", "suspended", "deferred transport", "sent"


class Triggers:
    """
    One side with its mail.

    @ivar names: the messages by queue id.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.names: dict[str, str] = {}
        self._seen = 0
        self._probes = 0

    def defer(self, name: str, domain: str) -> None:
        """
        Send a message that is deferred.
        """
        queue_id = self.side.send(f"{name}@{domain}".encode())
        self.names[queue_id] = name
        self.side.wait_queue(queue_id, "deferred")
        self._seen = len(self.side.statuses())

    def happened(self) -> Mapping[str, str]:
        """
        @return: what has been tried since the last call, by message, when all is quiet again.
        """
        # New and deferred mail is taken in turns: whatever a trigger has begun is over when as many new
        # messages as there are deferred ones have come through.
        for _ in range(len(self.names)):
            self._probes += 1
            probe = self.side.send(f"probe{self._probes}@ok.test".encode())
            self.side.wait_queue(probe, None)
            self.side.wait_idle()
        found = {}
        statuses = self.side.statuses()
        for status in statuses[self._seen :]:
            if status.queue_id in self.names:
                found[self.names[status.queue_id]] = _kind(status.text, status.status)
        self._seen = len(statuses)
        return found

    def after(self, letters: bytes) -> Mapping[str, str]:
        """
        @return: what a trigger has started.
        """
        self.side.trigger(letters)
        return self.happened()


def _kind(text: str, status: str) -> str:
    if status == "sent":
        return SENT
    if text.startswith("delivery temporarily suspended: "):
        return SUSPENDED
    return DEFERRED if text == "deferred transport" else TRIED


class TriggerTestCase(SideBySideTestCase):
    """Starts both sides with dead destinations."""

    def sides(self) -> Sequence[Triggers]:
        """
        @return: Postfix and ours, with a message for each of two dead destinations and for a deferred
            transport; none of them is due.
        """
        sink = self.sink()
        settings = {
            **routes(
                {"ok.test": sink, "one.test": free_port(), "two.test": free_port(), "slow:slow.test": sink}
            ),
            **SETTINGS,
        }
        found = []
        for start in (self.postfix, self.ours):
            one = Triggers(start(settings, MASTER))
            one.defer("first", "one.test")
            one.defer("second", "two.test")
            one.defer("slow", "slow.test")
            found.append(one)
        return found


class TriggerTests(TriggerTestCase):
    """Bytes written to C{public/qmgr}."""

    def test_letters(self) -> None:
        """A, D, F, I, W, others, alone and together."""
        every = {"first": SUSPENDED, "second": SUSPENDED, "slow": DEFERRED}
        really = {"first": TRIED, "second": TRIED, "slow": SENT}
        for one in self.sides():
            seen = [
                ("D takes what is due: nothing", one.after(b"D"), {}),
                ("I, W and unknown ones", one.after(b"IWx\0\xff\n"), {}),
                ("A alone", one.after(b"A"), {}),
                ("A sticks until the next D", one.after(b"D"), every),
                ("and no longer", one.after(b"D"), {}),
                ("A and D in the wrong order", one.after(b"DA"), every),
                ("an unknown one before", one.after(b"xAxD"), every),
                ("F alone", one.after(b"F"), {}),
                ("F does not ignore times", one.after(b"FD"), {}),
                ("all, three times", one.after(b"DDDAAAFFF"), really),
                ("they are dead again", one.after(b"AD"), {"first": SUSPENDED, "second": SUSPENDED}),
            ]
            with self.subTest(one.side.name):
                self.assertEqual(
                    [(what, got) for what, got, _ in seen],
                    [(what, want) for what, _, want in seen],
                    one.side.name,
                )

    def test_dead_list(self) -> None:
        """F forgets the dead destinations: the next message is really tried, and then it is dead again."""
        for one in self.sides():
            seen = []
            for name, letters in (("new", b""), ("newer", b"F"), ("newest", b"")):
                if letters:
                    one.side.trigger(letters)
                queue_id = one.side.send(f"{name}@one.test".encode())
                one.names[queue_id] = name
                one.side.wait_queue(queue_id, "deferred")
                seen.append(one.happened())
            with self.subTest(one.side.name):
                self.assertEqual(seen, [{"new": SUSPENDED}, {"newer": TRIED}, {"newest": SUSPENDED}])

    def test_flush(self) -> None:
        """C{postqueue -i} tries one message, C{-f} all; dead destinations and defer_transports or not."""
        for one in self.sides():
            ids = {name: queue_id for queue_id, name in one.names.items()}
            one.side.postqueue("-i", ids["first"])
            one.side.wait_statuses(2, "one.test")
            first = one.happened()
            one.side.postqueue("-i", ids["slow"])
            one.side.wait_queue(ids["slow"], None)
            second = one.happened()
            one.side.postqueue("-f")
            third = one.happened()
            with self.subTest(one.side.name):
                self.assertEqual(first, {"first": TRIED})
                self.assertEqual(second, {"slow": SENT})
                self.assertEqual(third, {"first": TRIED, "second": TRIED})


class CommandTests(SideBySideTestCase):
    """The commands' exit statuses and words."""

    def test_commands(self) -> None:
        """What is taken without a word, and wrong use."""
        cases = [
            (["postkick", "public", "qmgr", "AFD"], 0, ""),
            (["postkick", "public", "qmgr", "x"], 0, ""),
            (["postkick", "public", "qmgr", ""], 0, ""),
            (["postkick", "public", "qmgr"], 1, "postkick: fatal: usage: "),
            (["postqueue", "-f"], 0, ""),
        ]
        settings = routes({"ok.test": self.sink()})
        for start in (self.postfix, self.ours):
            side = start(settings, "")
            for arguments, status, words in cases:
                found, said = run(side, arguments)
                if found == -SIGPIPE and side.name == "Postfix":
                    # Its postkick writes a NUL after the letters; by then the queue manager may have hung up.
                    found = 0
                # What usage is depends on how the command is called.
                end = said.find("usage: ") + len("usage: ") if "usage: " in said else len(said)
                with self.subTest(f"{side.name}: {arguments}"):
                    self.assertEqual((found, said[:end]), (status, words))


def run(side: Side, arguments: Sequence[str], input: str = "") -> tuple[int, str]:
    """
    Run an operator's command on one side.

    @param arguments: with the command's name.
    @return: its exit status, and what it said on standard error.
    """
    program, *rest = arguments
    if isinstance(side, PostfixSide):
        command = [require(program), "-c", str(side._postfix.config), *rest]
    else:
        assert isinstance(side, OurSide)
        tool = "from qmqpd_tx.admin.main import main; main()"
        folder = str(side._service.config.parent)
        command = [sys.executable, "-c", tool, "-c", folder, program, *rest]
    done = subprocess.run(
        command, input=input, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    return done.returncode, done.stderr
