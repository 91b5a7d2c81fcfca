"""How messages come in: arrivals, scans, triggers, the leaky bucket, start and stop."""

from __future__ import annotations

import contextlib

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IArrivals, MessageNotFound, SpoolError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.qmgr.triggers import Triggers, read_triggers
from qmqpd_tx.status import DeliveryReport
from tests.qmgr.scripted import QueueManagerTestCase, deferred, hangs, refused, sent


class ScanTests(QueueManagerTestCase):
    """Mail found on disk."""

    def unseen(self, *recipients: str) -> QueueID:
        """A message that intake did not tell of (another process did it)."""
        message = self.message(*recipients)
        message.close()
        queue_id: QueueID = message.queue_id
        return queue_id

    def test_interface(self) -> None:
        """It is what intake needs."""
        self.assertTrue(verifyObject(IArrivals, self.manager))

    def test_trigger_incoming(self) -> None:
        """Trigger I, or W, finds new mail."""
        for letter in (b"I", b"W"):
            queue_id = self.unseen("u@d.test")
            self.run_turns()
            self.assertEqual(self.where(queue_id), [Queue.INCOMING])
            self.manager.triggered(read_triggers(letter))
            self.run_turns()
            self.assertEqual(self.where(queue_id), [])

    def test_queue_run(self) -> None:
        """Without a trigger, the next queue run finds it."""
        queue_id = self.unseen("u@d.test")
        self.wait(300)
        self.assertEqual(self.where(queue_id), [])

    def test_more_than_a_slice(self) -> None:
        """However many there are."""
        ids = [self.unseen(f"u{n}@d.test") for n in range(450)]
        self.manager.triggered(Triggers(scan_incoming=True))
        self.run_turns()
        self.assertEqual([q for i in ids for q in self.where(i)], [])
        self.assertEqual(len(self.smtp.requests), 450)

    def test_deferred_respects_times(self) -> None:
        """Trigger D takes what is due, and only that."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.smtp.script = sent
        self.manager.triggered(Triggers(scan_deferred=True))
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_all_sticks(self) -> None:
        """Trigger A starts nothing; the next D ignores the time stamps; the D after that does not."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.manager.triggered(Triggers(ignore_times=True))
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 1)
        self.manager.triggered(Triggers(scan_deferred=True))
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 2)
        self.manager.triggered(Triggers(scan_deferred=True))
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 2)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_requested_during_a_scan(self) -> None:
        """A trigger during a scan starts another one at its end: mail that came meanwhile is found."""
        late: list[QueueID] = []

        def script(request: DeliveryRequest) -> DeliveryReport:
            if not late:
                late.append(self.unseen("late@d.test"))
                self.manager.triggered(Triggers(scan_incoming=True))
            return sent(request)

        self.smtp.script = script
        for n in range(3):
            self.unseen(f"u{n}@d.test")
        self.manager.triggered(Triggers(scan_incoming=True))
        self.run_turns()
        self.assertEqual(self.where(late[0]), [])

    def test_each_once(self) -> None:
        """Arrivals, scans and triggers at the same time deliver each message once."""
        ids = []
        for n in range(60):
            if n % 2:
                ids.append(self.unseen(f"u{n}@d.test"))
            else:
                message = self.message(f"u{n}@d.test")
                ids.append(message.queue_id)
                self.manager.arrived(message)
            self.manager.triggered(read_triggers(b"AFDIW"))
        self.run_turns()
        self.assertEqual(sorted(self.smtp.delivered()), sorted(b"u%d@d.test" % n for n in range(60)))

    def test_deliver_now(self) -> None:
        """One message can be tried now, others not; a message that is not there is an error."""
        self.smtp.script = deferred
        first, second = self.send("a@d.test"), self.send("b@d.test")
        self.smtp.script = sent
        self.successResultOf(self.manager.deliver_now(first))
        self.run_turns()
        self.assertEqual(self.where(first), [])
        self.assertEqual(self.where(second), [Queue.DEFERRED])
        self.failureResultOf(self.manager.deliver_now(first), MessageNotFound)

    def test_failing_scan(self) -> None:
        """A scan that fails is logged, and the next one works."""
        queue_id = self.unseen("u@d.test")
        walk = self.queue.scan

        class Broken:
            def next(self, limit: int) -> Deferred[None]:
                failed: Deferred[None] = Deferred()
                failed.errback(SpoolError("read the folder: input/output error"))
                return failed

        self.queue.scan = lambda queue: Broken()  # type: ignore[method-assign,assignment,return-value]
        self.manager.triggered(Triggers(scan_incoming=True))
        self.run_turns()
        self.assertTrue(any("scan of the incoming queue" in line for line in self.lines()))
        self.queue.scan = walk  # type: ignore[method-assign]
        self.manager.triggered(Triggers(scan_incoming=True))
        self.run_turns()
        self.assertEqual(self.where(queue_id), [])


