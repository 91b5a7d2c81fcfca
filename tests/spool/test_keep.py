"""Both stores keep the contract of L{IMailQueue}."""

from __future__ import annotations

import errno
import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.contract import QueueContract
from tests.spool.values import NOW, Values


class FullableFileSystem(RealFileSystem):
    """A file system that can be made full."""

    full = False

    def write(self, fd: int, data: bytes) -> int:  # type: ignore[override]
        """Write some, then run out of space."""
        if self.full:
            if len(data) > 10:
                return os.write(fd, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)


class MemoryQueueTests(QueueContract, SynchronousTestCase):
    """The twin in memory."""

    _queue: MemoryMailQueue | None = None

    def make_queue(self) -> MemoryMailQueue:
        """See L{QueueContract}."""
        if self._queue is None:
            self._queue = MemoryMailQueue()
        return self._queue

    def fill(self) -> None:
        """See L{QueueContract}."""
        self.queue.capacity = 10

    def hold(self) -> None:
        """See L{QueueContract}."""
        self.queue.hold = True

    def release(self) -> None:
        """See L{QueueContract}."""
        self.queue.release()

    def damage(self, queue_id: QueueID, queue: Queue, offset: int, data: bytes) -> None:
        """See L{QueueContract}."""
        self.queue.damage(queue_id, queue, offset, data)


class FileQueueTests(QueueContract, SynchronousTestCase):
    """The file store, without threads."""

    values: dict[str, object] = {}  # noqa: RUF012
    buffer_limit = 65536
    directory = ""

    def make_queue(self) -> FileMailQueue:
        """See L{QueueContract}."""
        self.directory = self.directory or self.mktemp()
        self.disk = InlineDisk()
        self.fs = FullableFileSystem()
        clock = Clock()
        clock.advance(NOW)
        config = Values(self.directory, **self.values)
        return FileMailQueue(config, clock, self.fs, self.disk, self.buffer_limit)

    def fill(self) -> None:
        """See L{QueueContract}."""
        self.fs.full = True

    def hold(self) -> None:
        """See L{QueueContract}."""
        self.disk.hold_work = True

    def release(self) -> None:
        """See L{QueueContract}."""
        self.disk.release()

    def damage(self, queue_id: QueueID, queue: Queue, offset: int, data: bytes) -> None:
        """See L{QueueContract}."""
        names = self.values.get("hash_queue_names", ("deferred", "defer"))
        assert isinstance(names, tuple)
        depth = self.values.get("hash_queue_depth", 1)
        assert isinstance(depth, int)
        with open(QueuePaths(self.directory, names, depth).message(queue, queue_id), "r+b") as file:
            file.seek(offset)
            file.write(data)

    def test_nothing_left_when_full(self) -> None:
        """A commit on a full disk leaves no file, not even an unfinished one."""
        self.test_full()
        incoming = os.path.join(self.directory, "incoming")
        self.assertEqual([name for _, _, names in os.walk(incoming) for name in names], [])


class HeldResultsTests(FileQueueTests):
    """The file store, when the disk has done its work but the reactor has not heard of it."""

    def hold(self) -> None:
        """See L{QueueContract}."""
        self.disk.hold_results = True


class StreamingTests(FileQueueTests):
    """The file store, when each message is larger than the buffer."""

    buffer_limit = 16


class FromDiskTests(FileQueueTests):
    """The file store, when nothing is kept in memory, with subfolders everywhere and syncfs."""

    values = {  # noqa: RUF012
        "qmgr_message_memory_limit": 0,
        "hash_queue_names": ("incoming", "active", "deferred", "hold", "bounce", "defer"),
        "hash_queue_depth": 3,
        "queue_commit_sync": "syncfs",
    }
