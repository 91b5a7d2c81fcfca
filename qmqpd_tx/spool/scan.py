"""
Walking a queue, a slice at a time.

Takes a queue; gives its messages as the disk thread finds them, in no particular order. The cost is that
of the slice. What is not a finished message is left out: in C{incoming} the first record of each file is
looked at, in C{hold} its permission.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from qmqpd_tx.interfaces import IQueueScan, MessageDamaged, MessageUnfinished, QueuedEntry
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool import record
from qmqpd_tx.spool.files import QueuePaths, walk
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.index import IndexWalk
from qmqpd_tx.spool.operations import FileOperation
from qmqpd_tx.spool.record import HEADER_SIZE


class Scan(FileOperation):
    """
    Find the next messages; gives a list of L{QueuedEntry}.

    @ivar queue: where.
    @ivar left: messages that left a queue since this was called.
    @ivar report: makes the result of what was found, on the reactor's thread.
    @ivar exhausted: whether the end was reached.
    """

    __slots__ = ("_entries", "_limit", "exhausted", "left", "queue", "report")
    doing = "scan"

    def __init__(self, queue: Queue, entries: Iterator[QueuedEntry], limit: int) -> None:
        super().__init__(None)
        self.queue = queue
        self._entries = entries
        self._limit = limit
        self.left: set[QueueID] = set()
        self.report: Callable[[Scan, list[QueuedEntry]], list[QueuedEntry]] | None = None
        self.exhausted = False

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        self.result = found = list(islice(self._entries, self._limit))
        self.exhausted = len(found) < self._limit

    def finish(self) -> None:
        if self.report is not None:
            found = self.report(self, self.result or [])
            if self.error is None:
                self.result = found
        super().finish()


def find(
    fs: FileSystem, paths: QueuePaths, queue: Queue, foreign: Callable[[str], None]
) -> Iterator[QueuedEntry]:
    """
    Walk a queue; runs on a disk thread.
    """
    for entry in walk(fs, paths.folder(queue.value), foreign):
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if queue is Queue.INCOMING and not finished(fs, entry.path, found):
            continue
        if queue is Queue.HOLD and found.st_mode & 0o700 != 0o700:
            continue
        yield QueuedEntry(QueueID(entry.name), found.st_mtime)


def finished(fs: FileSystem, path: str, found: os.stat_result) -> bool:
    """
    @return: whether a file is a finished message of its name, or a damaged one that must be seen to.
    """
    if found.st_mode & 0o700 != 0o700:
        return False
    try:
        fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        record.decode_header(fs.pread(fd, HEADER_SIZE, 0), fs.fstat(fd).st_size, os.path.basename(path))
    except MessageUnfinished:
        return False
    except MessageDamaged:
        return True
    finally:
        fs.close(fd)
    return True


@implementer(IQueueScan)
class FileScan:
    """
    See L{IQueueScan}.

    @param submit: runs an operation of ours.
    """

    def __init__(
        self,
        queue: Queue,
        paths: QueuePaths,
        fs: FileSystem,
        foreign: Callable[[str], None],
        submit: Callable[[Scan], Deferred[list[QueuedEntry]]],
    ) -> None:
        self._queue = queue
        self._entries = find(fs, paths, queue, foreign)
        self._submit = submit
        self._ended = False

    def next(self, limit: int) -> Deferred[list[QueuedEntry]]:
        """See L{IQueueScan.next}."""
        if self._ended:
            return succeed([])
        return Deferred.fromCoroutine(self._next(max(limit, 1)))

    async def _next(self, limit: int) -> list[QueuedEntry]:
        while True:
            operation = Scan(self._queue, self._entries, limit)
            found = await self._submit(operation)
            self._ended = operation.exhausted
            # A slice that held nothing but messages still being written is not the end.
            if found or self._ended:
                return found


@implementer(IQueueScan)
class WaitingScan:
    """
    See L{IMailQueue.waiting<qmqpd_tx.interfaces.IMailQueue.waiting>}.

    @param walk: through the index.
    @param recovery: gives a Deferred that fires when the index is whole, or cannot be made so; or L{None}: it
        is whole.
    """

    def __init__(self, walk: IndexWalk, recovery: Callable[[], Deferred[object] | None]) -> None:
        self._walk = walk
        self._recovery = recovery

    def next(self, limit: int) -> Deferred[list[QueuedEntry]]:
        """See L{IQueueScan.next}."""
        limit = max(limit, 1)
        found = self._walk.take(limit)
        whole = None if found else self._recovery()
        if whole is None:
            return succeed(found)
        return whole.addCallback(lambda _: self._walk.take(limit))
