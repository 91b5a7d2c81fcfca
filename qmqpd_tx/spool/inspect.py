"""
Looking at a queue from outside, while the service is up or down.

Takes the path of a C{queue_directory}; gives values. Reads only, blocks, and needs neither the lock nor the
configuration: files are found at whatever depth of subfolders they are. What goes away meanwhile is left
out; what cannot be understood is shown with the reason. Answers to showq(8).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from qmqpd_tx.interfaces import MessageNotFound, SpoolError
from qmqpd_tx.message import Envelope, LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid, record
from qmqpd_tx.spool.errors import RecycledFile
from qmqpd_tx.spool.files import ARRIVALS, find_file, walk
from qmqpd_tx.spool.filesystem import FileSystem, RealFileSystem
from qmqpd_tx.spool.logs import read_log_file
from qmqpd_tx.spool.operations import reader
from qmqpd_tx.spool.record import HEADER_SIZE

SHOWN = (Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED, Queue.HOLD)
"""The queues that are listed unless others are asked for."""


@frozen(slots=True)
class QueueListing:
    """
    One message in the queue.

    @ivar queue_id: its name.
    @ivar queue: where it is.
    @ivar size: bytes of content.
    @ivar arrival_time: POSIX seconds.
    @ivar sender: the envelope sender.
    @ivar recipients: unfinished recipients, as many as were asked for.
    @ivar more_recipients: whether there are more.
    @ivar recipient_count: all recipients, done or not.
    @ivar due: the file's time: for deferred mail, when it is next tried.
    @ivar reasons: the records of its defer log, as the bounce service wrote them.
    @ivar problem: why the file could not be read (everything else but the id, queue and due time is then
        empty), or L{None}.
    @ivar envelope: the whole envelope, or L{None} with a problem.
    """

    queue_id: QueueID
    queue: Queue
    size: int
    arrival_time: float
    sender: bytes
    recipients: Sequence[bytes]
    more_recipients: bool
    recipient_count: int
    due: float
    reasons: Sequence[bytes]
    problem: str | None = None
    envelope: Envelope | None = None


def list_messages(
    queue_directory: str,
    queues: Iterable[Queue] = SHOWN,
    recipient_limit: int = 1000,
    with_reasons: bool = True,
    fs: FileSystem | None = None,
) -> Iterator[QueueListing]:
    """
    List the finished messages of some queues, in no particular order; a message that moves meanwhile may
    be seen in both places or in neither.

    @param recipient_limit: how many recipients to give for a message.
    @param with_reasons: whether to read the defer logs.
    @param fs: the system calls.
    @raise OSError: a queue folder cannot be read (permission).
    """
    fs = fs if fs is not None else RealFileSystem()
    for queue in queues:
        for entry in walk(fs, os.path.join(queue_directory, queue.value), lambda path: None):
            found = _look(
                fs, queue_directory, queue, QueueID(entry.name), entry.path, recipient_limit, with_reasons
            )
            if found is not None:
                yield found


def find_message(
    queue_directory: str, queue_id: str, recipient_limit: int = 1000, fs: FileSystem | None = None
) -> QueueListing:
    """
    @return: one message, wherever it is.
    @raise MessageNotFound: it is in no queue, or C{queue_id} is no queue id.
    """
    fs = fs if fs is not None else RealFileSystem()
    if queueid.valid(queue_id):
        for queue in Queue:
            path = find_file(fs, os.path.join(queue_directory, queue.value), queue_id)
            if path is not None:
                found = _look(fs, queue_directory, queue, queue_id, path, recipient_limit, True)
                if found is not None:
                    return found
    raise MessageNotFound(f"{queue_id}: no such message in {queue_directory}")


def read_log(
    queue_directory: str, kind: LogKind, queue_id: QueueID, fs: FileSystem | None = None
) -> list[bytes]:
    """
    @return: the records of a delivery status log, none when there is no log.
    """
    fs = fs if fs is not None else RealFileSystem()
    if not queueid.valid(queue_id):
        return []
    path = find_file(fs, os.path.join(queue_directory, kind.value), queue_id)
    return [] if path is None else read_log_file(fs, path)


def _look(
    fs: FileSystem,
    queue_directory: str,
    queue: Queue,
    queue_id: QueueID,
    path: str,
    recipient_limit: int,
    with_reasons: bool,
) -> QueueListing | None:
    """
    @return: what a file says, or L{None} when it went away or was never finished.
    """
    try:
        fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        found = fs.fstat(fd)
        if queue in ARRIVALS and found.st_mode & 0o700 != 0o700:
            return None
        read = reader(fs, fd)
        header = read(0, HEADER_SIZE)
        try:
            layout = record.decode_header(header, found.st_size, queue_id)
            envelope = record.decode_envelope(
                read(layout.envelope, layout.recipients - layout.envelope), layout.envelope
            )
            piece = record.read_recipients(read, layout, None, recipient_limit)
        except RecycledFile:
            return None
        except SpoolError as error:
            if read(0, HEADER_SIZE) != header:
                return None
            when = found.st_mtime
            return QueueListing(queue_id, queue, 0, when, b"", (), False, 0, when, (), str(error))
        if read(0, HEADER_SIZE) != header:
            # The message was removed, and the file is already another one's.
            return None
    finally:
        fs.close(fd)
    reasons: Sequence[bytes] = ()
    if with_reasons:
        reasons = read_log(queue_directory, LogKind.DEFER, queue_id, fs)
    return QueueListing(
        queue_id=queue_id,
        queue=queue,
        size=layout.content_size,
        arrival_time=envelope.arrival_time,
        sender=envelope.sender,
        recipients=[recipient.address for recipient in piece.recipients],
        more_recipients=piece.next_position is not None,
        recipient_count=layout.recipient_count,
        due=found.st_mtime,
        reasons=reasons,
        envelope=envelope,
    )
