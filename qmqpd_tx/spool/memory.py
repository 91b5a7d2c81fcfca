"""
The queue store in memory: L{IMailQueue} for tests, users' tests included, and for the simulator.

Takes nothing from the disk; every Deferred has fired when it is returned, unless L{MemoryMailQueue.hold} is
set. Same semantics as the file store, and the same bytes, so that positions and sizes agree; both pass the
same contract suite. Nothing survives the process; L{MemoryMailQueue.start} after L{MemoryMailQueue.stop}
acts like a restart. As the store on disk, it is one class, a few lines for each method of the interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import isfinite
from zlib import crc32

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
from qmqpd_tx.spool.record import CHUNK, HEADER_SIZE, Layout
from qmqpd_tx.spool.scan import WaitingScan
from qmqpd_tx.spool.stored import Shared, StoredMessage
from qmqpd_tx.spool.writer import DraftWriter, WriterState

_STATES = frozenset(state.value for state in RecipientState)


class MemoryFile:
    """
    A queue file in memory. Nothing but its bytes is kept: there may be a million.

    @ivar data: its bytes, as they would be on disk.
    @ivar when: the modification time.
    """

    __slots__ = ("data", "when")

    def __init__(self, data: bytearray, when: float) -> None:
        self.data = data
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

    def commit(self, queue: Queue = Queue.INCOMING) -> Deferred[StoredMessage]:
        """See L{IMessageWriter.commit}."""
        if not self._begin_commit(queue):
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
        file = MemoryFile(bytearray(data), self._arrival_time)
        try:
            message = self._store.committed(self.queue_id, self._queue, file, self._envelope, layout)
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

    @param files: the queue.
    """

    def __init__(self, files: dict[QueueID, MemoryFile]) -> None:
        self._files = files
        self._names = iter(list(files))

    def next(self, limit: int) -> Deferred[list[QueuedEntry]]:
        """See L{IQueueScan.next}."""
        files = self._files
        there = (QueuedEntry(name, files[name].when) for name in self._names if name in files)
        return succeed(list(islice(there, max(limit, 1))))


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
        self._used = 0
        self._recovery = Recovery(0, 0, ())
        self._writers: dict[QueueID, MemoryMessageWriter] = {}
        self._shared: dict[QueueID, Shared] = {}
        self._running = False

    def start(self) -> Deferred[None]:
        """See L{IMailQueue.start}. The recovery is complete when this returns."""
        if self._running:
            return fail(SpoolError("start the queue: it was started already"))
        self._running = True
        active, incoming = self._files[Queue.ACTIVE], self._files[Queue.INCOMING]
        reactivated = len(active)
        incoming.update(active)
        active.clear()
        self._recovery = Recovery(reactivated, 0, ())
        return succeed(None)

    def recovered(self) -> Deferred[Recovery]:
        """See L{IMailQueue.recovered}."""
        if not self._running:
            return fail(SpoolError("recover the queue: it was not started"))
        return succeed(self._recovery)

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
        if self.capacity is not None and self._used >= self.capacity:
            raise InsufficientSpace(f"the queue holds {self._used} of {self.capacity} bytes: make room")
        queue_id = self._ids.next(arrival_time)
        writer = self._writers[queue_id] = MemoryMessageWriter(queue_id, self, arrival_time)
        return writer

    def committed(
        self, queue_id: QueueID, queue: Queue, file: MemoryFile, envelope: Envelope, layout: Layout
    ) -> StoredMessage:
        """
        A writer's message is complete.

        @return: its handle.
        @raise InsufficientSpace: it does not fit.
        """
        del self._writers[queue_id]
        if self.capacity is not None and self._used + len(file.data) > self.capacity:
            raise InsufficientSpace(f"{queue_id}: commit queue file: the queue is full")
        self._used += len(file.data)
        self._files[queue][queue_id] = file
        return self._handle(queue_id, queue, file, envelope, layout)

    def fill(
        self,
        count: int,
        envelope: Envelope,
        content: bytes,
        recipient: Callable[[int], bytes],
        due: Callable[[int], float],
        queue: Queue = Queue.DEFERRED,
    ) -> list[QueueID]:
        """
        Put many messages of one recipient each into a queue, at once: what a benchmark or a simulation begins
        with. A million take some seconds and less than a gigabyte.

        @param recipient: gives the address of the message with that number, from 0.
        @param due: gives its time, POSIX seconds.
        @return: their ids, in order.
        @raise InsufficientSpace: there is no room for all; those that fit are there.
        """
        encoded = record.encode_envelope(envelope)
        body = content + encoded
        checksum = crc32(body)
        top = HEADER_SIZE + len(content)
        recipients = HEADER_SIZE + len(body)
        files = self._files[queue]
        added = []
        for number in range(count):
            address = recipient(number)
            people = record.encode_recipient(address, address)
            end = recipients + len(people)
            queue_id = self._ids.next(envelope.arrival_time)
            header = record.encode_header(
                Layout(top, top, recipients, end, 1, crc32(people, checksum)), queue_id
            )
            file = MemoryFile(bytearray(b"".join((header, body, people, record.END))), due(number))
            if self.capacity is not None and self._used + len(file.data) > self.capacity:
                raise InsufficientSpace(f"fill the queue: it holds {self._used} of {self.capacity} bytes")
            self._used += len(file.data)
            files[queue_id] = file
            if queue is Queue.DEFERRED:
                self._index.set(queue_id, file.when)
            added.append(queue_id)
        return added

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
        return StoredMessage(
            self, queue_id, envelope, layout, shared, bytes(file.data[: layout.envelope]), None
        )

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
            _same(file, message)
            return succeed(record.read_recipients(blob_reader(file.data), message.layout, position, limit))
        except SpoolError as error:
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
            layout, envelope = record.read_message(read, len(file.data), queue_id)
            if layout.size > CHUNK:
                record.verify(read, layout)
        except MessageDamaged as damaged:
            return fail(MessageDamaged(f"{queue_id}: open: {damaged}", damaged.offset))
        except MessageUnfinished as unfinished:
            text = f"{queue_id}: open: {unfinished}"
            if queue is Queue.INCOMING:
                return fail(MessageUnfinished(text))
            return fail(MessageDamaged(text, len(file.data)))
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
        try:
            _same(file, message)
        except SpoolError as wrong:
            return fail(wrong)
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
        if target is Queue.DEFERRED and due is None and source is not Queue.HOLD:
            raise ValueError(f"{queue_id}: move to deferred without a due time")
        if due is not None and not isfinite(due):
            raise ValueError(f"{queue_id}: {due} is no due time")
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
            self._index.set(queue_id, file.when)
        shared = self._shared.get(queue_id)
        if shared is not None:
            shared.queue = target
        return succeed(None)

    def newest(self) -> QueueID:
        """See L{IMailQueue.newest}."""
        return queueid.encode(self._ids.last)

    def remove(self, queue_id: QueueID, queue: Queue) -> Deferred[None]:
        """See L{IMailQueue.remove}."""
        file = self._files[queue].get(queue_id)
        if error := self._missing("remove", queue_id, file):
            return fail(error)
        assert file is not None
        del self._files[queue][queue_id]
        self._used -= len(file.data)
        self._index.drop(queue_id)
        return succeed(None)

    def locate(self, queue_id: QueueID) -> Deferred[Queue | None]:
        """See L{IMailQueue.locate}."""
        if not self._running:
            return fail(SpoolError(f"{queue_id}: locate: the queue is not running"))
        return succeed(next((queue for queue, files in self._files.items() if queue_id in files), None))

    # --- finding ------------------------------------------------------------------------------------

    def scan(self, queue: Queue) -> MemoryScan:
        """See L{IMailQueue.scan}."""
        return MemoryScan(self._files[queue])

    def due(self, now: float, limit: int) -> list[QueuedEntry]:
        """See L{IMailQueue.due}."""
        return self._index.due(now, limit)

    def next_due(self) -> float | None:
        """See L{IMailQueue.next_due}."""
        return self._index.next_due()

    def when_due(self, queue_id: QueueID) -> float | None:
        """See L{IMailQueue.when_due}."""
        return self._index.get(queue_id)

    def waiting(self) -> WaitingScan:
        """See L{IMailQueue.waiting}."""
        return WaitingScan(self._index.walk(), lambda: None)

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


def _same(file: MemoryFile, message: StoredMessage) -> None:
    """
    See that a file still is what it was when the message was opened.

    @raise MessageDamaged: it is not.
    """
    queue_id = message.queue_id
    try:
        if record.decode_header(bytes(file.data[:HEADER_SIZE]), len(file.data), queue_id) == message.layout:
            return
    except SpoolError as error:
        raise MessageDamaged(f"{queue_id}: the file was changed: {error}", 0) from None
    raise MessageDamaged(f"{queue_id}: the file was replaced", 0)
