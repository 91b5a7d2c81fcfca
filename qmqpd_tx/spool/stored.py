"""
A committed message, open for delivery.

Takes what the store knows of a message; gives content and unfinished recipients, from memory when they
are there, else through the store's disk threads. Holds no descriptor: a queue of any length costs no open
files, and a message may move between queues while it is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable
from operator import attrgetter
from typing import Any, Protocol

from zope.interface import implementer

from qmqpd_tx.interfaces import IMessageContent, IStoredMessage, SpoolError
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient, RecipientSlice
from qmqpd_tx.spool.record import HEADER_SIZE, Layout

_position = attrgetter("position")


@implementer(IMessageContent)
class MemoryContent:
    """
    Content in memory. It is put together when somebody wants it: not while its client waits for an answer.

    @param data: the whole queue file.
    @param layout: where things are in it.
    """

    __slots__ = ("_data", "_layout", "memo", "size")

    def __init__(self, data: bytes, layout: Layout) -> None:
        self._data = data
        self._layout: Layout | None = layout
        self.size = layout.envelope - HEADER_SIZE
        self.memo: dict[Any, Any] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """See L{IMessageContent.read}."""
        layout = self._layout
        if layout is not None:
            data, top = self._data, layout.top
            self._data = data[top : layout.envelope] + data[HEADER_SIZE:top]
            self._layout = None
        if offset == 0 and length >= self.size:
            return self._data
        return self._data[offset : offset + length]


@implementer(IMessageContent)
class FileContent:
    """
    Content that the store has to fetch.

    @param message: whose.
    """

    __slots__ = ("_message", "memo", "size")

    def __init__(self, message: StoredMessage) -> None:
        self._message = message
        self.size = message.size
        self.memo: dict[Any, Any] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """See L{IMessageContent.read}."""
        if offset >= self.size or length <= 0:
            return b""
        message = self._message
        return await message.source.fetch_content(message, offset, min(length, self.size - offset))


@implementer(IMessageContent)
class ClosedContent:
    """
    Content of a message that was closed. It does not know the message: one that is closed is gone from memory
    when nobody has it any more, without the help of the garbage collector.
    """

    __slots__ = ("_queue_id", "memo", "size")

    def __init__(self, queue_id: QueueID, size: int) -> None:
        self._queue_id = queue_id
        self.size = size
        self.memo: dict[Any, Any] = {}

    async def read(self, offset: int, length: int) -> bytes:
        """See L{IMessageContent.read}."""
        raise SpoolError(f"{self._queue_id}: read content: the message is closed")


class Source(Protocol):
    """The store, as an open message sees it."""

    def fetch_content(self, message: StoredMessage, offset: int, length: int) -> Awaitable[bytes]:
        """Read exactly so many bytes of content."""

    def fetch_recipients(
        self, message: StoredMessage, position: int | None, limit: int
    ) -> Awaitable[RecipientSlice]:
        """Read unfinished recipients."""

    def closed(self, message: StoredMessage) -> None:
        """The message was closed; called once."""


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

    @param data: the whole queue file when it is in memory, else L{None}.
    @param recipients: all unfinished recipients in order, when they are in memory, else L{None}.
    @ivar source: the store.
    @ivar layout: where things are in the file.
    @ivar shared: what all handles of the message have in common.
    @ivar in_memory: bytes of the store's memory limit that are used up.
    @ivar is_open: whether L{close} was not called yet.
    """

    __slots__ = (
        "__weakref__",
        "_recipients",
        "content",
        "envelope",
        "in_memory",
        "is_open",
        "layout",
        "queue_id",
        "recipient_count",
        "shared",
        "size",
        "source",
    )

    def __init__(
        self,
        source: Source,
        queue_id: QueueID,
        envelope: Envelope,
        layout: Layout,
        shared: Shared,
        data: bytes | None,
        recipients: list[Recipient] | None,
    ) -> None:
        self.source = source
        self.queue_id = queue_id
        self.envelope = envelope
        self.layout = layout
        self.shared = shared
        self.size = layout.envelope - HEADER_SIZE
        self.recipient_count = layout.recipient_count
        self.is_open = True
        self._recipients = recipients
        self.in_memory = 0 if data is None else layout.size
        self.content: MemoryContent | FileContent | ClosedContent = (
            FileContent(self) if data is None else MemoryContent(data, layout)
        )

    async def recipients(self, position: int | None, limit: int) -> RecipientSlice:
        """See L{IStoredMessage.recipients}."""
        held = self._recipients
        if held is None:
            return await self.source.fetch_recipients(self, position, limit)
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
        if self.is_open:
            self.is_open = False
            self.source.closed(self)
            self._recipients = None
            self.content = ClosedContent(self.queue_id, self.size)
