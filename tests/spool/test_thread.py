"""The file store with its real threads, on the real reactor."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import defer, reactor, task
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from qmqpd_tx.interfaces import CommitAbandoned
from qmqpd_tx.message import LogKind, Queue, RecipientState
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.values import ENVELOPE, NOW, TOP, Values


class HangingFileSystem(RealFileSystem):
    """A file system that hangs when it is to sync, until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.hanging = threading.Event()

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """Hang."""
        self.hanging.set()
        self.go_on.wait(30)

    def syncfs(self, fd: int) -> None:
        """Hang."""
        self.fsync(fd)


class QuickFileSystem(RealFileSystem):
    """A file system that leaves out what takes time."""

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        """Nothing."""

    def syncfs(self, fd: int) -> None:
        """Nothing."""


class ThreadTests(TestCase):
    """Real threads."""

    timeout = 60
    sync = "fsync"

    async def start(self, fs: RealFileSystem | None = None, buffer_limit: int = 65536) -> FileMailQueue:
        """
        @return: a running queue.
        """
        self.directory = self.mktemp()
        clock: Any = reactor
        values = Values(self.directory, queue_commit_sync=self.sync)
        queue = FileMailQueue(values, clock, fs, buffer_limit=buffer_limit)
        await queue.start()
        self.addCleanup(queue.stop)
        return queue

    async def one(self, queue: FileMailQueue, number: int) -> None:
        """The life of a message; every third is large, every fifth deferred, every seventh aborted."""
        body = b"\nmessage %d\n" % number + (b"x" * 5000 if number % 3 == 0 else b"")
        writer = queue.create(NOW)
        for at in range(0, len(body), 500):
            wait = writer.write(body[at : at + 500])
            if wait is not None:
                await wait
        writer.envelope(ENVELOPE, TOP)
        for address in (b"a@b", b"c@d"):
            writer.recipient(address, address)
        result = writer.commit()
        if number % 7 == 0:
            writer.abort()
            with self.assertRaises(CommitAbandoned):
                await result
            return
        message = await result
        queue_id = message.queue_id
        queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE)
        self.assertEqual(await message.content.read(0, 10**6), TOP + body)
        first = (await message.recipients(None, 1)).recipients
        queue.append_log(LogKind.DEFER, queue_id, [b"%d" % number], True)
        queue.mark(message, first, RecipientState.DELIVERED)
        if number % 5 == 0:
            message.close()
            await queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + number)
            return
        self.assertEqual(await queue.read_log(LogKind.DEFER, queue_id), [b"%d" % number])
        self.assertEqual([one.address for one in (await message.recipients(None, 9)).recipients], [b"c@d"])
        queue.remove_log(LogKind.DEFER, queue_id)
        await queue.remove(queue_id, Queue.ACTIVE)
        message.close()

    @defer.inlineCallbacks
    def test_many(self) -> Any:
        """Many messages at the same time all come to their ends."""
        queue = yield Deferred.fromCoroutine(self.start(buffer_limit=1000))
        yield gatherResults([Deferred.fromCoroutine(self.one(queue, number)) for number in range(150)], True)
        waiting = queue.due(NOW + 1000, 1000)
        expected = [number for number in range(150) if number % 5 == 0 and number % 7 != 0]
        self.assertEqual([entry.due - NOW for entry in waiting], expected)
        for where in (Queue.INCOMING, Queue.ACTIVE):
            found = yield queue.scan(where).next(1000)
            self.assertEqual(found, [])

    @defer.inlineCallbacks
    def test_recovery_beside_the_service(self) -> Any:
        """
        While a thousand messages are brought back from a run that was killed, others come, are delivered and
        deferred, and some of the old ones are held and deleted; each message ends in exactly one place.
        """
        queue = yield Deferred.fromCoroutine(self.start(QuickFileSystem()))
        old = []
        for where in (Queue.ACTIVE, Queue.DEFERRED):
            writers = [queue.create(NOW) for _ in range(500)]
            for writer in writers:
                writer.envelope(ENVELOPE, TOP)
                writer.recipient(b"a@b", b"a@b")
            messages = yield gatherResults([writer.commit() for writer in writers])
            for message in messages:
                message.close()
                yield queue.move(message.queue_id, Queue.INCOMING, where, NOW + 5)
            old.append([message.queue_id for message in messages])
        yield queue.stop()
        again = FileMailQueue(Values(self.directory), reactor, QuickFileSystem())  # type: ignore[arg-type]
        yield again.start()
        recovered = again.recovered()
        self.assertNoResult(recovered)
        held, deleted = old[0][::50], old[0][1::50]
        for number in range(30):
            yield Deferred.fromCoroutine(self.one(again, number))
            if number < len(held):
                place = yield again.locate(held[number])
                yield again.move(held[number], place, Queue.HOLD)
                place = yield again.locate(deleted[number])
                yield again.remove(deleted[number], place)
        waiting = []
        scan = again.waiting()
        while entries := (yield scan.next(50)):
            waiting += [entry.queue_id for entry in entries]
        found = yield recovered
        self.assertEqual((found.reactivated, found.damaged), (500, ()))
        self.assertEqual(len(set(waiting)), len(waiting))
        self.assertLessEqual(set(old[1]), set(waiting))
        places = {}
        for where in (Queue.INCOMING, Queue.ACTIVE, Queue.HOLD):
            entries = yield again.scan(where).next(2000)
            places[where] = {entry.queue_id for entry in entries}
        self.assertEqual(places[Queue.HOLD], set(held))
        self.assertEqual(places[Queue.INCOMING], set(old[0]) - set(held) - set(deleted))
        self.assertEqual(places[Queue.ACTIVE], set())
        yield again.stop()

    @defer.inlineCallbacks
    def test_hanging_disk(self) -> Any:
        """A disk that hangs doesn't hold up the reactor: a commit can be abandoned, and is undone later."""
        fs = HangingFileSystem()
        queue = yield Deferred.fromCoroutine(self.start(fs))
        fs.hanging.clear()
        fs.go_on.clear()
        self.addCleanup(fs.go_on.set)
        writer = queue.create(NOW)
        writer.envelope(ENVELOPE, TOP)
        writer.recipient(b"a@b", b"a@b")
        result = writer.commit()
        while not fs.hanging.is_set():
            yield task.deferLater(reactor, 0.001, lambda: None)
        writer.abort()
        self.failureResultOf(result, CommitAbandoned)
        stopped = queue.stop()
        self.assertNoResult(stopped)
        fs.go_on.set()
        yield stopped
        again = FileMailQueue(Values(self.directory), reactor)  # type: ignore[arg-type]
        yield again.start()
        found = yield again.scan(Queue.INCOMING).next(9)
        self.assertEqual(found, [])
        yield again.stop()

    @defer.inlineCallbacks
    def test_stop_finishes(self) -> Any:
        """A stop does all that was asked for, and ends the threads."""
        before = threading.active_count()
        queue = yield Deferred.fromCoroutine(self.start())
        writers = [queue.create(NOW) for _ in range(20)]
        for writer in writers:
            writer.envelope(ENVELOPE, TOP)
        results = [writer.commit() for writer in writers[:10]]
        yield queue.stop()
        for result in results:
            self.successResultOf(result)
        self.assertEqual(threading.active_count(), before)
        again = FileMailQueue(Values(self.directory), reactor)  # type: ignore[arg-type]
        yield again.start()
        found = yield again.scan(Queue.INCOMING).next(99)
        self.assertEqual(
            sorted(entry.queue_id for entry in found), [writer.queue_id for writer in writers[:10]]
        )
        yield again.stop()

    @defer.inlineCallbacks
    def test_many_recipients(self) -> Any:
        """50,000 recipients stream out, and are read back and marked in slices."""
        queue = yield Deferred.fromCoroutine(self.start())
        writer = queue.create(NOW)
        writer.envelope(ENVELOPE, TOP)
        for number in range(50_000):
            wait = writer.recipient(b"user%d@example.com" % number, b"user%d@example.com" % number)
            if wait is not None:
                yield wait
        message = yield writer.commit()
        self.assertEqual(message.recipient_count, 50_000)
        position = None
        seen = 0
        while True:
            piece = yield Deferred.fromCoroutine(message.recipients(position, 5000))
            for one in piece.recipients:
                assert one.address == b"user%d@example.com" % seen
                seen += 1
            yield queue.mark(message, piece.recipients[::2], RecipientState.DELIVERED)
            position = piece.next_position
            if position is None:
                break
        self.assertEqual(seen, 50_000)
        piece = yield Deferred.fromCoroutine(message.recipients(None, 50_000))
        self.assertEqual(len(piece.recipients), 25_000)


class SyncfsThreadTests(ThreadTests):
    """The same with C{queue_commit_sync = syncfs}."""

    sync = "syncfs"
