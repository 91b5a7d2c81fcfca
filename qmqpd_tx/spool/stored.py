"""
A committed message, open for delivery.

Takes what the store knows of a message; gives content and unfinished recipients, from memory when they
are there, else through the store's disk threads. Holds no descriptor: a queue of any length costs no open
files, and a message may move between queues while it is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

from zope.interface import implementer

from qmqpd_tx.interfaces import IMessageContent, IStoredMessage, SpoolError
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient, RecipientSlice

_position = attrgetter("position")


@implementer(IMessageContent)
class MemoryContent:
    """Content in memory."""

    __slots__ = ("_data", "memo", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.memo: dict[Any, Any] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """See L{IMessageContent.read}."""
        if offset == 0 and length >= self.size:
            return self._data
        return self._data[offset : offset + length]


@implementer(IMessageContent)
class FileContent:
    """
    Content on disk.

    @param size: bytes.
    @param fetch: reads some of it.
    """

    __slots__ = ("_fetch", "memo", "size")

    def __init__(self, size: int, fetch: Callable[[int, int], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self.size = size
        self.memo: dict[Any, Any] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """See L{IMessageContent.read}."""
        if offset >= self.size or length <= 0:
            return b""
        return await self._fetch(offset, min(length, self.size - offset))


class Shared:
    """
    What all open handles of one message have in common.

    @ivar queue: where the message is, or will be when all that was asked for is done.
    @ivar done: positions marked since the first handle was opened.
    @ivar handles: how many handles are open.
    """

    __slots__ = ("done", "handles", "queue")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.done: set[int] = set()
        self.handles = 0


@implementer(IStoredMessage)
class StoredMessage:
    """
    See L{IStoredMessage}.

    @param recipients: all unfinished recipients in order, when they are in memory, else L{None}.
    @param fetch: reads unfinished recipients from disk.
    @param closed: called once, at the first L{close}.
    """

    __slots__ = (
        "_closed",
        "_fetch",
        "_recipients",
        "content",
        "envelope",
        "queue_id",
        "recipient_count",
        "shared",
        "size",
    )

    def __init__(
        self,
        queue_id: QueueID,
        envelope: Envelope,
        content: MemoryContent | FileContent,
        recipient_count: int,
        shared: Shared,
        recipients: list[Recipient] | None,
        fetch: Callable[[StoredMessage, int | None, int], Awaitable[RecipientSlice]],
        closed: Callable[[StoredMessage], None],
    ) -> None:
        self.queue_id = queue_id
        self.envelope = envelope
        self.content = content
        self.size = content.size
        self.recipient_count = recipient_count
        self.shared = shared
        self._recipients = recipients
        self._fetch = fetch
        self._closed: Callable[[StoredMessage], None] | None = closed

    async def recipients(self, position: int | None, limit: int) -> RecipientSlice:
        """See L{IStoredMessage.recipients}."""
        if self._closed is None:
            raise SpoolError(f"{self.queue_id}: read recipients: the message is closed")
        held = self._recipients
        if held is None:
            return await self._fetch(self, position, limit)
        start = 0 if position is None else bisect_left(held, position, key=_position)
        done = self.shared.done
        found: list[Recipient] = []
        for index in range(start, len(held)):
            recipient = held[index]
            if len(found) >= limit:
                return RecipientSlice(found, recipient.position)
            if recipient.position not in done:
                found.append(recipient)
        return RecipientSlice(found, None)

    def close(self) -> None:
        """See L{IStoredMessage.close}."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self)
            self._recipients = None
            self.content = FileContent(self.size, _closed)

    @property
    def in_memory(self) -> bool:
        """Whether content and recipients are in memory."""
        return self._recipients is not None


async def _closed(offset: int, length: int) -> bytes:
    raise SpoolError("read content: the message is closed")
