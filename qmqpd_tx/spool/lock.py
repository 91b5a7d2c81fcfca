"""
The lock of a C{queue_directory}, and the folders in it.

Takes paths, gives a descriptor that holds the lock: C{pid/master.pid}, which then has our process id. Blocks.
Answers to the checks of postfix-script and the lock of master(8).
"""

from __future__ import annotations

import os
import time

from qmqpd_tx.interfaces import QueueLocked, SpoolError
from qmqpd_tx.spool.files import FOLDERS, QueuePaths, make_parent
from qmqpd_tx.spool.filesystem import FileSystem

LOCK_TIME_LIMIT = 10.0
"""How many seconds to wait for the disk process of a service that is gone."""

LOCK_INTERVAL = 0.02
"""How often to try, in seconds."""


def check(fs: FileSystem, paths: QueuePaths) -> None:
    """
    Find out whether a service could start: make the folders, take the lock and give it back.

    @raise SpoolError: it could not.
    """
    try:
        make_folders(fs, paths)
        fs.close(take_lock(fs, paths))
    except OSError as error:
        raise SpoolError(
            f"{error.filename or paths.root}: {error.strerror}: queue_directory and all in it must belong to "
            f"the user of this service"
        ) from None


def make_folders(fs: FileSystem, paths: QueuePaths) -> None:
    """
    Make what is missing.

    @raise SpoolError: a folder cannot be used.
    """
    for path in (paths.root, *map(paths.folder, FOLDERS)):
        make_parent(fs, f"{path}/x")
        mode = os.stat(path).st_mode
        if mode & 0o700 != 0o700:
            raise SpoolError(
                f"{path}: the owner needs read, write and search permission (and umask must allow it)"
            )


def take_lock(fs: FileSystem, paths: QueuePaths) -> int:
    """
    Take the lock.

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
