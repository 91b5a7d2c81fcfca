"""How messages leave: expiry, notices, marks, and a store that fails."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from qmqpd_tx.interfaces import DeliveryRequest, IntakeError, MessageNotFound, SpoolError
from qmqpd_tx.message import Queue
from qmqpd_tx.status import Action, DeliveryReport
from tests.qmgr.scripted import QueueManagerTestCase, bounced, deferred, hangs, sent

DAY = 86400.0


class ExpireTests(QueueManagerTestCase):
    """Mail that waited too long."""

    def test_retries_until_expiry(self) -> None:
        """It is tried with growing distances for five days, then returned with its last status."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.wait(5 * DAY - 3700)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.wait(2 * 4000)
        self.assertEqual(self.where(queue_id), [])
        ((sender, failed),) = self.bounces.notices
        self.assertEqual(sender, b"sender@src.test")
        self.assertEqual([(o.action, o.dsn) for o in failed], [(Action.BOUNCED, "4.2.1")])
        self.assertEqual(
            self.lines(queue_id)[-2:],
            ["qmgr: from=<sender@src.test>, status=expired, returned to sender", "qmgr: removed"],
        )
        # At 0, 300, 600, 1200, 2400, 4800 and then every 4000 s, each at the next queue run.
        self.assertTrue(105 <= len(self.smtp.requests) <= 115, len(self.smtp.requests))

    def test_delivered_in_time(self) -> None:
        """Old mail that can be delivered is delivered: expiry is for failures."""
        queue_id = self.send("u@d.test", age=30 * DAY)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(self.bounces.notices, [])

    def test_many_recipients(self) -> None:
        """All recipients of an old message are returned."""
        self.smtp.script = deferred
        queue_id = self.send(*[f"u{n}@d.test" for n in range(2500)], age=6 * DAY)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(sum(len(failed) for _, failed in self.bounces.notices), 2500)

    def test_record_fails(self) -> None:
        """When the record cannot be made, the old message stays, and is returned later."""
        self.smtp.script = deferred
        self.bounces.broken = {"bounced"}
        queue_id = self.send("u@d.test", age=6 * DAY)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(len(self.flushLoggedErrors(SpoolError)), 1)
        self.bounces.broken = set()
        self.wait(4300)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.bounces.notices), 1)


class BounceLifetimeTests(QueueManagerTestCase):
    """C{bounce_queue_lifetime}."""

    config = "bounce_queue_lifetime = 0\n"

    def test_bounces_tried_once(self) -> None:
        """Lifetime 0: mail without a return path is tried once; other mail is kept."""
        self.smtp.script = deferred
        null = self.send("u@d.test", sender=b"")
        double = self.send("u@d.test", sender=b"double-bounce@origin.test")
        other = self.send("u@d.test")
        self.assertEqual(self.where(null) + self.where(double), [])
        self.assertIn("qmgr: from=<>, status=expired, returned to sender", self.lines(null))
        self.assertEqual(self.where(other), [Queue.DEFERRED])


