"""
The index of deferred mail, ordered by when each message is due.

Takes times and queue ids, gives what is due. In memory: rebuilt from the files' times after each start. A
call costs what it gives or changes, not what is queued; only L{DueIndex.walk}, which is for trying
everything, copies the list of everything once (some ten milliseconds for a million messages). Answers to the
deferred queue scan of Postfix's qmgr(8), which looks at every file.

A heap with lazy deletion: the dict is the truth, the heap may hold stale pairs, which are dropped as they
come to the top. When they are the majority the heap is given up for a new one, and drained into it a few
pairs with each change, so that no single change pays for all.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from qmqpd_tx.interfaces import QueuedEntry
from qmqpd_tx.message import QueueID

Pair = tuple[float, QueueID]
"""When a message is due, and which."""

_DRAIN = 4
"""How many pairs of a heap that was given up are looked at with each change: more than a change adds."""

_SLACK = 64
"""How many stale pairs are not worth a new heap."""


class DueIndex:
    """
    Messages by due time.

    @param entries: what to start with.
    """

    __slots__ = ("_due", "_heap", "_old")

    def __init__(self, entries: Iterable[tuple[QueueID, float]] = ()) -> None:
        self._due: dict[QueueID, float] = dict(entries)
        self._heap: list[Pair] = [(when, queue_id) for queue_id, when in self._due.items()]
        self._old: list[Pair] = []
        heapq.heapify(self._heap)

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
        if self._old:
            self._drain()
        elif len(self._heap) > 2 * len(self._due) + _SLACK:
            self._old, self._heap = self._heap, self._old

    def _drain(self) -> None:
        # From the end of the list, where that leaves a heap a heap.
        old = self._old
        for _ in range(min(_DRAIN, len(old))):
            pair = old.pop()
            if self._due.get(pair[1]) == pair[0]:
                heapq.heappush(self._heap, pair)

    def drop(self, queue_id: QueueID) -> float | None:
        """
        @return: when it was due, or L{None} when it was not there.
        """
        return self._due.pop(queue_id, None)

    def _first(self) -> list[Pair] | None:
        """
        @return: the heap that has the earliest pair, or L{None} when both are empty.
        """
        heap, old = self._heap, self._old
        if not old:
            return heap or None
        return old if not heap or old[0] < heap[0] else heap

    def due(self, now: float, limit: int) -> list[QueuedEntry]:
        """
        @return: up to C{limit} messages whose time has come, earliest first. They stay.
        """
        found: list[Pair] = []
        while len(found) < limit:
            heap = self._first()
            if heap is None or heap[0][0] > now:
                break
            pair = heapq.heappop(heap)
            # Set twice to the same time, a message has two equal pairs: one is enough.
            if self._due.get(pair[1]) == pair[0] and not (found and found[-1] == pair):
                found.append(pair)
        for pair in found:
            heapq.heappush(self._heap, pair)
        return [QueuedEntry(queue_id, when) for when, queue_id in found]

    def next_due(self) -> float | None:
        """
        @return: when the first message is due, or L{None}.
        """
        while (heap := self._first()) is not None:
            when, queue_id = heap[0]
            if self._due.get(queue_id) == when:
                return when
            heapq.heappop(heap)
        return None

    def walk(self) -> IndexWalk:
        """
        @return: a walk through what is here now.
        """
        return IndexWalk(self, [self._heap.copy(), self._old.copy()])


class IndexWalk:
    """
    Gives the messages of an index, earliest due first; those that have left since, or have another time, are
    left out.

    @param heaps: the pairs, in heaps that are ours.
    """

    __slots__ = ("__weakref__", "_heaps", "_index", "_last")

    def __init__(self, index: DueIndex, heaps: list[list[Pair]]) -> None:
        self._index = index
        self._heaps = [heap for heap in heaps if heap]
        self._last: Pair | None = None

    def add(self, entries: Iterable[tuple[QueueID, float]]) -> None:
        """
        Add messages that were there already when the walk began, and were not known.
        """
        for queue_id, when in entries:
            if not self._heaps:
                self._heaps.append([])
            heapq.heappush(self._heaps[0], (when, queue_id))

    def take(self, limit: int) -> list[QueuedEntry]:
        """
        @return: up to C{limit} more; none at the end.
        """
        found: list[QueuedEntry] = []
        while self._heaps and len(found) < limit:
            heap = min(self._heaps, key=_top)
            pair = heapq.heappop(heap)
            if not heap:
                self._heaps = [other for other in self._heaps if other]
            when, queue_id = pair
            if pair != self._last and self._index.get(queue_id) == when:
                self._last = pair
                found.append(QueuedEntry(queue_id, when))
        return found


def _top(heap: list[Pair]) -> Pair:
    return heap[0]