class LeakyBucketTests(QueueManagerTestCase):
    """C{qmgr_message_active_limit}."""

    config = "qmgr_message_active_limit = 10\n"

    def answer_all(self) -> None:
        """Let all deliveries under way succeed, and those that follow, one at a time."""
        while self.smtp.waiting:
            request, answer = self.smtp.waiting.pop(0)
            answer.callback(sent(request))
            self.run_turns()
            self.assertTrue(len(self.manager.status().messages) <= 10)

    def test_limit(self) -> None:
        """No more than the limit are active; the rest waits on disk and comes when there is room."""
        self.smtp.script = hangs
        ids = [self.send(f"u{n}@d{n}.test") for n in range(35)]
        self.assertEqual(len(self.manager.status().messages), 10)
        self.assertEqual(sum(self.where(i) == [Queue.INCOMING] for i in ids), 25)
        self.answer_all()
        self.assertEqual(sorted(self.smtp.delivered()), sorted(b"u%d@d%d.test" % (n, n) for n in range(35)))

    def test_fairness(self) -> None:
        """With much deferred mail due, new mail gets every other place."""
        self.smtp.script = deferred
        for n in range(40):
            self.send(f"old{n}@d{n}.test")
        self.clock.advance(299)
        self.smtp.requests.clear()
        self.smtp.script = hangs
        for n in range(20):
            self.message(f"new{n}@d{n}.test").close()
        self.clock.advance(10)
        self.run_turns()
        active = [m.recipients[0][:3] for m in self.manager.status().messages]
        self.assertEqual((active.count(b"old"), active.count(b"new")), (5, 5))
        self.answer_all()
        order = [address[:3] for address in self.smtp.delivered()]
        self.assertEqual(order[:40].count(b"new"), 20)

    def test_backlog_is_not_starved(self) -> None:
        """Mail that waits on disk gets its turn while new mail keeps coming."""
        self.smtp.script = hangs
        ids = [self.send(f"u{n}@d{n}.test") for n in range(20)]
        for n in range(40):
            request, answer = self.smtp.waiting.pop(0)
            answer.callback(sent(request))
            self.send(f"more{n}@e{n}.test")
        self.assertEqual(sum(self.where(i) == [Queue.INCOMING] for i in ids), 0)
        self.answer_all()


