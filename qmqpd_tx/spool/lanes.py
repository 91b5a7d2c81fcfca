"""
Lanes of disk work that share a disk process with threads.

L{ProcessDisk} gives the operations of each small message (commit, move, remove) to a
L{DiskProcess<qmqpd_tx.spool.process.DiskProcess>}, and all others to threads. Promises what a lane promises:
operations on one message take effect in the order in which they were put, whoever does them. What the process
could not do, for whatever reason, is done again by the threads, which know how to explain an error; when the
process ends, its unfinished work is done by the threads, and so is all work from then on.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred

from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.commits import CommitFile
from qmqpd_tx.spool.disk import (
    COMMIT_LANE,
    QUEUE_LANE,
    InlineDisk,
    Lane,
    Operation,
    ReportingDisk,
    Runner,
    ThreadedDisk,
)
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.operations import FileOperation, Move, Remove
from qmqpd_tx.spool.process import LOST, Answered


class SmallFiles(Protocol):
    """What does the work: a L{DiskProcess}, or what stands for one in a test."""

    running: bool

    def commit(self, path: bytes, data: bytes, answered: Answered) -> None:
        """See L{DiskProcess.commit}."""

    def move(self, source: bytes, target: bytes, due: float | None, answered: Answered) -> None:
        """See L{DiskProcess.move}."""

    def remove(self, path: bytes, answered: Answered) -> None:
        """See L{DiskProcess.remove}."""

    def keep(self, fd: int) -> None:
        """See L{DiskProcess.keep}."""

    def stop(self) -> None:
        """See L{DiskProcess.stop}."""


class ProcessDisk:
    """
    A disk that leaves the common operations of small messages to a process.

    @param others: does everything else.
    @param process: the process.
    @param paths: where messages are.
    """

    def __init__(self, others: ThreadedDisk | InlineDisk, process: SmallFiles, paths: QueuePaths) -> None:
        self._others = others
        self._process = process
        self._paths = paths

    def lane(self, name: str, threads: int, runner: Runner) -> Lane:
        """See L{Disk.lane<qmqpd_tx.spool.disk.Disk.lane>}."""
        lane = self._others.lane(name, threads, runner)
        if name == COMMIT_LANE:
            return CommitLane(self._others, self._process, lane, self._paths)
        if name == QUEUE_LANE:
            return QueueLane(self._others, self._process, lane, self._paths)
        return lane

    def drained(self) -> Deferred[None]:
        """See L{Disk.drained<qmqpd_tx.spool.disk.Disk.drained>}."""
        return self._others.drained()

    def hold_lock(self, fd: int) -> None:
        """See L{Disk.hold_lock<qmqpd_tx.spool.disk.Disk.hold_lock>}."""
        self._process.keep(fd)

    def stop(self) -> None:
        """See L{Disk.stop<qmqpd_tx.spool.disk.Disk.stop>}."""
        self._others.stop()
        self._process.stop()


class CommitLane:
    """
    Commits of small files to C{incoming} go to the process, all others to threads.
    """

    def __init__(self, disk: ReportingDisk, process: SmallFiles, threads: Lane, paths: QueuePaths) -> None:
        self._disk = disk
        self._process = process
        self._threads = threads
        self._paths = paths

    def put(self, operation: Operation) -> None:
        """See L{Lane.put<qmqpd_tx.spool.disk.Lane.put>}."""
        if (
            type(operation) is not CommitFile
            or operation.streamed
            or operation.hold
            or not self._process.running
        ):
            self._threads.put(operation)
            return
        self._disk.begun()
        path = os.fsencode(self._paths.message(Queue.INCOMING, operation.file.queue_id))
        self._process.commit(path, operation.data, partial(self._answered, operation))

    def _answered(self, operation: CommitFile, error: int) -> None:
        # After a loss there may be a file, whole or not: the threads begin with its removal.
        operation.file.exists = error in (0, LOST)
        if error:
            self._threads.put(operation)
            self._disk.ended()
        else:
            self._disk.done(operation)


class QueueLane:
    """
    Moves and removals go to the process, all else to the thread; a message has one of the two at a time.
    """

    def __init__(self, disk: ReportingDisk, process: SmallFiles, thread: Lane, paths: QueuePaths) -> None:
        self._disk = disk
        self._process = process
        self._thread = thread
        self._paths = paths
        # How much of a message the process has, how much the thread has, and what waits for the process.
        self._fast: dict[QueueID, int] = {}
        self._slow: dict[QueueID, int] = {}
        self._held: dict[QueueID, list[FileOperation]] = {}
        disk.watch(self._finished)

    def put(self, operation: Operation) -> None:
        """See L{Lane.put<qmqpd_tx.spool.disk.Lane.put>}."""
        if not isinstance(operation, FileOperation) or operation.queue_id is None:
            self._thread.put(operation)
            return
        message = operation.queue_id
        if message in self._held:
            self._disk.begun()
            self._held[message].append(operation)
        elif (
            (type(operation) is Move or type(operation) is Remove)
            and message not in self._slow
            and self._process.running
        ):
            self._give(operation, message)
        elif message in self._fast:
            self._disk.begun()
            self._held[message] = [operation]
        else:
            self._put_slow(operation, message)

    def _give(self, operation: Move | Remove, message: QueueID) -> None:
        self._disk.begun()
        self._fast[message] = self._fast.get(message, 0) + 1
        answered = partial(self._answered, operation, message)
        path = self._paths.message
        if type(operation) is Move:
            source, target = path(operation.source, message), path(operation.target, message)
            self._process.move(os.fsencode(source), os.fsencode(target), operation.due, answered)
        else:
            assert type(operation) is Remove
            self._process.remove(os.fsencode(path(operation.queue, message)), answered)

    def _answered(self, operation: Move | Remove, message: QueueID, error: int) -> None:
        left = self._fast.pop(message) - 1
        if left:
            self._fast[message] = left
        if error:
            operation.repeated = error == LOST
            self._put_slow(operation, message)
            self._disk.ended()
        else:
            self._disk.done(operation)
        if not left and message in self._held:
            for held in self._held.pop(message):
                self.put(held)
                self._disk.ended()

    def _put_slow(self, operation: FileOperation, message: QueueID) -> None:
        self._slow[message] = self._slow.get(message, 0) + 1
        operation.slow = True
        self._thread.put(operation)

    def _finished(self, operation: Operation) -> None:
        if not isinstance(operation, FileOperation) or not operation.slow:
            return
        message = operation.queue_id
        assert message is not None
        left = self._slow.pop(message) - 1
        if left:
            self._slow[message] = left
