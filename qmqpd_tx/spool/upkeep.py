"""
Small disk work about the whole queue: asking for the free space, giving up the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from qmqpd_tx.spool.commits import Transfer
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.floor import write_floor
from qmqpd_tx.spool.operations import FileOperation


class FreeSpace(Transfer):
    """
    Ask how many bytes are free.

    @param done: called with the number, or L{None} when it cannot be known, on the reactor's thread.
    """

    __slots__ = ("_done", "_free")

    def __init__(self, done: Callable[[int | None], None]) -> None:
        super().__init__()
        self._done = done
        self._free: int | None = None

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{Transfer.run}."""
        try:
            self._free = fs.free_space(paths.root)
        except Exception as error:
            self.error = error

    def finish(self) -> None:
        self._done(self._free)


class Unlock(FileOperation):
    """
    Give up the lock; and tell the next service where queue ids end.

    @param fd: the descriptor that holds it.
    @param last: the number of the greatest id.
    """

    __slots__ = ("_fd", "_last")
    doing = "unlock the queue"

    def __init__(self, fd: int, last: int) -> None:
        super().__init__(None)
        self._fd = fd
        self._last = last

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        with suppress(OSError):
            # What was written ahead of time holds as well.
            write_floor(fs, paths, self._last)
        fs.close(self._fd)

    def finish(self) -> None:
        """Nobody waits: the disk being drained is the sign."""
