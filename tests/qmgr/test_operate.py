"""Hold, release, requeue and delete, on messages wherever they are."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from qmqpd_tx.interfaces import (
    FULL_TREATMENT,
    ICleanup,
    IIncomingMessage,
    IntakeError,
    MessageNotFound,
    SpoolError,
    Treatment,
)
from qmqpd_tx.message import SMTPUTF8, Envelope, Queue, QueueID
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.status import DeliveryReport
from tests.qmgr.scripted import QueueManagerTestCase, bounced, deferred, hangs, sent


@implementer(IIncomingMessage)
class Incoming:
    """A message that is handed over again."""

    queue_id = QueueID("4bNEW")

    def __init__(self, cleanup: Cleanup, treatment: Treatment) -> None:
        self._cleanup = cleanup
        self.treatment = treatment
        self.data = b""
        self.recipients: list[bytes] = []
        self.envelope: tuple[bytes, bytes | None] = (b"", None)

    def content(self, data: bytes) -> None:
        """Keep."""
        self.data += data

    def sender(self, address: bytes, verp_delimiters: bytes | None = None) -> None:
        """Keep."""
        self.envelope = (address, verp_delimiters)

    def recipient(self, address: bytes, silent: bool = False) -> None:
        """Keep."""
        self.recipients.append(address)

    def finish(self) -> Deferred[QueueID]:
        """Take it, or not."""
        if self._cleanup.refuses:
            failed: Deferred[QueueID] = Deferred()
            failed.errback(IntakeError(False, "4.3.1", "Error: insufficient system storage"))
            return failed
        self._cleanup.taken.append(self)
        return succeed(self.queue_id)

    def abort(self) -> None:
        """Drop."""
        self._cleanup.aborted += 1


@implementer(ICleanup)
class Cleanup:
    """
    A cleanup service that remembers.

    @ivar taken: what was finished.
    @ivar refuses: whether it takes nothing.
    """

    def __init__(self) -> None:
        self.taken: list[Incoming] = []
        self.refuses = False
        self.aborted = 0

    def begin(
        self, client: Any, verp_delimiters: bytes | None = None, treatment: Treatment = FULL_TREATMENT
    ) -> Incoming:
        """A message of our own."""
        assert client is None
        return Incoming(self, treatment)


class OperatorTestCase(QueueManagerTestCase):
    """A queue manager with a cleanup service for what is requeued."""

    def make_manager(self) -> QueueManager:
        """As ever, but with cleanup."""
        self.cleanup = Cleanup()
        return super().make_manager()

    def more(self) -> dict[str, Any]:
        """What else the queue manager is given."""
        return {"cleanup": self.cleanup}

    def defer(self, *recipients: str) -> QueueID:
        """A message in the deferred queue."""
        self.smtp.script = deferred
        queue_id = self.send(*recipients or ("u@d.test",))
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        return queue_id

    def answer(self, number: int = 0) -> None:
        """A delivery that hangs ends well."""
        request, waiting = self.smtp.waiting.pop(number)
        waiting.callback(sent(request))
        self.run_turns()

    def nobody(self, *attempts: Deferred[Any]) -> None:
        """They all found no message."""
        for attempt in attempts:
            self.failureResultOf(attempt, MessageNotFound)


class HoldTests(OperatorTestCase):
    """C{postsuper -h} and C{-H}."""

    def test_deferred(self) -> None:
        """A deferred message is on hold until it is released; then it has its time again."""
        queue_id = self.defer()
        self.successResultOf(self.manager.hold(queue_id))
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        self.manager.flush()
        self.wait(90000)
        self.assertEqual(len(self.smtp.requests), 1)
        self.successResultOf(self.manager.release(queue_id))
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.wait(300)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 2)

    def test_log(self) -> None:
        """The lines are postsuper's."""
        queue_id = self.defer()
        self.successResultOf(self.manager.hold(queue_id))
        self.successResultOf(self.manager.release(queue_id))
        lines = [
            event["log_format"]
            for event in self.events
            if event["log_namespace"] == "qmqpd_tx.postsuper" and event["queue_id"] == queue_id
        ]
        self.assertEqual(lines, ["{queue_id}: placed on hold", "{queue_id}: released from hold"])

    def test_nothing_on_hold_expires(self) -> None:
        """Mail that was put on hold young is not returned for the time it spent there."""
        queue_id = self.defer()
        self.successResultOf(self.manager.hold(queue_id))
        self.wait(6 * 86400)
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        self.assertEqual(self.bounces.notices, [])

    def test_active_waiting(self) -> None:
        """Of an active message, what waits is not delivered; what is under way ends and counts."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.assertEqual(len(self.smtp.waiting), 5)
        self.successResultOf(self.manager.hold(queue_id))
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        for _ in range(5):
            self.answer()
        self.assertEqual(len(self.smtp.requests), 5)
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        self.assertEqual(self.manager.status().messages, [])
        self.smtp.script = sent
        self.successResultOf(self.manager.release(queue_id))
        self.wait(300)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(set(self.smtp.delivered())), 400)
        self.assertEqual(len(self.smtp.delivered()), 400)

    def test_active_all_under_way(self) -> None:
        """When everybody gets it after all, nothing stays on hold."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.successResultOf(self.manager.hold(queue_id))
        self.answer()
        self.assertEqual(self.where(queue_id), [])

    def test_active_fails(self) -> None:
        """A delivery that fails after all stays on hold with its message, and bounces are told."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test", "v@e.test")
        self.successResultOf(self.manager.hold(queue_id))
        request, answer = self.smtp.waiting.pop(0)
        answer.callback(deferred(request))
        request, answer = self.smtp.waiting.pop(0)
        answer.callback(bounced(request))
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        self.assertEqual(len(self.bounces.notices), 1)
        self.assertEqual(len(self.bounces.waiting[queue_id]), 1)

    def test_crash_while_deliveries_end(self) -> None:
        """A hold survives a crash while deliveries were under way."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.successResultOf(self.manager.hold(queue_id))
        stopped = self.manager.stopService()
        self.smtp.waiting.clear()
        self.clock.pump([5.0, 5.0, 5.0])
        self.successResultOf(stopped)
        self.successResultOf(self.queue.stop())
        self.successResultOf(self.queue.start())
        self.assertEqual(self.where(queue_id), [Queue.HOLD])

    def test_released_while_deliveries_end(self) -> None:
        """A message can be released before the last delivery has ended; it goes on at once then."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.successResultOf(self.manager.hold(queue_id))
        self.successResultOf(self.manager.release(queue_id))
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        for _ in range(5):
            self.answer()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        self.wait(300)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.delivered()), 400)

    def test_handed_over_and_not_admitted(self) -> None:
        """A message that waits for its turn to become active."""
        message = self.message("u@d.test")
        self.manager.arrived(message)
        held = self.manager.hold(message.queue_id)
        self.run_turns()
        self.successResultOf(held)
        self.assertEqual(self.where(message.queue_id), [Queue.HOLD])
        self.assertEqual(self.smtp.requests, [])

    def test_only_from(self) -> None:
        """A queue that is named is the only one that is looked into."""
        queue_id = self.defer()
        self.nobody(
            self.manager.hold(queue_id, Queue.INCOMING),
            self.manager.hold(queue_id, Queue.ACTIVE),
            self.manager.hold(queue_id, Queue.HOLD),
            self.manager.release(queue_id),
            self.manager.delete(queue_id, Queue.HOLD),
            self.manager.requeue(queue_id, Queue.ACTIVE),
        )
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])

    def test_only_what_is_on_hold_is_released(self) -> None:
        """What is named in another queue is not found there, and nothing happens to it."""
        queue_id = self.defer()
        due = self.due(queue_id)
        self.smtp.script = hangs
        active = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        count = len(self.smtp.waiting)
        for queue in (Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED, Queue.CORRUPT):
            self.nobody(self.manager.release(queue_id, queue), self.manager.release(active, queue))
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(self.due(queue_id), due)
        self.smtp.script = sent
        for _ in range(count):
            self.answer()
        self.assertEqual(self.where(active), [])
        self.assertEqual(len(set(self.smtp.delivered())), 401)
        self.assertNotIn("released", str(self.events))

    def test_what_is_on_hold_is_not_held(self) -> None:
        """It is not found, whether deliveries of it are under way or not; and it stays where it is."""
        waiting = self.defer()
        self.smtp.script = hangs
        active = self.send("v@d.test")
        for queue_id in (waiting, active):
            self.successResultOf(self.manager.hold(queue_id))
            self.events.clear()
            self.nobody(self.manager.hold(queue_id, Queue.HOLD), self.manager.hold(queue_id))
            self.assertEqual(self.events, [])
            self.assertEqual(self.where(queue_id), [Queue.HOLD])
        self.successResultOf(self.manager.release(waiting, Queue.HOLD))
        self.assertEqual(self.where(waiting), [Queue.DEFERRED])
        self.answer()

    def test_waiting_message_of_another_queue(self) -> None:
        """A message that was handed over is delivered although it was asked for in another queue."""
        message = self.message("u@d.test")
        self.manager.arrived(message)
        attempt = self.manager.hold(message.queue_id, Queue.DEFERRED)
        self.run_turns()
        self.nobody(attempt)
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])

    def test_unknown(self) -> None:
        """What is not there is not found, by anybody."""
        ids = [QueueID("4bQZxk1234zABC"), QueueID("../../etc/passwd"), QueueID("")]
        for queue_id in ids:
            manager = self.manager
            self.nobody(
                manager.hold(queue_id),
                manager.release(queue_id),
                manager.requeue(queue_id),
                manager.delete(queue_id),
            )

    def test_corrupt_is_left_alone(self) -> None:
        """Damaged files are not touched by default."""
        queue_id = self.defer()
        self.successResultOf(self.queue.move(queue_id, Queue.DEFERRED, Queue.CORRUPT))
        manager = self.manager
        self.nobody(manager.hold(queue_id), manager.requeue(queue_id), manager.delete(queue_id))
        self.successResultOf(manager.delete(queue_id, Queue.CORRUPT))
        self.assertEqual(self.where(queue_id), [])

    def test_store_fails(self) -> None:
        """A hold that the store does not manage is told, and the message is not lost."""
        queue_id = self.defer()
        self.queue.broken = {"move to hold"}
        self.failureResultOf(self.manager.hold(queue_id), SpoolError)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])

    def test_store_fails_with_an_active_one(self) -> None:
        """The same for an active message: it is tried again soon, since nothing holds it."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.queue.broken = {"move to hold"}
        self.failureResultOf(self.manager.hold(queue_id), SpoolError)
        for _ in range(5):
            self.answer()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        self.wait(300)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.delivered()), 400)

    def test_not_running(self) -> None:
        """A queue manager that is stopped says so."""
        self.stop()
        self.failureResultOf(self.manager.hold(QueueID("4bQZxk1234zABC")), SpoolError)


