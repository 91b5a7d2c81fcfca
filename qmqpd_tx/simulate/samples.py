"""
What the queue and the destinations looked like, at regular times.

Takes a look every so often, gives a bounded number of rows: when there are too many, each two become one and
the distance between two looks is doubled. With a file to write to, all rows go there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from qmqpd_tx.message import Queue
from qmqpd_tx.simulate.clock import SimulatedClock
from qmqpd_tx.simulate.queue import WatchedQueue
from qmqpd_tx.simulate.records import DestinationRecord

ROWS: Final = 2000
"""How many rows are kept."""

FIRST: Final = 1.0
"""The distance between two looks at the beginning, seconds."""


@frozen(slots=True)
class Sample:
    """
    One look.

    @ivar time: POSIX seconds.
    @ivar incoming: messages in that queue; the most since the row before, where rows were put together.
    @ivar active: messages in that queue.
    @ivar deferred: messages in that queue.
    @ivar busy: deliveries under way, by destination; the mean since the look before.
    @ivar windows: the concurrency windows, by destination.
    """

    time: float
    incoming: int
    active: int
    deferred: int
    busy: Sequence[float]
    windows: Sequence[int]


class Sampler:
    """
    @ivar rows: what was seen.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        queue: WatchedQueue,
        destinations: Sequence[DestinationRecord],
        wrote: Callable[[Sample], None] | None,
    ) -> None:
        """
        @param wrote: is told each row.
        """
        self.rows: list[Sample] = []
        self._clock = clock
        self._queue = queue
        self._destinations = destinations
        self._wrote = wrote
        self._every = FIRST
        self._before = clock.seconds()
        self._integrals = [0.0] * len(destinations)
        clock.callLater(FIRST, self._tick)

    def look(self) -> None:
        """
        Add a row for now.
        """
        now = self._clock.seconds()
        span = now - self._before
        if span <= 0:
            return
        busy = []
        for number, record in enumerate(self._destinations):
            record.busy.settle(now)
            busy.append((record.busy.integral - self._integrals[number]) / span)
            self._integrals[number] = record.busy.integral
        self._before = now
        sizes = self._queue.sizes
        row = Sample(
            now,
            sizes[Queue.INCOMING],
            sizes[Queue.ACTIVE],
            sizes[Queue.DEFERRED],
            busy,
            [record.window for record in self._destinations],
        )
        self.rows.append(row)
        if self._wrote is not None:
            self._wrote(row)
        if len(self.rows) >= ROWS:
            self.rows[:] = [_together(*pair) for pair in zip(self.rows[::2], self.rows[1::2], strict=False)]
            self._every *= 2

    def _tick(self) -> None:
        self.look()
        self._clock.callLater(self._every, self._tick)


def _together(first: Sample, second: Sample) -> Sample:
    """
    @return: one row for two that are equally long: the greatest queues, so that no peak is lost, and means.
    """
    return Sample(
        second.time,
        max(first.incoming, second.incoming),
        max(first.active, second.active),
        max(first.deferred, second.deferred),
        [(one + other) / 2 for one, other in zip(first.busy, second.busy, strict=True)],
        second.windows,
    )
