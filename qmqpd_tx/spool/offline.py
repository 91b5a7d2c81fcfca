"""
Changing a queue that no service has: hold, release, delete and requeue messages by hand.

Takes the configuration of a queue and the lock that a service would take, so that the two never meet; gives
what was done, message by message. Blocks, and needs no reactor. Only files move: nothing is delivered,
rewritten or resolved here. Answers to the options -h, -H, -d and -r of postsuper(1) while Postfix is stopped.

Each change is one rename or unlink, so a crash leaves a message where it was or where it should be; once
L{OfflineQueue.close} has returned, all changes survive a power cut as well. Each may be repeated: a message
that is not (any more) where it is looked for is left alone. Files that are unfinished, or hold another
message than their name says, are no messages: they can be deleted, and nothing else.

  - hold: to C{hold}, with its time and its delivery status logs;
  - release: to C{deferred}, with the time that it had: when it was next due before it was held;
  - delete: the message, and then its logs;
  - requeue: to C{incoming}, to be tried at once and routed anew. It keeps its name, its arrival time, its
    logs and what is recorded of its recipients.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType, TracebackType

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig, SpoolError
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.errors import translated
from qmqpd_tx.spool.files import QueuePaths, find_file, rename, walk
from qmqpd_tx.spool.filesystem import FileSystem, RealFileSystem
from qmqpd_tx.spool.lock import take_lock
from qmqpd_tx.spool.scan import finished
from qmqpd_tx.spool.settings import SpoolSettings

log = Logger(namespace="qmqpd_tx.postsuper")


class Change(enum.Enum):
    """What can be done to a message by hand."""

    HOLD = "hold"
    RELEASE = "release"
    DELETE = "delete"
    REQUEUE = "requeue"


_ALL = (Queue.HOLD, Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED)

SEARCHED: Mapping[Change, Sequence[Queue]] = MappingProxyType(
    {
        Change.HOLD: (Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED),
        Change.RELEASE: (Queue.HOLD,),
        Change.DELETE: _ALL,
        Change.REQUEUE: _ALL,
    }
)
"""Where messages are looked for unless queues are named, as in postsuper(1)."""

_TARGET = {Change.HOLD: Queue.HOLD, Change.RELEASE: Queue.DEFERRED, Change.REQUEUE: Queue.INCOMING}


class OwnedFileSystem(RealFileSystem):
    """
    What root makes in a queue belongs to the owner of the queue.

    @param uid: that owner.
    @param gid: the group.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self._owner = uid, gid

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """See L{FileSystem.open}."""
        fd = super().open(path, flags, mode)
        if flags & os.O_CREAT:
            os.fchown(fd, *self._owner)
        return fd

    def mkdir(self, path: str, mode: int) -> None:  # type: ignore[override]
        """See L{FileSystem.mkdir}."""
        os.mkdir(path, mode)
        os.chown(path, *self._owner, follow_symlinks=False)


