"""
One QMQP connection: one message, one reply.

Takes what the transport delivers; gives the message to L{ICleanup<qmqpd_tx.interfaces.ICleanup>} as it
arrives, and the client exactly one reply, or none when the client went away or was silent too long. C{K} is
sent only after C{finish()} has fired, that is, after the message is safe on disk; a message that is not
answered with C{K} is aborted first, so that the client's next try makes no duplicate. Holds one unfinished
address, at most one chunk of input, and nothing else of the message.

How it fails: a malformed packet, an unauthorized client or a refused message is a C{D} or C{Z} reply after
C{qmqpd_error_delay}, during which (and for C{qmqpd_timeout} after which) what the client still sends is
thrown away, so that the reply is not lost in a TCP reset; for an unauthorized client
C{qmqpd_unauthorized_time_limit} has to be enough. When the queue does not take content, the
transport is paused. When the message is not safe C{qmqpd_answer_time_limit} after the client's last byte, or
somebody here is waited for longer than C{ipc_timeout}, it is abandoned for good and the answer is C{Z}; so it
is when the whole takes longer than C{daemon_timeout}.

Each connection has one time at which it is L{overdue<QMQPConnection.overdue>}. It is not moved for every
read: the connection finds out then whether what it waits for takes too long.

One class, because it is one state machine: each method is a transition, and they share all their state.

Answers to Postfix's qmqpd(8): texts, log lines, delays and their order were watched there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.eager import now_or_later
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IIncomingMessage, IntakeError
from qmqpd_tx.message import ClientInfo, QueueID
from qmqpd_tx.qmqp.parser import Event, QMQPParser
from qmqpd_tx.qmqp.reception import CONFIGURATION_ERROR, NO_QUEUE_ID, Reception
from qmqpd_tx.qmqp.replies import Refusal, ReplyClass, encode_reply
from qmqpd_tx.qmqp.roles import Owner, State, Transport, peer_of
from qmqpd_tx.qmqp.trace import TracedParser
from qmqpd_tx.qmqp.verp import split_verp, verp_fault
from qmqpd_tx.wire import read_now, write_last

log = Logger(namespace="qmqpd_tx.qmqpd")

ERROR = "Error: "
WRITE_ERROR = "queue file write error"

KERNEL_BUFFER_SECONDS = 1.0
"""
How long after a pause what is read may have been waiting in the kernel since the pause began: such bytes are
taken to be as old as that, for C{qmqpd_answer_time_limit}.
"""

STOP_SECONDS = 5.0
"""How long a client may take to collect its reply once the server is stopping."""


_RECEIVING, _COMMITTING, _CLOSING, _CLOSED = State.RECEIVING, State.COMMITTING, State.CLOSING, State.CLOSED
_CONTENT, _SENDER, _RECIPIENT, _END = Event.CONTENT, Event.SENDER, Event.RECIPIENT, Event.END


@implementer(IProtocol, IHalfCloseableProtocol)
class QMQPConnection:
    """
    The protocol of one connection.

    @ivar state: where it stands.
    """

    __slots__ = (
        "__provides__",
        "_address",
        "_blocked",
        "_client",
        "_drain_time",
        "_drained",
        "_early",
        "_end_by",
        "_eof",
        "_events",
        "_held",
        "_label",
        "_last_activity",
        "_last_byte",
        "_lookup",
        "_message",
        "_owner",
        "_parser",
        "_paused",
        "_paused_at",
        "_port",
        "_queue_id",
        "_reception",
        "_reply",
        "_resumed_at",
        "_settings",
        "_since",
        "_verp_fault",
        "state",
        "transport",
    )

    transport: Transport

    def __init__(self, owner: Owner, address: IAddress, early: bytes = b"") -> None:
        """
        @param owner: the server.
        @param address: the client's.
        @param early: what the client has sent already.
        """
        self._owner = owner
        self._settings = owner.settings
        self._address, self._port = peer_of(address)
        self.state = State.WAITING
        self._client: ClientInfo | None = None
        self._label = ""
        self._early = early
        self._lookup: Deferred[Refusal | None] | None = None
        self._paused = False
        self._reception = Reception()
        self._end_by = float("inf")
        self._parser: QMQPParser | None = None
        self._message: IIncomingMessage | None = None
        self._queue_id: QueueID | str = NO_QUEUE_ID
        self._events: Iterator[tuple[Event, bytes]] = iter(())
        self._blocked = False
        self._held = False
        self._eof = False
        self._last_activity = self._last_byte = self._since = 0.0
        self._paused_at = 0.0
        self._resumed_at = float("-inf")
        self._drain_time = self._settings.timeout
        self._drained = 0
        self._reply = b""
        self._verp_fault: str | None = None

    # --- start ---------------------------------------------------------------------------------------

    def makeConnection(self, transport: ITransport) -> None:
        """
        The connection is there.
        """
        self.transport = cast(Transport, transport)
        self.connectionMade()

    def connectionMade(self) -> None:
        """
        Start, or wait for a turn.
        """
        if self._owner.opened(self):
            self.start()
            if self.state is _RECEIVING and not self._held:
                # A small message is often there before the connection is accepted.
                read_now(self.transport)
        else:
            self._pause()

    def start(self, resume: bool = False) -> None:
        """
        Begin to serve.

        @param resume: whether the transport was paused meanwhile.
        """
        self._end_by = self._owner.clock.seconds() + self._settings.request_time_limit
        if self._port is None:
            name: str | Deferred[str] = "localhost"
        else:
            name = self._owner.hostnames.lookup(self._address)
        if isinstance(name, str):
            self._named(name)
        else:
            self._pause()
            name.addCallback(self._named)

    def _pause(self) -> None:
        """
        Read nothing before the connection starts.
        """
        if not self._paused:
            self._paused = True
            self._paused_at = self._owner.clock.seconds()
            self.transport.pauseProducing()

    def _named(self, name: str) -> None:
        if self.state is not State.WAITING:
            return
        client = self._client = ClientInfo(self._address, name, self._port)
        self._label = client.label(self._settings.port_logging)
        admitted = now_or_later(self._reception.admit(self._owner, client, self._label))
        if isinstance(admitted, Deferred):
            # A list is asked that has to ask a server.
            self._pause()
            self._lookup = admitted
            self._arm(self._settings.wait_time_limit)
            admitted.addBoth(self._admitted)
        else:
            self._admitted(admitted)

    def _admitted(self, result: Refusal | Failure | None) -> None:
        self._lookup = None
        if self.state is not State.WAITING:
            return
        self._last_activity = self._last_byte = self._owner.clock.seconds()
        settings = self._settings
        if isinstance(result, Failure):
            self._failed(result.value, result)
        elif result is not None:
            if self._reception.stranger:
                # Strangers must not hold the places of those who may come.
                self._drain_time = settings.unauthorized_time_limit
            self._refuse(result.reply_class, result.text, result.delay)
        elif settings.in_flow_delay and self._owner.behind():
            # The queue is full: this client waits, and the others need not.
            self._pause()
            self._arm(settings.in_flow_delay)
            return
        else:
            self._receive()
        self._first_read()

    def _receive(self) -> None:
        settings = self._settings
        self.state = _RECEIVING
        trace = self._reception.trace
        if trace is None:
            self._parser = QMQPParser(settings.content_limit, settings.address_limit)
        else:
            self._parser = TracedParser(settings.content_limit, settings.address_limit, trace)
        self._arm(min(settings.timeout, settings.wait_time_limit))

    def _first_read(self) -> None:
        """
        Read what came early, and what may have been waiting in the kernel since the connection was made.
        """
        if self._paused:
            self._resumed_at = self._owner.clock.seconds()
        early, self._early = self._early, b""
        if early:
            self.dataReceived(early)
        if self._paused:
            self._paused = False
            if not self._held:
                self._resume()

    # --- input ---------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """
        The next bytes from the client.
        """
        if self.state is not _RECEIVING:
            self._discard(len(data))
            return
        now = self._last_activity = self._owner.clock.seconds()
        self._last_byte = self._paused_at if now < self._resumed_at + KERNEL_BUFFER_SECONDS else now
        parser = self._parser
        assert parser is not None
        if self._message is None and not self._begin():
            return
        self._events = iter(parser.feed(data))
        self._run()

    def _begin(self) -> bool:
        """
        Open a message, with the first byte and not before: a silent connection holds nothing.
        """
        try:
            treatment = self._reception.treatment
            message: IIncomingMessage = self._owner.cleanup.begin(self._client, None, treatment)
        except Exception as reason:
            self._failed(reason)
            return False
        self._message = message
        self._queue_id = message.queue_id
        log.info("{queue_id}: client={client}", queue_id=self._queue_id, client=self._label)
        return True

    def _run(self) -> None:
        """
        Hand on what was parsed, until it is done or the queue wants a pause.
        """
        message = self._message
        assert message is not None
        try:
            for event, data in self._events:
                if event is _CONTENT:
                    waiting = message.content(data)
                elif event is _RECIPIENT:
                    waiting = message.recipient(data)
                elif event is _SENDER:
                    waiting = self._take_sender(message, data)
                elif event is _END:
                    self._commit(message)
                    return
                else:
                    self._malformed(data.decode("ascii"))
                    return
                if waiting is not None and self._hold(waiting):
                    return
        except Exception as reason:
            self._failed(reason)

    def _take_sender(self, message: IIncomingMessage, address: bytes) -> Deferred[None] | None:
        verp = split_verp(address)
        if verp.delimiters is not None:
            # Reported at the end, as by Postfix: the client reads its reply only then.
            self._verp_fault = verp_fault(verp.delimiters, self._settings.verp_filter)
        waiting: Deferred[None] | None = message.sender(verp.sender, verp.delimiters)
        return waiting

    def _hold(self, waiting: Deferred[object]) -> bool:
        """
        @return: whether to wait; not when the Deferred has fired already.
        """
        self._blocked = True
        waiting.addBoth(self._unblocked)
        if not self._blocked:
            return False
        self._held = True
        self._paused_at = self._owner.clock.seconds()
        self.transport.pauseProducing()
        return True

    def _unblocked(self, result: object) -> None:
        # What failed here is reported by finish().
        self._blocked = False
        if not self._held or self.state is not _RECEIVING:
            return
        self._held = False
        now = self._resumed_at = self._last_activity = self._owner.clock.seconds()
        settings = self._settings
        self._arm(max(0, min(settings.timeout, self._paused_at + settings.wait_time_limit - now)))
        self._run()
        if not self._held:
            self._resume()

    def _resume(self) -> None:
        if not self._eof and self.state is not _CLOSING and self.state is not _CLOSED:
            # After the end of file there is nothing to read, and the reactor would report it again.
            self.transport.resumeProducing()

    def _discard(self, length: int) -> None:
        """
        Throw away what nobody asked for, but not without bounds.
        """
        self._drained += length
        if self._drained > self._settings.drain_limit:
            if self.state is State.DRAINING:
                self._close()
            else:
                self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """
        The client has finished sending. It may still be waiting for the reply.
        """
        self._eof = True
        if self.state is _RECEIVING:
            self._lost_connection()
            self._close()
        elif self.state is State.DRAINING:
            self._close()

    def writeConnectionLost(self) -> None:
        """
        We have finished sending, by our own wish.
        """

    # --- commit --------------------------------------------------------------------------------------

    def _commit(self, message: IIncomingMessage) -> None:
        assert self._parser is not None
        if self._verp_fault is not None:
            self._reject(ReplyClass.PERMANENT, self._verp_fault)
        elif not self._parser.recipients:
            self._reject(ReplyClass.PERMANENT, "no recipients specified")
        else:
            self.state = _COMMITTING
            if self._last_byte < self._last_activity:
                # Some of the time for the answer has passed before it was read.
                passed = self._last_activity - self._last_byte
                self._arm(max(0.0, self._settings.answer_time_limit - passed))
            message.finish().addCallbacks(self._accepted, self._not_accepted)

    def _accepted(self, queue_id: QueueID) -> None:
        if self.state is not _COMMITTING:
            return
        self._message = None
        self._reply = encode_reply(ReplyClass.ACCEPTED, f"Ok: queued as {queue_id}")
        if self._reception.trace is not None:
            self._reception.trace.replied(self._reply)
        self._send_reply()

    def _not_accepted(self, failure: Failure) -> None:
        if self.state is not _COMMITTING and self.state is not _RECEIVING:
            # Our own abort().
            return
        self._failed(failure.value, failure)

    def _failed(self, reason: BaseException | None, failure: Failure | None = None) -> None:
        """
        @param reason: why the message is not accepted; anything but an L{IntakeError} is a defect here.
        @param failure: the same with its traceback, outside of an C{except} block.
        """
        if isinstance(reason, IntakeError):
            reply_class = ReplyClass.PERMANENT if reason.permanent else ReplyClass.TEMPORARY
            self._reject(reply_class, reason.text)
        else:
            log.failure("{queue_id}: accepting a message", failure, queue_id=self._queue_id)
            self._reject(ReplyClass.TEMPORARY, WRITE_ERROR)

    # --- replies -------------------------------------------------------------------------------------

    def _malformed(self, text: str) -> None:
        log.info("{queue_id}: {client}: {reason}", queue_id=self._queue_id, client=self._label, reason=text)
        self._refuse(ReplyClass.PERMANENT, text)

    def _reject(self, reply_class: ReplyClass, text: str, delay: bool = True) -> None:
        if not text.startswith(ERROR):
            text = ERROR + text
        log.warn("{queue_id}: {client}: {reason}", queue_id=self._queue_id, client=self._label, reason=text)
        self._refuse(reply_class, text, delay)

    def _refuse(self, reply_class: ReplyClass, text: str, delay: bool = True) -> None:
        """
        Drop the message, and reply when C{qmqpd_error_delay} is over.
        """
        settings = self._settings
        self.state = State.REFUSING
        self._abort()
        if settings.soft_bounce:
            reply_class = ReplyClass.TEMPORARY
        self._reply = encode_reply(reply_class, text)
        if self._reception.trace is not None:
            self._reception.trace.replied(self._reply)
        if self._held:
            self._held = False
            self._resume()
        if delay and settings.error_delay > 0:
            self._arm(settings.error_delay)
        else:
            self._send_reply()

    def _send_reply(self) -> None:
        if self.state is _COMMITTING:
            # The whole packet is here, so there is nothing that could be lost by closing.
            self.state = _CLOSING
            self._since = self._owner.clock.seconds()
            if self not in self._owner.deadlines:
                self._arm(self._settings.timeout)
            write_last(self.transport, self._reply)
            return
        self.transport.write(self._reply)
        if not self._eof and self._drained <= self._settings.drain_limit:
            # The client may still be sending. Closing now could destroy the reply on its way.
            self.state = State.DRAINING
            self._since = self._owner.clock.seconds()
            self._arm(self._drain_time)
            finish_writing = getattr(self.transport, "loseWriteConnection", None)
            if finish_writing is not None:
                finish_writing()
        else:
            self._close()

    def _close(self, seconds: float | None = None) -> None:
        """
        Close when everything is written, but wait no longer than C{seconds}, or C{qmqpd_timeout}. The
        connection may be lost before this returns.
        """
        self.state = _CLOSING
        self._since = self._owner.clock.seconds()
        if seconds is not None:
            # As if it had been closing for the rest of the time already.
            self._since += seconds - self._settings.timeout
            self._arm(seconds)
        elif self not in self._owner.deadlines:
            self._arm(self._settings.timeout)
        self.transport.loseConnection()

    # --- time ----------------------------------------------------------------------------------------

    def _arm(self, delay: float) -> None:
        owner = self._owner
        owner.deadlines.set(self, min(owner.clock.seconds() + delay, self._end_by))

    def overdue(self) -> None:
        """
        See whether something is overdue.
        """
        state = self.state
        settings = self._settings
        now = self._owner.clock.seconds()
        if state is State.REFUSING:
            self._send_reply()
            return
        if now >= self._end_by:
            self._watchdog()
            return
        if state is State.WAITING:
            if self._lookup is not None:
                self._waited_for_lookup()
                return
            # C{in_flow_delay} is over.
            self._last_activity = self._last_byte = now
            self._receive()
            self._first_read()
            return
        limit = settings.answer_time_limit
        if state is _RECEIVING and not self._held:
            deadline = self._last_activity + settings.timeout
        elif state is _RECEIVING:
            limit = settings.wait_time_limit
            deadline = self._paused_at + limit
        elif state is _COMMITTING:
            deadline = self._last_byte + limit
            if self._last_activity + settings.wait_time_limit < deadline:
                limit = settings.wait_time_limit
                deadline = self._last_activity + limit
        elif state is State.DRAINING:
            deadline = self._since + self._drain_time
        else:
            deadline = self._since + settings.timeout
        if now < deadline:
            # No further ahead than a wait may last, because one may begin meanwhile.
            self._arm(min(deadline - now, settings.wait_time_limit))
        elif state is _COMMITTING or self._held:
            self._reject(ReplyClass.TEMPORARY, f"{WRITE_ERROR} (not done within {limit:g}s)", delay=False)
        else:
            if state is _RECEIVING:
                self._log_receiving("read/write timeout")
            self._hang_up()

    def _waited_for_lookup(self) -> None:
        """
        A list of clients cannot be asked in time.
        """
        self._cancel_lookup()
        limit = self._settings.wait_time_limit
        log.warn("{client}: no answer from a lookup table within {limit}s", client=self._label, limit=limit)
        self._refuse(ReplyClass.TEMPORARY, CONFIGURATION_ERROR, delay=False)
        self._first_read()

    def _watchdog(self) -> None:
        """
        All of it takes longer than C{daemon_timeout}.
        """
        state = self.state
        if state is State.DRAINING or state is _CLOSING:
            self._hang_up()
            return
        self._end_by = float("inf")
        self._drain_time = self._settings.unauthorized_time_limit
        self._cancel_lookup()
        limit = self._settings.request_time_limit
        self._reject(ReplyClass.TEMPORARY, f"watchdog timeout (not done within {limit:g}s)", delay=False)
        self._first_read()

    def _hang_up(self) -> None:
        self.state = _CLOSING
        self._abort()
        self.transport.abortConnection()

    def _cancel_lookup(self) -> None:
        lookup, self._lookup = self._lookup, None
        if lookup is not None:
            # Whatever it gives now comes too late: the state says so.
            self.state = State.REFUSING
            lookup.cancel()

    # --- end -----------------------------------------------------------------------------------------

    def _log_receiving(self, what: str) -> None:
        assert self._parser is not None
        log.info(
            "{queue_id}: {client}: {what} while receiving {part}",
            queue_id=self._queue_id,
            client=self._label,
            what=what,
            part=self._parser.part.value,
        )

    def _lost_connection(self) -> None:
        self._log_receiving("lost connection")
        self._abort()

    def _abort(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.abort()

    def drop(self) -> None:
        """
        The server is stopping: go away, unless the message is being committed.
        """
        state = self.state
        if state is _COMMITTING or state is _CLOSED:
            return
        if state is _RECEIVING:
            self._log_receiving("server shutdown")
        self._abort()
        self._close(STOP_SECONDS)

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection is over, for whatever reason.
        """
        state = self.state
        if state is _RECEIVING:
            self._lost_connection()
        elif state is _COMMITTING:
            # The client cannot have its answer and will come again.
            log.info(
                "{queue_id}: {client}: lost connection while sending completion status",
                queue_id=self._queue_id,
                client=self._label,
            )
        self._cancel_lookup()
        self.state = _CLOSED
        self._abort()
        self._owner.deadlines.clear(self)
        self._reception.leave(self._owner)
        if self._label:
            log.info("disconnect from {client}", client=self._label)
        self._owner.closed(self)