class DeleteTests(OperatorTestCase):
    """C{postsuper -d}."""

    def test_deferred(self) -> None:
        """A message goes with all that was remembered of it, and nobody is told."""
        queue_id = self.defer()
        self.successResultOf(self.manager.delete(queue_id))
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual((self.bounces.waiting, self.bounces.notices), ({}, []))
        self.assertEqual(self.lines(queue_id)[-1], "postsuper: removed")
        self.wait(90000)
        self.assertEqual(len(self.smtp.requests), 1)

    def test_held(self) -> None:
        """So does one on hold."""
        queue_id = self.defer()
        self.successResultOf(self.manager.hold(queue_id))
        self.successResultOf(self.manager.delete(queue_id))
        self.assertEqual(self.where(queue_id), [])

    def test_active(self) -> None:
        """An active one is out of the way at once, and gone when its deliveries have ended."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.successResultOf(self.manager.delete(queue_id))
        self.assertEqual(self.where(queue_id), [Queue.HOLD])
        request, answer = self.smtp.waiting.pop(0)
        answer.callback(bounced(request))
        for _ in range(4):
            self.answer()
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(self.bounces.notices, [])
        self.assertEqual((self.bounces.log, self.bounces.waiting), ({}, {}))
        self.assertEqual(len(self.smtp.requests), 5)

    def test_hold_then_delete(self) -> None:
        """What was put on hold with deliveries under way can be deleted, too."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.successResultOf(self.manager.hold(queue_id))
        self.successResultOf(self.manager.delete(queue_id))
        for _ in range(5):
            self.answer()
        self.assertEqual(self.where(queue_id), [])

    def test_twice(self) -> None:
        """The second finds nothing."""
        queue_id = self.defer()
        self.successResultOf(self.manager.delete(queue_id))
        self.nobody(self.manager.delete(queue_id))

    def test_delivered_and_stuck(self) -> None:
        """A delivered message whose removal fails is not to be found, so that nobody gets it twice."""
        self.queue.broken = {"remove"}
        queue_id = self.send("u@d.test")
        self.nobody(self.manager.hold(queue_id), self.manager.requeue(queue_id))
        self.queue.broken = set()
        self.wait(70)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 1)


