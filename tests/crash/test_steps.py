"""
Stop after each file-system step in the life of messages, start again, and account for every message.

This is the table of docs/queue-states.rst: a message that was acknowledged is there and whole until it was
removed; one that was not acknowledged is whole or swept; nothing is ever half.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import Recovery
from qmqpd_tx.message import Envelope, LogKind, Queue, QueueID, RecipientState
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem, RealFileSystem
from qmqpd_tx.spool.lanes import ProcessDisk
from qmqpd_tx.spool.offline import Change, OfflineQueue
from qmqpd_tx.spool.spares import Spares
from qmqpd_tx.spool.store import FileMailQueue
from tests.crash.power import Loss, PowerCut, SteppedFileSystem
from tests.spool.processing import InlineProcess
from tests.spool.values import NOW, TOP, Values

SMALL = b"Subject: small\n\nhello\n"
LARGE = b"Subject: large\n\n" + b"0123456789abcdef\n" * 40
BUFFER = 256
DAY = 86400.0


def now(deferred: Deferred[Any]) -> Any:
    """
    @return: the result that a Deferred has.
    @raise PowerCut: that is what happened instead.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()  # type: ignore[no-untyped-call]
    return result


class Life:
    """
    What happens to some messages, and what was promised about them so far.

    @ivar content: of each message that was begun.
    @ivar acknowledged: messages whose commit was reported.
    @ivar asked: messages whose removal was asked for.
    @ivar removed: messages whose removal was reported.
    @ivar marking: recipients that were to be marked.
    @ivar marked: recipients whose mark was reported.
    @ivar recipients: of each message.
    @ivar logged: messages with a durable record in the bounce log that is still wanted.
    @ivar aborted: messages that were given up.
    @ivar waiting: deferred messages and when they are due.
    @ivar held: messages on hold.
    @ivar never_incoming: messages that were to be held from the start.
    """

    def __init__(self, case: SynchronousTestCase, queue: FileMailQueue) -> None:
        self._case = case
        self._queue = queue
        self.content: dict[QueueID, bytes] = {}
        self.recipients: dict[QueueID, set[bytes]] = {}
        self.acknowledged: set[QueueID] = set()
        self.asked: set[QueueID] = set()
        self.removed: set[QueueID] = set()
        self.aborted: set[QueueID] = set()
        self.marking: dict[QueueID, set[bytes]] = {}
        self.marked: dict[QueueID, set[bytes]] = {}
        self.logged: set[QueueID] = set()
        self.waiting: dict[QueueID, float] = {}
        self.held: set[QueueID] = set()
        self.never_incoming: set[QueueID] = set()

    def _now(self, deferred: Deferred[Any]) -> Any:
        return now(deferred)

    def arrive_held(self, body: bytes) -> None:
        """Commit to hold; and stay. Never in incoming."""
        writer = self._begin(body, 2)
        self.never_incoming.add(writer.queue_id)
        message = self._now(writer.commit(Queue.HOLD))
        self.acknowledged.add(message.queue_id)
        self.held.add(message.queue_id)
        message.close()

    def _begin(self, body: bytes, recipients: int) -> Any:
        writer = self._queue.create(NOW)
        queue_id = writer.queue_id
        self.content[queue_id] = TOP + body
        self.recipients[queue_id] = {b"u%d@example.com" % number for number in range(recipients)}
        self.marking[queue_id], self.marked[queue_id] = set(), set()
        for at in range(0, len(body), 100):
            writer.write(body[at : at + 100])
        writer.envelope(Envelope(b"sender@example.org", NOW), TOP)
        for number in range(recipients):
            address = b"u%d@example.com" % number
            writer.recipient(address, address)
        return writer

    def _store(self, body: bytes, recipients: int) -> Any:
        message = self._now(self._begin(body, recipients).commit())
        self.acknowledged.add(message.queue_id)
        return message

    def _mark(self, message: Any, count: int, state: RecipientState) -> None:
        found = self._now(Deferred.fromCoroutine(message.recipients(None, count))).recipients
        names = {one.address for one in found}
        self.marking[message.queue_id] |= names
        self._now(self._queue.mark(message, found, state))
        self.marked[message.queue_id] |= names

    def _remove(self, message: Any, queue: Queue) -> None:
        self.asked.add(message.queue_id)
        self._now(self._queue.remove(message.queue_id, queue))
        self.removed.add(message.queue_id)
        message.close()

    def deliver(self, body: bytes, recipients: int) -> None:
        """Commit, activate, mark one by one, remove."""
        message = self._store(body, recipients)
        self._now(self._queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
        for _ in range(recipients):
            self._mark(message, 1, RecipientState.DELIVERED)
        self._remove(message, Queue.ACTIVE)

    def begin_delivery(self, body: bytes) -> None:
        """Commit, activate, mark one; and stay."""
        message = self._store(body, 3)
        self._now(self._queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
        self._mark(message, 1, RecipientState.DELIVERED)
        message.close()

    def defer(self) -> None:
        """Commit, deliver one, defer the other, and again; then deliver it."""
        queue = self._queue
        message = self._store(SMALL, 2)
        queue_id = message.queue_id
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE))
        self._mark(message, 1, RecipientState.DELIVERED)
        for attempt in (1, 2):
            self._now(queue.remove_log(LogKind.DEFER, queue_id))
            self._now(queue.append_log(LogKind.DEFER, queue_id, [b"later"], False))
            due = NOW + 300 * attempt
            self._now(queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, due))
            self.waiting[queue_id] = due
            del self.waiting[queue_id]
            self._now(queue.move(queue_id, Queue.DEFERRED, Queue.ACTIVE))
        self._mark(message, 1, RecipientState.DELIVERED)
        self._now(queue.remove_log(LogKind.DEFER, queue_id))
        self._remove(message, Queue.ACTIVE)

    def wait(self) -> None:
        """Commit, hold, release, defer; and stay."""
        queue = self._queue
        message = self._store(SMALL, 1)
        queue_id = message.queue_id
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.HOLD))
        self._now(queue.move(queue_id, Queue.HOLD, Queue.INCOMING))
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE))
        self._now(queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 1000))
        self.waiting[queue_id] = NOW + 1000
        message.close()

    def by_hand(self) -> None:
        """Commit, deliver one, defer; hold, release, requeue, hold again; and stay."""
        queue = self._queue
        message = self._store(SMALL, 2)
        queue_id = message.queue_id
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE))
        self._mark(message, 1, RecipientState.DELIVERED)
        self._now(queue.append_log(LogKind.BOUNCE, queue_id, [b"no such user"], True))
        self.logged.add(queue_id)
        self._now(queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 700))
        message.close()
        self._now(queue.move(queue_id, Queue.DEFERRED, Queue.HOLD))
        self._now(queue.move(queue_id, Queue.HOLD, Queue.DEFERRED))
        self._now(queue.move(queue_id, Queue.DEFERRED, Queue.INCOMING, NOW))
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.HOLD))
        self.held.add(queue_id)

    def bounce(self) -> None:
        """Log, mark, make the notice safe, forget the log, remove."""
        queue = self._queue
        message = self._store(SMALL, 2)
        queue_id = message.queue_id
        self._now(queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE))
        for reason in (b"no such user", b"nor that one"):
            self._now(queue.append_log(LogKind.BOUNCE, queue_id, [reason], True))
            self.logged.add(queue_id)
            self._mark(message, 1, RecipientState.BOUNCED)
        self._store(b"Subject: undelivered\n\n", 1).close()
        self.logged.discard(queue_id)
        self._now(queue.remove_log(LogKind.BOUNCE, queue_id))
        self._remove(message, Queue.ACTIVE)

    def abort(self, body: bytes) -> None:
        """Begin, and give up."""
        writer = self._begin(body, 1)
        self.aborted.add(writer.queue_id)
        writer.abort()

    def live(self) -> None:
        """Everything, in turn."""
        self.deliver(SMALL, 1)
        self.deliver(LARGE, 3)
        self.wait()
        self.defer()
        self.by_hand()
        self.arrive_held(SMALL)
        self.arrive_held(LARGE)
        self.abort(SMALL)
        self.abort(LARGE)
        self.bounce()
        self._store(LARGE, 20).close()