class StartStopTests(QueueManagerTestCase):
    """Start, stop, restart, reload."""

    config = "qmgr_shutdown_time_limit = 5s\n"

    def test_stop_waits(self) -> None:
        """A stop waits for deliveries under way; what they report counts; no new ones begin."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        waiting = [self.send(f"u{n}@d.test") for n in range(10)]
        stopped = self.manager.stopService()
        self.assertNoResult(stopped)
        under_way = list(self.smtp.waiting)
        for request, answer in under_way:
            answer.callback(sent(request))
        self.successResultOf(stopped)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), len(under_way))
        self.assertEqual([q for i in waiting[4:] for q in self.where(i)], [Queue.ACTIVE] * 6)

    def test_stop_cancels(self) -> None:
        """After the limit deliveries are cancelled, and the mail is deferred."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        stopped = self.manager.stopService()
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_reports(self) -> None:
        """A transport may say what is certain when it is cancelled."""
        ends: list[DeliveryRequest] = []

        def script(request: DeliveryRequest) -> Deferred[DeliveryReport]:
            ends.append(request)
            return Deferred(lambda answer: answer.callback(sent(request)))

        self.smtp.script = script
        queue_id = self.send("u@d.test")
        stopped = self.manager.stopService()
        self.clock.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(self.where(queue_id), [])

    def test_transport_that_never_ends(self) -> None:
        """A transport that ignores even that does not hold up the stop; the mail stays for the next start."""

        def stubborn(request: DeliveryRequest) -> Deferred[DeliveryReport]:
            async def ignore() -> DeliveryReport:
                while True:
                    with contextlib.suppress(CancelledError):
                        await Deferred[None]()

            return Deferred.fromCoroutine(ignore())

        self.smtp.script = stubborn
        queue_id = self.send("u@d.test")
        stopped = self.manager.stopService()
        self.clock.pump([5.0, 5.0])
        self.successResultOf(stopped)
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """A restart finds everything: what was active, what is due, what arrived meanwhile."""
        self.smtp.script = deferred
        old = self.send("old@d.test")
        self.smtp.script = hangs
        active = self.send("active@d.test")
        self.manager.arrived(self.message("arrived@d.test"))
        stopped = self.manager.stopService()
        self.clock.pump([5.0, 5.0])
        self.successResultOf(stopped)
        late = self.message("late@d.test")
        self.manager.arrived(late)
        self.successResultOf(self.queue.stop())
        self.clock.advance(1000)
        self.successResultOf(self.queue.start())
        self.smtp.script = sent
        self.smtp.requests.clear()
        self.manager = self.make_manager()
        self.manager.startService()
        self.run_turns()
        self.assertEqual(
            sorted(self.smtp.delivered()),
            [b"active@d.test", b"arrived@d.test", b"late@d.test", b"old@d.test"],
        )
        self.assertEqual(self.where(old) + self.where(active) + self.where(late.queue_id), [])

    def test_stopped(self) -> None:
        """A stopped queue manager does nothing, whatever is asked."""
        self.stop()
        self.manager.triggered(read_triggers(b"AFDI"))
        self.manager.flush()
        message = self.message("u@d.test")
        self.manager.arrived(message)
        self.failureResultOf(self.manager.deliver_now(message.queue_id), SpoolError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.where(message.queue_id), [Queue.INCOMING])

    def test_reload(self) -> None:
        """New settings hold from now on."""
        self.manager.reconfigure(config_from_text("minimal_backoff_time = 40s\nmyorigin = origin.test\n"))
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.assertEqual(self.due(queue_id), 40.0)

    def test_status(self) -> None:
        """A tool sees what is active and what destinations do."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test", "v@e.test")
        status = self.manager.status()
        (message,) = status.messages
        self.assertEqual(
            (message.queue_id, message.size, message.sender, list(message.recipients), message.unread),
            (queue_id, 19, b"sender@src.test", [b"u@d.test", b"v@e.test"], False),
        )
        self.assertEqual(
            sorted((d.transport, d.nexthop, d.busy) for d in status.destinations),
            [("smtp", "d.test", 1), ("smtp", "e.test", 1)],
        )


class RateDelayTests(QueueManagerTestCase):
    """Waits inside the scheduler."""

    config = "smtp_destination_rate_delay = 10s\nminimal_backoff_time = 400s\n"

    def test_rate(self) -> None:
        """Deliveries keep their distance and nothing is forgotten."""
        for n in range(4):
            self.send(f"u{n}@d.test")
        seen = [len(self.smtp.requests)]
        for _ in range(3):
            self.wait(10)
            seen.append(len(self.smtp.requests))
        self.assertEqual(seen, [1, 2, 3, 4])

    def test_dead_destination_is_tried_again(self) -> None:
        """A destination that was dead gets its mail when it is due again."""
        self.smtp.script = refused
        queue_id = self.send("a@d.test")
        late = self.send("b@d.test")
        self.assertEqual(len(self.smtp.requests), 1)
        self.smtp.script = sent
        self.wait(900)
        self.assertEqual(self.where(queue_id) + self.where(late), [])


class ProcessLimitTests(QueueManagerTestCase):
    """C{default_process_limit}."""

    config = "default_process_limit = 3\n"

    def test_limit(self) -> None:
        """No more deliveries at a time than processes are allowed."""
        self.smtp.script = hangs
        for n in range(9):
            self.send(f"u@d{n}.test")
        self.assertEqual(len(self.smtp.waiting), 3)
        request, answer = self.smtp.waiting[0]
        answer.callback(sent(request))
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 4)
