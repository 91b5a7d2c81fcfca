"""
A cleanup service over a queue in memory, and what it stored.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import IArrivals, IConfig, IStoredMessage
from qmqpd_tx.message import ClientInfo, Envelope, QueueID
from qmqpd_tx.spool.memory import MemoryMailQueue

NOW = 1795323652.0
"""Sun, 22 Nov 2026 05:00:52 UTC."""

CONFIG = "myhostname = relay.test\nmydestination =\ncompatibility_level = 3.6\n"
CLIENT = ClientInfo("127.0.0.1", "localhost")

T = TypeVar("T")


def run(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """
    @return: what a coroutine gives that does not suspend, as those of the queue in memory.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it suspended")


def config(text: str = "") -> IConfig:
    """
    @param text: further main.cf lines.
    """
    return config_from_text(CONFIG + text)


@frozen
class Stored:
    """What became of a message."""

    queue_id: QueueID
    envelope: Envelope
    content: bytes
    recipients: list[tuple[bytes, bytes]]

    @property
    def body(self) -> bytes:
        """All but the Received header."""
        received, _, rest = self.content.partition(b"(UTC)\n")
        assert received.startswith(b"Received: "), self.content
        return rest


@implementer(IArrivals)
class Arrivals:
    """
    Reads what arrives.

    @ivar stored: all of it.
    """

    def __init__(self) -> None:
        self.stored: list[Stored] = []

    def arrived(self, message: IStoredMessage) -> None:
        """See L{IArrivals.arrived}."""
        recipients = run(message.recipients(None, 100000)).recipients
        self.stored.append(
            Stored(
                message.queue_id,
                message.envelope,
                run(message.content.read(0, message.content.size)),
                [(recipient.address, recipient.original) for recipient in recipients],
            )
        )
        message.close()


class Intake:
    """
    The service under test.

    @ivar clock: its time.
    @ivar queue: its queue.
    @ivar arrivals: what it stored.
    """

    def __init__(self, text: str = "", capacity: int | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.queue = MemoryMailQueue(capacity)
        self.queue.start()
        self.arrivals = Arrivals()
        self.cleanup = Cleanup(
            config=config(text),
            clock=self.clock,
            queue=self.queue,
            arrivals=self.arrivals,
            timezone=lambda _: 0,
            zone_name=lambda _: "UTC",
        )

    def send(
        self,
        chunks: Iterable[bytes],
        sender: bytes = b"s@ex.test",
        recipients: Iterable[bytes] = (b"r@dest.test",),
        client: ClientInfo | None = CLIENT,
    ) -> Deferred[QueueID]:
        """
        A whole message.
        """
        incoming = self.cleanup.begin(client)
        for chunk in chunks:
            incoming.content(chunk)
        incoming.sender(sender)
        for recipient in recipients:
            incoming.recipient(recipient)
        return incoming.finish()

    def store(
        self,
        content: bytes,
        sender: bytes = b"s@ex.test",
        recipients: Iterable[bytes] = (b"r@dest.test",),
        client: ClientInfo | None = CLIENT,
    ) -> Stored:
        """
        @return: what was stored of a message that must be accepted.
        """
        self.send([content], sender, recipients, client).addErrback(lambda failure: failure.raiseException())
        return self.arrivals.stored.pop()