class StepTests(SynchronousTestCase):
    """Stop anywhere."""

    sync = "fsync"
    least = 60

    def queue(self, root: str, fs: FileSystem, later: float = 0.0) -> FileMailQueue:
        """
        @return: a queue on a folder, not started.
        """
        clock = Clock()
        clock.advance(NOW + later)
        values = Values(root, queue_commit_sync=self.sync)
        return FileMailQueue(values, clock, fs, InlineDisk(), buffer_limit=BUFFER)

    def attempt(self, stop_at: int | None, torn: bool, loss: Loss) -> list[str]:
        """
        Live until a step, stop there, and check what is left.

        @return: the steps.
        """
        base = self.mktemp()
        root = os.path.join(base, "queue")
        trash = os.path.join(base, "trash")
        os.makedirs(trash)
        fs = SteppedFileSystem(trash, stop_at, torn)
        queue = self.queue(root, fs)
        life = Life(self, queue)
        try:
            now(queue.start())
            now(queue.recovered())
            life.live()
        except PowerCut:
            pass
        fs.cut(loss, root)
        self.check(root, life, loss)
        return fs.steps

    def check(self, root: str, life: Life, loss: Loss) -> None:
        """
        Start again, and account for everything.
        """
        queue = self.queue(root, RealFileSystem())
        self.successResultOf(queue.start())
        recovery: Recovery = self.successResultOf(queue.recovered())
        self.assertEqual(recovery.damaged, ())
        found: dict[QueueID, tuple[Queue, set[bytes]]] = {}
        for where in Queue:
            for entry in self.successResultOf(queue.scan(where).next(1000)):
                self.assertNotIn(entry.queue_id, found)
                message = self.successResultOf(queue.open(entry.queue_id, where))
                content = self.successResultOf(Deferred.fromCoroutine(message.content.read(0, 10**6)))
                self.assertEqual(content, life.content[entry.queue_id])
                piece = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 1000)))
                found[entry.queue_id] = where, {one.address for one in piece.recipients}
                self.assertEqual(message.recipient_count, len(life.recipients[entry.queue_id]))
                message.close()
        for queue_id in life.acknowledged - life.asked:
            self.assertIn(queue_id, found, "an acknowledged message is missing")
        for queue_id, (where, left) in found.items():
            everyone = life.recipients[queue_id]
            self.assertLessEqual(everyone - life.marking[queue_id], left, "a recipient was lost")
            self.assertNotIn(where, (Queue.ACTIVE, Queue.CORRUPT))
            if queue_id in life.never_incoming:
                self.assertIs(where, Queue.HOLD)
            if loss is Loss.PROCESS:
                self.assertEqual(left & life.marked[queue_id], set(), "a delivery would be repeated")
                self.assertNotIn(queue_id, life.removed | life.aborted)
        for queue_id in life.logged:
            log = self.successResultOf(queue.read_log(LogKind.BOUNCE, queue_id))
            self.assertEqual(log[:1], [b"no such user"])
        if loss is Loss.PROCESS:
            due = {entry.queue_id: entry.due for entry in queue.due(NOW + 10000, 100)}
            for queue_id, when in life.waiting.items():
                self.assertEqual(due[queue_id], when)
            for queue_id in life.held:
                self.assertIs(found[queue_id][0], Queue.HOLD)
        self.successResultOf(queue.stop())
        self.swept(root, set(found))

    def swept(self, root: str, kept: set[QueueID]) -> None:
        """
        Two days later, start-up leaves nothing but the messages.
        """
        queue = self.queue(root, RealFileSystem(), 2 * DAY + 10**9)
        self.successResultOf(queue.start())
        self.assertEqual(self.successResultOf(queue.recovered()).damaged, ())
        names = {
            name
            for where in Queue
            for _, _, files in os.walk(os.path.join(root, where.value))
            for name in files
        }
        self.assertEqual(names, kept)
        self.successResultOf(queue.stop())

    def every_step(self, loss: Loss, torn: bool) -> None:
        """
        Stop before each step in turn, and after the last.
        """
        steps = self.attempt(None, False, loss)
        self.assertGreater(len(steps), self.least)
        for number in range(len(steps)):
            try:
                self.attempt(number, torn, loss)
            except Exception:
                print(
                    f"stopped at step {number}: {steps[number]}; before: {steps[max(number - 5, 0) : number]}"
                )
                raise

    def test_killed(self) -> None:
        """The process is killed before any step."""
        self.every_step(Loss.PROCESS, False)

    def test_killed_in_a_write(self) -> None:
        """The process is killed in the middle of any write."""
        self.every_step(Loss.PROCESS, True)

    def test_power_cut(self) -> None:
        """Power fails before any step; the file system comes back as it was at the last fsync."""
        self.every_step(Loss.JOURNAL, False)

    def test_power_cut_without_data(self) -> None:
        """Power fails in the middle of any write; names are kept, data that wasn't fsynced is zeros."""
        self.every_step(Loss.DATA, True)


