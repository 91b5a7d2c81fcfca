"""
The parts that meet in the QMQP server, as types: a connection, its server, its transport, and what both ask
others. No behaviour, but for reading a client's address.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime

from qmqpd_tx.interfaces import ICleanup
from qmqpd_tx.qmqp.admission import Admission
from qmqpd_tx.qmqp.deadlines import Deadlines
from qmqpd_tx.qmqp.limits import ClientLimits
from qmqpd_tx.qmqp.settings import Settings

LOCAL_CLIENT = ("127.0.0.1", None)
"""Who a client on a local socket is."""


class NameLookup(Protocol):
    """Finds client names: L{qmqpd_tx.qmqp.hostnames.ClientNames}."""

    def lookup(self, address: str) -> str | Deferred[str]:
        """
        @return: the name, C{unknown}, or a Deferred that gives either and never fails.
        """


class Connection(Protocol):
    """What the server does with a connection."""

    def start(self, resume: bool = False) -> None:
        """
        Begin to serve; C{resume} says that the transport was paused meanwhile.
        """

    def drop(self) -> None:
        """
        Go away, unless a message is being committed.
        """


class Owner(Protocol):
    """What a connection needs of the server that it belongs to."""

    clock: IReactorTime
    cleanup: ICleanup
    admission: Admission
    limits: ClientLimits
    hostnames: NameLookup
    settings: Settings
    behind: Callable[[], bool]
    deadlines: Deadlines
    service: str

    def opened(self, connection: Connection) -> bool:
        """
        @return: whether the connection may start; otherwise its C{start} is called later.
        """

    def closed(self, connection: Connection) -> None:
        """
        The connection is gone.
        """


class Transport(Protocol):
    """What a connection uses of its transport."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


class State(enum.Enum):
    """Where a connection stands."""

    WAITING = enum.auto()
    """
    Not started: too many connections, the client's name or its place in a list is being looked up, or
    C{in_flow_delay}.
    """
    RECEIVING = enum.auto()
    """The packet is arriving."""
    COMMITTING = enum.auto()
    """The packet is complete; the message is on its way to the disk."""
    REFUSING = enum.auto()
    """A negative reply waits for C{qmqpd_error_delay}."""
    DRAINING = enum.auto()
    """The reply is sent; the client has not finished sending."""
    CLOSING = enum.auto()
    """The connection closes as soon as the reply is out."""
    CLOSED = enum.auto()
    """It is over."""


def peer_of(address: IAddress) -> tuple[str, int | None]:
    """
    @return: textual network address and port.
    """
    host = getattr(address, "host", None)
    if not isinstance(host, str):
        return LOCAL_CLIENT
    if host.startswith("::ffff:") and "." in host:
        # An IPv4 client on a socket that listens for both.
        host = host[7:]
    return host, getattr(address, "port", None)
