"""
The queue store in memory: L{IMailQueue} for tests, users' tests included, and for the simulator.

Takes nothing from the disk; every Deferred has fired when it is returned, unless L{MemoryMailQueue.hold} is
set. Same semantics as the file store, and the same bytes, so that positions and sizes agree; both pass the
same contract suite. Nothing survives the process; L{MemoryMailQueue.start} after L{MemoryMailQueue.stop}
acts like a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from qmqpd_tx.interfaces import (
    CommitAbandoned,
    IMailQueue,
    IMessageWriter,
    InsufficientSpace,
    IQueueScan,
    MessageDamaged,
    MessageNotFound,
    MessageUnfinished,
    QueuedEntry,
    Recovery,
    SpoolError,
)
from qmqpd_tx.message import (
    Envelope,
    LogKind,
    Queue,
    QueueID,
    Recipient,
    RecipientSlice,
    RecipientState,
)
from qmqpd_tx.spool import queueid, record
from qmqpd_tx.spool.index import DueIndex
from qmqpd_tx.spool.operations import blob_reader
from qmqpd_tx.spool.record import HEADER_SIZE, Layout
from qmqpd_tx.spool.stored import Shared, StoredMessage
from qmqpd_tx.spool.writer import DraftWriter, WriterState

_STATES = frozenset(state.value for state in RecipientState)


class MemoryFile:
    """
    A queue file in memory.

    @ivar data: its bytes, as they would be on disk.
    @ivar when: the modification time.
    """

    __slots__ = ("data", "envelope", "layout", "when")

    def __init__(self, data: bytearray, envelope: Envelope, layout: Layout, when: float) -> None:
        self.data = data
        self.envelope = envelope
        self.layout = layout
        self.when = when


@implementer(IMessageWriter)
class MemoryMessageWriter(DraftWriter):
    """
    See L{IMessageWriter}.

    @param store: whose message this is.
    @param arrival_time: POSIX seconds.
    """

    __slots__ = ("_arrival_time", "_result", "_store")

    def __init__(self, queue_id: QueueID, store: MemoryMailQueue, arrival_time: float) -> None:
        super().__init__(queue_id)
        self._store = store
        self._arrival_time = arrival_time
        self._result: Deferred[StoredMessage] | None = None

    def commit(self) -> Deferred[StoredMessage]:
        """See L{IMessageWriter.commit}."""
        if not self._begin_commit():
            return fail(CommitAbandoned(f"{self.queue_id}: commit: the message was aborted"))
        result: Deferred[StoredMessage] = Deferred(lambda _: self.abort())
        self._result = result
        if self._store.hold:
            self._store.held.append(self)
        else:
            self.finish()
        return result

    def finish(self) -> None:
        """
        The disk, if there was one, has answered.
        """
        if self._state is not WriterState.COMMITTING or self._envelope is None:
            return
        self._state = WriterState.DONE
        result, self._result = self._result, None
        data, layout = self._whole()
        file = MemoryFile(bytearray(data), self._envelope, layout, self._arrival_time)
        try:
            message = self._store.committed(self.queue_id, file)
        except InsufficientSpace as error:
            if result is not None:
                result.errback(error)
            return
        if result is not None:
            result.callback(message)

    @property
    def committing(self) -> bool:
        """Whether a commit is under way."""
        return self._state is WriterState.COMMITTING

    def abort(self) -> None:
        """See L{IMessageWriter.abort}."""
        if self._state not in (WriterState.OPEN, WriterState.COMMITTING):
            return
        self._state = WriterState.ABORTED
        self._chunks = []
        self._store.discarded(self.queue_id)
        result, self._result = self._result, None
        if result is not None:
            result.errback(CommitAbandoned(f"{self.queue_id}: commit: abandoned"))


@implementer(IQueueScan)
class MemoryScan:
    """
    See L{IQueueScan}.

    @param entries: what there is.
    """

    def __init__(self, entries: list[QueuedEntry]) -> None:
        self._entries = entries

    def next(self, limit: int) -> Deferred[list[QueuedEntry]]:
        """See L{IQueueScan.next}."""
        limit = max(limit, 1)
        found, self._entries = self._entries[:limit], self._entries[limit:]
        return succeed(found)


@implementer(IMailQueue)
class MemoryMailQueue:
    """
    See L{IMailQueue}.

    @param capacity: how many bytes of queue files fit, or L{None} for any number: to see what happens
        when the disk is full.
    @ivar hold: commits wait for L{release}, as if the disk hung.
    @ivar held: the writers whose commits wait.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.hold = False
        self.held: list[MemoryMessageWriter] = []
        self._ids = queueid.QueueIDs()
        self._files: dict[Queue, dict[QueueID, MemoryFile]] = {queue: {} for queue in Queue}
        self._logs: dict[tuple[LogKind, QueueID], list[bytes]] = {}
        self._index = DueIndex()
        self._writers: dict[QueueID, MemoryMessageWriter] = {}
        self._shared: dict[QueueID, Shared] = {}
        self._running = False

    def start(self) -> Deferred[Recovery]:
        """See L{IMailQueue.start}."""
        if self._running:
            return fail(SpoolError("start the queue: it was started already"))
        self._running = True
        active, incoming = self._files[Queue.ACTIVE], self._files[Queue.INCOMING]
        reactivated = len(active)
        incoming.update(active)
        active.clear()
        return succeed(Recovery(reactivated, 0, []))

    def stop(self) -> Deferred[None]:
        """See L{IMailQueue.stop}. Messages still being written are dropped; held commits finish."""
        for writer in list(self._writers.values()):
            if not writer.committing:
                writer.abort()
        self.release()
        self._running = False
        return succeed(None)

    def release(self) -> None:
        """
        Let the held commits finish, in order.
        """
        self.hold = False
        while self.held:
            self.held.pop(0).finish()

    def damage(self, queue_id: QueueID, queue: Queue, offset: int, data: bytes) -> None:
        """
        Overwrite bytes of a queue file, to see what happens.
        """
        self._files[queue][queue_id].data[offset : offset + len(data)] = data

    # --- new messages -------------------------------------------------------------------------------

    def create(self, arrival_time: float) -> MemoryMessageWriter:
        """See L{IMailQueue.create}."""
        if not self._running:
            raise SpoolError("create a message: the queue is not running")
        if self.capacity is not None and self._used() >= self.capacity:
            raise InsufficientSpace(f"the queue holds {self._used()} of {self.capacity} bytes: make room")
        queue_id = self._ids.next(arrival_time)
        writer = self._writers[queue_id] = MemoryMessageWriter(queue_id, self, arrival_time)
        return writer

    def _used(self) -> int:
        return sum(len(file.data) for files in self._files.values() for file in files.values())

    def committed(self, queue_id: QueueID, file: MemoryFile) -> StoredMessage:
        """
        A writer's message is complete.

        @return: its handle.
        @raise InsufficientSpace: it does not fit.
        """
        del self._writers[queue_id]
        if self.capacity is not None and self._used() + len(file.data) > self.capacity:
            raise InsufficientSpace(f"{queue_id}: commit queue file: the queue is full")
        self._files[Queue.INCOMING][queue_id] = file
        return self._handle(queue_id, Queue.INCOMING, file, file.envelope, file.layout)

    def discarded(self, queue_id: QueueID) -> None:
        """
        A writer's message was aborted.
        """
        self._writers.pop(queue_id, None)

    # --- messages -----------------------------------------------------------------------------------

    def _handle(
        self, queue_id: QueueID, queue: Queue, file: MemoryFile, envelope: Envelope, layout: Layout
    ) -> StoredMessage:
        shared = self._shared.get(queue_id)
        if shared is None:
            shared = self._shared[queue_id] = Shared(queue)
        shared.handles += 1
        data = file.data
        content = bytes(data[layout.top : layout.envelope] + data[HEADER_SIZE : layout.top])
        return StoredMessage(self, queue_id, envelope, layout, shared, content, None)

    def closed(self, message: StoredMessage) -> None:
        """
        One of our messages was closed.
        """
        message.shared.handles -= 1
        if message.shared.handles == 0:
            del self._shared[message.queue_id]

    def fetch_content(self, message: StoredMessage, offset: int, length: int) -> Deferred[bytes]:
        """
        Content is always in memory, until the message is closed.
        """
        return fail(SpoolError(f"{message.queue_id}: read content: the message or the queue is closed"))

    def fetch_recipients(
        self, message: StoredMessage, position: int | None, limit: int
    ) -> Deferred[RecipientSlice]:
        """
        Read unfinished recipients of one of our messages.
        """
        queue_id = message.queue_id
        if not message.is_open:
            return fail(SpoolError(f"{queue_id}: read recipients: the message is closed"))
        file = self._anywhere(message)
        if file is None:
            return fail(MessageNotFound(f"{queue_id}: read recipients: there is no such message"))
        try:
            return succeed(record.read_recipients(blob_reader(file.data), message.layout, position, limit))
        except MessageDamaged as error:
            return fail(error)

    def _anywhere(self, message: StoredMessage) -> MemoryFile | None:
        return next(
            (files[message.queue_id] for files in self._files.values() if message.queue_id in files), None
        )

    def open(self, queue_id: QueueID, queue: Queue) -> Deferred[StoredMessage]:
        """See L{IMailQueue.open}."""
        if queue_id in self._writers:
            return fail(MessageUnfinished(f"{queue_id}: open: the message is still being written"))
        file = self._files[queue].get(queue_id)
        if error := self._missing("open", queue_id, file):
            return fail(error)
        assert file is not None
        read = blob_reader(file.data)
        try:
            layout, envelope = record.read_message(read, len(file.data))
            record.verify(read, layout)
        except MessageDamaged as damaged:
            return fail(MessageDamaged(f"{queue_id}: open: {damaged}", damaged.offset))
        except MessageUnfinished as unfinished:
            return fail(MessageUnfinished(f"{queue_id}: open: {unfinished}"))
        return succeed(self._handle(queue_id, queue, file, envelope, layout))

    def _missing(self, doing: str, queue_id: QueueID, file: MemoryFile | None) -> SpoolError | None:
        if not self._running:
            return SpoolError(f"{queue_id}: {doing}: the queue is not running")
        if file is None:
            return MessageNotFound(f"{queue_id}: {doing}: there is no such message in that queue")
        return None

    def mark(
        self, message: StoredMessage, recipients: Sequence[Recipient], state: RecipientState
    ) -> Deferred[None]:
        """See L{IMailQueue.mark}."""
        if not recipients:
            return succeed(None)
        file = self._anywhere(message)
        if error := self._missing("mark recipients", message.queue_id, file):
            return fail(error)
        assert file is not None
        for recipient in recipients:
            at = recipient.position
            if bytes(file.data[at : at + 1]) not in _STATES:
                text = f"{message.queue_id}: mark recipients: no recipient at offset {at}"
                return fail(MessageDamaged(text, at))
            file.data[at : at + 1] = state.value
        return succeed(None)

    def move(
        self, queue_id: QueueID, source: Queue, target: Queue, due: float | None = None
    ) -> Deferred[None]:
        """See L{IMailQueue.move}."""
        if target is Queue.DEFERRED and due is None:
            raise ValueError(f"{queue_id}: move to deferred without a due time")
        file = self._files[source].get(queue_id)
        if error := self._missing(f"move from {source.value} to {target.value}", queue_id, file):
            return fail(error)
        assert file is not None
        del self._files[source][queue_id]
        self._files[target][queue_id] = file
        self._index.drop(queue_id)
        if due is not None:
            file.when = due
            if target is Queue.DEFERRED:
                self._index.set(queue_id, due)
        shared = self._shared.get(queue_id)
        if shared is not None:
            shared.queue = target
        return succeed(None)

    def remove(self, queue_id: QueueID, queue: Queue) -> Deferred[None]:
        """See L{IMailQueue.remove}."""
        file = self._files[queue].get(queue_id)
        if error := self._missing("remove", queue_id, file):
            return fail(error)
        del self._files[queue][queue_id]
        self._index.drop(queue_id)
        return succeed(None)

    # --- finding ------------------------------------------------------------------------------------

    def scan(self, queue: Queue) -> MemoryScan:
        """See L{IMailQueue.scan}."""
        return MemoryScan([QueuedEntry(queue_id, file.when) for queue_id, file in self._files[queue].items()])

    def due(self, now: float, limit: int) -> list[QueuedEntry]:
        """See L{IMailQueue.due}."""
        return self._index.due(now, limit)

    def next_due(self) -> float | None:
        """See L{IMailQueue.next_due}."""
        return self._index.next_due()

    # --- delivery status logs -----------------------------------------------------------------------

    def append_log(
        self, kind: LogKind, queue_id: QueueID, records: Sequence[bytes], durable: bool
    ) -> Deferred[None]:
        """See L{IMailQueue.append_log}."""
        if not queueid.valid(queue_id):
            return fail(MessageNotFound(f"append to a log: {queue_id!r} is not a queue id"))
        self._logs.setdefault((kind, queue_id), []).extend(records)
        return succeed(None)

    def read_log(self, kind: LogKind, queue_id: QueueID) -> Deferred[list[bytes]]:
        """See L{IMailQueue.read_log}."""
        return succeed(list(self._logs.get((kind, queue_id), ())))

    def remove_log(self, kind: LogKind, queue_id: QueueID) -> Deferred[None]:
        """See L{IMailQueue.remove_log}."""
        self._logs.pop((kind, queue_id), None)
        return succeed(None)
