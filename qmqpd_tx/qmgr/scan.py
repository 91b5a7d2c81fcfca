"""
Walks through the incoming and the deferred queue, a slice at a time, as fast as the active queue takes what
they find.

L{QueueScan} gives queue ids one by one and fetches the next slice when it has run out; a scan that is
requested while one runs starts again when that one ends. Nothing is moved or opened here, and nothing is
remembered after the end. A store that fails ends the scan with a log line; the next run tries again.
Answers to qmgr(8)'s queue scans.

The deferred queue is read from the store's index, those that are due; or, when time stamps are to be ignored,
all of them, each once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IMailQueue, IQueueScan, QueuedEntry
from qmqpd_tx.message import Queue, QueueID

log = Logger(namespace="qmqpd_tx.qmgr")

SLICE: Final = 100
"""How many messages are looked up at a time."""


class ScanState(enum.Enum):
    """Where a scan is."""

    IDLE = enum.auto()
    READY = enum.auto()
    """Under way; the next slice may be fetched."""
    FETCHING = enum.auto()
    """Under way, waiting for the store."""


class _Source(Protocol):
    """What gives a scan its slices."""

    def fetch(self) -> Deferred[Sequence[QueuedEntry]] | Sequence[QueuedEntry]:
        """
        @return: more entries; none at the end.
        """


class _Walk:
    """All messages of a queue, due or not."""

    def __init__(self, scan: IQueueScan) -> None:
        self._scan = scan

    def fetch(self) -> Deferred[Sequence[QueuedEntry]]:
        found: Deferred[Sequence[QueuedEntry]] = self._scan.next(SLICE)
        return found


class _Due:
    """
    The deferred messages that were due when the scan began, earliest first.

    The index keeps a message until it was moved, so those taken and not yet moved are looked past.
    """

    def __init__(self, queue: IMailQueue, now: float, taken: set[QueueID]) -> None:
        self._queue = queue
        self._now = now
        self._taken = taken

    def fetch(self) -> Sequence[QueuedEntry]:
        taken = self._taken
        entries: Sequence[QueuedEntry] = self._queue.due(self._now, SLICE + len(taken))
        found = [entry for entry in entries if entry.queue_id not in taken]
        taken.update(entry.queue_id for entry in found)
        return found


class QueueScan:
    """
    The scans of one queue.

    @ivar state: where it is.
    @ivar flush_next: whether the next scan that starts brings in mail that C{defer_transports} does not hold
        back: trigger F sticks to it.
    @ivar flushing: whether the scan that L{take} has just taken from does.
    """

    def __init__(
        self, queue: IMailQueue, which: Queue, clock: IReactorTime, wake: Callable[[], None]
    ) -> None:
        """
        @param queue: the store.
        @param which: C{Queue.INCOMING} or C{Queue.DEFERRED}.
        @param clock: tells what is due.
        @param wake: called when L{take} may give something again.
        """
        self._queue = queue
        self._which = which
        self._clock = clock
        self._wake = wake
        self.state = ScanState.IDLE
        self.flush_next = False
        self.flushing = False
        self._source: _Source | None = None
        self._found: deque[QueueID] = deque()
        self._taken: set[QueueID] = set()
        self._again = False
        self._ignore_times = False

    def request(self) -> None:
        """
        Start a scan, or another one when the present one ends.
        """
        if self.state is not ScanState.IDLE:
            self._again = True
            return
        self._begin()
        self._wake()

    def ignore_times(self) -> None:
        """
        The next scan that starts takes every message, due or not.
        """
        self._ignore_times = True

    def take(self) -> QueueID | None:
        """
        @return: the next message to look at, or L{None}: the scan is over, or C{wake} will be called.
        """
        while True:
            if self._found:
                return self._found.popleft()
            if self.state is not ScanState.READY or self._source is None:
                return None
            entries = self._source.fetch()
            if isinstance(entries, Deferred):
                self.state = ScanState.FETCHING
                entries.addCallbacks(self._fetched, self._failed)
            else:
                self._store(entries)

    def pending(self) -> bool:
        """
        @return: whether L{take} is worth a call.
        """
        return self.state is ScanState.READY or bool(self._found)

    def moved(self, queue_id: QueueID) -> None:
        """
        A message that was taken has left the queue, so that the index does not name it any more.
        """
        self._taken.discard(queue_id)

    def _begin(self) -> None:
        self._again = False
        self.state = ScanState.READY
        if self._which is Queue.DEFERRED and not self._ignore_times:
            self._source = _Due(self._queue, self._clock.seconds(), self._taken)
        elif self._which is Queue.DEFERRED:
            self._source = _Walk(self._queue.waiting())
        else:
            self._source = _Walk(self._queue.scan(self._which))
        self._ignore_times = False
        self.flushing, self.flush_next = self.flush_next, False

    def _store(self, entries: Sequence[QueuedEntry]) -> None:
        if entries:
            self.state = ScanState.READY
            self._found.extend(entry.queue_id for entry in entries)
            return
        self.state = ScanState.IDLE
        self._source = None
        # A message that could not be opened in this scan gets its chance in the next.
        self._taken.clear()
        if self._again:
            self._begin()

    def _fetched(self, entries: Sequence[QueuedEntry]) -> None:
        self._store(entries)
        self._wake()

    def _failed(self, failure: Failure) -> None:
        log.warn(
            "scan of the {queue} queue: {reason}; the rest waits for the next scan",
            queue=self._which.value,
            reason=failure.getErrorMessage(),
        )
        self.state = ScanState.IDLE
        self._source = None
        self._taken.clear()
        if self._again:
            self._begin()
            self._wake()
