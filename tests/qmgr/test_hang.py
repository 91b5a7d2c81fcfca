"""What hangs: deliveries, the resolver, the bounce service, the store."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from qmqpd_tx.interfaces import DeliveryRequest
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from tests.qmgr.scripted import QueueManagerTestCase, bounced, deferred, hangs, sent

DEAF = "does not end although it was cancelled"


class Deaf:
    """
    A transport that does not even listen when it is cancelled.

    @ivar reports: what each delivery would give.
    """

    def __init__(self) -> None:
        self.reports: list[tuple[DeliveryRequest, Deferred[DeliveryReport]]] = []

    def __call__(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """Wait for ever."""
        report: Deferred[DeliveryReport] = Deferred()
        self.reports.append((request, report))

        async def deliver() -> DeliveryReport:
            while True:
                try:
                    return await report
                except CancelledError:
                    again: Deferred[DeliveryReport] = Deferred()
                    self.reports[self.reports.index((request, self._now(request)))] = (request, again)
                    return await again

        return Deferred.fromCoroutine(deliver())

    def _now(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        return next(report for asked, report in self.reports if asked is request)

    def answer(self, number: int, report: DeliveryReport) -> None:
        """One of them ends after all."""
        self.reports[number][1].callback(report)


class DeliveryTests(QueueManagerTestCase):
    """Deliveries that take too long."""

    config = "daemon_timeout = 100\ndefault_process_limit = 2\n"

    def test_in_time(self) -> None:
        """A delivery may take as long as daemon_timeout says."""
        self.smtp.script = hangs
        self.send("u@d.test")
        self.wait(99)
        ((request, answer),) = self.smtp.waiting
        answer.callback(sent(request))
        self.wait(1)
        self.assertEqual(self.manager.status().messages, [])

    def test_cancelled(self) -> None:
        """Then it is cancelled, and what it says counts."""

        def stubborn(request: DeliveryRequest) -> Deferred[DeliveryReport]:
            def certain(answer: Deferred[DeliveryReport]) -> None:
                one, other = request.recipients
                answer.callback(
                    DeliveryReport(
                        [
                            Outcome(one, Action.SENT, "2.0.0", "250 Ok"),
                            Outcome(other, Action.DEFERRED, "4.4.2", "cancelled"),
                        ]
                    )
                )

            return Deferred(certain)

        self.smtp.script = stubborn
        queue_id = self.send("a@d.test", "b@d.test")
        self.wait(100)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertIn("delivery not done within 100 seconds (daemon_timeout)", " ".join(self.lines(queue_id)))
        self.smtp.script = sent
        self.wait(600)
        self.assertEqual(self.smtp.delivered(), [b"a@d.test", b"b@d.test", b"b@d.test"])

    def test_nothing_said(self) -> None:
        """One that just ends is deferred as after a crash of the agent, and its transport is left alone."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.wait(100)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertIn("status=deferred (unknown mail transport error)", self.lines(queue_id)[-1])
        other = self.send("v@e.test")
        self.assertEqual(self.where(other), [Queue.DEFERRED])
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_each_in_its_time(self) -> None:
        """Deliveries that began later have their time, too."""
        self.smtp.script = hangs
        first = self.send("u@d.test")
        self.wait(60)
        second = self.send("v@e.test")
        self.wait(40)
        self.assertEqual((self.where(first), self.where(second)), ([Queue.DEFERRED], [Queue.ACTIVE]))
        self.wait(60)
        self.assertEqual(self.where(second), [Queue.DEFERRED])

    def hang(self, *recipients: str) -> tuple[QueueID, Deaf]:
        """A delivery that was given up."""
        self.smtp.script = deaf = Deaf()
        queue_id = self.send(*recipients)
        self.wait(104)
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        self.wait(1)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertIn(DEAF, " ".join(self.lines(queue_id)))
        self.smtp.script = sent
        return queue_id, deaf

    def test_given_up(self) -> None:
        """One that does not even end then does not keep its message; the message is tried again."""
        queue_id, _ = self.hang("u@d.test")
        self.wait(600)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 2)

    def test_late_delivery_while_deferred(self) -> None:
        """Whoever got it after all does not get it again."""
        queue_id, deaf = self.hang("a@d.test", "b@d.test")
        request = deaf.reports[0][0]
        report = DeliveryReport([*sent(request).outcomes[:1], *deferred(request).outcomes[1:]])
        deaf.answer(0, report)
        self.run_turns()
        self.wait(600)
        self.assertEqual(self.smtp.delivered(), [b"a@d.test", b"b@d.test", b"b@d.test"])
        self.assertEqual(self.where(queue_id), [])
        late = [line for line in self.lines(queue_id) if "late report" in line]
        self.assertEqual(len(late), 2)
        self.assertIn("to=<a@d.test>", late[0])

    def test_late_delivery_while_waiting(self) -> None:
        """The same when the next attempt has begun and its delivery has not."""
        queue_id, deaf = self.hang("a@d.test")
        self.wait(490)
        self.smtp.script = hangs
        self.send("x@x.test")
        self.wait(10)
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        deaf.answer(0, sent(deaf.reports[0][0]))
        self.run_turns()
        request, answer = self.smtp.waiting[-1]
        answer.callback(sent(request))
        self.run_turns()
        self.assertEqual(self.smtp.delivered(), [b"a@d.test", b"x@x.test"])
        self.assertEqual(self.where(queue_id), [])

    def test_late_delivery_when_it_is_gone(self) -> None:
        """A late report on a message that has left is logged and nothing else."""
        queue_id, deaf = self.hang("a@d.test")
        self.wait(600)
        self.assertEqual(self.where(queue_id), [])
        deaf.answer(0, sent(deaf.reports[0][0]))
        self.run_turns()
        self.assertIn("late report", self.lines(queue_id)[-1])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_late_failure(self) -> None:
        """A late bounce is logged only: the next attempt decides."""
        queue_id, deaf = self.hang("a@d.test")
        deaf.answer(0, bounced(deaf.reports[0][0]))
        self.run_turns()
        self.assertEqual(self.bounces.notices, [])
        self.wait(600)
        self.assertEqual(self.where(queue_id), [])

    def test_slots(self) -> None:
        """Deliveries that hang for ever take their slots; the transport has what is left of them."""
        self.hang("a@d.test")
        self.wait(60)
        self.smtp.script = hangs
        self.smtp.requests.clear()
        self.send("b@e.test")
        self.send("c@f.test")
        self.assertEqual(len(self.smtp.requests), 1)

    def test_all_slots(self) -> None:
        """When all of them hang, nothing more is begun; it goes on as soon as one ends."""
        self.smtp.script = deaf = Deaf()
        self.send("a@d.test")
        self.send("b@e.test")
        self.wait(105)
        self.smtp.script = sent
        self.wait(61)
        queue_id = self.send("c@f.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertIn("status=deferred (mail transport unavailable)", self.lines(queue_id)[-1])
        self.assertEqual(len(self.smtp.requests), 2)
        deaf.answer(0, deferred(deaf.reports[0][0]))
        self.wait(61)
        queue_id = self.send("d@f.test")
        self.assertEqual(self.where(queue_id), [])

    def test_clock_jumps(self) -> None:
        """A clock that jumps ahead by a day cancels what is under way; nothing is lost, and nothing twice."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.clock.advance(86400)
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        self.wait(90000)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 2)


class ServiceTests(QueueManagerTestCase):
    """The services around the queue manager that do not answer: qmgr_ipc_timeout."""

    config = "qmgr_ipc_timeout = 50\n"

    def test_resolver(self) -> None:
        """Its recipients are deferred, the others are delivered."""
        self.router.routes[b"late.test"] = lambda address: Deferred()
        queue_id = self.send("a@late.test", "b@d.test")
        self.wait(50)
        self.assertEqual(self.smtp.delivered(), [b"b@d.test"])
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        text = " ".join(self.lines(queue_id))
        self.assertIn("resolve: not done within 50 seconds (qmgr_ipc_timeout)", text)
        self.assertIn("status=deferred (address resolver failure)", text)

    def test_bounce_record(self) -> None:
        """Without a record the recipient waits instead of being marked."""
        self.smtp.script = bounced
        self.bounces.hanging = {"bounced"}
        queue_id = self.send("u@d.test")
        self.wait(49)
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        self.wait(1)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.bounces.hanging = set()
        self.wait(600)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.bounces.notices), 1)

    def test_notice(self) -> None:
        """A notice that cannot be made in time is made later; the message stays until then."""
        self.smtp.script = bounced
        self.bounces.hanging = {"notify"}
        queue_id = self.send("u@d.test")
        self.wait(50)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.bounces.hanging = set()
        self.wait(600)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual(len(self.bounces.notices), 1)

    def test_defer_log_and_warning(self) -> None:
        """What is only remembered does not keep the message from its place."""
        self.smtp.script = deferred
        self.bounces.hanging = {"deferred", "delayed"}
        queue_id = self.send("u@d.test")
        self.wait(100)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_store(self) -> None:
        """An operation on the queue cannot be given up: it is logged once, and waited for."""
        moving: Deferred[None] = Deferred()
        move = self.queue.move

        def slow(queue_id: QueueID, *rest: Any) -> Deferred[None]:
            move(queue_id, *rest)
            return moving

        self.queue.move = slow  # type: ignore[method-assign,assignment]
        queue_id = self.send("u@d.test")
        self.wait(200)
        late = [line for line in self.lines(queue_id) if "not done within" in line]
        self.assertEqual(late, ["qmgr: move to active: not done within 50 seconds (qmgr_ipc_timeout)"])
        stopped = self.manager.stopService()
        self.assertNoResult(stopped)
        moving.callback(None)
        self.successResultOf(stopped)
        self.assertIn("move to active: done after", self.lines(queue_id)[-1])

    def test_crowd(self) -> None:
        """A disk that hangs under many messages does not fill the log."""
        self.queue.move = lambda *_: Deferred()  # type: ignore[method-assign,assignment]
        for number in range(40):
            self.send(f"u{number}@d.test")
        self.wait(60)
        late = [line for line in self.lines() if "not done within" in line]
        self.assertEqual(len(late), 11)
        self.assertIn("30 more operations", late[-1])
