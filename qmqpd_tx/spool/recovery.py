"""
Start-up: folders, the lock, and bringing the queue into order after whatever ended the service before.

Takes a C{queue_directory}; gives the lock, what was found, the index of deferred mail and the greatest
queue id. Runs on a disk thread. Answers to postfix-script's checks, to the start of qmgr(8) (active mail
goes back to incoming), and to the clean-up of pickup and qmgr.

  - A file with a name that is no queue id is left alone and warned of, once.
  - A file at a depth of subfolders that is not the configured one moves to where it belongs.
  - C{active}: goes back to C{incoming}.
  - C{incoming}: unfinished files stay until they are a day old, then go.
  - damaged files of both go to C{corrupt}, with a warning.
  - C{deferred}: only the files' times are read; the content is looked at when the message is due.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished, QueueLocked, Recovery, SpoolError
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import record
from qmqpd_tx.spool.errors import RecycledFile
from qmqpd_tx.spool.files import FOLDERS, QueuePaths, make_parent, walk
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.index import DueIndex
from qmqpd_tx.spool.operations import FileOperation, open_message, reader
from qmqpd_tx.spool.record import CHUNK

log = Logger(namespace="qmqpd_tx.qmgr")


LOCK_TIME_LIMIT = 10.0
"""How many seconds to wait for the disk process of a service that is gone."""

LOCK_INTERVAL = 0.02
"""How often to try, in seconds."""


class Recover(FileOperation):
    """
    Start up; gives a L{Recovery}.

    @param now: POSIX seconds.
    @param unfinished_limit: age in seconds at which unfinished files go.
    @param foreign: called with each path that has no place in a queue folder.
    @ivar lock: the descriptor that holds the lock; closed again when start-up fails.
    @ivar index: the deferred messages.
    @ivar last: the greatest queue id seen, or L{None}.
    @ivar free: bytes free.
    """

    __slots__ = ("_damaged", "_foreign", "_limit", "_now", "free", "index", "last", "lock")
    doing = "start the queue"

    def __init__(self, now: float, unfinished_limit: float, foreign: Callable[[str], None]) -> None:
        super().__init__(None)
        self._now = now
        self._limit = unfinished_limit
        self._foreign = foreign
        self._damaged: list[QueueID] = []
        self.lock: int | None = None
        self.index = DueIndex()
        self.last: QueueID | None = None
        self.free = 0

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        _make_folders(fs, paths)
        self.lock = take_lock(fs, paths)
        try:
            for kind in LogKind:
                self._relocate_logs(fs, paths, kind)
            for queue in (Queue.HOLD, Queue.CORRUPT):
                self._settle(fs, paths, queue)
            swept = self._incoming(fs, paths)
            reactivated = self._active(fs, paths)
            self.index = DueIndex(self._deferred(fs, paths))
            self.free = fs.free_space(paths.root)
        except Exception:
            fs.close(self.lock)
            self.lock = None
            raise
        self.result = Recovery(reactivated, swept, self._damaged)

    def _found(self, fs: FileSystem, paths: QueuePaths, folder: str) -> list[tuple[QueueID, str]]:
        """
        @return: id and path of all files of a folder. A list, because files move while it is worked off.
        """
        files = [(QueueID(entry.name), entry.path) for entry in walk(fs, paths.folder(folder), self._foreign)]
        last = max((queue_id for queue_id, _ in files), default=None)
        if last is not None and (self.last is None or last > self.last):
            self.last = last
        return files

    def _relocate_logs(self, fs: FileSystem, paths: QueuePaths, kind: LogKind) -> None:
        for queue_id, path in self._found(fs, paths, kind.value):
            self._rename(fs, path, paths.log(kind, queue_id))

    def _settle(self, fs: FileSystem, paths: QueuePaths, queue: Queue) -> list[tuple[QueueID, str]]:
        """
        Bring the files of a queue to the configured depth.

        @return: id and path of each.
        """
        settled = []
        for queue_id, path in self._found(fs, paths, queue.value):
            settled.append((queue_id, self._rename(fs, path, paths.message(queue, queue_id))))
        return settled

    def _rename(self, fs: FileSystem, source: str, target: str) -> str:
        """
        @return: where the file is now: a file that already has the name is never overwritten.
        """
        if source == target:
            return target
        if _exists(fs, target):
            log.warn("{path}: {target} exists: not moved", path=source, target=target)
            return source
        try:
            fs.rename(source, target)
        except FileNotFoundError:
            make_parent(fs, target)
            fs.rename(source, target)
        return target

    def _incoming(self, fs: FileSystem, paths: QueuePaths) -> int:
        """
        @return: how many unfinished files were removed.
        """
        swept = 0
        for queue_id, path in self._settle(fs, paths, Queue.INCOMING):
            try:
                _check(fs, path)
            except FileNotFoundError:
                continue
            except MessageDamaged as error:
                self._to_corrupt(fs, paths, queue_id, path, error)
            except RecycledFile:
                self._recycled(fs, queue_id, path)
            except MessageUnfinished:
                age = self._now - fs.lstat(path).st_mtime
                if age >= self._limit:
                    fs.unlink(path)
                    swept += 1
                    log.info("{queue_id}: removed unfinished queue file", queue_id=queue_id)
        return swept

    def _recycled(self, fs: FileSystem, queue_id: QueueID, path: str) -> None:
        """
        Remove a file that was used again when the power failed: its own message was removed before that, or
        never acknowledged.
        """
        fs.unlink(path)
        log.info("{queue_id}: removed queue file with another message", queue_id=queue_id)

    def _active(self, fs: FileSystem, paths: QueuePaths) -> int:
        """
        @return: how many messages went back to incoming.
        """
        reactivated = 0
        for queue_id, path in self._found(fs, paths, Queue.ACTIVE.value):
            try:
                _check(fs, path)
                if _exists(fs, paths.message(Queue.INCOMING, queue_id)):
                    raise MessageDamaged("there is a message of that name in incoming", 0)
            except FileNotFoundError:
                continue
            except RecycledFile:
                self._recycled(fs, queue_id, path)
            except (MessageDamaged, MessageUnfinished) as error:
                # Only finished messages become active: an unfinished one here has lost its end.
                self._to_corrupt(fs, paths, queue_id, path, error)
            else:
                self._rename(fs, path, paths.message(Queue.INCOMING, queue_id))
                reactivated += 1
        return reactivated

    def _deferred(self, fs: FileSystem, paths: QueuePaths) -> list[tuple[QueueID, float]]:
        """
        @return: id and due time of each deferred message.
        """
        entries = []
        for queue_id, path in self._settle(fs, paths, Queue.DEFERRED):
            try:
                entries.append((queue_id, fs.lstat(path).st_mtime))
            except FileNotFoundError:
                continue
        return entries

    def _to_corrupt(
        self, fs: FileSystem, paths: QueuePaths, queue_id: QueueID, path: str, error: SpoolError
    ) -> None:
        self._rename(fs, path, paths.message(Queue.CORRUPT, queue_id))
        self._damaged.append(queue_id)
        log.warn(
            "{queue_id}: damaged queue file saved to corrupt: {reason}", queue_id=queue_id, reason=str(error)
        )


def _check(fs: FileSystem, path: str) -> None:
    """
    Read a file wholly.

    @raise MessageUnfinished: it is not complete.
    @raise MessageDamaged: it makes no sense.
    """
    opened = open_message(fs, path)
    if opened.layout.size > CHUNK:
        fd = fs.open(path, os.O_RDONLY)
        try:
            record.verify(reader(fs, fd), opened.layout)
        finally:
            fs.close(fd)


def _exists(fs: FileSystem, path: str) -> bool:
    try:
        fs.lstat(path)
    except FileNotFoundError:
        return False
    return True


def check(fs: FileSystem, paths: QueuePaths) -> None:
    """
    Find out whether L{Recover} could begin: make the folders, take the lock and give it back.

    @raise SpoolError: it could not.
    """
    try:
        _make_folders(fs, paths)
        fs.close(take_lock(fs, paths))
    except OSError as error:
        raise SpoolError(
            f"{error.filename or paths.root}: {error.strerror}: queue_directory and all in it must belong to "
            f"the user of this service"
        ) from None


def _make_folders(fs: FileSystem, paths: QueuePaths) -> None:
    for path in (paths.root, *map(paths.folder, FOLDERS)):
        _make_folder(fs, path)


def _make_folder(fs: FileSystem, path: str) -> None:
    make_parent(fs, f"{path}/x")
    mode = os.stat(path).st_mode
    if mode & 0o700 != 0o700:
        raise SpoolError(
            f"{path}: the owner needs read, write and search permission (and umask must allow it)"
        )


def take_lock(fs: FileSystem, paths: QueuePaths) -> int:
    """
    Take the lock of a C{queue_directory}: C{pid/master.pid}, which then holds our process id.

    A service that was killed may have left its disk process behind, which keeps the lock until it has done
    what it was given: that is waited for.

    @return: the descriptor that holds it.
    @raise QueueLocked: naming the process that has it.
    """
    path = paths.folder("pid") + "/master.pid"
    fd = fs.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        end = time.monotonic() + LOCK_TIME_LIMIT
        while not fs.lock(fd):
            text = fs.pread(fd, 32, 0).strip().decode("ascii", "replace") or "unknown"
            if _alive(text) or time.monotonic() > end:
                raise QueueLocked(f"{path}: the queue is in use by process {text}: stop that service first")
            time.sleep(LOCK_INTERVAL)
        fs.ftruncate(fd, 0)
        fs.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except Exception:
        fs.close(fd)
        raise
    return fd


def _alive(pid: str) -> bool:
    """
    @return: whether there may be such a process.
    """
    if not pid.isascii() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
