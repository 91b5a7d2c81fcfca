"""Mail that is held back until somebody wants it out: defer_transports, flush, one message, triggers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IStoredMessage, SpoolError
from qmqpd_tx.message import Queue, QueueID, Recipient, RecipientSlice, Route
from qmqpd_tx.qmgr.triggers import read_triggers
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from tests.qmgr.scripted import QueueManagerTestCase, deferred, hangs, refused, sent


class SlowlyRead:
    """
    A message whose recipients take a moment to read, as from a busy disk.
    """

    def __init__(self, message: IStoredMessage, clock: Clock) -> None:
        self._message = message
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    async def recipients(self, position: int | None, limit: int) -> RecipientSlice:
        """See L{IStoredMessage.recipients}."""
        await deferLater(self._clock, 0.1)
        found: RecipientSlice = await self._message.recipients(position, limit)
        return found


class SlicesTests(QueueManagerTestCase):
    """A message of more recipients than fit into memory, none of which is tried."""

    config = (
        "defer_transports = slow\nqmgr_message_recipient_limit = 20\nqmgr_message_active_limit = 10\n"
        "slow_recipient_limit = 20\nslow_extra_recipient_limit = 0\n"
    )

    def test_read_to_the_end(self) -> None:
        """
        All its slices are read, and all are deferred, although no delivery ever ends that would lead to the
        next read.
        """
        self.transports["slow"] = self.smtp
        self.router.routes[b"slow.test"] = lambda address: Route("slow", "slow.test", address)
        message = self.message(*(f"u{number}@slow.test" for number in range(100)))
        slowly: Any = SlowlyRead(message, self.clock)
        self.manager.arrived(slowly)
        self.wait(60)
        self.assertEqual(self.where(message.queue_id), [Queue.DEFERRED])
        lines = [line for line in self.lines(message.queue_id) if "(deferred transport)" in line]
        self.assertEqual(len(lines), 100)


class DeferTransportsTests(QueueManagerTestCase):
    """As seen in Postfix."""

    config = "defer_transports = slow, uucp\n"

    def setUp(self) -> None:
        super().setUp()
        self.transports["slow"] = self.smtp
        self.router.routes[b"slow.test"] = lambda address: Route("slow", "slow.test", address)

    def trigger(self, letters: bytes) -> None:
        """As from the socket."""
        self.manager.triggered(read_triggers(letters))
        self.run_turns()

    def test_deferred(self) -> None:
        """Mail for it is deferred without a try, with Postfix's line; other mail goes."""
        queue_id = self.send("u@slow.test", "v@d.test")
        self.assertEqual(self.smtp.delivered(), [b"v@d.test"])
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertIn(
            "error: to=<u@slow.test>, relay=none, delay=0, delays=0/0/0/0, dsn=4.3.2,"
            " status=deferred (deferred transport)",
            self.lines(queue_id),
        )
        self.wait(4000)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_flush(self) -> None:
        """postqueue -f gets it out."""
        queue_id = self.send("u@slow.test")
        self.manager.flush()
        self.run_turns()
        self.assertEqual(self.where(queue_id), [])

    def test_one_message(self) -> None:
        """So does postqueue -i, for that message."""
        one, other = self.send("u@slow.test"), self.send("v@slow.test")
        self.successResultOf(self.manager.deliver_now(one))
        self.run_turns()
        self.assertEqual((self.where(one), self.where(other)), ([], [Queue.DEFERRED]))

    def test_ignored_times_are_not_enough(self) -> None:
        """Trigger F says so, not A."""
        queue_id = self.send("u@slow.test")
        self.trigger(b"AD")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.trigger(b"FD")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED], "not due")
        self.wait(300)
        self.trigger(b"AD")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.trigger(b"AFD")
        self.assertEqual(self.where(queue_id), [])

    def test_f_sticks(self) -> None:
        """To the next scan of the deferred queue, and to the next message that comes in."""
        queue_id = self.send("u@slow.test")
        self.trigger(b"F")
        self.trigger(b"A")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.trigger(b"D")
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(self.where(self.send("v@slow.test")), [])
        self.assertEqual(len(self.where(self.send("w@slow.test"))), 1)

    def test_a_sticks(self) -> None:
        """To the next scan of the deferred queue."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.smtp.script = sent
        self.trigger(b"D")
        self.assertEqual(len(self.smtp.requests), 1)
        self.trigger(b"A")
        self.assertEqual(len(self.smtp.requests), 1)
        self.trigger(b"D")
        self.assertEqual(self.where(queue_id), [])

    def test_reload(self) -> None:
        """A transport that is not deferred any more delivers at the next attempt."""
        queue_id = self.send("u@slow.test")
        self.manager.reconfigure(config_from_text("myhostname = host.test\n"))
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])


class DeadTests(QueueManagerTestCase):
    """What a flush does to dead destinations."""

    config = "initial_destination_concurrency = 1\n"

    def setUp(self) -> None:
        super().setUp()
        self.smtp.script = refused
        for number in range(6):
            self.queue_id = self.send(f"u{number}@dead.test")
            self.other = self.send(f"u{number}@other.test")
        self.smtp.script = sent
        self.smtp.requests.clear()

    def test_ignored_times(self) -> None:
        """A D tries all mail, but dead destinations stay dead."""
        self.manager.triggered(read_triggers(b"AD"))
        self.run_turns()
        self.assertEqual(self.smtp.requests, [])

    def test_one_message(self) -> None:
        """postqueue -i forgets what is dead in the way of that message, and nothing else."""
        self.successResultOf(self.manager.deliver_now(self.queue_id))
        self.run_turns()
        self.assertEqual(self.where(self.queue_id), [])
        self.send("v@dead.test")
        self.assertEqual(len(self.smtp.requests), 2)
        self.send("v@other.test")
        self.assertEqual(len(self.smtp.requests), 2)

    def test_one_message_and_a_dead_transport(self) -> None:
        """The same for a transport."""
        self.router.routes[b"gone.test"] = lambda address: Route("gone", "gone.test", address)
        queue_id = self.send("u@gone.test")
        self.transports["gone"] = self.smtp
        self.successResultOf(self.manager.deliver_now(queue_id))
        self.run_turns()
        self.assertEqual(self.where(queue_id), [])


class JitterTests(QueueManagerTestCase):
    """deferred_retry_jitter."""

    config = "deferred_retry_jitter = 50\n"

    def test_spread(self) -> None:
        """Each interval is longer by up to half of itself, and not by the same for all."""
        self.smtp.script = deferred
        due = [self.due(self.send(f"u{number}@d{number}.test")) for number in range(100)]
        self.assertTrue(all(300.0 <= when <= 450.0 for when in due), due)
        self.assertTrue(max(due) > 440.0 and min(due) < 310.0, due)
        self.assertTrue(360.0 < sum(due) / 100 < 390.0, due)


class ScanTests(QueueManagerTestCase):
    """Scans that are requested while one runs."""

    def test_restarted(self) -> None:
        """It starts again as soon as the first one ends, and finds what has come meanwhile."""
        self.manager.triggered(read_triggers(b"I"))
        late = self.message("u@d.test")
        late.close()
        self.manager.triggered(read_triggers(b"I"))
        self.run_turns()
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])

    def test_restarted_after_a_failure(self) -> None:
        """Also when the store failed in the first one."""
        scan = self.queue.scan
        broken: Deferred[Any] = Deferred()

        class Broken:
            def next(self, limit: int) -> Deferred[Any]:
                return broken

        self.queue.scan = lambda queue: Broken()  # type: ignore[method-assign,assignment,return-value]
        self.manager.triggered(read_triggers(b"I"))
        self.run_turns()
        self.message("u@d.test").close()
        self.queue.scan = scan  # type: ignore[method-assign]
        self.manager.triggered(read_triggers(b"I"))
        broken.errback(SpoolError("scan: input/output error"))
        self.run_turns()
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])

    def test_flushed_once(self) -> None:
        """A message that fails at once again is not tried twice by one flush."""
        self.smtp.script = deferred
        for number in range(250):
            self.send(f"u{number}@d{number}.test")
        self.manager.flush()
        self.run_turns()
        self.assertEqual(len(self.smtp.requests), 500)


class Sites:
    """
    A flush service that remembers.

    @ivar told: what it was told.
    @ivar written: is what it is told written at once.
    """

    def __init__(self) -> None:
        self.told: list[tuple[QueueID, list[bytes]]] = []
        self.waiting: Deferred[None] | None = None

    def deferred(self, queue_id: QueueID, recipients: list[Recipient]) -> Deferred[None] | None:
        """Remember."""
        self.told.append((queue_id, [recipient.address for recipient in recipients]))
        return self.waiting


class FlushServiceTests(QueueManagerTestCase):
    """What the flush service hears."""

    def more(self) -> dict[str, Any]:
        """There is one."""
        self.sites = Sites()
        return {"flush": self.sites}

    def test_told_before_the_move(self) -> None:
        """Of each deferred recipient, and the message moves when it is written."""
        self.smtp.script = deferred
        self.sites.waiting = written = Deferred[None]()
        queue_id = self.send("a@d.test", "b@e.test")
        self.assertEqual(self.where(queue_id), [Queue.ACTIVE])
        written.callback(None)
        self.run_turns()
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(self.sites.told, [(queue_id, [b"a@d.test", b"b@e.test"])])

    def test_delivered_mail_costs_nothing(self) -> None:
        """It is not told of mail that is delivered."""
        self.send("u@d.test")
        self.assertEqual(self.sites.told, [])


class DelayTests(QueueManagerTestCase):
    """When the bounce service is asked about delay warnings."""

    def test_deferred(self) -> None:
        """After the defer log, whenever an attempt ends with recipients that wait."""
        self.smtp.script = deferred
        self.send("u@d.test")
        self.assertEqual(self.bounces.story, ["deferred", "delayed"])
        self.wait(301)
        self.assertEqual(self.bounces.story[2:], ["deferred", "notify", "delayed"])

    def test_delivered(self) -> None:
        """Ordinary mail asks nothing."""
        self.send("u@d.test")
        self.assertEqual(self.bounces.story, [])

    def test_not_on_hold(self) -> None:
        """An operator who holds a message need not be warned of it."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.successResultOf(self.manager.hold(queue_id))
        request, answer = self.smtp.waiting.pop()
        answer.callback(deferred(request))
        self.run_turns()
        self.assertNotIn("delayed", self.bounces.story)

    def test_confirmed(self) -> None:
        """Who gets it later than at the first attempt is told, before the mark, if anybody wants to know."""
        self.bounces.confirms = True
        self.smtp.script = deferred
        self.send("u@d.test")
        self.smtp.script = sent
        self.wait(301)
        self.assertEqual(self.bounces.late, [b"u@d.test"])
        story = self.bounces.story
        self.assertLess(story.index("delivered"), len(story) - 1 - story[::-1].index("notify"))

    def test_strangers_are_not_confirmed(self) -> None:
        """A transport that reports on strangers, or twice, makes no confirmation of that."""
        self.bounces.confirms = True
        self.smtp.script = deferred
        self.send("u@d.test")

        def confused(request: DeliveryRequest) -> DeliveryReport:
            outcomes = list(sent(request).outcomes)
            stranger = Outcome(Recipient(b"x@d.test", b"x@d.test", 9999), Action.SENT, "2.0.0", "ok")
            return DeliveryReport([*outcomes, *outcomes, stranger])

        self.smtp.script = confused
        self.wait(301)
        self.assertEqual(self.bounces.late, [b"u@d.test"])

    def test_not_confirmed(self) -> None:
        """Nobody is told of the first attempt, nor when nobody wants to know."""
        self.bounces.confirms = True
        self.send("u@d.test")
        self.bounces.confirms = False
        self.smtp.script = deferred
        self.send("v@d.test")
        self.smtp.script = sent
        self.wait(301)
        self.assertEqual(self.bounces.late, [])

    def test_failing(self) -> None:
        """What the bounce service cannot do is logged, and the mail goes on."""
        self.bounces.confirms = True
        self.bounces.broken = {"delayed", "delivered"}
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.smtp.script = sent
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.flushLoggedErrors()), 2)
