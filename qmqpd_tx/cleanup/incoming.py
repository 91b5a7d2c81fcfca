"""
One message on its way into the queue.

Takes content in any chunking, sender, recipients; gives a queue file and its id. Content is written as
it arrives: what is held is the header section (up to C{header_size_limit} bytes; one header of a longer
one) and the first recipient. Durable when the Deferred of L{IncomingMessage.finish} gives the queue id;
fails with L{IntakeError<qmqpd_tx.interfaces.IntakeError>}, and then nothing is left in the queue. Answers
to cleanup(8).

Each call is a step. A step that has to wait, for a table or a disk, gives a Deferred; steps that are called
meanwhile wait for their turn. Nearly all steps of nearly all messages do not wait.

Missing C{Message-Id}, C{Date} and C{From} headers go to the end of the header section, as in Postfix. The
C{From} header needs the sender, which QMQP sends after the content; so a header section without C{From}
is held back and stored with the Received header. If it is too long to be held, the C{From} header comes
right after the Received header instead.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address.rewrite import CONTROLS
from qmqpd_tx.address.smtputf8 import BOUNCE, QMQPD
from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.dates import MailDate
from qmqpd_tx.cleanup.headers import HeaderSection, Part
from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.milters import MilterStage
from qmqpd_tx.cleanup.missing import lacks_from, missing_from, missing_headers
from qmqpd_tx.cleanup.received import received
from qmqpd_tx.cleanup.recipients import Addressee, Addressees
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    CommitAbandoned,
    IIncomingMessage,
    IMessageWriter,
    InsufficientSpace,
    IntakeError,
    IStoredMessage,
    TableError,
    Treatment,
)
from qmqpd_tx.message import CONTENT_FILTER, SMTPUTF8, ClientInfo, Envelope, Queue, QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

NO_SPACE = ("4.3.1", "Error: insufficient system storage")
NOT_WRITTEN = ("4.3.0", "Error: queue file write error")
ABANDONED = ("4.3.0", "Error: the message was given up before it was safe on disk")


def intake_error(error: BaseException | None) -> IntakeError:
    """
    @return: what a client is told about a failure of the queue store.
    """
    if isinstance(error, IntakeError):
        return error
    if isinstance(error, InsufficientSpace):
        return IntakeError(False, *NO_SPACE)
    if isinstance(error, CommitAbandoned):
        return IntakeError(False, *ABANDONED)
    return IntakeError(False, *NOT_WRITTEN)


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
        "_copies",
        "_date",
        "_done",
        "_eight_bit",
        "_eight_bit_headers",
        "_envelope",
        "_first",
        "_first_chunk",
        "_headers",
        "_held",
        "_held_size",
        "_inspector",
        "_last",
        "_last_recipient",
        "_maps",
        "_message_id",
        "_needs_from",
        "_recipients",
        "_result",
        "_sender",
        "_settings",
        "_stage",
        "_treatment",
        "_turn",
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
        self._maps = maps = settings.maps.variant(treatment.mappings, treatment.remote_domain)
        self._addressees = Addressees(maps, self.queue_id, copies=client is not None)
        self._stage: MilterStage | None = None
        if treatment.milters and settings.milters.active:
            self._stage = writer = settings.milters.stage(
                writer, client=client, complete=self._complete_sender, expand=self._expand
            )
        self._writer = writer
        self._client = client
        self._arrival = arrival_time
        self._date = date
        self._verp = verp_delimiters
        self._done = done
        self._verdict = verdict = Verdict()
        self._turn: Deferred[None] | None = None
        self._result: Deferred[QueueID] | None = None
        checks = settings.checks
        self._inspector: Inspector | None = None
        looks = treatment.checks and checks.looks
        if looks or checks.strict:
            self._inspector = Inspector(checks, verdict, self.queue_id, client, looks)
        remote = treatment.remote_domain is not None
        mapped = self._map_header if remote or maps.maps_headers else None
        self._headers = HeaderSection(settings.rules, self._inspector, mapped)
        self._first_chunk = True
        self._held: list[bytes] | None = []
        self._held_size = 0
        self._closed = False
        self._needs_from = False
        self._eight_bit = False
        self._eight_bit_headers = False
        self._last = b""
        self._message_id = b""
        self._sender: bytes | None = None
        self._recipients = 0
        self._last_recipient: bytes | None = None
        self._copies: Sequence[Addressee] = ()
        self._first: tuple[bytes, Sequence[Addressee]] | None = None
        self._envelope = False

    def content(self, data: bytes) -> Deferred[None] | None:
        """See L{IIncomingMessage.content}."""
        return self._step(self._take_content(data)) if data else None

    def sender(self, address: bytes, verp_delimiters: bytes | None = None) -> Deferred[None] | None:
        """See L{IIncomingMessage.sender}."""
        return self._step(self._take_sender(address, verp_delimiters))

    def recipient(self, address: bytes) -> Deferred[None] | None:
        """See L{IIncomingMessage.recipient}."""
        return self._step(self._take_recipient(address))

    def finish(self) -> Deferred[QueueID]:
        """See L{IIncomingMessage.finish}."""
        result: Deferred[QueueID] = Deferred(lambda _: self.abort())
        self._result = result
        self._step(self._end())
        return result

    def abort(self) -> None:
        """See L{IIncomingMessage.abort}."""
        if not self._closed:
            self._fail(IntakeError(False, *ABANDONED))

    # --- steps -------------------------------------------------------------------------------------

    def _step(self, step: Coroutine[Deferred[Any], Any, None]) -> Deferred[None] | None:
        """
        Take a step, after those before it.

        @return: L{None} when it is done, or a Deferred that fires when it is; it never fails.
        """
        if self._turn is not None:
            step = self._in_turn(self._turn, step)
        try:
            outcome = now_or_later(step)
        except TableError as error:
            self._unknown(error)
            return None
        except IntakeError as error:
            self._fail(error)
            return None
        if outcome is None:
            return None
        caller: Deferred[None] = Deferred()
        turn = self._turn = Deferred()

        def ended(result: Failure | None) -> None:
            if self._turn is turn:
                self._turn = None
            if isinstance(result, Failure):
                self._broken(result)
            turn.callback(None)
            caller.callback(None)

        outcome.addBoth(ended)
        return caller

    @staticmethod
    async def _in_turn(turn: Deferred[None], step: Coroutine[Deferred[Any], Any, None]) -> None:
        try:
            await turn
        except BaseException:
            step.close()
            raise
        await step

    def _broken(self, failure: Failure) -> None:
        """A step that had waited has failed."""
        if isinstance(failure.value, TableError):
            self._unknown(failure.value)
        elif isinstance(failure.value, IntakeError):
            self._fail(failure.value)
        else:
            log.failure("{queue_id}: accepting a message", failure, queue_id=self.queue_id)
            self._fail(IntakeError(False, *NOT_WRITTEN))

    def _unknown(self, error: TableError) -> None:
        """A table could not say what has to be known."""
        if not self._verdict.over:
            log.warn("{queue_id}: {reason}", queue_id=self.queue_id, reason=str(error))
        self._fail(IntakeError(False, *NOT_WRITTEN))

    # --- content -----------------------------------------------------------------------------------

    async def _take_content(self, data: bytes) -> None:
        if self._verdict.over:
            return
        if b"\r" in data:
            # A stray CR is not to pass for a line end anywhere (SMTP smuggling).
            data = data.replace(b"\r", b" ")
        if not self._eight_bit and not data.isascii():
            self._eight_bit = True
        headers = self._headers
        if headers.part is Part.BODY:
            await self._body(self._inspected(data))
            return
        if self._first_chunk:
            self._first_chunk = False
            if not data.startswith(b"\n"):
                end = data.find(b"\n\n") + 1
                if end:
                    section = headers.section(data[:end])
                    if section is not None:
                        await self._end_headers(await joined(section), data[end:])
                        return
        output, body = headers.feed(data)
        header = await joined(output)
        if body is None:
            await self._write_header(header)
        else:
            await self._end_headers(header, body)

    async def _end_headers(self, header: bytes, body: bytes) -> None:
        if self._verdict.over:
            return
        headers = self._headers
        if headers.received + 1 >= self._settings.hopcount_limit:
            log.warn("{queue_id}: message rejected: hopcount exceeded", queue_id=self.queue_id)
            self._fail(IntakeError(True, "5.4.6", "Error: too many hops"))
            return
        self._note_headers(header)
        missing, self._message_id = missing_headers(
            headers, self._settings, self.queue_id, self._arrival, self._date
        )
        self._needs_from = lacks_from(headers)
        body = self._inspected(body)
        held = self._held
        if held is None:
            await self._body(header + missing + body)
        elif self._needs_from:
            held += (header, missing)
            await self._body(body)
        else:
            await self._body(b"".join((*held, header, missing, body)))

    def _note_headers(self, header: bytes) -> None:
        """Remember whether a header is beyond ASCII, where somebody wants to know."""
        if self._settings.detection.origins and not header.isascii():
            self._eight_bit_headers = True

    async def _write_header(self, header: bytes) -> None:
        if not header:
            return
        self._note_headers(header)
        if self._held is None:
            await self._write(header)
            return
        self._held.append(header)
        self._held_size += len(header)
        if self._held_size > self._settings.rules.size_limit:
            # Too much to hold, so a missing From header will have to come first.
            header = b"".join(self._held)
            self._held = None
            await self._write(header)

    def _inspected(self, body: bytes) -> bytes:
        """
        @return: what the checks leave of the next bytes of the body.
        """
        if self._inspector is None or not body:
            return body
        body = self._inspector.body(body)
        self._check_verdict()
        return body

    async def _body(self, data: bytes) -> None:
        if data:
            self._last = data[-1:]
            await self._write(data)

    def _map_header(self, name: bytes, value: bytes) -> bytes | Deferred[bytes | None] | None:
        return now_or_later(self._maps.header(name, value, self.queue_id))

    def _check_verdict(self) -> None:
        """
        Act on what a check has decided.
        """
        if self._verdict.over:
            self._writer.abort()

    async def _write(self, data: bytes) -> None:
        if not self._verdict.over:
            await self._written(self._writer.write(data))

    async def _written(self, waiting: Deferred[None] | None) -> None:
        self._check_size()
        if waiting is not None:
            try:
                await waiting
            except Exception as error:
                self._fail(intake_error(error))

    def _check_size(self) -> None:
        limit = self._settings.size_limit
        if limit and self._client is not None and not self._verdict.over and self._writer.size > limit:
            log.warn("{queue_id}: queue file size limit exceeded", queue_id=self.queue_id)
            self._fail(IntakeError(True, "5.3.4", "Error: message too large"))

    # --- envelope ----------------------------------------------------------------------------------

    async def _take_sender(self, address: bytes, verp_delimiters: bytes | None) -> None:
        if self._verdict.over:
            # Only the log has a use for it.
            self._sender = self._maps.rewriter.rewrite(address)
            return
        if self._headers.part is not Part.BODY:
            output, body = self._headers.close()
            await self._end_headers(await joined(output), body)
        if self._inspector is not None:
            rest = self._inspector.body_end()
            self._check_verdict()
            if rest:
                self._last = rest[-1:]
                await self._write(rest)
            if self._verdict.over:
                self._sender = self._maps.rewriter.rewrite(address)
                return
        if self._last and self._last != b"\n":
            # Every delivery agent ends the last line anyway.
            await self._write(b"\n")
        if verp_delimiters is not None:
            self._verp = verp_delimiters
        if self._refuse_controls(address, "5.1.7", "sender"):
            return
        self._sender = await self._maps.sender(address, self.queue_id)
        self._copies = await self._addressees.of_sender(self._sender)

    async def _take_recipient(self, address: bytes) -> None:
        self._last_recipient = address
        if self._verdict.over or self._refuse_controls(address, "5.1.3", "recipient"):
            return
        self._recipients += 1
        if self._recipients == 1:
            if self._sender is None:
                await self._take_sender(b"", None)
            # The Received header names a single recipient, so it can only be made later.
            self._first = (address, await self._addressees.of_recipient(address))
            return
        if not self._envelope:
            await self._write_envelope()
        await self._write_recipients(address, await self._addressees.of_recipient(address))

    async def _complete_sender(self, address: bytes) -> bytes:
        return await self._maps.sender(address, self.queue_id)

    async def _expand(self, address: bytes) -> list[tuple[bytes, bytes]]:
        return [(one.address, one.original) for one in await self._addressees.of_recipient(address)]

    def _refuse_controls(self, address: bytes, dsn: str, what: str) -> bool:
        if not CONTROLS.search(address):
            return False
        shown = ascii(address[:200].decode("latin-1"))[1:-1]
        self._fail(IntakeError(True, dsn, f"Error: control character in {what} address <{shown}>"))
        return True

    async def _write_envelope(self) -> None:
        if self._sender is None:
            await self._take_sender(b"", None)
        sender = self._sender or b""
        recipient = self._first[0] if self._recipients == 1 and self._first is not None else None
        date = self._date.render(self._arrival)
        top = received(self._settings, self.queue_id, self._client, recipient, date)
        if self._inspector is not None:
            top = self._inspector.header(top)
            self._check_verdict()
        held = self._held
        if self._needs_from:
            origin = missing_from(self._headers, sender)
            top = b"".join((top, *held, origin)) if held is not None else top + origin
        if self._verdict.over:
            return
        attributes = {}
        content_filter = self._verdict.content_filter or self._treatment.content_filter.encode()
        if content_filter and not self._verdict.redirect:
            attributes[CONTENT_FILTER] = content_filter
        self._note_headers(top)
        origin_class = BOUNCE if self._client is None else QMQPD
        mark = self._settings.detection.mark(origin_class, self._eight_bit_headers)
        if mark is not None:
            attributes[SMTPUTF8] = mark
        envelope = Envelope(
            sender=sender,
            arrival_time=self._arrival,
            client=self._client,
            message_id=self._message_id,
            eight_bit=self._eight_bit,
            verp_delimiters=self._verp,
            attributes=attributes,
        )
        self._envelope = True
        self._writer.envelope(envelope, top)
        await self._write_recipients(None, self._copies)
        if self._first is not None:
            await self._write_recipients(*self._first)

    async def _write_recipients(self, heard: bytes | None, addressees: Sequence[Addressee]) -> None:
        """
        @param heard: the address as mail filters are to hear of it; L{None}: they are not.
        @param addressees: whom it means.
        """
        if self._verdict.redirect:
            # All of them go to one address, at the end.
            return
        if self._stage is not None and addressees:
            await self._written(self._stage.announce(heard and self._maps.rewriter.rewrite(heard)))
        for one in addressees:
            if not self._verdict.over:
                await self._written(self._writer.recipient(*one))

    # --- the end -----------------------------------------------------------------------------------

    async def _end(self) -> None:
        verdict = self._verdict
        if not verdict.over and self._sender is None:
            await self._take_sender(b"", None)
        if not verdict.over and not self._recipients:
            self._fail(IntakeError(True, "5.1.0", "Error: no recipients specified"))
        if not verdict.over and not self._envelope:
            await self._write_envelope()
        if not verdict.over:
            await self._write_recipients(None, await self._addressees.copies(tuple(verdict.bcc)))
        if not verdict.over and verdict.redirect:
            await self._written(self._writer.recipient(verdict.redirect, self._last_recipient or b""))
        self._check_size()
        if self._inspector is not None:
            self._tell(self._inspector)
        if verdict.error is not None:
            self._writer.abort()
            self._answer(verdict.error)
        elif verdict.discard:
            self._closed = True
            self._writer.abort()
            self._answer(None)
        else:
            writer = self._writer
            committed: Deferred[IStoredMessage | None] = (
                writer.commit(Queue.HOLD) if verdict.hold else writer.commit()
            )
            committed.addCallbacks(self._committed, self._not_committed)

    def _tell(self, inspector: Inspector) -> None:
        """
        Log what the checks have found.
        """
        sender, recipient = self._sender, self._last_recipient
        inspector.tell(
            None if sender is None else quote_address(sender),
            None if recipient is None else quote_address(self._maps.rewriter.rewrite(recipient)),
        )

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
        # The client's answer first: what the queue manager does next may take its time.
        self._answer(None)
        if stored is None:
            return
        if self._verdict.hold:
            stored.close()
        else:
            self._done(stored)

    def _not_committed(self, failure: Failure) -> None:
        error = intake_error(failure.value)
        if error.text == NOT_WRITTEN[1]:
            log.warn(
                "{queue_id}: write queue file: {reason}", queue_id=self.queue_id, reason=str(failure.value)
            )
        self._answer(error)

    def _fail(self, error: IntakeError) -> None:
        self._verdict.reject(error)
        self._writer.abort()
        self._answer(self._verdict.error)


async def joined(pieces: list[bytes | Deferred[bytes]]) -> bytes:
    """
    @param pieces: parts of a header section, some of which may have to be waited for.
    @return: all of them.
    @raise TableError: a part cannot be made.
    """
    whole: list[bytes] = []
    for index, piece in enumerate(pieces):
        if isinstance(piece, Deferred):
            try:
                piece = await piece
            except BaseException:
                # The first failure says enough.
                for other in pieces[index + 1 :]:
                    if isinstance(other, Deferred):
                        other.addErrback(lambda _: b"")
                raise
        whole.append(piece)
    return b"".join(whole)
