"""
Operations that read messages: open, locate, recipients, content.

Takes queue ids and what is known of a message already; gives values or a L{SpoolError} naming the message.
Runs on disk threads, changes nothing but files that hold another message than their name says, which go.
Whatever is given is of the message that was asked for, or nothing is given: the file may be deleted, cut,
replaced or used again between any two calls, and in the middle of one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from twisted.internet.defer import Deferred

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient, RecipientSlice
from qmqpd_tx.spool import record
from qmqpd_tx.spool.commits import Transfer
from qmqpd_tx.spool.errors import RecycledFile, translated
from qmqpd_tx.spool.files import QueuePaths, find_file, settle
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.operations import FileOperation, blob_reader, open_anywhere, reader, same
from qmqpd_tx.spool.record import CHUNK, HEADER_SIZE, Layout

log = Logger(namespace="qmqpd_tx.qmgr")

_Found = TypeVar("_Found")


class Opened:
    """
    What L{Open} found.

    @ivar data: the whole file, when it is small.
    @ivar recipients: the unfinished recipients, when they are few.
    """

    __slots__ = ("data", "envelope", "layout", "recipients")

    def __init__(
        self,
        layout: Layout,
        envelope: Envelope,
        data: bytes | None,
        recipients: list[Recipient] | None,
    ) -> None:
        self.layout = layout
        self.envelope = envelope
        self.data = data
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
        found_recipients = record.read_recipients(read, layout, None, layout.recipient_count + 1)
        return Opened(layout, envelope, blob, found_recipients.recipients)
    finally:
        fs.close(fd)


def check_message(fs: FileSystem, path: str) -> Opened:
    """
    As L{open_message}, and compare a large file with its checksum too.
    """
    opened = open_message(fs, path)
    if opened.layout.size > CHUNK:
        fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            record.verify(reader(fs, fd), opened.layout)
        finally:
            fs.close(fd)
    return opened


class Open(FileOperation):
    """
    Read what a message says about itself.

    @param wholly: whether to compare a large file with its checksum, too.
    @param done: makes the handle of what was found.
    """

    __slots__ = ("_done", "_wholly", "queue")
    doing = "open"

    def __init__(
        self,
        queue_id: QueueID,
        queue: Queue,
        wholly: bool,
        done: Callable[[QueueID, Queue, Opened], object],
    ) -> None:
        super().__init__(queue_id)
        self.queue = queue
        self._wholly = wholly
        self._done = done

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        path = paths.message(self.queue, self.queue_id)
        try:
            self.result = check_message(fs, path) if self._wholly else open_message(fs, path)
        except RecycledFile:
            fs.unlink(path)
            log.info("{queue_id}: removed queue file with another message", queue_id=self.queue_id)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except MessageUnfinished as error:
            found = fs.lstat(path)
            if self.queue is Queue.INCOMING or found.st_mode & 0o700 != 0o700:
                raise
            # Only finished messages leave incoming: waiting for the rest would be waiting for ever.
            raise MessageDamaged(f"the file was cut: {error}", found.st_size) from None

    def finish(self) -> None:
        if self.error is None and self.queue_id is not None:
            self.result = self._done(self.queue_id, self.queue, self.result)
        super().finish()


class Locate(FileOperation):
    """
    Find out where a message is; gives a L{Queue} or L{None}.

    @param recover: called before, on the disk thread: brings the message back from C{active} if that has
        not been done since the start; or L{None}.
    """

    __slots__ = ("_recover",)
    doing = "locate"

    def __init__(
        self, queue_id: QueueID, recover: Callable[[FileSystem, QueuePaths, QueueID], None] | None
    ) -> None:
        super().__init__(queue_id)
        self._recover = recover

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        assert self.queue_id is not None
        if self._recover is not None:
            self._recover(fs, paths, self.queue_id)
        self.result = None
        for queue in Queue:
            path = find_file(fs, paths.folder(queue.value), self.queue_id)
            if path is not None:
                target = paths.message(queue, self.queue_id)
                if path != target:
                    # Someone put it at another depth: the next operation on it must find it.
                    settle(fs, path, target)
                self.result = queue
                return


# --- messages that are open -----------------------------------------------------------------------------


def _read_same(
    fs: FileSystem,
    paths: QueuePaths,
    queue_id: QueueID,
    first: Queue,
    layout: Layout,
    work: Callable[[record.Read], _Found],
) -> _Found:
    """
    Read from a message wherever it is, and see that it was that message.

    @param work: reads.
    @return: what it gave.
    """
    fd = open_anywhere(fs, paths, queue_id, first, os.O_RDONLY)
    try:
        try:
            found = work(reader(fs, fd))
        except MessageDamaged:
            # What looks like damage may be another message.
            same(fs, fd, queue_id, layout)
            raise
        same(fs, fd, queue_id, layout)
        return found
    finally:
        fs.close(fd)


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
        self.result = _read_same(fs, paths, self.queue_id, self._queue, self._layout, self._read)

    def _read(self, read: record.Read) -> RecipientSlice:
        return record.read_recipients(read, self._layout, self._position, self._limit)


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
            self.result = _read_same(fs, paths, self._queue_id, self._queue, self._layout, self._read)
        except Exception as error:
            self.error = translated(error, "read content", self._queue_id)

    def _read(self, read: record.Read) -> bytes:
        data = b"".join(read(start, length) for start, length in self._parts())
        if len(data) < self._length:
            raise MessageDamaged("the file ends in the content", self._layout.top)
        return data

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
