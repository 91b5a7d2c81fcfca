"""
A process of its own for disk work: the service's side of L{qmqpd_tx.spool.diskchild}.

Takes requests, each with a callback that is given an errno, 0 when it is done. What one turn of the reactor
asks for travels together. Each callback is called once: when the process ends before it has answered, with
L{LOST}, and only after it can do nothing any more.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
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
from qmqpd_tx.spool.filesystem import FileSystem
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
