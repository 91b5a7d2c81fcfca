"""
From replies to outcomes: what the answers of one session mean for each recipient.

Pure. Texts are smtp(8)'s, word for word; RFC 3463 codes come from the reply, or say what was lost
(4.4.2). A reply of a class that makes no sense is a permanent failure, as in Postfix, unless the server
also sent lines that were no SMTP at all: then nothing it says can be matched to a command, and the
recipients wait.
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.status import Action
from qmqpd_tx.transports.smtp.conversation import Stage, Transaction
from qmqpd_tx.transports.smtp.replies import Reply


@frozen(slots=True)
class Verdict:
    """
    What one attempt means for one recipient.

    @ivar action: sent, deferred or bounced.
    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    @ivar diagnostic: the server's reply, or L{None}.
    """

    action: Action
    dsn: str
    text: str
    diagnostic: str | None = None


@frozen(slots=True)
class Loss:
    """
    A session that ended before its transaction did.

    @ivar stage: where.
    @ivar timed_out: the server was silent too long; else the connection was lost.
    @ivar interrupted: we stopped it.
    @ivar reason: what broke on our side, or L{None}.
    """

    stage: Stage
    timed_out: bool = False
    interrupted: bool = False
    reason: str | None = None

    def verdict(self, host: str) -> Verdict:
        """
        @param host: C{name[address]}.
        @return: what it means.
        """
        doing = self.stage.value
        if self.reason is not None:
            return Verdict(Action.DEFERRED, "4.3.0", self.reason)
        if self.interrupted:
            return Verdict(Action.DEFERRED, "4.3.2", f"delivery via {host} interrupted while {doing}")
        if self.timed_out:
            return Verdict(Action.DEFERRED, "4.4.2", f"conversation with {host} timed out while {doing}")
        return Verdict(Action.DEFERRED, "4.4.2", f"lost connection with {host} while {doing}")


def failure(reply: Reply, host: str, command: str, *, garbage: bool = False) -> Verdict:
    """
    @param reply: a reply that is not the wanted one.
    @param host: C{name[address]}.
    @param command: what it answers, as in C{RCPT TO}.
    @param garbage: the server sent lines that were no replies.
    @return: deferred for 4xx, bounced for anything else.
    """
    text, dsn = reply.text, reply.dsn
    digit = reply.code // 100
    prefix = "Protocol error: " if command == "DATA" and digit == 2 else ""
    if prefix:
        dsn = "5.5.0"
    soft = digit == 4
    if not soft and digit != 5 and garbage:
        soft, dsn = True, "4.5.0"
    return Verdict(
        Action.DEFERRED if soft else Action.BOUNCED,
        dsn,
        f"{prefix}host {host} said: {text} (in reply to {command} command)",
        text,
    )


def refused(reply: Reply, host: str, *, greeting: bool, skip_5xx_greeting: bool) -> Verdict:
    """
    @param reply: the reply that ended the handshake.
    @param host: C{name[address]}.
    @param greeting: it was the greeting, not the answer to HELO.
    @param skip_5xx_greeting: C{smtp_skip_5xx_greeting}.
    @return: deferred, or bounced.
    """
    text, dsn = reply.text, reply.dsn
    digit = reply.code // 100
    soft = digit == 4 or (digit == 5 and greeting and skip_5xx_greeting)
    if soft:
        dsn = "4" + dsn[1:]
    action = Action.DEFERRED if soft else Action.BOUNCED
    return Verdict(action, dsn, f"host {host} refused to talk to me: {text}", text)


def verdicts(transaction: Transaction, loss: Loss | None, host: str, garbage: bool) -> list[Verdict]:
    """
    @param transaction: how far it came.
    @param loss: how it ended early, or L{None}.
    @param host: C{name[address]}.
    @param garbage: the server sent lines that were no replies.
    @return: one verdict for each RCPT command, in order.
    """
    count = len(transaction.rcpts)
    mail = transaction.mail_reply
    if mail is not None and not mail.ok:
        return [failure(mail, host, "MAIL FROM", garbage=garbage)] * count
    data, end = transaction.data_reply, transaction.end_reply
    if data is not None and not 300 <= data.code <= 399:
        rest = failure(data, host, "DATA", garbage=garbage)
    elif end is not None and end.ok:
        text = end.text
        rest = Verdict(Action.SENT, end.dsn, text, text)
    elif end is not None:
        rest = failure(end, host, "end of DATA", garbage=garbage)
    else:
        rest = (loss or Loss(Stage.MAIL, interrupted=True)).verdict(host)
    replies = transaction.rcpt_replies
    if transaction.accepted == count:
        return [rest] * count
    result = [rest if reply.ok else failure(reply, host, "RCPT TO", garbage=garbage) for reply in replies]
    return result + [rest] * (count - len(result))
