"""
When mail is tried again, and what makes it be tried earlier: the same sequences from Postfix and from us.

Times are small here, and Postfix counts in whole seconds, so that they are compared with a tolerance; who is
tried, in which way and after which command is compared to the letter. What is not said of a step does not
happen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

from attrs import frozen

from tests.interop.qmgr_peers import Side, SideBySideTestCase, Status, routes

MASTER = "away unix - - n - - smtp\nkept unix - - n - - smtp\n"

WORDS = {
    "sent": "250 2.0.0 Ok: taken",
    "later": "host 127.0.0.1[127.0.0.1] said: 450 4.2.1 later (in reply to RCPT TO command)",
    "refused": "connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused",
    "suspended": "delivery temporarily suspended: connect to 127.0.0.1[127.0.0.1]:PORT: Connection refused",
    "unavailable": "mail transport unavailable",
    "kept": "deferred transport",
}
"""What becomes of a message: a word for the text of its C{status=} line."""

CODES = {
    "sent": ("smtp", "2.0.0", "sent"),
    "later": ("smtp", "4.2.1", "deferred"),
    "refused": ("smtp", "4.4.1", "deferred"),
    "suspended": ("error", "4.4.1", "deferred"),
    "unavailable": ("error", "4.3.0", "deferred"),
    "kept": ("error", "4.3.2", "deferred"),
}
"""The program, DSN and status that go with it."""

WARNING = "warning: connect to transport private/gone: No such file or directory"

MINIMAL = 2
MAXIMAL = 5
WATCHED = 8.0
"""How long the retries are watched, in seconds."""

TOLERANCE = 1.7
"""Whole seconds, and a slow machine."""


@frozen
class Try:
    """
    A delivery that was deferred, in seconds since 1970.

    @ivar after: a time before it.
    @ivar before: a time after it. Between the two nobody looked.
    @ivar due: when the message is to be tried again.
    """

    after: float
    before: float
    due: float


def backoff(age: float) -> float:
    """
    @return: for how long a message of this age is left alone.
    """
    return min(max(age, MINIMAL), MAXIMAL)


class RetriesTestCase(SideBySideTestCase):
    """
    Has four destinations: C{later.test} says 450 to each recipient, C{away.test} refuses connections (one at
    a time), C{gone.test} has a transport that is not there, C{kept.test} one that is in C{defer_transports}.
    """

    parameters: ClassVar[Mapping[str, str]] = {}

    def setUp(self) -> None:
        self.away = self.sink(listen=False)
        self.settings = {
            **routes(
                {
                    "later.test": self.sink({"rcpt": b"450 4.2.1 later"}),
                    "away:away.test": self.away,
                    "gone.test": "gone:nowhere.test",
                    "kept:kept.test": self.sink(),
                }
            ),
            "away_initial_destination_concurrency": "1",
            "defer_transports": "kept",
            **self.parameters,
        }

    def word(self, line: Status) -> str:
        """
        @return: the word of L{WORDS} for a line; the line itself when there is none.
        """
        for word, text in WORDS.items():
            found = (line.program, line.dsn, line.status, line.text)
            if found == (*CODES[word], text.replace("PORT", str(self.away.port))):
                return word
        return str(line)


class BackoffTests(RetriesTestCase):
    """When mail is tried again by itself."""

    parameters: ClassVar[Mapping[str, str]] = {
        "minimal_backoff_time": f"{MINIMAL}s",
        "maximal_backoff_time": f"{MAXIMAL}s",
        "queue_run_delay": "1s",
        "transport_retry_time": "4s",
    }

    def check(self, side: Side) -> None:
        """
        Watch the times on the files and in the log.
        """
        began = time.time()
        ids, sent = {}, {}
        for name in ("later", "away", "gone", "kept", "second"):
            if name == "second":
                # By then the destination is known to be dead.
                side.wait_queue(ids["away"], "deferred")
            before = time.time()
            ids[name] = side.send(b"user@%s.test" % (b"away" if name == "second" else name.encode()))
            sent[name] = (before, time.time())
        tries: dict[str, list[Try]] = {name: [] for name in ids}
        looked = sent["second"][1]
        while looked < began + WATCHED:
            time.sleep(0.05)
            now = time.time()
            for name, queue_id in ids.items():
                found = side.find(queue_id)
                times = tries[name]
                if found and found[0] == "deferred" and (not times or times[-1].due != found[1]):
                    times.append(Try(looked if times else sent[name][0], time.time(), found[1]))
            looked = now
        for name, times in tries.items():
            self.assertGreaterEqual(len(times), 3, f"{name} is not tried again: {times}")
            before, after = sent[name]
            for each in times:
                first = each.after + backoff(each.after - after)
                last = each.before + backoff(each.before - before)
                wanted = f"not from {first} to {last}"
                self.assertTrue(first - TOLERANCE < each.due < last + TOLERANCE, f"{name}: {times}, {wanted}")
            for one, two in pairwise(times):
                # A queue run each second.
                self.assertGreater(two.before, one.due - TOLERANCE, f"{name}: {times}")
                self.assertLess(two.after, one.due + 1 + TOLERANCE, f"{name}: {times}")
        self.check_lines(side, ids)

    def check_lines(self, side: Side, ids: Mapping[str, str]) -> None:
        """
        Who was tried: the destination that is away is tried again after the minimal backoff, the transport
        that is not there after its own time.
        """
        words = {
            name: [self.word(line) for line in side.statuses() if line.queue_id == queue_id]
            for name, queue_id in ids.items()
        }
        self.assertEqual(set(words["later"]), {"later"})
        self.assertEqual(set(words["kept"]), {"kept"})
        self.assertEqual(set(words["gone"]), {"unavailable"})
        self.assertEqual((words["away"][0], words["second"][0]), ("refused", "suspended"))
        # One of the two is tried, and then the other is not.
        tries = Counter(words["away"] + words["second"])
        self.assertEqual(set(tries), {"refused", "suspended"})
        self.assertGreaterEqual(tries["refused"], 3)
        self.assertLessEqual(tries["refused"], WATCHED / MINIMAL + 1)
        warnings = [line for line in side.lines() if line == WARNING]
        self.assertIn(len(warnings), (2, 3), "one warning each transport_retry_time")

    def test_postfix(self) -> None:
        """
        Postfix.
        """
        self.check(self.postfix(self.settings, MASTER))

    def test_ours(self) -> None:
        """
        We do the same.
        """
        self.check(self.ours(self.settings, MASTER))


class FlushTests(RetriesTestCase):
    """Triggers and postqueue, step by step. Nothing is due by itself."""

    parameters: ClassVar[Mapping[str, str]] = {
        "minimal_backoff_time": "600s",
        "maximal_backoff_time": "600s",
        "queue_run_delay": "300s",
        "transport_retry_time": "60s",
    }

    def check(self, side: Side) -> None:
        """
        The whole sequence.
        """
        self.side = side
        self._lines = self._warned = 0
        first = [self.new("later"), self.new("away"), self.new("gone"), self.new("kept")]
        self.found("the first of each", "later refused unavailable kept", 1)
        self.new("away", "gone")
        self.found(
            "others, while their destination and transport are known to be dead", "suspended unavailable"
        )
        self.trigger(b"D")
        self.found("D: nothing is due", "")
        self.trigger(b"A")
        self.found("A alone starts nothing", "")
        self.trigger(b"D")
        everything = "later kept suspended suspended unavailable unavailable"
        self.found("the A of before belongs to this D", everything)
        self.trigger(b"D")
        self.found("and to no other", "")
        self.trigger(b"DA")
        self.found("what is dead stays dead, what is kept stays kept", everything)
        self.trigger(b"F")
        self.found("F starts nothing", "")
        self.new("away", "gone")
        self.found("but forgets who is dead", "refused unavailable", 1)
        self.new("kept")
        self.found("a deferred transport", "kept")
        # It forgets that the message's own destination or transport is dead, and no other.
        for queue_id, found in zip(first, ("later", "refused", "unavailable", "sent"), strict=True):
            self.side.postqueue("-i", queue_id)
            self.found(f"postqueue -i: {found}", found, found == "unavailable")
        self.new("away")
        self.found("it is dead again", "suspended")
        self.trigger(b"AFDI")
        everything = "later refused suspended*3 unavailable*3"
        self.found("AFDI: all are tried, until it is clear who is dead", everything + " sent", 1)
        self.new("kept")
        self.found("a deferred transport, after a flush", "kept")
        self.side.postqueue("-f")
        self.found("postqueue -f", everything + " sent", 1)
        self.new("kept")
        self.found("a deferred transport, again after a flush", "kept")
        self.trigger(b"DDFIAFADD")
        self.found("repeated, and in any order", everything + " sent", 1)
        self.trigger(b"I")
        self.trigger(b"W")
        self.trigger(b"xyz\n\0")
        self.found("nothing to do", "")
        self.side.reload()
        self.new("away", "gone")
        # A new queue manager, or the same one with a new configuration.
        words = "refused unavailable" if side.name == "Postfix" else "suspended unavailable"
        self.found("who is dead, after a reload", words, side.name == "Postfix")

    def new(self, *names: str) -> str:
        """
        Send a message to each of these destinations.

        @return: the last one's queue id.
        """
        return [self.side.send(b"user@%s.test" % name.encode()) for name in names][-1]

    def trigger(self, letters: bytes) -> None:
        """Write trigger bytes."""
        self.side.trigger(letters)

    def found(self, step: str, words: str, warnings: int = 0) -> None:
        """
        Wait, and see that exactly this has happened since the step before.

        @param words: of L{WORDS}, in any order, C{suspended*3} for three of them.
        @param warnings: how many times the missing transport was warned of.
        """
        wanted: Counter[str] = Counter()
        for word in words.split():
            name, _, count = word.partition("*")
            wanted[name] += int(count or 1)
        before = self._lines
        end = time.monotonic() + 10
        while len(self.lines()) < before + wanted.total() and time.monotonic() < end:
            time.sleep(0.02)
        # Time for what should not happen.
        time.sleep(0.2)
        self.side.catch_up()
        lines = self.lines()
        self._lines = len(lines)
        self.assertEqual(Counter(self.word(line) for line in lines[before:]), wanted, step)
        # All are back in their queue before the next step.
        self.side.wait_idle()
        warned = self.side.lines().count(WARNING)
        self.assertEqual(warned - self._warned, warnings, step)
        self._warned = warned

    def lines(self) -> Sequence[Status]:
        """
        @return: the C{status=} lines so far.
        """
        return self.side.statuses(".test")

    def test_postfix(self) -> None:
        """
        Postfix.
        """
        self.check(self.postfix(self.settings, MASTER))

    def test_ours(self) -> None:
        """
        We do the same.
        """
        self.check(self.ours(self.settings, MASTER))
