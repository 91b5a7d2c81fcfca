"""
Using a TCP transport without a round through the reactor.

C{transport.write()} only notes the data and asks the reactor to send it in its next turn: two calls of
epoll_ctl(2) and an event for each write, which for a small message costs more than the work on it. So do the
first read and the closing of a connection that lives for one message. What is here does at once what the
socket can do at once, and leaves the rest, and every error, to the transport. Anything but plain TCP is used
in the ordinary way. Imports nobody.
"""

from __future__ import annotations

import socket
from typing import Protocol

from twisted.internet.interfaces import ITransport
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

_DONE = Failure(CONNECTION_DONE)  # type: ignore[no-untyped-call]
"""Why a connection ends that is closed in order. One for all of them, like the one in Twisted's Protocol."""


def _plain_socket(transport: object) -> socket.socket | None:
    """
    @return: the socket of a plain TCP transport.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        handle = transport.getHandle()
        if isinstance(handle, socket.socket):
            return handle
    return None


class Stream(Protocol):
    """What is asked of a transport."""

    def write(self, data: bytes) -> None:
        """Write in the ordinary way."""

    def loseConnection(self) -> None:
        """Close when everything is written."""


def read_now(transport: object) -> None:
    """
    Let the protocol have what has arrived already; nothing happens if that is nothing. An end or an error is
    left to the reactor to find.
    """
    if isinstance(transport, Connection) and _plain_socket(transport) is not None:
        transport.doRead()


def write_last(transport: Stream, data: bytes) -> None:
    """
    Write the only data that is ever written to a transport, and close it in order. The protocol's
    C{connectionLost} may be called before this returns.
    """
    handle = _plain_socket(transport)
    if handle is not None:
        try:
            sent = handle.send(data)
        except OSError:
            sent = 0
        if sent == len(data):
            # What the reactor would do when it has found that there is nothing left to write.
            assert isinstance(transport, Connection)
            transport.connectionLost(_DONE)
            return
        data = data[sent:]
    transport.write(data)
    transport.loseConnection()


class DirectWriter:
    """
    @param transport: of a connection; anything but plain TCP is written to in the ordinary way.
    """

    __slots__ = ("_direct", "_socket", "_transport")

    def __init__(self, transport: ITransport) -> None:
        self._transport: ITransport = transport
        self._socket = _plain_socket(transport)
        self._direct = self._socket is not None

    def write(self, data: bytes) -> None:
        """
        Write, in the order of the calls.
        """
        if self._direct and self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:
                # Full, or broken: the transport finds out for itself.
                sent = 0
            if sent == len(data):
                return
            # What follows must not overtake the rest, and when that is gone only the transport knows.
            self._direct = False
            data = data[sent:]
        self._transport.write(data)

    def ordinary(self) -> None:
        """
        Somebody else is going to write to the transport.
        """
        self._direct = False
