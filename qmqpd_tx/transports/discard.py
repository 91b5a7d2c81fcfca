"""
The C{discard} delivery agent: every recipient counts as delivered, and nothing is delivered.

Takes a delivery request whose nexthop is the reason for the log, with an optional RFC 3463 code before
it; gives C{sent} for each recipient. Does no I/O. Answers to discard(8).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, IDeliveryAgent, IDeliveryTransport, TransportContext
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.reason import split_reason

log = Logger(namespace="qmqpd_tx.discard")


@implementer(IDeliveryTransport)
class DiscardTransport:
    """Delivers nowhere, successfully."""

    program = "discard"

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        dsn, text = split_reason(request.nexthop, "2.0.0", "sent", log)
        return succeed(
            DeliveryReport([Outcome(recipient, Action.SENT, dsn, text) for recipient in request.recipients])
        )

    def stop(self) -> Deferred[None]:
        return succeed(None)


@implementer(IDeliveryAgent)
class DiscardAgent:
    """Makes discard transports."""

    command = "discard"

    def transport(self, context: TransportContext) -> DiscardTransport:
        return DiscardTransport()
