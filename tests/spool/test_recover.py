"""What start-up makes of what it finds."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import MessageNotFound, QueuedEntry, QueueLocked, Recovery
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.files import FOLDERS
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.values import ENVELOPE, NOW, TOP, Values

DAY = 86400.0


class RecoverTests(SynchronousTestCase):
    """Restarts."""

    def setUp(self) -> None:
        """Start a queue."""
        self.directory = self.mktemp()
        self.queue = self.make()
        self.successResultOf(self.queue.start())
        self.addCleanup(lambda: self.successResultOf(self.queue.stop()))

    def make(self, later: float = 0.0, **values: object) -> FileMailQueue:
        """
        @return: a queue on the folder.
        """
        clock = Clock()
        clock.advance(NOW + later)
        return FileMailQueue(Values(self.directory, **values), clock, disk=InlineDisk(), buffer_limit=4096)

    def restart(self, later: float = 0.0, **values: object) -> Recovery:
        """
        @return: what start-up found.
        """
        self.successResultOf(self.queue.stop())
        self.queue = self.make(later, **values)
        self.successResultOf(self.queue.start())
        result = self.successResultOf(self.queue.recovered())
        assert isinstance(result, Recovery)
        return result

    def store(self, body: bytes = b"\nhello\n", target: Queue = Queue.INCOMING) -> QueueID:
        """
        @return: the id of a message in some queue.
        """
        writer = self.queue.create(NOW)
        writer.write(body)
        writer.envelope(ENVELOPE, TOP)
        writer.recipient(b"a@b", b"a@b")
        self.successResultOf(writer.commit()).close()
        if target is not Queue.INCOMING:
            due = NOW + 500 if target is Queue.DEFERRED else None
            self.successResultOf(self.queue.move(writer.queue_id, Queue.INCOMING, target, due))
        return QueueID(writer.queue_id)

    def path(self, *parts: str) -> str:
        """
        @return: a path in the queue.
        """
        return os.path.join(self.directory, *parts)

    def put(self, data: bytes, *parts: str, mode: int = 0o700, age: float = 0.0) -> str:
        """
        Put a file there.

        @return: its path.
        """
        path = self.path(*parts)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        os.utime(path, (NOW - age, NOW - age))
        return path

    def listed(self, queue: Queue) -> list[QueueID]:
        """
        @return: what is in a queue.
        """
        return [entry.queue_id for entry in self.successResultOf(self.queue.scan(queue).next(1000))]

    def warnings(self) -> list[str]:
        """
        @return: what was warned of.
        """
        from twisted.logger import formatEvent

        return [formatEvent(event) for event in self.events if event["log_level"].name == "warn"]

    def watch(self) -> None:
        """Collect log events from here on."""
        from twisted.logger import globalLogPublisher

        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_folders(self) -> None:
        """All folders are made, for the owner only."""
        for name in FOLDERS:
            self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, 0o700, name)

    def test_locked(self) -> None:
        """A second service is refused, with the process that has the queue; a clean stop lets it in."""
        second = self.make()
        error = self.failureResultOf(second.start(), QueueLocked).value
        self.assertIn(str(os.getpid()), str(error))
        self.assertIn("master.pid", str(error))
        self.successResultOf(second.stop())
        self.store()
        self.successResultOf(self.queue.stop())
        self.queue = self.make()
        self.successResultOf(self.queue.start())

    def test_check(self) -> None:
        """Whether a start would be refused is known before it, and asking changes nothing."""
        second = self.make()
        self.assertIn(str(os.getpid()), str(self.assertRaises(QueueLocked, second.check)))
        self.store()
        self.successResultOf(self.queue.stop())
        self.queue = self.make()
        for _ in range(2):
            self.queue.check()
        self.successResultOf(self.queue.start())
        self.assertEqual(self.successResultOf(self.queue.recovered()), Recovery(0, 0, ()))

    def test_unfinished_stay_a_day(self) -> None:
        """Unfinished files are not listed, stay for a day after their last change, and then go."""
        whole = self.store()
        with open(self.path("incoming", whole), "rb") as file:
            data = file.read()
        names = [queueid.encode(number) for number in range(3)]
        self.put(data[:-1], "incoming", names[0])
        self.put(data, "incoming", names[1], mode=0o600)
        self.put(b"", "incoming", names[2])
        self.assertEqual(self.restart(DAY - 1), Recovery(0, 0, ()))
        self.assertEqual(self.listed(Queue.INCOMING), [whole])
        self.assertEqual(self.restart(DAY), Recovery(0, 3, ()))
        self.assertEqual(os.listdir(self.path("incoming")), [whole])

    def test_unfinished_held_stay_a_day(self) -> None:
        """
        The same in hold. There only the permission says that a file is unfinished: one that is cut later is
        never thrown away.
        """
        whole = self.store(target=Queue.HOLD)
        with open(self.path("hold", whole), "rb") as file:
            data = file.read()
        unfinished, cut = (queueid.encode(number) for number in range(2))
        self.put(data, "hold", unfinished, mode=0o600)
        self.put(data[:-1], "hold", cut)
        self.assertEqual(sorted(self.listed(Queue.HOLD)), sorted([whole, cut]))
        self.assertEqual(self.restart(DAY - 1), Recovery(0, 0, ()))
        self.assertEqual(sorted(os.listdir(self.path("hold"))), sorted([whole, cut, unfinished]))
        self.assertEqual(self.restart(DAY), Recovery(0, 1, ()))
        self.assertEqual(sorted(os.listdir(self.path("hold"))), sorted([whole, cut]))

    def test_recycled(self) -> None:
        """
        A file that holds another message than its name says, which is what a power cut can leave of a file
        that was used again, is neither listed nor delivered, and goes at the next start or when it is due.
        """
        whole = self.store()
        with open(self.path("incoming", whole), "rb") as file:
            data = file.read()
        names = [queueid.encode(number) for number in range(3)]
        self.put(data, "incoming", names[0])
        self.put(data, "active", names[1])
        self.assertEqual(self.listed(Queue.INCOMING), [whole])
        self.assertEqual(self.restart(), Recovery(0, 0, ()))
        self.assertEqual(os.listdir(self.path("incoming")), [whole])
        self.assertEqual(os.listdir(self.path("active")), [])
        self.put(data, "hold", names[2])
        self.failureResultOf(self.queue.open(QueueID(names[2]), Queue.HOLD), MessageNotFound)
        self.assertEqual(os.listdir(self.path("hold")), [])

    def test_damaged(self) -> None:
        """Damaged files go to corrupt, with a warning that names them and says where."""
        small, large, active = self.store(), self.store(b"x" * 200_000), self.store(target=Queue.ACTIVE)
        for queue, name, offset in (
            ("incoming", small, 140),
            ("incoming", large, 100_000),
            ("active", active, 3),
        ):
            with open(self.path(queue, name), "r+b") as file:
                file.seek(offset)
                file.write(b"\xff")
        good = self.store()
        self.watch()
        recovery = self.restart()
        self.assertEqual(sorted(recovery.damaged), sorted([small, large, active]))
        self.assertEqual(recovery.reactivated, 0)
        self.assertEqual(self.listed(Queue.INCOMING), [good])
        self.assertEqual(sorted(self.listed(Queue.CORRUPT)), sorted([small, large, active]))
        self.assertEqual(len(self.warnings()), 3)
        for name in (small, large, active):
            self.assertTrue(any(name in text and "offset" in text for text in self.warnings()))

    def test_unfinished_active(self) -> None:
        """An active message was finished once: if it isn't any more, a person must look at it."""
        name = self.store(target=Queue.ACTIVE)
        os.truncate(self.path("active", name), 200)
        self.assertEqual(self.restart(2 * DAY), Recovery(0, 0, (name,)))
        self.assertEqual(os.listdir(self.path("corrupt")), [name])

    def test_twice(self) -> None:
        """A message that someone copied is not overwritten."""
        name = self.store()
        self.put(b"other", "active", name)
        recovery = self.restart()
        self.assertEqual((recovery.reactivated, list(recovery.damaged)), (0, [name]))
        self.assertEqual(self.listed(Queue.INCOMING), [name])
        with open(self.path("corrupt", name), "rb") as file:
            self.assertEqual(file.read(), b"other")

    def test_depth(self) -> None:
        """After a change of hash_queue_depth and names, everything is where it belongs."""
        deferred, held = self.store(target=Queue.DEFERRED), self.store(target=Queue.HOLD)
        self.successResultOf(self.queue.append_log(LogKind.DEFER, deferred, [b"why"], False))
        for names, depth in (
            (("hold",), 2),
            (("deferred", "defer", "hold"), 3),
            (("deferred",), 1),
            ((), 1),
        ):
            self.restart(hash_queue_names=names, hash_queue_depth=depth)
            self.assertEqual(list(self.queue.due(NOW + 500, 9)), [QueuedEntry(deferred, NOW + 500)])
            self.assertEqual(self.listed(Queue.HOLD), [held])
            for name, queue in ((deferred, Queue.DEFERRED), (held, Queue.HOLD)):
                self.successResultOf(self.queue.open(name, queue)).close()
            self.assertEqual(self.successResultOf(self.queue.read_log(LogKind.DEFER, deferred)), [b"why"])
        self.assertTrue(os.path.exists(self.path("deferred", deferred)))

    def test_clock_stepped_back(self) -> None:
        """Ids stay greater than those of any file, also of a log, after a restart long before."""
        names = [self.store(), self.store(target=Queue.HOLD)]
        future = queueid.encode(int((NOW + 10**6) * 1e6))
        self.successResultOf(self.queue.append_log(LogKind.TRACE, future, [b"x"], False))
        self.restart(-1000.0)
        self.assertGreater(self.store(), max([*names, future]))

    def test_foreign(self) -> None:
        """Other files are left alone, and warned of once; symbolic links are not followed."""
        name = self.store()
        outside = self.put(b"secret", "..", os.path.basename(self.directory) + "-outside")
        link = queueid.encode(77)
        os.symlink(os.path.abspath(outside), self.path("incoming", link))
        os.symlink(self.path("incoming"), self.path("deferred", "B"))
        self.put(b"x", "incoming", "README")
        os.mkdir(self.path("incoming", "old"))
        os.mkfifo(self.path("incoming", queueid.encode(78)))
        self.watch()
        self.assertEqual(self.restart(10 * DAY), Recovery(0, 0, ()))
        for _ in range(2):
            self.assertEqual(self.listed(Queue.INCOMING), [name])
            self.assertEqual(self.listed(Queue.DEFERRED), [])
        self.assertEqual(len(self.warnings()), 5)
        self.assertTrue(any("README" in text for text in self.warnings()))
        self.assertTrue(self.failureResultOf(self.queue.open(link, Queue.INCOMING)))
        self.assertTrue(self.failureResultOf(self.queue.open(queueid.encode(78), Queue.INCOMING)))

    def test_deferred_behind_our_back(self) -> None:
        """Deferred mail that appears is found by a scan; what disappears is forgotten when it is opened."""
        gone, stays = self.store(target=Queue.DEFERRED), self.store(target=Queue.DEFERRED)
        new = self.store(target=Queue.HOLD)
        os.makedirs(self.path("deferred", new[-1]), exist_ok=True)
        os.rename(self.path("hold", new), self.path("deferred", new[-1], new))
        os.utime(self.path("deferred", new[-1], new), (NOW + 5, NOW + 5))
        os.unlink(self.path("deferred", gone[-1], gone))
        self.assertEqual(sorted(self.listed(Queue.DEFERRED)), sorted([stays, new]))
        self.assertEqual(self.queue.next_due(), NOW + 5)
        self.failureResultOf(self.queue.open(gone, Queue.DEFERRED))
        self.assertEqual([entry.queue_id for entry in self.queue.due(NOW + 1000, 9)], [new, stays])

    def test_moved_behind_our_back(self) -> None:
        """A message that someone moved is still marked and read."""
        writer = self.queue.create(NOW)
        writer.write(b"\n" + b"x" * 5000)
        writer.envelope(ENVELOPE, TOP)
        writer.recipient(b"a@b", b"a@b")
        message = self.successResultOf(writer.commit())
        os.rename(self.path("incoming", message.queue_id), self.path("hold", message.queue_id))
        data = self.successResultOf(Deferred.fromCoroutine(message.content.read(len(TOP), 3)))
        self.assertEqual(data, b"\nxx")
        piece = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 5)))
        self.assertEqual(len(piece.recipients), 1)

    def test_torn_log(self) -> None:
        """A record torn by a crash is left out, and records added later are still read."""
        name = self.store()
        log = (LogKind.BOUNCE, name)
        self.successResultOf(self.queue.append_log(*log, [b"first", b"second"], True))
        path = self.path("bounce", name)
        for cut in range(1, 9):
            self.restart()
            os.truncate(path, os.path.getsize(path) - cut)
            self.assertEqual(self.successResultOf(self.queue.read_log(*log)), [b"first"])
            self.successResultOf(self.queue.append_log(*log, [b"second"], True))
            self.assertEqual(self.successResultOf(self.queue.read_log(*log)), [b"first", b"second"])

    def test_real_time(self) -> None:
        """A file's age is counted from its last change."""
        path = self.put(b"", "incoming", queueid.encode(5))
        os.utime(path)
        self.restart(time.time() - NOW + DAY - 60)
        self.assertTrue(os.path.exists(path))
