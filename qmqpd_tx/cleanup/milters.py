"""
Mail filters (milters) between a message and the queue.

Takes a message as the real writer would, keeps it, and with L{MilterStage.commit} asks the filters; then
writes what they have left of it, and commits that: in C{hold}, if a filter or a check says so. Gives L{None}
for a message that is accepted and thrown away. Nothing is durable before the real writer's commit. Fails with
L{IntakeError<qmqpd_tx.interfaces.IntakeError>} when the message is refused, and with what the real writer
fails with. Answers to cleanup(8) with C{non_smtpd_milters}, watched in a running Postfix.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address.smtputf8 import HEADERS
from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.milter_changes import Changes, CheckHeader, CompleteSender, Expand
from qmqpd_tx.cleanup.milter_decisions import held_unseen, log_decision, refusal, reported
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.eager import eager, ready
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import CommitAbandoned, IConfig, IMessageWriter, IStoredMessage
from qmqpd_tx.message import CONTENT_FILTER, SMTPUTF8, ClientInfo, Envelope, Queue, QueueID
from qmqpd_tx.milter import (
    Change,
    Connect,
    ContentKeeper,
    Decision,
    Draft,
    InThread,
    Key,
    MilterSession,
    MilterSettings,
    Visitor,
    by_everything,
    reactor_connect,
)
from qmqpd_tx.milter import Verdict as FilterVerdict

log = Logger(namespace="qmqpd_tx.cleanup")

_RECEIVED = re.compile(rb"(?i:received):[^\n]*\n(?:[ \t][^\n]*\n)*")


@frozen(kw_only=True)
class Milters:
    """
    The filters of one configuration.

    @ivar settings: which filters there are.
    @ivar connect: opens connections to them.
    @ivar in_thread: does what waits for a disk; L{None}: all is kept in memory.
    @ivar directory: for files of large messages that wait for filters.
    @ivar buffer_limit: how much of a message waits in memory, bytes.
    @ivar header_limit: the longest header section that filters are shown, bytes.
    @ivar size_limit: how long a body may become, bytes; 0: any length.
    @ivar show_client: whether filters are told who brought a message; else it was localhost.
    """

    settings: MilterSettings
    connect: Connect
    in_thread: InThread | None = None
    directory: str = ""
    buffer_limit: int = 262144
    header_limit: int = 1048576
    size_limit: int = 0
    show_client: bool = False
    active: bool = field(init=False)
    """Whether there are any filters: if not, no message needs a L{stage}."""

    @active.default
    def _is_active(self) -> bool:
        return bool(self.settings.filters)

    @classmethod
    def from_config(
        cls,
        config: IConfig,
        reactor: Any,
        in_thread: InThread | None = None,
        connect: Connect | None = None,
    ) -> Milters:
        """
        @param config: the configuration.
        @param reactor: for connections and time.
        @param in_thread: as C{deferToThread}.
        @param connect: opens connections; by default with the reactor.
        @raise ConfigError: it cannot be used.
        """
        settings = MilterSettings.from_config(config)
        return cls(
            settings=settings,
            connect=connect or reactor_connect(reactor, settings.packet_limit),
            in_thread=in_thread,
            directory=config.string("queue_directory"),
            buffer_limit=config.integer("milter_buffer_limit"),
            header_limit=config.integer("milter_header_section_limit"),
            size_limit=config.integer("message_size_limit"),
            show_client=config.boolean("milter_show_client"),
        )

    def stage(
        self,
        writer: IMessageWriter,
        *,
        client: ClientInfo | None,
        complete: CompleteSender,
        copies: Expand,
        expand: Expand,
        check: CheckHeader | None = None,
        verdict: Verdict | None = None,
        key: Key = by_everything,
    ) -> MilterStage:
        """
        @param writer: the real writer of a message.
        @param client: who brought it; L{None} for mail made here.
        @param complete: for a sender that a filter gives.
        @param copies: who gets a copy because of that sender.
        @param expand: for a recipient that a filter adds.
        @param check: looks at headers that filters add or change.
        @param verdict: what C{check} writes into: one for itself.
        @param key: tells recipients apart.
        @return: what to write to instead.
        """
        return MilterStage(self, writer, client, complete, copies, expand, check, verdict or Verdict(), key)


class StageState(enum.Enum):
    """How far a message is."""

    OPEN = "open"
    FILTERING = "filtering"
    COMMITTING = "committing"
    DONE = "done"


@implementer(IMessageWriter)
class MilterStage:
    """
    One message on its way through the filters. See L{IMessageWriter}, and L{announce}.

    @ivar queue_id: its name.
    @ivar held: whether it was committed into C{hold}: nobody is to hear of it.
    """

    def __init__(
        self,
        milters: Milters,
        writer: IMessageWriter,
        client: ClientInfo | None,
        complete: CompleteSender,
        copies: Expand,
        expand: Expand,
        check: CheckHeader | None,
        verdict: Verdict,
        key: Key,
    ) -> None:
        self.queue_id: QueueID = writer.queue_id
        self._milters = milters
        self._writer = writer
        self._client = client
        self._expand = expand
        self._verdict = verdict
        self._draft = Draft(self._keeper, milters.header_limit, key)
        self._changes = Changes(
            queue_id=writer.queue_id,
            draft=self._draft,
            complete=complete,
            copies=copies,
            expand=expand,
            check=check,
            header_limit=milters.header_limit,
            size_limit=milters.size_limit,
        )
        self._passed = False
        self.held = False
        self._state = StageState.OPEN
        self._envelope: Envelope | None = None
        self._session: MilterSession | None = None
        self._result: Deferred[IStoredMessage | None] | None = None
        self._last_recipient: bytes | None = None

    @property
    def size(self) -> int:
        """See L{IMessageWriter}."""
        base: int = self._writer.size
        return base + self._draft.size

    def write(self, data: bytes) -> Deferred[None] | None:
        """See L{IMessageWriter.write}."""
        return self._draft.write(data) if self._state is StageState.OPEN else None

    def envelope(self, envelope: Envelope, top: bytes) -> None:
        """
        See L{IMessageWriter.envelope}. A Received header at the start of C{top} is not shown to filters.
        """
        if self._state is StageState.OPEN:
            received = _RECEIVED.match(top)
            self._envelope = envelope
            self._draft.seal(top, 0 if received is None else received.end())

    def announce(self, address: bytes | None) -> Deferred[None] | None:
        """
        Say what filters are to hear of the recipients that follow, up to the next announcement: the address
        that the client gave, complete, but not yet expanded. Without announcements they hear of every
        recipient.

        @param address: in internal form; L{None}: filters do not hear of them.
        @return: as L{write}.
        """
        return self._draft.announce(address) if self._state is StageState.OPEN else None

    def recipient(self, address: bytes, original: bytes, silent: bool = False) -> Deferred[None] | None:
        """See L{IMessageWriter.recipient}."""
        return self._draft.recipient(address, original, silent) if self._state is StageState.OPEN else None

    def pass_by(self) -> None:
        """
        Ask no filter after all (PASS).
        """
        self._passed = True

    def commit(self, queue: Queue = Queue.INCOMING) -> Deferred[IStoredMessage | None]:
        """
        See L{IMessageWriter.commit}; gives L{None} when the message is to be thrown away.
        """
        if self._state is not StageState.OPEN:
            return fail(CommitAbandoned(f"{self.queue_id}: commit: the message was aborted"))
        result: Deferred[IStoredMessage | None] = Deferred(lambda _: self.abort())
        self._result = result
        self._state = StageState.FILTERING
        eager(self._filter(queue), self._succeeded, self._failed)
        return result

    def abort(self) -> None:
        """See L{IMessageWriter.abort}."""
        if self._state is StageState.DONE:
            return
        self._close()
        self._writer.abort()
        result, self._result = self._result, None
        if result is not None:
            result.errback(CommitAbandoned(f"{self.queue_id}: commit: abandoned"))

    # --- the end --------------------------------------------------------------------------------------

    def _close(self) -> None:
        self._state = StageState.DONE
        if self._session is not None:
            self._session.end()
        self._draft.close()

    def _succeeded(self, stored: IStoredMessage | None) -> None:
        self._close()
        result, self._result = self._result, None
        if result is not None:
            result.callback(stored)
        elif stored is not None:
            stored.close()

    def _failed(self, failure: Failure) -> None:
        # An abort has said what there is to say.
        if self._state is StageState.DONE:
            return
        self._close()
        self._writer.abort()
        result, self._result = self._result, None
        if result is not None:
            result.errback(reported(failure, self.queue_id))

    def _keeper(self) -> ContentKeeper:
        milters = self._milters
        return ContentKeeper(milters.buffer_limit, milters.directory, milters.in_thread)

    # --- filtering ------------------------------------------------------------------------------------

    async def _filter(self, queue: Queue) -> IStoredMessage | None:
        if self._passed:
            hold = False
        elif self._draft.oversized:
            hold = held_unseen(self._milters.settings, self._milters.header_limit, self.queue_id)
        else:
            client = self._client
            visitor = Visitor()
            if client is not None and self._milters.show_client:
                visitor = Visitor(
                    client.name.encode("ascii", "replace"), client.address.encode("ascii", "replace")
                )
            milters = self._milters
            self._session = session = MilterSession(milters.settings, milters.connect, visitor, self)
            decided = await session.run()
            if self._state is not StageState.FILTERING:
                raise CommitAbandoned(f"{self.queue_id}: commit: abandoned")
            hold = decided is not None
            if decided is not None:
                sender = self._envelope.sender if self._envelope is not None else b""
                log_decision(decided, self.queue_id, client, sender, self._last_recipient)
                if decided.decision is Decision.REJECT:
                    raise refusal(decided, self.queue_id)
                if decided.decision is Decision.DISCARD:
                    self._writer.abort()
                    return None
        verdict = self._verdict
        if verdict.error is not None:
            raise verdict.error
        if verdict.discard:
            self._writer.abort()
            return None
        self.held = hold or verdict.hold or queue is Queue.HOLD
        return await self._store(Queue.HOLD if self.held else queue)

    async def _store(self, queue: Queue) -> IStoredMessage | None:
        """
        Write what is left of the message, and commit it.
        """
        draft, writer, envelope, verdict = self._draft, self._writer, self._envelope, self._verdict
        assert envelope is not None
        if verdict.redirect:
            draft.redirect((one.address, one.original) for one in await self._expand(verdict.redirect))
        for address in verdict.bcc:
            for one in await self._expand(address):
                draft.add_recipient(one.address, one.original, True)
        if verdict.content_filter:
            attributes = {**envelope.attributes, CONTENT_FILTER: verdict.content_filter}
            envelope = evolve(envelope, attributes=attributes)
        if self._changes.sender is not None:
            envelope = evolve(envelope, sender=self._changes.sender)
        if draft.eight_bit and not envelope.eight_bit:
            envelope = evolve(envelope, eight_bit=True)
        if self._changes.eight_bit_headers and SMTPUTF8 in envelope.attributes:
            envelope = evolve(envelope, attributes={**envelope.attributes, SMTPUTF8: HEADERS})
        async for piece in draft.rest():
            await ready(writer.write(piece))
        writer.envelope(envelope, draft.section())
        count = 0
        async for address, original, silent in draft.recipients():
            count += 1
            await ready(writer.recipient(address, original, silent))
        if self._state is not StageState.FILTERING:
            raise CommitAbandoned(f"{self.queue_id}: commit: abandoned")
        if not count:
            log.info("{queue_id}: removed: mail filters have left no recipient", queue_id=self.queue_id)
            writer.abort()
            return None
        self._state = StageState.COMMITTING
        stored: IStoredMessage = await writer.commit(queue)
        return stored

    # --- what filters see and do: FilteredMessage -----------------------------------------------------

    def shown_sender(self) -> bytes:
        """See L{FilteredMessage<qmqpd_tx.milter.FilteredMessage>}, as for the methods that follow."""
        return b"" if self._envelope is None else quote_address(self._envelope.sender)

    async def shown_recipients(self) -> AsyncIterator[bytes]:
        """The recipients, as filters hear of them."""
        async for address in self._draft.heard():
            self._last_recipient = address
            yield quote_address(address)

    def shown_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers but our own."""
        return self._draft.headers.shown()

    def body(self) -> AsyncIterator[bytes]:
        """The body."""
        return self._draft.body()

    async def apply(self, change: Change, leading_space: bool, filter_name: str) -> FilterVerdict | None:
        """Do what a filter wants."""
        return await self._changes.apply(change, leading_space, filter_name)

    def finished(self, properly: bool) -> None:
        """A filter is done."""
        self._draft.replaced(properly)
