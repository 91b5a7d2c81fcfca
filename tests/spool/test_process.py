"""
The disk process itself, over a real socket: frames in any chunking, and a whole queue with a real process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.spool.diskchild import (
    ANSWER,
    COMMIT,
    FRAME,
    MOVE,
    MOVE_KIND,
    PATH,
    REMOVE,
    Frame,
    Syncer,
    Worker,
    read_frames,
    serve,
)
from qmqpd_tx.spool.filesystem import RealFileSystem, syncfs_tells
from qmqpd_tx.spool.process import LOST, REAP_INTERVAL, DiskProcess
from qmqpd_tx.spool.spares import Spares


class CountingFileSystem(RealFileSystem):
    """Notes which sync calls were made."""

    def __init__(self) -> None:
        self.syncs: list[str] = []
        self.fail = 0

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """Note it, and fail if told to."""
        self.syncs.append("fsync")
        if self.fail:
            raise OSError(self.fail, os.strerror(self.fail))
        os.fsync(fd)

    def syncfs(self, fd: int) -> None:
        """Note it."""
        self.syncs.append("syncfs")
        super().syncfs(fd)


def commit(path: str, data: bytes) -> bytes:
    """
    @return: the payload of a commit.
    """
    name = os.fsencode(path)
    return PATH.pack(len(name)) + name + data


def move(source: str, target: str, due: float = float("nan")) -> bytes:
    """
    @return: the payload of a move.
    """
    return MOVE.pack(len(source), len(target), due) + source.encode() + target.encode()


class FrameTests(SynchronousTestCase):
    """Frames from a stream."""

    @given(
        st.lists(st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([b"C", b"M", b"R"]), st.binary())),
        st.data(),
    )
    def test_any_chunking(self, frames: list[tuple[int, bytes, bytes]], data: st.DataObject) -> None:
        """However the bytes come, the same frames come out, and nothing is left."""
        stream = b"".join(
            FRAME.pack(number, kind, len(payload)) + payload for number, kind, payload in frames
        )
        buffer = bytearray()
        found: list[Frame] = []
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            buffer += stream[:size]
            stream = stream[size:]
            found += read_frames(buffer)
        self.assertEqual([(one.number, one.kind, one.payload) for one in found], frames)
        self.assertEqual(buffer, b"")


class WorkerTests(SynchronousTestCase):
    """Batches."""

    def setUp(self) -> None:
        """A folder and a worker."""
        self.folder = self.mktemp()
        os.makedirs(self.folder)
        self.fs = CountingFileSystem()

    def work(self, *requests: tuple[bytes, bytes], how: str = "fsync") -> dict[int, int]:
        """
        @return: the errno of each request, by its place.
        """
        worker = Worker(self.fs, Syncer(self.fs, how))
        frames = [Frame(number, kind, payload) for number, (kind, payload) in enumerate(requests)]
        return dict(pair for answers in worker.work(frames) for pair in ANSWER.iter_unpack(answers))

    def path(self, name: str) -> str:
        """
        @return: a path in the folder.
        """
        return os.path.join(self.folder, name)

    def test_commit(self) -> None:
        """A file is made with the mode of a finished queue file, and synced."""
        self.assertEqual(self.work((COMMIT, commit(self.path("a"), b"content"))), {0: 0})
        with open(self.path("a"), "rb") as file:
            self.assertEqual(file.read(), b"content")
        self.assertEqual(os.stat(self.path("a")).st_mode & 0o777, 0o700)
        self.assertEqual(self.fs.syncs, ["fsync"])

    def test_never_overwrites(self) -> None:
        """A file that is there is left alone."""
        self.work((COMMIT, commit(self.path("a"), b"first")))
        (error,) = self.work((COMMIT, commit(self.path("a"), b"second"))).values()
        self.assertEqual(os.strerror(error), "File exists")
        with open(self.path("a"), "rb") as file:
            self.assertEqual(file.read(), b"first")

    def test_failed_sync(self) -> None:
        """What could not be made durable is removed and reported."""
        self.fs.fail = 5
        self.assertEqual(self.work((COMMIT, commit(self.path("a"), b"content"))), {0: 5})
        self.assertEqual(os.listdir(self.folder), [])

    def test_sync_together(self) -> None:
        """A batch is synced with one call where that is wanted, a few files with one each."""
        batch = [(COMMIT, commit(self.path(f"a{number}"), b"x")) for number in range(5)]
        self.assertEqual(set(self.work(*batch, how="auto").values()), {0})
        self.assertEqual(self.fs.syncs, ["syncfs"])
        self.fs.syncs.clear()
        self.work((COMMIT, commit(self.path("b"), b"x")), how="auto")
        self.assertEqual(self.fs.syncs, ["fsync"])

    def test_sync_that_does_not_tell(self) -> None:
        """Where syncfs would hide that data was not written, each file is fsynced, whatever was asked for."""
        self.assertTrue(syncfs_tells("Linux", "5.8.0"))
        self.assertTrue(syncfs_tells("Linux", "6.1.0-18-amd64"))
        self.assertFalse(syncfs_tells("Linux", "5.7.19"))
        self.assertFalse(syncfs_tells("Linux", "4.19.0-26-amd64"))
        self.assertFalse(syncfs_tells("FreeBSD", "14.1-RELEASE"))
        self.assertFalse(syncfs_tells("Linux", "unknown"))
        self.fs.has_syncfs = False
        batch = [(COMMIT, commit(self.path(f"a{number}"), b"x")) for number in range(5)]
        self.assertEqual(set(self.work(*batch, how="syncfs").values()), {0})
        self.assertEqual(self.fs.syncs, ["fsync"] * 5)

    def test_move_and_remove(self) -> None:
        """A move sets the time; a removal in the same batch swallows the move of the same file."""
        self.work((COMMIT, commit(self.path("a"), b"x")))
        self.assertEqual(self.work((MOVE_KIND, move(self.path("a"), self.path("b"), 12345.0))), {0: 0})
        self.assertEqual(os.stat(self.path("b")).st_mtime, 12345.0)
        requests = ((MOVE_KIND, move(self.path("b"), self.path("c"))), (REMOVE, self.path("c").encode()))
        self.assertEqual(self.work(*requests), {0: 0, 1: 0})
        self.assertEqual(os.listdir(self.folder), [])

    def test_move_after_a_removal(self) -> None:
        """A removal swallows only a move before it, and every request is answered."""
        self.work((COMMIT, commit(self.path("a"), b"x")), (COMMIT, commit(self.path("b"), b"y")))
        requests = ((REMOVE, self.path("b").encode()), (MOVE_KIND, move(self.path("a"), self.path("b"))))
        self.assertEqual(self.work(*requests), {0: 0, 1: 0})
        self.assertEqual(os.listdir(self.folder), ["b"])

    def test_moved_on(self) -> None:
        """A move is not swallowed when the file has moved on before the removal."""
        self.work((COMMIT, commit(self.path("a"), b"x")))
        requests = (
            (MOVE_KIND, move(self.path("a"), self.path("b"))),
            (MOVE_KIND, move(self.path("b"), self.path("c"))),
            (REMOVE, self.path("b").encode()),
        )
        self.assertEqual(self.work(*requests), {0: 0, 1: 0, 2: errno.ENOENT})
        self.assertEqual(os.listdir(self.folder), ["c"])

    def test_errors(self) -> None:
        """What is not there is an errno, for the move and for the removal that would have swallowed it."""
        requests = ((MOVE_KIND, move(self.path("b"), self.path("c"))), (REMOVE, self.path("c").encode()))
        self.assertEqual(
            {os.strerror(error) for error in self.work(*requests).values()}, {"No such file or directory"}
        )


class ServeTests(SynchronousTestCase):
    """The loop of the process, on a thread."""

    def test_serves_until_the_end(self) -> None:
        """It answers what comes, keeps a descriptor, and ends when the service does."""
        folder = self.mktemp()
        os.makedirs(folder)
        ours, theirs = socket.socketpair()
        fs = RealFileSystem()
        thread = threading.Thread(target=serve, args=(theirs, Worker(fs, Syncer(fs, "auto"))))
        thread.start()
        read_end, write_end = os.pipe()
        socket.send_fds(ours, [FRAME.pack(0, b"L", 0)], [write_end])
        os.close(write_end)
        payload = commit(os.path.join(folder, "a"), b"x" * 100_000)
        request = FRAME.pack(7, COMMIT, len(payload)) + payload
        for start in range(0, len(request), 30_000):
            ours.sendall(request[start : start + 30_000])
        self.assertEqual(ANSWER.unpack(ours.recv(100)), (7, 0))
        self.assertEqual(os.path.getsize(os.path.join(folder, "a")), 100_000)
        ours.close()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        theirs.close()
        os.close(read_end)

    def test_frame_sizes(self) -> None:
        """The formats do not depend on the machine."""
        self.assertEqual((FRAME.size, ANSWER.size, MOVE.size), (9, 6, 12))
        self.assertEqual(struct.calcsize("!IcI"), FRAME.size)


class LossTests(SynchronousTestCase):
    """The channel to the process is lost."""

    def test_process_still_runs(self) -> None:
        """
        A process that has lost its channel may still be at work, so what it was given is done again only
        after it is gone.
        """
        child = subprocess.Popen(["sleep", "60"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        clock = MemoryReactorClock()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        process = DiskProcess(clock, ours, child.pid)
        alive: list[bool] = []

        def answered(error: int) -> None:
            self.assertEqual(error, LOST)
            try:
                os.kill(child.pid, 0)
            except ProcessLookupError:
                alive.append(False)
            else:
                alive.append(True)

        process.commit(b"incoming/a", b"x", answered)
        process.remove(b"active/b", answered)
        process.connectionLost(Failure(OSError(errno.ENOBUFS, "No buffer space available")))
        self.assertFalse(process.running)
        for _ in range(1000):
            if alive:
                break
            time.sleep(0.01)
            clock.advance(REAP_INTERVAL)
        self.assertEqual(alive, [False, False])
        self.assertEqual(len(self.flushLoggedErrors()), 0)


class AdoptTests(SynchronousTestCase):
    """What is taken over from the folder of spare files."""

    def test_only_our_own(self) -> None:
        """
        A file that would make an unfinished message of an acknowledged one, or that has another name besides,
        is not used.
        """
        folder = self.mktemp()
        os.makedirs(folder)
        for name, mode in (("1", 0o700), ("2", 0o600), ("3", 0o700), ("4", 0o755)):
            os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY))
            os.chmod(os.path.join(folder, name), mode)
        os.link(os.path.join(folder, "3"), os.path.join(folder, "precious"))
        spares = Spares(RealFileSystem(), folder, 10)
        spares.adopt()
        self.assertEqual(sorted(os.listdir(folder)), ["1", "precious"])
        fd = spares.fill(os.path.join(folder, "a"), b"x")
        assert fd is not None
        os.close(fd)
        self.assertIsNone(spares.fill(os.path.join(folder, "b"), b"x"))
        self.assertEqual(os.stat(os.path.join(folder, "precious")).st_size, 0)
        os.chmod(os.path.join(folder, "a"), 0o740)
        self.assertFalse(spares.take(os.path.join(folder, "a")))
