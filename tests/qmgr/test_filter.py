"""
Mail with a content filter goes there, whoever it is for.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import IStoredMessage
from qmqpd_tx.message import CONTENT_FILTER, Envelope, Queue, QueueID, Route
from qmqpd_tx.qmgr.routes import Routes
from tests.qmgr.scripted import QueueManagerTestCase, ScriptedRouter, ScriptedTransport, deferred


class FilterTests(QueueManagerTestCase):
    """The queue manager."""

    def setUp(self) -> None:
        """Two filters."""
        super().setUp()
        self.filter = self.transports["scan"] = ScriptedTransport(program="smtp")
        self.router.routes[b"nowhere.test"] = lambda address: Route("error", "5.1.1 who?", address)
        self.router.routes[b"alias.test"] = lambda address: Route("smtp", "real.test", b"u@real.test")

    def filtered(self, text: bytes, *recipients: str, sender: bytes = b"sender@src.test") -> QueueID:
        """Commit a message with a filter, and hand it over."""
        writer = self.queue.create(self.clock.seconds())
        writer.write(b"Subject: hi\n\nhello\n")
        writer.envelope(Envelope(sender, self.clock.seconds(), attributes={CONTENT_FILTER: text}), b"")
        for recipient in recipients:
            writer.recipient(recipient.encode(), recipient.encode())
        message: IStoredMessage = self.successResultOf(writer.commit())
        self.manager.arrived(message)
        self.run_turns()
        return message.queue_id

    def asked(self, transport: ScriptedTransport) -> list[tuple[str, list[bytes]]]:
        """
        @return: next hops and recipients of all deliveries.
        """
        return [(one.nexthop, sorted(each.address for each in one.recipients)) for one in transport.requests]

    def test_all_recipients(self) -> None:
        """All go to the filter in one delivery, by the addresses that they have: no router is asked."""
        self.filtered(b"scan:[127.0.0.1]:10025", "a@d.test", "b@nowhere.test", "c@alias.test")
        self.assertEqual(
            self.asked(self.filter),
            [("[127.0.0.1]:10025", [b"a@d.test", b"b@nowhere.test", b"c@alias.test"])],
        )
        self.assertEqual(self.smtp.requests, [])
        self.send("d@d.test")
        self.assertEqual(self.asked(self.smtp), [("d.test", [b"d@d.test"])])

    def test_without_nexthop(self) -> None:
        """As seen in Postfix: the recipient's domain takes its place, with a colon and without."""
        self.filtered(b"scan:", "a@D.test", "b@e.test")
        self.filtered(b"scan", "c@f.test")
        self.assertEqual(
            sorted(self.asked(self.filter)),
            [("d.test", [b"a@D.test"]), ("e.test", [b"b@e.test"]), ("f.test", [b"c@f.test"])],
        )

    def test_double_bounce(self) -> None:
        """As seen in Postfix: mail for the double-bounce address is filtered, too."""
        self.filtered(b"scan:x", "double-bounce@origin.test", sender=b"")
        self.assertEqual(self.filter.delivered(), [b"double-bounce@origin.test"])

    def test_no_such_transport(self) -> None:
        """As seen in Postfix: mail waits, also when the filter has no transport at all."""
        for text in (b"nosuch:x", b":x"):
            queue_id = self.filtered(text, "a@d.test")
            self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
            self.assertTrue(any("(mail transport unavailable)" in line for line in self.lines(queue_id)))

    def test_explained(self) -> None:
        """An explanation names the filter: while mail is active, and while it waits."""
        self.filter.script = deferred
        queue_id = self.filtered(b"scan:[127.0.0.1]:10025", "a@alias.test")
        self.assertEqual(self.where(queue_id), [Queue.DEFERRED])
        explained = self.successResultOf(self.manager.explain(queue_id))
        (one,) = explained.recipients
        self.assertEqual(
            (one.transport, one.nexthop, one.address), ("scan", "[127.0.0.1]:10025", b"a@alias.test")
        )

    def test_again(self) -> None:
        """The filter is kept with the message: the next attempt goes there as well."""
        self.filter.script = deferred
        queue_id = self.filtered(b"scan:x", "a@d.test")
        self.wait(self.due(queue_id) + 400)
        self.assertGreater(len(self.filter.requests), 1)
        self.assertEqual(self.smtp.requests, [])


class NexthopTests(SynchronousTestCase):
    """default_filter_nexthop."""

    def routes(self, settings: str) -> Routes:
        """
        @return: over main.cf lines.
        """
        return Routes(config_from_text("myhostname = host.test\n" + settings), ScriptedRouter())

    def route(self, subject: Routes, text: bytes) -> Any:
        """
        @return: the route of a@d.test.
        """
        return subject.resolve(Envelope(b"", 0.0, attributes={CONTENT_FILTER: text}), b"a@d.test")

    def test_default(self) -> None:
        """It is for filters that name none, and a reload changes it."""
        subject = self.routes("default_filter_nexthop = $myhostname\n")
        self.assertEqual(self.route(subject, b"scan:"), Route("scan", "host.test", b"a@d.test"))
        self.assertEqual(self.route(subject, b"scan:x:25"), Route("scan", "x:25", b"a@d.test"))
        subject.reconfigure(config_from_text("myhostname = host.test\n"))
        self.assertEqual(self.route(subject, b"scan:"), Route("scan", "d.test", b"a@d.test"))

    def test_none(self) -> None:
        """Other mail goes where the router says."""
        found = self.routes("default_filter_nexthop = x\n").resolve(Envelope(b"", 0.0), b"a@d.test")
        self.assertEqual(found, Route("smtp", "d.test", b"a@d.test"))