class OrderTests(QueueManagerTestCase):
    """What is safe before what."""

    def test_record_before_mark_before_notice_before_removal(self) -> None:
        """The order that loses nothing."""
        self.smtp.script = bounced
        story: list[str] = []
        self.queue.story = story
        self.bounces.story = story
        self.send("u@d.test")
        self.assertEqual(story, ["move to active", "bounced", "mark", "notify", "forget", "remove"])

    def test_mark_before_deferred(self) -> None:
        """Who is done is marked before the message is put aside."""

        def half(request: DeliveryRequest) -> DeliveryReport:
            return sent(request) if request.nexthop == "good.test" else deferred(request)

        self.smtp.script = half
        self.send("u@good.test", "u@bad.test")
        self.assertEqual(self.queue.story, ["move to active", "mark", "move to deferred"])

    def test_refused_notice(self) -> None:
        """A notice that cleanup refuses is no bug: the message waits, and the log says why."""
        self.smtp.script = bounced
        refused = fail(IntakeError(False, "4.6.0", "Error: 4.6.0 Alias expansion error"))
        self.patch(self.bounces, "notify", lambda message: refused)
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(
            self.lines(queue_id)[-2:],
            [
                "qmgr: notify the sender; will try again: Error: 4.6.0 Alias expansion error",
                "qmgr: status=deferred (bounce failed)",
            ],
        )

    def test_failed_notice(self) -> None:
        """A notice that cannot be sent keeps the message; later the notice goes, and nothing is repeated."""
        self.smtp.script = bounced
        self.bounces.broken = {"notify"}
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(len(self.flushLoggedErrors(SpoolError)), 1)
        self.bounces.broken = set()
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual(len(self.bounces.notices), 1)

    def test_failed_notice_after_a_delivery(self) -> None:
        """Who gets a message at a retry gets it once, when a notice about somebody else keeps the message."""

        def half(request: DeliveryRequest) -> DeliveryReport:
            return deferred(request) if request.nexthop == "good.test" else bounced(request)

        self.smtp.script = half
        self.bounces.broken = {"notify"}
        queue_id = self.send("u@good.test", "u@bad.test")
        self.smtp.script = sent
        self.wait(2000)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.flushLoggedErrors(SpoolError)
        self.bounces.broken = set()
        self.wait(4000)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(self.smtp.delivered(), [b"u@good.test", b"u@bad.test", b"u@good.test"])
        self.assertEqual(len(self.bounces.notices), 1)

    def test_failed_record(self) -> None:
        """A failure that cannot be recorded is none: the recipient waits."""
        self.smtp.script = bounced
        self.bounces.broken = {"bounced"}
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(len(self.flushLoggedErrors(SpoolError)), 1)
        self.bounces.broken = set()
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.bounces.notices), 1)

    def test_failed_defer_log(self) -> None:
        """Not being able to say why a message waits is no reason to lose it."""
        self.smtp.script = deferred
        self.bounces.broken = {"deferred", "forget"}
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.flushLoggedErrors(SpoolError)), 2)


