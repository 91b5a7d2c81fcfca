"""
Asking a table server that answers one request at a time on each connection.

Takes requests as bytes and a way to read replies; gives the replies. Connections are made when they are
needed, at most C{table_connection_limit} of them; a request waits in a queue while all are busy, and one too
many is refused. A connection that ends while nobody has answered yet is made again once, because servers
close idle ones without a word. A request that is not answered in time, counted from when it was made, ends
its connection: its answer could be taken for the next one's. Every failure is a L{TableError}. Answers to
Postfix's auto_clnt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables.limits import ServerLimits


class ReplyReader(Shape):
    """Reads the replies of one connection."""

    def feed(self, data: bytes) -> bytes | None:
        """
        @param data: the next bytes.
        @return: the reply, if it is complete. What comes after it was not asked for.
        @raise ValueError: this is no reply; says why.
        """


class Request:
    """
    A request that waits for its reply.

    @ivar data: what is sent.
    @ivar reply: gives what is received.
    @ivar tries: on how many connections it may be sent.
    """

    __slots__ = ("_timer", "connection", "data", "reply", "tries")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.tries = 2
        self.connection: Conversation | None = None
        self.reply: Deferred[bytes] = Deferred()
        self._timer: IDelayedCall | None = None

    def limit(self, timer: IDelayedCall) -> None:
        """
        @param timer: ends it.
        """
        self._timer = timer

    def end(self, result: bytes | TableError) -> None:
        """
        Give the result. Only the first one counts.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if not self.reply.called:
            if isinstance(result, bytes):
                self.reply.callback(result)
            else:
                self.reply.errback(result)


class Conversation(Protocol):
    """
    One connection.

    @param client: whose it is.
    @param reader: reads what comes.
    """

    def __init__(self, client: TableClient, reader: ReplyReader) -> None:
        self._client = client
        self._reader = reader
        self._request: Request | None = None

    def send(self, request: Request) -> None:
        """
        Send a request; nobody else's reply is outstanding.
        """
        self._request = request
        request.connection = self
        request.tries -= 1
        assert self.transport is not None
        self.transport.write(request.data)

    def dataReceived(self, data: bytes) -> None:
        if self._request is None:
            # Nobody has asked: whatever it is, it must not become somebody's answer.
            return self.drop()
        try:
            reply = self._reader.feed(data)
        except ValueError as error:
            self._finish(TableError(f"{self._client.name}: {error}"))
            return self.drop()
        if reply is not None:
            # First: whoever gets the reply may ask the next thing at once, and over this connection.
            request, self._request = self._request, None
            request.connection = None
            self._client.free(self)
            request.end(reply)

    def _finish(self, result: bytes | TableError) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.connection = None
            request.end(result)

    def drop(self) -> None:
        """
        End the connection now.
        """
        self._client.forget(self)
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.forget(self)
        request, self._request = self._request, None
        if request is not None:
            request.connection = None
            self._client.lost(request)


class TableClient:
    """
    The connections to one server.

    @ivar name: C{type:name}, for messages.
    @param endpoint: where it is.
    @param limits: what may be used.
    @param reactor: the time.
    @param reader: makes what reads replies, one for each connection.
    """

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        limits: ServerLimits,
        reactor: Any,
        reader: Callable[[], ReplyReader],
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._limits = limits
        self._reactor = reactor
        self._factory = _ConversationFactory(self, reader)
        self._queue: deque[Request] = deque()
        self._idle: dict[Conversation, IDelayedCall] = {}
        self._all: set[Conversation] = set()
        self._connecting: set[Deferred[Any]] = set()
        self._closed = False

    def ask(self, data: bytes) -> Deferred[bytes]:
        """
        @return: the reply.
        @raise TableError: (by the Deferred) there is none.
        """
        request = Request(data)
        if self._closed:
            request.end(TableError(f"{self.name}: is closed"))
        elif len(self._queue) >= self._limits.queue:
            request.end(
                TableError(f"{self.name}: more than table_queue_limit = {self._limits.queue} lookups wait")
            )
        else:
            request.limit(self._reactor.callLater(self._limits.timeout, self._late, request))
            self._enter(request)
        return request.reply

    def _enter(self, request: Request, first: bool = False) -> None:
        if self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
            connection.send(request)
            return
        (self._queue.appendleft if first else self._queue.append)(request)
        self._connect()

    def _connect(self) -> None:
        """
        Begin to make a connection, if one more would be of use.
        """
        room = self._limits.connections - len(self._all) - len(self._connecting)
        if room > 0 and len(self._connecting) < len(self._queue):
            attempt = self._endpoint.connect(self._factory)
            self._connecting.add(attempt)
            attempt.addCallbacks(
                self._connected, self._refused, callbackArgs=(attempt,), errbackArgs=(attempt,)
            )

    def _connected(self, connection: Conversation, attempt: Deferred[Any]) -> None:
        self._connecting.discard(attempt)
        self._all.add(connection)
        self.free(connection)

    def _refused(self, failure: Failure, attempt: Deferred[Any]) -> None:
        self._connecting.discard(attempt)
        if self._closed:
            return
        reason = str(failure.value) or type(failure.value).__name__
        if not self._all and not self._connecting:
            # Others that wait would not fare better, and would wait for as long again.
            waiting, self._queue = self._queue, deque()
            for request in waiting:
                request.end(TableError(f"{self.name}: cannot connect: {reason}"))

    def free(self, connection: Conversation) -> None:
        """
        A connection has nothing to do.
        """
        if self._closed or connection not in self._all:
            return
        if self._queue:
            connection.send(self._queue.popleft())
        else:
            self._idle[connection] = self._reactor.callLater(self._limits.idle, connection.drop)

    def forget(self, connection: Conversation) -> None:
        """
        A connection is of no use any more.
        """
        self._all.discard(connection)
        timer = self._idle.pop(connection, None)
        if timer is not None and timer.active():
            timer.cancel()
        if not self._closed:
            self._connect()

    def lost(self, request: Request) -> None:
        """
        A request was sent, and the connection ended before the reply.
        """
        if request.tries and not self._closed:
            self._enter(request, first=True)
        else:
            request.end(TableError(f"{self.name}: the server has closed the connection without a reply"))

    def _late(self, request: Request) -> None:
        connection = request.connection
        request.tries = 0
        request.end(TableError(f"{self.name}: no answer after {self._limits.timeout:g}s"))
        if connection is not None:
            connection.drop()
        elif request in self._queue:
            self._queue.remove(request)

    def close(self) -> None:
        """
        End all connections; requests fail. Safe to call twice.
        """
        self._closed = True
        for attempt in list(self._connecting):
            attempt.cancel()
        waiting, self._queue = self._queue, deque()
        for request in waiting:
            request.end(TableError(f"{self.name}: was closed while a lookup was under way"))
        for connection in list(self._all):
            connection.drop()


class _ConversationFactory(Factory):
    noisy = False

    def __init__(self, client: TableClient, reader: Callable[[], ReplyReader]) -> None:
        self._client = client
        self._reader = reader

    def buildProtocol(self, addr: IAddress | None) -> Conversation:
        return Conversation(self._client, self._reader())
