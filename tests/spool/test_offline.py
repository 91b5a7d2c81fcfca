"""Hold, release, delete and requeue while no service has the queue."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import QueueLocked, SpoolError
from qmqpd_tx.message import LogKind, Queue, QueueID, RecipientState
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.offline import SEARCHED, Change, OfflineQueue
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.values import ENVELOPE, NOW, TOP, Values

LATER = NOW + 5000


class CountingFileSystem(RealFileSystem):
    """Counts what makes things durable, and fails when told to."""

    def __init__(self, has_syncfs: bool) -> None:
        self.has_syncfs = has_syncfs
        self.synced: list[str] = []
        self.broken = False
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Remember the path."""
        fd = super().open(path, flags, mode)
        self._paths[fd] = path
        return fd

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """Count."""
        self.synced.append(os.path.basename(self._paths[fd]))

    def syncfs(self, fd: int) -> None:
        """Count."""
        self.synced.append("all")

    def rename(self, source: str, target: str) -> None:  # type: ignore[override]
        """Perhaps fail."""
        if self.broken:
            raise OSError(30, "Read-only file system")
        os.rename(source, target)


class OfflineTests(SynchronousTestCase):
    """Changes by hand."""

    def setUp(self) -> None:
        """A queue with a message in each of its folders, stopped."""
        self.directory = self.mktemp()
        self.values = Values(self.directory)
        queue = self.start()
        self.ids = {where: self.store(queue, where) for where in Queue}
        for where in (Queue.HOLD, Queue.DEFERRED):
            for kind in LogKind:
                self.successResultOf(queue.append_log(kind, self.ids[where], [b"why"], False))
        self.successResultOf(queue.stop())
        # What a service that was killed leaves.
        os.rename(self.path("incoming", self.ids[Queue.ACTIVE]), self.path("active", self.ids[Queue.ACTIVE]))

    def start(self) -> FileMailQueue:
        """
        @return: a service's queue, started.
        """
        clock = Clock()
        clock.advance(NOW)
        queue = FileMailQueue(self.values, clock, disk=InlineDisk())
        self.successResultOf(queue.start())
        return queue

    def store(self, queue: FileMailQueue, where: Queue) -> QueueID:
        """
        @return: the id of a message of two recipients, the first done.
        """
        writer = queue.create(NOW)
        writer.write(b"\nhello\n")
        writer.envelope(ENVELOPE, TOP)
        for address in (b"a@b", b"c@d"):
            writer.recipient(address, address)
        message = self.successResultOf(writer.commit())
        first = self.run_now(message.recipients(None, 1)).recipients
        self.successResultOf(queue.mark(message, first, RecipientState.DELIVERED))
        message.close()
        if where not in (Queue.INCOMING, Queue.ACTIVE):
            self.successResultOf(queue.move(writer.queue_id, Queue.INCOMING, where, NOW + 300))
        return QueueID(writer.queue_id)

    def run_now(self, coroutine: Any) -> Any:
        """
        @return: what a coroutine gives.
        """
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def path(self, *parts: str) -> str:
        """
        @return: a path in the queue.
        """
        return os.path.join(self.directory, *parts)

    def files(self, *folders: str) -> dict[str, str]:
        """
        @return: the files below some folders, and in which they are.
        """
        return {
            name: folder
            for folder in folders or [queue.value for queue in Queue]
            for _, _, names in os.walk(self.path(folder))
            for name in names
        }

    def change(self, change: Change, queue_id: str, queues: list[Queue] | None = None) -> Queue | None:
        """
        @return: where the message was.
        """
        with OfflineQueue(self.values, LATER) as queue:
            return queue.change(change, queue_id, queues)

    def change_all(self, change: Change, queues: list[Queue] | None = None) -> dict[QueueID, Queue]:
        """
        @return: what was changed, and where it was.
        """
        with OfflineQueue(self.values, LATER) as queue:
            return dict(queue.change_all(change, queues))

    def test_locked(self) -> None:
        """While a service has the queue nothing is touched, and the error names the service's process."""
        service = self.start()
        before = self.files()
        error = self.assertRaises(QueueLocked, self.change, Change.DELETE, self.ids[Queue.HOLD])
        self.assertIn(str(os.getpid()), str(error))
        self.assertEqual(self.files(), before)
        self.successResultOf(service.stop())
        self.assertEqual(self.change(Change.DELETE, self.ids[Queue.HOLD]), Queue.HOLD)

    def test_lock_given_up(self) -> None:
        """A service can start after a change, and while one is open it cannot."""
        queue = OfflineQueue(self.values, LATER)
        queue.open()
        clock = Clock()
        service = FileMailQueue(self.values, clock, disk=InlineDisk())
        self.failureResultOf(service.start(), QueueLocked)
        queue.close()
        queue.close()
        self.assertRaises(SpoolError, queue.change, Change.HOLD, self.ids[Queue.DEFERRED])
        self.successResultOf(self.start().stop())

    def test_no_queue(self) -> None:
        """A wrong queue_directory is told."""
        queue = OfflineQueue(Values(self.path("nowhere")), LATER)
        self.assertIn("queue_directory", str(self.assertRaises(SpoolError, queue.open)))

    def test_hold_and_release(self) -> None:
        """Mail is held from everywhere, and released to deferred with the time and the logs that it had."""
        for where in SEARCHED[Change.HOLD]:
            self.assertEqual(self.change(Change.HOLD, self.ids[where]), where)
            self.assertIsNone(self.change(Change.HOLD, self.ids[where]))
            self.assertEqual(self.files()[self.ids[where]], "hold")
        queue_id = self.ids[Queue.DEFERRED]
        self.assertEqual(self.change(Change.RELEASE, queue_id), Queue.HOLD)
        self.assertIsNone(self.change(Change.RELEASE, queue_id))
        service = self.start()
        self.assertEqual(
            [(one.queue_id, one.due) for one in service.due(NOW + 300, 9)], [(queue_id, NOW + 300)]
        )
        self.assertEqual(self.successResultOf(service.read_log(LogKind.BOUNCE, queue_id)), [b"why"])
        self.successResultOf(service.stop())

    def test_release_only_what_is_held(self) -> None:
        """Other mail is not released, whatever queues are named."""
        self.assertEqual(self.change_all(Change.RELEASE, list(Queue)), {self.ids[Queue.HOLD]: Queue.HOLD})
        self.assertIsNone(self.change(Change.RELEASE, self.ids[Queue.ACTIVE], [Queue.ACTIVE]))

    def test_delete(self) -> None:
        """A deleted message is gone with its logs; corrupt mail is only deleted when that queue is named."""
        self.assertEqual(self.change(Change.DELETE, self.ids[Queue.HOLD]), Queue.HOLD)
        self.assertIsNone(self.change(Change.DELETE, self.ids[Queue.HOLD]))
        self.assertNotIn(self.ids[Queue.HOLD], self.files("hold", "bounce", "defer", "trace"))
        self.assertIn(self.ids[Queue.DEFERRED], self.files("bounce"))
        self.assertIsNone(self.change(Change.DELETE, self.ids[Queue.CORRUPT]))
        self.assertEqual(self.change(Change.DELETE, self.ids[Queue.CORRUPT], [Queue.CORRUPT]), Queue.CORRUPT)

    def test_delete_again(self) -> None:
        """Logs that a deletion left behind when it was cut off go with the next; those of other mail stay."""
        gone, held = self.ids[Queue.DEFERRED], self.ids[Queue.HOLD]
        os.unlink(self.path("deferred", gone[-1], gone))
        self.assertIsNone(self.change(Change.DELETE, gone))
        self.assertIsNone(self.change(Change.DELETE, held, [Queue.DEFERRED]))
        self.assertEqual(set(self.files("bounce", "defer", "trace")), {held})

    def test_delete_all(self) -> None:
        """All mail of a queue, or of all queues but corrupt."""
        self.assertEqual(
            self.change_all(Change.DELETE, [Queue.DEFERRED]), {self.ids[Queue.DEFERRED]: Queue.DEFERRED}
        )
        self.assertEqual(len(self.change_all(Change.DELETE)), 3)
        self.assertEqual(self.change_all(Change.DELETE), {})
        self.assertEqual(self.files(), {self.ids[Queue.CORRUPT]: "corrupt"})
        self.assertEqual(self.files("bounce", "defer", "trace"), {})

    def test_requeue(self) -> None:
        """Requeued mail is in incoming and due now; its arrival time and its done recipients are kept."""
        for where in SEARCHED[Change.REQUEUE]:
            queue_id = self.ids[where]
            for _ in range(2):
                self.assertIn(self.change(Change.REQUEUE, queue_id), (where, Queue.INCOMING))
                self.assertEqual(self.files()[queue_id], "incoming")
            self.assertEqual(os.stat(self.path("incoming", queue_id)).st_mtime, LATER)
        service = self.start()
        queue_id = self.ids[Queue.HOLD]
        message = self.successResultOf(service.open(queue_id, Queue.INCOMING))
        self.assertEqual(message.envelope.arrival_time, NOW)
        left = self.run_now(message.recipients(None, 9)).recipients
        self.assertEqual([one.address for one in left], [b"c@d"])
        message.close()
        self.assertEqual(self.successResultOf(service.read_log(LogKind.BOUNCE, queue_id)), [b"why"])
        self.assertEqual(list(service.due(NOW + 10**6, 9)), [])
        self.successResultOf(service.stop())

    def test_requeue_all(self) -> None:
        """All of one queue."""
        self.assertEqual(self.change_all(Change.REQUEUE, [Queue.HOLD]), {self.ids[Queue.HOLD]: Queue.HOLD})
        self.assertEqual(
            set(self.change_all(Change.REQUEUE)), set(self.ids.values()) - {self.ids[Queue.CORRUPT]}
        )

    def test_any_depth(self) -> None:
        """Mail is found at whatever depth it is, and goes to where it belongs."""
        self.values = Values(self.directory, hash_queue_names=("hold",), hash_queue_depth=2)
        queue_id = self.ids[Queue.DEFERRED]
        self.assertEqual(self.change(Change.HOLD, queue_id), Queue.DEFERRED)
        self.assertTrue(os.path.exists(self.path("hold", queue_id[-1], queue_id[-2], queue_id)))
        self.assertEqual(self.change(Change.DELETE, queue_id), Queue.HOLD)
        self.assertEqual(self.files("bounce").get(queue_id), None)

    def test_no_message(self) -> None:
        """Names that lead elsewhere and files that are no messages are left alone."""
        with open(self.path("incoming", self.ids[Queue.INCOMING]), "rb") as file:
            data = file.read()
        half, other = queueid.encode(1), queueid.encode(2)
        for name, text in ((half, data[:-1]), (other, data)):
            with open(self.path("incoming", name), "wb") as file:
                file.write(text)
            os.chmod(self.path("incoming", name), 0o700)
        before = self.files()
        for name in (half, other, "../incoming/" + half, "", "ALL", queueid.encode(3)):
            self.assertIsNone(self.change(Change.HOLD, name))
            self.assertIsNone(self.change(Change.REQUEUE, name))
        self.assertEqual(self.files(), before)
        self.assertNotIn(half, self.change_all(Change.HOLD))
        self.assertEqual(self.files()[half], "incoming")
        self.assertEqual(self.change(Change.DELETE, half), Queue.INCOMING)

    def test_never_over_another(self) -> None:
        """A message is not renamed over a copy of it; the others go on."""
        queue_id = self.ids[Queue.INCOMING]
        with open(self.path("hold", queue_id), "wb") as file:
            file.write(b"copy")
        error = self.assertRaises(SpoolError, self.change, Change.HOLD, queue_id)
        self.assertIn(queue_id, str(error))
        self.assertEqual(
            set(self.change_all(Change.HOLD)), {self.ids[Queue.ACTIVE], self.ids[Queue.DEFERRED]}
        )
        with open(self.path("hold", queue_id), "rb") as file:
            self.assertEqual(file.read(), b"copy")

    def test_durable(self) -> None:
        """What was done is made durable once, and nothing is when nothing was done."""
        for has_syncfs, expected in ((True, ["all"]), (False, ["deferred", "hold"])):
            fs = CountingFileSystem(has_syncfs)
            with OfflineQueue(Values(self.directory, hash_queue_names=()), LATER, fs) as queue:
                queue.change(Change.HOLD, self.ids[Queue.CORRUPT])
            self.assertEqual(fs.synced, [])
            with OfflineQueue(Values(self.directory, hash_queue_names=()), LATER, fs) as queue:
                self.assertTrue(queue.change(Change.HOLD, self.ids[Queue.DEFERRED]) or has_syncfs)
                queue.change(Change.RELEASE, self.ids[Queue.DEFERRED])
            self.assertEqual(fs.synced, expected)

    def test_broken_disk(self) -> None:
        """An error of the disk names the message, and leaves it where it was."""
        fs = CountingFileSystem(True)
        fs.broken = True
        with OfflineQueue(self.values, LATER, fs) as queue:
            error = self.assertRaises(SpoolError, queue.change, Change.HOLD, self.ids[Queue.INCOMING])
        self.assertIn(self.ids[Queue.INCOMING], str(error))
        self.assertIn("Read-only", str(error))
        self.assertEqual(self.files()[self.ids[Queue.INCOMING]], "incoming")

    def test_owner(self) -> None:
        """Folders that root makes belong to the owner of the queue."""
        if os.geteuid() != 0:
            self.skipTest("not root")
        for folder, _, names in os.walk(self.directory):
            for name in (".", *names):
                os.chown(os.path.join(folder, name), 65534, 65534)
        self.values = Values(self.directory, hash_queue_names=("hold",), hash_queue_depth=2)
        os.unlink(self.path("pid", "master.pid"))
        self.change_all(Change.HOLD)
        owners = {
            os.stat(os.path.join(folder, name)).st_uid
            for folder, _, names in os.walk(self.directory)
            for name in (".", *names)
        }
        self.assertEqual(owners, {65534})
