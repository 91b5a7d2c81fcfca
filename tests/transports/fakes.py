"""
What delivery agents need around them: a reactor with a clock and threads that run at once, a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from qmqpd_tx.interfaces import DeliveryRequest, IMessageContent, SpoolError, TransportContext
from qmqpd_tx.message import Envelope, QueueID, Recipient


class ThreadlessReactor(Clock):
    """A clock whose thread pool runs work in the calling thread, at once."""

    def getThreadPool(self) -> ThreadlessReactor:
        return self

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[..., object], *args: Any, **named: Any
    ) -> None:
        from twisted.python.failure import Failure

        try:
            result = work(*args, **named)
        except BaseException:
            done(False, Failure())
        else:
            done(True, result)

    def callFromThread(self, work: Callable[..., object], *args: Any) -> None:
        work(*args)


@implementer(IMessageContent)
class Content:
    """
    A message content in memory.

    @param data: the content.
    @param fails_at: reading at or after this offset fails.
    """

    def __init__(self, data: bytes, fails_at: int | None = None) -> None:
        self.size = len(data)
        self.memo: dict[str, object] = {}
        self.largest = 0
        self._data = data
        self._fails_at = fails_at

    async def read(self, offset: int, length: int) -> bytes:
        if self._fails_at is not None and offset >= self._fails_at:
            raise SpoolError("queue file is gone")
        self.largest = max(self.largest, length)
        return self._data[offset : offset + length]


def recipients(*addresses: bytes) -> list[Recipient]:
    """
    @return: recipients with these addresses.
    """
    return [Recipient(address, address, number) for number, address in enumerate(addresses)]


def request(
    whom: Sequence[Recipient],
    content: object = None,
    sender: bytes = b"sender@a.test",
    nexthop: str = "here.test",
    transport: str = "local",
) -> DeliveryRequest:
    """
    @return: a delivery request for a message.
    """
    return DeliveryRequest(
        queue_id=QueueID("ABC123"),
        transport=transport,
        nexthop=nexthop,
        sender=sender,
        recipients=whom,
        content=Content(b"Subject: x\n\nbody\n") if content is None else content,
        envelope=Envelope(sender=sender, arrival_time=0.0),
    )


def context(name: str, config: object, reactor: object = None) -> TransportContext:
    """
    @return: what an agent is given for a service of that name.
    """
    return TransportContext(name=name, config=config, reactor=reactor or ThreadlessReactor(), resolver=None)
