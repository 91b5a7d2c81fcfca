"""
A file system with a power switch.

L{SteppedFileSystem} counts the steps that change the disk and stops before a chosen one: from then on every
call raises L{PowerCut}. What the disk holds afterwards is a choice, too: see L{Loss}.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable

from qmqpd_tx.spool.filesystem import RealFileSystem


class PowerCut(BaseException):
    """The machine is off. No C{Exception}, so that no error handling survives it."""


class Loss(enum.Enum):
    """What a stop loses."""

    PROCESS = "the process was killed: the kernel still writes everything"
    JOURNAL = "power cut: everything since the last fsync is undone, names included"
    DATA = "power cut: names are as they were last, but data that wasn't fsynced reads as zeros"


class SteppedFileSystem(RealFileSystem):
    """
    @param stop_at: the number of the step that doesn't happen any more; L{None} never stops.
    @param torn: whether half of that step happens, when it is a write.
    @param trash: a folder, outside the queue but in its file system, for files that are removed.
    @ivar steps: what was done.
    """

    def __init__(self, trash: str, stop_at: int | None = None, torn: bool = False) -> None:
        self.steps: list[str] = []
        self._stop_at = stop_at
        self._torn = torn
        self._trash = trash
        self._off = False
        self._fds: dict[int, str] = {}
        self._journal: list[Callable[[], None]] = []
        self._synced: dict[int, bytes] = {}
        self._removed = 0

    def _check(self) -> None:
        if self._off:
            raise PowerCut

    def _step(self, text: str) -> None:
        self._check()
        if len(self.steps) == self._stop_at:
            self._off = True
            raise PowerCut
        self.steps.append(text)

    def _dirty(self, fd: int) -> None:
        """
        Remember what is durable of a file that is about to change.
        """
        found = os.fstat(fd)
        if found.st_ino not in self._synced:
            self._synced[found.st_ino] = os.pread(fd, found.st_size, 0) if self._readable(fd) else b""

    def _readable(self, fd: int) -> bool:
        # A file opened for writing only is one that is being made: nothing of it is durable.
        return fd in self._fds and self._fds[fd] != "new"

    def cut(self, loss: Loss, root: str) -> None:
        """
        Leave the disk as it is after the stop.

        @param root: the queue.
        """
        self._off = True
        for fd in self._fds:
            os.close(fd)
        self._fds = {}
        if loss is Loss.PROCESS:
            return
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                found = os.lstat(path)
                durable = self._synced.get(found.st_ino)
                if durable is not None and stat.S_ISREG(found.st_mode):
                    size = found.st_size if loss is Loss.DATA else len(durable)
                    with open(path, "wb") as file:
                        file.write(durable[:size].ljust(size, b"\0"))
                    os.utime(path, (found.st_mtime, found.st_mtime))
        if loss is Loss.JOURNAL:
            for undo in reversed(self._journal):
                undo()

    # --- the calls ----------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Making a file is a step."""
        self._check()
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        if new:
            self._step(f"create {path}")
        fd = super().open(path, flags, mode)
        if new:
            self._journal.append(lambda: os.unlink(path))
            self._synced[os.fstat(fd).st_ino] = b""
        self._fds[fd] = "new" if new else "old"
        return fd

    def close(self, fd: int) -> None:  # type: ignore[override]
        """Not a step: it changes nothing."""
        self._check()
        del self._fds[fd]
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:  # type: ignore[override]
        """A step."""
        self._dirty(fd)
        try:
            self._step(f"write {len(data)}")
        except PowerCut:
            if self._torn and fd in self._fds:
                os.write(fd, data[: len(data) // 2])
            raise
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:  # type: ignore[override]
        """A step."""
        self._dirty(fd)
        try:
            self._step(f"pwrite {len(data)}")
        except PowerCut:
            if self._torn and fd in self._fds:
                os.pwrite(fd, data[: len(data) // 2], offset)
            raise
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, length: int) -> None:  # type: ignore[override]
        """A step."""
        self._dirty(fd)
        self._step("ftruncate")
        os.ftruncate(fd, length)

    def fchmod(self, fd: int, mode: int) -> None:  # type: ignore[override]
        """A step. Undoing the creation undoes it."""
        self._step("fchmod")
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """A step: makes this file durable, and all names so far."""
        self._step("fsync")
        self._synced.pop(os.fstat(fd).st_ino, None)
        self._journal.clear()

    def syncfs(self, fd: int) -> None:
        """A step: makes everything durable."""
        self._step("syncfs")
        self._synced.clear()
        self._journal.clear()

    def start_writeback(self, fd: int) -> None:
        """Promises nothing."""
        self._check()

    def rename(self, source: str, target: str) -> None:  # type: ignore[override]
        """A step."""
        self._check()
        os.lstat(source)
        self._step(f"rename {source} {target}")
        os.rename(source, target)
        self._journal.append(lambda: os.rename(target, source))

    def unlink(self, path: str) -> None:  # type: ignore[override]
        """A step."""
        self._check()
        os.lstat(path)
        self._step(f"unlink {path}")
        self._removed += 1
        kept = os.path.join(self._trash, str(self._removed))
        os.rename(path, kept)
        self._journal.append(lambda: os.rename(kept, path))

    def utime(self, path: str, when: float) -> None:
        """A step."""
        self._check()
        before = os.lstat(path).st_mtime
        self._step(f"utime {path}")
        os.utime(path, (when, when))
        self._journal.append(lambda: os.utime(path, (before, before)))

    def mkdir(self, path: str, mode: int) -> None:  # type: ignore[override]
        """A step."""
        self._check()
        if os.path.isdir(path):
            raise FileExistsError(path)
        self._step(f"mkdir {path}")
        os.mkdir(path, mode)
        self._journal.append(lambda: os.rmdir(path))

    def pread(self, fd: int, length: int, offset: int) -> bytes:  # type: ignore[override]
        """Not a step."""
        self._check()
        return os.pread(fd, length, offset)
