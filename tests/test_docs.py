"""
The manual's own examples, run.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IDeliveryAgent, IDeliveryTransport
from qmqpd_tx.message import Envelope, QueueID, Recipient
from qmqpd_tx.status import Action
from qmqpd_tx.transports import registry

DOCS = Path(__file__).resolve().parent.parent / "docs"


def deliver_with(agent: Any) -> list[tuple[Action, str]]:
    """
    @return: what the agent, as a line of master.cf, reports on two recipients.
    """
    transports = registry.TransportRegistry(object(), None, [agent])
    transports.reconfigure(config_from_text("", "count unix - - n - - counter\n"))
    transport = transports.get("count")
    assert transport is not None
    verifyObject(IDeliveryTransport, transport)
    recipients = [Recipient(address, address, position) for position, address in enumerate([b"a@x", b"b@x"])]
    envelope = Envelope(b"s@x", 0.0, None, b"", False, None, {})
    request = DeliveryRequest(QueueID("0"), "count", "", b"s@x", recipients, None, envelope)
    reports: list[Any] = []
    transport.deliver(request).addCallback(reports.append)
    return [(outcome.action, outcome.text) for outcome in reports[0].outcomes]


class OwnTransportTests(SynchronousTestCase):
    """The delivery agent in twenty lines, in both places where it is shown."""

    def check(self, example: str) -> None:
        """
        Run the example and use it.
        """
        names: dict[str, Any] = {}
        exec(compile(textwrap.dedent(example), "example", "exec"), names)
        agent = names["counter"]
        verifyObject(IDeliveryAgent, agent)
        verifyObject(IPlugin, agent)
        self.assertEqual(deliver_with(agent), [(Action.SENT, "counted 2")] * 2)

    def test_manual(self) -> None:
        """The one in the manual works as shown."""
        text = (DOCS / "own-transport.rst").read_text()
        found = re.search(r"code-block:: python\n\n(.*?)\n(?=\S)", text, re.DOTALL)
        assert found is not None
        self.check(found[1])

    def test_registry(self) -> None:
        """The one in the registry's contract works as shown."""
        found = re.search(r"on the path::\n\n(.*?)\n(?=\S)", registry.__doc__ or "", re.DOTALL)
        assert found is not None
        self.check(found[1])
