"""
Puts a notice into the queue.

Takes what a notice is about, and the open message; gives the notice to cleanup piece by piece, so that a
message of any size is attached with constant memory. The notice is safely in the queue when this is done;
when it fails, nothing is left of it. Answers to bounce(8).
"""

from __future__ import annotations

from collections.abc import Iterator

from qmqpd_tx.bounce.compose import Report, lead, tail
from qmqpd_tx.bounce.records import FailedRecipient
from qmqpd_tx.eager import ready
from qmqpd_tx.interfaces import ICleanup, IIncomingMessage, IMessageContent, Treatment
from qmqpd_tx.message import QueueID

READ_SIZE = 65536
"""How much of a message is copied at a time, in bytes."""


async def send(
    cleanup: ICleanup,
    content: IMessageContent,
    report: Report,
    recipients: list[FailedRecipient],
    sender: bytes,
    headers_limit: int,
    treatment: Treatment,
) -> QueueID:
    """
    @param content: of the message that the notice is about.
    @param report: the notice.
    @param recipients: about whom.
    @param sender: the envelope sender of the notice.
    @param headers_limit: when only headers are attached, about how many bytes of them.
    @param treatment: what it goes through on its way in.
    @return: the notice, safely in the queue.
    @raise IntakeError: it was not taken.
    @raise SpoolError: the message cannot be read.
    """
    incoming: IIncomingMessage = cleanup.begin(None, treatment=treatment)
    try:
        for piece in _gather(lead(report, recipients)):
            await ready(incoming.content(piece))
        await _copy(content, incoming, None if report.whole else headers_limit)
        await ready(incoming.content(tail(report)))
        await ready(incoming.sender(sender))
        await ready(incoming.recipient(report.to))
    except BaseException:
        incoming.abort()
        raise
    notice: QueueID = await incoming.finish()
    return notice


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
        await ready(incoming.content(data))
        last = data[-1:] or last
        if end >= 0:
            break
    if last != b"\n":
        await ready(incoming.content(b"\n"))
