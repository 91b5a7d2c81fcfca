"""
The queue listings of postqueue(1), C{-p} and C{-j}. Pure.

Takes values that say what is queued; gives lines, byte for byte as Postfix prints them for queue ids
of this length. One message at a time, so that a listing costs no more memory than its largest message.

Answers to: postqueue(1) and showq(8).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

HEADING = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"

EMPTY = "Mail queue is empty"

NULL_SENDER = "MAILER-DAEMON"
"""How the null sender is shown."""

MARKS = {"active": "*", "hold": "!"}
"""What follows the queue id of a message in these queues."""


@frozen(slots=True)
class ListedRecipient:
    """
    A recipient that still needs to be delivered.

    @ivar address: as in C{"user name"@example.org}: quoted where SMTP quotes it.
    @ivar reason: why the last attempt failed, or L{None}.
    """

    address: str
    reason: str | None = None


@frozen(slots=True)
class ListedMessage:
    """
    A queued message.

    @ivar queue_name: the name of its queue.
    @ivar queue_id: its queue id.
    @ivar arrival_time: POSIX seconds.
    @ivar size: bytes of content.
    @ivar sender: quoted as an address is; empty for the null sender.
    @ivar recipients: those still to do; those with a reason come first, in the order of the defer log.
    """

    queue_name: str
    queue_id: str
    arrival_time: float
    size: int
    sender: str
    recipients: Sequence[ListedRecipient]


def printable(text: str) -> str:
    """
    @return: C{text} with what is not printable as C{?}: a listing cannot be forged or drive a terminal.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def plain(messages: Iterable[ListedMessage]) -> Iterator[str]:
    """
    @return: the lines of C{postqueue -p}, without their ends.
    """
    count = 0
    total = 0
    for message in messages:
        if not count:
            yield HEADING
        count += 1
        total += message.size
        marked = message.queue_id + MARKS.get(message.queue_name, "")
        # ctime(3) without its year, as Postfix cuts it.
        arrived = time.asctime(time.localtime(int(message.arrival_time)))[:20]
        yield f"{marked:<11} {message.size:7d} {arrived:20} {printable(message.sender) or NULL_SENDER}"
        said: str | None = None
        for recipient in message.recipients:
            if recipient.reason and recipient.reason != said:
                said = recipient.reason
                yield f"{'(' + printable(said) + ')':>78}"
            yield f"{'':41}{printable(recipient.address)}"
        yield ""
    if count:
        yield f"-- {total // 1024} Kbytes in {count} Request{'' if count == 1 else 's'}."
    else:
        yield EMPTY


def as_json(message: ListedMessage) -> str:
    """
    @return: the line of C{postqueue -j} for one message, without its end.
    """
    recipients = []
    for recipient in message.recipients:
        shown = {"address": printable(recipient.address)}
        if recipient.reason:
            shown["delay_reason"] = printable(recipient.reason)
        recipients.append(shown)
    return json.dumps(
        {
            "queue_name": message.queue_name,
            "queue_id": message.queue_id,
            "arrival_time": int(message.arrival_time),
            "message_size": message.size,
            "forced_expire": False,
            "sender": printable(message.sender) or NULL_SENDER,
            "recipients": recipients,
        },
        ensure_ascii=False,
    )
