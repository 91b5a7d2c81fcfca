"""
C{qmqpd-tx postqueue --explain}: the words for people, and what the files of a stopped service say.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.explaining import duration, in_words, quoted
from tests.admin.support import ARRIVAL, Case, command

NOW = 1_795_325_003.0


def waiting(reason: str, text: str, **more: Any) -> dict[str, Any]:
    """
    @return: one thing that is waited for, as the service tells it.
    """
    nothing = dict.fromkeys(("since", "until", "behind", "ahead", "busy", "limit"))
    return {**nothing, "reason": reason, "text": text, **more}


def recipient(address: str, *waits: dict[str, Any], **more: Any) -> dict[str, Any]:
    """
    @return: one recipient, as the service tells it.
    """
    rest = {"transport": "smtp", "nexthop": "dst.test", "last": None, "next_attempt": None}
    return {"address": address, "original": address, **rest, "waits": list(waits), **more}


def message(*recipients: dict[str, Any], **more: Any) -> dict[str, Any]:
    """
    @return: an explanation, as the service tells it.
    """
    return {
        "queue_id": "316BTD3SSHJ",
        "queue": "deferred",
        "sender": "s@source.test",
        "size": 31,
        "arrival_time": NOW - 260,
        "recipient_count": 5,
        "recipients": list(recipients),
        "more": False,
        "waits": [],
        **more,
    }


class WordsTests(SynchronousTestCase):
    """From an explanation to lines."""

    def lines(self, explained: dict[str, Any]) -> list[str]:
        """
        @return: the lines, with local times as T.
        """
        weekday = r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} \d\d \d\d:\d\d:\d\d"
        return [re.sub(weekday, "T", line) for line in in_words(quoted(explained), NOW)]

    def test_deferred(self) -> None:
        """Each recipient has a block: where to, what happened, when again, and what for it waits."""
        again = waiting("its next attempt", "it has failed before", until=NOW + 260)
        dead = waiting("a dead destination", "connect to x: refused", until=NOW + 7200)
        last = {"dsn": "4.4.1", "text": "connect to x\n: refused", "relay": "none"}
        explained = message(
            recipient("b b@dst.test", again, dead, last=last, next_attempt=NOW + 260),
            recipient("c@dst.test", again, next_attempt=NOW + 260, original="C@alias.test"),
            waits=[again],
        )
        self.assertEqual(
            self.lines(explained),
            [
                "316BTD3SSHJ: deferred, 31 bytes from s@source.test",
                "    arrived       T, 4 min 20 s ago",
                "    recipients    2 of 5 still to do",
                "",
                '"b b"@dst.test',
                "    destination   smtp:dst.test",
                "    last status   4.4.1: connect to x?: refused",
                "    next attempt  T, in 4 min 20 s",
                "    waits for     its next attempt: it has failed before",
                "    and for       a dead destination: connect to x: refused, until T, in 2 h",
                "",
                "c@dst.test",
                "    sent to       C@alias.test",
                "    destination   smtp:dst.test",
                "    last status   none known",
                "    next attempt  T, in 4 min 20 s",
                "    waits for     its next attempt: it has failed before",
            ],
        )

    def test_active(self) -> None:
        """Under way, behind another, and what an operator wants."""
        under_way = waiting("being delivered", "being delivered", since=NOW - 3)
        turn = waiting("its turn", "behind 316BTD3SSHK; 4 deliveries are before it")
        last = {"dsn": "4.2.0", "text": "busy", "relay": "mx[192.0.2.1]:25"}
        lines = self.lines(
            message(
                recipient("b@dst.test", under_way),
                recipient("c@dst.test", turn, last=last, transport=None, nexthop=None),
                queue="active",
                sender="",
                more=True,
                waits=[waiting("an operator's action", "to hold it")],
            )
        )
        self.assertEqual(lines[0], "316BTD3SSHJ: active, 31 bytes from MAILER-DAEMON")
        self.assertEqual(lines[2], "    recipients    2 or more of 5 still to do")
        self.assertEqual(lines[3], "    waits for     an operator's action: to hold it")
        self.assertEqual(lines[7], "    now           being delivered, since T, 3 s ago")
        self.assertEqual(
            lines[10:12],
            [
                "    last status   4.2.0, relay mx[192.0.2.1]:25: busy",
                "    waits for     its turn: behind 316BTD3SSHK; 4 deliveries are before it",
            ],
        )
        self.assertEqual(lines[-1], "(the first 2 recipients; there are others)")

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_anything(self, address: str, text: str) -> None:
        """Whatever addresses and replies hold, no line can drive a terminal."""
        address = address.encode("utf-8", "backslashreplace").decode()
        last = {"dsn": text, "text": text, "relay": text}
        explained = message(recipient(address, waiting(text, text), last=last), sender=address)
        for line in in_words(quoted(explained), NOW):
            self.assertTrue(line.isprintable(), repr(line))

    def test_duration(self) -> None:
        """Two units, and no more than needed."""
        for seconds, words in (
            (0, "0 s"),
            (0.4, "0 s"),
            (59.6, "1 min"),
            (260, "4 min 20 s"),
            (3600, "1 h"),
            (3605, "1 h"),
            (3661, "1 h 1 min"),
            (2 * 86400 + 3 * 3600 + 59, "2 d 3 h"),
            (-5, "0 s"),
        ):
            self.assertEqual(duration(seconds), words)


class StoppedTests(Case):
    """From the files, while no service runs."""

    def explain(self, *arguments: str) -> tuple[int, str, str]:
        """
        @return: exit status, standard output and standard error.
        """
        return command("-c", str(self.folder), "postqueue", "--explain", *arguments)

    async def test_deferred(self) -> None:
        """Next attempt and last status are known; that nobody is there to try it is said first."""
        ids = await self.fill()
        status, output, errors = self.explain(ids["deferred"])
        self.assertEqual((status, errors), (0, ""))
        blocks = output.split("\n\n")
        self.assertEqual(len(blocks), 4)
        self.assertIn(": deferred, 31 bytes from MAILER-DAEMON", blocks[0])
        self.assertIn("    recipients    3 of 3 still to do", blocks[0])
        tried = next(block for block in blocks if block.startswith("c@dst.test"))
        self.assertIn("    last status   4.4.1: connect to x[192.0.2.1]:25: refused", tried)
        self.assertIn("    next attempt  ", tried)
        self.assertIn("    waits for     the service: the mail system is not running", tried)
        new = next(block for block in blocks if block.startswith("new@dst.test"))
        self.assertIn("    last status   none known", new)

    async def test_hold(self) -> None:
        """Held mail waits for a person, with or without a service."""
        ids = await self.fill()
        output = self.explain(ids["hold"])[1]
        self.assertIn("    waits for     its release from hold: it is on hold until somebody", output)
        self.assertNotIn("next attempt", output)

    async def test_json(self) -> None:
        """One object with the same, and whether the service runs."""
        ids = await self.fill()
        status, output, _ = self.explain(ids["deferred"], "--json")
        self.assertEqual((status, output.count("\n")), (0, 1))
        told = json.loads(output)
        self.assertEqual((told["queue"], told["service_running"]), ("deferred", False))
        self.assertEqual([one["next_attempt"] for one in told["recipients"]], [ARRIVAL] * 3)
        quoted_address = [one["address"] for one in told["recipients"]][1]
        self.assertEqual(quoted_address, '"b b"@dst.test')
        self.assertEqual(told["recipients"][2]["last"]["dsn"], "4.4.1")

    async def test_damaged(self) -> None:
        """A file that makes no sense is named as what is waited for."""
        ids = await self.fill()
        path = self.spool / "hold" / ids["hold"]
        path.write_bytes(b"garbage" + path.read_bytes()[7:])
        path.chmod(0o700)
        status, output, _ = self.explain(ids["hold"])
        self.assertEqual(status, 0)
        self.assertIn("somebody to look at a damaged file: ", output)

    def test_unknown(self) -> None:
        """What is not there, and what cannot be an id."""
        for queue_id in ("316BTD3SSHJ", "NOSUCH"):
            status, output, errors = self.explain(queue_id)
            self.assertEqual((status, output), (69, ""))
            self.assertIn(f"qmqpd-tx: {queue_id}: no such message", errors)
        status, _, errors = self.explain("../x\n")
        self.assertEqual((status, errors), (64, 'qmqpd-tx: cannot explain - invalid queue ID: "../x?"\n'))
