"""
What filters (milters) decide about a message, and that they cannot be asked: the log, and what the client is
told.

Takes a filter's decision or a failure; gives an L{IntakeError<qmqpd_tx.interfaces.IntakeError>}, and log
lines in Postfix's words. Pure but for the log. Answers to cleanup(8), watched in a running Postfix.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from twisted.python.failure import Failure

from qmqpd_tx.cleanup.errors import NOT_WRITTEN, printable, tell
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import InsufficientSpace, IntakeError, SpoolError, TableError
from qmqpd_tx.message import ClientInfo, QueueID
from qmqpd_tx.milter import Decision, DefaultAction, Event, MilterSettings, Verdict

log = Logger(namespace="qmqpd_tx.cleanup")

STAGE_NAMES: Mapping[Event, str] = {
    Event.CONNECT: "CONNECT",
    Event.HELO: "EHLO",
    Event.MAIL: "MAIL",
    Event.RCPT: "RCPT",
    Event.DATA: "DATA",
    Event.END_OF_MESSAGE: "END-OF-MESSAGE",
}
"""What the log calls the events."""

_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}(?= |$)", re.ASCII)


def log_decision(
    verdict: Verdict,
    queue_id: QueueID,
    client: ClientInfo | None,
    sender: bytes,
    recipient: bytes | None,
) -> None:
    """
    @param verdict: the decision.
    @param queue_id: about which message.
    @param client: who brought it; L{None}: it was made here.
    @param sender: its sender.
    @param recipient: the last one that filters have heard of; L{None}: there is none.
    """
    decision = verdict.decision
    text = "{queue_id}: milter-{action}: {stage} from {client}: {reason}; from=<{sender}>"
    if recipient is not None:
        text += " to=<{recipient}>"
        if client is not None:
            text += " proto={protocol}"
    log.info(
        text,
        queue_id=queue_id,
        action=decision.value,
        stage=STAGE_NAMES.get(verdict.event, "END-OF-MESSAGE"),
        client="local" if client is None else client.label(),
        reason=verdict.text if decision is Decision.REJECT else f"milter triggers {decision.name} action",
        sender=sender,
        recipient=recipient,
        protocol="" if client is None else client.protocol,
    )


def refusal(verdict: Verdict, queue_id: QueueID) -> IntakeError:
    """
    @param verdict: of a filter that refuses.
    @return: what the client is told.
    """
    if verdict.event is Event.RCPT:
        log.warn(
            "{queue_id}: milter configuration error: can't reject recipient in non-smtpd(8) submission",
            queue_id=queue_id,
        )
        log.warn("{queue_id}: message not accepted, try again later", queue_id=queue_id)
        return IntakeError(False, "4.3.5", "Error: 4.3.5 Server configuration error")
    text = printable(verdict.text)
    status = _STATUS.match(text)
    dsn = status.group() if status is not None else ("5.7.1" if verdict.permanent else "4.7.1")
    return IntakeError(verdict.permanent, dsn, f"Error: {text}")


def held_unseen(settings: MilterSettings, limit: int, queue_id: QueueID) -> bool:
    """
    What becomes of a message that filters cannot be shown: C{milter_default_action}.

    @param settings: which filters there are.
    @param limit: C{milter_header_section_limit}, which its header section is beyond, in bytes.
    @param queue_id: the message.
    @return: whether it is to be held.
    @raise IntakeError: it is refused.
    """
    log.warn(
        "{queue_id}: the header section is longer than milter_header_section_limit ({limit} bytes): "
        "mail filters are not asked",
        queue_id=queue_id,
        limit=limit,
    )
    actions = {each.default_action for each in settings.filters}
    if actions & {DefaultAction.REJECT, DefaultAction.TEMPFAIL}:
        raise IntakeError(True, "5.3.4", "Error: 5.3.4 message header section too large for mail filters")
    return DefaultAction.QUARANTINE in actions


def reported(failure: Failure, queue_id: QueueID) -> BaseException | Failure:
    """
    @param failure: of what was done to ask the filters, or to store what they have left.
    @return: what is told of it.
    """
    error = failure.value
    if isinstance(error, TableError):
        tell(error, queue_id)
        return IntakeError(False, *NOT_WRITTEN)
    if isinstance(error, OSError) and not isinstance(error, SpoolError):
        text = f"{queue_id}: keep a message for mail filters: {error}"
        return InsufficientSpace(text) if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpoolError(text)
    return failure
