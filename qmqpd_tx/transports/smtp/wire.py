"""
Writing to a TCP transport without a round through the reactor.

C{transport.write()} only notes the data and asks the reactor to send it in its next turn: two calls of
epoll_ctl(2) and an event for each write, which for a small message costs more than the delivery's own work.
L{DirectWriter} sends at once what the socket takes, and leaves the rest, and every error, to the transport.
"""

from __future__ import annotations

import socket

from twisted.internet.interfaces import ITransport


class DirectWriter:
    """
    @param transport: of a connection; anything but plain TCP is written to in the ordinary way.
    """

    __slots__ = ("_direct", "_socket", "_transport")

    def __init__(self, transport: ITransport) -> None:
        self._transport: ITransport = transport
        handle = getattr(transport, "getHandle", lambda: None)()
        plain = isinstance(handle, socket.socket) and not getattr(transport, "TLS", False)
        self._socket = handle if plain else None
        self._direct = plain

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
