"""
Opening connections to filters with a reactor.

Takes where a filter listens; gives a Deferred with a connection. Host names are looked up by the reactor. It
fails with what the reactor says, within the time limit.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from qmqpd_tx.milter.connection import MilterConnection
from qmqpd_tx.milter.filter import Connect, Conversation
from qmqpd_tx.milter.settings import FilterSettings


def reactor_connect(reactor: Any, packet_limit: int) -> Connect:
    """
    @param reactor: for time, TCP, sockets in the file system and names.
    @param packet_limit: the longest packet that a filter may send, in bytes.
    @return: what L{MilterSession<qmqpd_tx.milter.session.MilterSession>} opens connections with.
    """

    def connect(settings: FilterSettings) -> Deferred[Conversation]:
        factory = Factory.forProtocol(lambda: MilterConnection(reactor, packet_limit))
        factory.noisy = False
        connecting = endpoint(reactor, settings).connect(factory)
        # An endpoint has time limits for its attempts, and none for looking up a name.
        connecting.addTimeout(settings.connect_timeout, reactor, _timed_out)
        return cast("Deferred[Conversation]", connecting)

    return connect


def _timed_out(result: object, timeout: float) -> Failure:
    return Failure(TimeoutError())  # type: ignore[no-untyped-call]


def endpoint(reactor: Any, settings: FilterSettings) -> IStreamClientEndpoint:
    """
    @return: where to connect to.
    """
    address, timeout = settings.address, settings.connect_timeout
    found: IStreamClientEndpoint
    if address.path:
        found = UNIXClientEndpoint(reactor, address.path, timeout)  # type: ignore[no-untyped-call]
    elif isIPAddress(address.host):
        found = TCP4ClientEndpoint(reactor, address.host, address.port, timeout)
    elif isIPv6Address(address.host):
        found = TCP6ClientEndpoint(  # type: ignore[no-untyped-call]
            reactor, address.host, address.port, timeout
        )
    else:
        found = HostnameEndpoint(reactor, address.host, address.port, timeout)
    return found
