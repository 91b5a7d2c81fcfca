"""
One message on its way into the queue.

Takes content in any chunking, sender, recipients; gives a queue file and its id. Content is written as
it arrives: what is held is the header section (up to C{header_size_limit} bytes; one header of a longer
one) and the first recipient. Durable when the Deferred of L{IncomingMessage.finish} gives the queue id;
fails with L{IntakeError<qmqpd_tx.interfaces.IntakeError>}, and then nothing is left in the queue. Answers
to cleanup(8).

Missing C{Message-Id}, C{Date} and C{From} headers go to the end of the header section, as in Postfix. The
C{From} header needs the sender, which QMQP sends after the content; so a header section without C{From}
is held back and stored with the Received header. If it is too long to be held, the C{From} header comes
right after the Received header instead.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.addresses import CONTROLS
from qmqpd_tx.cleanup.dates import MailDate
from qmqpd_tx.cleanup.headers import HeaderSection, Part
from qmqpd_tx.cleanup.received import received
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    CommitAbandoned,
    IIncomingMessage,
    IMessageWriter,
    InsufficientSpace,
    IntakeError,
    IStoredMessage,
)
from qmqpd_tx.message import ClientInfo, Envelope, QueueID

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
        "_arrival",
        "_client",
        "_closed",
        "_date",
        "_done",
        "_eight_bit",
        "_envelope",
        "_error",
        "_first",
        "_first_chunk",
        "_headers",
        "_held",
        "_held_size",
        "_last",
        "_message_id",
        "_needs_from",
        "_recipients",
        "_seen",
        "_sender",
        "_settings",
        "_verp",
        "_writer",
        "queue_id",
    )

    def __init__(
        self,
        settings: Settings,
        writer: IMessageWriter,
        client: ClientInfo | None,
        arrival_time: float,
        date: MailDate,
        verp_delimiters: bytes | None,
        done: Callable[[IStoredMessage], None],
    ) -> None:
        """
        @param settings: what the configuration says.
        @param writer: where it goes.
        @param client: who brought it; L{None} for mail made here.
        @param arrival_time: POSIX seconds.
        @param date: writes dates.
        @param verp_delimiters: as in L{Envelope<qmqpd_tx.message.Envelope>}.
        @param done: takes over the stored message, after the queue id was given.
        """
        self.queue_id: QueueID = writer.queue_id
        self._settings = settings
        self._writer = writer
        self._client = client
        self._arrival = arrival_time
        self._date = date
        self._verp = verp_delimiters
        self._done = done
        self._headers = HeaderSection(settings.rules)
        self._first_chunk = True
        self._held: list[bytes] | None = []
        self._held_size = 0
        self._closed = False
        self._needs_from = False
        self._eight_bit = False
        self._last = b""
        self._message_id = b""
        self._error: IntakeError | None = None
        self._sender: bytes | None = None
        self._recipients = 0
        self._first: tuple[bytes, bytes] | None = None
        self._seen: set[tuple[bytes, bytes]] | None = None
        self._envelope = False

    def content(self, data: bytes) -> Deferred[None] | None:
        """See L{IIncomingMessage.content}."""
        if self._error is not None or not data:
            return None
        if b"\r" in data:
            # A stray CR is not to pass for a line end anywhere (SMTP smuggling).
            data = data.replace(b"\r", b" ")
        if not self._eight_bit and not data.isascii():
            self._eight_bit = True
        if self._headers.part is Part.BODY:
            return self._body(data)
        if self._first_chunk:
            self._first_chunk = False
            if not data.startswith(b"\n"):
                end = data.find(b"\n\n") + 1
                if end:
                    header = self._headers.section(data[:end])
                    if header is not None:
                        return self._end_headers(header, data[end:])
        header, body = self._headers.feed(data)
        if body is not None:
            return self._end_headers(header, body)
        return self._write_header(header)

    def sender(self, address: bytes, verp_delimiters: bytes | None = None) -> None:
        """See L{IIncomingMessage.sender}."""
        if self._error is not None:
            return
        if self._headers.part is not Part.BODY:
            header, body = self._headers.close()
            self._end_headers(header, body)
        if self._last and self._last != b"\n":
            # Every delivery agent ends the last line anyway.
            self._write(b"\n")
        if verp_delimiters is not None:
            self._verp = verp_delimiters
        if self._refuse_controls(address, "5.1.7", "sender"):
            return
        complete = self._settings.rewriter.rewrite(address)
        self._sender = b"" if complete.lower() in self._settings.own_daemons else complete

    def recipient(self, address: bytes) -> Deferred[None] | None:
        """See L{IIncomingMessage.recipient}."""
        if self._error is not None or self._refuse_controls(address, "5.1.3", "recipient"):
            return None
        self._recipients += 1
        settings = self._settings
        complete = settings.rewriter.rewrite(address) if address else settings.empty_recipient
        if self._recipients == 1:
            # The Received header names a single recipient, so it can only be made later.
            self._first = (complete, address)
            return None
        if self._seen is None:
            self._seen = set()
            if self._first is not None:
                self._seen.add((self._first[0].lower(), self._first[1].lower()))
            self._write_envelope()
        key = (complete.lower(), address.lower())
        if key in self._seen:
            return None
        if not settings.duplicate_limit or len(self._seen) < settings.duplicate_limit:
            self._seen.add(key)
        return self._write_recipient(complete, address)

    def finish(self) -> Deferred[QueueID]:
        """See L{IIncomingMessage.finish}."""
        if self._error is None and self._sender is None:
            self.sender(b"")
        if self._error is None and not self._recipients:
            self._fail(IntakeError(True, "5.1.0", "Error: no recipients specified"))
        if self._error is None and not self._envelope:
            self._write_envelope()
        self._check_size()
        if self._error is not None:
            return fail(self._error)
        committed: Deferred[QueueID] = self._writer.commit()
        result: Deferred[QueueID] = Deferred(lambda _: self.abort())
        committed.addCallbacks(self._committed, self._not_committed, (result,), {}, (result,))
        return result

    def abort(self) -> None:
        """See L{IIncomingMessage.abort}."""
        if not self._closed:
            self._fail(IntakeError(False, *ABANDONED))

    # --- content -----------------------------------------------------------------------------------

    def _end_headers(self, header: bytes, body: bytes) -> Deferred[None] | None:
        headers = self._headers
        settings = self._settings
        if headers.received + 1 >= settings.hopcount_limit:
            log.warn("{queue_id}: message rejected: hopcount exceeded", queue_id=self.queue_id)
            self._fail(IntakeError(True, "5.4.6", "Error: too many hops"))
            return None
        missing = self._missing_headers()
        self._needs_from = (b"resent-from" if headers.resent else b"from") not in headers.names
        held = self._held
        if held is None:
            return self._body(header + missing + body)
        if self._needs_from:
            held += (header, missing)
            return self._body(body)
        return self._body(b"".join((*held, header, missing, body)))

    def _missing_headers(self) -> bytes:
        """Message-Id and Date where they are missing, and the log lines about message ids."""
        headers = self._headers
        prefix = b"Resent-" if headers.resent else b""
        missing = b""
        for resent, value in headers.message_ids:
            self._log_message_id(resent, value)
        if prefix.lower() + b"message-id" not in headers.names:
            stamp = self._date.stamp(self._arrival)
            value = b"<%b.%b@%b>" % (stamp, self.queue_id.encode(), self._settings.hostname)
            missing += b"%bMessage-Id: %b\n" % (prefix, value)
            self._log_message_id(headers.resent, value)
        if prefix.lower() + b"date" not in headers.names:
            missing += b"%bDate: %b\n" % (prefix, self._date.render(self._arrival))
        if headers.resent and b"message-id" not in headers.names:
            self._log_message_id(False, b"<>")
        undisclosed = self._settings.undisclosed
        if undisclosed and headers.names.isdisjoint((b"to", b"cc", b"resent-to", b"resent-cc")):
            missing += undisclosed + b"\n"
        return missing

    def _log_message_id(self, resent: bool, value: bytes) -> None:
        if not resent:
            self._message_id = value
            log.info(
                "{queue_id}: message-id={message_id}",
                queue_id=self.queue_id,
                message_id=value,
            )
        else:
            log.info(
                "{queue_id}: resent-message-id={message_id}",
                queue_id=self.queue_id,
                message_id=value,
            )

    def _write_header(self, header: bytes) -> Deferred[None] | None:
        if not header:
            return None
        if self._held is None:
            return self._write(header)
        self._held.append(header)
        self._held_size += len(header)
        if self._held_size > self._settings.rules.size_limit:
            # Too much to hold, so a missing From header will have to come first.
            header = b"".join(self._held)
            self._held = None
            return self._write(header)
        return None

    def _body(self, data: bytes) -> Deferred[None] | None:
        if not data:
            return None
        self._last = data[-1:]
        return self._write(data)

    def _write(self, data: bytes) -> Deferred[None] | None:
        waiting: Deferred[None] | None = self._writer.write(data)
        self._check_size()
        return self._wait(waiting)

    def _wait(self, waiting: Deferred[None] | None) -> Deferred[None] | None:
        if waiting is None:
            return None
        waiting.addErrback(self._failed)
        return waiting if self._error is None else None

    def _failed(self, failure: Failure) -> None:
        self._fail(intake_error(failure.value))

    def _check_size(self) -> None:
        limit = self._settings.size_limit
        if limit and self._client is not None and self._error is None and self._writer.size > limit:
            log.warn("{queue_id}: queue file size limit exceeded", queue_id=self.queue_id)
            self._fail(IntakeError(True, "5.3.4", "Error: message too large"))

    # --- envelope ----------------------------------------------------------------------------------

    def _refuse_controls(self, address: bytes, dsn: str, what: str) -> bool:
        if not CONTROLS.search(address):
            return False
        shown = ascii(address[:200].decode("latin-1"))[1:-1]
        self._fail(IntakeError(True, dsn, f"Error: control character in {what} address <{shown}>"))
        return True

    def _write_envelope(self) -> None:
        if self._sender is None:
            self.sender(b"")
        sender = self._sender or b""
        recipient = self._first[1] if self._recipients == 1 and self._first is not None else None
        date = self._date.render(self._arrival)
        top = received(self._settings, self.queue_id, self._client, recipient, date)
        held = self._held
        if self._needs_from:
            prefix = b"Resent-" if self._headers.resent else b""
            origin = b"%bFrom: %b\n" % (prefix, quote_address(sender) if sender else b"MAILER-DAEMON")
            top = b"".join((top, *held, origin)) if held is not None else top + origin
        envelope = Envelope(
            sender=sender,
            arrival_time=self._arrival,
            client=self._client,
            message_id=self._message_id,
            eight_bit=self._eight_bit,
            verp_delimiters=self._verp,
        )
        self._envelope = True
        self._writer.envelope(envelope, top)
        if self._first is not None:
            self._write_recipient(*self._first)

    def _write_recipient(self, address: bytes, original: bytes) -> Deferred[None] | None:
        waiting: Deferred[None] | None = self._writer.recipient(address, original)
        self._check_size()
        return self._wait(waiting)

    # --- the end -----------------------------------------------------------------------------------

    def _committed(self, stored: IStoredMessage, result: Deferred[QueueID]) -> None:
        self._closed = True
        # The client's answer first: what the queue manager does next may take its time.
        if not result.called:
            result.callback(self.queue_id)
        self._done(stored)

    def _not_committed(self, failure: Failure, result: Deferred[QueueID]) -> None:
        error = intake_error(failure.value)
        if error.text == NOT_WRITTEN[1]:
            log.warn(
                "{queue_id}: write queue file: {reason}", queue_id=self.queue_id, reason=str(failure.value)
            )
        if not result.called:
            result.errback(error)

    def _fail(self, error: IntakeError) -> None:
        if self._error is None:
            self._error = error
            self._writer.abort()
