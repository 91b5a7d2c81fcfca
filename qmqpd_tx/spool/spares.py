"""
Queue files that are used again: a removed message's file becomes the next message's.

Making a file costs more than anything else that is done to it on ext4: it looks for an inode that was not
deleted in the last minutes, past all that were, and a busy queue deletes thousands a minute. So the file of
a small message that is removed is renamed into the folder C{spare} instead, and the next small message is
written over it and renamed into C{incoming}.

What may go wrong in a power cut: names and content reach the disk at different times. A file in C{incoming}
may hold the old message, whole and with a good checksum, and a file in C{active} whose message was removed
may be back with the new one. The first record tells: it has the id of the message that the file holds. Where
that is not the file's name, the message of that name was removed already or was never acknowledged, and the
file goes (see L{RecycledFile<qmqpd_tx.spool.errors.RecycledFile>}). An acknowledged message is not in danger:
its file was synced after it got its name.

Only the disk process uses this, and only after it was given the lock of the queue.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from qmqpd_tx.spool.commits import write_all
from qmqpd_tx.spool.filesystem import FileSystem

FILE_LIMIT = 65536
"""Larger files are not kept: they hold disk space."""

_FINISHED = stat.S_IFREG | 0o700


class Spares:
    """
    The spare files of a queue.

    @param fs: the file system.
    @param folder: where they are.
    @param limit: how many are kept; C{queue_spare_files}.
    """

    def __init__(self, fs: FileSystem, folder: str, limit: int) -> None:
        self._fs = fs
        self._folder = folder
        self._limit = limit
        self._files: list[tuple[str, int]] = []
        self._number = 0
        self._ready = False

    def adopt(self) -> None:
        """
        Begin: use what an earlier process left, and remove what is too much.
        """
        fs = self._fs
        try:
            listing = fs.scandir(self._folder)
        except OSError:
            return
        try:
            for entry in listing:
                number = entry.name
                if not (number.isascii() and number.isdigit() and entry.is_file(follow_symlinks=False)):
                    continue
                self._number = max(self._number, int(number))
                found = entry.stat(follow_symlinks=False)
                if len(self._files) < self._limit and _usable(found):
                    self._files.append((entry.path, found.st_size))
                else:
                    fs.unlink(entry.path)
        except OSError:
            return
        finally:
            listing.close()
        self._ready = True

    def take(self, path: str) -> bool:
        """
        Keep the file of a message that is removed.

        @return: whether it was taken; if not, it is to be unlinked.
        @raise FileNotFoundError: there is no such file.
        """
        if not self._ready or len(self._files) >= self._limit:
            return False
        found = self._fs.lstat(path)
        if not _usable(found):
            return False
        self._number += 1
        name = f"{self._folder}/{self._number}"
        try:
            self._fs.rename(path, name)
        except OSError:
            return False
        self._files.append((name, found.st_size))
        return True

    def fill(self, path: str, data: bytes) -> int | None:
        """
        Make a new file of a spare one.

        @return: its descriptor, not yet synced; or L{None} when there is no spare file, or it cannot be used.
        """
        if not self._files:
            return None
        fs = self._fs
        name, size = self._files.pop()
        fd = None
        try:
            fd = fs.open(name, os.O_WRONLY)
            write_all(fs, fd, data)
            if size > len(data):
                fs.ftruncate(fd, len(data))
            fs.rename(name, path)
        except OSError:
            with suppress(OSError):
                if fd is not None:
                    fs.close(fd)
            with suppress(OSError):
                fs.unlink(name)
            return None
        return fd


def _usable(found: os.stat_result) -> bool:
    """
    @return: whether a file can be the next message's: small, without another name, and with the mode of a
        finished message. Else what was acknowledged would be taken for unfinished after a restart.
    """
    return found.st_mode == _FINISHED and found.st_nlink == 1 and found.st_size <= FILE_LIMIT
