"""
The system calls that the file store uses, as one object, so that a test can stop after any of them.

Takes paths and descriptors, gives what the kernel gives, and raises L{OSError}. No call is made on the
reactor's thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Iterator
from typing import Protocol


class Listing(Protocol):
    """A folder being listed."""

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        """What is in it."""

    def close(self) -> None:
        """Stop listing."""


class FileSystem(Protocol):
    """What the file store asks of a file system; each method is the system call of that name."""

    has_syncfs: bool
    """Whether L{syncfs} may be relied on."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open or make a file; never follows a symbolic link in the last part of the path."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to C{length} bytes from an offset."""

    def write(self, fd: int, data: bytes) -> int:
        """Write at the descriptor's place; may write less."""

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """Write at an offset; may write less."""

    def fchmod(self, fd: int, mode: int) -> None:
        """Set the mode of an open file."""

    def ftruncate(self, fd: int, length: int) -> None:
        """Cut an open file."""

    def fstat(self, fd: int) -> os.stat_result:
        """What an open file is."""

    def lstat(self, path: str) -> os.stat_result:
        """What a path is, symbolic links not followed."""

    def fsync(self, fd: int) -> None:
        """Make one file (or folder) durable."""

    def syncfs(self, fd: int) -> None:
        """Make everything in the file system of this descriptor durable."""

    def start_writeback(self, fd: int) -> None:
        """Hint: begin to write this file's data, without waiting for it."""

    def rename(self, source: str, target: str) -> None:
        """Rename in one step."""

    def unlink(self, path: str) -> None:
        """Remove a name."""

    def utime(self, path: str, when: float) -> None:
        """Set both times of a file."""

    def mkdir(self, path: str, mode: int) -> None:
        """Make a folder."""

    def scandir(self, path: str) -> Listing:
        """List a folder."""

    def free_space(self, path: str) -> int:
        """Bytes that an ordinary user may still use."""

    def lock(self, fd: int) -> bool:
        """Take an exclusive lock without waiting; whether it was free."""


_libc = ctypes.CDLL(None, use_errno=True)


def syncfs_tells(system: str, release: str) -> bool:
    """
    Whether syncfs(2) reports data that could not be written: Linux does from 5.8 on. Before that it says
    that all is well, and a message would be acknowledged that is not on the disk.

    @param system: as in C{Linux}.
    @param release: the kernel's, as in C{6.1.0-18-amd64}.
    """
    version = re.match(r"(\d+)\.(\d+)", release)
    return system == "Linux" and version is not None and (int(version[1]), int(version[2])) >= (5, 8)


_WRITEBACK = 2  # SYNC_FILE_RANGE_WRITE
_O_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


class RealFileSystem:
    """L{FileSystem} as the kernel does it."""

    has_syncfs = hasattr(_libc, "syncfs") and syncfs_tells(os.uname().sysname, os.uname().release)
    _has_writeback = hasattr(_libc, "sync_file_range")

    close = staticmethod(os.close)
    write = staticmethod(os.write)
    pwrite = staticmethod(os.pwrite)
    pread = staticmethod(os.pread)
    fchmod = staticmethod(os.fchmod)
    ftruncate = staticmethod(os.ftruncate)
    fstat = staticmethod(os.fstat)
    lstat = staticmethod(os.lstat)
    fsync = staticmethod(os.fsync)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """See L{FileSystem.open}."""
        return os.open(path, flags | _O_SAFE, mode)

    def scandir(self, path: str) -> Listing:
        """See L{FileSystem.scandir}."""
        return os.scandir(path)

    def syncfs(self, fd: int) -> None:
        """See L{FileSystem.syncfs}."""
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def start_writeback(self, fd: int) -> None:
        """See L{FileSystem.start_writeback}. Its result doesn't matter: the fsync tells."""
        if self._has_writeback:
            _libc.sync_file_range(fd, _ZERO, _ZERO, _WRITEBACK)

    def utime(self, path: str, when: float) -> None:
        """See L{FileSystem.utime}."""
        os.utime(path, (when, when), follow_symlinks=False)

    def free_space(self, path: str) -> int:
        """See L{FileSystem.free_space}."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, fd: int) -> bool:
        """See L{FileSystem.lock}."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_ZERO = ctypes.c_int64(0)
