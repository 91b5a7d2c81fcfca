"""
A message on its way into the queue.

Takes content, envelope and recipients in the order of L{IMessageWriter}; gives the bytes of a queue file.
L{DraftWriter} assembles them and is all that the in-memory store needs. L{FileMessageWriter} adds the
disk: a message that stays within C{queue_buffer_limit} is one write at commit; a larger one streams out
through the disk threads, one buffer under way and one filling, and callers are asked to wait beyond that,
so memory is bounded whatever the message size.

Whether a commit succeeded or was abandoned is decided on the reactor's thread alone, when its result is
reported there: until then L{FileMessageWriter.abort} wins, and what the disk did is undone.
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING
from zlib import crc32

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from qmqpd_tx.interfaces import CommitAbandoned, IMessageWriter, SpoolError
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient
from qmqpd_tx.spool import record
from qmqpd_tx.spool.commits import CommitFile, NewFile, StreamFile
from qmqpd_tx.spool.files import ARRIVALS
from qmqpd_tx.spool.operations import Discard
from qmqpd_tx.spool.record import HEADER_SIZE, Layout
from qmqpd_tx.spool.stored import StoredMessage

if TYPE_CHECKING:
    from qmqpd_tx.spool.store import FileMailQueue


class WriterState(enum.Enum):
    """How far a writer is."""

    OPEN = "open"
    COMMITTING = "committing"
    DONE = "done"
    ABORTED = "aborted"


class DraftWriter:
    """
    Assembles a queue file.

    @param queue_id: its name.
    @param limit: how many bytes to hold before L{_full} is asked what to do.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_count",
        "_envelope",
        "_envelope_at",
        "_limit",
        "_queue",
        "_recipients",
        "_recipients_at",
        "_state",
        "_top_at",
        "queue_id",
        "size",
    )

    def __init__(self, queue_id: QueueID, limit: int = sys.maxsize) -> None:
        self.queue_id = queue_id
        self.size = HEADER_SIZE
        self._limit = limit
        self._state = WriterState.OPEN
        self._queue = Queue.INCOMING
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._envelope: Envelope | None = None
        self._top_at = self._envelope_at = self._recipients_at = 0
        self._count = 0
        self._recipients: list[Recipient] | None = []

    def write(self, data: bytes) -> Deferred[None] | None:
        """See L{IMessageWriter.write}."""
        if self._state is not WriterState.OPEN:
            return None
        if self._envelope is not None:
            raise ValueError(f"{self.queue_id}: content after the envelope")
        return self._append(data)

    def envelope(self, envelope: Envelope, top: bytes) -> None:
        """See L{IMessageWriter.envelope}."""
        if self._state is not WriterState.OPEN:
            return
        if self._envelope is not None:
            raise ValueError(f"{self.queue_id}: a second envelope")
        encoded = record.encode_envelope(envelope)
        self._envelope = envelope
        self._top_at = self.size
        self._envelope_at = self._top_at + len(top)
        self._recipients_at = self._envelope_at + len(encoded)
        self._append(top + encoded)

    def recipient(self, address: bytes, original: bytes, silent: bool = False) -> Deferred[None] | None:
        """See L{IMessageWriter.recipient}."""
        if self._state is not WriterState.OPEN:
            return None
        if self._envelope is None:
            raise ValueError(f"{self.queue_id}: a recipient before the envelope")
        self._count += 1
        if self._recipients is not None:
            self._recipients.append(Recipient(address, original, self.size, silent))
        return self._append(record.encode_recipient(address, original, silent))

    def _append(self, data: bytes) -> Deferred[None] | None:
        self._chunks.append(data)
        size = len(data)
        self.size += size
        self._buffered += size
        return None if self._buffered < self._limit else self._full()

    def _full(self) -> Deferred[None] | None:
        return None

    def _take(self) -> bytes:
        """
        @return: what is buffered, which is then forgotten.
        """
        data = b"".join(self._chunks)
        self._chunks = []
        self._buffered = 0
        return data

    def _layout(self, checksum: int) -> Layout:
        """
        @return: the layout of the whole file, now that nothing is added any more.
        """
        return Layout(self._top_at, self._envelope_at, self._recipients_at, self.size, self._count, checksum)

    def _begin_commit(self, queue: Queue) -> bool:
        """
        Nothing may be added any more.

        @param queue: where the message is to be.
        @return: whether there is something to commit: L{False} after an abort.
        @raise ValueError: this is not the time for a commit: a defect of the caller.
        """
        if self._state is WriterState.ABORTED:
            return False
        if self._state is not WriterState.OPEN:
            raise ValueError(f"{self.queue_id}: a second commit")
        if self._envelope is None:
            raise ValueError(f"{self.queue_id}: commit without an envelope")
        if queue not in ARRIVALS:
            raise ValueError(f"{self.queue_id}: commit to {queue.value}")
        self._queue = queue
        self._state = WriterState.COMMITTING
        return True

    def _whole(self) -> tuple[bytes, Layout]:
        """
        @return: the file of a message that was never streamed, and its layout.
        """
        chunks, self._chunks = self._chunks, []
        self._buffered = 0
        checksum = 0
        for chunk in chunks:
            checksum = crc32(chunk, checksum)
        layout = self._layout(checksum)
        return b"".join((record.encode_header(layout, self.queue_id), *chunks, record.END)), layout


