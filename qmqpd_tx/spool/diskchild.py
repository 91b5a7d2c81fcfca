"""
The disk process: makes small files durable, moves and removes them, for the service that forked it.

It exists because of the interpreter lock: on the service's own threads each system call has to get the lock
back from a busy reactor, which costs more than the call. Takes frames from a socket, in order; gives back
a number and an errno for each. Whatever has arrived together is a batch: its files are written first and then
made durable together, with one syncfs(2) or an fsync each; a removal swallows a move of the same file that
came just before. The answer to a commit is sent after its file is durable, never before.

It is an accelerator, not a judge: it never explains, retries or repairs. An error leaves nothing behind, and
the service does the operation again in the ordinary way. When the service is gone it finishes what it was
given and ends; until then it holds the service's lock on the queue, so that the next service starts
after it.

Frames to the process: number, kind and length of the payload (L{FRAME}), then

  - C{C}, commit: the length of the path in two bytes, path, content of the file;
  - C{M}, move: both lengths and when it is due (L{MOVE}), source, target;
  - C{R}, remove: the path;
  - C{L}, lock: nothing, but a descriptor comes along, to be kept open.

Frames back: number and errno (L{ANSWER}); C{L} is not answered.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from attrs import frozen

from qmqpd_tx.spool.commits import write_all
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.settings import AUTO, FSYNC, SYNCFS
from qmqpd_tx.spool.spares import Spares

FRAME = struct.Struct("!IcI")
MOVE = struct.Struct("!HHd")
PATH = struct.Struct("!H")
ANSWER = struct.Struct("!IH")

COMMIT, MOVE_KIND, REMOVE, LOCK = b"C", b"M", b"R", b"L"

SYNCFS_FROM = 3
"""With C{auto}: how many commits must wait for one syncfs(2) to be cheaper than an fsync each."""

SYNCFS_SLOW = 0.25
"""With C{auto}: a syncfs(2) that takes so many seconds is writing somebody else's data as well..."""

SYNCFS_PAUSE = 30.0
"""...and is not used again for so many seconds."""

RECEIVE = 1 << 20

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY


@frozen(slots=True)
class Frame:
    """One request: its number, its kind and its payload."""

    number: int
    kind: bytes
    payload: bytes


def read_frames(buffer: bytearray) -> list[Frame]:
    """
    Take all complete frames out of C{buffer}.
    """
    frames = []
    start = 0
    while len(buffer) - start >= FRAME.size:
        number, kind, length = FRAME.unpack_from(buffer, start)
        end = start + FRAME.size + length
        if len(buffer) < end:
            break
        frames.append(Frame(number, kind, bytes(buffer[start + FRAME.size : end])))
        start = end
    del buffer[:start]
    return frames


class Syncer:
    """
    Makes a batch of files durable.

    @param how: C{fsync}, C{syncfs} or C{auto}.
    """

    def __init__(self, fs: FileSystem, how: str) -> None:
        self._fs = fs
        self._how = how if fs.has_syncfs else FSYNC
        self._resume = 0.0

    def sync(self, fds: Sequence[int]) -> list[int]:
        """
        @return: an errno for each descriptor; 0 is durable.
        """
        together = self._how == SYNCFS or (
            self._how == AUTO and len(fds) >= SYNCFS_FROM and time.monotonic() >= self._resume
        )
        if together:
            return [self._syncfs(fds[0])] * len(fds)
        if len(fds) > 1:
            # Begin to write all before waiting for the first, so that they share the journal's commit.
            for fd in fds:
                self._fs.start_writeback(fd)
        return [self._fsync(fd) for fd in fds]

    def _syncfs(self, fd: int) -> int:
        begin = time.monotonic()
        try:
            self._fs.syncfs(fd)
        except OSError as error:
            return error.errno or 5
        end = time.monotonic()
        if end - begin > SYNCFS_SLOW:
            self._resume = end + SYNCFS_PAUSE
        return 0

    def _fsync(self, fd: int) -> int:
        try:
            self._fs.fsync(fd)
        except OSError as error:
            return error.errno or 5
        return 0


