"""
A message's content on its way to servers: encoded once, kept when small, streamed when large.

Small content (up to L{WHOLE_LIMIT} bytes) is read and encoded in one piece; the encoding is kept in the
content's C{memo} for its other deliveries. Larger content is read, encoded and sent L{CHUNK} bytes at a
time, so that memory is bounded whatever its size. Fails with
L{SpoolError<qmqpd_tx.interfaces.SpoolError>} when the queue file cannot be read.
"""

from __future__ import annotations

from qmqpd_tx.interfaces import IMessageContent
from qmqpd_tx.transports.smtp.connection import ContentSource
from qmqpd_tx.transports.smtp.downgrade import Downgrader
from qmqpd_tx.transports.smtp.encode import END, ContentEncoder, encode

CHUNK = 98304
"""Bytes read at a time: enough to keep a fast network busy, little enough for thousands of deliveries."""

WHOLE_LIMIT = 131072
"""Content up to this size is encoded in one piece and kept."""


class StreamedContent:
    """Large content: a L{ContentSource}."""

    __slots__ = ("_content", "_downgrader", "_encoder", "_offset", "_size")

    def __init__(self, content: IMessageContent, line_limit: int, downgrade: bool) -> None:
        """
        @param content: the message's.
        @param line_limit: C{smtp_line_length_limit}.
        @param downgrade: the server does not take 8-bit mail.
        """
        self._content = content
        self._size = content.size
        self._offset = 0
        self._encoder = ContentEncoder(line_limit)
        self._downgrader = Downgrader() if downgrade else None

    async def next(self) -> tuple[bytes, bool]:
        """
        @return: the next bytes for the wire, and whether they are the last.
        """
        data: bytes = await self._content.read(self._offset, CHUNK)
        self._offset += len(data)
        last = not data or self._offset >= self._size
        if self._downgrader is not None:
            data = self._downgrader.feed(data)
            if last:
                data += self._downgrader.finish()
        encoded = self._encoder.feed(data)
        return (encoded + self._encoder.finish(), True) if last else (encoded, False)


async def content_for(
    content: IMessageContent, line_limit: int, downgrade: bool
) -> tuple[bytes | ContentSource, int]:
    """
    @param content: the message's.
    @param line_limit: C{smtp_line_length_limit}.
    @param downgrade: the server does not take 8-bit mail, and conversion is enabled.
    @return: the content for one delivery, and its size for the SIZE parameter: exact when it is sent in
        one piece, else the size in the queue (line ends count once).
    """
    if content.size > WHOLE_LIMIT:
        return StreamedContent(content, line_limit, downgrade), content.size
    key = ("smtp", line_limit, downgrade)
    encoded: bytes | None = content.memo.get(key)
    if encoded is None:
        data: bytes = await content.read(0, content.size)
        while len(data) < content.size:
            more: bytes = await content.read(len(data), content.size - len(data))
            if not more:
                break
            data += more
        if downgrade:
            downgrader = Downgrader()
            data = downgrader.feed(data) + downgrader.finish()
        encoded = encode(data, line_limit)
        content.memo[key] = encoded
    return encoded, len(encoded) - len(END)
