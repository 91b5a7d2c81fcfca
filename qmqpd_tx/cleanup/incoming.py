"""
One message on its way into the queue.

Takes content in any chunking, sender, recipients; gives a queue file and its id. Content is written as it
arrives; of the rest only the first recipient is held. Durable when the Deferred of L{IncomingMessage.finish}
gives the queue id; fails with L{IntakeError<qmqpd_tx.interfaces.IntakeError>}, and then nothing is left in
the queue. Answers to cleanup(8).

Each call is a step. A step that has to wait, for a table or a disk, gives a Deferred; steps that are called
meanwhile wait for their turn. Nearly all steps of nearly all messages do not wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address.rewrite import CONTROLS
from qmqpd_tx.address.smtputf8 import BOUNCE, QMQPD
from qmqpd_tx.cleanup.chain import Chain
from qmqpd_tx.cleanup.content import Content
from qmqpd_tx.cleanup.dates import MailDate
from qmqpd_tx.cleanup.errors import ABANDONED, NOT_WRITTEN, intake_error, tell
from qmqpd_tx.cleanup.filtered import filtered
from qmqpd_tx.cleanup.milters import MilterStage
from qmqpd_tx.cleanup.recipients import Addressee, Addressees
from qmqpd_tx.cleanup.remarks import Remarks
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.cleanup.turns import Turns
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IIncomingMessage,
    IMessageWriter,
    IntakeError,
    IStoredMessage,
    TableError,
    Treatment,
)
from qmqpd_tx.message import CONTENT_FILTER, SMTPUTF8, ClientInfo, Envelope, Queue, QueueID

log = Logger(namespace="qmqpd_tx.cleanup")


@implementer(IIncomingMessage)
class IncomingMessage:
    """
    See L{IIncomingMessage}.

    @ivar queue_id: its name in the queue.
    """

    __slots__ = (
        "_addressees",
        "_arrival",
        "_client",
        "_closed",
        "_content",
        "_copies",
        "_done",
        "_envelope",
        "_filter_remarks",
        "_first",
        "_given_sender",
        "_last_recipient",
        "_maps",
        "_recipients",
        "_result",
        "_sender",
        "_settings",
        "_shown",
        "_stage",
        "_treatment",
        "_turns",
        "_verdict",
        "_verp",
        "_writer",
        "queue_id",
    )

    def __init__(
        self,
        settings: Settings,
        treatment: Treatment,
        writer: IMessageWriter,
        client: ClientInfo | None,
        arrival_time: float,
        date: MailDate,
        verp_delimiters: bytes | None,
        done: Callable[[IStoredMessage], None],
    ) -> None:
        """
        @param settings: what the configuration says.
        @param treatment: what is to be done to it.
        @param writer: where it goes.
        @param client: who brought it; L{None} for mail made here.
        @param arrival_time: POSIX seconds.
        @param date: writes dates.
        @param verp_delimiters: as in L{Envelope<qmqpd_tx.message.Envelope>}.
        @param done: takes over the stored message, after the queue id was given.
        """
        self.queue_id: QueueID = writer.queue_id
        self._settings = settings
        self._treatment = treatment
        self._client = client
        self._arrival = arrival_time
        self._verp = verp_delimiters
        self._done = done
        self._turns = Turns()
        self._result: Deferred[QueueID] | None = None
        self._verdict = verdict = Verdict()
        self._maps = maps = settings.maps.variant(treatment.mappings, treatment.remote_domain)
        self._addressees = Addressees(maps, self.queue_id, copies=client is not None)
        self._stage: MilterStage | None = None
        self._filter_remarks: Remarks | None = None
        self._shown: tuple[bytes | None, bytes | None] = (None, None)
        if treatment.milters and settings.milters.active:
            self._stage, self._filter_remarks = filtered(writer, settings, maps, self.queue_id, client)
            writer = self._stage
        self._writer = writer
        self._content = Content(settings, treatment, maps, verdict, self.queue_id, client, arrival_time, date)
        self._closed = False
        self._given_sender: bytes | None = None
        self._sender: bytes | None = None
        self._recipients = 0
        self._last_recipient: bytes | None = None
        self._copies: Sequence[Addressee] = ()
        self._first: tuple[bytes, Sequence[Addressee]] | None = None
        self._envelope = False

    def content(self, data: bytes) -> Deferred[None] | None:
        """See L{IIncomingMessage.content}."""
        return self._turns.take(self._take_content(data), self._failed) if data else None

    def sender(self, address: bytes, verp_delimiters: bytes | None = None) -> Deferred[None] | None:
        """See L{IIncomingMessage.sender}."""
        return self._turns.take(self._take_sender(address, verp_delimiters), self._failed)

    def recipient(self, address: bytes, silent: bool = False) -> Deferred[None] | None:
        """See L{IIncomingMessage.recipient}."""
        return self._turns.take(self._take_recipient(address, silent), self._failed)

    def finish(self) -> Deferred[QueueID]:
        """See L{IIncomingMessage.finish}."""
        result: Deferred[QueueID] = Deferred(lambda _: self.abort())
        self._result = result
        self._turns.take(self._end(), self._failed)
        return result

    def abort(self) -> None:
        """See L{IIncomingMessage.abort}."""
        if not self._closed:
            self._fail(IntakeError(False, *ABANDONED))

    # --- content and envelope ----------------------------------------------------------------------

    async def _take_content(self, data: bytes) -> None:
        if not self._verdict.over:
            waiting = self._write(await self._content.take(data))
            if waiting is not None:
                await waiting
            if self._verdict.over:
                # What was written is not needed any more.
                self._writer.abort()

    async def _take_sender(self, address: bytes, verp_delimiters: bytes | None) -> None:
        self._given_sender = address
        verdict, maps = self._verdict, self._maps
        if verdict.over:
            return
        waiting = self._write(await self._content.end())
        if waiting is not None:
            await waiting
        if verdict.over:
            self._writer.abort()
            return
        if verp_delimiters is not None:
            self._verp = verp_delimiters
        if CONTROLS.search(address):
            self._refuse_controls(address, "5.1.7", "sender")
            return
        sender = maps.senders.get(address)
        self._sender = sender = await maps.sender(address, self.queue_id) if sender is None else sender
        if maps.sender_bcc is not None:
            self._copies = await self._addressees.of_sender(sender)

    async def _take_recipient(self, address: bytes, silent: bool) -> None:
        self._last_recipient = address
        if self._verdict.over:
            return
        if CONTROLS.search(address):
            self._refuse_controls(address, "5.1.3", "recipient")
            return
        self._recipients += 1
        if self._recipients == 1:
            if self._sender is None:
                await self._take_sender(b"", None)
            # The Received header names a single recipient, so it can only be made later.
            self._first = (address, await self._meant(address, silent))
            return
        if not self._envelope:
            await self._write_envelope()
        await self._write_recipients(address, await self._meant(address, silent))

    def _meant(self, address: bytes, silent: bool) -> Awaitable[Sequence[Addressee]]:
        addressees = self._addressees
        return addressees.copy(address) if silent else addressees.of_recipient(address)

    def _refuse_controls(self, address: bytes, dsn: str, what: str) -> None:
        shown = ascii(address[:200].decode("latin-1"))[1:-1]
        self._fail(IntakeError(True, dsn, f"Error: control character in {what} address <{shown}>"))

    async def _write_envelope(self) -> None:
        if self._sender is None:
            await self._take_sender(b"", None)
        if self._verdict.over:
            return
        sender = self._sender or b""
        recipient = self._first[0] if self._recipients == 1 and self._first is not None else None
        top = self._content.top(recipient, sender)
        if self._verdict.over:
            self._writer.abort()
            return
        envelope = Envelope(
            sender=sender,
            arrival_time=self._arrival,
            client=self._client,
            message_id=self._content.message_id,
            eight_bit=self._content.eight_bit,
            verp_delimiters=self._verp,
            attributes=self._attributes(),
        )
        self._envelope = True
        self._writer.envelope(envelope, top)
        if self._copies:
            await self._write_recipients(None, self._copies)
        if self._first is not None:
            await self._write_recipients(*self._first)

    def _attributes(self) -> dict[str, bytes]:
        attributes = {}
        verdict = self._verdict
        content_filter = verdict.content_filter or self._treatment.content_filter.encode()
        if content_filter and not verdict.redirect:
            attributes[CONTENT_FILTER] = content_filter
        origin = BOUNCE if self._client is None else QMQPD
        mark = self._settings.detection.mark(origin, self._content.eight_bit_headers, self._treatment.about)
        if mark is not None:
            attributes[SMTPUTF8] = mark
        return attributes

    async def _write_recipients(self, heard: bytes | None, addressees: Sequence[Addressee]) -> None:
        """
        @param heard: the address as mail filters are to hear of it; L{None}: they are not.
        @param addressees: whom it means.
        """
        if self._verdict.redirect:
            # All of them go to one address, at the end.
            return
        if self._stage is not None and addressees:
            waiting = self._written(self._stage.announce(heard and self._maps.rewriter.rewrite(heard)))
            if waiting is not None:
                await waiting
        for one in addressees:
            if not self._verdict.over:
                waiting = self._written(self._writer.recipient(*one))
                if waiting is not None:
                    await waiting

    # --- storing -----------------------------------------------------------------------------------

    def _write(self, data: bytes) -> Deferred[None] | None:
        return self._written(self._writer.write(data)) if data and not self._verdict.over else None

    def _written(self, waiting: Deferred[None] | None) -> Deferred[None] | None:
        """
        @param waiting: what the writer has given.
        @return: L{None}, or a Deferred that fires when more can be written; it never fails.
        """
        self._check_size()
        return waiting if waiting is None else waiting.addErrback(self._not_written)

    def _not_written(self, failure: Failure) -> None:
        self._fail(intake_error(failure.value))

    def _check_size(self) -> None:
        limit = self._settings.size_limit
        if limit and self._writer.size > limit and self._client is not None and not self._verdict.over:
            log.warn("{queue_id}: queue file size limit exceeded", queue_id=self.queue_id)
            self._fail(IntakeError(True, "5.3.4", "Error: message too large"))

    # --- the end -----------------------------------------------------------------------------------

    async def _end(self) -> None:
        verdict = self._verdict
        if not verdict.over and self._sender is None:
            await self._take_sender(b"", None)
        if not verdict.over and not self._recipients:
            self._fail(IntakeError(True, "5.1.0", "Error: no recipients specified"))
        if not verdict.over and not self._envelope:
            await self._write_envelope()
        if not verdict.over and (verdict.bcc or self._maps.always_bcc):
            await self._write_recipients(None, await self._addressees.copies(tuple(verdict.bcc)))
        if verdict.redirect and not verdict.over:
            waiting = self._written(self._writer.recipient(verdict.redirect, self._last_recipient or b""))
            if waiting is not None:
                await waiting
        self._check_size()
        if self._content.remarks or self._filter_remarks is not None:
            self._shown = await self._names()
            self._content.remarks.tell(*self._shown)
        if verdict.error is not None:
            self._answer(verdict.error)
        elif verdict.discard:
            self._closed = True
            self._answer(None)
        else:
            writer = self._writer
            if self._stage is not None and verdict.passed:
                self._stage.pass_by()
            committed: Deferred[IStoredMessage | None] = (
                writer.commit(Queue.HOLD) if verdict.hold else writer.commit()
            )
            committed.addCallbacks(self._committed, self._not_committed)

    async def _names(self) -> tuple[bytes | None, bytes | None]:
        """Sender and last recipient for the log, mapped even if the message is refused."""
        sender, recipient, maps = self._sender, self._last_recipient, self._maps
        if sender is None and self._given_sender is not None:
            sender = await self._mapped(maps.envelope_sender, self._given_sender)
        return sender, recipient and await self._mapped(maps.envelope_recipient, recipient)

    async def _mapped(self, chain: Chain, address: bytes) -> bytes:
        complete = self._maps.rewriter.rewrite(address)
        try:
            return complete if CONTROLS.search(address) else await chain.apply(complete, self.queue_id)
        except TableError:
            return complete

    def _answer(self, error: IntakeError | None) -> None:
        """
        Tell the client, once.
        """
        result, self._result = self._result, None
        if result is None or result.called:
            return
        if error is None:
            result.callback(self.queue_id)
        else:
            result.errback(error)

    def _committed(self, stored: IStoredMessage | None) -> None:
        self._closed = True
        if self._filter_remarks is not None:
            self._filter_remarks.tell(*self._shown)
        # The client's answer first: what the queue manager does next may take its time.
        self._answer(None)
        if stored is None:
            return
        if self._verdict.hold or (self._stage is not None and self._stage.held):
            # Nobody is to hear of it: what is on hold stays there.
            stored.close()
        else:
            self._done(stored)

    def _not_committed(self, failure: Failure) -> None:
        if self._filter_remarks is not None:
            self._filter_remarks.tell(*self._shown)
        error = intake_error(failure.value)
        # Who refuses a message has said why.
        if error is not failure.value and error.text == NOT_WRITTEN[1]:
            log.warn(
                "{queue_id}: write queue file: {reason}", queue_id=self.queue_id, reason=str(failure.value)
            )
        self._answer(error)

    # --- failure -----------------------------------------------------------------------------------

    def _failed(self, failure: Failure) -> None:
        """
        A step has failed.
        """
        error = failure.value
        if isinstance(error, IntakeError):
            self._fail(error)
            return
        if not isinstance(error, TableError):
            log.failure("{queue_id}: accepting a message", failure, queue_id=self.queue_id)
        elif not self._verdict.over:
            # A table could not say what has to be known.
            tell(error, self.queue_id)
        self._fail(IntakeError(False, *NOT_WRITTEN))

    def _fail(self, error: IntakeError) -> None:
        self._verdict.reject(error)
        self._writer.abort()
        self._answer(self._verdict.error)
