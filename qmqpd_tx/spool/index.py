"""
The index of deferred mail, ordered by when each message is due.

Takes times and queue ids, gives what is due. In memory: rebuilt from the files' times at start-up. Every
call costs what it gives, not what is queued. Answers to the deferred queue scan of Postfix's qmgr(8),
which looks at every file.

A heap with lazy deletion: the dict is the truth, the heap may hold stale pairs, which are dropped as
they come to the top and swept out when they are the majority.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from qmqpd_tx.interfaces import QueuedEntry
from qmqpd_tx.message import QueueID


class DueIndex:
    """
    Messages by due time.

    @param entries: what to start with.
    """

    __slots__ = ("_due", "_heap")

    def __init__(self, entries: Iterable[tuple[QueueID, float]] = ()) -> None:
        self._due: dict[QueueID, float] = dict(entries)
        self._heap: list[tuple[float, QueueID]] = []
        self._rebuild()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, queue_id: QueueID) -> bool:
        return queue_id in self._due

    def get(self, queue_id: QueueID) -> float | None:
        """
        @return: when a message is due, or L{None} when it is not there.
        """
        return self._due.get(queue_id)

    def set(self, queue_id: QueueID, due: float) -> None:
        """
        Add a message, or change when it is due.
        """
        self._due[queue_id] = due
        heapq.heappush(self._heap, (due, queue_id))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._rebuild()

    def drop(self, queue_id: QueueID) -> float | None:
        """
        @return: when it was due, or L{None} when it was not there.
        """
        return self._due.pop(queue_id, None)

    def due(self, now: float, limit: int) -> list[QueuedEntry]:
        """
        @return: up to C{limit} messages whose time has come, earliest first. They stay.
        """
        found: list[tuple[float, QueueID]] = []
        entries: list[QueuedEntry] = []
        seen: set[QueueID] = set()
        while len(entries) < limit and self._heap and self._heap[0][0] <= now:
            pair = heapq.heappop(self._heap)
            when, queue_id = pair
            # Set twice to the same time, a message has two equal pairs: one is enough.
            if self._due.get(queue_id) == when and queue_id not in seen:
                seen.add(queue_id)
                found.append(pair)
                entries.append(QueuedEntry(queue_id, when))
        for pair in found:
            heapq.heappush(self._heap, pair)
        return entries

    def next_due(self) -> float | None:
        """
        @return: when the first message is due, or L{None}.
        """
        while self._heap:
            when, queue_id = self._heap[0]
            if self._due.get(queue_id) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def _rebuild(self) -> None:
        self._heap = [(when, queue_id) for queue_id, when in self._due.items()]
        heapq.heapify(self._heap)