class VanishedTests(OperatorTestCase):
    """Somebody removes files by hand."""

    config = (
        "qmgr_message_active_limit = 10\nqmgr_message_recipient_limit = 20\ndefault_recipient_limit = 10\n"
    )

    def test_gone_with_unread_recipients(self) -> None:
        """A message whose file has gone leaves the active queue, however much of it was not read."""
        message = self.message(*[f"u{n:03}@d.test" for n in range(400)])
        self.smtp.script = hangs
        moving: Deferred[None] = Deferred()
        self.queue.move = lambda *arguments: moving  # type: ignore[assignment, method-assign]
        self.manager.arrived(message)
        self.run_turns()
        self.successResultOf(self.queue.remove(message.queue_id, Queue.INCOMING))
        moving.errback(MessageNotFound(f"{message.queue_id}: move: no such message"))
        while self.smtp.waiting:
            self.answer()
        self.assertEqual(self.manager.status().messages, [])


class RequeueTests(OperatorTestCase):
    """C{postsuper -r}."""

    def test_deferred(self) -> None:
        """Those that are left are handed over again by the addresses that the client sent."""

        def one_of_two(request: Any) -> DeliveryReport:
            return DeliveryReport([*sent(request).outcomes[:1], *deferred(request).outcomes[1:]])

        self.smtp.script = one_of_two
        queue_id = self.send("a@d.test", ("u@d.test", "alias"), verp=b"-=")
        self.smtp.script = deferred
        queue_id = self.send("a@d.test", ("u@d.test", "alias"), sender=b"list@src.test", verp=b"-=")
        self.successResultOf(self.manager.requeue(queue_id))
        self.assertEqual(self.where(queue_id), [])
        (new,) = self.cleanup.taken
        self.assertEqual(new.data, b"Subject: hi\n\nhello\n")
        self.assertEqual(new.envelope, (b"list@src.test", b"-="))
        self.assertEqual(new.recipients, [b"a@d.test", b"alias"])
        self.assertNotIn(queue_id, self.bounces.waiting)

    def test_internationalized(self) -> None:
        """What was looked at for SMTPUTF8 still is; and filters are not asked again."""
        for attributes, about in (({SMTPUTF8: b"addresses"}, b"addresses"), ({}, None)):
            writer = self.queue.create(self.clock.seconds())
            writer.envelope(Envelope(b"s@src.test", self.clock.seconds(), attributes=attributes), b"")
            writer.recipient(b"u@d.test", b"u@d.test")
            queue_id = self.successResultOf(writer.commit(Queue.HOLD)).queue_id
            self.successResultOf(self.manager.requeue(queue_id))
            new = self.cleanup.taken.pop()
            self.assertEqual((new.treatment.about, new.treatment.milters), (about, False))

    def test_done_recipients_stay_done(self) -> None:
        """Who has it does not get it again."""

        def one_of_two(request: Any) -> DeliveryReport:
            return DeliveryReport([*sent(request).outcomes[:1], *deferred(request).outcomes[1:]])

        self.smtp.script = one_of_two
        queue_id = self.send("a@d.test", "b@d.test")
        self.successResultOf(self.manager.requeue(queue_id))
        self.assertEqual([new.recipients for new in self.cleanup.taken], [[b"b@d.test"]])
        self.assertEqual(self.where(queue_id), [])

    def test_active(self) -> None:
        """Deliveries under way end first."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        requeued = self.manager.requeue(queue_id)
        self.assertNoResult(requeued)
        for _ in range(5):
            self.answer()
        self.successResultOf(requeued)
        (new,) = self.cleanup.taken
        everybody = [*self.smtp.delivered(), *new.recipients]
        self.assertEqual((len(everybody), len(set(everybody))), (400, 400))
        self.assertEqual(self.where(queue_id), [])

    def test_refused(self) -> None:
        """What cleanup does not take stays where it is."""
        queue_id = self.defer()
        self.cleanup.refuses = True
        self.failureResultOf(self.manager.requeue(queue_id), SpoolError)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])

    def test_old_one_cannot_be_removed(self) -> None:
        """As long as the old message cannot be removed, nothing brings it up: the new one is in the queue."""
        queue_id = self.defer()
        self.queue.broken.add("remove")
        self.successResultOf(self.manager.requeue(queue_id))
        self.assertEqual(len(self.cleanup.taken), 1)
        self.manager.flush()
        self.wait(30)
        self.assertEqual(len(self.smtp.requests), 1)
        self.nobody(self.manager.requeue(queue_id), self.manager.hold(queue_id))
        self.queue.broken.clear()
        self.wait(400)
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual(self.where(queue_id), [])

    def test_refused_and_deferred(self) -> None:
        """Those whose delivery was under way, and failed for now, are not requeued either: that is said."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.cleanup.refuses = True
        requeued = self.manager.requeue(queue_id)
        request, waiting = self.smtp.waiting.pop()
        waiting.callback(deferred(request))
        self.run_turns()
        self.failureResultOf(requeued, SpoolError)
        self.flushLoggedErrors(IntakeError)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_refused_active(self) -> None:
        """An active message that cleanup does not take is tried again."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.cleanup.refuses = True
        requeued = self.manager.requeue(queue_id)
        for _ in range(5):
            self.answer()
        self.failureResultOf(requeued, SpoolError)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.flushLoggedErrors(IntakeError)
        self.smtp.script = sent
        self.wait(300)
        self.assertEqual(len(set(self.smtp.delivered())), 400)
        self.assertEqual(len(self.smtp.delivered()), 400)

    def test_not_delivered_meanwhile(self) -> None:
        """While a message is handed over again no scan brings it up."""
        queue_id = self.defer()
        waiting: Deferred[QueueID] = Deferred()
        self.patch(Incoming, "finish", lambda incoming: waiting)
        requeued = self.manager.requeue(queue_id)
        self.manager.flush()
        self.wait(301)
        self.assertEqual(len(self.smtp.requests), 1)
        waiting.callback(QueueID("4bNEW"))
        self.successResultOf(requeued)
        self.assertEqual(self.where(queue_id), [])

    def test_failed_recipients_are_told_first(self) -> None:
        """The sender hears of those who failed for good before their record goes."""
        queue_id = self.defer("u@d.test")
        self.bounces.log[queue_id] = []
        self.bounces.story.clear()
        self.successResultOf(self.manager.requeue(queue_id))
        self.assertEqual(self.bounces.story, ["notify", "forget"])
