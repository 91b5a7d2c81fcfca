"""
Disk work in a process of its own: the service's side of L{qmqpd_tx.spool.diskchild}.

L{ProcessDisk} gives the operations of each small message (commit, move, remove) to the disk process, and all
others to threads. Promises what a lane
promises: operations on one message take effect in the order in which they were put, whoever does them. What
the process could not do, for whatever reason, is done again by the threads, which know how to explain an
error; when the process ends, its unfinished work is done by the threads, and so is all work from then on.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
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
from qmqpd_tx.spool.diskchild import (
    ANSWER,
    COMMIT,
    FRAME,
    LOCK,
    MOVE,
    MOVE_KIND,
    PATH,
    REMOVE,
    child,
)
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.operations import FileOperation, Move, Remove
from qmqpd_tx.spool.spares import Spares

log = Logger(namespace="qmqpd_tx.qmgr")

LOST = -1
"""What a callback gets instead of an errno when the process has ended."""

REAP_INTERVAL = 0.05
"""How often to look whether the process has ended, in seconds."""

REAP_TRIES = 20
"""How often at the most; init takes care of what is left when we end."""

_NO_TIME = float("nan")

Answered = Callable[[int], None]


@implementer(IReadWriteDescriptor)
class DiskProcess:
    """
    The channel to a disk process.

    @ivar running: whether it can take work.
    """

    def __init__(self, reactor: Any, channel: socket.socket, pid: int) -> None:
        """
        @param reactor: watches descriptors, and tells time.
        @param channel: a connected, non-blocking stream socket; the other end is the process's.
        @param pid: the process; 0 when it is somebody else's to wait for.
        """
        self._reactor = reactor
        self._channel = channel
        self._pid = pid
        self._number = 0
        self._waiting: dict[int, Answered] = {}
        self._out: list[bytes] = []
        self._unsent = b""
        self._flushing = False
        self._rest = b""
        self.running = True
        reactor.addReader(self)

    @classmethod
    def fork(cls, reactor: Any, fs: FileSystem, how: str, spares: Spares | None = None) -> DiskProcess:
        """
        Fork the process. To be called before the reactor runs and while there is no other thread.

        @raise OSError: it cannot be had.
        """
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            child(theirs, fs, how, spares)
        theirs.close()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return cls(reactor, ours, pid)

    # --- requests -----------------------------------------------------------------------------------

    def commit(self, path: bytes, data: bytes, answered: Answered) -> None:
        """
        Make a file and make it durable.
        """
        self._request(COMMIT, answered, PATH.pack(len(path)), path, data)

    def move(self, source: bytes, target: bytes, due: float | None, answered: Answered) -> None:
        """
        Rename a file, its time set to C{due} first.
        """
        head = MOVE.pack(len(source), len(target), _NO_TIME if due is None else due)
        self._request(MOVE_KIND, answered, head, source, target)

    def remove(self, path: bytes, answered: Answered) -> None:
        """
        Unlink a file.
        """
        self._request(REMOVE, answered, path)

    def keep(self, fd: int) -> None:
        """
        Let the process hold a descriptor until it ends.
        """
        if not self.running:
            return
        # Nothing can be queued before: this is called when the queue starts.
        try:
            socket.send_fds(self._channel, [FRAME.pack(0, LOCK, 0)], [fd])
        except OSError:
            self._lost()

    def _request(self, kind: bytes, answered: Answered, *payload: bytes) -> None:
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._waiting[number] = answered
        self._out.append(FRAME.pack(number, kind, sum(map(len, payload))))
        self._out.extend(payload)
        if not self._flushing:
            # What one turn of the reactor asks for travels, and is made durable, together.
            self._flushing = True
            self._reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        if not self.running:
            return
        data = self._unsent + b"".join(self._out)
        self._out = []
        try:
            while data:
                data = data[self._channel.send(data) :]
        except BlockingIOError:
            self._unsent = data
            self._reactor.addWriter(self)
            return
        except OSError:
            self._lost()
            return
        self._unsent = b""
        self._flushing = False

    # --- IReadWriteDescriptor -----------------------------------------------------------------------

    def fileno(self) -> int:
        """
        @return: the descriptor to watch.
        """
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """
        @return: who this is, for Twisted's log.
        """
        return "disk process"

    def doWrite(self) -> None:
        """The process takes requests again."""
        self._reactor.removeWriter(self)
        self._flush()

    def doRead(self) -> None:
        """Answers, or the end of the process."""
        try:
            data = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        data = self._rest + data
        whole = len(data) - len(data) % ANSWER.size
        self._rest = data[whole:]
        waiting = self._waiting
        for number, error in ANSWER.iter_unpack(data[:whole]):
            waiting.pop(number)(error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives the channel up."""
        self._lost()

    def _lost(self) -> None:
        if not self.running:
            return
        self._close()
        log.error(
            "the disk process ended, {count} operations are done again on threads", count=len(self._waiting)
        )
        if self._pid:
            # If only the channel is lost, it is still at work, and nobody else may do that work beside it.
            with suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
        self._repeat()

    def _repeat(self) -> None:
        """
        Give back what has no answer, as soon as the process is gone.
        """
        if not self._gone():
            self._reactor.callLater(REAP_INTERVAL, self._repeat)
            return
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered(LOST)

    def _close(self) -> None:
        self.running = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._channel.close()

    def _gone(self) -> bool:
        """
        @return: whether the process has ended.
        """
        if not self._pid:
            return True
        try:
            pid, _ = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            return True
        return pid != 0

    def _reap(self, tries: int) -> None:
        if not self._gone() and tries:
            self._reactor.callLater(REAP_INTERVAL, self._reap, tries - 1)

    def stop(self) -> None:
        """
        Let the process end; nothing is under way any more.
        """
        if self.running:
            self._close()
            # It ends when its channel does. One that hangs in the disk is not waited for.
            self._reap(REAP_TRIES)


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
    Commits of small files go to the process, all others to threads.
    """

    def __init__(self, disk: ReportingDisk, process: SmallFiles, threads: Lane, paths: QueuePaths) -> None:
        self._disk = disk
        self._process = process
        self._threads = threads
        self._paths = paths

    def put(self, operation: Operation) -> None:
        """See L{Lane.put<qmqpd_tx.spool.disk.Lane.put>}."""
        if type(operation) is not CommitFile or operation.streamed or not self._process.running:
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
