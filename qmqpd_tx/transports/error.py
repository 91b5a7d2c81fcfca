"""
The C{error} and C{retry} delivery agents: every recipient bounces, or waits, for the reason given.

Takes a delivery request whose nexthop is the reason, with an optional RFC 3463 code before it; gives
the same outcome for each recipient. Whether it bounces or defers depends on the name of the service: under
C{retry} it defers, under any other it bounces. Does no I/O. Answers to error(8).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, IDeliveryAgent, IDeliveryTransport, TransportContext
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.reason import split_reason

log = Logger(namespace="qmqpd_tx.error")


@implementer(IDeliveryTransport)
class ErrorTransport:
    """
    @param action: what happens to every recipient: bounced or deferred.
    """

    program = "error"

    def __init__(self, action: Action) -> None:
        self._action = action

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        bounce = self._action is Action.BOUNCED
        dsn, text = split_reason(
            request.nexthop,
            "5.0.0" if bounce else "4.0.0",
            "bounce_append" if bounce else "defer_append",
            log,
        )
        return succeed(
            DeliveryReport([Outcome(recipient, self._action, dsn, text) for recipient in request.recipients])
        )

    def stop(self) -> Deferred[None]:
        return succeed(None)


@implementer(IDeliveryAgent)
class ErrorAgent:
    """Makes error and retry transports."""

    command = "error"

    def transport(self, context: TransportContext) -> ErrorTransport:
        return ErrorTransport(Action.DEFERRED if context.name == "retry" else Action.BOUNCED)
