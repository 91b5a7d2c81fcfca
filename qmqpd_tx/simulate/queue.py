"""
The queue in memory, watched: how many messages each queue has, and what became of each.

Takes what the queue manager asks for and passes it on to L{MemoryMailQueue}; tells a listener when a message
ends a run. Same promises as the queue that it extends.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.simulate.records import MessageRecord
from qmqpd_tx.spool.memory import MemoryMailQueue


class WatchedQueue(MemoryMailQueue):
    """
    @ivar records: of all messages in the queue.
    @ivar sizes: how many messages each queue has.
    """

    def __init__(self, ended: Callable[[MessageRecord, bool], None]) -> None:
        """
        @param ended: called when a message ends a run, with whether it has left the queue.
        """
        super().__init__()
        self.records: dict[QueueID, MessageRecord] = {}
        self.sizes: dict[Queue, int] = dict.fromkeys(Queue, 0)
        self._ended = ended

    def enter(self, queue_id: QueueID, record: MessageRecord) -> None:
        """
        A message was committed.
        """
        self.records[queue_id] = record
        self.sizes[Queue.INCOMING] += 1

    def move(
        self, queue_id: QueueID, source: Queue, target: Queue, due: float | None = None
    ) -> Deferred[None]:
        """See L{IMailQueue.move}."""
        moved = super().move(queue_id, source, target, due)
        if moved.called and moved.result is None:
            self.sizes[source] -= 1
            self.sizes[target] += 1
            record = self.records.get(queue_id)
            if record is not None and source is Queue.ACTIVE:
                self._ended(record, False)
                record.runs += 1
        return moved

    def remove(self, queue_id: QueueID, queue: Queue) -> Deferred[None]:
        """See L{IMailQueue.remove}."""
        removed = super().remove(queue_id, queue)
        record = self.records.pop(queue_id, None)
        if record is not None:
            self.sizes[queue] -= 1
            self._ended(record, True)
        return removed
