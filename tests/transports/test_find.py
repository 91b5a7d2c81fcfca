"""
The registry: from master.cf lines to transports, with a transport of our own as in its documentation.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import (
    ConfigError,
    DeliveryRequest,
    IDeliveryAgent,
    IDeliveryTransport,
    TransportContext,
)
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.discard import DiscardAgent
from qmqpd_tx.transports.error import ErrorAgent
from qmqpd_tx.transports.registry import TransportRegistry
from tests.transports.fakes import ThreadlessReactor, recipients, request

MASTER = """\
smtp      inet  n       -       n       -       -       smtpd
qmgr      unix  n       -       n       300     1       qmgr
count     unix  -       -       n       -       -       counter one two
slow      unix  -       -       n       -       -       counter
  -o relayhost=[slow.test]
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop
virtual   unix  -       n       n       -       -       virtual
"""


@implementer(IDeliveryTransport)
class Counter:
    """Counts recipients."""

    program = "counter"

    def __init__(self, context: TransportContext, gate: Deferred[None] | None) -> None:
        self.context = context
        self.stopped = 0
        self.seen = 0
        self.gate = gate

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        self.seen += len(request.recipients)
        text = f"counted {self.seen}"
        report = DeliveryReport(
            [Outcome(recipient, Action.SENT, "2.0.0", text) for recipient in request.recipients]
        )
        if self.gate is None:
            return succeed(report)
        waiting: Deferred[DeliveryReport] = Deferred()
        self.gate.addCallback(lambda _: waiting.callback(report))
        return waiting

    def stop(self) -> Deferred[None]:
        self.stopped += 1
        return succeed(None)


@implementer(IDeliveryAgent)
class CounterAgent:
    """Makes counters, and remembers them."""

    command = "counter"

    def __init__(self) -> None:
        self.made: list[Counter] = []
        self.gate: Deferred[None] | None = None

    def transport(self, context: TransportContext) -> Counter:
        if context.config.string("relayhost") == "bad":
            raise ConfigError("relayhost: bad")
        self.made.append(Counter(context, self.gate))
        return self.made[-1]


class RegistryTests(SynchronousTestCase):
    """Transports by name."""

    def setUp(self) -> None:
        self.agent = CounterAgent()
        self.reactor = ThreadlessReactor()
        self.registry = TransportRegistry(self.reactor, None, [self.agent, ErrorAgent(), DiscardAgent()])
        self.registry.reconfigure(config_from_text("myhostname = h.test\n", MASTER))

    def send(self, name: str) -> Deferred[DeliveryReport]:
        transport = self.registry.get(name)
        assert transport is not None
        delivery: Deferred[DeliveryReport] = transport.deliver(request(recipients(b"a@x.test")))
        return delivery

    def test_one_for_each_line(self) -> None:
        """Every line with a delivery command is a transport, and no other."""
        self.assertEqual(self.registry.names, ["count", "error", "retry", "slow"])
        self.assertIsNone(self.registry.get("smtp"))
        self.assertIsNone(self.registry.get("nosuch"))
        self.assertEqual(self.registry.unsupported, ["maildrop (pipe)", "virtual (virtual)"])

    def test_delivers(self) -> None:
        """The transport of our own delivers, under each of its names by itself."""
        for text in ("counted 1", "counted 2"):
            (outcome,) = self.successResultOf(self.send("count")).outcomes
            self.assertEqual((outcome.action, outcome.text), (Action.SENT, text))
        self.assertEqual(self.successResultOf(self.send("slow")).outcomes[0].text, "counted 1")
        self.assertEqual(self.successResultOf(self.send("retry")).outcomes[0].action, Action.DEFERRED)
        self.assertEqual(self.successResultOf(self.send("error")).outcomes[0].action, Action.BOUNCED)

    def test_context(self) -> None:
        """An agent gets name, arguments, reactor, and the line's overrides."""
        count, slow = (counter.context for counter in self.agent.made)
        self.assertEqual((count.name, count.arguments), ("count", ("one", "two")))
        self.assertEqual((slow.name, slow.arguments), ("slow", ()))
        self.assertIs(slow.reactor, self.reactor)
        self.assertEqual(count.config.string("relayhost"), "")
        self.assertEqual(slow.config.string("relayhost"), "[slow.test]")

    def test_reload(self) -> None:
        """New lines count at once; idle old transports are stopped at once."""
        old = self.agent.made[0]
        self.registry.reconfigure(config_from_text("myhostname = h.test\n", "fresh unix - - n - - counter\n"))
        self.assertEqual(self.registry.names, ["fresh"])
        self.assertEqual(self.registry.unsupported, [])
        self.assertEqual(old.stopped, 1)

    def test_reload_under_way(self) -> None:
        """A delivery under way at a reload ends as it should; then its transport is stopped."""
        gate: Deferred[None] = Deferred()
        old = self.agent.made[0]
        old.gate = gate
        delivery = self.send("count")
        self.registry.reconfigure(config_from_text("myhostname = h.test\n", MASTER))
        self.assertEqual(old.stopped, 0)
        stopping = self.registry.stop()
        self.assertNoResult(stopping)
        gate.callback(None)
        self.assertEqual(self.successResultOf(delivery).outcomes[0].text, "counted 1")
        self.successResultOf(stopping)
        self.assertEqual([counter.stopped for counter in self.agent.made], [1, 1, 1, 1])

    def test_bad_reload(self) -> None:
        """A line that an agent refuses is named, and everything stays as it was."""
        master = MASTER.replace("relayhost=[slow.test]", "relayhost=bad")
        config = config_from_text("myhostname = h.test\n", master)
        error = self.assertRaises(ConfigError, self.registry.reconfigure, config)
        self.assertIn("master.cf, line 4: slow: relayhost: bad", str(error))
        self.assertEqual(self.registry.names, ["count", "error", "retry", "slow"])
        self.successResultOf(self.send("slow"))
        self.assertEqual(self.agent.made[0].stopped, 0)

    def test_bug_in_an_agent(self) -> None:
        """A transport that raises fails its Deferred, and can be stopped all the same."""
        self.agent.made[0].deliver = None  # type: ignore[method-assign,assignment]
        self.failureResultOf(self.send("count"), TypeError)
        self.successResultOf(self.registry.stop())
        self.assertEqual(self.registry.names, [])

    def test_built_in(self) -> None:
        """Without further words there are the agents of this package."""
        registry = TransportRegistry(self.reactor, None)
        lines = [f"{name} unix - - n - - {name}" for name in ("smtp", "local", "error", "discard", "pipe")]
        registry.reconfigure(config_from_text("myhostname = h.test\n", "\n".join(lines) + "\n"))
        self.assertEqual(registry.names, ["discard", "error", "local", "smtp"])
        self.assertEqual(registry.unsupported, ["pipe (pipe)"])
        self.successResultOf(registry.stop())
