"""
What one run of the service tells the next: above which number queue ids are new, and how the folders are laid
out.

Takes and gives a L{Floor}, kept in the small file C{pid/floor}. It is what spares start-up a look at every
name in the queue. Promises that all ids given out are below the number that is on disk: a number some time
ahead is written before the ids come near it, so it costs an fsync now and then, and a clean stop writes the
exact one. Where there is no such file, or it makes no sense, or the layout is another, start-up looks at all
names.
"""

from __future__ import annotations

import os
import re
from zlib import crc32

from attrs import frozen

from qmqpd_tx.events import Logger
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.operations import FileOperation

log = Logger(namespace="qmqpd_tx.qmgr")

RESERVE = 60_000_000
"""How far ahead of the ids the number on disk is, in their unit, microseconds."""

_RECORD = re.compile(rb"qmqpd_tx/1 floor (\d{1,17}) (\d{1,10}) ([0-9a-f]{8})\n")


@frozen(slots=True)
class Floor:
    """
    @ivar number: no message has an id with a number above this one.
    @ivar layout: stands for the names and the depth of the queues with subfolders.
    """

    number: int
    layout: int


def layout_of(paths: QueuePaths) -> int:
    """
    @return: a number for how the folders are laid out.
    """
    return crc32(" ".join((str(paths.depth), *sorted(paths.hashed))).encode())


def read_floor(fs: FileSystem, paths: QueuePaths) -> Floor | None:
    """
    @return: what the run before wrote, or L{None} when there is nothing to rely on.
    """
    try:
        fd = fs.open(_path(paths), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        data = fs.pread(fd, 128, 0)
    except OSError:
        return None
    finally:
        fs.close(fd)
    match = _RECORD.fullmatch(data)
    if match is None or crc32(data[: match.start(3)]) != int(match[3], 16):
        return None
    return Floor(int(match[1]), int(match[2]))


def write_floor(fs: FileSystem, paths: QueuePaths, number: int) -> None:
    """
    Make a new floor durable.

    @raise OSError: it could not be written; what is there then is the floor before, or one that makes no
        sense, which is as good as none.
    """
    text = b"qmqpd_tx/1 floor %017d %010d " % (number, layout_of(paths))
    fd = fs.open(_path(paths), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        # All records have the same length.
        fs.pwrite(fd, b"%b%08x\n" % (text, crc32(text)), 0)
        fs.fsync(fd)
    finally:
        fs.close(fd)


def _path(paths: QueuePaths) -> str:
    return paths.folder("pid") + "/floor"


class RaiseFloor(FileOperation):
    """
    Write a new floor, ahead of time. One that cannot be written is warned of: nothing depends on it before
    the next start, and then only if the clock is set back.
    """

    __slots__ = ("_number",)
    doing = "write pid/floor"

    def __init__(self, number: int) -> None:
        super().__init__(None)
        self._number = number

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        write_floor(fs, paths, self._number)

    def finish(self) -> None:
        if self.error is not None:
            log.warn("{reason}", reason=str(self.error))
