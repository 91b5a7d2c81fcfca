"""Both stores keep the contract of L{IMailQueue}."""

from __future__ import annotations

import errno
import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import CommitAbandoned, MessageNotFound
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.lanes import ProcessDisk
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.spool.spares import Spares
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.contract import QueueContract
from tests.spool.processing import InlineProcess
from tests.spool.values import NOW, TOP, Values


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

    def test_cannot_be_undone(self) -> None:
        """A given up message whose file cannot be removed is not delivered either."""
        self.hold()
        writer = self.write(commit=False)
        committed = writer.commit()
        writer.abort()
        self.failureResultOf(committed, CommitAbandoned)

        def unlink(path: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(self.fs, "unlink", unlink)
        self.release()
        self.assertEqual(self.successResultOf(self.queue.scan(Queue.INCOMING).next(10)), [])


class HeldResultsTests(FileQueueTests):
    """The file store, when the disk has done its work but the reactor has not heard of it."""

    def hold(self) -> None:
        """See L{QueueContract}."""
        self.disk.hold_results = True


class ProcessTests(FileQueueTests):
    """The file store, when a disk process does what is common and small."""

    def make_process(self, paths: QueuePaths) -> InlineProcess:
        """
        @return: what stands for the process.
        """
        return InlineProcess(self.fs, "auto")

    def make_queue(self) -> FileMailQueue:
        """See L{QueueContract}."""
        self.directory = self.directory or self.mktemp()
        self.disk = InlineDisk()
        self.fs = FullableFileSystem()
        clock = Clock()
        clock.advance(NOW)
        config = Values(self.directory, **self.values)
        paths = QueuePaths(self.directory, ("deferred", "defer"), 1)
        self.process = self.make_process(paths)
        disk = ProcessDisk(self.disk, self.process, paths)
        return FileMailQueue(config, clock, self.fs, disk, self.buffer_limit)

    def hold(self) -> None:
        """See L{QueueContract}."""
        self.disk.hold_work = self.process.hold = True

    def release(self) -> None:
        """See L{QueueContract}."""
        self.process.release()
        self.disk.release()

    def test_done_by_the_process(self) -> None:
        """A small message's whole life is the process's, but for its first move into a missing folder."""
        message = self.write()
        self.successResultOf(self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
        self.successResultOf(self.queue.move(message.queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 1))
        self.successResultOf(self.queue.move(message.queue_id, Queue.DEFERRED, Queue.ACTIVE))
        self.successResultOf(self.queue.remove(message.queue_id, Queue.ACTIVE))
        self.assertEqual(self.process.done, [b"C", b"M", b"M", b"R"])
        self.assertEqual(len(self.process.kept), 1)

    def test_killed_in_mid_commit(self) -> None:
        """When the process ends, whether it had made the file or not, the commit is done all the same."""
        for work in (False, True):
            self.process.running = True
            self.process.hold = True
            writer = self.write(commit=False)
            committed = writer.commit()
            self.process.die(work)
            message = self.successResultOf(committed)
            self.assertEqual(self.addresses(message), [b"user0@example.com"])
            opened = self.successResultOf(self.queue.open(message.queue_id, Queue.INCOMING))
            self.assertEqual(
                self.run_now(opened.content.read(0, 10_000)), self.run_now(message.content.read(0, 10_000))
            )
            opened.close()
            message.close()

    def test_killed_in_mid_life(self) -> None:
        """When the process ends, moves and removals under way are done in their order."""
        for work in (False, True):
            self.process.running = True
            message = self.write()
            self.process.hold = True
            moved = self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE)
            removed = self.queue.remove(message.queue_id, Queue.ACTIVE)
            self.process.die(work)
            self.successResultOf(moved)
            self.successResultOf(removed)
            self.failureResultOf(self.queue.open(message.queue_id, Queue.ACTIVE), MessageNotFound)
            message.close()

    def test_killed_after_a_move(self) -> None:
        """A message that the process has moved before it ended is where it was to go, and can be removed."""
        for work in (False, True):
            self.process.running = True
            message = self.write()
            self.process.hold = True
            moved = self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE)
            self.process.die(work)
            self.successResultOf(moved)
            self.successResultOf(self.queue.remove(message.queue_id, Queue.ACTIVE))
            message.close()


class SpareTests(ProcessTests):
    """The same when the files of removed messages are used again."""

    def make_process(self, paths: QueuePaths) -> InlineProcess:
        """See L{ProcessTests}."""
        return InlineProcess(self.fs, "auto", Spares(self.fs, paths.folder("spare"), 2))

    def test_used_again(self) -> None:
        """
        The file of a removed message becomes the next one's, shorter or longer; no more than the limit are
        kept; the content is the new message's alone.
        """
        kept = os.path.join(self.directory, "spare")
        for body in (b"first " * 100, b"second, shorter", b"third " * 500):
            message = self.write(body)
            opened = self.successResultOf(self.queue.open(message.queue_id, Queue.INCOMING))
            self.assertEqual(self.run_now(opened.content.read(0, 10_000)), TOP + body)
            opened.close()
            number = os.stat(os.path.join(self.directory, "incoming", message.queue_id)).st_ino
            self.successResultOf(self.queue.remove(message.queue_id, Queue.INCOMING))
            self.assertEqual([entry.inode() for entry in os.scandir(kept)], [number])
            message.close()
        messages = [self.write() for _ in range(5)]
        for message in messages:
            self.successResultOf(self.queue.remove(message.queue_id, Queue.INCOMING))
            message.close()
        self.assertEqual(len(os.listdir(kept)), 2)


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