class OfflineStepTests(StepTests):
    """Stop anywhere in changes that are made by hand while no service has the queue."""

    least = 6

    def attempt(self, stop_at: int | None, torn: bool, loss: Loss) -> list[str]:
        """See L{StepTests}."""
        base = self.mktemp()
        root = os.path.join(base, "queue")
        trash = os.path.join(base, "trash")
        os.makedirs(trash)
        service = self.queue(root, RealFileSystem())
        life = Life(self, service)
        now(service.start())
        for _ in range(3):
            life.wait()
        life.by_hand()
        life.held.clear()
        now(service.stop())
        (released,), waiting = [name for name in life.acknowledged if name not in life.waiting], life.waiting
        held, requeued, deleted = sorted(waiting)
        life.waiting = {}
        fs = SteppedFileSystem(trash, stop_at, torn)
        done = False
        try:
            with OfflineQueue(Values(root), NOW, fs) as queue:
                self.assertIs(queue.change(Change.HOLD, held), Queue.DEFERRED)
                life.held.add(held)
                self.assertIs(queue.change(Change.RELEASE, released), Queue.HOLD)
                life.waiting[released] = NOW
                self.assertIs(queue.change(Change.REQUEUE, requeued), Queue.DEFERRED)
                life.asked.add(deleted)
                life.logged.discard(deleted)
                self.assertIs(queue.change(Change.DELETE, deleted), Queue.DEFERRED)
                life.removed.add(deleted)
            done = True
        except PowerCut:
            pass
        fs.cut(loss, root)
        if done:
            # All of it is durable, whatever is lost.
            self.assertEqual(list(fs.steps)[-1], "syncfs")
            self.check(root, life, Loss.PROCESS)
        else:
            self.check(root, life, loss)
        return fs.steps


