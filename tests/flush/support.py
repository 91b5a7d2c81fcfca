"""
A flush service over a queue in memory, and a queue manager that only notes what it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.flush import FlushService
from qmqpd_tx.interfaces import IMailQueue, MessageNotFound, SpoolError
from qmqpd_tx.message import LogKind, QueueID, Recipient
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.spool.queueid import encode
from qmqpd_tx.tables import OpenTable, open_table
from tests.cleanup.support import NOW, config

DOMAINS = "fast_flush_domains = y.test, z.test\n"


def queue_id(number: int) -> QueueID:
    """
    @return: the id of some message.
    """
    return encode(int(NOW * 1e6) + number)


def to(*addresses: bytes) -> list[Recipient]:
    """
    @return: recipients.
    """
    return [Recipient(address, address, position) for position, address in enumerate(addresses)]


class Manager:
    """
    The queue manager, as the flush service sees it.

    @ivar tried: whom it was asked to deliver, in order.
    @ivar gone: messages that are not deferred.
    @ivar stuck: messages that cannot be opened.
    @ivar forgotten: how often it forgot dead destinations.
    @ivar instead: what to do instead of L{deliver_now}.
    """

    def __init__(self) -> None:
        self.tried: list[QueueID] = []
        self.gone: set[QueueID] = set()
        self.stuck: set[QueueID] = set()
        self.forgotten = 0
        self.instead: Callable[[QueueID], Deferred[None]] = self.deliver

    def deliver_now(self, queue_id: QueueID) -> Deferred[bool]:
        """See L{FlushService}."""
        return self.instead(queue_id)

    def deliver(self, queue_id: QueueID) -> Deferred[bool]:
        """
        Note that a message was made active.
        """
        if queue_id in self.gone:
            return fail(MessageNotFound(f"{queue_id}: not there"))
        if queue_id in self.stuck:
            return fail(SpoolError(f"{queue_id}: input/output error"))
        self.tried.append(queue_id)
        return succeed(True)

    def forget_dead(self) -> None:
        """See L{FlushService}."""
        self.forgotten += 1

    def take(self) -> list[QueueID]:
        """
        @return: whom it was asked to deliver since this was last called.
        """
        tried, self.tried = self.tried, []
        return tried


class FlushTestCase(SynchronousTestCase):
    """
    @ivar clock: its time.
    @ivar queue: its queue.
    @ivar manager: see L{Manager}.
    @ivar service: the service under test.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.queue = MemoryMailQueue()
        self.queue.start()
        self.manager = Manager()
        self.service = self.make(DOMAINS)
        self.service.startService()

    def make(
        self, text: str, queue: IMailQueue | None = None, open_table: OpenTable = open_table
    ) -> FlushService:
        """
        @param text: main.cf lines.
        @param open_table: opens tables in C{fast_flush_domains}.
        @return: a service that does not run yet.
        """
        service = FlushService(
            config=config(text),
            clock=self.clock,
            queue=queue or self.queue,
            deliver_now=self.manager.deliver_now,
            forget_dead=self.manager.forget_dead,
            open_table=open_table,
        )
        self.addCleanup(lambda: service.running and self.successResultOf(service.stopService()))
        return service

    def restart(self, text: str = DOMAINS) -> None:
        """
        Another process takes over the queue.
        """
        if self.service.running:
            self.successResultOf(self.service.stopService())
        self.service = self.make(text)
        self.service.startService()

    def defer(self, number: int, *addresses: bytes) -> None:
        """
        A message is deferred for these recipients.
        """
        waiting = self.service.deferred(queue_id(number), to(*addresses))
        if waiting is not None:
            self.successResultOf(waiting)

    def flush(self, site: str) -> list[QueueID]:
        """
        @return: the messages that were tried.
        """
        self.manager.take()
        count = self.successResultOf(self.service.flush_site(site))
        tried = self.manager.take()
        self.assertEqual(count, len(tried))
        return tried

    def logs(self) -> dict[QueueID, int]:
        """
        @return: how many records each log of the service has; there are none without.
        """
        found = self.queue._logs.items()
        return {name: len(log) for (kind, name), log in found if kind is LogKind.FLUSH and log}
