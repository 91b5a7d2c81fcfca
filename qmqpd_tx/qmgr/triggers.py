"""
Triggers: one-byte requests on the local socket C{public/qmgr}.

L{read_triggers} takes a buffer of bytes and gives what it asks for, collapsed. L{TriggerFactory} makes the
protocol for the socket; it reads, never writes, and drops a client that stays too long, sends too much or
comes in too great a crowd: the bytes come from untrusted local users. Nothing here is durable: a lost
trigger costs at most C{queue_run_delay}. Answers to qmgr(8), "TRIGGERS".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import frozen
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger

log = Logger(namespace="qmqpd_tx.qmgr")

_KNOWN: Final = b"DIAFW"

_SHOWN: Final = 20
"""How many unknown bytes are logged."""

BUFFER: Final = 4096
"""
How many bytes one client may send: as many as Postfix reads at once. Nobody needs more than five, since the
same request twice is one; so that this is no parameter.
"""

CLIENTS: Final = 100
"""
How many clients are served at a time. Each has C{trigger_timeout}, and none has a reason to stay longer
than it takes to send a byte; a crowd beyond that is a mistake or an attack, and whoever is turned away
loses nothing but C{queue_run_delay}.
"""


@frozen(slots=True)
class Triggers:
    """
    What a buffer of triggers asks for. To be obeyed in the order of the fields: C{A} and C{F} come before
    C{D} and C{I}.

    @ivar ignore_times: C{A}: the next scan of the deferred queue ignores when messages are due.
    @ivar flush_dead: C{F}: forget all dead destinations and transports.
    @ivar scan_deferred: C{D}: scan the deferred queue.
    @ivar scan_incoming: C{I} or C{W}: scan the incoming queue.
    @ivar unknown: bytes that are no trigger, the first of them at most.
    """

    ignore_times: bool = False
    flush_dead: bool = False
    scan_deferred: bool = False
    scan_incoming: bool = False
    unknown: bytes = b""


def read_triggers(data: bytes) -> Triggers:
    """
    @param data: a buffer as it was read from the socket.
    @return: the requests in it, each once.
    """
    return Triggers(
        ignore_times=b"A" in data,
        flush_dead=b"F" in data,
        scan_deferred=b"D" in data,
        scan_incoming=b"I" in data or b"W" in data,
        unknown=data.translate(None, _KNOWN)[:_SHOWN],
    )


class TriggerProtocol(Protocol):
    """One client of the trigger socket."""

    factory: TriggerFactory
    _room: int = BUFFER
    _limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the time limit, or turn the client away when there are too many."""
        if self not in self.factory.clients and len(self.factory.clients) >= CLIENTS:
            log.warn("trigger: too many clients, more than {limit}", limit=CLIENTS)
            self._drop()
            return
        self.factory.clients.add(self)
        self._limit = self.factory.clock.callLater(self.factory.time_limit, self._late)

    def dataReceived(self, data: bytes) -> None:
        """Obey what came, up to one buffer a client."""
        if self._room <= 0:
            return
        data = data[: self._room]
        self._room -= len(data)
        triggers = read_triggers(data)
        if triggers.unknown:
            log.warn("trigger: request ignored: unknown: {request}", request=triggers.unknown)
        self.factory.handler(triggers)
        if self._room <= 0:
            log.warn("trigger: more than {limit} requests, dropping the client", limit=BUFFER)
            self._drop()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Stop the time limit."""
        self.factory.clients.discard(self)
        if self._limit is not None and self._limit.active():
            self._limit.cancel()

    def _late(self) -> None:
        self._limit = None
        self._drop()

    def _drop(self) -> None:
        if self.transport is not None:
            abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
            abort()


if TYPE_CHECKING:
    _Factory = Factory[TriggerProtocol]
else:
    # Which protocol it makes cannot be said to Twisted before 26.4.
    _Factory = Factory


class TriggerFactory(_Factory):
    """
    Makes the protocol for a local stream listener.

    @ivar clients: those connected now.
    """

    protocol = TriggerProtocol
    noisy = False

    def __init__(
        self, handler: Callable[[Triggers], None], clock: IReactorTime, time_limit: float = 10.0
    ) -> None:
        """
        @param handler: L{QueueManager.triggered<qmqpd_tx.qmgr.service.QueueManager.triggered>}.
        @param clock: for the time limit.
        @param time_limit: seconds after which a client is dropped, C{trigger_timeout}.
        """
        self.handler = handler
        self.clock = clock
        self.time_limit = time_limit
        self.clients: set[TriggerProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> TriggerProtocol:
        """
        @return: a protocol for one client.
        """
        protocol = TriggerProtocol()
        protocol.factory = self
        return protocol
