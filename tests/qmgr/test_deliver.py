"""Deliveries and their outcomes, through the whole queue manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from qmqpd_tx.interfaces import DeliveryRequest
from qmqpd_tx.message import Queue, QueueID, Route
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from tests.qmgr.scripted import (
    QueueManagerTestCase,
    ScriptedTransport,
    bounced,
    deferred,
    hangs,
    refused,
    sent,
)


class ForgetfulTransport(ScriptedTransport):
    """A transport that gives its answer without a Deferred around it, as beginners do."""

    def deliver(self, request: DeliveryRequest) -> Any:
        """Answer at once."""
        return self.script(request)


class DeliverTests(QueueManagerTestCase):
    """One message and what becomes of it."""

    def test_delivered(self) -> None:
        """A message is delivered, logged as Postfix does, and gone."""
        queue_id = self.send("u@d.test")
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(
            self.lines(queue_id),
            [
                "qmgr: from=<sender@src.test>, size=19, nrcpt=1 (queue active)",
                "smtp: to=<u@d.test>, relay=sink[127.0.0.1]:25, delay=0, delays=0/0/0/0, dsn=2.0.0,"
                " status=sent (250 2.0.0 Ok)",
                "qmgr: removed",
            ],
        )

    def test_request(self) -> None:
        """The transport is told all it needs."""
        queue_id = self.send("u@d.test")
        (request,) = self.smtp.requests
        self.assertEqual(
            (request.queue_id, request.transport, request.nexthop, request.sender),
            (queue_id, "smtp", "d.test", b"sender@src.test"),
        )
        self.assertEqual(request.envelope.sender, b"sender@src.test")

    def test_no_needless_writes(self) -> None:
        """A message that is delivered at once costs a move and a removal, and not a mark."""
        self.send("u@d.test")
        self.assertEqual(self.queue.story, ["move to active", "remove"])
        self.assertEqual(self.bounces.story, [])

    def test_line_of_a_slow_delivery(self) -> None:
        """All times and the use of the connection are in the line, and the address as it was sent."""
        self.smtp.script = hangs
        message = self.message(("u@d.test", "alias@d.test"))
        self.clock.advance(0.25)
        self.manager.arrived(message)
        self.run_turns()
        ((request, answer),) = self.smtp.waiting
        self.clock.advance(12.5)
        outcome = Outcome(request.recipients[0], Action.SENT, "2.0.0", "250 Ok", "mx[1.2.3.4]:25")
        answer.callback(DeliveryReport([outcome], setup_seconds=1.5, connection_uses=3))
        self.assertEqual(
            self.lines(message.queue_id)[1],
            "smtp: to=<u@d.test>, orig_to=<alias@d.test>, relay=mx[1.2.3.4]:25, conn_use=3, delay=13,"
            " delays=0.25/0/1.5/11, dsn=2.0.0, status=sent (250 Ok)",
        )

    def test_deferred(self) -> None:
        """A 4xx answer keeps the message, remembers why, and is tried again in its time."""
        self.smtp.script = deferred
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual([o.dsn for o in self.bounces.waiting[queue_id]], ["4.2.1"])
        self.assertIn("dsn=4.2.1, status=deferred (host sink said: 450 4.2.1 busy)", self.lines(queue_id)[1])
        self.assertEqual(self.due(queue_id), 300.0)
        self.smtp.script = sent
        self.wait(301)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.smtp.requests), 2)
        self.assertEqual(self.bounces.waiting, {})

    def test_bounced(self) -> None:
        """A 5xx answer is recorded, reported, and then the message goes."""
        self.smtp.script = bounced
        queue_id = self.send("u@d.test")
        self.assertEqual(self.where(queue_id), [])
        ((sender, failed),) = self.bounces.notices
        self.assertEqual((sender, [o.dsn for o in failed]), (b"sender@src.test", ["5.1.1"]))
        self.assertIn("status=bounced (host sink said: 550 5.1.1 who?)", self.lines(queue_id)[1])

    def test_each_recipient_its_own(self) -> None:
        """One delivered, one failed, one waiting: only the last is tried again."""

        def script(request: DeliveryRequest) -> DeliveryReport:
            kinds = {b"a": sent, b"b": bounced, b"c": deferred}
            outcomes = []
            for recipient in request.recipients:
                report = kinds[recipient.address[:1]](request)
                outcomes += [o for o in report.outcomes if o.recipient is recipient]
            return DeliveryReport(outcomes)

        self.smtp.script = script
        queue_id = self.send("a@d.test", "b@d.test", "c@d.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(len(self.bounces.notices), 1)
        self.wait(301)
        self.assertEqual(self.smtp.delivered(), [b"a@d.test", b"b@d.test", b"c@d.test", b"c@d.test"])
        self.smtp.script = sent
        self.wait(700)
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(len(self.bounces.notices), 1)
        self.assertEqual(self.smtp.delivered()[3:], [b"c@d.test"] * 2)

    def test_batches(self) -> None:
        """Recipients of one destination travel together, up to the limit; other domains apart."""
        self.send(*[f"u{n:03}@d.test" for n in range(120)], "x@e.test")
        self.assertEqual(sorted(len(r.recipients) for r in self.smtp.requests), [1, 20, 50, 50])

    def test_verp(self) -> None:
        """Each recipient gets a sender address of its own."""
        self.send("u@d.test", "v@d.test", sender=b"list@src.test", verp=b"-=")
        self.assertEqual(
            [(r.sender, [x.address for x in r.recipients]) for r in self.smtp.requests],
            [(b"list-u=d.test@src.test", [b"u@d.test"]), (b"list-v=d.test@src.test", [b"v@d.test"])],
        )

    def test_verp_alias(self) -> None:
        """The sender address tells who the client named, not where an alias took the mail."""
        self.send(("u@d.test", "alias@src.test"), sender=b"list@src.test", verp=b"-=")
        self.assertEqual([r.sender for r in self.smtp.requests], [b"list-alias=src.test@src.test"])

    def test_routed_address(self) -> None:
        """The router may change the address to deliver to."""
        self.router.routes[b"alias.test"] = lambda address: Route("smtp", "real.test", b"u@real.test")
        queue_id = self.send("u@alias.test", "v@alias.test")
        self.assertEqual(self.smtp.delivered(), [b"u@real.test", b"u@real.test"])
        self.assertEqual(self.where(queue_id), [])

    def test_late_resolver(self) -> None:
        """A resolver that takes its time is waited for, and recipients still travel together."""
        answers: list[Deferred[Route]] = []

        def late(address: bytes) -> Deferred[Route]:
            answers.append(Deferred())
            return answers[-1]

        self.router.routes[b"late.test"] = late
        self.send("a@late.test", "b@late.test")
        self.assertEqual(self.smtp.requests, [])
        for answer, address in zip(answers, [b"a@late.test", b"b@late.test"], strict=True):
            answer.callback(Route("smtp", "late.test", address))
        self.run_turns()
        self.assertEqual([len(r.recipients) for r in self.smtp.requests], [2])

    def test_broken_resolver(self) -> None:
        """A resolver that fails keeps the mail; the other recipients are not held up."""

        def broken(address: bytes) -> Route:
            raise RuntimeError("no resolver")

        def late(address: bytes) -> Deferred[Route]:
            answer: Deferred[Route] = Deferred()
            answer.errback(RuntimeError("no resolver"))
            return answer

        self.router.routes[b"broken.test"] = broken
        self.router.routes[b"late.test"] = late
        queue_id = self.send("a@broken.test", "l@late.test", "u@d.test")
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual({o.dsn for o in self.bounces.waiting[queue_id]}, {"4.3.0"})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_nonsense_from_the_resolver(self) -> None:
        """A resolver whose answer is no route keeps the mail, and no message is active for ever."""

        def late(address: bytes) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            answer.callback("smtp:late.test")
            return answer

        def half(address: bytes) -> Deferred[Any]:
            return succeed(Route("smtp", "half.test", address)) if address.startswith(b"a") else late(address)

        self.router.routes[b"nonsense.test"] = lambda address: "smtp:nonsense.test"
        self.router.routes[b"late.test"] = late
        self.router.routes[b"half.test"] = half
        self.router.routes[b"text.test"] = lambda address: Route("smtp", "x", address.decode())  # type: ignore[arg-type]
        ids = [
            self.send("a@nonsense.test"),
            self.send("a@late.test"),
            self.send("a@nonsense.test", "b@nonsense.test"),
            self.send("a@late.test", "b@late.test"),
            self.send("a@half.test", "b@half.test"),
            self.send("a@text.test", "b@text.test"),
            self.send("u@d.test", "a@nonsense.test", "v@d.test"),
            self.send(*[f"{n}@nonsense.test" for n in range(1200)]),
        ]
        self.assertGreaterEqual(len(self.flushLoggedErrors(AttributeError, TypeError)), len(ids))
        self.assertEqual(self.manager.status().messages, [])
        self.assertEqual(self.manager.recipients(), 0)
        self.assertEqual([self.where(queue_id) for queue_id in ids], [[Queue.DEFERRED]] * len(ids))
        self.router.routes.clear()
        self.wait(301)
        self.assertEqual([self.where(queue_id) for queue_id in ids], [[]] * len(ids))
        self.assertEqual(len(set(self.smtp.delivered())), 10 + 1200)


class DoubleBounceTests(QueueManagerTestCase):
    """Mail for the double-bounce address ends here, when it is local."""

    def setUp(self) -> None:
        super().setUp()
        self.transports["local"] = self.local = ScriptedTransport(program="local")
        self.router.routes[b"here.test"] = lambda address: Route("local", "host.test", address, True)

    def test_discarded(self) -> None:
        """As seen in Postfix: logged and discarded, in any case."""
        queue_id = self.send("Double-Bounce@here.test", sender=b"")
        self.assertEqual((self.smtp.requests, self.local.requests), ([], []))
        self.assertEqual(self.where(queue_id), [])
        self.assertEqual(
            self.lines(queue_id)[1:],
            [
                "qmgr: to=<Double-Bounce@here.test>, relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0,"
                " status=sent (undeliverable postmaster notification discarded)",
                "qmgr: removed",
            ],
        )

    def test_others_there(self) -> None:
        """Other local addresses have their mail."""
        self.send("double-bounce@here.test", "user@here.test", "double-bounce+x@here.test")
        self.assertEqual(sorted(self.local.delivered()), [b"double-bounce+x@here.test", b"user@here.test"])

    def test_elsewhere(self) -> None:
        """Somebody else's double-bounce address is an address, and C{myorigin} need not be local."""
        self.send("double-bounce@elsewhere.test")
        self.send("double-bounce@origin.test")
        self.assertEqual(
            self.smtp.delivered(), [b"double-bounce@elsewhere.test", b"double-bounce@origin.test"]
        )

    def test_wherever_it_goes(self) -> None:
        """The address class decides, and no route does."""
        for local, count in ((True, 0), (False, 1)):
            self.router.routes[b"here.test"] = lambda address, local=local: Route(
                "smtp", "[in]", address, local
            )
            self.send("double-bounce@here.test")
            self.assertEqual(len(self.smtp.requests), count)