class FailingStoreTests(QueueManagerTestCase):
    """Disks that do not do what they are told."""

    def test_removal_fails(self) -> None:
        """A delivered message that cannot be removed is removed later, and not delivered again."""
        self.queue.broken = {"remove"}
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        self.wait(1000)
        self.queue.broken = set()
        self.wait(70)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual(self.lines(queue_id)[-1], "qmgr: removed")

    def test_move_to_active_fails(self) -> None:
        """A message that cannot be moved is delivered from where it is, once."""
        self.queue.broken = {"move to active"}
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [])
        self.wait(600)
        self.assertEqual(len(self.smtp.requests), 1)

    def test_nothing_works(self) -> None:
        """No move, no removal, with scans going on: still delivered only once."""
        self.queue.broken = {"move to active", "remove"}
        queue_id = self.send("u@d.test")
        self.wait(2000)
        self.assertEqual(self.where(queue_id), [Queue.INCOMING])
        self.assertEqual(len(self.smtp.requests), 1)
        self.queue.broken = set()
        self.wait(70)
        self.assertEqual(self.where(queue_id), [])

    def test_opened_behind_a_failed_removal(self) -> None:
        """A scan that opens a message while its removal is still to fail does not bring it up again."""
        removal: Deferred[None] = Deferred()
        opening: Deferred[None] = Deferred()
        store_open = self.queue.open
        self.queue.broken = {"move to active"}
        self.patch(self.queue, "remove", lambda *_: removal)
        self.patch(self.queue, "open", lambda *which: opening.addCallback(lambda _: store_open(*which)))
        queue_id = self.send("u@d.test")
        self.manager.flush()
        self.run_turns()
        removal.errback(SpoolError(f"{queue_id}: remove: read-only file system"))
        opening.callback(None)
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 1)

    def test_asked_for_behind_a_failed_removal(self) -> None:
        """Nor does somebody who asks for it by name."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.smtp.script = sent
        self.queue.broken = {"move to active", "remove"}
        self.successResultOf(self.manager.deliver_now(queue_id))
        self.run_turns()
        self.failureResultOf(self.manager.deliver_now(queue_id), MessageNotFound)
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(len(self.smtp.requests), 2)

    def test_deferring_fails(self) -> None:
        """A message that cannot be put aside stays active, is put aside later, and is tried again."""
        self.smtp.script = deferred
        self.queue.broken = {"move to deferred"}
        queue_id = self.send("u@d.test")
        self.wait(1000)
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        self.assertEqual(len(self.smtp.requests), 1)
        self.queue.broken = set()
        self.smtp.script = sent
        self.wait(1000)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 2)

    def test_mark_fails(self) -> None:
        """Who is done is kept in mind when the file cannot be told, and told when it can."""

        def half(request: DeliveryRequest) -> DeliveryReport:
            return sent(request) if request.nexthop == "good.test" else deferred(request)

        self.smtp.script = half
        self.queue.broken = {"mark"}
        queue_id = self.send("u@good.test", "u@bad.test")
        self.wait(301)
        self.assertEqual(self.smtp.delivered(), [b"u@good.test", b"u@bad.test", b"u@bad.test"])
        self.queue.broken = set()
        self.wait(1000)
        message = self.successResultOf(self.queue.open(queue_id, Queue.DEFERRED))
        self.assertEqual(self.smtp.delivered().count(b"u@good.test"), 1)

        found = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 10)))
        self.assertEqual([r.address for r in found.recipients], [b"u@bad.test"])
        message.close()

    def test_file_removed_while_active(self) -> None:
        """A message that somebody took away is not missed."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.queue.remove(queue_id, Queue.ACTIVE)
        request, answer = self.smtp.waiting[0]
        answer.callback(sent(request))
        self.run_turns()
        self.assertEqual(self.manager.status().messages, [])

    def test_file_removed_before(self) -> None:
        """A message that has gone before it became active is not delivered."""
        message = self.message("u@d.test")
        self.queue.remove(message.queue_id, Queue.INCOMING)
        self.manager.arrived(message)
        self.run_turns()
        self.assertEqual(self.smtp.requests, [])
        self.assertEqual(self.manager.status().messages, [])

    def test_damaged_in_incoming(self) -> None:
        """As seen in Postfix: a damaged file is saved to corrupt, with a warning; others go on."""
        message = self.message("u@d.test")
        queue_id = message.queue_id
        message.close()
        self.queue.damage(queue_id, Queue.INCOMING, 60, b"\xff" * 60)
        good = self.message("v@d.test")
        good.close()
        self.manager.flush()
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.CORRUPT])
        self.assertEqual(self.smtp.delivered(), [b"v@d.test"])
        self.assertIn(
            f'qmgr: saving corrupt file "{queue_id}" from queue "incoming" to queue "corrupt"', self.lines()
        )

    def test_open_fails(self) -> None:
        """A file that cannot be opened stays and is tried again at the next run."""
        self.queue.broken = {"open"}
        message = self.message("u@d.test")
        message.close()
        self.manager.flush()
        self.run_turns()
        self.assertEqual(self.where(message.queue_id), [Queue.INCOMING])
        self.queue.broken = set()
        self.wait(301)
        self.assertEqual(self.where(message.queue_id), [])

    def test_deferred_open_fails(self) -> None:
        """The same for deferred mail, which does not keep other mail from its turn."""
        self.smtp.script = deferred
        ids = [self.send(f"u{n}@d.test") for n in range(250)]
        self.smtp.script = sent
        self.queue.broken = {"open"}
        self.wait(301)
        self.assertEqual({q for i in ids for q in self.where(i)}, {Queue.DEFERRED})
        self.queue.broken = set()
        self.wait(301)
        self.assertEqual([q for i in ids for q in self.where(i)], [])


class ClockTests(QueueManagerTestCase):
    """A clock that jumps."""

    def test_forward(self) -> None:
        """A year later everything is due, and old."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.clock.advance(365 * DAY)
        self.run_turns()
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.bounces.notices), 1)

    def test_backward(self) -> None:
        """A message from the future is delivered, and waits no longer than new mail."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test", age=-365 * DAY)
        self.assertEqual(self.due(queue_id), 300.0)
        self.assertIn("delay=0, delays=0/0/0/0", self.lines(queue_id)[1])
        self.assertIsInstance(self.clock, Clock)
