"""
QMQP replies: one netstring whose first byte says what became of the message. Pure.

Takes a class and a text; gives bytes. The text may hold what came from the network: it leaves as one line of
printable ASCII of bounded length, whatever it was. Answers to Postfix's qmqpd(8) replies, watched.
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

from qmqpd_tx.netstring import encode

TEXT_LIMIT = 1000
"""The longest reply text, in bytes."""

_unprintable = re.compile(rb"[^ -~]").sub


class ReplyClass(enum.Enum):
    """What became of the message; the value is the first byte of the reply."""

    ACCEPTED = b"K"
    TEMPORARY = b"Z"
    PERMANENT = b"D"


@frozen(slots=True)
class Refusal:
    """
    A negative reply.

    @ivar reply_class: whether trying again can help.
    @ivar text: why.
    @ivar delay: whether it waits for C{qmqpd_error_delay}.
    """

    reply_class: ReplyClass
    text: str
    delay: bool = True


def encode_reply(reply_class: ReplyClass, text: str) -> bytes:
    """
    @return: the reply as it goes over the wire.
    """
    printable = _unprintable(b"?", text.encode("ascii", "replace")[:TEXT_LIMIT])
    return encode(reply_class.value + printable)
