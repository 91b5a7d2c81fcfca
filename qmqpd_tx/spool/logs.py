"""
Delivery status logs: what the bounce service remembers of a message, beside the queue file.

Takes opaque records, gives them back in order. Promises that an append that was asked to be durable is
fsynced before it is reported, and that a record torn by a crash is left out and never makes later ones
unreadable: before the first append to a log that this process did not begin, its end is checked and what
is torn is cut off. Answers to the folders C{bounce}, C{defer} and C{trace} of Postfix's bounce(8).

A log is a file of netstrings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from qmqpd_tx.message import LogKind, QueueID
from qmqpd_tx.spool.commits import write_all
from qmqpd_tx.spool.files import QueuePaths, make_parent
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.operations import FileOperation, reader

_PREFIX = re.compile(rb"(0|[1-9]\d{0,11}):")
_COMMA = ord(",")
_KNOWN_LIMIT = 10000

Known = dict[str, None]
"""The logs whose end is known to be whole: paths, oldest first; used on the ordered disk thread only."""


def encode_log(records: Sequence[bytes]) -> bytes:
    """
    @return: the records as they are in a log.
    """
    return b"".join([b"%d:%b," % (len(entry), entry) for entry in records])


def decode_log(data: bytes) -> tuple[list[bytes], int]:
    """
    @return: the whole records, and where the first that is not whole begins.
    """
    found: list[bytes] = []
    at = 0
    while True:
        match = _PREFIX.match(data, at)
        if match is None:
            return found, at
        start = match.end()
        stop = start + int(match[1])
        if stop >= len(data) or data[stop] != _COMMA:
            return found, at
        found.append(data[start:stop])
        at = stop + 1


class LogOperation(FileOperation):
    """
    An operation on one log.

    @param known: shared by the operations of one store.
    """

    __slots__ = ("kind", "known")

    def __init__(self, kind: LogKind, queue_id: QueueID, known: Known) -> None:
        super().__init__(queue_id)
        self.kind = kind
        self.known = known

    def path(self, paths: QueuePaths) -> str:
        """
        @return: where the log is.
        """
        assert self.queue_id is not None
        return paths.log(self.kind, self.queue_id)


class AppendLog(LogOperation):
    """
    Append records.

    @param sync: C{None}, or takes the open descriptor and this operation on the reactor's thread, makes the
        log durable, closes the descriptor and then calls back.
    """

    __slots__ = ("_data", "_fd", "_sync")
    doing = "append to delivery status log"

    def __init__(
        self,
        kind: LogKind,
        queue_id: QueueID,
        known: Known,
        records: Sequence[bytes],
        sync: Callable[[int, AppendLog], None] | None,
    ) -> None:
        super().__init__(kind, queue_id, known)
        self._data = encode_log(records)
        self._sync = sync
        self._fd: int | None = None

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        path = self.path(paths)
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NONBLOCK
        try:
            fd = fs.open(path, flags, 0o600)
        except FileNotFoundError:
            make_parent(fs, path)
            fd = fs.open(path, flags, 0o600)
        try:
            size = fs.fstat(fd).st_size
            if size and path not in self.known:
                whole = decode_log(reader(fs, fd)(0, size))[1]
                if whole < size:
                    fs.ftruncate(fd, whole)
                    size = whole
            if len(self.known) >= _KNOWN_LIMIT:
                del self.known[next(iter(self.known))]
            self.known[path] = None
            try:
                write_all(fs, fd, self._data)
            except OSError:
                fs.ftruncate(fd, size)
                raise
        except Exception:
            self.known.pop(path, None)
            fs.close(fd)
            raise
        if self._sync is None:
            fs.close(fd)
        else:
            self._fd = fd

    def finish(self) -> None:
        if self._fd is not None and self._sync is not None:
            self._sync(self._fd, self)
        else:
            super().finish()

    def synced(self, error: Exception | None) -> None:
        """
        The log is durable, or not.
        """
        self.error = error
        super().finish()


class ReadLog(LogOperation):
    """Read all records; gives a list."""

    __slots__ = ()
    doing = "read delivery status log"

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        self.result = read_log_file(fs, self.path(paths))


def read_log_file(fs: FileSystem, path: str) -> list[bytes]:
    """
    @return: the whole records of a log, none when there is no log.
    """
    try:
        fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    try:
        return decode_log(reader(fs, fd)(0, fs.fstat(fd).st_size))[0]
    finally:
        fs.close(fd)


class RemoveLog(LogOperation):
    """Unlink a log, if there is one."""

    __slots__ = ()
    doing = "remove delivery status log"

    def run(self, fs: FileSystem, paths: QueuePaths) -> None:
        """See L{FileOperation.run}."""
        path = self.path(paths)
        self.known.pop(path, None)
        try:
            fs.unlink(path)
        except FileNotFoundError:
            return