class OfflineQueue:
    """
    A queue that is ours for a while. A context manager, or L{open} and L{close}.

    @param config: where the queue is.
    @param now: POSIX seconds: when requeued mail is due.
    @param fs: the system calls; tests pass one that fails or stops.
    """

    def __init__(self, config: IConfig, now: float, fs: FileSystem | None = None) -> None:
        settings = SpoolSettings.from_config(config)
        self._paths = QueuePaths(
            settings.queue_directory, settings.hash_queue_names, settings.hash_queue_depth
        )
        self._now = now
        self._given_fs = fs
        self._fs: FileSystem = RealFileSystem()
        self._lock: int | None = None
        self._touched: set[str] = set()

    def open(self) -> None:
        """
        Take the lock.

        @raise QueueLocked: a service has the queue.
        @raise SpoolError: there is no queue, or it may not be touched.
        """
        root = self._paths.root
        try:
            self._fs = self._given_fs or _file_system(root)
            self._lock = take_lock(self._fs, self._paths)
        except OSError as error:
            raise SpoolError(
                f"{error.filename or root}: {error.strerror}: is queue_directory right, and does it belong "
                f"to this user?"
            ) from None

    def close(self) -> None:
        """
        Make durable what was done, and give up the lock. Safe to call twice.

        @raise SpoolError: it could not be made durable.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            self._sync(lock)
        except OSError as error:
            raise translated(error, "sync the queue", None) from None
        finally:
            self._fs.close(lock)

    def __enter__(self) -> OfflineQueue:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def change(self, change: Change, queue_id: str, queues: Sequence[Queue] | None = None) -> Queue | None:
        """
        Do something to one message.

        @param queues: where to look for it, in this order; L{None} is L{SEARCHED}.
        @return: where it was, or L{None}: it is in none of these queues, or C{queue_id} is no queue id.
        @raise SpoolError: it could not be done, and the message is where it was.
        """
        if not queueid.valid(queue_id):
            return None
        for queue in self._where(change, queues):
            path = find_file(self._fs, self._paths.folder(queue.value), queue_id)
            if path is not None and self._try(change, queue_id, queue, path):
                return queue
        if change is Change.DELETE and self._nowhere(queue_id):
            # An earlier deletion may have been cut off before the logs.
            self._drop_logs(queue_id)
        return None

    def change_all(
        self, change: Change, queues: Sequence[Queue] | None = None
    ) -> Iterator[tuple[QueueID, Queue]]:
        """
        Do something to all messages. What cannot be done to one is logged, and the others go on.

        @param queues: where to look for them; L{None} is L{SEARCHED}.
        @return: each message to which it was done, as it is done, and where it was.
        """
        for queue in self._where(change, queues):
            # A list, because files move while it is worked off.
            found = [
                (QueueID(entry.name), entry.path)
                for entry in walk(self._fs, self._paths.folder(queue.value), lambda path: None)
            ]
            for queue_id, path in found:
                try:
                    done = self._try(change, queue_id, queue, path)
                except SpoolError as error:
                    log.warn("{reason}", reason=str(error), queue_id=queue_id)
                else:
                    if done:
                        yield queue_id, queue

    # --- one message ----------------------------------------------------------------------------------

    def _where(self, change: Change, queues: Sequence[Queue] | None) -> Sequence[Queue]:
        if self._lock is None:
            raise SpoolError(f"{change.value}: the queue is not open")
        where = SEARCHED[change] if queues is None else queues
        if change is Change.RELEASE:
            # Mail that is not on hold is not released, wherever it is looked for.
            where = [queue for queue in where if queue is Queue.HOLD]
        if change is Change.REQUEUE:
            # What comes to incoming from elsewhere must not be found there again.
            where = sorted(where, key=lambda queue: queue is not Queue.INCOMING)
        target = _TARGET.get(change)
        return [queue for queue in where if queue is not target or change is Change.REQUEUE]

    def _try(self, change: Change, queue_id: QueueID, queue: Queue, path: str) -> bool:
        """
        @return: whether it was done; L{False}: there is no message.
        @raise SpoolError: naming the message and what was being done.
        """
        try:
            if change is Change.DELETE:
                self._unlink(path)
                self._drop_logs(queue_id)
                return True
            return finished(self._fs, path, self._fs.lstat(path)) and self._move(change, queue_id, path)
        except FileNotFoundError:
            return False
        except (OSError, SpoolError) as error:
            raise translated(error, f"{change.value} (in {queue.value})", queue_id) from None

    def _move(self, change: Change, queue_id: QueueID, path: str) -> bool:
        fs = self._fs
        target = self._paths.message(_TARGET[change], queue_id)
        if path != target:
            with suppress(FileNotFoundError):
                fs.lstat(target)
                raise SpoolError(f"{target} exists: look at both files")
        if change is Change.REQUEUE:
            fs.utime(path, self._now)
        if path != target:
            rename(fs, path, target)
            self._touched.update((os.path.dirname(path), os.path.dirname(target)))
        return True

    def _unlink(self, path: str) -> None:
        self._fs.unlink(path)
        self._touched.add(os.path.dirname(path))

    def _drop_logs(self, queue_id: QueueID) -> None:
        for kind in LogKind:
            path = find_file(self._fs, self._paths.folder(kind.value), queue_id)
            if path is not None:
                with suppress(FileNotFoundError):
                    self._unlink(path)

    def _nowhere(self, queue_id: QueueID) -> bool:
        return all(find_file(self._fs, self._paths.folder(queue.value), queue_id) is None for queue in Queue)

    def _sync(self, fd: int) -> None:
        """
        @param fd: a descriptor in the file system of the queue.
        """
        fs = self._fs
        if not self._touched:
            return
        if fs.has_syncfs:
            fs.syncfs(fd)
        else:
            for folder in sorted(self._touched):
                with suppress(FileNotFoundError):
                    fd = fs.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        fs.fsync(fd)
                    finally:
                        fs.close(fd)
        self._touched.clear()


def _file_system(root: str) -> FileSystem:
    """
    @return: the system calls; for root those that make nothing that the owner of the queue could not use.
    """
    owner = os.stat(root)
    if os.geteuid() == 0 and owner.st_uid != 0:
        return OwnedFileSystem(owner.st_uid, owner.st_gid)
    return RealFileSystem()
