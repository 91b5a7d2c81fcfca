"""
What there is to log of one message's inspection.

Takes remarks as content streams by; logs them when sender and recipient are known, which QMQP sends after the
content. More than L{REMARKS_LIMIT} of them are logged at once, without. Answers to the log lines of
header_checks(5).
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.events import Logger
from qmqpd_tx.message import ClientInfo, QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

REMARKS_LIMIT = 500
"""How many remarks on one message wait for its envelope."""

SHOWN = 200
"""How many bytes of a header or line the log shows."""

SHOWN_FLAW = 100
"""The same where its form is wrong."""


@frozen(slots=True)
class Remark:
    """
    One line of the log.

    @ivar action: C{reject}, C{warning} and so on.
    @ivar context: C{header} or C{body}, or what is wrong.
    @ivar text: the header or line.
    @ivar reason: the text of the action; C{b""}: none.
    @ivar protocol: whether the line names the protocol.
    """

    action: str
    context: str
    text: bytes
    reason: bytes
    protocol: bool


class Remarks:
    """
    Of one message.

    @param queue_id: the message.
    @param client: who brought it; L{None} for mail made here.
    """

    __slots__ = ("_client", "_kept", "_queue_id")

    def __init__(self, queue_id: QueueID, client: ClientInfo | None) -> None:
        self._queue_id = queue_id
        self._client = client
        self._kept: list[Remark] | None = []

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, action: str, context: str, text: bytes, reason: bytes) -> None:
        """
        A check did something.

        @param action: what.
        @param context: C{header} or C{body}.
        @param text: the header or line.
        @param reason: the text of the action.
        """
        self._keep(Remark(action, context, text[:SHOWN], reason, True))

    def object_to(self, flaw: str, text: bytes) -> None:
        """
        The form of the message is wrong.

        @param flaw: in what way.
        @param text: where.
        """
        self._keep(Remark("reject", f"mime-error {flaw}:", text[:SHOWN_FLAW], b"", False))

    def tell(self, sender: bytes | None, recipient: bytes | None) -> None:
        """
        Log what there is to log. To be called when the message is accepted or refused.

        @param sender: the envelope sender in internal form; L{None} if there was none.
        @param recipient: likewise the last recipient.
        """
        kept, self._kept = self._kept or [], []
        for remark in kept:
            self._log(remark, sender, recipient)

    def _keep(self, remark: Remark) -> None:
        if self._kept is not None:
            self._kept.append(remark)
            if len(self._kept) > REMARKS_LIMIT:
                self.tell(None, None)
                self._kept = None
        else:
            self._log(remark, None, None)

    def _log(self, remark: Remark, sender: bytes | None, recipient: bytes | None) -> None:
        client = self._client
        envelope = []
        if sender is not None:
            envelope.append("from=<{sender}>")
        if recipient is not None:
            envelope.append("to=<{recipient}>")
        if remark.protocol and client is not None:
            envelope.append("proto={protocol}")
        log.info(
            "{queue_id}: {action}: {context} {text} from {client}; "
            + " ".join(envelope)
            + (": {reason}" if remark.reason else ""),
            queue_id=self._queue_id,
            action=remark.action,
            context=remark.context,
            text=remark.text,
            client="local" if client is None else client.label(),
            sender=sender,
            recipient=recipient,
            protocol=None if client is None else client.protocol,
            reason=remark.reason,
        )
