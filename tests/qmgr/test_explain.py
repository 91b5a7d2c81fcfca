"""Why a message waits, and until when."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from qmqpd_tx.interfaces import DeliveryRequest, MessageNotFound
from qmqpd_tx.message import Queue, QueueID, Route
from qmqpd_tx.qmgr.explanation import Explanation, LastStatus, Reason, RecipientExplanation
from qmqpd_tx.status import DeliveryReport
from tests.qmgr.scripted import START, QueueManagerTestCase, deferred, hangs, refused, sent


class Status:
    """What is remembered of a recipient."""

    def __init__(self, outcome: Any) -> None:
        self.address = outcome.recipient.address
        self.original = outcome.recipient.original
        self.dsn, self.text, self.relay = outcome.dsn, outcome.text, outcome.relay


class ExplainTestCase(QueueManagerTestCase):
    """A queue manager that is asked."""

    def more(self) -> dict[str, Any]:
        """It knows the defer log."""
        return {
            "remembered": lambda queue_id: succeed(
                [Status(o) for o in self.bounces.waiting.get(queue_id, ())]
            )
        }

    def explain(self, queue_id: QueueID, limit: int = 1000) -> Explanation:
        """Ask."""
        answer: Explanation = self.successResultOf(self.manager.explain(queue_id, limit))
        return answer

    def one(self, queue_id: QueueID, address: str) -> RecipientExplanation:
        """What is said of one recipient."""
        (found,) = (r for r in self.explain(queue_id).recipients if r.address == address.encode())
        return found

    def reasons(self, queue_id: QueueID, address: str) -> list[Reason]:
        """What one recipient waits for."""
        return [waiting.reason for waiting in self.one(queue_id, address).waits]


class StoredTests(ExplainTestCase):
    """Messages that are not active."""

    config = "defer_transports = slow\n"

    def test_deferred(self) -> None:
        """All that is known of a message that has failed."""
        self.smtp.script = deferred
        queue_id = self.send(("u@d.test", "alias@d.test"))
        self.wait(10)
        found = self.explain(queue_id)
        self.assertEqual(
            (
                found.queue_id,
                found.queue,
                found.sender,
                found.size,
                found.arrival_time,
                found.recipient_count,
            ),
            (queue_id, Queue.DEFERRED, b"sender@src.test", 19, START, 1),
        )
        (recipient,) = found.recipients
        self.assertEqual(
            (recipient.address, recipient.original, recipient.transport, recipient.nexthop),
            (b"u@d.test", b"alias@d.test", "smtp", "d.test"),
        )
        self.assertEqual(recipient.last, LastStatus("4.2.1", "host sink said: 450 4.2.1 busy", "none"))
        self.assertEqual(recipient.next_attempt, START + 300)
        (waiting,) = recipient.waits
        self.assertEqual((waiting.reason, waiting.until), (Reason.BACKOFF, START + 300))
        self.wait(291)
        self.assertEqual(len(self.smtp.requests), 2)

    def test_the_next_queue_run_after_its_time(self) -> None:
        """A message is tried at a queue run, and that is what is said."""
        self.wait(20)
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.assertEqual(self.one(queue_id, "u@d.test").next_attempt, START + 600)
        self.wait(579)
        self.assertEqual(len(self.smtp.requests), 1)
        self.wait(1)
        self.assertEqual(len(self.smtp.requests), 2)

    def test_dead_destination(self) -> None:
        """When and why its destination is dead."""
        self.smtp.script = refused
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        reasons = self.reasons(queue_id, "u399@d.test")
        self.assertEqual(reasons, [Reason.BACKOFF, Reason.DEAD_DESTINATION])
        dead = self.one(queue_id, "u399@d.test").waits[1]
        self.assertEqual(dead.until, START + 300)
        self.assertIn("Connection refused", dead.text)

    def test_throttled_transport(self) -> None:
        """The same for a transport."""
        self.router.routes[b"gone.test"] = lambda address: self.route("gone", address)
        queue_id = self.send("u@gone.test")
        self.assertEqual(self.reasons(queue_id, "u@gone.test"), [Reason.BACKOFF, Reason.DEAD_TRANSPORT])

    def route(self, transport: str, address: bytes) -> Any:
        """A route to another transport."""
        return Route(transport, "x.test", address)

    def test_deferred_transport(self) -> None:
        """A transport that waits for a flush."""
        self.router.routes[b"slow.test"] = lambda address: self.route("slow", address)
        queue_id = self.send("u@slow.test")
        self.assertEqual(self.reasons(queue_id, "u@slow.test"), [Reason.BACKOFF, Reason.DEFER_TRANSPORTS])

    def test_done_recipients_are_not_explained(self) -> None:
        """Only those that still wait."""

        def one_of_two(request: DeliveryRequest) -> DeliveryReport:
            return DeliveryReport([*sent(request).outcomes[:1], *deferred(request).outcomes[1:]])

        self.smtp.script = one_of_two
        queue_id = self.send("a@d.test", "b@d.test")
        found = self.explain(queue_id)
        self.assertEqual([r.address for r in found.recipients], [b"b@d.test"])
        self.assertEqual((found.recipient_count, found.more), (2, False))

    def test_limit(self) -> None:
        """No more than asked for, and whether there are others."""
        self.smtp.script = deferred
        queue_id = self.send(*[f"u{n}@d.test" for n in range(10)])
        found = self.explain(queue_id, 3)
        self.assertEqual((len(found.recipients), found.more, found.recipient_count), (3, True, 10))

    def test_hold(self) -> None:
        """A message on hold."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.successResultOf(self.manager.hold(queue_id))
        found = self.explain(queue_id)
        self.assertEqual(found.queue, Queue.HOLD)
        self.assertEqual([waiting.reason for waiting in found.waits], [Reason.HOLD])
        self.assertIsNone(found.recipients[0].next_attempt)

    def test_corrupt(self) -> None:
        """One that was put aside as damaged, and can be read all the same."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.successResultOf(self.queue.move(queue_id, Queue.DEFERRED, Queue.CORRUPT))
        self.assertEqual(self.reasons(queue_id, "u@d.test"), [Reason.CORRUPT])

    def test_incoming(self) -> None:
        """One that has just come."""
        message = self.message("u@d.test")
        message.close()
        self.assertEqual(self.reasons(message.queue_id, "u@d.test"), [Reason.QUEUE_RUN])

    def test_unknown(self) -> None:
        """One that is not there."""
        self.failureResultOf(self.manager.explain(QueueID("4bQZxk1234zABC")), MessageNotFound)

    def test_router_fails(self) -> None:
        """An address that cannot be resolved now is explained without a destination."""

        def broken(address: bytes) -> Any:
            raise RuntimeError("no")

        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.router.routes[b"d.test"] = broken
        recipient = self.one(queue_id, "u@d.test")
        self.assertEqual((recipient.transport, recipient.waits[0].reason), (None, Reason.BACKOFF))


class FullTests(ExplainTestCase):
    """The active queue is full."""

    config = "qmgr_message_active_limit = 1\n"

    def test_incoming(self) -> None:
        """A message waits for room in it."""
        self.smtp.script = hangs
        self.send("u@d.test")
        queue_id = self.send("v@d.test")
        (waiting, *_) = self.explain(queue_id).waits
        self.assertEqual((waiting.reason, waiting.limit), (Reason.ACTIVE_LIMIT, 1))


class ActiveTests(ExplainTestCase):
    """Active messages."""

    config = (
        "default_process_limit = 7\nslow_destination_rate_delay = 60\n"
        "smtp_destination_concurrency_limit = 3\n"
    )

    def test_delivering_and_waiting(self) -> None:
        """Who is being delivered, and who waits for a window."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        self.wait(5)
        waiting = self.one(queue_id, "u000@d.test").waits[0]
        self.assertEqual((waiting.reason, waiting.since), (Reason.DELIVERING, START))
        waiting = self.one(queue_id, "u399@d.test").waits[0]
        self.assertEqual((waiting.reason, waiting.busy, waiting.limit), (Reason.WINDOW, 3, 3))
        self.assertIn("3 of 3", waiting.text)

    def test_processes(self) -> None:
        """A transport that runs as many deliveries as it may."""
        self.smtp.script = hangs
        for number in range(7):
            self.send(f"u@d{number}.test")
        queue_id = self.send("u@other.test")
        waiting = self.one(queue_id, "u@other.test").waits[0]
        self.assertEqual((waiting.reason, waiting.limit), (Reason.PROCESSES, 7))

    def test_behind(self) -> None:
        """Whose turn is before."""
        self.smtp.script = hangs
        first = self.send(*[f"u{n:03}@d.test" for n in range(400)])
        second = self.send("u@d.test")
        waiting = self.one(second, "u@d.test").waits[0]
        self.assertEqual(waiting.behind, first)

    def test_rate_delay(self) -> None:
        """A pause, and when it is over."""
        self.router.routes[b"slow.test"] = lambda address: Route("slow", "slow.test", address)
        self.transports["slow"] = self.smtp
        self.send("u@slow.test")
        queue_id = self.send("v@slow.test")
        waiting = self.one(queue_id, "v@slow.test").waits[0]
        self.assertEqual((waiting.reason, waiting.until), (Reason.DESTINATION_RATE, START + 60))

    def test_resolving(self) -> None:
        """An address that is being looked up."""
        self.router.routes[b"late.test"] = lambda address: Deferred()
        queue_id = self.send("u@late.test")
        self.assertEqual(self.reasons(queue_id, "u@late.test"), [Reason.ROUTING])

    def test_tried(self) -> None:
        """One that failed while others are still being tried."""

        def script(request: DeliveryRequest) -> Any:
            return deferred(request) if request.nexthop == "bad.test" else hangs(request)

        self.smtp.script = script
        queue_id = self.send("a@bad.test", "b@d.test")
        recipient = self.one(queue_id, "a@bad.test")
        self.assertEqual(recipient.waits[0].reason, Reason.OTHERS)
        self.assertEqual(recipient.last and recipient.last.dsn, "4.2.1")

    def test_held_with_deliveries(self) -> None:
        """What an operator wants of it."""
        self.smtp.script = hangs
        queue_id = self.send("u@d.test")
        self.successResultOf(self.manager.hold(queue_id))
        found = self.explain(queue_id)
        self.assertEqual((found.queue, found.waits[0].reason), (Queue.HOLD, Reason.OPERATOR))


class UnreadTests(ExplainTestCase):
    """Recipients that were not read yet."""

    config = (
        "qmgr_message_active_limit = 10\nqmgr_message_recipient_limit = 20\ndefault_recipient_limit = 10\n"
    )

    def test_unread(self) -> None:
        """Which limit they wait for."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(100)])
        found = self.explain(queue_id)
        self.assertEqual(len(found.recipients), 100)
        self.assertEqual(len({r.address for r in found.recipients}), 100)
        last = found.recipients[-1].waits[0]
        self.assertEqual(last.reason, Reason.UNREAD)
        self.assertEqual(last.limit, 20)

    def test_limited(self) -> None:
        """They are not read further than asked for."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:03}@d.test" for n in range(100)])
        found = self.explain(queue_id, 5)
        self.assertEqual((len(found.recipients), found.more), (5, True))