class RecoveryStepTests(StepTests):
    """Stop anywhere in a start after a stop, and in the recovery."""

    least = 6

    def attempt(self, stop_at: int | None, torn: bool, loss: Loss) -> list[str]:
        """See L{StepTests}."""
        base = self.mktemp()
        root = os.path.join(base, "queue")
        trash = os.path.join(base, "trash")
        os.makedirs(trash)
        first = SteppedFileSystem(os.path.join(base, "trash"))
        service = self.queue(root, first)
        life = Life(self, service)
        now(service.start())
        life.wait()
        life.by_hand()
        for body in (SMALL, LARGE):
            life.begin_delivery(body)
        # Killed with two messages active.
        first.cut(Loss.PROCESS, root)
        fs = SteppedFileSystem(trash, stop_at, torn)
        queue = self.queue(root, fs)
        try:
            now(queue.start())
            recovery = now(queue.recovered())
            self.assertEqual((recovery.reactivated, recovery.damaged), (2, ()))
            now(queue.stop())
        except PowerCut:
            pass
        fs.cut(loss, root)
        self.check(root, life, loss)
        return fs.steps


class SettlingStepTests(RecoveryStepTests):
    """The same when all files move to another depth of subfolders at the start."""

    least = 15
    starts = 0

    def queue(self, root: str, fs: FileSystem, later: float = 0.0) -> FileMailQueue:
        """See L{StepTests}."""
        self.starts = self.starts + 1 if os.path.exists(root) else 0
        clock = Clock()
        clock.advance(NOW + later)
        depth = 1 if self.starts == 0 else 2
        values = Values(root, hash_queue_names=("deferred", "hold", "bounce"), hash_queue_depth=depth)
        return FileMailQueue(values, clock, fs, InlineDisk(), buffer_limit=BUFFER)


class SyncfsStepTests(StepTests):
    """The same with C{queue_commit_sync = syncfs}."""

    sync = "syncfs"


class ProcessStepTests(StepTests):
    """Stop anywhere, when a disk process does what is common and small."""

    spare_files = 0

    def queue(self, root: str, fs: FileSystem, later: float = 0.0) -> FileMailQueue:
        """See L{StepTests}."""
        clock = Clock()
        clock.advance(NOW + later)
        paths = QueuePaths(root, ("deferred", "defer"), 1)
        spares = Spares(fs, paths.folder("spare"), self.spare_files)
        disk = ProcessDisk(InlineDisk(), InlineProcess(fs, self.sync, spares), paths)
        return FileMailQueue(Values(root), clock, fs, disk, buffer_limit=BUFFER)


class ProcessSyncfsStepTests(ProcessStepTests):
    """The same with syncfs."""

    sync = "syncfs"


class SpareStepTests(ProcessStepTests):
    """The same when the files of removed messages are used again."""

    spare_files = 10
