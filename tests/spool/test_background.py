"""Recovery beside a service that is at work already."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import MessageDamaged, MessageNotFound, QueuedEntry, SpoolError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.disk import InlineDisk, Runner
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import Listing, RealFileSystem
from qmqpd_tx.spool.lanes import ProcessDisk
from qmqpd_tx.spool.recovery import RecoverSlice
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.processing import InlineProcess
from tests.spool.values import ENVELOPE, NOW, TOP, Values

DAY = 86400.0
COUNT = 12


class SlowDisk(InlineDisk):
    """A disk that does a slice of the recovery only when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[Any] = []

    def put(self, runner: Runner, operation: Any) -> None:
        """Keep slices."""
        if isinstance(operation, RecoverSlice):
            operation.limit = 1
            self.slices.append((runner, operation))
        else:
            super().put(runner, operation)

    def step(self) -> bool:
        """
        Do a slice.

        @return: whether there was one.
        """
        if not self.slices:
            return False
        super().put(*self.slices.pop(0))
        return True


class SickFileSystem(RealFileSystem):
    """
    A file system with bad places.

    @ivar bad: paths whose files cannot be opened, and folders that cannot be listed.
    @ivar listed: the folders that were listed.
    """

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.listed: list[str] = []

    def _check(self, path: str) -> None:
        if any(path.endswith(bad) for bad in self.bad):
            raise OSError(5, "Input/output error", path)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Perhaps fail."""
        self._check(path)
        return super().open(path, flags, mode)

    def scandir(self, path: str) -> Listing:
        """Perhaps fail."""
        self._check(path)
        self.listed.append(path)
        return super().scandir(path)


class BackgroundTests(SynchronousTestCase):
    """A service that was killed with mail everywhere, and the next one."""

    process = False

    def setUp(self) -> None:
        """Fill a queue, and end as if killed."""
        self.directory = self.mktemp()
        queue = self.make()
        while self.disk.step():
            pass
        self.ids = {
            where: sorted(self.store(queue, where) for _ in range(COUNT))
            for where in (Queue.ACTIVE, Queue.DEFERRED, Queue.INCOMING)
        }
        self.successResultOf(queue.stop())
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def make(self, later: float = 0.0, values: dict[str, object] | None = None) -> FileMailQueue:
        """
        @return: a queue on the folder, started, with its recovery waiting for us.
        """
        clock = Clock()
        clock.advance(NOW + later)
        self.disk = SlowDisk()
        self.fs = SickFileSystem()
        disk: Any = self.disk
        if self.process:
            paths = QueuePaths(self.directory, ("deferred", "defer"), 1)
            disk = ProcessDisk(self.disk, InlineProcess(self.fs), paths)
        queue = FileMailQueue(Values(self.directory, **(values or {})), clock, self.fs, disk, 4096)
        self.assertIsNone(self.successResultOf(queue.start()))
        self.addCleanup(lambda: self.successResultOf(queue.stop()))
        return queue

    def store(
        self, queue: FileMailQueue, where: Queue, body: bytes = b"\nhello\n", when: float = NOW
    ) -> QueueID:
        """
        @param when: when it arrives.
        @return: the id of a message.
        """
        writer = queue.create(when)
        writer.write(body)
        writer.envelope(ENVELOPE, TOP)
        writer.recipient(b"a@b", b"a@b")
        self.successResultOf(writer.commit()).close()
        if where is not Queue.INCOMING:
            self.successResultOf(queue.move(writer.queue_id, Queue.INCOMING, where, NOW + 300))
        return QueueID(writer.queue_id)

    def finish(self, queue: FileMailQueue) -> Any:
        """
        @return: the recovery, completed.
        """
        result = queue.recovered()
        while self.disk.step():
            pass
        return self.successResultOf(result)

    def files(self) -> dict[QueueID, Queue]:
        """
        @return: where all files are, each in one place.
        """
        found: dict[QueueID, Queue] = {}
        for where in Queue:
            for _, _, names in os.walk(os.path.join(self.directory, where.value)):
                for name in names:
                    self.assertNotIn(name, found)
                    found[QueueID(name)] = where
        return found

    def walked(self, scan: Any) -> list[QueueID]:
        """
        @return: what a scan gives.
        """
        found: list[QueueID] = []
        while entries := self.successResultOf(scan.next(5)):
            found += [entry.queue_id for entry in entries]
        return found

    def test_served_at_once(self) -> None:
        """Before anything is recovered, mail is taken, delivered and deferred; then all is in order."""
        queue = self.make()
        result = queue.recovered()
        self.assertEqual(len(self.disk.slices), 1)
        delivered, deferred = self.store(queue, Queue.ACTIVE), self.store(queue, Queue.DEFERRED)
        active = self.store(queue, Queue.ACTIVE)
        self.successResultOf(queue.remove(delivered, Queue.ACTIVE))
        self.assertEqual(list(queue.due(1e11, 99)), [QueuedEntry(deferred, NOW + 300)])
        self.assertNoResult(result)
        recovery = self.finish(queue)
        self.assertEqual(self.successResultOf(result), recovery)
        self.assertEqual((recovery.reactivated, recovery.swept, recovery.damaged), (COUNT, 0, ()))
        expected = dict.fromkeys(self.ids[Queue.ACTIVE] + self.ids[Queue.INCOMING], Queue.INCOMING)
        expected |= dict.fromkeys([*self.ids[Queue.DEFERRED], deferred], Queue.DEFERRED)
        # What became active since the start is being delivered: it must not come back.
        self.assertEqual(self.files(), {**expected, active: Queue.ACTIVE})
        self.assertEqual(
            {one.queue_id for one in queue.due(NOW + 300, 99)}, {*self.ids[Queue.DEFERRED], deferred}
        )

    def test_active_again(self) -> None:
        """A message that was brought back and is active again stays so, wherever the recovery is."""
        queue = self.make()
        admitted: set[QueueID] = set()
        while self.disk.step():
            for queue_id, where in self.files().items():
                if where is Queue.INCOMING and queue_id not in admitted:
                    self.successResultOf(queue.open(queue_id, where)).close()
                    self.successResultOf(queue.move(queue_id, where, Queue.ACTIVE))
                    admitted.add(queue_id)
            for queue_id in admitted:
                self.assertEqual(self.files()[queue_id], Queue.ACTIVE)
        self.assertEqual(admitted, {*self.ids[Queue.ACTIVE], *self.ids[Queue.INCOMING]})
        self.assertEqual(self.finish(queue).reactivated, COUNT)

    def test_before_it_is_reached(self) -> None:
        """
        A message that the recovery has not reached can be looked for, held, deleted and requeued; the
        recovery then leaves it where it is.
        """
        for steps in range(0, COUNT + 3, 3):
            queue = self.make()
            for _ in range(steps):
                self.disk.step()
            held, gone, again, deferred = (
                self.ids[Queue.ACTIVE].pop(),
                self.ids[Queue.ACTIVE].pop(0),
                self.ids[Queue.ACTIVE][0],
                self.ids[Queue.DEFERRED].pop(),
            )
            for queue_id in (held, gone, again):
                # Nobody works on it, so it is not active for anybody who asks.
                self.assertEqual(self.successResultOf(queue.locate(queue_id)), Queue.INCOMING)
            self.assertEqual(self.successResultOf(queue.locate(deferred)), Queue.DEFERRED)
            self.successResultOf(queue.move(held, Queue.INCOMING, Queue.HOLD))
            self.successResultOf(queue.remove(gone, Queue.INCOMING))
            self.successResultOf(queue.move(again, Queue.INCOMING, Queue.INCOMING, NOW))
            self.successResultOf(queue.move(deferred, Queue.DEFERRED, Queue.HOLD))
            self.finish(queue)
            files = self.files()
            self.assertEqual(
                [files.get(name) for name in (held, gone, again)], [Queue.HOLD, None, Queue.INCOMING]
            )
            self.assertEqual(files[deferred], Queue.HOLD)
            self.assertEqual({one.queue_id for one in queue.due(1e11, 99)}, set(self.ids[Queue.DEFERRED]))
            # As if killed in the middle of deliveries.
            for queue_id in self.ids[Queue.ACTIVE]:
                self.successResultOf(queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE))
            self.successResultOf(queue.stop())
            if len(self.ids[Queue.ACTIVE]) < 3:
                break

    def test_named_as_active(self) -> None:
        """Who names active as the place of a message not yet reached gets it, or hears that it is gone."""
        queue = self.make()
        first, second = self.ids[Queue.ACTIVE][:2]
        self.successResultOf(queue.move(first, Queue.ACTIVE, Queue.HOLD))
        self.successResultOf(queue.remove(second, Queue.ACTIVE))
        self.assertEqual(self.finish(queue).reactivated, COUNT - 2)
        self.assertEqual(self.files()[first], Queue.HOLD)
        self.failureResultOf(queue.move(self.ids[Queue.ACTIVE][2], Queue.ACTIVE, Queue.HOLD), MessageNotFound)

    def test_deferred_meanwhile(self) -> None:
        """What is tried and deferred anew while the index is built is due when it was deferred to."""
        queue = self.make()
        early = self.ids[Queue.DEFERRED][:4]
        for number, queue_id in enumerate(early):
            self.successResultOf(queue.move(queue_id, Queue.DEFERRED, Queue.ACTIVE))
            self.successResultOf(queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 9000 + number))
        self.finish(queue)
        self.assertEqual([one.queue_id for one in queue.due(NOW + 300, 99)], self.ids[Queue.DEFERRED][4:])
        self.assertEqual([one.queue_id for one in queue.due(NOW + 9999, 99)][-4:], early)

    def test_moved_under_the_slice(self) -> None:
        """What a slice has seen and what leaves before the slice is reported is not in the index."""
        queue = self.make()
        self.disk.hold_results = True
        gone = self.ids[Queue.DEFERRED][3]
        for _ in range(COUNT * 2):
            self.disk.step()
            self.disk.hold_results = False
            if not self.disk.slices:
                held = self.disk._results
                if any(found[0] == gone for one in held for found in getattr(one, "result", None) or ()):
                    break
                self.disk.release()
            self.disk.hold_results = True
        self.successResultOf(self._later(queue.move(gone, Queue.DEFERRED, Queue.HOLD)))
        self.finish(queue)
        self.assertNotIn(gone, [one.queue_id for one in queue.due(1e11, 99)])
        self.assertEqual(len(queue.due(1e11, 99)), COUNT - 1)

    def _later(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.disk.release()
        return deferred

    def test_flush(self) -> None:
        """A flush that begins before the index is whole waits for the rest, gives all once, and ends."""
        queue = self.make()
        new = self.store(queue, Queue.DEFERRED)
        scan = queue.waiting()
        self.assertEqual([one.queue_id for one in self.successResultOf(scan.next(9))], [new])
        waiting = scan.next(9)
        self.assertNoResult(waiting)
        self.store(queue, Queue.DEFERRED)
        self.finish(queue)
        found = [one.queue_id for one in self.successResultOf(waiting)]
        self.assertEqual(len(found), 9)
        self.assertEqual(sorted(found + self.walked(scan)), self.ids[Queue.DEFERRED])

    def test_stopped(self) -> None:
        """A stop ends the recovery between two files; the next start does the rest."""
        queue = self.make()
        for _ in range(5):
            self.disk.step()
        results = [queue.recovered(), queue.waiting().next(5)]
        stopped = queue.stop()
        self.disk.step()
        self.successResultOf(stopped)
        self.failureResultOf(results[0], SpoolError)
        self.assertEqual(self.successResultOf(results[1]), [])
        self.assertFalse(self.disk.step())
        again = self.make()
        self.assertEqual(self.finish(again).reactivated, COUNT - 6)
        self.assertEqual(len(again.due(1e11, 99)), COUNT)
        self.assertEqual([event for event in self.events if event["log_level"].name == "error"], [])

    def test_not_started(self) -> None:
        """Before a start there is nothing to wait for."""
        queue = FileMailQueue(Values(self.mktemp()), Clock(), disk=InlineDisk())
        self.failureResultOf(queue.recovered(), SpoolError)

    def test_unchecked_is_checked(self) -> None:
        """A large message that the recovery has not compared with its checksum is, when it is opened."""
        queue = self.make()
        self.finish(queue)
        large = self.store(queue, Queue.INCOMING, b"\n" + b"x" * 200_000)
        self.successResultOf(queue.stop())
        with open(os.path.join(self.directory, "incoming", large), "r+b") as file:
            file.seek(100_000)
            file.write(b"\0" * 512)
        queue = self.make()
        self.failureResultOf(queue.open(large, Queue.INCOMING), MessageDamaged)
        self.assertEqual(self.finish(queue).damaged, (large,))
        fresh = self.store(queue, Queue.INCOMING, b"\n" + b"x" * 200_000)
        self.successResultOf(queue.open(fresh, Queue.INCOMING)).close()

    def test_new_mail_is_not_swept(self) -> None:
        """A message that streams in while the clock is set forth by days is not taken for a leftover."""
        queue = self.make(3 * DAY)
        writer = queue.create(NOW + 3 * DAY)
        writer.write(b"x" * 5000)
        path = os.path.join(self.directory, "incoming", writer.queue_id)
        os.utime(path, (NOW, NOW))
        self.assertEqual(self.finish(queue).swept, 0)
        self.assertTrue(os.path.exists(path))
        writer.abort()

    def test_bad_file(self) -> None:
        """A file that cannot be read is warned of and left; the rest is recovered."""
        queue = self.make()
        bad = self.ids[Queue.ACTIVE][4]
        self.fs.bad.add(bad)
        self.assertEqual(self.finish(queue).reactivated, COUNT - 1)
        self.assertEqual(self.files()[bad], Queue.ACTIVE)
        self.assertIn(f"{bad}: recover: Input/output error", "".join(map(str, map(formatEvent, self.events))))

    def test_bad_disk(self) -> None:
        """A disk that fails ends the recovery, not the service, and says so."""
        queue = self.make()
        self.fs.bad.add("/deferred")
        result = queue.recovered()
        while self.disk.step():
            pass
        self.assertIn("Input/output error", str(self.failureResultOf(result, SpoolError).value))
        self.assertIn("recovery of the queue", "".join(map(str, map(formatEvent, self.events))))
        self.store(queue, Queue.ACTIVE)

    def test_many_bad_files(self) -> None:
        """So does one where file after file fails."""
        queue = self.make()
        self.fs.bad.update(self.ids[Queue.ACTIVE] + self.ids[Queue.INCOMING])
        result = queue.recovered()
        while self.disk.step():
            pass
        self.failureResultOf(result, SpoolError)

    # --- what the start itself costs ------------------------------------------------------------------

    def test_nothing_listed(self) -> None:
        """A start lists no queue; one after a change of the layout does."""
        self.make()
        self.assertEqual(self.fs.listed, [])

    def test_listed_when_needed(self) -> None:
        """After a change of the layout, or without the floor, all names are looked at before the start."""
        hashed: dict[str, object] = {"hash_queue_names": ("incoming",), "hash_queue_depth": 2}
        for values in (hashed, {}):
            queue = self.make(values=values)
            self.assertGreater(len(self.fs.listed), 7)
            for where, ids in self.ids.items():
                for queue_id in ids:
                    self.successResultOf(queue.open(queue_id, where)).close()
            self.successResultOf(queue.stop())
        for spoil in (b"", b"garbage", None):
            path = os.path.join(self.directory, "pid", "floor")
            if spoil is None:
                os.unlink(path)
            else:
                with open(path, "wb") as file:
                    file.write(spoil)
            queue = self.make(-DAY)
            self.assertGreater(len(self.fs.listed), 7)
            self.assertGreater(self.store(queue, Queue.ACTIVE), max(self.ids[Queue.INCOMING]))
            self.successResultOf(queue.stop())

    def test_ids_after_a_crash(self) -> None:
        """
        Ids are greater than all that were given out, at once, without a look at the files: also when the
        service before was killed and the clock has been set back.
        """
        queue = self.make()
        names = []
        for later in range(0, 600, 7):
            names.append(self.store_at(queue, NOW + later))
        # Killed: there is no stop.
        os.close(queue._lock or -1)
        self.make_up(queue)
        again = self.make(-DAY)
        self.assertEqual(self.fs.listed, [])
        self.assertGreater(again.create(NOW - DAY).queue_id, max(names))

    def test_crash_after_a_pause(self) -> None:
        """
        A message that came after a long pause, just before a crash, was named before the floor could be
        raised: it belongs to the run before all the same.
        """
        queue = self.make()
        floor = os.path.join(self.directory, "pid", "floor")
        with open(floor, "rb") as file:
            before = file.read()
        late = self.store(queue, Queue.INCOMING, when=NOW + 600)
        with open(floor, "wb") as file:
            file.write(before)
        with open(os.path.join(self.directory, "incoming", late), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        os.close(queue._lock or -1)
        self.make_up(queue)
        again = self.make(601.0)
        self.assertGreater(again.create(NOW).queue_id, late)
        self.assertEqual(self.finish(again).damaged, (late,))

    def store_at(self, queue: FileMailQueue, when: float) -> QueueID:
        """
        @return: the id of a message that was begun then, and given up.
        """
        writer = queue.create(when)
        writer.abort()
        return QueueID(writer.queue_id)

    def make_up(self, queue: FileMailQueue) -> None:
        """Let the clean-up of a queue that was killed do nothing."""
        queue._lock = None
        queue._running = False

    def test_ids_after_a_stop(self) -> None:
        """After a clean stop they go on where they ended."""
        queue = self.make(-DAY)
        last = self.store_at(queue, 0.0)
        self.successResultOf(queue.stop())
        following = self.make(-DAY).create(0.0).queue_id
        self.assertEqual(queueid.decode(following), queueid.decode(last) + 1)


class ProcessBackgroundTests(BackgroundTests):
    """The same with a disk process that moves and removes."""

    process = True
