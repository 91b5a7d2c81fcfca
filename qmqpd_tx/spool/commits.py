"""
Making new files: streaming them out, and committing them in batches.

Takes L{NewFile}s and bytes, on the disk threads; promises that a reported commit is on the platter: the
file was written completely and then fsynced (or the whole file system synced), and only then reported.
When anything fails the file is removed before the failure is reported. Answers to Postfix's mail_stream
library.

A small message costs four system calls: open, one write of the whole file, fsync, close. For a batch,
writing back is started for all files before the first fsync waits, so that one journal commit of the
file system serves them all. With C{syncfs}, one call serves the batch, at the price of also writing
whatever else waits in that file system.

A message that is to be held is made in C{hold}, or comes there while it is unfinished, and costs one fsync
more: before its permission says that it is complete. So the permission alone tells what a crash left there,
and nobody has to read all that is held to find out.

The folder is not fsynced: on the file systems that Linux journals (ext4, XFS, btrfs) the fsync of a new
file also makes its name durable, and a second barrier would cost half as much again. Folders that are
made on the way are fsynced into their parents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from zlib import crc32

from qmqpd_tx.events import Logger
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.disk import Operation, Post
from qmqpd_tx.spool.errors import translated
from qmqpd_tx.spool.files import QueuePaths, make_parent, rename
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.record import END, UNFINISHED_HEADER, Layout, encode_header

log = Logger(namespace="qmqpd_tx.qmgr")

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY


def write_all(fs: FileSystem, fd: int, data: bytes) -> None:
    """
    Write all of C{data} at the descriptor's place.
    """
    written = fs.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = fs.write(fd, data)


class NewFile:
    """
    A file that is being made. Only one operation on it is under way at a time.

    @ivar queue_id: its name.
    @ivar queue: where it is, or will be: C{incoming}, or C{hold}.
    @ivar fd: the descriptor, or L{None} while it isn't open.
    @ivar exists: whether there may be something on disk.
    @ivar checksum: of what was streamed after the first record.
    """

    __slots__ = ("checksum", "exists", "fd", "queue", "queue_id")

    def __init__(self, queue_id: QueueID) -> None:
        self.queue_id = queue_id
        self.queue = Queue.INCOMING
        self.fd: int | None = None
        self.exists = False
        self.checksum = 0

    def create(self, fs: FileSystem, paths: QueuePaths, mode: int) -> int:
        """
        @return: the descriptor of the new, empty file.
        """
        path = paths.message(self.queue, self.queue_id)
        try:
            fd = fs.open(path, _NEW, mode)
        except FileNotFoundError:
            make_parent(fs, path)
            fd = fs.open(path, _NEW, mode)
        self.exists = True
        self.fd = fd
        return fd

    def move(self, fs: FileSystem, paths: QueuePaths, queue: Queue) -> None:
        """
        Go on in another queue.
        """
        rename(fs, paths.message(self.queue, self.queue_id), paths.message(queue, self.queue_id))
        self.queue = queue

    def close(self, fs: FileSystem) -> None:
        """
        Close the descriptor, if it is open.
        """
        fd, self.fd = self.fd, None
        if fd is not None:
            fs.close(fd)

    def discard(self, fs: FileSystem, paths: QueuePaths) -> None:
        """
        Close and remove the file, if there is one. The removal can fail only if the file system is beyond
        help, and start-up sweeps what is unfinished, so that is only logged; C{exists} stays set.
        """
        try:
            self.close(fs)
            if self.exists:
                fs.unlink(paths.message(self.queue, self.queue_id))
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warn(
                "{queue_id}: cannot remove unfinished queue file: {reason}",
                queue_id=self.queue_id,
                reason=error.strerror or str(error),
            )
            return
        self.exists = False


class Transfer(Operation):
    """Moves content to or from the disk."""

    __slots__ = ()

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """
        Runs on a disk thread; catches its own errors.
        """
        raise NotImplementedError


class StreamFile(Transfer):
    """
    Append to a file that is larger than a buffer.

    @param file: which; made with the first operation.
    @param data: what to append.
    @param done: called with the operation, on the reactor's thread.
    @ivar abandoned: set when the result isn't wanted any more; work that has not begun is left undone.
    """

    __slots__ = ("_done", "abandoned", "data", "file")

    def __init__(self, file: NewFile, data: bytes, done: Callable[[StreamFile | CommitFile], None]) -> None:
        super().__init__()
        self.file = file
        self.data = data
        self.abandoned = False
        self._done = done

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{Transfer.run}."""
        file = self.file
        if self.abandoned:
            return
        try:
            fd = file.fd
            if fd is None:
                # The owner's execute bit comes with the commit.
                fd = file.create(fs, paths, 0o600)
                write_all(fs, fd, UNFINISHED_HEADER)
            write_all(fs, fd, self.data)
            file.checksum = crc32(self.data, file.checksum)
        except Exception as error:
            file.discard(fs, paths)
            self.error = translated(error, "write queue file", file.queue_id)

    def finish(self) -> None:
        self._done(self)


