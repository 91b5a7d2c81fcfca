"""
Destinations that refuse, fail, hang or break off, on a clock: outcome, log line and the time of the next try.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email import message_from_bytes

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import Queue
from tests.interop.destination_cases import CASES, HOST, LARGE_LINE, SENDER, SMALL, Case
from tests.interop.scripted_smtp import Act
from tests.qmgr.clock_world import START, Destination, World, expected_line

LATER = b"450 4.2.1 later"
HOUR = 3600.0
DAY = 24 * HOUR


def backoff(age: float) -> float:
    """
    @return: how long a message of that age waits, by C{minimal_backoff_time} and C{maximal_backoff_time}.
    """
    return max(300.0, min(age, 4000.0))


class ClockTestCase(SynchronousTestCase):
    """Makes worlds, and sees that nothing is left of them."""

    def world(self, destinations: Mapping[str, Destination], settings: str = "") -> World:
        """
        @return: a new world.
        """
        world = World(destinations, settings)
        self.addCleanup(lambda: self.assertEqual(world.stop(), []))
        return world


class TableTests(ClockTestCase):
    """Every case of the table, with Postfix's own time limits."""

    def check(self, case: Case) -> None:
        """
        One message to one destination.
        """
        destination = Destination(case.script, case.connects, case.pipelining)
        world = self.world({case.domain: destination})
        queue_id = world.send(case.recipient, SMALL + LARGE_LINE * (5000 if case.large else 0))
        takes = case.setup + case.transfer
        if takes:
            world.advance(takes - 1)
            self.assertEqual(world.status_lines(case.recipient), [], case.name)
            world.advance(1)
        self.assertEqual(
            world.status_lines(case.recipient), [expected_line(case, world.ports[case.domain])], case.name
        )
        self.assertEqual(destination.sessions, 1, case.name)
        if case.status == "deferred":
            self.assertEqual(world.where(queue_id), [Queue.DEFERRED], case.name)
            self.assertEqual(world.queue.next_due(), START + takes + backoff(takes), case.name)
        else:
            self.assertEqual(world.where(queue_id), [], case.name)
            self.assertIsNone(world.queue.next_due())
            self.assertIn(("qmgr", f"{queue_id}: removed"), world.lines)
        notices = world.status_lines(SENDER)
        self.assertEqual(len(notices), 1 if case.status == "bounced" else 0, case.name)
        if case.connects:
            self.assertIn(("smtp", case.text_for(world.ports[case.domain])), world.lines)

    def check_dead(self, case: Case) -> None:
        """
        A second message, with the destination known to be dead or not; and a third one, later.
        """
        destination = Destination(case.script, case.connects, case.pipelining)
        world = self.world({case.domain: destination}, "initial_destination_concurrency = 1\n")
        world.send(case.recipient)
        world.advance(case.setup + case.transfer)
        before = destination.sessions
        world.send(case.recipient)
        if case.dead:
            self.assertEqual(destination.sessions, before, case.name)
            reason = f"delivery temporarily suspended: {case.text_for(world.ports[case.domain])}"
            self.assertEqual(
                world.status_lines(case.recipient)[1:],
                [
                    f"error: to=<{case.recipient.decode()}>, relay=none, delay=0, delays=0/0/0/0,"
                    f" dsn={case.dsn}, status=deferred ({reason})"
                ],
            )
        # A destination is dead for minimal_backoff_time; what is due is tried at the next queue run.
        world.advance(300.0)
        destination.script, destination.connects = {}, ""
        world.advance(HOUR)
        self.assertEqual(
            {each.recipients for each in destination.taken}, {(case.recipient,)}, f"{case.name}: comes back"
        )
        self.assertEqual(len(destination.taken), 2, case.name)
        self.assertIsNone(world.queue.next_due())

    def test_outcomes(self) -> None:
        """
        The outcome, the exact line, and when the message is due again.
        """
        for case in CASES:
            self.check(case)

    def test_afterwards(self) -> None:
        """
        Only failures up to HELO make a destination dead; mail for it waits without a try, and goes out when
        the destination is back.
        """
        waiting = [case for case in CASES if case.status == "deferred" and not case.large]
        self.assertGreater(sum(case.dead for case in waiting), 10)
        for case in waiting:
            self.check_dead(case)


