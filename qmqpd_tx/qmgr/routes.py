"""
Where a recipient of a message goes: to the message's content filter, or where the router says.

Takes an envelope and the address of a recipient; gives a L{Route} or a Deferred of one. A message with a
content filter (C{content_filter}, or a FILTER action) goes there with all recipients: nobody asks the router
then, so that addresses stay as they are, and what the router would refuse is the filter's to judge. A filter
without a next hop gets C{default_filter_nexthop}, or else the recipient's domain. Whatever the filter's
transport is, an error transport included, is treated as if the router had named it. Pure but for the router.
Answers to qmgr(8)'s message part, and FILTER_README.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import IConfig, IRouter
from qmqpd_tx.message import CONTENT_FILTER, Envelope, Route


class Routes:
    """
    @param config: see L{reconfigure}.
    @param router: resolves recipients of messages without a filter.
    """

    def __init__(self, config: IConfig, router: IRouter) -> None:
        self._router = router
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{default_filter_nexthop} is read.
        """
        self._nexthop = config.string("default_filter_nexthop").strip()

    def resolve(self, envelope: Envelope, recipient: bytes) -> Route | Deferred[Route]:
        """
        @param recipient: in internal form.
        """
        attributes = envelope.attributes
        if attributes and CONTENT_FILTER in attributes:
            return self._filtered(attributes[CONTENT_FILTER], recipient)
        route: Route | Deferred[Route] = self._router.resolve(envelope.sender, recipient)
        return route

    def _filtered(self, text: bytes, recipient: bytes) -> Route:
        transport, _, nexthop = text.decode("utf-8", "surrogateescape").partition(":")
        nexthop = nexthop or self._nexthop
        if not nexthop:
            nexthop = recipient.rpartition(b"@")[2].decode("utf-8", "surrogateescape").lower()
        return Route(transport, nexthop, recipient)
