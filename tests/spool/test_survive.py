"""Disks that are full, slow or broken; and how little is asked of a good one."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import CommitAbandoned, InsufficientSpace, MessageNotFound, SpoolError
from qmqpd_tx.message import LogKind, Queue, RecipientState
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.values import ENVELOPE, NOW, TOP, Values


class TroubledFileSystem(RealFileSystem):
    """
    A file system that fails when told to.

    @ivar calls: what was asked of it.
    @ivar broken: calls that fail, and with which errno.
    @ivar free: bytes free.
    @ivar before: called before an fsync.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: dict[str, int] = {}
        self.free = 10**9
        self.before: Any = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise OSError(self.broken[name], os.strerror(self.broken[name]))

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Make or open."""
        self._call("create" if flags & os.O_CREAT else "open")
        return super().open(path, flags, mode)

    def write(self, fd: int, data: bytes) -> int:  # type: ignore[override]
        """Write."""
        self._call("write")
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:  # type: ignore[override]
        """Write there."""
        self._call("pwrite")
        return os.pwrite(fd, data, offset)

    def fchmod(self, fd: int, mode: int) -> None:  # type: ignore[override]
        """Give permissions."""
        self._call("fchmod")
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """Sync."""
        if self.before is not None:
            self.before()
        self._call("fsync")

    def syncfs(self, fd: int) -> None:
        """Sync all."""
        self._call("syncfs")

    def rename(self, source: str, target: str) -> None:  # type: ignore[override]
        """Rename."""
        self._call("rename")
        os.rename(source, target)

    def unlink(self, path: str) -> None:  # type: ignore[override]
        """Unlink."""
        self._call("unlink")
        os.unlink(path)

    def free_space(self, path: str) -> int:
        """Free space."""
        self._call("statvfs")
        return self.free


class SurviveTests(SynchronousTestCase):
    """Trouble."""

    def setUp(self) -> None:
        """Start a queue."""
        self.start()

    def start(self, buffer_limit: int = 65536, **values: object) -> None:
        """
        Start a new queue.
        """
        self.directory = self.mktemp()
        self.fs = TroubledFileSystem()
        self.disk = InlineDisk()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.queue = FileMailQueue(
            Values(self.directory, **values), self.clock, self.fs, self.disk, buffer_limit
        )
        self.successResultOf(self.queue.start())
        self.fs.calls = []

    def writer(self, body: bytes = b"\nhello\n", recipients: int = 1) -> Any:
        """
        @return: a writer, ready to commit.
        """
        writer = self.queue.create(self.clock.seconds())
        writer.write(body)
        writer.envelope(ENVELOPE, TOP)
        for number in range(recipients):
            writer.recipient(b"%d@b" % number, b"%d@b" % number)
        return writer

    def files(self) -> list[str]:
        """
        @return: all files but those in pid.
        """
        found = [name for _, _, names in os.walk(self.directory) for name in names]
        return sorted(name for name in found if name not in ("master.pid", "floor"))

    def test_system_calls(self) -> None:
        """A small message is one open, one write and one fsync, and a move is one rename."""
        message = self.successResultOf(self.writer().commit())
        self.assertEqual(self.fs.calls, ["create", "write", "fsync"])
        self.fs.calls = []
        self.successResultOf(self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
        self.assertEqual(self.fs.calls, ["rename"])
        self.fs.calls = []
        self.successResultOf(Deferred.fromCoroutine(message.content.read(0, 100)))
        self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 100)))
        self.assertEqual(self.fs.calls, [])

    def test_system_calls_of_a_hold(self) -> None:
        """
        What is made for hold is never complete in incoming: a small message is made in hold, a large one gets
        there while it is unfinished; its permission comes when all the rest is durable.
        """
        self.successResultOf(self.writer().commit(Queue.HOLD))
        self.assertEqual(self.fs.calls, ["create", "write", "fsync", "fchmod", "fsync"])
        self.fs.calls = []
        self.successResultOf(self.writer(b"\n" + b"x" * 70_000).commit(Queue.HOLD))
        calls = self.fs.calls[self.fs.calls.index("pwrite") :]
        self.assertEqual(calls, ["pwrite", "rename", "fsync", "fchmod", "fsync"])

    def test_shared_syncfs(self) -> None:
        """Commits that wait together share one syncfs."""
        self.start(queue_commit_sync="syncfs")
        self.disk.hold_work = True
        results = [self.writer().commit() for _ in range(5)]
        self.disk.release()
        for result in results:
            self.successResultOf(result)
        self.assertEqual(self.fs.calls.count("syncfs"), 1)
        self.assertNotIn("fsync", self.fs.calls)

    def test_coalesced(self) -> None:
        """What is asked of a message just before its removal costs nothing."""
        message = self.successResultOf(self.writer(recipients=3).commit())
        everyone = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 9))).recipients
        self.fs.calls = []
        self.disk.hold_work = True
        results = [
            self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE),
            self.queue.mark(message, everyone, RecipientState.DELIVERED),
            self.queue.remove(message.queue_id, Queue.ACTIVE),
        ]
        self.disk.release()
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.fs.calls, ["unlink"])
        self.assertEqual(self.files(), [])

    def test_coalesced_but_not_removed(self) -> None:
        """When the removal fails, the mark was still made, and the error is told."""
        message = self.successResultOf(self.writer(recipients=2).commit())
        first = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 1))).recipients
        self.fs.broken["unlink"] = errno.EIO
        self.disk.hold_work = True
        results = [
            self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE),
            self.queue.mark(message, first, RecipientState.DELIVERED),
        ]
        removal = self.queue.remove(message.queue_id, Queue.ACTIVE)
        self.disk.release()
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        error = self.failureResultOf(removal, SpoolError).value
        self.assertIn(message.queue_id, str(error))
        self.assertIn("remove", str(error))
        message.close()
        again = self.successResultOf(self.queue.open(message.queue_id, Queue.ACTIVE))
        left = self.successResultOf(Deferred.fromCoroutine(again.recipients(None, 9))).recipients
        self.assertEqual([one.address for one in left], [b"1@b"])

    def test_marks_share_a_write(self) -> None:
        """Neighbours are marked with one write, far ones with their own."""
        message = self.successResultOf(self.writer(recipients=5000).commit())
        everyone = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 9999))).recipients
        self.fs.calls = []
        chosen = [*everyone[10:60], everyone[4990]]
        self.successResultOf(self.queue.mark(message, chosen, RecipientState.DELIVERED))
        self.assertEqual(self.fs.calls.count("pwrite"), 2)
        message.close()
        again = self.successResultOf(self.queue.open(message.queue_id, Queue.INCOMING))
        left = self.successResultOf(Deferred.fromCoroutine(again.recipients(None, 9999))).recipients
        self.assertEqual(
            {one.position for one in everyone} - {one.position for one in left},
            {one.position for one in chosen},
        )

    def test_scan_before_the_report(self) -> None:
        """A scan in the moment between the disk's answer and its report doesn't list the message."""
        seen = []
        self.fs.before = lambda: seen.append(self.queue.scan(Queue.INCOMING).next(9))
        message = self.successResultOf(self.writer().commit())
        self.assertEqual([self.successResultOf(found) for found in seen], [[]])
        self.fs.before = None
        entries = self.successResultOf(self.queue.scan(Queue.INCOMING).next(9))
        self.assertEqual([entry.queue_id for entry in entries], [message.queue_id])

    def test_abandoned_before_the_disk_began(self) -> None:
        """A commit abandoned before a thread took it makes no file."""
        self.disk.hold_work = True
        writer = self.writer()
        result = writer.commit()
        writer.abort()
        self.failureResultOf(result, CommitAbandoned)
        self.disk.release()
        self.assertEqual((self.fs.calls, self.files()), ([], []))

    def test_abandoned_after_the_disk_answered(self) -> None:
        """A commit abandoned before its result was reported is undone, and a stop waits for that."""
        for limit in (65536, 4):
            self.start(buffer_limit=limit)
            writer = self.writer()
            self.disk.hold_results = True
            result = writer.commit()
            self.assertEqual(self.files(), [writer.queue_id])
            writer.abort()
            self.failureResultOf(result, CommitAbandoned)
            stopped = self.queue.stop()
            self.assertNoResult(stopped)
            self.disk.release()
            self.successResultOf(stopped)
            self.assertEqual(self.files(), [])

    def test_aborted_while_streaming(self) -> None:
        """A large message that is given up leaves no file, whether or not the disk is at it."""
        self.start(buffer_limit=4)
        writer = self.writer()
        self.assertEqual(self.files(), [writer.queue_id])
        writer.abort()
        self.assertEqual(self.files(), [])
        self.disk.hold_results = True
        writer = self.writer()
        writer.abort()
        self.disk.release()
        self.assertEqual(self.files(), [])

    def test_back_pressure(self) -> None:
        """While the disk is slow, a writer takes one buffer more and then asks to wait."""
        self.start(buffer_limit=1000)
        self.disk.hold_work = True
        writer = self.queue.create(NOW)
        self.assertIsNone(writer.write(b"a" * 1000))
        self.assertIsNone(writer.write(b"b" * 999))
        waits = [writer.write(b"c"), writer.write(b"d")]
        for wait in waits:
            self.assertNoResult(wait)
        self.disk.release()
        for wait in waits:
            self.successResultOf(wait)
        writer.envelope(ENVELOPE, b"")
        writer.recipient(b"a@b", b"a@b")
        message = self.successResultOf(writer.commit())
        data = self.successResultOf(Deferred.fromCoroutine(message.content.read(990, 1020)))
        self.assertEqual(data, b"a" * 10 + b"b" * 999 + b"cd")

    def test_full_while_streaming(self) -> None:
        """A disk that fills up fails the waiting writes and the commit, and leaves no file."""
        for error in (errno.ENOSPC, errno.EDQUOT):
            self.start(buffer_limit=100)
            writer = self.queue.create(NOW)
            writer.write(b"x" * 100)
            self.fs.broken["write"] = error
            self.disk.hold_work = True
            writer.write(b"x" * 100)
            wait = writer.write(b"x" * 100)
            self.disk.release()
            self.failureResultOf(wait, InsufficientSpace)
            self.assertIsNone(writer.write(b"x" * 1000))
            writer.envelope(ENVELOPE, TOP)
            writer.recipient(b"a@b", b"a@b")
            self.failureResultOf(writer.commit(), InsufficientSpace)
            self.assertEqual(self.files(), [])

    def test_broken_disk(self) -> None:
        """Any error of the disk is told with the message and what was being done; no file is left."""
        for method in ("fsync", "syncfs"):
            for limit in (65536, 4):
                for call in ("create", "write", method):
                    self.start(buffer_limit=limit, queue_commit_sync=method)
                    self.fs.broken[call] = errno.EIO
                    writer = self.writer()
                    error = self.failureResultOf(writer.commit(), SpoolError).value
                    self.assertNotIsInstance(error, InsufficientSpace)
                    self.assertIn(writer.queue_id, str(error))
                    self.assertIn("Input/output error", str(error))
                    self.assertEqual(self.files(), [])

    def test_one_of_a_batch(self) -> None:
        """When one file of a batch cannot be made durable, the others still are."""
        self.disk.hold_work = True
        results = [self.writer().commit() for _ in range(3)]
        count = iter((0, errno.EIO, 0))

        def before() -> None:
            number = next(count)
            if number:
                raise OSError(number, os.strerror(number))

        self.fs.before = before
        self.disk.release()
        first = self.successResultOf(results[0])
        self.failureResultOf(results[1], SpoolError)
        third = self.successResultOf(results[2])
        self.assertEqual(self.files(), [first.queue_id, third.queue_id])

    def test_failed_move(self) -> None:
        """After a move that failed, the message is still due when it was."""
        message = self.successResultOf(self.writer().commit())
        queue_id = message.queue_id
        self.successResultOf(self.queue.move(queue_id, Queue.INCOMING, Queue.DEFERRED, NOW + 10))
        self.fs.broken["rename"] = errno.EROFS
        error = self.failureResultOf(self.queue.move(queue_id, Queue.DEFERRED, Queue.ACTIVE)).value
        self.assertIn("move from deferred to active", str(error))
        self.assertEqual(self.queue.next_due(), NOW + 10)
        self.fs.broken["unlink"] = errno.EROFS
        self.failureResultOf(self.queue.remove(queue_id, Queue.DEFERRED), SpoolError)
        self.assertEqual(self.queue.next_due(), NOW + 10)
        self.failureResultOf(self.queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW), MessageNotFound)

    def test_full_log(self) -> None:
        """A record that didn't fit leaves no half record."""
        queue_id = self.writer().queue_id
        log = (LogKind.BOUNCE, queue_id)
        self.successResultOf(self.queue.append_log(*log, [b"one"], True))
        self.fs.broken["write"] = errno.ENOSPC
        self.failureResultOf(self.queue.append_log(*log, [b"two"], True), InsufficientSpace)
        del self.fs.broken["write"]
        self.successResultOf(self.queue.append_log(*log, [b"three"], True))
        self.assertEqual(self.successResultOf(self.queue.read_log(*log)), [b"one", b"three"])

    def test_undurable_log(self) -> None:
        """A log that cannot be made durable is an error."""
        queue_id = self.writer().queue_id
        self.fs.broken["fsync"] = errno.EIO
        result = self.queue.append_log(LogKind.BOUNCE, queue_id, [b"one"], True)
        self.assertIn(queue_id, str(self.failureResultOf(result, SpoolError).value))
        self.successResultOf(self.queue.append_log(LogKind.BOUNCE, queue_id, [b"one"], False))

    def test_minfree(self) -> None:
        """Below queue_minfree no message is begun; it is looked at again, in the background, each second."""
        self.start(queue_minfree=1000)
        self.writer().abort()
        self.fs.free = 999
        self.writer().abort()
        self.assertEqual(self.fs.calls, [])
        self.clock.advance(1)
        self.disk.hold_work = True
        self.writer().abort()
        self.assertEqual(self.fs.calls, [])
        self.disk.release()
        self.assertEqual(self.fs.calls, ["statvfs"])
        error = self.assertRaises(InsufficientSpace, self.queue.create, NOW)
        self.assertIn("queue_minfree", str(error))
        self.fs.free = 1000
        self.clock.advance(1)
        self.queue.create(NOW)

    def test_minfree_counts_commits(self) -> None:
        """Between two looks, what is written is counted."""
        self.start(queue_minfree=10**9 - 1000)
        self.successResultOf(self.writer(b"x" * 2000).commit())
        self.assertRaises(InsufficientSpace, self.queue.create, NOW)

    def test_memory_limit(self) -> None:
        """Beyond qmgr_message_memory_limit messages are read from disk; closing makes room."""
        self.start(qmgr_message_memory_limit=1000)
        body = b"\n" + b"x" * 600
        first, second = (self.successResultOf(self.writer(body).commit()) for _ in range(2))

        def opens(message: Any) -> int:
            self.fs.calls = []
            data = self.successResultOf(Deferred.fromCoroutine(message.content.read(0, 9999)))
            self.assertEqual(data, TOP + body)
            piece = self.successResultOf(Deferred.fromCoroutine(message.recipients(None, 9)))
            self.assertEqual([one.address for one in piece.recipients], [b"0@b"])
            return self.fs.calls.count("open")

        self.assertEqual((opens(first), opens(second)), (0, 2))
        first.close()
        second.close()
        self.assertEqual(opens(self.successResultOf(self.writer(body).commit())), 0)

    def test_lost_content(self) -> None:
        """Content that is gone is an error, not the end of the message."""
        self.start(qmgr_message_memory_limit=0)
        message = self.successResultOf(self.writer().commit())
        path = os.path.join(self.directory, "incoming", message.queue_id)
        os.truncate(path, 130)
        self.failureResultOf(Deferred.fromCoroutine(message.content.read(0, 999)), SpoolError)
        os.unlink(path)
        self.failureResultOf(Deferred.fromCoroutine(message.content.read(0, 999)), MessageNotFound)
        self.failureResultOf(Deferred.fromCoroutine(message.recipients(None, 9)), MessageNotFound)
