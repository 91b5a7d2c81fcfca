"""
Where things are in a C{queue_directory}.

Takes queue ids and queues, gives paths; walks folders. Answers to Postfix's mail_queue library. Pure
apart from L{walk}, which lists folders.

A queue named in C{hash_queue_names} has C{hash_queue_depth} levels of one-character subfolders, named
after the last characters of the id, the last one first: those change with every microsecond, so the
files spread evenly (the first characters change once in years). A file is found at whatever level it is,
so the depth may be changed; start-up moves files to where they belong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from qmqpd_tx.events import Logger
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.filesystem import FileSystem

log = Logger(namespace="qmqpd_tx.qmgr")

FOLDERS = (
    "incoming",
    "active",
    "deferred",
    "hold",
    "corrupt",
    "bounce",
    "defer",
    "trace",
    "flush",
    "public",
    "private",
    "pid",
    "spare",
)
"""Every folder under C{queue_directory}."""

ARRIVALS = (Queue.INCOMING, Queue.HOLD)
"""Where new messages appear, and so unfinished ones may be."""

MAX_DEPTH = queueid.LENGTH
"""The deepest that subfolders can be nested."""


class QueuePaths:
    """
    The paths of one C{queue_directory}.

    @param root: C{queue_directory}.
    @param hashed: C{hash_queue_names}.
    @param depth: C{hash_queue_depth}.
    """

    __slots__ = ("_messages", "depth", "hashed", "root")

    def __init__(self, root: str, hashed: Iterable[str] = (), depth: int = 1) -> None:
        self.root = root.rstrip("/") or "/"
        self.depth = min(max(depth, 0), MAX_DEPTH)
        self.hashed = frozenset(hashed) if self.depth else frozenset[str]()
        self._messages = {
            queue: (f"{self.root}/{queue.value}/", queue.value in self.hashed) for queue in Queue
        }

    def folder(self, name: str) -> str:
        """
        @param name: one of L{FOLDERS}.
        @return: its path.
        """
        return f"{self.root}/{name}"

    def message(self, queue: Queue, queue_id: QueueID) -> str:
        """
        @return: the path of a message.
        """
        prefix, hashed = self._messages[queue]
        if not hashed:
            return prefix + queue_id
        return f"{prefix}{subfolders(queue_id, self.depth)}{queue_id}"

    def log(self, kind: LogKind, queue_id: QueueID) -> str:
        """
        @return: the path of a delivery status log.
        """
        name = kind.value
        between = subfolders(queue_id, self.depth) if name in self.hashed else ""
        return f"{self.root}/{name}/{between}{queue_id}"


def subfolders(queue_id: QueueID, depth: int) -> str:
    """
    @return: the subfolders for an id, each followed by a slash.
    """
    return "".join(queue_id[-level] + "/" for level in range(1, depth + 1))


def walk(fs: FileSystem, folder: str, foreign: Callable[[str], None]) -> Iterator[os.DirEntry[str]]:
    """
    Find the files of a queue, at whatever level of subfolders. Symbolic links are not followed. What
    goes away meanwhile is left out.

    @param foreign: called with the path of everything that cannot be a queue file.
    @return: the entries whose names are queue ids.
    """
    pending = [(folder, 0)]
    while pending:
        path, level = pending.pop()
        try:
            entries = fs.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            for entry in entries:
                name = entry.name
                if queueid.valid(name):
                    if entry.is_file(follow_symlinks=False):
                        yield entry
                        continue
                elif (
                    len(name) == 1
                    and name in queueid.ALPHABET
                    and level < MAX_DEPTH
                    and entry.is_dir(follow_symlinks=False)
                ):
                    pending.append((entry.path, level + 1))
                    continue
                foreign(entry.path)
        finally:
            entries.close()


def find_file(fs: FileSystem, folder: str, queue_id: QueueID) -> str | None:
    """
    @param folder: of a queue, or of a kind of logs.
    @return: where below it the file of that name is, at whatever depth.
    """
    for depth in range(MAX_DEPTH + 1):
        path = os.path.join(folder, subfolders(queue_id, depth))
        try:
            fs.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fs.lstat(os.path.join(path, queue_id))
        except (FileNotFoundError, NotADirectoryError):
            continue
        return os.path.join(path, queue_id)
    return None


def make_parent(fs: FileSystem, path: str) -> None:
    """
    Make the missing folders above a file, each durable in its parent, so that a file fsynced later
    cannot lose its folder in a power cut.
    """
    parent = os.path.dirname(path)
    try:
        fs.mkdir(parent, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_parent(fs, parent)
        fs.mkdir(parent, 0o700)
    fd = fs.open(os.path.dirname(parent), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fs.fsync(fd)
    finally:
        fs.close(fd)


def settle(fs: FileSystem, source: str, target: str) -> str:
    """
    Rename a file to where it belongs.

    @return: where the file is now: one that already has the name is never overwritten.
    """
    if source == target:
        return target
    if exists(fs, target):
        log.warn("{path}: {target} exists: not moved", path=source, target=target)
        return source
    rename(fs, source, target)
    return target


def rename(fs: FileSystem, source: str, target: str) -> None:
    """
    Rename a file, into a folder that may have to be made first.

    @raise FileNotFoundError: there is no such file.
    """
    try:
        fs.rename(source, target)
    except FileNotFoundError:
        fs.lstat(source)
        make_parent(fs, target)
        fs.rename(source, target)


def exists(fs: FileSystem, path: str) -> bool:
    """
    @return: whether there is something of that name.
    """
    try:
        fs.lstat(path)
    except FileNotFoundError:
        return False
    return True