class DeadDestinationTests(QueueManagerTestCase):
    """Destinations that cannot be reached."""

    config = "smtp_destination_recipient_limit = 2\n"

    def test_waiting_recipients_not_tried(self) -> None:
        """As seen in Postfix: a few refused connections, and the rest is deferred without a try."""
        self.smtp.script = refused
        queue_id = self.send(*[f"u{n:02}@dead.test" for n in range(40)], "x@live.test")
        self.assertEqual(len([r for r in self.smtp.requests if r.nexthop == "dead.test"]), 3)
        text = "dsn=4.4.1, status=deferred (delivery temporarily suspended: connect to"
        untried = [line for line in self.lines(queue_id) if text in line]
        self.assertEqual(len(untried), 34)
        self.assertTrue(untried[0].startswith("error: to=<u06@dead.test>, relay=none,"), untried[0])
        self.assertEqual(len(self.bounces.waiting[queue_id]), 41)

    def test_other_mail_deferred_at_once(self) -> None:
        """Later mail for it does not try either, until the time is up or somebody flushes."""
        self.smtp.script = refused
        self.send(*[f"u{n:02}@dead.test" for n in range(40)])
        tries = len(self.smtp.requests)
        late = self.send("late@dead.test")
        self.assertEqual(len(self.smtp.requests), tries)
        self.assertEqual(self.where(late), [Queue.DEFERRED])
        self.smtp.script = sent
        self.manager.flush()
        self.run_turns()
        self.assertEqual(self.where(late), [])

    def test_answers_do_not_kill(self) -> None:
        """A server that answers 4xx to all gets every recipient, nobody is deferred without a try."""
        self.smtp.script = deferred
        self.send(*[f"u{n:02}@busy.test" for n in range(40)])
        self.assertEqual(len(self.smtp.requests), 20)


