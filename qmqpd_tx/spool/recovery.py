"""
Bringing the queue into order after whatever ended the service before.

L{Prepare} is what start-up waits for: folders, the lock, the free space, the floor for new queue ids. It
costs the same whatever is queued, unless there is no floor or the layout of the folders was changed: then all
names are listed, and files move to where they belong.

L{Recoverer} is the rest, a file at a time and beside the service: L{RecoverSlice} does a few milliseconds of
it on the ordered disk thread, so that what the service asks of messages comes in between. It walks through
all files of the queue once:

  - C{active}: goes back to C{incoming}, but for what became active since the start;
  - C{deferred}: the files' times are read for the index; the content is looked at when the message is due;
  - C{incoming}: unfinished files stay until they are a day old, then go; what has arrived since the start is
    left alone;
  - C{hold}: the same for unfinished files;
  - damaged files of C{active} and C{incoming} go to C{corrupt}, with a warning;
  - everywhere, logs included: a file at another depth of subfolders than the configured one moves to where
    it belongs, one with a name that is no queue id is left alone and warned of, once, and no later id is
    smaller than one that was seen.

A file that cannot be worked on is warned of and left for the next start; when there are many of them, or a
folder cannot be listed, the recovery fails. Answers to postfix-script's checks, to the start of qmgr(8)
(active mail goes back to incoming), and to the clean-up of pickup and qmgr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator
from typing import Final

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished, Recovery, SpoolError
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.errors import RecycledFile, translated
from qmqpd_tx.spool.files import QueuePaths, exists, settle, walk
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.floor import RESERVE, layout_of, read_floor, write_floor
from qmqpd_tx.spool.lock import make_folders, take_lock
from qmqpd_tx.spool.operations import FileOperation
from qmqpd_tx.spool.reading import check_message

log = Logger(namespace="qmqpd_tx.qmgr")

Foreign = Callable[[str], None]
"""Called with each path that has no place in a queue folder."""

Found = tuple[QueueID, float]
"""A deferred message, and when it is due."""

SLICE_SECONDS: Final = 0.004
"""How long a slice may take the disk thread, apart from its last file."""

SLICE_FILES: Final = 200
"""How many files a slice may have, however fast they go."""

TROUBLE_LIMIT: Final = 20
"""How many files may fail before the disk is to blame."""


class Prepare(FileOperation):
    """
    Make the queue ready to take and deliver messages; gives the number below which no new id may be.

    @param now: POSIX seconds.
    @ivar lock: the descriptor that holds the lock; closed again when this fails.
    @ivar reserved: up to which number ids may be given out without another look at the floor.
    @ivar free: bytes free.
    """

    __slots__ = ("_foreign", "_now", "free", "lock", "reserved")
    doing = "start the queue"

    def __init__(self, now: float, foreign: Foreign) -> None:
        super().__init__(None)
        self._now = now
        self._foreign = foreign
        self.lock: int | None = None
        self.reserved = 0
        self.free = 0

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        make_folders(fs, paths)
        self.lock = take_lock(fs, paths)
        try:
            floor = read_floor(fs, paths)
            if floor is not None and floor.layout == layout_of(paths):
                last = floor.number
            else:
                last = settle_all(fs, paths, self._foreign)
            self.free = fs.free_space(paths.root)
            self.reserved = max(last, int(self._now * 1_000_000)) + RESERVE
            write_floor(fs, paths, self.reserved)
        except Exception:
            fs.close(self.lock)
            self.lock = None
            raise
        self.result = last


def settle_all(fs: FileSystem, paths: QueuePaths, foreign: Foreign) -> int:
    """
    Bring all files to the configured depth.

    @return: the greatest number of an id, -1 when there is none.
    """
    last = -1
    for folder, place in _places(paths):
        # A list, because files move while it is worked off.
        for entry in list(walk(fs, paths.folder(folder), foreign)):
            queue_id = QueueID(entry.name)
            last = max(last, queueid.decode(queue_id))
            settle(fs, entry.path, place(queue_id))
    return last


def _places(paths: QueuePaths) -> Iterator[tuple[str, Callable[[QueueID], str]]]:
    """
    @return: each folder with files, and what gives the place of a file in it.
    """
    for queue in Queue:
        yield queue.value, lambda queue_id, queue=queue: paths.message(queue, queue_id)  # type: ignore[misc]
    for kind in LogKind:
        yield kind.value, lambda queue_id, kind=kind: paths.log(kind, queue_id)  # type: ignore[misc]


class Recoverer:
    """
    The recovery of one queue. Used on the ordered disk thread only, but for its attributes, which are read
    between slices.

    @param now: POSIX seconds.
    @param boundary: ids that are greater belong to this run.
    @param unfinished_limit: age in seconds at which unfinished files go.
    @param foreign: see L{Foreign}.
    @param ours: the ids of messages that became active since the start.
    @ivar last: the greatest queue id seen, or L{None}.
    """

    def __init__(
        self,
        now: float,
        boundary: QueueID,
        unfinished_limit: float,
        foreign: Foreign,
        ours: Container[QueueID],
    ) -> None:
        self._now = now
        self._boundary = boundary
        self._limit = unfinished_limit
        self._foreign = foreign
        self._ours = ours
        self._checked: set[QueueID] = set()
        self._swept = 0
        self._damaged: list[QueueID] = []
        self._troubles = 0
        self.last: QueueID | None = None

    @property
    def result(self) -> Recovery:
        """What was found so far."""
        return Recovery(len(self._checked), self._swept, tuple(self._damaged))

    def steps(self, fs: FileSystem, paths: QueuePaths) -> Iterator[Found | None]:
        """
        Recover, a file a step.

        @return: for a deferred message, when it is due; else L{None}.
        """
        # What was active is late already, and what is due may be.
        for queue in (Queue.ACTIVE, Queue.DEFERRED, Queue.INCOMING, Queue.HOLD, Queue.CORRUPT):
            for entry in walk(fs, paths.folder(queue.value), self._foreign):
                yield self._step(fs, paths, queue, entry)
        for kind in LogKind:
            for entry in walk(fs, paths.folder(kind.value), self._foreign):
                queue_id = self._seen(entry)
                try:
                    settle(fs, entry.path, paths.log(kind, queue_id))
                except FileNotFoundError:
                    pass
                except OSError as error:
                    self._trouble(error, queue_id)
                yield None

    def _step(self, fs: FileSystem, paths: QueuePaths, queue: Queue, entry: os.DirEntry[str]) -> Found | None:
        queue_id = self._seen(entry)
        try:
            if queue is Queue.ACTIVE:
                self._reactivate(fs, paths, queue_id, entry.path)
                return None
            path = settle(fs, entry.path, paths.message(queue, queue_id))
            if queue is Queue.INCOMING:
                self._sweep(fs, paths, queue_id, path)
            elif queue is Queue.HOLD:
                self._sweep_held(fs, queue_id, path)
            elif queue is Queue.DEFERRED:
                return queue_id, fs.lstat(path).st_mtime
        except FileNotFoundError:
            # Removed, or moved on, since the folder was listed.
            pass
        except OSError as error:
            self._trouble(error, queue_id)
        return None

    def _seen(self, entry: os.DirEntry[str]) -> QueueID:
        queue_id = QueueID(entry.name)
        if self.last is None or queue_id > self.last:
            self.last = queue_id
        return queue_id

    def _trouble(self, error: OSError, queue_id: QueueID) -> None:
        self._troubles += 1
        if self._troubles > TROUBLE_LIMIT:
            raise error
        reason = str(translated(error, "recover", queue_id))
        log.warn("{reason}: left for the next start", reason=reason, queue_id=queue_id)

    def recover_active(self, fs: FileSystem, paths: QueuePaths, queue_id: QueueID) -> None:
        """
        Bring one message back from C{active} out of turn, if it is one of the run before.
        """
        path = paths.message(Queue.ACTIVE, queue_id)
        try:
            if exists(fs, path):
                self._reactivate(fs, paths, queue_id, path)
        except FileNotFoundError:
            pass

    def _reactivate(self, fs: FileSystem, paths: QueuePaths, queue_id: QueueID, path: str) -> None:
        if queue_id in self._ours:
            return
        try:
            check_message(fs, path)
            if exists(fs, paths.message(Queue.INCOMING, queue_id)):
                raise MessageDamaged("there is a message of that name in incoming", 0)
        except RecycledFile:
            self._recycled(fs, queue_id, path)
        except (MessageDamaged, MessageUnfinished) as error:
            # Only finished messages become active: an unfinished one here has lost its end.
            self._to_corrupt(fs, paths, queue_id, path, error)
        else:
            settle(fs, path, paths.message(Queue.INCOMING, queue_id))
            self._checked.add(queue_id)

    def _sweep(self, fs: FileSystem, paths: QueuePaths, queue_id: QueueID, path: str) -> None:
        if queue_id > self._boundary or queue_id in self._checked:
            return
        try:
            check_message(fs, path)
        except MessageDamaged as error:
            self._to_corrupt(fs, paths, queue_id, path, error)
        except RecycledFile:
            self._recycled(fs, queue_id, path)
        except MessageUnfinished:
            self._remove_old(fs, queue_id, path)

    def _sweep_held(self, fs: FileSystem, queue_id: QueueID, path: str) -> None:
        """
        What is held may be much, so it is not read: see L{qmqpd_tx.spool.commits}.
        """
        if queue_id <= self._boundary and fs.lstat(path).st_mode & 0o700 != 0o700:
            self._remove_old(fs, queue_id, path)

    def _remove_old(self, fs: FileSystem, queue_id: QueueID, path: str) -> None:
        if self._now - fs.lstat(path).st_mtime >= self._limit:
            fs.unlink(path)
            self._swept += 1
            log.info("{queue_id}: removed unfinished queue file", queue_id=queue_id)

    def _recycled(self, fs: FileSystem, queue_id: QueueID, path: str) -> None:
        """
        Remove a file that was used again when the power failed: its own message was removed before that, or
        never acknowledged.
        """
        fs.unlink(path)
        log.info("{queue_id}: removed queue file with another message", queue_id=queue_id)

    def _to_corrupt(
        self, fs: FileSystem, paths: QueuePaths, queue_id: QueueID, path: str, error: SpoolError
    ) -> None:
        settle(fs, path, paths.message(Queue.CORRUPT, queue_id))
        self._damaged.append(queue_id)
        log.warn(
            "{queue_id}: damaged queue file saved to corrupt: {reason}", queue_id=queue_id, reason=str(error)
        )


class RecoverSlice(FileOperation):
    """
    Some steps of a recovery; gives a list of L{Found}.

    @ivar limit: how many files it may have.
    @ivar left: messages that left a queue since this was called.
    @ivar exhausted: whether the end was reached.
    """

    __slots__ = ("_steps", "exhausted", "left", "limit")
    doing = "recover the queue"

    def __init__(self, steps: Iterator[Found | None]) -> None:
        super().__init__(None)
        self._steps = steps
        self.limit = SLICE_FILES
        self.left: set[QueueID] = set()
        self.exhausted = False

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        found: list[Found] = []
        self.result = found
        end = time.monotonic() + SLICE_SECONDS
        for _ in range(self.limit):
            try:
                step = next(self._steps)
            except StopIteration:
                self.exhausted = True
                return
            if step is not None:
                found.append(step)
            if time.monotonic() >= end:
                return
