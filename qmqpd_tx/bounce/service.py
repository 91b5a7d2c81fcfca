"""
The bounce service: remembers what went wrong with a message, and tells its sender.

Takes outcomes from the queue manager; gives logs beside the message and notices in the queue. Promises:
a record of L{Bounces.bounced} is durable when its Deferred fires, and a notice is safely queued before
the log goes, which goes before the message goes; so a crash can repeat a notice, and never lose one. Fails
with what the store or cleanup fail with: the message must then be kept. Answers to bounce(8).

A message from the null sender is a notice itself, and one from C{double_bounce_sender} a notice about a
notice. The first is reported to C{2bounce_notice_recipient} if C{notify_classes} has C{2bounce}, the second
to nobody. So nothing here can loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from qmqpd_tx.bounce.compose import Audience, Report, lead, tail
from qmqpd_tx.bounce.records import FailedRecipient, decode_log, encode_outcome
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IBounces,
    ICleanup,
    IConfig,
    IIncomingMessage,
    IMailQueue,
    IMessageContent,
    IntakeError,
    IStoredMessage,
    SpoolError,
)
from qmqpd_tx.message import LogKind, QueueID
from qmqpd_tx.status import Outcome

log = Logger(namespace="qmqpd_tx.bounce")

T = TypeVar("T")

READ_SIZE = 65536
"""How much of a message is copied at a time, in bytes."""


def local_timezone(seconds: float) -> int:
    """
    @return: this machine's offset from UTC at that time, in seconds.
    """
    return time.localtime(seconds).tm_gmtoff


@frozen(slots=True)
class Settings:
    """
    @ivar hostname: C{myhostname}.
    @ivar mail_name: the program's name in field names.
    @ivar origin: C{myorigin}.
    @ivar size_limit: C{bounce_size_limit}: longer messages are returned as headers only.
    @ivar classes: C{notify_classes}.
    @ivar double_bounce: C{double_bounce_sender}, complete.
    @ivar copies_to: C{bounce_notice_recipient}.
    @ivar double_bounces_to: C{2bounce_notice_recipient}.
    """

    hostname: str
    mail_name: str
    origin: bytes
    size_limit: int
    classes: frozenset[str]
    double_bounce: bytes
    copies_to: bytes
    double_bounces_to: bytes


def _settings(config: IConfig) -> Settings:
    origin = config.string("myorigin").encode()
    sender = config.string("double_bounce_sender").encode()
    return Settings(
        hostname=config.string("myhostname"),
        mail_name=config.string("mail_name"),
        origin=origin,
        size_limit=config.integer("bounce_size_limit"),
        classes=frozenset(config.words("notify_classes")),
        double_bounce=sender if b"@" in sender else sender + b"@" + origin,
        copies_to=config.string("bounce_notice_recipient").encode(),
        double_bounces_to=config.string("2bounce_notice_recipient").encode(),
    )


def verp_address(sender: bytes, delimiters: bytes, recipient: bytes) -> bytes:
    """
    @param sender: the envelope sender, not null.
    @param delimiters: the two VERP delimiters.
    @param recipient: about whom.
    @return: the sender address that mail to this recipient was sent with (Postfix's VERP_README).
    """
    local, at, domain = sender.rpartition(b"@")
    if not at:
        local, domain = sender, b""
    user, at_recipient, where = recipient.rpartition(b"@")
    extension = user + delimiters[1:2] + where if at_recipient else recipient
    return local + delimiters[:1] + extension + at + domain


@implementer(IBounces)
class Bounces:
    """
    See L{IBounces}.

    @ivar cleanup: where notices go; may be set later, but before the first L{notify}.
    """

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        queue: IMailQueue,
        cleanup: ICleanup | None = None,
        timezone: Callable[[float], int] = local_timezone,
    ) -> None:
        """
        @param config: the configuration.
        @param clock: tells the time.
        @param queue: keeps the logs.
        @param cleanup: where notices go.
        @param timezone: POSIX seconds to seconds east of UTC.
        """
        self.cleanup = cleanup
        self._clock = clock
        self._queue = queue
        self._timezone = timezone
        self._settings = _settings(config)
        self._attempts: WeakValueDictionary[QueueID, IStoredMessage] = WeakValueDictionary()

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration from now on.
        """
        self._settings = _settings(config)

    def bounced(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.bounced}."""
        records = [encode_outcome(outcome) for outcome in outcomes]
        appended: Deferred[None] = self._queue.append_log(LogKind.BOUNCE, message.queue_id, records, True)
        return appended

    def deferred(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.deferred}."""
        queue_id = message.queue_id
        records = [encode_outcome(outcome) for outcome in outcomes]
        # A message is opened anew for each attempt, and several deliveries of one attempt may report.
        fresh = self._attempts.get(queue_id) is not message
        self._attempts[queue_id] = message
        return _deferred(self._replace(queue_id, records) if fresh else self._append(queue_id, records))

    def notify(self, message: IStoredMessage) -> Deferred[QueueID | None]:
        """See L{IBounces.notify}."""
        return _deferred(self._notify(message))

    def forget(self, queue_id: QueueID) -> Deferred[None]:
        """See L{IBounces.forget}."""
        self._attempts.pop(queue_id, None)
        return _deferred(self._forget(queue_id))

    async def deferred_recipients(self, queue_id: QueueID) -> list[FailedRecipient]:
        """
        @return: what L{deferred} remembers of a message: why its recipients wait.
        @raise SpoolError: the log cannot be read.
        """
        return decode_log(await self._queue.read_log(LogKind.DEFER, queue_id))

    # --- logs --------------------------------------------------------------------------------------

    async def _replace(self, queue_id: QueueID, records: Sequence[bytes]) -> None:
        removed = self._queue.remove_log(LogKind.DEFER, queue_id)
        appended = self._queue.append_log(LogKind.DEFER, queue_id, records, False)
        await removed
        await appended

    async def _append(self, queue_id: QueueID, records: Sequence[bytes]) -> None:
        await self._queue.append_log(LogKind.DEFER, queue_id, records, False)

    async def _forget(self, queue_id: QueueID) -> None:
        both = [self._queue.remove_log(kind, queue_id) for kind in (LogKind.DEFER, LogKind.BOUNCE)]
        for removed in both:
            await removed

    # --- notices -----------------------------------------------------------------------------------

    async def _notify(self, message: IStoredMessage) -> QueueID | None:
        queue_id: QueueID = message.queue_id
        records = await self._queue.read_log(LogKind.BOUNCE, queue_id)
        if not records:
            return None
        recipients = decode_log(records)
        if len(recipients) < len(records):
            # Repeated after a crash, or damaged; only the latter is worth a word.
            self._count_damage(queue_id, records)
        notice = await self._report(message, recipients) if recipients else None
        await self._queue.remove_log(LogKind.BOUNCE, queue_id)
        return notice

    def _count_damage(self, queue_id: QueueID, records: list[bytes]) -> None:
        damaged = sum(1 for record in records if not decode_log([record]))
        if damaged:
            log.warn(
                "{queue_id}: {count} damaged records in the bounce log: those recipients are not reported",
                queue_id=queue_id,
                count=damaged,
            )

    async def _report(self, message: IStoredMessage, recipients: list[FailedRecipient]) -> QueueID | None:
        settings = self._settings
        envelope = message.envelope
        sender: bytes = envelope.sender
        if sender.lower() == settings.double_bounce.lower():
            log.warn("{queue_id}: undeliverable postmaster notification discarded", queue_id=message.queue_id)
            return None
        if not sender:
            if "2bounce" not in settings.classes:
                return None
            shown = b"MAILER-DAEMON@" + settings.origin
            return await self._postmaster(message, recipients, shown, settings.double_bounces_to, True)
        notice = None
        whole = message.content.size <= settings.size_limit
        if envelope.verp_delimiters is not None:
            for recipient in recipients:
                address = verp_address(sender, envelope.verp_delimiters, recipient.address)
                notice = await self._to_sender(message, [recipient], address, whole)
        else:
            notice = await self._to_sender(message, recipients, sender, whole)
        if "bounce" in settings.classes:
            try:
                await self._postmaster(message, recipients, sender, settings.copies_to, False)
            except (IntakeError, SpoolError) as problem:
                # Another try would tell the sender once more.
                log.warn(
                    "{queue_id}: postmaster notice failed while bouncing to {to}: {reason}",
                    queue_id=message.queue_id,
                    to=settings.copies_to,
                    reason=str(problem),
                )
        return notice

    async def _to_sender(
        self, message: IStoredMessage, recipients: list[FailedRecipient], to: bytes, whole: bool
    ) -> QueueID:
        report = self._about(message, Audience.SENDER, message.envelope.sender, to, whole)
        notice = await self._send(message, report, recipients, b"")
        log.info(
            "{queue_id}: sender non-delivery notification: {notice}",
            queue_id=message.queue_id,
            notice=notice,
        )
        return notice

    async def _postmaster(
        self,
        message: IStoredMessage,
        recipients: list[FailedRecipient],
        sender: bytes,
        to: bytes,
        whole: bool,
    ) -> QueueID:
        whole = whole and message.content.size <= self._settings.size_limit
        report = self._about(message, Audience.POSTMASTER, sender, to, whole)
        notice = await self._send(message, report, recipients, self._settings.double_bounce)
        log.info(
            "{queue_id}: postmaster non-delivery notification: {notice}",
            queue_id=message.queue_id,
            notice=notice,
        )
        return notice

    def _about(
        self, message: IStoredMessage, audience: Audience, sender: bytes, to: bytes, whole: bool
    ) -> Report:
        settings = self._settings
        envelope = message.envelope
        return Report(
            audience=audience,
            hostname=settings.hostname,
            mail_name=settings.mail_name,
            queue_id=message.queue_id,
            sender=sender,
            to=to,
            arrival_time=envelope.arrival_time,
            utc_offset=self._timezone(envelope.arrival_time),
            now=self._clock.seconds(),
            eight_bit=envelope.eight_bit,
            whole=whole,
        )

    async def _send(
        self,
        message: IStoredMessage,
        report: Report,
        recipients: list[FailedRecipient],
        sender: bytes,
    ) -> QueueID:
        if self.cleanup is None:
            raise SpoolError(f"{message.queue_id}: no cleanup service to send a notice with")
        incoming: IIncomingMessage = self.cleanup.begin(None)
        try:
            for piece in _gather(lead(report, recipients)):
                await _ready(incoming.content(piece))
            await _copy(message.content, incoming, None if report.whole else self._settings.size_limit)
            await _ready(incoming.content(tail(report)))
            incoming.sender(sender)
            await _ready(incoming.recipient(report.to))
        except BaseException:
            incoming.abort()
            raise
        notice: QueueID = await incoming.finish()
        return notice


def _deferred(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)


async def _ready(waiting: Deferred[None] | None) -> None:
    if waiting is not None:
        await waiting


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Few writes instead of one for each recipient."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= READ_SIZE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


async def _copy(content: IMessageContent, incoming: IIncomingMessage, headers_limit: int | None) -> None:
    """
    Attach a message; always ends in a newline.

    @param headers_limit: only attach the headers, and no more than about so many bytes; L{None}: all of it.
    """
    offset = 0
    last = b"\n"
    while data := await content.read(offset, READ_SIZE):
        offset += len(data)
        end = -1
        if headers_limit is not None:
            # The header section ends at the first empty line, which may be cut in two.
            end = (last + data).find(b"\n\n")
            if end < 0 and offset > headers_limit:
                end = data.rfind(b"\n") + 1
            if end >= 0:
                data = data[:end]
        await _ready(incoming.content(data))
        last = data[-1:] or last
        if end >= 0:
            break
    if last != b"\n":
        await _ready(incoming.content(b"\n"))
