"""
The bounce service: remembers what became of a message's recipients, and tells its sender what is worth it:
failures, a long delay, the end of that delay.

Takes outcomes from the queue manager; gives logs beside the message and notices in the queue. Promises:
a record of L{Bounces.bounced} is durable when its Deferred fires, and a notice is safely queued before
the log goes, which goes before the message goes; so a crash can repeat a notice, and never lose one. Fails
with what the store or cleanup fail with: the message must then be kept. Answers to bounce(8).

That the sender was warned of a delay is a record in the message's trace log, and so are the recipients that
were delivered since, when that is to be confirmed. This log is read only for messages older than
C{delay_warning_time}.

A message from the null sender is a notice itself, and one from C{double_bounce_sender} a notice about a
notice. The first is reported to C{2bounce_notice_recipient} if C{notify_classes} has C{2bounce}, the second
to nobody. So nothing here can loop. Of an automatic copy that fails or waits, postmasters hear,
and senders do not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.bounce.compose import Kind
from qmqpd_tx.bounce.notices import Notices, local_timezone, verp_address
from qmqpd_tx.bounce.records import (
    FailedRecipient,
    decode_log,
    decode_record,
    decode_trace,
    encode_outcome,
    encode_told,
    encode_warning,
)
from qmqpd_tx.bounce.settings import Settings
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IBounces,
    ICleanup,
    IConfig,
    IMailQueue,
    IStoredMessage,
    SpoolError,
)
from qmqpd_tx.message import LogKind, QueueID
from qmqpd_tx.status import Outcome

log = Logger(namespace="qmqpd_tx.bounce")

T = TypeVar("T")


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
        self._clock = clock
        self._queue = queue
        self._settings = Settings.from_config(config)
        self._notices = Notices(self._settings, cleanup, clock, timezone)
        self._attempts: WeakValueDictionary[QueueID, IStoredMessage] = WeakValueDictionary()

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration from now on.
        """
        self._settings = self._notices.settings = Settings.from_config(config)

    @property
    def cleanup(self) -> ICleanup | None:
        """Where notices go."""
        return self._notices.cleanup

    @cleanup.setter
    def cleanup(self, cleanup: ICleanup | None) -> None:
        self._notices.cleanup = cleanup

    def bounced(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.bounced}."""
        records = [encode_outcome(outcome) for outcome in outcomes]
        appended: Deferred[None] = self._queue.append_log(LogKind.BOUNCE, message.queue_id, records, True)
        return appended.addErrback(self._take_back, message.queue_id, outcomes)

    def deferred(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.deferred}."""
        queue_id = message.queue_id
        records = [encode_outcome(outcome) for outcome in outcomes]
        # A message is opened anew for each attempt, and several deliveries of one attempt may report.
        fresh = self._attempts.get(queue_id) is not message
        self._attempts[queue_id] = message
        return _deferred(
            self._replace(queue_id, records) if fresh else self._append(LogKind.DEFER, queue_id, records)
        )

    def delayed(self, message: IStoredMessage) -> Deferred[QueueID | None]:
        """See L{IBounces.delayed}."""
        settings = self._settings
        if settings.warning_time <= 0 or not self._late(message):
            return succeed(None)
        return _deferred(self._warn(message))

    @property
    def confirms(self) -> bool:
        """See L{IBounces.confirms}."""
        return self._settings.confirms

    def delivered(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.delivered}."""
        if not self._settings.confirms or not self._late(message):
            return succeed(None)
        # Whether there was a warning is not asked here: that would cost a read for each delivery.
        records = [encode_outcome(outcome) for outcome in outcomes if not outcome.recipient.silent]
        return _deferred(self._append(LogKind.TRACE, message.queue_id, records)) if records else succeed(None)

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

    def _take_back(self, failure: Failure, queue_id: QueueID, outcomes: Sequence[Outcome]) -> Failure:
        """
        What could not be made durable may stand in the log all the same. Its recipients wait for another try,
        and the sender must not hear that they failed.
        """
        records = [encode_told(outcome.recipient) for outcome in outcomes]
        taken_back: Deferred[None] = self._queue.append_log(LogKind.BOUNCE, queue_id, records, False)
        taken_back.addErrback(self._not_taken_back, queue_id)
        return failure

    def _not_taken_back(self, failure: Failure, queue_id: QueueID) -> None:
        log.warn(
            "{queue_id}: bounce log: {reason}; the sender may hear of recipients that wait",
            queue_id=queue_id,
            reason=failure.getErrorMessage(),
        )

    # --- logs --------------------------------------------------------------------------------------

    async def _replace(self, queue_id: QueueID, records: Sequence[bytes]) -> None:
        removed = self._queue.remove_log(LogKind.DEFER, queue_id)
        appended = self._queue.append_log(LogKind.DEFER, queue_id, records, False)
        await removed
        await appended

    async def _append(self, kind: LogKind, queue_id: QueueID, records: Iterable[bytes]) -> None:
        await self._queue.append_log(kind, queue_id, list(records), False)

    async def _note(self, kind: LogKind, queue_id: QueueID, records: Iterable[bytes]) -> None:
        """Keep in mind that the sender was told. If that cannot be written, the sender is told again."""
        try:
            await self._append(kind, queue_id, records)
        except SpoolError as problem:
            log.warn(
                "{queue_id}: {kind} log: {reason}; the sender may be notified again",
                queue_id=queue_id,
                kind=kind.value,
                reason=str(problem),
            )

    async def _forget(self, queue_id: QueueID) -> None:
        kinds = (LogKind.DEFER, LogKind.BOUNCE, LogKind.TRACE)
        for removed in [self._queue.remove_log(kind, queue_id) for kind in kinds]:
            await removed

    # --- notices -----------------------------------------------------------------------------------

    def _late(self, message: IStoredMessage) -> bool:
        """Whether a message is so old, and somebody to be told of it."""
        settings = self._settings
        envelope = message.envelope
        age = self._clock.seconds() - envelope.arrival_time
        sender: bytes = envelope.sender
        return bool(sender) and age >= settings.warning_time and not settings.discards(sender)

    async def _warn(self, message: IStoredMessage) -> QueueID | None:
        queue_id: QueueID = message.queue_id
        warned, _ = decode_trace(await self._queue.read_log(LogKind.TRACE, queue_id))
        if warned:
            return None
        waiting = decode_log(await self._queue.read_log(LogKind.DEFER, queue_id))
        heard = [recipient for recipient in waiting if not recipient.silent]
        copied = waiting if "delay" in self._settings.classes else []
        if not heard and not copied:
            return None
        notice = None
        if heard:
            notice = await self._notices.to_sender(message, Kind.DELAYED, heard, message.envelope.sender)
        await self._note(LogKind.TRACE, queue_id, [encode_warning(self._clock.seconds())])
        if copied:
            await self._notices.copy(message, Kind.DELAYED, copied)
        return notice

    async def _notify(self, message: IStoredMessage) -> QueueID | None:
        notice = await self._return(message)
        if self._settings.confirms and self._late(message):
            await self._confirm(message)
        return notice

    async def _confirm(self, message: IStoredMessage) -> None:
        queue_id: QueueID = message.queue_id
        warned, recipients = decode_trace(await self._queue.read_log(LogKind.TRACE, queue_id))
        if warned and recipients:
            await self._notices.to_sender(message, Kind.DELIVERED, recipients, message.envelope.sender)
            await self._note(LogKind.TRACE, queue_id, map(encode_told, recipients))

    async def _return(self, message: IStoredMessage) -> QueueID | None:
        queue_id: QueueID = message.queue_id
        records = await self._queue.read_log(LogKind.BOUNCE, queue_id)
        if not records:
            return None
        recipients = decode_log(records)
        if len(recipients) < len(records):
            # Repeated after a crash, told of before, or damaged; only the last is worth a word.
            self._count_damage(queue_id, records)
        notice = await self._report(message, recipients) if recipients else None
        await self._queue.remove_log(LogKind.BOUNCE, queue_id)
        return notice

    def _count_damage(self, queue_id: QueueID, records: list[bytes]) -> None:
        damaged = sum(1 for record in records if decode_record(record) is None)
        if damaged:
            log.warn(
                "{queue_id}: {count} damaged records in the bounce log: those recipients are not reported",
                queue_id=queue_id,
                count=damaged,
            )

    async def _report(self, message: IStoredMessage, recipients: list[FailedRecipient]) -> QueueID | None:
        settings = self._settings
        sender: bytes = message.envelope.sender
        if settings.discards(sender):
            log.warn("{queue_id}: undeliverable postmaster notification discarded", queue_id=message.queue_id)
            return None
        if not sender:
            if "2bounce" not in settings.classes:
                return None
            return await self._notices.double_bounce(message, recipients)
        if message.envelope.verp_delimiters is not None and settings.verp:
            return await self._report_one_by_one(message, recipients, message.envelope.verp_delimiters)
        return await self._report_to(message, recipients, sender)

    async def _report_to(
        self, message: IStoredMessage, recipients: list[FailedRecipient], to: bytes
    ) -> QueueID | None:
        notice = None
        if heard := [recipient for recipient in recipients if not recipient.silent]:
            notice = await self._notices.to_sender(message, Kind.FAILED, heard, to)
        if "bounce" in self._settings.classes:
            await self._notices.copy(message, Kind.FAILED, recipients)
        return notice

    async def _report_one_by_one(
        self, message: IStoredMessage, recipients: list[FailedRecipient], delimiters: bytes
    ) -> QueueID | None:
        notice = None
        told: list[FailedRecipient] = []
        try:
            for recipient in recipients:
                to = verp_address(message.envelope.sender, delimiters, recipient.original)
                notice = await self._report_to(message, [recipient], to) or notice
                told.append(recipient)
        except Exception:
            # The next try is about the others only.
            await self._note(LogKind.BOUNCE, message.queue_id, map(encode_told, told))
            raise
        return notice


def _deferred(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)
