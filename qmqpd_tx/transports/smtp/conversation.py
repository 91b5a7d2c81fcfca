"""
The client's side of an SMTP session, without I/O.

L{Conversation} takes what the server sends and what the caller wants; it gives the bytes to send
(C{output}) and L{Event}s. It knows no clock, no socket, no retry policy: the stage it is in names the
time limit that applies and the words for the log; what a reply means for a recipient is decided in
L{qmqpd_tx.transports.smtp.outcomes}. It never raises for what a server does. Answers to smtp(8).

States::

  GREETING -> EHLO -> [HELO] -> IDLE -> MAIL -> RCPT... -> DATA -> BODY -> END -> IDLE
                                          \\________\\________\\-> RSET -> IDLE
  any -> QUIT

With PIPELINING the commands MAIL to DATA leave in one piece and the stage follows the replies.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Sequence

from qmqpd_tx.transports.smtp.replies import Reply, ReplyParser

_SIZE_DIGITS = 20  # RFC 1870
_ESMTP = re.compile(rb"(?i)\bESMTP\b")


class Stage(enum.Enum):
    """What is being done; the value is how smtp(8) says it after C{while}."""

    GREETING = "receiving the initial server greeting"
    EHLO = "performing the EHLO handshake"
    HELO = "performing the HELO handshake"
    IDLE = "waiting for work"
    MAIL = "sending MAIL FROM"
    RCPT = "sending RCPT TO"
    DATA = "sending DATA command"
    BODY = "sending message body"
    END = "sending end of data -- message may be sent more than once"
    RSET = "sending RSET"
    QUIT = "sending QUIT"


class Event(enum.Enum):
    """What the caller must know."""

    READY = "the handshake is complete"
    REFUSED = "the server does not want to talk; see C{refusal}"
    CONTENT = "the server wants the message content"
    ABANDON = "the server wants content that nobody is left for: a lone dot was sent"
    FINISHED = "the transaction is over; see the transaction"
    RESET = "RSET was answered: the session can be used again"
    UNSOLICITED = "the server spoke out of turn: the session is of no more use"
    GOODBYE = "QUIT was answered"


class Transaction:
    """
    One message on its way: the commands, and the replies so far.

    @ivar mail: the MAIL command.
    @ivar rcpts: the RCPT commands.
    @ivar mail_reply: the reply to MAIL, or L{None}.
    @ivar rcpt_replies: the replies to RCPT that came, in order.
    @ivar data_reply: the reply to DATA, or L{None}.
    @ivar end_reply: the reply to the end of the content, or L{None}.
    """

    __slots__ = ("accepted", "data_reply", "end_reply", "mail", "mail_reply", "rcpt_replies", "rcpts")

    def __init__(self, mail: bytes, rcpts: Sequence[bytes]) -> None:
        self.mail = mail
        self.rcpts = rcpts
        self.mail_reply: Reply | None = None
        self.rcpt_replies: list[Reply] = []
        self.data_reply: Reply | None = None
        self.end_reply: Reply | None = None
        self.accepted = 0


class Conversation:
    """
    One SMTP session.

    @ivar stage: the L{Stage}.
    @ivar output: bytes to send, in order; whoever sends them clears the list.
    @ivar refusal: the reply that ended the handshake, or L{None}.
    @ivar replies: how many complete replies counted so far.
    @ivar reusable: whether another transaction may follow once the session is L{Stage.IDLE}.
    @ivar pipelining: whether the server offers PIPELINING; likewise C{eight_bit_mime}, C{dsn},
        C{smtputf8}.
    @ivar size: whether it offers SIZE.
    @ivar size_limit: the largest message it takes, or 0.
    """

    __slots__ = (
        "_discard",
        "_helo_name",
        "_parser",
        "_transaction",
        "_unread",
        "_use_ehlo",
        "dsn",
        "eight_bit_mime",
        "output",
        "pipelining",
        "refusal",
        "replies",
        "reusable",
        "size",
        "size_limit",
        "smtputf8",
        "stage",
    )

    def __init__(
        self,
        helo_name: str,
        *,
        reply_limit: int = 2048,
        always_send_ehlo: bool = True,
        never_send_ehlo: bool = False,
        discard_keywords: frozenset[str] = frozenset(),
    ) -> None:
        """
        @param helo_name: C{smtp_helo_name}.
        @param reply_limit: the most bytes kept of a reply line.
        @param always_send_ehlo: C{smtp_always_send_ehlo}.
        @param never_send_ehlo: C{smtp_never_send_ehlo}.
        @param discard_keywords: EHLO keywords to overlook, upper case.
        """
        self._helo_name = helo_name.encode("ascii", "replace")
        self._parser = ReplyParser(reply_limit)
        self._use_ehlo = None if not (always_send_ehlo or never_send_ehlo) else not never_send_ehlo
        self._discard = discard_keywords
        self._transaction: Transaction | None = None
        self._unread: deque[Reply] = deque()
        self.stage = Stage.GREETING
        self.output: list[bytes] = []
        self.refusal: Reply | None = None
        self.replies = 0
        self.reusable = True
        self.pipelining = False
        self.eight_bit_mime = False
        self.dsn = False
        self.smtputf8 = False
        self.size = False
        self.size_limit = 0

    # --- from the server --------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """
        @param data: what came from the server, in any chunking.
        @return: what happened, in order.
        """
        replies = self._parser.feed(data)
        if not self._unread:
            events = []
            for index, reply in enumerate(replies):
                if self.stage is Stage.BODY:
                    # An answer while content is still leaving is the answer to all of it, but first
                    # the caller must stop or finish sending.
                    # A second one would be out of turn, and any more of that say nothing new.
                    self._unread.extend(replies[index : index + 2])
                    break
                event = self._reply(reply)
                if event is not None:
                    events.append(event)
            return events
        if len(self._unread) < 2:
            self._unread.extend(replies[:1])
        return []

    @property
    def garbage(self) -> int:
        """Lines from the server that were no SMTP reply, so far."""
        return self._parser.garbage

    @property
    def last_garbage(self) -> bytes:
        """The newest of them."""
        return self._parser.last_garbage

    def _reply(self, reply: Reply) -> Event | None:
        self.replies += 1
        if reply.code == 421:
            self.reusable = False
        stage = self.stage
        if stage is Stage.RCPT:
            return self._rcpt(reply)
        if stage is Stage.MAIL:
            return self._mail(reply)
        if stage is Stage.DATA:
            return self._data(reply)
        if stage is Stage.END:
            return self._end(reply)
        if stage is Stage.GREETING:
            return self._greeting(reply)
        if stage is Stage.EHLO or stage is Stage.HELO:
            return self._hello(reply)
        if stage is Stage.RSET:
            if not reply.ok:
                self.reusable = False
            self.stage = Stage.IDLE
            return Event.RESET
        if stage is Stage.QUIT:
            return Event.GOODBYE
        self.reusable = False
        return Event.UNSOLICITED

    # --- handshake --------------------------------------------------------------------------------

    def _greeting(self, reply: Reply) -> Event | None:
        if not reply.ok:
            self.refusal = reply
            return Event.REFUSED
        ehlo = self._use_ehlo
        if ehlo is None:
            ehlo = _ESMTP.search(b" ".join(reply.lines)) is not None
        self.stage = Stage.EHLO if ehlo else Stage.HELO
        self.output.append((b"EHLO " if ehlo else b"HELO ") + self._helo_name + b"\r\n")
        return None

    def _hello(self, reply: Reply) -> Event | None:
        if reply.ok:
            if self.stage is Stage.EHLO:
                self._features(reply)
            self.stage = Stage.IDLE
            return Event.READY
        if self.stage is Stage.EHLO and reply.code != 421:
            self.stage = Stage.HELO
            self.output.append(b"HELO " + self._helo_name + b"\r\n")
            return None
        self.refusal = reply
        return Event.REFUSED

    def _features(self, reply: Reply) -> None:
        for line in reply.lines[1:]:
            words = line[4:].decode("ascii", "replace").upper().split()
            if not words or words[0] in self._discard:
                continue
            keyword = words[0]
            if keyword == "PIPELINING":
                self.pipelining = True
            elif keyword == "8BITMIME":
                self.eight_bit_mime = True
            elif keyword == "DSN":
                self.dsn = True
            elif keyword == "SMTPUTF8":
                self.smtputf8 = True
            elif keyword == "SIZE":
                self.size = True
                limit = words[1] if len(words) > 1 else ""
                # A number of so many digits is no limit, and more of them than int() takes.
                number = limit.isascii() and limit.isdigit() and len(limit) <= _SIZE_DIGITS
                self.size_limit = int(limit) if number else 0

    # --- one transaction --------------------------------------------------------------------------

    def begin(self, transaction: Transaction) -> None:
        """
        Start a transaction. The stage must be L{Stage.IDLE} and the session C{reusable}.
        """
        self._transaction = transaction
        self.stage = Stage.MAIL
        if self.pipelining:
            self.output.append(transaction.mail + b"".join(transaction.rcpts) + b"DATA\r\n")
        else:
            self.output.append(transaction.mail)

    @property
    def transaction(self) -> Transaction:
        """The transaction that was begun last."""
        assert self._transaction is not None
        return self._transaction

    def _mail(self, reply: Reply) -> Event | None:
        transaction = self.transaction
        transaction.mail_reply = reply
        if not self.pipelining:
            if not reply.ok:
                return self._give_up()
            self.output.append(transaction.rcpts[0])
        self.stage = Stage.RCPT
        return None

    def _rcpt(self, reply: Reply) -> Event | None:
        transaction = self.transaction
        replies = transaction.rcpt_replies
        replies.append(reply)
        if reply.ok and transaction.mail_reply is not None and transaction.mail_reply.ok:
            transaction.accepted += 1
        if len(replies) == len(transaction.rcpts):
            self.stage = Stage.DATA
            if not self.pipelining:
                if not transaction.accepted:
                    return self._give_up()
                self.output.append(b"DATA\r\n")
        elif not self.pipelining:
            self.output.append(transaction.rcpts[len(replies)])
        return None

    def _data(self, reply: Reply) -> Event | None:
        transaction = self.transaction
        transaction.data_reply = reply
        if 300 <= reply.code <= 399:
            if transaction.accepted:
                self.stage = Stage.BODY
                return Event.CONTENT
            # DATA was pipelined behind recipients of whom none was taken.
            self.stage = Stage.END
            self.output.append(b".\r\n")
            return Event.ABANDON
        return self._give_up()

    def _give_up(self) -> Event:
        self.stage = Stage.IDLE
        if self.reusable:
            self.reset()
        return Event.FINISHED

    def content_sent(self) -> list[Event]:
        """
        The whole content with its final dot was sent (or will be, before anything else).

        @return: what happened, when the server had answered already.
        """
        self.stage = Stage.END
        return self._reread()

    def content_interrupted(self) -> list[Event]:
        """
        No more content can be sent, because the connection was lost. What the server said before counts.

        @return: L{Event.FINISHED} when it had answered.
        """
        if not self._unread:
            return []
        self.stage = Stage.END
        return self._reread()

    def _reread(self) -> list[Event]:
        unread, self._unread = self._unread, deque()
        events = [self._reply(reply) for reply in unread]
        return [event for event in events if event is not None]

    def _end(self, reply: Reply) -> Event:
        self.transaction.end_reply = reply
        self.stage = Stage.IDLE
        if reply.code // 100 not in (2, 4, 5):
            self.reusable = False
        return Event.FINISHED

    # --- between transactions ---------------------------------------------------------------------

    def reset(self) -> None:
        """
        Send RSET.
        """
        self.stage = Stage.RSET
        self.output.append(b"RSET\r\n")

    def quit(self) -> None:
        """
        Send QUIT; nothing can follow.
        """
        self.stage = Stage.QUIT
        self.reusable = False
        self.output.append(b"QUIT\r\n")