class BrokenTransportTests(QueueManagerTestCase):
    """Transports with bugs, and missing ones."""

    config = "smtp_destination_recipient_limit = 1\n"

    def test_unknown(self) -> None:
        """As seen in Postfix: mail transport unavailable; mail for others goes on."""
        self.router.routes[b"n.test"] = lambda address: Route("nosuch", "n.test", address)
        queue_id = self.send("u@n.test", "u@d.test")
        self.assertEqual(self.smtp.delivered(), [b"u@d.test"])
        lines = self.lines(queue_id) + self.lines()
        self.assertTrue(
            any("error: to=<u@n.test>" in x and "(mail transport unavailable)" in x for x in lines), lines
        )
        self.assertTrue(any("connect to transport private/nosuch: No such file" in x for x in lines))
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_raises(self) -> None:
        """One that raises: everybody is deferred, it is left alone for a while, and the log says where."""

        def broken(request: DeliveryRequest) -> DeliveryReport:
            raise ZeroDivisionError("bug")

        self.smtp.script = broken
        queue_id = self.send("a@d.test", "b@d.test", "c@e.test")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.smtp.requests), 1)
        self.assertEqual({o.text for o in self.bounces.waiting[queue_id]}, {"unknown mail transport error"})
        self.assertEqual(len(self.bounces.waiting[queue_id]), 3)
        self.smtp.script = sent
        self.send("d@f.test")
        self.assertEqual(len(self.smtp.requests), 1)
        self.wait(60)
        self.send("d@f.test")
        self.assertEqual(len(self.smtp.requests), 2)

    def test_fails_later(self) -> None:
        """A Deferred that fails is the same."""
        self.smtp.script = hangs
        queue_id = self.send("a@d.test")
        self.smtp.waiting[0][1].errback(ZeroDivisionError("bug"))
        self.run_turns()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_no_deferred(self) -> None:
        """One that returns no Deferred is the same: mail waits, and nothing is under way for ever."""
        for answer in (sent, lambda request: None):
            self.transports["smtp"] = ForgetfulTransport(answer)
            queue_id = self.send("a@d.test")
            self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
            (failure,) = self.flushLoggedErrors(TypeError)
            self.assertIn("must return a Deferred", failure.getErrorMessage())
            self.transports["smtp"] = self.smtp
            self.wait(700)
            self.assertEqual(self.where(queue_id), [])

    def test_no_report(self) -> None:
        """A result that is no report is the same, and takes no place in the destination's window."""
        self.smtp.script = lambda request: None  # type: ignore[arg-type, return-value]
        for _ in range(30):
            queue_id = self.send("a@d.test")
            self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
            self.wait(61)
        errors = self.flushLoggedErrors(TypeError)
        self.assertGreaterEqual(len(errors), 30)
        self.assertIn("must give a DeliveryReport", errors[0].getErrorMessage())
        self.smtp.script = hangs
        self.send("b@d.test")
        (destination,) = self.manager.status().destinations
        self.assertEqual(destination.busy, 1)

    def test_forgets_recipients(self) -> None:
        """One that does not report on everybody, or on strangers, or twice: the rest is deferred."""

        def forgetful(request: DeliveryRequest) -> DeliveryReport:
            full = sent(request)
            return DeliveryReport(list(full.outcomes[:1]) * 2)

        self.smtp.script = forgetful
        self.router.routes[b"d.test"] = lambda address: Route("lmtp", "here", address)
        self.transports["lmtp"] = ScriptedTransport(forgetful, "lmtp")
        queue_id = self.send("a@d.test", "b@d.test")
        self.assertEqual([o.recipient.address for o in self.bounces.waiting[queue_id]], [b"b@d.test"])
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])

    def test_empty_report(self) -> None:
        """A report on nobody; or something that is no report, after which the transport is left alone."""
        self.smtp.script = lambda request: DeliveryReport([])
        first = self.send("a@d.test")
        self.assertEqual(self.where(first), [Queue.DEFERRED])
        self.smtp.script = lambda request: None
        second = self.send("a@d.test")
        self.assertEqual(self.where(second), [Queue.DEFERRED])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.smtp.script = sent
        self.send("a@d.test")
        self.assertEqual(len(self.smtp.requests), 2)
        self.wait(61)
        self.send("a@d.test")
        self.assertEqual(len(self.smtp.requests), 3)


