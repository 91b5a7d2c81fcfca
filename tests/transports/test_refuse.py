"""
The agents that deliver nowhere: error, retry, discard.
"""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import IDeliveryAgent, IDeliveryTransport
from qmqpd_tx.status import Action
from qmqpd_tx.transports.discard import DiscardAgent
from qmqpd_tx.transports.error import ErrorAgent
from tests.transports.fakes import context, recipients, request


class RefuseTests(SynchronousTestCase):
    """Code and text come from the nexthop, as Postfix's log shows them."""

    def outcome(self, agent: ErrorAgent | DiscardAgent, name: str, nexthop: str) -> tuple[Action, str, str]:
        transport = agent.transport(context(name, None))
        verifyObject(IDeliveryAgent, agent)
        verifyObject(IDeliveryTransport, transport)
        whom = recipients(b"a@x.test", b"b@x.test")
        report = self.successResultOf(transport.deliver(request(whom, nexthop=nexthop, transport=name)))
        self.assertEqual([outcome.recipient for outcome in report.outcomes], whom)
        self.assertEqual({outcome.relay for outcome in report.outcomes}, {"none"})
        self.assertIsNone(report.destination_failure)
        self.assertIsNone(self.successResultOf(transport.stop()))
        first, second = report.outcomes
        self.assertEqual((first.action, first.dsn, first.text), (second.action, second.dsn, second.text))
        return first.action, first.dsn, first.text

    def test_error(self) -> None:
        """Everything bounces."""
        for nexthop, dsn, text in (
            ("5.1.2 no such place", "5.1.2", "no such place"),
            ("just text", "5.0.0", "just text"),
            ("5.7.1", "5.7.1", ""),
            ("5.1 no code", "5.0.0", "5.1 no code"),
        ):
            self.assertEqual(self.outcome(ErrorAgent(), "error", nexthop), (Action.BOUNCED, dsn, text))
        self.assertEqual(self.outcome(ErrorAgent(), "myerror", "x")[0], Action.BOUNCED)

    def test_retry(self) -> None:
        """Under the name retry, everything waits."""
        for nexthop, dsn, text in (
            ("4.3.5 later", "4.3.5", "later"),
            ("just text", "4.0.0", "just text"),
            ("4.3.0 mail transport unavailable", "4.3.0", "mail transport unavailable"),
        ):
            self.assertEqual(self.outcome(ErrorAgent(), "retry", nexthop), (Action.DEFERRED, dsn, text))

    def test_discard(self) -> None:
        """Everything counts as sent."""
        for nexthop, dsn, text in (
            ("example.com", "2.0.0", "example.com"),
            ("2.7.1 quarantined by policy", "2.7.1", "quarantined by policy"),
        ):
            self.assertEqual(self.outcome(DiscardAgent(), "discard", nexthop), (Action.SENT, dsn, text))

    def test_wrong_class(self) -> None:
        """A code of another class is ignored with a warning; the text stays."""
        for agent, name, nexthop, expected, warning in (
            (ErrorAgent(), "error", "4.2.2 text", (Action.BOUNCED, "5.0.0", "text"), "bounce_append"),
            (ErrorAgent(), "retry", "5.1.1 text", (Action.DEFERRED, "4.0.0", "text"), "defer_append"),
            (DiscardAgent(), "discard", "5.1.1 text", (Action.SENT, "2.0.0", "text"), "sent"),
        ):
            with capturedLogs() as events:
                self.assertEqual(self.outcome(agent, name, nexthop), expected)
            self.assertEqual([event["doing"] for event in events], [warning])
            self.assertEqual(events[0]["code"], nexthop.split()[0])
