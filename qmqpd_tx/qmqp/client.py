"""
The QMQP client: one message to one server.

Takes a message of known size, its sender and recipients; gives the server's L{Reply}. The content is read
from a file as the connection takes it, so that a message of any size needs little memory. The message is the
server's from the moment of a C{K} reply, and not before: with any other end it must be kept.

How it fails: L{ConnectionBroken} when the connection ends or falls silent before the reply (it is not known
whether the server has the message), L{MalformedReply} when the reply is none. Answers to qmail-qmqpc(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol as TypingProtocol
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.netstring import NetstringError, NetstringReader, encode, encoded_size
from qmqpd_tx.qmqp.replies import ReplyClass

REPLY_LIMIT = 10_000
"""The longest reply that is read, in bytes."""

CHUNK_SIZE = 65536
"""How much content is read and sent at a time, in bytes."""


class ClientError(Exception):
    """The server did not answer as it should."""


class ConnectionBroken(ClientError):
    """The connection ended, or there was silence for too long, before the reply."""


class MalformedReply(ClientError):
    """What the server sent is no QMQP reply."""


class ContentSource(TypingProtocol):
    """Where content comes from: a binary file."""

    def read(self, size: int, /) -> bytes:
        """
        @return: up to C{size} bytes, C{b""} at the end.
        """


class _Wire(TypingProtocol):
    def write(self, data: bytes) -> None: ...
    def abortConnection(self) -> None: ...
    def registerProducer(self, producer: IPullProducer, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...


@frozen(slots=True)
class Reply:
    """
    What the server said.

    @ivar reply_class: whether it has taken the message.
    @ivar text: the rest of the reply, as it came.
    """

    reply_class: ReplyClass
    text: bytes


@frozen(slots=True)
class Packet:
    """
    What goes around the content on the wire.

    @ivar head: what goes before.
    @ivar tail: what goes after.
    """

    head: bytes
    tail: bytes


def make_packet(content_size: int, sender: bytes, recipients: Sequence[bytes]) -> Packet:
    """
    @param content_size: how long the content will be, in bytes.
    @return: the packet without its content.
    """
    envelope = encode(sender) + b"".join(encode(recipient) for recipient in recipients)
    size = encoded_size(content_size) + len(envelope)
    return Packet(b"%d:%d:" % (size, content_size), b"," + envelope + b",")


class ReplyReader:
    """Reads one reply. Without I/O."""

    def __init__(self) -> None:
        self._reader = NetstringReader(REPLY_LIMIT)

    def feed(self, data: bytes) -> Reply | None:
        """
        @return: the reply when it is complete.
        @raise MalformedReply: it is none.
        """
        try:
            found = self._reader.feed(data)
        except NetstringError as error:
            raise MalformedReply(f"{error} while receiving the reply") from None
        if not found:
            return None
        try:
            return Reply(ReplyClass(found[0][:1]), found[0][1:])
        except ValueError:
            raise MalformedReply("a reply that begins with none of K, Z and D") from None


@implementer(IPullProducer)
class QMQPClientProtocol(Protocol):
    """
    Sends one message and waits for the reply.

    @ivar result: a Deferred that gives the L{Reply}, or fails with a L{ClientError}; cancelling it drops the
        connection.
    @ivar sent: whether the whole message was handed to the transport. If not, the server cannot have it.
    """

    def __init__(
        self, packet: Packet, content: ContentSource, content_size: int, clock: IReactorTime, timeout: float
    ) -> None:
        """
        @param packet: from L{make_packet}.
        @param content: exactly C{content_size} bytes.
        @param content_size: as given to L{make_packet}.
        @param clock: the time.
        @param timeout: how many seconds to wait for the server to take, or to send, anything.
        """
        self.sent = False
        self.result: Deferred[Reply] = Deferred(lambda _result: self._end(None))
        self._packet = packet
        self._content = content
        self._left = content_size
        self._clock: IReactorTime = clock
        self._timeout = timeout
        self._timer: IDelayedCall | None = None
        self._reply = ReplyReader()
        self._producing = False
        self._lost = False
        self._wire: _Wire | None = None

    def connectionMade(self) -> None:
        """
        Send.
        """
        wire = self._wire = cast(_Wire, self.transport)
        self._timer = self._clock.callLater(self._timeout, self._timed_out)
        self._producing = True
        wire.write(self._packet.head)
        wire.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """
        Send some more content, or what follows it.
        """
        wire = self._wire
        if wire is None or not self._producing:
            return
        self._alive()
        chunk = self._content.read(min(CHUNK_SIZE, self._left)) if self._left else b""
        if len(chunk) < min(1, self._left) or len(chunk) > self._left:
            self._end(ClientError("the message is not as long as it was"))
            return
        self._left -= len(chunk)
        if self._left:
            wire.write(chunk)
            return
        self.sent = True
        wire.write(chunk + self._packet.tail)
        self._stop_producing()

    def stopProducing(self) -> None:
        """
        The connection is lost.
        """
        self._producing = False

    def dataReceived(self, data: bytes) -> None:
        """
        Part of the reply, which may come before everything is sent.
        """
        self._alive()
        try:
            reply = self._reply.feed(data)
        except MalformedReply as error:
            self._end(error)
            return
        if reply is not None:
            self._end(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Too early, unless there is a result.
        """
        self._producing = False
        self._lost = True
        self._end(ConnectionBroken(f"connection lost before the reply: {reason.getErrorMessage()}"))

    def _alive(self) -> None:
        if self._timer is not None:
            self._timer.reset(self._timeout)

    def _timed_out(self) -> None:
        self._timer = None
        self._end(ConnectionBroken(f"no sign of life from the server for {self._timeout:g} seconds"))

    def _stop_producing(self) -> None:
        if self._producing and self._wire is not None:
            self._producing = False
            self._wire.unregisterProducer()

    def _end(self, result: Reply | ClientError | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop_producing()
        if self._wire is not None and not self._lost:
            # Nothing more is to be said, and unsent content need not be.
            self._wire.abortConnection()
        if self.result.called:
            return
        if isinstance(result, Reply):
            self.result.callback(result)
        elif result is not None:
            self.result.errback(result)