class SoftBounceTests(QueueManagerTestCase):
    """C{soft_bounce}."""

    config = "soft_bounce = yes\n"

    def test_kept(self) -> None:
        """As seen in Postfix: status SOFTBOUNCE with a 4.x.x code, and the mail stays."""
        self.smtp.script = bounced
        queue_id = self.send("u@d.test")
        self.assertIn("dsn=4.1.1, status=SOFTBOUNCE (host sink", self.lines(queue_id)[1])
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        self.assertEqual(self.bounces.notices, [])


class RecipientLimitTests(QueueManagerTestCase):
    """Recipients in memory."""

    config = (
        "qmgr_message_recipient_limit = 400\nqmgr_message_recipient_minimum = 10\n"
        "qmgr_message_active_limit = 400\ndefault_recipient_limit = 300\ndefault_extra_recipient_limit = 50\n"
    )

    def test_slices(self) -> None:
        """A message with many recipients passes through a slice at a time; each gets it once."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:05}@d{n % 7}.test" for n in range(3000)])
        seen: list[bytes] = []
        most = 0
        while self.smtp.waiting:
            most = max(most, len(self.manager.status().messages[0].recipients))
            request, answer = self.smtp.waiting.pop(0)
            seen += [recipient.address for recipient in request.recipients]
            answer.callback(sent(request))
            self.run_turns()
        self.assertEqual(len(seen), 3000)
        self.assertEqual(len(set(seen)), 3000)
        self.assertTrue(most <= 400, most)
        self.assertEqual(self.where(queue_id), [])

    def cut_short(self, spoil: Callable[[QueueID], None]) -> QueueID:
        """A message that something happens to while only some of its recipients are read."""
        self.smtp.script = hangs
        queue_id = self.send(*[f"u{n:05}@d{n % 7}.test" for n in range(3000)])
        spoil(queue_id)
        while self.smtp.waiting:
            request, answer = self.smtp.waiting.pop(0)
            answer.callback(sent(request))
            self.run_turns()
        seen = self.smtp.delivered()
        self.assertEqual(len(seen), len(set(seen)))
        self.assertTrue(0 < len(seen) < 3000, len(seen))
        self.assertEqual(self.manager.status().messages, [])
        return queue_id

    def test_damaged_while_active(self) -> None:
        """What is in memory is delivered, once, and then the file goes to corrupt."""

        def spoil(queue_id: QueueID) -> None:
            self.queue.damage(queue_id, Queue.ACTIVE, 100_000, b"\xff" * 1000)

        queue_id = self.cut_short(spoil)
        self.assertEqual(self.where(queue_id), [Queue.CORRUPT])

    def test_deleted_while_active(self) -> None:
        """Somebody takes the file away: what is in memory is delivered, once, and nothing hangs."""

        def spoil(queue_id: QueueID) -> None:
            self.successResultOf(self.queue.remove(queue_id, Queue.ACTIVE))

        queue_id = self.cut_short(spoil)
        self.assertEqual(self.where(queue_id), [])

    def test_others_pass(self) -> None:
        """A huge message does not keep a small one out."""
        self.smtp.script = hangs
        self.send(*[f"u{n:05}@big.test" for n in range(3000)])
        self.smtp.script = sent
        small = self.send("u@small.test")
        self.assertEqual(self.where(small), [])
        for request, answer in self.smtp.waiting:
            answer.callback(sent(request))
        self.run_turns()

    def test_many_deferred(self) -> None:
        """Outcomes of waiting recipients are handed over in portions, and none is lost."""
        self.smtp.script = deferred
        queue_id = self.send(*[f"u{n:05}@d{n % 7}.test" for n in range(3000)])
        self.assertEqual(len(self.bounces.waiting[queue_id]), 3000)
        self.assertTrue(self.bounces.story.count("deferred") >= 3)
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
