"""
One connection to an SMTP server: the Twisted protocol around a L{Conversation}.

Moves bytes, keeps time, streams content with back-pressure; decides nothing. One caller at a time waits
for it: for the handshake (L{SMTPConnection.handshake}), then for transactions (L{SMTPConnection.transact}).
Both Deferreds always fire with L{None}; what happened is in C{conversation} and C{loss}. After a loss
the connection is gone. Answers to smtp(8), the C{smtp_*_timeout} limits: each is for one whole reply, or for
one wait until the server takes more content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as TypingProtocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPullProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.transports.smtp.conversation import Conversation, Event, Stage, Transaction
from qmqpd_tx.transports.smtp.outcomes import Loss
from qmqpd_tx.transports.smtp.settings import Settings
from qmqpd_tx.wire import DirectWriter

log = Logger(namespace="qmqpd_tx.smtp")


class IStream(ITCPTransport, IConsumer):
    """A TCP connection that takes a producer."""


class ContentSource(TypingProtocol):
    """Content that does not fit in memory, encoded."""

    async def next(self) -> tuple[bytes, bool]:
        """
        @return: the next bytes for the wire, and whether they are the last.
        """


def stage_timeouts(settings: Settings) -> dict[Stage, float]:
    """
    @return: the time limit of each stage, in seconds.
    """
    limits = settings.timeouts
    return {
        Stage.GREETING: limits.helo,
        Stage.EHLO: limits.helo,
        Stage.HELO: limits.helo,
        Stage.MAIL: limits.mail,
        Stage.RCPT: limits.rcpt,
        Stage.DATA: limits.data_init,
        Stage.BODY: limits.data_xfer,
        Stage.END: limits.data_done,
        Stage.RSET: limits.rset,
        Stage.QUIT: limits.quit,
    }


@implementer(IPullProducer)
class _Pump:
    """Gives the transport the next chunk of content whenever it has sent the one before."""

    def __init__(self, connection: SMTPConnection, source: ContentSource) -> None:
        self._connection: SMTPConnection | None = connection
        self._source = source
        self._reading = False

    def resumeProducing(self) -> None:
        """The transport can take more."""
        if self._reading or self._connection is None:
            return
        self._reading = True
        self._connection.touch()
        Deferred.fromCoroutine(self._source.next()).addCallbacks(self._read, self._failed)

    def _read(self, result: tuple[bytes, bool]) -> None:
        self._reading = False
        connection = self._connection
        if connection is None:
            return
        data, last = result
        if last:
            self._connection = None
        connection.content(data, last)

    def _failed(self, failure: Failure) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            log.error("reading message content: {reason}", reason=str(failure.value))
            connection.break_off(Loss(Stage.BODY, reason="error reading the message from the queue"))

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._connection = None


class SMTPConnection(Protocol):
    """
    A client connection.

    @ivar conversation: the session.
    @ivar loss: how it ended, or L{None} while it lives.
    @ivar uses: the transactions begun on it.
    @ivar started: when the connection was begun, C{clock} seconds.
    @ivar name: the server's name; C{address} and C{port} where it is.
    @ivar label: C{name[address]}; C{relay}: C{name[address]:port}.
    @ivar kept_for: the nexthop for whose next delivery it waits in the pool, or L{None}.
    @ivar others: whether there were more hosts to try after this one when it was opened.
    """

    transport: IStream
    _writer: DirectWriter

    def __init__(
        self,
        clock: IReactorTime,
        conversation: Conversation,
        timeouts: dict[Stage, float],
        *,
        name: str,
        address: str,
        port: int,
        skip_quit_response: bool = True,
    ) -> None:
        """
        @param clock: for the time limits.
        @param conversation: a fresh session.
        @param timeouts: what L{stage_timeouts} gives.
        @param skip_quit_response: close without waiting for the answer to QUIT.
        """
        self.conversation = conversation
        self.loss: Loss | None = None
        self.uses = 0
        self.started = clock.seconds()
        self.name = name
        self.address = address
        self.port = port
        self.label = f"{name}[{address}]"
        self.relay = f"{name}[{address}]:{port}"
        self.others = False
        self.kept_for: str | None = None
        self.on_made: Callable[[], None] | None = None
        self.on_reset: Callable[[SMTPConnection], None] | None = None
        self.on_gone: Callable[[SMTPConnection], None] | None = None
        self._clock = clock
        self._timeouts = timeouts
        self._longest_wait = min(timeouts.values())
        self._skip_quit_response = skip_quit_response
        self._waiter: Deferred[None] | None = None
        self._content: bytes | ContentSource = b""
        self._deadline: float | None = None
        self._timer: IDelayedCall | None = None
        self._handshaken = False
        self._streaming = False

    # --- for the caller ---------------------------------------------------------------------------

    def handshake(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when the server has greeted us, refused us, or is lost.
            Cancelling it closes the connection.
        """
        waiter: Deferred[None] = Deferred(self._cancelled)
        if self._handshaken or self.loss is not None:
            waiter.callback(None)
        else:
            self._waiter = waiter
        return waiter

    def transact(self, transaction: Transaction, content: bytes | ContentSource) -> Deferred[None]:
        """
        Try one message.

        @param transaction: the commands; collects the replies.
        @param content: the encoded content with its final dot, whole or in pieces.
        @return: a Deferred that fires when it is over. Cancelling it closes the connection.
        """
        waiter: Deferred[None] = Deferred(self._cancelled)
        self._waiter = waiter
        self.uses += 1
        self._content = content
        self.conversation.begin(transaction)
        self._flush()
        self.touch()
        return waiter

    def idle(self) -> None:
        """
        Nothing is expected of the server until the next transaction.
        """
        self._deadline = None

    def quit(self) -> None:
        """
        Say QUIT and close.
        """
        if self.loss is not None or self.conversation.stage is Stage.QUIT:
            return
        self.conversation.quit()
        self._flush()
        self.touch()
        if self._skip_quit_response:
            self.transport.loseConnection()

    def break_off(self, loss: Loss) -> None:
        """
        Close at once; the transaction under way ends with C{loss}.
        """
        if self.loss is None:
            self.loss = loss
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.transport.abortConnection()
            self._fire()

    def touch(self) -> None:
        """
        Something moved: the time limit of the stage starts anew.
        """
        wait = self._timeouts.get(self.conversation.stage)
        if wait is None:
            self._deadline = None
            return
        self._deadline = self._clock.seconds() + wait
        if self._timer is None:
            # One timer runs on and is never moved: no limit set while it runs can end before it.
            self._timer = self._clock.callLater(min(wait, self._longest_wait), self._tick)

    # --- time -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None:
            return
        remaining = deadline - self._clock.seconds()
        if remaining > 0:
            self._timer = self._clock.callLater(min(remaining, self._longest_wait), self._tick)
        else:
            self.break_off(Loss(self.conversation.stage, timed_out=True))

    def _cancelled(self, waiter: Deferred[None]) -> None:
        self.break_off(Loss(self.conversation.stage, interrupted=True))

    # --- the wire ---------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """The time for the greeting runs."""
        self.transport.setTcpNoDelay(True)
        self._writer = DirectWriter(self.transport)
        self.touch()
        if self.on_made is not None:
            self.on_made()

    def dataReceived(self, data: bytes) -> None:
        """Replies, in any chunking."""
        if self.loss is not None:
            return
        conversation = self.conversation
        replies = conversation.replies
        events = conversation.receive(data)
        # Before the limit is set anew: an event may end the wait, and then there is no limit.
        if conversation.output:
            self._flush()
        # Only what answers is a sign of life: a server could send parts of a reply for ever.
        if conversation.replies != replies:
            self.touch()
        if events:
            self._handle(events)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server closed, or we did."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.loss is None:
            self.loss = Loss(self.conversation.stage)
            self.conversation.content_interrupted()
        self._fire()
        if self.on_gone is not None:
            self.on_gone(self)

    def _flush(self) -> None:
        output = self.conversation.output
        self._writer.write(output[0] if len(output) == 1 else b"".join(output))
        output.clear()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if event is Event.FINISHED:
                self._fire()
            elif event is Event.CONTENT:
                self._send_content()
            elif event is Event.READY or event is Event.REFUSED:
                self._handshaken = True
                self._fire()
            elif event is Event.RESET:
                if self.on_reset is not None:
                    self.on_reset(self)
            elif event is Event.UNSOLICITED or event is Event.GOODBYE:
                self.transport.loseConnection()

    def _fire(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    # --- content ----------------------------------------------------------------------------------

    def _send_content(self) -> None:
        content = self._content
        if isinstance(content, bytes):
            self.content(content, True)
        else:
            self._streaming = True
            self._writer.ordinary()
            self.transport.registerProducer(_Pump(self, content), False)
        self._content = b""

    def content(self, data: bytes, last: bool) -> None:
        """
        Send content.

        @param data: encoded.
        @param last: whether it ends with the final dot.
        """
        if self.loss is not None:
            return
        self._writer.write(data)
        if last:
            if self._streaming:
                self._streaming = False
                self.transport.unregisterProducer()
            events = self.conversation.content_sent()
            self.touch()
            self._handle(events)
        else:
            self.touch()