class RetryTests(ClockTestCase):
    """Hours and days of retries."""

    def attempts(self, destination: Destination, takes: float, count: int) -> None:
        """
        Follow a message through its first attempts: each is made at the first queue run when it is due, and
        each failure sets the next time by the age of the message.
        """
        world = self.world({"d.test": destination})
        world.send(b"u@d.test")
        due = START
        for number in range(count):
            # A queue run every 300 s since the start.
            begins = START + -(-(due - START) // 300.0) * 300.0
            if begins + takes > world.now:
                world.advance(begins + takes - 1 - world.now)
                self.assertEqual(len(world.status_lines(b"u@d.test")), number)
                world.advance(1)
            self.assertEqual(len(world.status_lines(b"u@d.test")), number + 1)
            due = world.now + backoff(world.now - START)
            self.assertEqual(world.queue.next_due(), due)

    def test_backoff_after_a_reply(self) -> None:
        """
        A 4xx reply: the wait doubles, from 300 s to 4000 s.
        """
        self.attempts(Destination({"end": LATER}), 0.0, 12)

    def test_backoff_after_a_refusal(self) -> None:
        """
        Nobody listens.
        """
        self.attempts(Destination(connects="refused"), 0.0, 12)

    def test_backoff_after_silence(self) -> None:
        """
        The time that an attempt takes counts for the age.
        """
        self.attempts(Destination({"rcpt": Act.HANG}), 300.0, 8)

    def test_recovery(self) -> None:
        """
        The first attempt after the destination is back delivers, and the log tells the whole delay.
        """
        destination = Destination(connects="refused")
        world = self.world({"d.test": destination})
        queue_id = world.send(b"u@d.test")
        world.advance(3 * HOUR)
        destination.connects = ""
        self.assertEqual(world.where(queue_id), [Queue.DEFERRED])
        world.advance(4300.0)
        self.assertEqual([each.recipients for each in destination.taken], [(b"u@d.test",)])
        self.assertEqual(world.where(queue_id), [])
        last = world.status_lines(b"u@d.test")[-1]
        port = world.ports["d.test"]
        self.assertRegex(
            last,
            rf"^smtp: to=<u@d\.test>, relay={re.escape(HOST)}:{port}, delay=(\d+), delays=\1/0/0/0,"
            r" dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: taken\)$",
        )
        world.advance(DAY)
        self.assertEqual(len(destination.taken), 1)

    def test_flush(self) -> None:
        """
        A flush tries all at once, dead destinations too, and leaves the times of the next tries to the age.
        """
        destination = Destination(connects="refused")
        world = self.world({"d.test": destination}, "initial_destination_concurrency = 1\n")
        for _ in range(3):
            world.send(b"u@d.test")
        self.assertEqual(destination.sessions, 1)
        world.advance(10.0)
        world.manager.flush()
        world.settle()
        self.assertEqual(len(world.status_lines(b"u@d.test")), 6)
        self.assertEqual(destination.sessions, 2)
        self.assertEqual(world.queue.next_due(), START + 10 + 300)
        destination.connects = ""
        world.manager.flush()
        world.settle()
        self.assertEqual(len(destination.taken), 3)
        self.assertIsNone(world.queue.next_due())

    def test_expiry(self) -> None:
        """
        After five days the first attempt that fails is the last; the sender hears the last reason.
        """
        destination = Destination({"rcpt": LATER})
        source = Destination()
        world = self.world({"d.test": destination, "source.test": source})
        queue_id = world.send(b"u@d.test")
        world.advance(4.5 * DAY)
        destination.script = {"rcpt": b"452 4.2.2 full"}
        world.advance(0.5 * DAY - 1)
        self.assertEqual(world.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(source.taken, [])
        attempts = len(world.status_lines(b"u@d.test"))
        # Every 4000 s, rounded up to the queue runs, after the first hours.
        self.assertTrue(100 < attempts < 120, attempts)
        world.advance(4300.0)
        self.assertEqual(world.where(queue_id), [])
        self.assertEqual(len(world.status_lines(b"u@d.test")), attempts + 1)
        last = world.status_lines(b"u@d.test")[-1]
        reason = f"host {HOST} said: 452 4.2.2 full (in reply to RCPT TO command)"
        self.assertTrue(last.endswith(f"dsn=4.2.2, status=deferred ({reason})"), last)
        expired = f"{queue_id}: from=<{SENDER.decode()}>, status=expired, returned to sender"
        self.assertIn(("qmgr", expired), world.lines)
        ((sender, recipients, content),) = [
            (each.sender, each.recipients, each.content) for each in source.taken
        ]
        self.assertEqual((sender, recipients), (b"", (SENDER,)))
        report = message_from_bytes(content)
        block = report.get_payload()[1].get_payload()[1]
        self.assertEqual((block["Action"], block["Status"]), ("failed", "4.2.2"))
        self.assertIn("452 4.2.2 full", block["Diagnostic-Code"])
        self.assertIsNone(world.queue.next_due())
