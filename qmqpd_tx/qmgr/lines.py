"""
The lines that qmgr(8) and the delivery agents log about a message.

Takes values, emits events with the fields of Postfix's lines. The lines of delivery agents are logged
here on their behalf, C{program} saying whose they are, so that every transport logs alike. Text from the
network is passed as it is: the renderer escapes it.
"""

from __future__ import annotations

from typing import Final

from qmqpd_tx.events import Logger
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.delays import format_delays
from qmqpd_tx.qmgr.job import Job

log = Logger(namespace="qmqpd_tx.qmgr")

POSTSUPER: Final = "postsuper"
"""Who signs for what an operator has done."""

_ACTIVE: Final = "{queue_id}: from=<{sender}>, size={size}, nrcpt={nrcpt} (queue active)"
_EXPIRED: Final = "{queue_id}: from=<{sender}>, status=expired, returned to sender"
_REMOVED: Final = "{queue_id}: removed"
_TAIL: Final = "delay={delay}, delays={delays}, dsn={dsn}, status={status} ({text})"
_TO: Final = "{queue_id}: to=<{to}>, relay={relay}, " + _TAIL
_TO_REUSED: Final = "{queue_id}: to=<{to}>, relay={relay}, conn_use={conn_use}, " + _TAIL
_TO_ORIGINAL: Final = "{queue_id}: to=<{to}>, orig_to=<{orig_to}>, relay={relay}, " + _TAIL
_TO_ORIGINAL_REUSED: Final = (
    "{queue_id}: to=<{to}>, orig_to=<{orig_to}>, relay={relay}, conn_use={conn_use}, " + _TAIL
)


def log_active(job: Job) -> None:
    """
    A message entered the active queue.
    """
    message = job.message
    log.info(
        _ACTIVE,
        queue_id=job.queue_id,
        sender=job.sender,
        size=message.size,
        nrcpt=message.recipient_count,
    )


def log_expired(job: Job) -> None:
    """
    A message has waited too long.
    """
    log.info(_EXPIRED, queue_id=job.queue_id, sender=job.sender)


def log_removed(queue_id: str) -> None:
    """
    A message left the queue.
    """
    log.info(_REMOVED, queue_id=queue_id)


def log_deleted(queue_id: str) -> None:
    """
    An operator has removed a message.
    """
    log.info(_REMOVED, program=POSTSUPER, queue_id=queue_id)


class Attempt:
    """
    What the lines of one delivery have in common.

    @ivar program: the delivery agent's name in the log.
    @ivar delay: the value of C{delay=}.
    @ivar delays: the value of C{delays=}.
    @ivar connection_uses: the value of C{conn_use=}, logged from 2 on.
    """

    __slots__ = ("connection_uses", "delay", "delays", "program", "queue_id")

    def __init__(
        self,
        job: Job,
        program: str,
        started: float,
        setup: float,
        ended: float,
        resolution: int,
        connection_uses: int = 1,
    ) -> None:
        """
        @param started: when the delivery began, POSIX seconds.
        @param setup: seconds spent on connection set-up.
        @param ended: when it ended, POSIX seconds.
        @param resolution: C{delay_logging_resolution_limit}.
        """
        self.queue_id = job.queue_id
        self.program = program
        self.connection_uses = connection_uses
        self.delay, self.delays = format_delays(
            job.arrival_time, job.active_time, started, setup, ended, resolution
        )

    def log(self, recipient: Recipient, relay: str, dsn: str, status: str, text: str) -> None:
        """
        Log the line of one recipient.
        """
        to = recipient.address
        original = recipient.original
        renamed = original != to and bool(original) and original.lower() != to.lower()
        if self.connection_uses > 1:
            form = _TO_ORIGINAL_REUSED if renamed else _TO_REUSED
        else:
            form = _TO_ORIGINAL if renamed else _TO
        log.info(
            form,
            program=self.program,
            queue_id=self.queue_id,
            to=to,
            orig_to=original,
            relay=relay,
            conn_use=self.connection_uses,
            delay=self.delay,
            delays=self.delays,
            dsn=dsn,
            status=status,
            text=text,
        )
