"""
Notices about messages: to the sender, or to a postmaster.

Takes an open message and the recipients that a notice is about; gives the notice, safely in the queue, and a
line in the log. Fails with L{IntakeError<qmqpd_tx.interfaces.IntakeError>} or
L{SpoolError<qmqpd_tx.interfaces.SpoolError>}, and then nothing of it is left. Whether there is to be a notice
is not decided here. Answers to bounce(8).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from attrs import evolve
from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.address.smtputf8 import needs_smtputf8
from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.bounce.compose import Audience, Kind, Report
from qmqpd_tx.bounce.records import FailedRecipient
from qmqpd_tx.bounce.sending import send
from qmqpd_tx.bounce.settings import Settings
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ICleanup, IntakeError, IStoredMessage, SpoolError
from qmqpd_tx.message import SMTPUTF8, Envelope, QueueID

log = Logger(namespace="qmqpd_tx.bounce")

_NOTIFICATION = {Kind.FAILED: "non-delivery", Kind.DELAYED: "delay", Kind.DELIVERED: "delivery status"}
"""What Postfix calls a notice in the log."""


def local_timezone(seconds: float) -> int:
    """
    @return: this machine's offset from UTC at that time, in seconds.
    """
    return time.localtime(seconds).tm_gmtoff


def verp_address(sender: bytes, delimiters: bytes, recipient: bytes) -> bytes:
    """
    @param sender: the envelope sender, not null.
    @param delimiters: the two VERP delimiters.
    @param recipient: about whom.
    @return: the sender address that mail to this recipient was sent with (Postfix's VERP_README); but for a
        recipient that needs quotes: those are a part of the address here, as in Postfix.
    """
    recipient = quote_address(recipient)
    local, at, domain = sender.rpartition(b"@")
    if not at:
        local, domain = sender, b""
    user, at_recipient, where = recipient.rpartition(b"@")
    extension = user + delimiters[1:2] + where if at_recipient else recipient
    return local + delimiters[:1] + extension + at + domain


class Notices:
    """
    @ivar cleanup: where notices go; L{None}: nowhere yet.
    @ivar settings: what the configuration says.
    """

    def __init__(
        self,
        settings: Settings,
        cleanup: ICleanup | None,
        clock: IReactorTime,
        timezone: Callable[[float], int],
    ) -> None:
        """
        @param clock: tells the time.
        @param timezone: POSIX seconds to seconds east of UTC.
        """
        self.settings = settings
        self.cleanup = cleanup
        self._clock = clock
        self._timezone = timezone

    async def to_sender(
        self, message: IStoredMessage, kind: Kind, recipients: list[FailedRecipient], to: bytes
    ) -> QueueID:
        """
        @param message: what it is about.
        @param kind: failed messages are attached whole, others' headers only.
        @param recipients: about whom.
        @param to: the sender's address.
        @return: the notice.
        @raise IntakeError: it was not taken.
        @raise SpoolError: the message cannot be read, or the notice not written.
        """
        sender = message.envelope.sender
        report = self._about(message, kind, recipients, Audience.SENDER, sender, to, kind is Kind.FAILED)
        return await self._send(message, report, recipients, b"")

    async def double_bounce(self, message: IStoredMessage, recipients: list[FailedRecipient]) -> QueueID:
        """
        To C{2bounce_notice_recipient}: a notice to a sender cannot be delivered.

        @return: as L{to_sender}, with the same failures.
        """
        settings = self.settings
        shown = b"MAILER-DAEMON@" + settings.hostname.encode()
        report = self._about(
            message, Kind.FAILED, recipients, Audience.POSTMASTER, shown, settings.double_bounces_to, True
        )
        return await self._send(message, report, recipients, settings.double_bounce)

    async def copy(self, message: IStoredMessage, kind: Kind, recipients: list[FailedRecipient]) -> None:
        """
        To C{bounce_notice_recipient} or C{delay_notice_recipient}: what the sender was told. That it cannot
        be sent is logged: another try would tell the sender once more.
        """
        settings = self.settings
        sender = message.envelope.sender
        to = settings.copies_to if kind is Kind.FAILED else settings.delays_to
        report = self._about(message, kind, recipients, Audience.POSTMASTER, sender, to, False)
        try:
            await self._send(message, report, recipients, settings.double_bounce)
        except (IntakeError, SpoolError) as problem:
            log.warn(
                "{queue_id}: postmaster notice failed while {doing} to {to}: {reason}",
                queue_id=message.queue_id,
                doing="bouncing" if kind is Kind.FAILED else "warning",
                to=to,
                reason=str(problem),
            )

    def _about(
        self,
        message: IStoredMessage,
        kind: Kind,
        recipients: Sequence[FailedRecipient],
        audience: Audience,
        sender: bytes,
        to: bytes,
        whole: bool,
    ) -> Report:
        settings = self.settings
        envelope = message.envelope
        return Report(
            kind=kind,
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
            whole=whole and message.content.size <= settings.size_limit,
            warning_time=settings.warning_time,
            lifetime=settings.lifetime,
            internationalized=_internationalized(envelope, recipients),
        )

    async def _send(
        self, message: IStoredMessage, report: Report, recipients: list[FailedRecipient], sender: bytes
    ) -> QueueID:
        if self.cleanup is None:
            raise SpoolError(f"{message.queue_id}: no cleanup service to send a notice with")
        notice = await send(
            self.cleanup,
            message.content,
            report,
            recipients,
            sender,
            self.settings.size_limit,
            evolve(self.settings.treatment, about=message.envelope.attributes.get(SMTPUTF8))
            if report.internationalized
            else self.settings.treatment,
        )
        log.info(
            "{queue_id}: {audience} {kind} notification: {notice}",
            queue_id=message.queue_id,
            audience=report.audience.value,
            kind=_NOTIFICATION[report.kind],
            notice=notice,
        )
        return notice


def _internationalized(envelope: Envelope, recipients: Iterable[FailedRecipient]) -> bool:
    """
    @return: whether a notice about these recipients has to do with what needs SMTPUTF8.
    """
    addresses = [address for one in recipients for address in (one.address, one.original)]
    return needs_smtputf8(envelope.attributes.get(SMTPUTF8), envelope.sender, addresses)
