"""
A connection to one filter.

Takes packets to send, gives packets that came, each within a time limit. Holds the packets that came before
somebody asked for them, up to L{AHEAD}, and then stops reading; waits for a filter that does not take what it
is sent. Every end, silence and garbage is a L{MilterError} for whoever waits now or asks later. Answers to
Postfix's milter client.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol as TypingProtocol
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.milter.protocol import MilterError, PacketReader

AHEAD = 16
"""How many packets that nobody asked for yet are kept."""

TIMED_OUT = "Connection timed out"
CLOSED = "the filter closed the connection"


class _Wire(TypingProtocol):
    def abortConnection(self) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...


@implementer(IPushProducer)
class MilterConnection(Protocol):
    """
    One conversation.

    @ivar open: whether the filter is still there.
    """

    def __init__(self, clock: IReactorTime, packet_limit: int) -> None:
        """
        @param clock: the time.
        @param packet_limit: the longest packet from the filter, in bytes.
        """
        self.open = False
        self._clock = clock
        self._reader = PacketReader(packet_limit)
        self._packets: deque[bytes] = deque()
        self._error: MilterError | None = None
        self._reading: Deferred[bytes] | None = None
        self._writing: Deferred[None] | None = None
        self._full = False
        self._halted = False
        self._timer: IDelayedCall | None = None

    def send(self, data: bytes, timeout: float) -> Deferred[None] | None:
        """
        @param data: packets.
        @param timeout: how long the filter may take to take them, in seconds.
        @return: L{None}, or a Deferred that fires when there is room for more.
        @raise MilterError: (or a failure of the Deferred) the filter is gone, or does not take them.
        """
        if self._error is not None:
            raise self._error
        assert self.transport is not None
        self.transport.write(data)
        if not self._full or self._error is not None:
            return None
        waiting: Deferred[None] = Deferred(lambda _: self.drop())
        self._writing = waiting
        self._await(timeout)
        return waiting

    def receive(self, timeout: float) -> Deferred[bytes]:
        """
        @param timeout: how long to wait, in seconds.
        @return: a Deferred that gives the next packet, or fails with L{MilterError}.
        """
        if self._packets:
            received = self._packets.popleft()
            self._read_on()
            return succeed(received)
        if self._error is not None:
            return fail(self._error)
        waiting: Deferred[bytes] = Deferred(lambda _: self.drop())
        self._reading = waiting
        self._await(timeout)
        return waiting

    def close(self, data: bytes = b"") -> None:
        """
        End it in order; at once, if the filter does not take what it is sent.

        @param data: the last packet.
        """
        if self._full:
            # The transport would wait for it to take what it was sent, for ever.
            self.drop()
        elif self._error is None:
            assert self.transport is not None
            if data:
                self.transport.write(data)
            self._end(MilterError("the conversation is over"))
            self.transport.loseConnection()

    def drop(self) -> None:
        """
        End it now; whoever waits fails.
        """
        self._fail(MilterError("the conversation was given up"))

    # --- from the transport ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """See L{Protocol.connectionMade}."""
        self.open = True
        cast(_Wire, self.transport).registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """See L{Protocol.dataReceived}."""
        if self._error is not None:
            return
        try:
            self._packets.extend(self._reader.feed(data))
        except MilterError as error:
            self._fail(error)
            return
        if self._packets and self._reading is not None:
            waiting, self._reading = self._reading, None
            self._stop_timer()
            waiting.callback(self._packets.popleft())
        if len(self._packets) > AHEAD and not self._halted and self._error is None:
            self._halted = True
            cast(IPushProducer, self.transport).pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{Protocol.connectionLost}."""
        self.open = False
        self._end(MilterError(CLOSED))

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has room."""
        self._full = False
        waiting, self._writing = self._writing, None
        if waiting is not None:
            self._stop_timer()
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone; L{connectionLost} follows."""

    # --- the end --------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        if self._halted and len(self._packets) <= AHEAD and self._error is None:
            self._halted = False
            cast(IPushProducer, self.transport).resumeProducing()

    def _await(self, timeout: float) -> None:
        self._timer = self._clock.callLater(timeout, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._fail(MilterError(TIMED_OUT))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fail(self, error: MilterError) -> None:
        if self._error is None:
            self._error = error
            # First the transport: whoever hears of the failure may look.
            if self.open:
                cast(_Wire, self.transport).abortConnection()
            self._end(error)

    def _end(self, error: MilterError) -> None:
        if self._error is None:
            self._error = error
        self._stop_timer()
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        for waiting in (reading, writing):
            if waiting is not None and not waiting.called:
                waiting.errback(self._error)
