"""
Operations that change messages that exist: move, mark, remove.

Takes operations in the order in which they were called, on one disk thread, so that what is asked of one
message takes effect in that order; gives each its result or a L{SpoolError} naming the message. Promises
that a move is one rename, that a mark overwrites single bytes in place, and that a message that was moved
behind the store's back is still found for marking and reading.

In a batch, the moves and marks of a message that is removed further on are not done: the file is unlinked
where it is. To a crash this looks as if it came before all of them. If the removal fails, they are done
after all.

What is read from a message or written into it is compared with what is known of it (see L{same}): a file may
be deleted, cut or replaced by hand at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import MessageDamaged, MessageNotFound, MessageUnfinished
from qmqpd_tx.message import Queue, QueueID, RecipientState
from qmqpd_tx.spool import record
from qmqpd_tx.spool.commits import NewFile
from qmqpd_tx.spool.disk import Operation, Post
from qmqpd_tx.spool.errors import RecycledFile, translated
from qmqpd_tx.spool.files import QueuePaths, rename
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.record import HEADER_SIZE, Layout

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
            # Without O_NONBLOCK a named pipe that someone put there would hold up the thread for good.
            return fs.open(paths.message(queue, queue_id), flags | os.O_NONBLOCK)
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


def same(fs: FileSystem, fd: int, queue_id: QueueID, layout: Layout) -> None:
    """
    See that an open file still holds a message. After reading, this also covers what was read: a file that is
    used again is overwritten from its start.

    @param layout: what its first record said when the message was opened or made.
    @raise MessageNotFound: it holds another message.
    @raise MessageDamaged: it was cut or changed.
    """
    size = fs.fstat(fd).st_size
    try:
        found = record.decode_header(fs.pread(fd, HEADER_SIZE, 0), size, queue_id)
    except RecycledFile as error:
        raise MessageNotFound(str(error)) from None
    except MessageUnfinished as error:
        raise MessageDamaged(f"the file was cut: {error}", size) from None
    if found != layout:
        raise MessageDamaged("the file was replaced: another first record at offset 0", 0)


def blob_reader(blob: bytes | bytearray) -> record.Read:
    """
    @return: reads from a file that is in memory.
    """
    return lambda offset, length: bytes(blob[offset : offset + length])


# --- changing -----------------------------------------------------------------------------------------


class Move(FileOperation):
    """
    Rename a message into another queue, and set when it is due.

    @ivar due: that time, or L{None} to leave it as it is.
    """

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
        rename(fs, source, target)

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


class Release(Move):
    """
    Move a message that keeps its time, which nobody knows but the file.

    @ivar due: that time, once this is done.
    """

    __slots__ = ()

    def __init__(self, queue_id: QueueID, source: Queue, target: Queue) -> None:
        super().__init__(queue_id, source, target, None)

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        when = fs.lstat(paths.message(self.source, self.queue_id)).st_mtime
        super().run(fs, paths)
        self.due = when


class Mark(FileOperation):
    """Overwrite the status of recipients."""

    __slots__ = ("layout", "positions", "queue", "state")
    doing = "mark recipients"

    def __init__(
        self,
        queue_id: QueueID,
        queue: Queue,
        layout: Layout,
        positions: Sequence[int],
        state: RecipientState,
    ) -> None:
        super().__init__(queue_id)
        self.queue = queue
        self.layout = layout
        self.positions = sorted(positions)
        self.state = state

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        fd = open_anywhere(fs, paths, self.queue_id, self.queue, os.O_RDWR)
        try:
            same(fs, fd, self.queue_id, self.layout)
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