@implementer(IMessageWriter)
class FileMessageWriter(DraftWriter):
    """
    See L{IMessageWriter}.

    @param store: whose message this is.
    """

    __slots__ = ("_failure", "_file", "_result", "_running", "_store", "_waiting")

    def __init__(self, queue_id: QueueID, store: FileMailQueue, limit: int) -> None:
        super().__init__(queue_id, limit)
        self._store = store
        self._file: NewFile | None = None
        self._running: StreamFile | CommitFile | None = None
        self._failure: SpoolError | None = None
        self._waiting: list[Deferred[None]] = []
        self._result: Deferred[StoredMessage] | None = None

    def commit(self, queue: Queue = Queue.INCOMING) -> Deferred[StoredMessage]:
        """See L{IMessageWriter.commit}."""
        if not self._begin_commit(queue):
            return fail(CommitAbandoned(f"{self.queue_id}: commit: the message was aborted"))
        result: Deferred[StoredMessage] = Deferred(lambda _: self.abort())
        self._result = result
        if self._failure is not None:
            self._end(self._failure)
        elif self._running is None:
            self._commit()
        return result

    def abort(self) -> None:
        """See L{IMessageWriter.abort}."""
        if self._state not in (WriterState.OPEN, WriterState.COMMITTING):
            return
        self._state = WriterState.ABORTED
        self._chunks = []
        self._recipients = None
        if self._running is not None:
            self._running.abandoned = True
        else:
            self._undo()
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)
        result, self._result = self._result, None
        if result is not None:
            result.errback(CommitAbandoned(f"{self.queue_id}: commit: abandoned"))

    @property
    def committing(self) -> bool:
        """Whether a commit is under way."""
        return self._state is WriterState.COMMITTING

    # --- streaming ----------------------------------------------------------------------------------

    def _full(self) -> Deferred[None] | None:
        if self._failure is not None:
            self._chunks = []
            self._buffered = 0
            return None
        if self._running is None:
            self._stream()
            return None
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def _stream(self) -> None:
        if self._file is None:
            self._file = NewFile(self.queue_id)
            self._recipients = None
        self._running = StreamFile(self._file, self._take(), self._streamed)
        self._store.transfers.put(self._running)

    def _streamed(self, operation: StreamFile | CommitFile) -> None:
        self._running = None
        if self._state is WriterState.ABORTED:
            self._undo()
            return
        error = operation.error
        if isinstance(error, SpoolError):
            self._failure = error
            self._chunks = []
            self._buffered = 0
        elif self._state is WriterState.COMMITTING:
            self._commit()
        elif self._buffered >= self._limit:
            self._stream()
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if self._failure is not None:
                deferred.errback(self._failure)
            else:
                deferred.callback(None)
        if self._failure is not None and self._state is WriterState.COMMITTING:
            self._end(self._failure)

    # --- the end ------------------------------------------------------------------------------------

    def _commit(self) -> None:
        hold = self._queue is Queue.HOLD
        if self._file is None:
            data, layout = self._whole()
            operation = CommitFile(NewFile(self.queue_id), data, layout, False, hold, self._committed)
        else:
            operation = CommitFile(self._file, self._take(), self._layout(0), True, hold, self._committed)
        self._running = operation
        self._store.commits.put(operation)

    def _committed(self, operation: StreamFile | CommitFile) -> None:
        self._running = None
        self._file = operation.file
        if self._state is WriterState.ABORTED:
            self._undo()
            return
        if isinstance(operation.error, SpoolError):
            self._end(operation.error)
            return
        assert isinstance(operation, CommitFile) and self._envelope is not None
        data = None if operation.streamed else operation.data
        self._state = WriterState.DONE
        message = self._store.committed(
            self.queue_id, self._queue, self._envelope, operation.layout, data, self._recipients
        )
        result, self._result = self._result, None
        if result is not None:
            result.callback(message)

    def _end(self, error: SpoolError) -> None:
        """
        Nothing came of it; the disk thread has removed what there was, or there is no way to remove it: see
        L{Discard}.
        """
        self._state = WriterState.DONE
        if self._file is None or not self._file.exists:
            self._store.discarded(self.queue_id)
        result, self._result = self._result, None
        if result is not None:
            result.errback(error)

    def _undo(self) -> None:
        """
        Remove what an aborted message left on disk.
        """
        file = self._file
        if file is None or not file.exists:
            self._store.discarded(self.queue_id)
        else:
            self._store.metadata.put(Discard(file, self._store.discarded))
