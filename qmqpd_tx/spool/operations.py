"""
Operations on messages that exist: move, mark, remove, open, read.

Takes operations in the order in which they were called, on one disk thread, so that what is asked of one
message takes effect in that order; gives each its result or a L{SpoolError} naming the message. Promises
that a move is one rename, that a mark overwrites single bytes in place, and that a message that was moved
behind the store's back is still found for marking and reading.

In a batch, the moves and marks of a message that is removed further on are not done: the file is unlinked
where it is. To a crash this looks as if it came before all of them. If the removal fails, they are done
after all.

Longer than most modules, because the operations are many and each is short; they share how a message is
found and how errors are told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient, RecipientSlice, RecipientState
from qmqpd_tx.spool import record
from qmqpd_tx.spool.commits import NewFile, Transfer
from qmqpd_tx.spool.disk import Operation, Post
from qmqpd_tx.spool.errors import RecycledFile, translated
from qmqpd_tx.spool.files import QueuePaths, make_parent
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.record import CHUNK, HEADER_SIZE, Layout

log = Logger(namespace="qmqpd_tx.qmgr")

_PLACES = (Queue.ACTIVE, Queue.DEFERRED, Queue.INCOMING, Queue.HOLD)
_STATES = frozenset(state.value[0] for state in RecipientState)
_SPAN = 16384


class FileOperation(Operation):
    """
    An operation of the ordered lane that answers through a Deferred.

    @ivar queue_id: the message, or L{None} when it is about a whole queue.
    @ivar doing: what it does, for errors.
    @ivar covered: whether a later L{Remove} of the batch takes care of it.
    @ivar slow: whether the thread has it although a disk process might have had it.
    @ivar repeated: whether a disk process ended in the middle of it: it may have been done already.
    """

    __slots__ = ("covered", "deferred", "queue_id", "repeated", "result", "slow")
    doing = "work"

    def __init__(self, queue_id: QueueID | None) -> None:
        self.error = None
        self.queue_id = queue_id
        self.deferred: Deferred[Any] = Deferred()
        self.result: Any = None
        self.covered = False
        self.slow = False
        self.repeated = False

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """
        Do it; runs on the disk thread. Any exception becomes C{error}.
        """
        raise NotImplementedError

    def finish(self) -> None:
        if self.error is None:
            self.deferred.callback(self.result)
        else:
            self.deferred.errback(self.error)


def perform(operation: FileOperation, fs: FileSystem, paths: QueuePaths) -> None:
    """
    Run one operation and keep what went wrong.
    """
    try:
        operation.run(fs, paths)
    except Exception as error:
        operation.error = translated(error, operation.doing, operation.queue_id)


def open_anywhere(fs: FileSystem, paths: QueuePaths, queue_id: QueueID, first: Queue, flags: int) -> int:
    """
    Open a message wherever it is.

    @param first: where it should be.
    @raise FileNotFoundError: it is in none of the queues.
    """
    missing: OSError | None = None
    # Twice, because it may move from a queue not yet looked at to one already looked at.
    for queue in (first, *_PLACES, *_PLACES):
        try:
            return fs.open(paths.message(queue, queue_id), flags)
        except FileNotFoundError as error:
            missing = missing or error
    assert missing is not None
    raise missing


def reader(fs: FileSystem, fd: int) -> record.Read:
    """
    @return: reads from an open file, all that was asked for if the file has it.
    """

    def read(offset: int, length: int) -> bytes:
        data = fs.pread(fd, length, offset)
        while data and len(data) < length:
            more = fs.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    return read


def blob_reader(blob: bytes | bytearray) -> record.Read:
    """
    @return: reads from a file that is in memory.
    """
    return lambda offset, length: bytes(blob[offset : offset + length])


# --- changing -----------------------------------------------------------------------------------------


class Move(FileOperation):
    """Rename a message into another queue, and set when it is due."""

    __slots__ = ("due", "source", "target")

    def __init__(self, queue_id: QueueID, source: Queue, target: Queue, due: float | None) -> None:
        super().__init__(queue_id)
        self.source = source
        self.target = target
        self.due = due

    @property
    def doing(self) -> str:  # type: ignore[override]
        """See L{FileOperation}."""
        return f"move from {self.source.value} to {self.target.value}"

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        source = paths.message(self.source, self.queue_id)
        if self.repeated and self._done_already(fs, paths):
            return
        # The time first: once it is in deferred, its time is when it is due.
        if self.due is not None:
            fs.utime(source, self.due)
        target = paths.message(self.target, self.queue_id)
        if source == target:
            fs.lstat(source)
            return
        try:
            fs.rename(source, target)
        except FileNotFoundError:
            fs.lstat(source)
            make_parent(fs, target)
            fs.rename(source, target)

    def _done_already(self, fs: FileSystem, paths: QueuePaths) -> bool:
        """
        @return: whether the message has left the source. It may have left the target since: whatever comes
            next on it finds out.
        """
        assert self.queue_id is not None
        try:
            fs.lstat(paths.message(self.source, self.queue_id))
        except FileNotFoundError:
            return True
        return False


class Mark(FileOperation):
    """Overwrite the status of recipients."""

    __slots__ = ("positions", "queue", "state")
    doing = "mark recipients"

    def __init__(
        self, queue_id: QueueID, queue: Queue, positions: Sequence[int], state: RecipientState
    ) -> None:
        super().__init__(queue_id)
        self.queue = queue
        self.positions = sorted(positions)
        self.state = state

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        fd = open_anywhere(fs, paths, self.queue_id, self.queue, os.O_RDWR)
        try:
            group: list[int] = []
            for position in self.positions:
                if group and position - group[0] >= _SPAN:
                    self._mark(fs, fd, group)
                    group = []
                group.append(position)
            self._mark(fs, fd, group)
        finally:
            fs.close(fd)

    def _mark(self, fs: FileSystem, fd: int, group: Sequence[int]) -> None:
        """
        Mark neighbours with one read and one write: all the bytes between stay what they are.
        """
        first = group[0]
        span = bytearray(fs.pread(fd, group[-1] - first + 1, first))
        status = self.state.value[0]
        for position in group:
            if position - first >= len(span) or span[position - first] not in _STATES:
                raise MessageDamaged(f"no recipient at offset {position}", position)
            span[position - first] = status
        fs.pwrite(fd, bytes(span), first)


class Remove(FileOperation):
    """
    Unlink a message.

    @ivar covers: earlier moves and marks of the batch that need not be done any more.
    """

    __slots__ = ("covers", "queue")
    doing = "remove"

    def __init__(self, queue_id: QueueID, queue: Queue) -> None:
        super().__init__(queue_id)
        self.queue = queue
        self.covers: Sequence[FileOperation] = ()

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        source = next((one.source for one in self.covers if isinstance(one, Move)), self.queue)
        try:
            fs.unlink(paths.message(source, self.queue_id))
        except Exception as error:
            # As if they had not been put together: each gets its own result.
            for operation in self.covers:
                perform(operation, fs, paths)
            if source is not self.queue:
                self._unlink_last(fs, paths)
            elif not (self.repeated and isinstance(error, FileNotFoundError)):
                raise

    def _unlink_last(self, fs: FileSystem, paths: QueuePaths) -> None:
        assert self.queue_id is not None
        try:
            fs.unlink(paths.message(self.queue, self.queue_id))
        except FileNotFoundError:
            if not self.repeated:
                raise
            # All of it was done before: by the disk process, that ended before it could say so.
            for operation in self.covers:
                operation.error = None


def cover(batch: Sequence[Operation]) -> None:
    """
    Find the moves and marks of a batch that a removal makes pointless.
    """
    by_message: dict[QueueID, list[FileOperation]] = {
        operation.queue_id: []
        for operation in batch
        if type(operation) is Remove and operation.queue_id is not None
    }
    if not by_message:
        return
    for operation in batch:
        if isinstance(operation, FileOperation) and operation.queue_id in by_message:
            by_message[operation.queue_id].append(operation)
    for operations in by_message.values():
        last = operations.pop()
        if type(last) is not Remove or not operations:
            continue
        where: Queue | None = None
        for operation in operations:
            if type(operation) is Move and where in (None, operation.source):
                where = operation.target
            elif type(operation) is not Mark:
                break
        else:
            if where in (None, last.queue):
                last.covers = operations
                for operation in operations:
                    operation.covered = True


class Discard(FileOperation):
    """
    Remove what an aborted message left on disk; then call back with its id. What cannot be removed may be a
    whole message, which must not be delivered: there is no call, and the store goes on taking it for one that
    is being written.
    """

    __slots__ = ("_done", "_file")
    doing = "discard"

    def __init__(self, file: NewFile, done: Callable[[QueueID], None]) -> None:
        super().__init__(file.queue_id)
        self._file = file
        self._done = done

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        self._file.discard(fs, paths)

    def finish(self) -> None:
        if not self._file.exists:
            self._done(self._file.queue_id)


# --- reading ------------------------------------------------------------------------------------------


class Opened:
    """
    What L{Open} found.

    @ivar content: the content, when it is small.
    @ivar recipients: the unfinished recipients, when they are few.
    """

    __slots__ = ("content", "envelope", "layout", "recipients")

    def __init__(
        self,
        layout: Layout,
        envelope: Envelope,
        content: bytes | None,
        recipients: list[Recipient] | None,
    ) -> None:
        self.layout = layout
        self.envelope = envelope
        self.content = content
        self.recipients = recipients


def open_message(fs: FileSystem, path: str) -> Opened:
    """
    @param path: a queue file.
    @raise RecycledFile: it holds another message than its name says.
    @raise MessageUnfinished: it is not complete.
    @raise MessageDamaged: it makes no sense.
    @raise OSError: it cannot be read.
    """
    queue_id = os.path.basename(path)
    # Without O_NONBLOCK a named pipe that someone put there would hold up the thread for good.
    fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = fs.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise MessageDamaged("not a regular file", 0)
        if found.st_mode & 0o700 != 0o700:
            raise MessageUnfinished(f"mode is {stat.S_IMODE(found.st_mode):o} instead of 700")
        size = found.st_size
        read = reader(fs, fd)
        if size > CHUNK:
            layout, envelope = record.read_message(read, size, queue_id)
            return Opened(layout, envelope, None, None)
        blob = read(0, size)
        read = blob_reader(blob)
        layout, envelope = record.read_message(read, len(blob), queue_id)
        content = blob[layout.top : layout.envelope] + blob[HEADER_SIZE : layout.top]
        found_recipients = record.read_recipients(read, layout, None, layout.recipient_count + 1)
        return Opened(layout, envelope, content, found_recipients.recipients)
    finally:
        fs.close(fd)


class Open(FileOperation):
    """
    Read what a message says about itself.

    @param done: makes the handle of what was found.
    """

    __slots__ = ("_done", "queue")
    doing = "open"

    def __init__(
        self, queue_id: QueueID, queue: Queue, done: Callable[[QueueID, Queue, Opened], object]
    ) -> None:
        super().__init__(queue_id)
        self.queue = queue
        self._done = done

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        path = paths.message(self.queue, self.queue_id)
        try:
            self.result = open_message(fs, path)
        except RecycledFile:
            fs.unlink(path)
            log.info("{queue_id}: removed queue file with another message", queue_id=self.queue_id)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def finish(self) -> None:
        if self.error is None and self.queue_id is not None:
            self.result = self._done(self.queue_id, self.queue, self.result)
        super().finish()


class ReadRecipients(FileOperation):
    """Read a slice of the unfinished recipients; gives a L{RecipientSlice}."""

    __slots__ = ("_layout", "_limit", "_position", "_queue")
    doing = "read recipients"

    def __init__(
        self, queue_id: QueueID, queue: Queue, layout: Layout, position: int | None, limit: int
    ) -> None:
        super().__init__(queue_id)
        self._queue = queue
        self._layout = layout
        self._position = position
        self._limit = limit

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        fd = open_anywhere(fs, paths, self.queue_id, self._queue, os.O_RDONLY)
        try:
            found = record.read_recipients(reader(fs, fd), self._layout, self._position, self._limit)
        finally:
            fs.close(fd)
        self.result: RecipientSlice = found


class ReadContent(Transfer):
    """
    Read some of the content; runs beside the ordered operations, for it changes nothing.

    @param offset: in the content, the top included.
    """

    __slots__ = ("_layout", "_length", "_offset", "_queue", "_queue_id", "deferred", "result")

    def __init__(self, queue_id: QueueID, queue: Queue, layout: Layout, offset: int, length: int) -> None:
        super().__init__()
        self._queue_id = queue_id
        self._queue = queue
        self._layout = layout
        self._offset = offset
        self._length = length
        self.deferred: Deferred[bytes] = Deferred()
        self.result = b""

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{Transfer.run}."""
        try:
            fd = open_anywhere(fs, paths, self._queue_id, self._queue, os.O_RDONLY)
            try:
                read = reader(fs, fd)
                self.result = b"".join(read(start, length) for start, length in self._parts())
            finally:
                fs.close(fd)
            if len(self.result) < self._length:
                raise MessageDamaged("the file ends in the content", self._layout.top)
        except Exception as error:
            self.error = translated(error, "read content", self._queue_id)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """
        @return: where in the file the wanted bytes are: the top comes first, but lies last.
        """
        layout, offset, end = self._layout, self._offset, self._offset + self._length
        top = layout.envelope - layout.top
        if offset < top:
            yield layout.top + offset, min(end, top) - offset
            offset = top
        if offset < end:
            yield HEADER_SIZE + offset - top, end - offset

    def finish(self) -> None:
        if self.error is None:
            self.deferred.callback(self.result)
        else:
            self.deferred.errback(self.error)


class MetadataRunner:
    """Runs L{FileOperation}s in order."""

    def __init__(self, fs: FileSystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths

    def __call__(self, batch: Sequence[Operation], post: Post) -> None:
        """
        Run a batch.
        """
        fs, paths = self._fs, self._paths
        if len(batch) > 1:
            cover(batch)
        for operation in batch:
            assert isinstance(operation, FileOperation)
            if not operation.covered:
                perform(operation, fs, paths)
        post(batch)
