"""
One filter's part in one message: events go out, and it is known what may follow each.

Takes a connection and the events; gives L{Verdict}s. A filter that has accepted, or failed and is to be done
without (C{milter_default_action}), is told nothing more. A failure of the filter is logged with its name and
never raises; how long it may take and how much it may say is bounded by its settings. Answers to Postfix's
milter client, watched.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol as TypingProtocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, TimeoutError

from qmqpd_tx.eager import ready
from qmqpd_tx.events import Logger
from qmqpd_tx.message import QueueID
from qmqpd_tx.milter import protocol
from qmqpd_tx.milter.protocol import STAGES, SYMBOLS, Event, MilterError, Negotiated, Step
from qmqpd_tx.milter.replies import (
    REPLY_SYMBOLS,
    Answer,
    Change,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyCode,
    decode_reply,
    reply_text,
)
from qmqpd_tx.milter.settings import DefaultAction, FilterSettings, MilterSettings

log = Logger(namespace="qmqpd_tx.cleanup")

REJECTED = b"5.7.1 Command rejected"
UNAVAILABLE = b"4.7.1 Service unavailable - try again later"
UNAVAILABLE_FOREVER = b"5.5.0 Service unavailable"
MISCONFIGURED = b"4.3.5 Server configuration problem - try again later"


class Decision(enum.Enum):
    """What is to become of a message."""

    REJECT = "reject"
    DISCARD = "discard"
    HOLD = "hold"


@frozen(slots=True)
class Verdict:
    """
    What filters have decided about a message.

    @ivar decision: what is to be done.
    @ivar permanent: of a refusal: whether trying again is pointless.
    @ivar text: of a refusal: why, with the enhanced status code in front if there is one.
    @ivar event: what the filter was told when it decided; set by the session.
    """

    decision: Decision
    permanent: bool = False
    text: bytes = b""
    event: Event = Event.CONNECT


class State(enum.Enum):
    """How a conversation stands."""

    NEW = "new"
    TALKING = "talking"
    SATISFIED = "satisfied"
    OVER = "over"


class Conversation(TypingProtocol):
    """What is asked of a connection: see L{MilterConnection<qmqpd_tx.milter.connection.MilterConnection>}."""

    def send(self, data: bytes, timeout: float) -> Deferred[None] | None: ...
    def receive(self, timeout: float) -> Deferred[bytes]: ...
    def close(self, data: bytes = b"") -> None: ...
    def drop(self) -> None: ...


Connect = Callable[[FilterSettings], "Deferred[Conversation]"]
"""Opens a connection to a filter within its time limit."""

Apply = Callable[[Change], Awaitable[Verdict | None]]
"""Makes a change; gives a verdict when that decides about the message."""


class Filter:
    """
    One filter, for one message.

    @ivar state: how far it is.
    @ivar skipping: whether it wants no more headers, or no more of the body.
    """

    __slots__ = (
        "_agreed",
        "_connect",
        "_connecting",
        "_connection",
        "_own",
        "_queue_id",
        "_replies",
        "_settings",
        "skipping",
        "state",
    )

    def __init__(
        self, own: FilterSettings, settings: MilterSettings, connect: Connect, queue_id: QueueID
    ) -> None:
        """
        @param own: this filter's settings.
        @param settings: those of all filters.
        @param connect: opens a connection.
        @param queue_id: for the log.
        """
        self.state = State.NEW
        self.skipping = False
        self._own = own
        self._settings = settings
        self._connect = connect
        self._queue_id = queue_id
        self._connecting: Deferred[Conversation] | None = None
        self._connection: Conversation | None = None
        self._agreed: Negotiated | None = None
        self._replies = 0

    @property
    def name(self) -> str:
        """For the log."""
        return self._own.name

    def wants(self, event: Event) -> bool:
        """
        @return: whether the filter is to be told of such events.
        """
        if self.state is not State.TALKING or self._agreed is None:
            return False
        step = protocol.LEFT_OUT.get(event)
        return step is None or not self._agreed.steps & step

    @property
    def leading_space(self) -> bool:
        """Whether the filter sees header values with all their white space, and gives them so."""
        return self._agreed is not None and bool(self._agreed.steps & Step.LEADING_SPACE)

    async def open(self) -> Verdict | None:
        """
        Connect and negotiate.
        """
        own = self._own
        try:
            self._connecting = self._connect(own)
            self._connection = connection = await self._connecting
        except (ConnectError, CancelledError, OSError, ValueError) as error:
            # The last is for what cannot be the name of a host.
            return self._unreachable(error)
        finally:
            self._connecting = None
        try:
            await self._send(protocol.offer(own.version, own.steps), own.connect_timeout)
            answer = await connection.receive(own.connect_timeout)
            self._agreed = protocol.decode_negotiation(answer, own.version, own.steps)
        except MilterError as error:
            return self._failed(f"{error} (in the initial handshake)")
        self.state = State.TALKING
        return None

    async def tell(
        self,
        event: Event,
        data: bytes,
        macros: Mapping[bytes, bytes],
        apply: Apply | None = None,
    ) -> Verdict | None:
        """
        Tell of an event that it L{wants}, and wait for what it says.

        @param data: the event's arguments.
        @param macros: the values of all macros that have one now.
        @param apply: makes changes; only for the end of the message.
        @return: what it decides; L{None}: go on.
        """
        own = self._own
        timeout = own.content_timeout if event in _CONTENT else own.command_timeout
        try:
            await self._send(self._macros(event, macros) + protocol.packet(event, data), timeout)
            if self._agreed is not None and self._agreed.steps & protocol.SILENT.get(event, 0):
                return None
            return await self._answers(event, timeout, apply)
        except MilterError as error:
            return self._failed(f"can't read {SYMBOLS[event]} reply: {error}")

    def end(self) -> None:
        """
        The message is done with, one way or the other. Safe to call twice, and at any time.
        """
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            if self.state in (State.TALKING, State.SATISFIED):
                connection.close(protocol.packet(Event.QUIT))
            else:
                connection.drop()
        self.state = State.OVER

    # --- talking --------------------------------------------------------------------------------------

    async def _send(self, data: bytes, timeout: float) -> None:
        connection = self._connection
        if connection is None:
            raise MilterError("the conversation was given up")
        await ready(connection.send(data, timeout))

    def _macros(self, event: Event, values: Mapping[bytes, bytes]) -> bytes:
        stage = STAGES.get(event)
        if stage is None or self._agreed is None:
            return b""
        names = self._agreed.macros.get(stage)
        if names is None:
            names = self._settings.macros.get(stage, ())
        defaults = self._settings.defaults
        known = []
        for name in names:
            value = values.get(name)
            if value is None:
                value = defaults.get(name)
            if value is not None:
                known.append((name, value))
        return protocol.macros(event, known)

    async def _answers(self, event: Event, timeout: float, apply: Apply | None) -> Verdict | None:
        """
        Take replies until the one that ends the event.
        """
        held = False
        body = _Body.NONE
        while True:
            connection = self._connection
            if connection is None:
                raise MilterError("the conversation was given up")
            packet = await connection.receive(timeout)
            reply = decode_reply(packet)
            if not isinstance(reply, ReplaceBody) or not reply.data:
                # The pieces of a body are bounded by the size of the message.
                self._replies += 1
                if self._replies > self._settings.reply_limit:
                    raise MilterError(f"more than {self._settings.reply_limit} replies for one message")
            if body is _Body.BEGUN and not isinstance(reply, ReplaceBody | Answer):
                body = _Body.ENDED
            if reply is Answer.PROGRESS:
                continue
            if isinstance(reply, Quarantine):
                held = True
                continue
            if reply is None or (not isinstance(reply, Answer | ReplyCode) and apply is None):
                symbol = REPLY_SYMBOLS.get(packet[:1], "(unknown filter reply)")
                raise MilterError(f"unexpected filter response {symbol}")
            if isinstance(reply, Answer | ReplyCode):
                verdict = self._decide(event, reply)
                if held and (verdict is None or verdict.decision is Decision.HOLD):
                    return Verdict(Decision.HOLD)
                return verdict
            if isinstance(reply, ReplaceBody):
                if body is _Body.ENDED:
                    return self._misconfigured("body replacement requests can't be mixed with other requests")
                body = _Body.BEGUN
            assert apply is not None
            verdict = await apply(reply)
            if verdict is not None:
                return verdict

    def _decide(self, event: Event, reply: Reply) -> Verdict | None:
        match reply:
            case Answer.CONTINUE:
                return None
            case Answer.SKIP:
                self.skipping = event in (Event.BODY, Event.HEADER)
                return None
            case Answer.ACCEPT:
                self._satisfied(event)
                return None
            case Answer.REJECT:
                self._satisfied(event)
                return Verdict(Decision.REJECT, True, REJECTED)
            case Answer.TEMPFAIL:
                self._satisfied(event)
                return Verdict(Decision.REJECT, False, UNAVAILABLE)
            case Answer.DISCARD:
                if event in (Event.CONNECT, Event.HELO):
                    self._warn("milter {milter}: DISCARD action is not allowed for connect or helo")
                    return None
                self._satisfied(event)
                return Verdict(Decision.DISCARD)
            case Answer.SHUTDOWN:
                # There is no client whose connection could be closed; never may the message get lost.
                self.state = State.OVER
                return Verdict(Decision.REJECT, False, UNAVAILABLE)
            case ReplyCode(text):
                refusal = reply_text(text)
                if refusal is None:
                    return self._misconfigured(f"malformed reply: {text[:200].decode('latin-1')}")
                self._satisfied(event)
                return Verdict(Decision.REJECT, *refusal)
            case _:
                raise MilterError("unexpected filter response SMFIR_CONN_FAIL")

    def _satisfied(self, event: Event) -> None:
        # What a filter says of a client ends the conversation, which is about this client only.
        if event in (Event.CONNECT, Event.HELO):
            self.state = State.OVER
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        else:
            self.state = State.SATISFIED

    # --- failing --------------------------------------------------------------------------------------

    def _warn(self, text: str, **fields: object) -> None:
        log.warn(text, queue_id=self._queue_id, milter=self._own.name, **fields)

    def _unreachable(self, error: BaseException) -> Verdict | None:
        reason = "Connection timed out" if isinstance(error, TimeoutError) else str(error)
        self._warn("connect to Milter service {milter}: {reason}", reason=reason)
        return self._default()

    def _failed(self, reason: str) -> Verdict | None:
        self._warn("milter {milter}: {reason}", reason=reason)
        return self._default()

    def _misconfigured(self, reason: str) -> Verdict | None:
        self._warn("milter {milter}: {reason}", reason=reason)
        verdict = self._default()
        if verdict is not None and verdict.decision is Decision.REJECT:
            return Verdict(Decision.REJECT, False, MISCONFIGURED)
        return verdict

    def _default(self) -> Verdict | None:
        """
        The filter failed: from now on it is not there.
        """
        self.state = State.OVER
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
        match self._own.default_action:
            case DefaultAction.ACCEPT:
                return None
            case DefaultAction.QUARANTINE:
                return Verdict(Decision.HOLD)
            case DefaultAction.REJECT:
                return Verdict(Decision.REJECT, True, UNAVAILABLE_FOREVER)
            case DefaultAction.TEMPFAIL:
                return Verdict(Decision.REJECT, False, UNAVAILABLE)


class _Body(enum.Enum):
    """How far the replacement of a body is."""

    NONE = "none"
    BEGUN = "begun"
    ENDED = "ended"


_CONTENT = frozenset((Event.HEADER, Event.END_OF_HEADERS, Event.BODY, Event.END_OF_MESSAGE))
