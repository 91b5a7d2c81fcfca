"""
A listening port on 127.0.0.1 with a thread for each connection.

L{ThreadedServer} is what scripted destinations have in common: the port, which is known before it listens,
the threads, and an end that wakes all of them. What is said on a connection is for the subclass.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class ThreadedServer:
    """
    A server on 127.0.0.1; a context manager. A subclass implements L{_talk}.

    @cvar BACKLOG: how many connections may wait to be accepted.
    @ivar port: where it is; from the start, also when it does not listen.
    @ivar sessions: how many connections there were.
    """

    BACKLOG = 128

    def __init__(self) -> None:
        self.sessions = 0
        self._news = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def listen(self) -> None:
        """Take connections from now on; until then they are refused."""
        self._socket.listen(self.BACKLOG)
        self._start(self._accept)

    def stop(self) -> None:
        """End all connections, and stop listening. Safe to call twice."""
        with self._news:
            self._closing = True
            self._news.notify_all()
            connections = list(self._connections)
        for each in (self._socket, *connections):
            # Wakes the thread that waits for it; close alone does not.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- for the subclass -------------------------------------------------------------------------------

    def _talk(self, connection: socket.socket, visit: int) -> None:
        """
        Serve a connection, in its own thread; it is closed afterwards.

        @param visit: the number of the connection, from 1.
        @raise OSError: the connection broke, which is one way to end.
        """
        raise NotImplementedError

    def _came(self, visit: int) -> None:
        """A connection was accepted. Called with the lock."""

    def _left(self, visit: int) -> None:
        """A connection is over, and about to be closed. Called with the lock."""

    def _finish(self, connection: socket.socket) -> None:
        """End a connection in order."""
        connection.shutdown(socket.SHUT_WR)
        # Unread input would turn the close into a reset.
        while connection.recv(65536):
            pass

    def _hang(self) -> None:
        """Do nothing until the server stops."""
        with self._news:
            self._news.wait_for(lambda: self._closing)

    # --- the threads ------------------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._news:
                self.sessions += 1
                if self._closing:
                    connection.close()
                    return
                visit = self.sessions
                self._connections.add(connection)
                self._came(visit)
            self._start(self._serve, connection, visit)

    def _serve(self, connection: socket.socket, visit: int) -> None:
        try:
            self._talk(connection, visit)
        except OSError:
            pass
        finally:
            with self._news:
                self._connections.discard(connection)
                self._left(visit)
            connection.close()