class CommitFile(Operation):
    """
    Make a message complete and durable.

    @param file: which.
    @param data: the whole file; when C{streamed}, what is still to be appended.
    @param layout: of the whole file; when C{streamed}, its checksum is filled in.
    @param streamed: whether the file has begun already.
    @param hold: whether it is to be in C{hold}.
    @param done: called with the operation, on the reactor's thread.
    @ivar abandoned: as in L{StreamFile}.
    """

    __slots__ = ("_done", "abandoned", "data", "file", "hold", "layout", "streamed")

    def __init__(
        self,
        file: NewFile,
        data: bytes,
        layout: Layout,
        streamed: bool,
        hold: bool,
        done: Callable[[StreamFile | CommitFile], None],
    ) -> None:
        super().__init__()
        self.file = file
        self.data = data
        self.layout = layout
        self.streamed = streamed
        self.hold = hold
        self.abandoned = False
        self._done = done

    def prepare(self, fs: FileSystem, paths: QueuePaths) -> int | None:
        """
        Write everything.

        @return: the descriptor to make durable, or L{None} when nobody wants it any more.
        """
        file = self.file
        if self.abandoned:
            return None
        if not self.streamed:
            if file.exists:
                # A disk process ended while it had this one.
                file.discard(fs, paths)
            if self.hold:
                file.queue = Queue.HOLD
            fd = file.create(fs, paths, 0o600 if self.hold else 0o700)
            write_all(fs, fd, self.data)
            if self.hold:
                self._end_held(fs, fd)
            return fd
        assert file.fd is not None
        fd = file.fd
        write_all(fs, fd, self.data + END)
        layout = self.layout
        self.layout = Layout(
            layout.top,
            layout.envelope,
            layout.recipients,
            layout.end,
            layout.recipient_count,
            crc32(self.data, file.checksum),
        )
        self.data = b""
        fs.pwrite(fd, encode_header(self.layout, file.queue_id), 0)
        if self.hold:
            file.move(fs, paths, Queue.HOLD)
            self._end_held(fs, fd)
        else:
            fs.fchmod(fd, 0o700)
        return fd

    def _end_held(self, fs: FileSystem, fd: int) -> None:
        # What was written first, so that in hold the permission alone says that a message is complete.
        fs.fsync(fd)
        fs.fchmod(fd, 0o700)

    def failed(self, fs: FileSystem, paths: QueuePaths, error: Exception) -> None:
        """
        Leave nothing behind.
        """
        self.file.discard(fs, paths)
        self.error = translated(error, "commit queue file", self.file.queue_id)

    def release(self) -> None:
        """
        Forget the descriptor; the runner closes it.
        """
        self.file.fd = None

    def finish(self) -> None:
        self._done(self)


class SyncFile(Operation):
    """
    Make what was appended to a log durable.

    @param fd: the open log; closed here.
    @param queue_id: for errors.
    @param done: called with the error or L{None}, on the reactor's thread.
    """

    __slots__ = ("_done", "_fd", "_queue_id")

    def __init__(self, fd: int, queue_id: QueueID, done: Callable[[Exception | None], None]) -> None:
        super().__init__()
        self._fd = fd
        self._queue_id = queue_id
        self._done = done

    def prepare(self, fs: FileSystem, paths: QueuePaths) -> int | None:
        """See L{CommitFile.prepare}."""
        return self._fd

    def failed(self, fs: FileSystem, paths: QueuePaths, error: Exception) -> None:
        """See L{CommitFile.failed}."""
        self.error = translated(error, "sync delivery status log", self._queue_id)
        with suppress(OSError):
            fs.close(self._fd)

    def release(self) -> None:
        """See L{CommitFile.release}."""

    def finish(self) -> None:
        self._done(self.error)


class CommitRunner:
    """
    Runs batches of L{CommitFile} and L{SyncFile}.

    @param syncfs: whether to make batches durable with one syncfs(2) instead of an fsync a file.
    """

    def __init__(self, fs: FileSystem, paths: QueuePaths, syncfs: bool) -> None:
        self._fs = fs
        self._paths = paths
        self._syncfs = syncfs

    def __call__(self, batch: Sequence[Operation], post: Post) -> None:
        """
        Run one batch; several may run at the same time.
        """
        fs, paths = self._fs, self._paths
        ready: list[tuple[CommitFile | SyncFile, int]] = []
        for operation in batch:
            assert isinstance(operation, CommitFile | SyncFile)
            try:
                fd = operation.prepare(fs, paths)
            except Exception as error:
                operation.failed(fs, paths, error)
            else:
                if fd is not None:
                    ready.append((operation, fd))
        if ready:
            self._sync(ready)
        # Reported before the descriptors are closed: each system call may wait for the interpreter lock.
        # From here on the operations belong to the reactor's thread, so the descriptors are taken first.
        open_fds = [fd for operation, fd in ready if operation.error is None]
        for operation, _ in ready:
            operation.release()
        post(batch)
        for fd in open_fds:
            # What was written is durable already: nothing that close says can change that.
            with suppress(OSError):
                fs.close(fd)

    def _sync(self, ready: Sequence[tuple[CommitFile | SyncFile, int]]) -> None:
        fs, paths = self._fs, self._paths
        if self._syncfs:
            try:
                fs.syncfs(ready[0][1])
            except Exception as error:
                for operation, _ in ready:
                    operation.failed(fs, paths, error)
            return
        if len(ready) > 1:
            for _, fd in ready:
                fs.start_writeback(fd)
        for operation, fd in ready:
            try:
                fs.fsync(fd)
            except Exception as error:
                operation.failed(fs, paths, error)


class TransferRunner:
    """Runs L{Transfer}s: what needs no order among messages."""

    def __init__(self, fs: FileSystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths

    def __call__(self, batch: Sequence[Operation], post: Post) -> None:
        """
        Run a batch; each result is reported at once, for these can be large.
        """
        for operation in batch:
            assert isinstance(operation, Transfer)
            operation.run(self._fs, self._paths)
            post((operation,))
