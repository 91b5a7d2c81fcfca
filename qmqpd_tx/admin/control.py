"""
The control socket: how commands talk to the running service.

A Unix stream socket, C{public/control} under C{queue_directory}, mode 0600: who can open it may
command. One JSON object a line in each direction, answers in the order of the requests:
C{{"command": "deliver_now", "queue_id": "..."}} is answered by C{{"ok": true, "result": ...}} or
C{{"ok": false, "error": "..."}}. Lines are bounded; a client that is silent or slow is dropped; an
answer that cannot be made says so and the connection goes on. The commands themselves are handlers that
are given to the service: this module knows none of them.

Answers to: nothing in Postfix, whose commands talk to one server each.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from qmqpd_tx.admin.codec import (
    ANSWER_LIMIT,
    ControlError,
    LineDecoder,
    LineTooLong,
    decode_object,
    encode_object,
)
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError, SpoolError

log = Logger(namespace="qmqpd_tx.control")

IDLE_SECONDS = 30.0
"""How long a client may be silent, or fail to read."""

CLIENTS_LIMIT = 50
"""How many clients are served at a time; more are turned away."""

Handler = Callable[[Mapping[str, Any]], Any]
"""
Takes the members of a request; gives what JSON can carry (see L{encode_object}), or a Deferred of it. May
fail with L{ControlError} or L{SpoolError}, whose text the client is told.
"""


class ControlProtocol(Protocol):
    """One client: its requests are answered one after the other."""

    factory: ControlFactory

    def __init__(self, clock: IReactorTime) -> None:
        self._decoder = LineDecoder()
        self._waiting: deque[bytes] = deque()
        self._busy: Deferred[Any] | None = None
        self._stepping = False
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._gone = False

    def connectionMade(self) -> None:
        """Count the client, or turn it away."""
        if len(self.factory.clients) >= CLIENTS_LIMIT:
            self._answer({"ok": False, "error": "too many control connections; try again"})
            self._hang_up()
            return
        self.factory.clients.add(self)
        self._limit(IDLE_SECONDS)

    def dataReceived(self, data: bytes) -> None:
        """Take requests."""
        self._limit(IDLE_SECONDS)
        try:
            self._waiting.extend(self._decoder.feed(data))
        except LineTooLong as problem:
            self._waiting.clear()
            self._answer({"ok": False, "error": str(problem)})
            self._hang_up()
            return
        self._next()

    def _next(self) -> None:
        if self._stepping:
            # An answer that came at once: the loop below goes on. A call for each would not end well.
            return
        self._stepping = True
        while self._busy is None and self._waiting:
            line = self._waiting.popleft()
            answer = maybeDeferred(self._handle, line)
            # No time limit on the service's own work; a client that waits is not silent.
            self._limit(None)
            self._busy = answer
            answer.addCallbacks(self._done, self._failed)
        self._stepping = False
        if self.transport is None:
            return
        # A client that pours in requests without waiting for answers is not read meanwhile.
        if self._waiting:
            self.transport.pauseProducing()  # type: ignore[attr-defined]
        else:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def _handle(self, line: bytes) -> Any:
        request = decode_object(line)
        name = request.pop("command", None)
        handler = self.factory.handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            known = ", ".join(sorted(self.factory.handlers)) or "none"
            raise ControlError(f"unknown command; this service knows: {known}")
        return handler(request)

    def _done(self, result: Any) -> None:
        try:
            answer = encode_object({"ok": True, "result": result})
            if len(answer) > ANSWER_LIMIT:
                raise ValueError(f"an answer of {len(answer)} bytes")
        except (TypeError, ValueError, RecursionError):
            log.failure("a control command gave what JSON cannot carry")
            answer = encode_object({"ok": False, "error": "internal error; see the mail log"})
        self._finish(answer)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, (ControlError, SpoolError)):
            text = str(failure.value)
        else:
            log.failure("a control command failed", failure=failure)
            text = "internal error; see the mail log"
        self._finish(encode_object({"ok": False, "error": text}))

    def _finish(self, answer: bytes) -> None:
        self._busy = None
        if self.transport is not None and not self._gone:
            self.transport.write(answer)
            self._limit(IDLE_SECONDS)
            self._next()

    def _answer(self, value: Mapping[str, Any]) -> None:
        if self.transport is not None:
            self.transport.write(encode_object(value))

    def _hang_up(self) -> None:
        self._limit(None)
        if self.transport is not None:
            self.transport.loseConnection()

    def _limit(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._clock.callLater(seconds, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self.drop()

    def drop(self) -> None:
        """Drop the client at once: it is silent, does not read, or the service ends."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the client; what it asked for goes on."""
        self._gone = True
        self._limit(None)
        self._waiting.clear()
        self.factory.clients.discard(self)


class ControlFactory(Factory):
    """Makes a L{ControlProtocol} a client."""

    noisy = False

    def __init__(self, handlers: Mapping[str, Handler], clock: IReactorTime) -> None:
        """
        @param handlers: command names to what answers them.
        @param clock: for time limits.
        """
        self.handlers = handlers
        self.clients: set[ControlProtocol] = set()
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # type: ignore[override]
        """
        @return: the protocol for a new client.
        """
        protocol = ControlProtocol(self._clock)
        protocol.factory = self
        return protocol


class ControlService(Service):
    """The control socket, as long as the service runs."""

    name = "control"

    def __init__(
        self, *, reactor: IReactorUNIX, clock: IReactorTime, path: Path, handlers: Mapping[str, Handler]
    ) -> None:
        """
        @param reactor: listens.
        @param clock: for time limits; usually the same reactor.
        @param path: the socket: L{SOCKET} under C{queue_directory}. Its folder must exist when the
            service starts.
        @param handlers: command names to what answers them.
        """
        self._reactor = reactor
        self._path = path
        self._factory = ControlFactory(handlers, clock)
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """
        Listen. A socket left behind by a service that was killed is replaced: the lock on the queue
        says that there is no other.

        @raise ConfigError: the socket cannot be made.
        """
        super().startService()  # type: ignore[no-untyped-call]
        try:
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()
        except FileNotFoundError:
            pass
        # The mode must hold from the first moment, and not only from a chmod on.
        before = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(os.fspath(self._path), self._factory, mode=0o600)
        except Exception as problem:
            # CannotListenError, or OSError for a path that is too long for a socket's name.
            raise ConfigError(
                f"cannot listen on the control socket {self._path}: {problem}; "
                f"check queue_directory, its length (a socket's path has at most 107 bytes) and its owner"
            ) from problem
        finally:
            os.umask(before)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and hang up.

        @return: a Deferred that fires when the socket is gone.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        stopped: Deferred[Any] = maybeDeferred(port.stopListening) if port is not None else maybeDeferred(str)
        for client in list(self._factory.clients):
            client.drop()
        return stopped.addCallback(lambda _: None)
