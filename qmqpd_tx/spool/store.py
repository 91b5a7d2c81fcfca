"""
The queue store on disk: L{IMailQueue}.

Takes an L{IConfig}; keeps each message in one file under C{queue_directory}. Answers to the queue of
Postfix: the folders incoming, active, deferred, hold and corrupt and the library around them.

Durability: a message that L{IMessageWriter.commit} reported survives a power cut. A move, a mark or a
removal survives the death of the process at once and a power cut within the journal interval of the
file system (seconds); when lost, the message is in the state before, so a recipient may get it twice,
never not at all. C{docs/queue-states.rst} is the full table.

Failure: every Deferred fails with a L{SpoolError}. No disk operation ever runs on the reactor's thread, so
a disk that hangs makes Deferreds wait and nothing else. Three kinds of disk threads share the work: one
that does everything about existing messages in the order of the calls, C{queue_commit_threads} that
commit, and two that move content of large messages. A disk process, where there is one, does what is common
and small.

Longer than most modules, because it is one class: the whole of L{IMailQueue}, a few lines a method. What a
method does to the disk is in the modules beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import isfinite
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IConfig,
    IMailQueue,
    InsufficientSpace,
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
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.background import BackgroundRecovery
from qmqpd_tx.spool.commits import CommitRunner, SyncFile, TransferRunner
from qmqpd_tx.spool.disk import COMMIT_LANE, CONTENT_LANE, QUEUE_LANE, Disk, Lane, ThreadedDisk
from qmqpd_tx.spool.files import ARRIVALS, QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem, RealFileSystem
from qmqpd_tx.spool.floor import RESERVE, RaiseFloor
from qmqpd_tx.spool.index import DueIndex
from qmqpd_tx.spool.lanes import ProcessDisk
from qmqpd_tx.spool.lock import check
from qmqpd_tx.spool.logs import AppendLog, Known, ReadLog, RemoveLog
from qmqpd_tx.spool.operations import FileOperation, Mark, MetadataRunner, Move, Release, Remove
from qmqpd_tx.spool.process import DiskProcess
from qmqpd_tx.spool.reading import Locate, Open, Opened, ReadContent, ReadRecipients
from qmqpd_tx.spool.record import CHUNK, Layout
from qmqpd_tx.spool.recovery import Prepare
from qmqpd_tx.spool.scan import FileScan, Scan, WaitingScan
from qmqpd_tx.spool.settings import SYNCFS, SpoolSettings
from qmqpd_tx.spool.spares import Spares
from qmqpd_tx.spool.stored import Shared, StoredMessage
from qmqpd_tx.spool.upkeep import FreeSpace, Unlock
from qmqpd_tx.spool.writer import FileMessageWriter

log = Logger(namespace="qmqpd_tx.qmgr")

FREE_SPACE_INTERVAL = 1.0
"""Seconds after which the free space is asked for again."""

UNFINISHED_TIME_LIMIT = 86400.0
"""Age in seconds at which start-up removes an unfinished file; a day, as in Postfix."""

_FOREIGN_LIMIT = 100


@implementer(IMailQueue)
class FileMailQueue:
    """
    See L{IMailQueue}.

    @param config: read once, here.
    @param reactor: for the time and for reporting from the disk threads.
    @param fs: the system calls; tests pass one that fails or stops.
    @param disk: what runs disk work; L{None} makes threads at L{start}, tests pass an
        L{InlineDisk<qmqpd_tx.spool.disk.InlineDisk>}.
    @param buffer_limit: a message up to this size is written in one go at its commit; a larger one streams
        out, with up to twice as many bytes in memory.
    @raise ConfigError: a parameter cannot be used.
    """

    metadata: Lane
    commits: Lane
    transfers: Lane

    def __init__(
        self,
        config: IConfig,
        reactor: IReactorTime,
        fs: FileSystem | None = None,
        disk: Disk | None = None,
        buffer_limit: int = 65536,
        fork: bool = False,
    ) -> None:
        self._buffer_limit = buffer_limit
        self._settings = settings = SpoolSettings.from_config(config)
        self._reactor = reactor
        self._fs: FileSystem = RealFileSystem() if fs is None else fs
        self._given_disk = disk
        self._fork = fork
        self._disk: Disk | None = None
        self._paths = QueuePaths(
            settings.queue_directory, settings.hash_queue_names, settings.hash_queue_depth
        )
        self._ids = queueid.QueueIDs()
        self._index = DueIndex()
        self._writers: dict[QueueID, FileMessageWriter] = {}
        self._shared: dict[QueueID, Shared] = {}
        self._scans: set[Scan] = set()
        self._releasing: dict[QueueID, Release] = {}
        self._recovery: BackgroundRecovery | None = None
        self._raise_from = 0
        self._known_logs: Known = {}
        self._warned: set[str] = set()
        self._memory = 0
        self._lock: int | None = None
        self._running = False
        self._free = 0
        self._free_checked = 0.0
        self._free_asked = False

    def reconfigure(self, config: IConfig) -> None:
        """
        Take over what can change while messages are in the queue: C{queue_minfree} and
        C{qmgr_message_memory_limit}. The rest waits for a restart.

        @raise ConfigError: a parameter cannot be used; nothing changes.
        """
        self._settings = SpoolSettings.from_config(config)

    # --- start and stop -----------------------------------------------------------------------------

    def check(self) -> None:
        """
        Find out, before L{start} and blocking, whether there is a reason for it to fail at once: folders that
        cannot be made, or another service that has the queue.

        @raise SpoolError: there is.
        """
        check(self._fs, self._paths)

    def start(self) -> Deferred[None]:
        """See L{IMailQueue.start}."""
        if self._disk is not None:
            return fail(SpoolError("start the queue: it was started already"))
        settings = self._settings
        # On threads batches are small, and C{auto} would hardly ever choose syncfs.
        syncfs = settings.commit_sync == SYNCFS
        if syncfs and not self._fs.has_syncfs:
            log.warn("queue_commit_sync = syncfs: this system has no syncfs that reports errors: using fsync")
            syncfs = False
        fs, paths = self._fs, self._paths
        disk = self._given_disk or self._make_disk(settings)
        self._disk = disk
        self.metadata = disk.lane(QUEUE_LANE, 1, MetadataRunner(fs, paths))
        self.commits = disk.lane(COMMIT_LANE, settings.commit_threads, CommitRunner(fs, paths, syncfs))
        self.transfers = disk.lane(CONTENT_LANE, 2, TransferRunner(fs, paths))
        operation = Prepare(self._reactor.seconds(), self._foreign)

        def started(last: int) -> None:
            self._lock = operation.lock
            if operation.lock is not None:
                disk.hold_lock(operation.lock)
            self._free = operation.free
            self._free_checked = self._reactor.seconds()
            # The last message before a crash may have come before the floor could be raised.
            self._ids.last = max(self._ids.last, last, operation.reserved - RESERVE)
            self._raise_from = operation.reserved - RESERVE // 2
            self._running = True
            self._recovery = BackgroundRecovery(
                fs,
                paths,
                self._index,
                self._ids,
                self._submit,
                self._free_checked,
                UNFINISHED_TIME_LIMIT,
                self._foreign,
            )
            self._recovery.begin()

        self.metadata.put(operation)
        deferred: Deferred[int] = operation.deferred
        return deferred.addCallbacks(started, self._not_started)

    def recovered(self) -> Deferred[Recovery]:
        """See L{IMailQueue.recovered}."""
        if self._recovery is None:
            return fail(SpoolError("recover the queue: it was not started"))
        return self._recovery.result()

    def _make_disk(self, settings: SpoolSettings) -> Disk:
        if self._fork and settings.disk_process:
            if threading.active_count() > 1:
                log.warn("queue_disk_process: other threads are running: using threads")
            else:
                try:
                    spares = (
                        Spares(self._fs, self._paths.folder("spare"), settings.spare_files)
                        if settings.spare_files
                        else None
                    )
                    process = DiskProcess.fork(self._reactor, self._fs, settings.commit_sync, spares)
                except OSError as error:
                    log.warn("queue_disk_process: {reason}: using threads", reason=str(error))
                else:
                    return ProcessDisk(ThreadedDisk(IReactorFromThreads(self._reactor)), process, self._paths)
        return ThreadedDisk(IReactorFromThreads(self._reactor))

    def _not_started(self, failure: Failure) -> Failure:
        self._end_disk()
        return failure

    def stop(self) -> Deferred[None]:
        """See L{IMailQueue.stop}. Messages still being written are dropped."""
        disk = self._disk
        if disk is None or not self._running:
            return succeed(None)
        self._running = False
        if self._recovery is not None:
            self._recovery.stop()
        for writer in list(self._writers.values()):
            if not writer.committing:
                writer.abort()

        def unlock(_: None) -> Deferred[None]:
            assert disk is not None
            lock, self._lock = self._lock, None
            if lock is not None:
                self.metadata.put(Unlock(lock, self._ids.last))
            return disk.drained()

        return disk.drained().addCallback(unlock).addCallback(lambda _: self._end_disk())

    def _end_disk(self) -> None:
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.stop()

    def _foreign(self, path: str) -> None:
        """
        Warn of a file that has no place in a queue folder; runs on a disk thread.
        """
        if path not in self._warned and len(self._warned) < _FOREIGN_LIMIT:
            self._warned.add(path)
            log.warn("{path}: not a queue file: ignored", path=path)

    def _submit(self, operation: FileOperation) -> Deferred[Any]:
        if not self._running:
            return fail(SpoolError(f"{operation.doing}: the queue is not running"))
        self.metadata.put(operation)
        return operation.deferred

    # --- new messages -------------------------------------------------------------------------------

    def create(self, arrival_time: float) -> FileMessageWriter:
        """See L{IMailQueue.create}."""
        if not self._running:
            raise SpoolError("create a message: the queue is not running")
        if self._settings.queue_minfree > 0:
            self._check_space()
        queue_id = self._ids.next(arrival_time)
        if self._ids.last >= self._raise_from:
            self._raise_floor()
        writer = FileMessageWriter(queue_id, self, self._buffer_limit)
        self._writers[queue_id] = writer
        return writer

    def _raise_floor(self) -> None:
        """
        Long before an id comes near the number that start-up would begin at after a crash, raise that number.
        """
        number = self._ids.last + RESERVE
        self._raise_from = number - RESERVE // 2
        self.metadata.put(RaiseFloor(number))

    def _check_space(self) -> None:
        now = self._reactor.seconds()
        if not self._free_asked and not 0 <= now - self._free_checked < FREE_SPACE_INTERVAL:
            self._free_asked = True
            self.transfers.put(FreeSpace(self._free_space))
        minimum = self._settings.queue_minfree
        if self._free < minimum:
            raise InsufficientSpace(
                f"{self._settings.queue_directory}: {self._free} bytes free,"
                f" less than queue_minfree = {minimum}: make room"
            )

    def _free_space(self, free: int | None) -> None:
        self._free_asked = False
        self._free_checked = self._reactor.seconds()
        if free is not None:
            self._free = free

    def committed(
        self,
        queue_id: QueueID,
        queue: Queue,
        envelope: Envelope,
        layout: Layout,
        data: bytes | None,
        recipients: list[Recipient] | None,
    ) -> StoredMessage:
        """
        A writer's message is durable.

        @return: its handle.
        """
        del self._writers[queue_id]
        self._free -= layout.size
        return self._handle(queue_id, queue, envelope, layout, data, recipients)

    def discarded(self, queue_id: QueueID) -> None:
        """
        Nothing is left of a writer's message.
        """
        self._writers.pop(queue_id, None)

    # --- messages -----------------------------------------------------------------------------------

    def _handle(
        self,
        queue_id: QueueID,
        queue: Queue,
        envelope: Envelope,
        layout: Layout,
        data: bytes | None,
        recipients: list[Recipient] | None,
    ) -> StoredMessage:
        shared = self._shared.get(queue_id)
        if shared is None:
            shared = self._shared[queue_id] = Shared(queue)
        shared.handles += 1
        if data is None or self._memory + layout.size > self._settings.memory_limit:
            data = recipients = None
        else:
            self._memory += layout.size
        return StoredMessage(self, queue_id, envelope, layout, shared, data, recipients)

    def closed(self, message: StoredMessage) -> None:
        """
        One of our messages was closed.
        """
        shared = message.shared
        shared.handles -= 1
        if shared.handles == 0:
            del self._shared[message.queue_id]
        self._memory -= message.in_memory

    def fetch_content(self, message: StoredMessage, offset: int, length: int) -> Deferred[bytes]:
        """
        Read the content of one of our messages from disk.
        """
        queue_id = message.queue_id
        if not self._running or not message.is_open:
            return fail(SpoolError(f"{queue_id}: read content: the message or the queue is closed"))
        operation = ReadContent(queue_id, message.shared.queue, message.layout, offset, length)
        self.transfers.put(operation)
        return operation.deferred

    def fetch_recipients(
        self, message: StoredMessage, position: int | None, limit: int
    ) -> Deferred[RecipientSlice]:
        """
        Read unfinished recipients of one of our messages from disk.
        """
        queue_id = message.queue_id
        if not message.is_open:
            return fail(SpoolError(f"{queue_id}: read recipients: the message is closed"))
        return self._submit(ReadRecipients(queue_id, message.shared.queue, message.layout, position, limit))

    def open(self, queue_id: QueueID, queue: Queue) -> Deferred[StoredMessage]:
        """See L{IMailQueue.open}."""
        if not queueid.valid(queue_id):
            return _no_id("open", queue_id)
        if queue_id in self._writers:
            return fail(MessageUnfinished(f"{queue_id}: open: the message is still being written"))
        deferred: Deferred[StoredMessage] = self._submit(
            Open(queue_id, queue, self._unchecked(queue_id), self._opened)
        )
        if queue is Queue.DEFERRED:
            deferred.addErrback(self._gone, queue_id, self._index.get(queue_id))
        return deferred

    def _unchecked(self, queue_id: QueueID) -> bool:
        return self._recovery is not None and self._recovery.unchecked(queue_id)

    def _opened(self, queue_id: QueueID, queue: Queue, found: Opened) -> StoredMessage:
        return self._handle(queue_id, queue, found.envelope, found.layout, found.data, found.recipients)

    def _gone(self, failure: Failure, queue_id: QueueID, due: float | None) -> Failure:
        """
        A deferred message went away behind our back: unless it is deferred again since, forget it.
        """
        if isinstance(failure.value, MessageNotFound) and self._index.get(queue_id) == due:
            self._index.drop(queue_id)
        return failure

    def mark(
        self, message: StoredMessage, recipients: Sequence[Recipient], state: RecipientState
    ) -> Deferred[None]:
        """See L{IMailQueue.mark}."""
        if not recipients:
            return succeed(None)
        positions = [recipient.position for recipient in recipients]
        shared = message.shared
        if message.layout.size > 2 * max(CHUNK, self._buffer_limit):
            # The recipients of so large a message are never in memory, and must not be, when they are done.
            pass
        elif state is RecipientState.TODO:
            shared.done.difference_update(positions)
        else:
            shared.done.update(positions)
        return self._submit(Mark(message.queue_id, shared.queue, message.layout, positions, state))

    def move(
        self, queue_id: QueueID, source: Queue, target: Queue, due: float | None = None
    ) -> Deferred[None]:
        """See L{IMailQueue.move}."""
        if not queueid.valid(queue_id):
            return _no_id("move", queue_id)
        if queue_id in self._writers:
            return fail(MessageNotFound(f"{queue_id}: move: the message is still being written"))
        if target is Queue.DEFERRED and due is None and source is not Queue.HOLD:
            raise ValueError(f"{queue_id}: move to deferred without a due time")
        if due is not None and not isfinite(due):
            raise ValueError(f"{queue_id}: {due} is no due time")
        if not self._running:
            return fail(SpoolError(f"{queue_id}: move: the queue is not running"))
        if target is Queue.DEFERRED and due is None:
            return self._release(queue_id, source)
        before = self._leave(queue_id, source)
        if target is Queue.DEFERRED and due is not None:
            self._index.set(queue_id, due)
        elif target is Queue.ACTIVE and self._recovery is not None:
            self._recovery.activated(queue_id)
        shared = self._shared.get(queue_id)
        if shared is not None:
            shared.queue = target
        deferred: Deferred[None] = self._submit(Move(queue_id, source, target, due))
        if source is Queue.DEFERRED or target is Queue.DEFERRED:
            deferred.addErrback(self._not_moved, queue_id, source, target, before, due)
        return deferred

    def _release(self, queue_id: QueueID, source: Queue) -> Deferred[None]:
        """
        Defer a message until the time that it has: the index learns of that when the disk has told it.
        """
        self._leave(queue_id, source)
        shared = self._shared.get(queue_id)
        if shared is not None:
            shared.queue = Queue.DEFERRED
        operation = self._releasing[queue_id] = Release(queue_id, source, Queue.DEFERRED)

        def released(result: Failure | None) -> Failure | None:
            # Unless it has left again, or is deferred to another time.
            if self._releasing.get(queue_id) is operation:
                del self._releasing[queue_id]
                if operation.due is not None:
                    self._index.set(queue_id, operation.due)
            return result

        return self._submit(operation).addBoth(released)

    def _leave(self, queue_id: QueueID, queue: Queue) -> float | None:
        """
        A message leaves a queue: what is being scanned must not bring it back into the index.

        @return: when it was due.
        """
        for scan in self._scans:
            scan.left.add(queue_id)
        if self._recovery is not None:
            self._recovery.left(queue_id)
        if queue is Queue.DEFERRED:
            self._releasing.pop(queue_id, None)
        return self._index.drop(queue_id) if queue is Queue.DEFERRED else None

    def _not_moved(
        self,
        failure: Failure,
        queue_id: QueueID,
        source: Queue,
        target: Queue,
        before: float | None,
        due: float | None,
    ) -> Failure:
        """
        Put the index right again, unless a later call has changed it.
        """
        expected = due if target is Queue.DEFERRED else None
        if self._index.get(queue_id) == expected:
            self._index.drop(queue_id)
            if (
                source is Queue.DEFERRED
                and before is not None
                and not isinstance(failure.value, MessageNotFound)
            ):
                self._index.set(queue_id, before)
        return failure

    def locate(self, queue_id: QueueID) -> Deferred[Queue | None]:
        """See L{IMailQueue.locate}."""
        if not queueid.valid(queue_id) or queue_id in self._writers:
            return succeed(None)
        recover = None if self._recovery is None else self._recovery.out_of_turn()
        return self._submit(Locate(queue_id, recover))

    def newest(self) -> QueueID:
        """See L{IMailQueue.newest}."""
        return queueid.encode(self._ids.last)

    def remove(self, queue_id: QueueID, queue: Queue) -> Deferred[None]:
        """See L{IMailQueue.remove}."""
        if not queueid.valid(queue_id):
            return _no_id("remove", queue_id)
        if queue_id in self._writers:
            return fail(MessageNotFound(f"{queue_id}: remove: the message is still being written"))
        if not self._running:
            return fail(SpoolError(f"{queue_id}: remove: the queue is not running"))
        before = self._leave(queue_id, queue)
        deferred: Deferred[None] = self._submit(Remove(queue_id, queue))
        if before is not None:
            deferred.addErrback(self._not_moved, queue_id, queue, Queue.CORRUPT, before, None)
        return deferred

    # --- finding ------------------------------------------------------------------------------------

    def scan(self, queue: Queue) -> FileScan:
        """See L{IMailQueue.scan}."""
        return FileScan(queue, self._paths, self._fs, self._foreign, self._scan)

    def _scan(self, operation: Scan) -> Deferred[list[QueuedEntry]]:
        self._scans.add(operation)
        operation.report = self._scanned
        return self._submit(operation)

    def _scanned(self, operation: Scan, entries: list[QueuedEntry]) -> list[QueuedEntry]:
        """
        @return: the entries without messages still being written.
        """
        self._scans.discard(operation)
        if operation.queue is Queue.DEFERRED:
            for entry in entries:
                if entry.queue_id not in operation.left and entry.queue_id not in self._index:
                    self._index.set(entry.queue_id, entry.due)
        if operation.queue not in ARRIVALS:
            return entries
        return [entry for entry in entries if entry.queue_id not in self._writers]

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
        walk = self._index.walk()
        if self._recovery is None:
            return WaitingScan(walk, lambda: None)
        self._recovery.watch(walk)
        return WaitingScan(walk, self._recovery.whole)

    # --- delivery status logs -----------------------------------------------------------------------

    def append_log(
        self, kind: LogKind, queue_id: QueueID, records: Sequence[bytes], durable: bool
    ) -> Deferred[None]:
        """See L{IMailQueue.append_log}."""
        if not queueid.valid(queue_id):
            return _no_id("append to a log", queue_id)
        sync = self._sync_log if durable else None
        return self._submit(AppendLog(kind, queue_id, self._known_logs, records, sync))

    def _sync_log(self, fd: int, operation: AppendLog) -> None:
        assert operation.queue_id is not None
        self.commits.put(SyncFile(fd, operation.queue_id, operation.synced))

    def read_log(self, kind: LogKind, queue_id: QueueID) -> Deferred[list[bytes]]:
        """See L{IMailQueue.read_log}."""
        if not queueid.valid(queue_id):
            return _no_id("read a log", queue_id)
        return self._submit(ReadLog(kind, queue_id, self._known_logs))

    def remove_log(self, kind: LogKind, queue_id: QueueID) -> Deferred[None]:
        """See L{IMailQueue.remove_log}."""
        if not queueid.valid(queue_id):
            return _no_id("remove a log", queue_id)
        return self._submit(RemoveLog(kind, queue_id, self._known_logs))


def _no_id(doing: str, queue_id: object) -> Deferred[Any]:
    return fail(MessageNotFound(f"{doing}: {queue_id!r} is not a queue id"))
