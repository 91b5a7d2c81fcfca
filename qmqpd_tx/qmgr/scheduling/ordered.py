"""
Things in an order, where most come in order and any may leave at any time.

Pure. A step costs the same whatever is in it, give or take a logarithm for what comes out of order: what
comes in order stands in a line, the rest in a heap, and what has left is skipped when it is met, or swept out
when it is more than half of all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_SLACK = 32
"""So many that have left are never worth a sweep."""


class Ordered(Generic[Item]):
    """
    A set of items with keys, whose first one can be looked at. Of two with the same key, either is first.
    """

    __slots__ = ("_heap", "_keys", "_line", "_serial")

    def __init__(self) -> None:
        self._keys: dict[Item, Any] = {}
        self._line: deque[tuple[Any, Item]] = deque()
        self._heap: list[tuple[Any, int, Item]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: Item) -> bool:
        return item in self._keys

    def __iter__(self) -> Iterator[Item]:
        """
        @return: all items, in no order.
        """
        return iter(self._keys)

    def push(self, item: Item, key: Any) -> None:
        """
        Put an item in its place; one that is there already moves.

        @param key: what it is ordered by; any kind of value that can be compared with the others' keys.
        """
        keys = self._keys
        moves = item in keys
        keys[item] = key
        line = self._line
        if not line or line[-1][0] < key:
            line.append((key, item))
        else:
            self._serial += 1
            heapq.heappush(self._heap, (key, self._serial, item))
        if moves:
            self._tidy()

    def discard(self, item: Item) -> None:
        """
        Take an item out, if it is there.
        """
        if self._keys.pop(item, None) is None:
            return
        line = self._line
        if line and line[0][1] is item:
            # Most leave at the head.
            line.popleft()
        else:
            self._tidy()

    def first(self) -> Item | None:
        """
        @return: the item with the smallest key, or L{None}.
        """
        keys = self._keys
        line = self._line
        while line:
            key, item = line[0]
            if keys.get(item) is key:
                break
            line.popleft()
        heap = self._heap
        if heap:
            while heap:
                key, _, item = heap[0]
                if keys.get(item) is key:
                    break
                heapq.heappop(heap)
            if heap and (not line or heap[0][0] < line[0][0]):
                return heap[0][2]
        return line[0][1] if line else None

    def _tidy(self) -> None:
        """Sweep out the places of those that have left, when they are more than half."""
        line, heap, keys = self._line, self._heap, self._keys
        if len(line) + len(heap) <= 2 * len(keys) + _SLACK:
            return
        self._line = deque(place for place in line if keys.get(place[1]) is place[0])
        self._heap = [place for place in heap if keys.get(place[2]) is place[0]]
        heapq.heapify(self._heap)