class Worker:
    """
    Does batches of frames.

    @param fs: the file system.
    @param syncer: makes commits durable.
    @param spares: files to use again, when there is a place for them.
    """

    def __init__(self, fs: FileSystem, syncer: Syncer, spares: Spares | None = None) -> None:
        self._fs = fs
        self._syncer = syncer
        self._spares = spares

    def work(self, frames: Sequence[Frame]) -> Iterator[bytes]:
        """
        @return: answers, to be sent as soon as they come: moves and removals do not wait for the sync.
        """
        covered = _covered(frames)
        swallowed: dict[bytes, tuple[int, bytes]] = {}
        answers: list[bytes] = []
        commits: list[tuple[Frame, bytes, int]] = []
        for frame in frames:
            if frame.kind == COMMIT:
                self._write(frame, commits, answers)
            elif frame.kind == MOVE_KIND:
                source, target, due = _unpack_move(frame.payload)
                if frame.number in covered:
                    swallowed[target] = (frame.number, source)
                else:
                    answers.append(_answer(frame.number, self._move(source, target, due)))
            elif frame.kind == REMOVE:
                number, path = swallowed.pop(frame.payload, (None, frame.payload))
                error = self._remove(path)
                # If that failed, both are the service's to repeat, in this order.
                if number is not None:
                    answers.append(_answer(number, error))
                answers.append(_answer(frame.number, error))
        if answers:
            yield b"".join(answers)
        if commits:
            yield self._finish(commits)

    def _write(self, frame: Frame, commits: list[tuple[Frame, bytes, int]], answers: list[bytes]) -> None:
        (length,) = PATH.unpack_from(frame.payload)
        start = PATH.size + length
        path = frame.payload[PATH.size : start]
        name = os.fsdecode(path)
        data = frame.payload[start:]
        if self._spares is not None:
            spare = self._spares.fill(name, data)
            if spare is not None:
                commits.append((frame, path, spare))
                return
        try:
            fd = self._fs.open(name, _NEW, 0o700)
        except OSError as error:
            answers.append(_answer(frame.number, error.errno or 5))
            return
        try:
            write_all(self._fs, fd, data)
        except OSError as error:
            self._drop(name, fd)
            answers.append(_answer(frame.number, error.errno or 5))
            return
        commits.append((frame, path, fd))

    def _finish(self, commits: Sequence[tuple[Frame, bytes, int]]) -> bytes:
        errors = self._syncer.sync([fd for _, _, fd in commits])
        answers = []
        for (frame, path, fd), error in zip(commits, errors, strict=True):
            if error:
                self._drop(os.fsdecode(path), fd)
            else:
                with suppress(OSError):
                    self._fs.close(fd)
            answers.append(_answer(frame.number, error))
        return b"".join(answers)

    def _drop(self, name: str, fd: int) -> None:
        with suppress(OSError):
            self._fs.close(fd)
        with suppress(OSError):
            self._fs.unlink(name)

    def _move(self, source: bytes, target: bytes, due: float) -> int:
        try:
            # The time first: once it is in deferred, its time is when it is due.
            if due == due:
                self._fs.utime(os.fsdecode(source), due)
            self._fs.rename(os.fsdecode(source), os.fsdecode(target))
        except OSError as error:
            return error.errno or 5
        return 0

    def adopt(self) -> None:
        """
        The queue is ours: begin to use spare files.
        """
        if self._spares is not None:
            self._spares.adopt()

    def _remove(self, path: bytes) -> int:
        name = os.fsdecode(path)
        try:
            if self._spares is None or not self._spares.take(name):
                self._fs.unlink(name)
        except OSError as error:
            return error.errno or 5
        return 0


def _answer(number: int, error: int) -> bytes:
    return ANSWER.pack(number, error)


def _covered(frames: Sequence[Frame]) -> set[int]:
    """
    @return: the numbers of the moves whose files are removed by the next frame that names where they go.
    """
    covered: set[int] = set()
    following: dict[bytes, bytes] = {}
    for frame in reversed(frames):
        if frame.kind == REMOVE:
            following[frame.payload] = REMOVE
        elif frame.kind == MOVE_KIND and following:
            source, target, _ = _unpack_move(frame.payload)
            if following.get(target) == REMOVE:
                covered.add(frame.number)
            following[source] = following[target] = MOVE_KIND
    return covered


def _unpack_move(payload: bytes) -> tuple[bytes, bytes, float]:
    source_length, target_length, due = MOVE.unpack_from(payload)
    start = MOVE.size
    middle = start + source_length
    return payload[start:middle], payload[middle : middle + target_length], due


def serve(channel: socket.socket, worker: Worker) -> None:
    """
    Work until the service closes its end.
    """
    buffer = bytearray()
    kept: list[int] = []
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, RECEIVE, 1)
        except InterruptedError:
            continue
        if descriptors:
            kept.extend(descriptors)
            worker.adopt()
        if not data:
            return
        buffer += data
        for answers in worker.work(read_frames(buffer)):
            # A service that has gone needs no answers, but the rest of what it asked for is still done.
            with suppress(OSError):
                channel.sendall(answers)


def child(channel: socket.socket, fs: FileSystem, how: str, spares: Spares | None) -> None:
    """
    The life of the forked process; does not return.
    """
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # The service's sockets and files must not outlive it here.
        keep = channel.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
        serve(channel, Worker(fs, Syncer(fs, how), spares))
        status = 0
    finally:
        os._exit(status)
