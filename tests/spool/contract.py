"""
What every L{IMailQueue} promises. Mix L{QueueContract} into a test case that can make a queue; any store
that passes may take the place of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import (
    CommitAbandoned,
    IMailQueue,
    IMessageContent,
    IMessageWriter,
    InsufficientSpace,
    IQueueScan,
    IStoredMessage,
    MessageDamaged,
    MessageNotFound,
    MessageUnfinished,
    QueuedEntry,
    Recovery,
    SpoolError,
)
from qmqpd_tx.message import LogKind, Queue, QueueID, Recipient, RecipientState
from tests.spool.values import ENVELOPE, NOW, TOP

BODY = b"Subject: hello\n\n8-bit \xe4\0 and a bare CR \r.\nno final newline"


# A mixin, so that it is not itself collected as a test case.
_Base = SynchronousTestCase if TYPE_CHECKING else object


class QueueContract(_Base):
    """The contract suite."""

    queue: Any

    def make_queue(self) -> Any:
        """
        @return: a queue, not started, the same one after a stop.
        """
        raise NotImplementedError

    def fill(self) -> None:
        """
        Make the queue's disk full.
        """
        raise NotImplementedError

    def hold(self) -> None:
        """
        Make the disk hang.
        """
        raise NotImplementedError

    def release(self) -> None:
        """
        End that.
        """
        raise NotImplementedError

    def damage(self, queue_id: QueueID, queue: Queue, offset: int, data: bytes) -> None:
        """
        Overwrite bytes of a queue file behind the store's back.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        """Start a queue."""
        self.queue = self.make_queue()
        self.successResultOf(self.queue.start())
        self.addCleanup(lambda: self.successResultOf(self.queue.stop()))

    # --- tools --------------------------------------------------------------------------------------

    def run_now(self, coroutine: Any) -> Any:
        """
        @return: what a coroutine gives, which must not have to wait.
        """
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def write(self, body: bytes = BODY, recipients: int = 1, commit: bool = True) -> Any:
        """
        @return: a writer, or with C{commit} the stored message.
        """
        writer = self.queue.create(NOW)
        writer.write(body[:10])
        writer.write(body[10:])
        writer.envelope(ENVELOPE, TOP)
        for number in range(recipients):
            address = b"user%d@example.com" % number
            writer.recipient(address, address if number % 2 else b"alias%d" % number)
        return self.successResultOf(writer.commit()) if commit else writer

    def addresses(self, message: Any) -> list[bytes]:
        """
        @return: the unfinished recipients, read in slices of three.
        """
        found: list[Recipient] = []
        position = None
        while True:
            piece = self.run_now(message.recipients(position, 3))
            self.assertLessEqual(len(piece.recipients), 3)
            found += piece.recipients
            position = piece.next_position
            if position is None:
                return [recipient.address for recipient in found]

    def listed(self, queue: Queue) -> list[QueueID]:
        """
        @return: what a scan finds, in order of the ids.
        """
        scan = self.queue.scan(queue)
        self.assertTrue(verifyObject(IQueueScan, scan))
        found: list[QueueID] = []
        while entries := self.successResultOf(scan.next(2)):
            self.assertLessEqual(len(entries), 2)
            found += [entry.queue_id for entry in entries]
        self.assertEqual(self.successResultOf(scan.next(2)), [])
        self.assertEqual(len(set(found)), len(found))
        return sorted(found)

    def reopened(self, message: Any, queue: Queue) -> Any:
        """
        @return: a new handle of a message, read from the store.
        """
        message.close()
        return self.successResultOf(self.queue.open(message.queue_id, queue))

    # --- messages in ----------------------------------------------------------------------------------

    def test_provides(self) -> None:
        """All objects provide their interfaces."""
        self.assertTrue(verifyObject(IMailQueue, self.queue))
        writer = self.write(commit=False)
        self.assertTrue(verifyObject(IMessageWriter, writer))
        message = self.successResultOf(writer.commit())
        self.assertTrue(verifyObject(IStoredMessage, message))
        self.assertTrue(verifyObject(IMessageContent, message.content))

    def test_stored(self) -> None:
        """What was written is what is read, at once and from the store."""
        message = self.write(recipients=5)
        for _ in range(2):
            self.assertEqual(message.envelope, ENVELOPE)
            self.assertEqual(message.content.size, len(TOP + BODY))
            self.assertEqual(message.size, len(TOP + BODY))
            self.assertEqual(message.recipient_count, 5)
            self.assertEqual(self.run_now(message.content.read(0, 1000)), TOP + BODY)
            self.assertEqual(self.run_now(message.content.read(3, 20)), (TOP + BODY)[3:23])
            self.assertEqual(self.run_now(message.content.read(len(TOP) + 2, 4)), BODY[2:6])
            self.assertEqual(self.run_now(message.content.read(len(TOP + BODY), 10)), b"")
            self.assertEqual(self.addresses(message), [b"user%d@example.com" % n for n in range(5)])
            first = self.run_now(message.recipients(None, 1)).recipients[0]
            self.assertEqual((first.address, first.original), (b"user0@example.com", b"alias0"))
            message = self.reopened(message, Queue.INCOMING)
        message.close()
        message.close()

    def test_positions_agree(self) -> None:
        """A position taken from a fresh handle means the same to a handle read from the store."""
        message = self.write(recipients=7)
        piece = self.run_now(message.recipients(None, 4))
        message = self.reopened(message, Queue.INCOMING)
        again = self.run_now(message.recipients(None, 4))
        self.assertEqual(again, piece)
        rest = self.run_now(message.recipients(piece.next_position, 10))
        self.assertEqual(
            [one.address for one in rest.recipients], [b"user%d@example.com" % n for n in (4, 5, 6)]
        )
        self.assertIsNone(rest.next_position)

    def test_empty_parts(self) -> None:
        """Empty content, an empty top, the null sender and empty addresses are kept."""
        writer = self.queue.create(NOW)
        writer.envelope(type(ENVELOPE)(b"", NOW), b"")
        writer.recipient(b"", b"")
        writer.recipient(b"", b"x")
        message = self.reopened(self.successResultOf(writer.commit()), Queue.INCOMING)
        self.assertEqual(message.envelope.sender, b"")
        self.assertIsNone(message.envelope.client)
        self.assertIsNone(message.envelope.verp_delimiters)
        self.assertEqual(message.size, 0)
        found = self.run_now(message.recipients(None, 10)).recipients
        self.assertEqual([(one.address, one.original) for one in found], [(b"", b""), (b"", b"x")])

    def test_ids(self) -> None:
        """Ids are unique and in order, also when the clock stands still or steps back."""
        ids = [self.queue.create(when).queue_id for when in (NOW, NOW, NOW - 100, NOW + 1)]
        self.assertEqual(ids, sorted(set(ids)))

    def test_writer_size(self) -> None:
        """The size grows by at least what is written, recipients included."""
        writer = self.queue.create(NOW)
        sizes = [writer.size]
        writer.write(b"x" * 100)
        sizes.append(writer.size)
        writer.envelope(ENVELOPE, TOP)
        sizes.append(writer.size)
        writer.recipient(b"a" * 50, b"b" * 50)
        sizes.append(writer.size)
        self.assertEqual(sizes[1] - sizes[0], 100)
        self.assertGreaterEqual(sizes[2] - sizes[1], len(TOP + ENVELOPE.sender))
        self.assertGreaterEqual(sizes[3] - sizes[2], 100)
        writer.abort()

    def test_uncommitted(self) -> None:
        """A message that is not committed is nowhere."""
        writer = self.write(commit=False)
        self.assertEqual(self.listed(Queue.INCOMING), [])
        self.failureResultOf(self.queue.open(writer.queue_id, Queue.INCOMING), MessageUnfinished)
        writer.abort()
        self.failureResultOf(self.queue.open(writer.queue_id, Queue.INCOMING), MessageNotFound)
        self.failureResultOf(writer.commit(), CommitAbandoned)

    def test_held_commit(self) -> None:
        """While the disk hangs, a commit waits and the message is nowhere; then it is there."""
        writer = self.write(commit=False)
        self.hold()
        result = writer.commit()
        self.assertNoResult(result)
        self.failureResultOf(self.queue.open(writer.queue_id, Queue.INCOMING), MessageUnfinished)
        self.release()
        self.successResultOf(result)
        self.assertEqual(self.listed(Queue.INCOMING), [writer.queue_id])

    def test_abandoned_commit(self) -> None:
        """An abort during a commit fails it at once, and the message never exists."""
        kept, dropped = self.write(commit=False), self.write(commit=False)
        self.hold()
        results = [kept.commit(), dropped.commit()]
        dropped.abort()
        self.failureResultOf(results[1], CommitAbandoned)
        self.assertNoResult(results[0])
        self.release()
        self.successResultOf(results[0])
        self.assertEqual(self.listed(Queue.INCOMING), [kept.queue_id])
        self.failureResultOf(self.queue.open(dropped.queue_id, Queue.INCOMING), MessageNotFound)

    def test_cancelled_commit(self) -> None:
        """Cancelling the Deferred of a commit abandons it."""
        writer = self.write(commit=False)
        self.hold()
        result = writer.commit()
        result.cancel()
        self.failureResultOf(result, CommitAbandoned)
        self.release()
        self.assertEqual(self.listed(Queue.INCOMING), [])

    def test_abort_after_commit(self) -> None:
        """An abort that comes too late changes nothing."""
        writer = self.write(commit=False)
        self.successResultOf(writer.commit())
        writer.abort()
        self.assertEqual(self.listed(Queue.INCOMING), [writer.queue_id])

    def test_committed_to_hold(self) -> None:
        """A message that is to be held is in hold, whole, never in incoming, and goes on like any other."""
        for body in (BODY, BODY + b"x" * 200_000):
            writer = self.write(body, 2, commit=False)
            queue_id = writer.queue_id
            self.hold()
            result = writer.commit(Queue.HOLD)
            self.assertNoResult(result)
            self.failureResultOf(self.queue.open(queue_id, Queue.HOLD), MessageUnfinished)
            self.release()
            message = self.successResultOf(result)
            self.assertEqual(self.listed(Queue.HOLD), [queue_id])
            self.assertEqual(self.listed(Queue.INCOMING), [])
            self.assertIs(self.successResultOf(self.queue.locate(queue_id)), Queue.HOLD)
            message = self.reopened(message, Queue.HOLD)
            self.assertEqual(message.envelope, ENVELOPE)
            self.assertEqual(self.run_now(message.content.read(0, 10)), TOP[:10])
            self.assertEqual(message.content.size, len(TOP + body))
            people = self.run_now(message.recipients(None, 1)).recipients
            self.successResultOf(self.queue.mark(message, people, RecipientState.DELIVERED))
            self.successResultOf(self.queue.move(queue_id, Queue.HOLD, Queue.INCOMING))
            message = self.reopened(message, Queue.INCOMING)
            self.assertEqual(self.addresses(message), [b"user1@example.com"])
            message.close()
            self.successResultOf(self.queue.remove(queue_id, Queue.INCOMING))

    def test_abandoned_commit_to_hold(self) -> None:
        """An abort during a commit to hold leaves nothing either."""
        for body in (BODY, BODY + b"x" * 200_000):
            writer = self.write(body, commit=False)
            self.hold()
            result = writer.commit(Queue.HOLD)
            writer.abort()
            self.failureResultOf(result, CommitAbandoned)
            self.release()
            self.assertEqual(self.listed(Queue.HOLD), [])
            self.failureResultOf(self.queue.open(writer.queue_id, Queue.HOLD), MessageNotFound)

    def test_full_hold(self) -> None:
        """A full disk refuses a commit to hold and leaves nothing."""
        writer = self.write(commit=False)
        self.fill()
        self.failureResultOf(writer.commit(Queue.HOLD), InsufficientSpace)
        self.assertEqual(self.listed(Queue.HOLD), [])

    def test_committed_elsewhere(self) -> None:
        """New messages go to incoming or to hold, and nowhere else."""
        for wrong in (Queue.ACTIVE, Queue.DEFERRED, Queue.CORRUPT):
            self.assertRaises(ValueError, self.write(commit=False).commit, wrong)

    def test_full(self) -> None:
        """A full disk refuses the commit and leaves nothing."""
        writer = self.write(commit=False)
        self.fill()
        self.failureResultOf(writer.commit(), InsufficientSpace)
        self.assertEqual(self.listed(Queue.INCOMING), [])

    def test_misuse(self) -> None:
        """Calls out of order are refused, and name the message."""
        writer = self.queue.create(NOW)
        for wrong in (writer.commit, lambda: writer.recipient(b"a", b"a")):
            self.assertIn(writer.queue_id, str(self.assertRaises(ValueError, wrong)))
        writer.envelope(ENVELOPE, TOP)
        self.assertRaises(ValueError, writer.write, b"x")
        self.assertRaises(ValueError, writer.envelope, ENVELOPE, TOP)

    # --- messages in the queue ------------------------------------------------------------------------

    def test_moved(self) -> None:
        """A move takes a message from one queue to another, whatever is asked for right after it."""
        message = self.write()
        moves = [
            self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE),
            self.queue.move(message.queue_id, Queue.ACTIVE, Queue.HOLD),
        ]
        for move in moves:
            self.assertIsNone(self.successResultOf(move))
        self.assertEqual([queue for queue in Queue if self.listed(queue)], [Queue.HOLD])
        self.failureResultOf(self.queue.open(message.queue_id, Queue.ACTIVE), MessageNotFound)
        self.assertEqual(self.addresses(self.reopened(message, Queue.HOLD)), [b"user0@example.com"])

    def test_moved_anywhere(self) -> None:
        """From each queue to each other, at one go: the message is there, its recipients and logs too."""
        message = self.write(recipients=2)
        queue_id = message.queue_id
        first = self.run_now(message.recipients(None, 1)).recipients
        self.queue.mark(message, first, RecipientState.DELIVERED)
        message.close()
        self.successResultOf(self.queue.append_log(LogKind.BOUNCE, queue_id, [b"why"], True))
        where = Queue.INCOMING
        for source in Queue:
            for target in Queue:
                steps = [(where, source), (source, target)]
                where = target
                for one, other in steps:
                    moved = self.queue.move(queue_id, one, other, NOW + 7)
                    self.assertIsNone(self.successResultOf(moved))
                    self.assertEqual(self.successResultOf(self.queue.locate(queue_id)), other)
                    expected = NOW + 7 if other is Queue.DEFERRED else None
                    self.assertEqual(self.queue.next_due(), expected)
                self.assertEqual([queue for queue in Queue if self.listed(queue)], [target])
        opened = self.successResultOf(self.queue.open(queue_id, where))
        self.assertEqual(self.addresses(opened), [b"user1@example.com"])
        opened.close()
        self.assertEqual(self.successResultOf(self.queue.read_log(LogKind.BOUNCE, queue_id)), [b"why"])

    def test_located(self) -> None:
        """Where a message is, after what was asked for before; what is being written or gone is nowhere."""
        writer = self.write(commit=False)
        locate = self.queue.locate
        self.assertIsNone(self.successResultOf(locate(writer.queue_id)))
        message = self.successResultOf(writer.commit())
        self.assertEqual(self.successResultOf(locate(message.queue_id)), Queue.INCOMING)
        self.hold()
        results = [
            self.queue.move(message.queue_id, Queue.INCOMING, Queue.HOLD),
            locate(message.queue_id),
            self.queue.remove(message.queue_id, Queue.HOLD),
            locate(message.queue_id),
        ]
        self.release()
        self.assertEqual([self.successResultOf(result) for result in results], [None, Queue.HOLD, None, None])
        self.assertIsNone(self.successResultOf(locate(QueueID("../x"))))

    def test_newest(self) -> None:
        """All that is there is no newer than the newest, and all that comes is."""
        for _ in range(3):
            before = self.write()
            newest = self.queue.newest()
            self.assertGreaterEqual(newest, before.queue_id)
            self.assertGreater(self.queue.create(NOW - 86400).queue_id, newest)

    def test_released(self) -> None:
        """Mail that is released may keep the time that it had when it was held, and is due then."""
        held = self.defer(NOW + 300)
        fresh = self.write()
        fresh.close()
        for queue_id, where in ((held, Queue.DEFERRED), (fresh.queue_id, Queue.INCOMING)):
            self.successResultOf(self.queue.move(queue_id, where, Queue.HOLD))
        self.assertIsNone(self.queue.next_due())
        self.assertIsNone(self.successResultOf(self.queue.move(held, Queue.HOLD, Queue.DEFERRED)))
        self.assertEqual(list(self.queue.due(NOW + 300, 9)), [QueuedEntry(held, NOW + 300)])
        self.successResultOf(self.queue.move(fresh.queue_id, Queue.HOLD, Queue.DEFERRED))
        self.assertEqual(len(list(self.queue.due(1e11, 9))), 2)
        self.failureResultOf(self.queue.move(held, Queue.HOLD, Queue.DEFERRED), MessageNotFound)
        self.assertEqual(len(list(self.queue.due(1e11, 9))), 2)

    def test_released_and_more(self) -> None:
        """What is asked for right after a release is what counts."""
        ids = [self.defer(NOW + 300) for _ in range(3)]
        for queue_id in ids:
            self.successResultOf(self.queue.move(queue_id, Queue.DEFERRED, Queue.HOLD))
        gone, active, later = ids
        self.hold()
        results = [self.queue.move(queue_id, Queue.HOLD, Queue.DEFERRED) for queue_id in ids]
        results.append(self.queue.remove(gone, Queue.DEFERRED))
        results.append(self.queue.move(active, Queue.DEFERRED, Queue.ACTIVE))
        results.append(self.queue.move(later, Queue.DEFERRED, Queue.DEFERRED, NOW + 900))
        self.release()
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        self.assertEqual(list(self.queue.due(1e11, 9)), [QueuedEntry(later, NOW + 900)])

    def test_not_found(self) -> None:
        """What isn't there is named."""
        message = self.write()
        queue_id = message.queue_id
        for result in (
            self.queue.move(queue_id, Queue.HOLD, Queue.ACTIVE),
            self.queue.move(queue_id, Queue.HOLD, Queue.DEFERRED, NOW),
            self.queue.remove(queue_id, Queue.ACTIVE),
            self.queue.open(queue_id, Queue.DEFERRED),
        ):
            self.assertIn(queue_id, str(self.failureResultOf(result, MessageNotFound).value))
        self.assertIsNone(self.queue.next_due())
        self.assertEqual(self.listed(Queue.INCOMING), [queue_id])

    def test_no_path(self) -> None:
        """What is no queue id is not found, wherever it would lead."""
        name = QueueID("../corrupt/x")
        self.failureResultOf(self.queue.open(name, Queue.INCOMING), MessageNotFound)
        self.failureResultOf(self.queue.remove(name, Queue.INCOMING), MessageNotFound)
        self.failureResultOf(self.queue.move(name, Queue.INCOMING, Queue.HOLD), MessageNotFound)
        self.failureResultOf(self.queue.append_log(LogKind.BOUNCE, name, [b"x"], False), MessageNotFound)

    def test_removed(self) -> None:
        """A removed message is gone; removing it again is an error."""
        message = self.write()
        self.assertIsNone(self.successResultOf(self.queue.remove(message.queue_id, Queue.INCOMING)))
        self.assertEqual(self.listed(Queue.INCOMING), [])
        self.failureResultOf(self.queue.remove(message.queue_id, Queue.INCOMING), MessageNotFound)

    def test_marked(self) -> None:
        """Marked recipients are not given again, by open handles or later ones."""
        message = self.write(recipients=6)
        self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE)
        all_of_them = self.run_now(message.recipients(None, 10)).recipients
        self.assertIsNone(
            self.successResultOf(self.queue.mark(message, all_of_them[1:3], RecipientState.DELIVERED))
        )
        self.successResultOf(self.queue.mark(message, all_of_them[5:], RecipientState.BOUNCED))
        self.successResultOf(self.queue.mark(message, [], RecipientState.BOUNCED))
        left = [b"user%d@example.com" % number for number in (0, 3, 4)]
        self.assertEqual(self.addresses(message), left)
        message = self.reopened(message, Queue.ACTIVE)
        self.assertEqual(self.addresses(message), left)
        self.assertEqual(message.recipient_count, 6)
        self.successResultOf(self.queue.mark(message, all_of_them, RecipientState.DELIVERED))
        self.assertEqual(self.addresses(message), [])
        self.assertEqual(self.addresses(self.reopened(message, Queue.ACTIVE)), [])

    def test_marked_while_moving(self) -> None:
        """A mark between two moves lands."""
        message = self.write(recipients=2)
        first = self.run_now(message.recipients(None, 1)).recipients
        results = [
            self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE),
            self.queue.mark(message, first, RecipientState.DELIVERED),
            self.queue.move(message.queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 300),
        ]
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        self.assertEqual(self.addresses(self.reopened(message, Queue.DEFERRED)), [b"user1@example.com"])

    def test_together(self) -> None:
        """Operations that pile up while the disk hangs have the same results as one by one."""
        kept, removed = self.write(recipients=3), self.write(recipients=3)
        firsts = [self.run_now(message.recipients(None, 1)).recipients for message in (kept, removed)]
        self.hold()
        results = []
        for message, first in zip((kept, removed), firsts, strict=True):
            results.append(self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
            results.append(self.queue.mark(message, first, RecipientState.DELIVERED))
        results.append(self.queue.remove(removed.queue_id, Queue.ACTIVE))
        again = self.queue.remove(removed.queue_id, Queue.ACTIVE)
        self.release()
        for result in results:
            self.assertIsNone(self.successResultOf(result))
        self.failureResultOf(again, MessageNotFound)
        self.assertEqual(self.listed(Queue.ACTIVE), [kept.queue_id])
        self.assertEqual(self.listed(Queue.INCOMING), [])
        self.assertEqual(len(self.addresses(self.reopened(kept, Queue.ACTIVE))), 2)

    def test_wrong_mark(self) -> None:
        """A position that is no recipient is refused, and changes nothing."""
        message = self.write()
        error = self.failureResultOf(
            self.queue.mark(message, [Recipient(b"", b"", 3)], RecipientState.DELIVERED), MessageDamaged
        ).value
        self.assertEqual(error.offset, 3)
        self.assertEqual(self.addresses(self.reopened(message, Queue.INCOMING)), [b"user0@example.com"])

    def test_damaged(self) -> None:
        """A damaged message is refused when it is opened, with the offset."""
        message = self.write()
        message.close()
        self.damage(message.queue_id, Queue.INCOMING, 0, b"garbage")
        error = self.failureResultOf(self.queue.open(message.queue_id, Queue.INCOMING), MessageDamaged).value
        self.assertEqual(error.offset, 0)
        self.assertIn(message.queue_id, str(error))

    def test_damaged_content(self) -> None:
        """A changed byte of content is noticed."""
        message = self.write()
        message.close()
        self.damage(message.queue_id, Queue.INCOMING, 140, b"\xff")
        self.failureResultOf(self.queue.open(message.queue_id, Queue.INCOMING), MessageDamaged)

    def test_closed(self) -> None:
        """A closed handle refuses to read, and says so."""
        message = self.write()
        message.close()
        for read in (message.content.read(0, 10), message.recipients(None, 10)):
            error = self.failureResultOf(Deferred.fromCoroutine(read), SpoolError).value
            self.assertIn("closed", str(error))

    # --- time ---------------------------------------------------------------------------------------------

    def defer(self, due: float) -> QueueID:
        """
        @return: the id of a message that is due then.
        """
        message = self.write()
        message.close()
        self.successResultOf(self.queue.move(message.queue_id, Queue.INCOMING, Queue.DEFERRED, due))
        return QueueID(message.queue_id)

    def test_due(self) -> None:
        """Deferred mail is found when it is due, earliest first, and stays until it is moved."""
        late, early, middle = (self.defer(NOW + delay) for delay in (300, 100, 200))
        self.assertEqual(self.queue.next_due(), NOW + 100)
        self.assertEqual(self.queue.due(NOW + 99, 10), [])
        expected = [QueuedEntry(early, NOW + 100), QueuedEntry(middle, NOW + 200)]
        self.assertEqual(list(self.queue.due(NOW + 200, 10)), expected)
        self.assertEqual(list(self.queue.due(NOW + 200, 1)), expected[:1])
        self.assertEqual(list(self.queue.due(NOW + 200, 10)), expected)
        self.successResultOf(self.queue.move(early, Queue.DEFERRED, Queue.ACTIVE))
        self.successResultOf(self.queue.remove(middle, Queue.DEFERRED))
        self.assertEqual(self.queue.next_due(), NOW + 300)
        self.successResultOf(self.queue.move(late, Queue.DEFERRED, Queue.DEFERRED, NOW + 50))
        self.assertEqual(list(self.queue.due(NOW + 1000, 10)), [QueuedEntry(late, NOW + 50)])
        entries = self.successResultOf(self.queue.scan(Queue.DEFERRED).next(10))
        self.assertEqual(entries, [QueuedEntry(late, NOW + 50)])

    def test_due_required(self) -> None:
        """Mail is never deferred to no time."""
        message = self.write()
        for due in (None, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                self.queue.move(message.queue_id, Queue.INCOMING, Queue.DEFERRED, due)
        self.assertEqual(self.listed(Queue.INCOMING), [message.queue_id])

    def walked(self, scan: Any, limit: int = 2) -> list[QueueID]:
        """
        @return: what is left of a scan.
        """
        found: list[QueueID] = []
        while entries := self.successResultOf(scan.next(limit)):
            self.assertLessEqual(len(entries), limit)
            found += [entry.queue_id for entry in entries]
        return found

    def test_waiting(self) -> None:
        """All deferred mail, due or not, is walked through once, earliest first."""
        late, early, middle = (self.defer(NOW + delay) for delay in (300, 100, 200))
        scan = self.queue.waiting()
        self.assertTrue(verifyObject(IQueueScan, scan))
        self.assertEqual(self.successResultOf(scan.next(1)), [QueuedEntry(early, NOW + 100)])
        self.assertEqual(self.walked(scan), [middle, late])
        self.assertEqual(self.walked(self.queue.waiting()), [early, middle, late])

    def test_waiting_while_it_changes(self) -> None:
        """
        What leaves the queue while it is walked through is left out, even if it comes back; what comes new is
        not given: a flush ends.
        """
        first, again, gone, last = (self.defer(NOW + delay) for delay in (1, 2, 3, 4))
        scan = self.queue.waiting()
        self.assertEqual(len(self.successResultOf(scan.next(1))), 1)
        for queue_id in (first, again):
            self.successResultOf(self.queue.move(queue_id, Queue.DEFERRED, Queue.ACTIVE))
            self.successResultOf(self.queue.move(queue_id, Queue.ACTIVE, Queue.DEFERRED, NOW + 500))
        self.successResultOf(self.queue.remove(gone, Queue.DEFERRED))
        self.defer(NOW + 3)
        self.assertEqual(self.walked(scan), [last])

    def test_clock_set(self) -> None:
        """
        Set forth, everything is due, once each time it is asked for; set back, nothing is, and nothing is
        lost: it is due when its time comes, and walked through at any time.
        """
        ids = [self.defer(NOW + delay) for delay in (100, 200, 300)]
        year = 366 * 86400.0
        for _ in range(2):
            self.assertEqual([one.queue_id for one in self.queue.due(NOW + year, 9)], ids)
        self.assertEqual(list(self.queue.due(NOW - year, 9)), [])
        self.assertEqual(list(self.queue.due(-1.0, 9)), [])
        self.assertEqual(self.queue.next_due(), NOW + 100)
        self.assertEqual(self.walked(self.queue.waiting()), ids)
        # Tried at the time that is too early now, and deferred from there.
        self.successResultOf(self.queue.move(ids[0], Queue.DEFERRED, Queue.ACTIVE))
        self.successResultOf(self.queue.move(ids[0], Queue.ACTIVE, Queue.DEFERRED, NOW - year + 300))
        self.assertEqual([one.queue_id for one in self.queue.due(NOW - year + 300, 9)], ids[:1])
        self.assertEqual(self.restart(), Recovery(0, 0, ()))
        self.assertEqual([one.queue_id for one in self.queue.due(NOW + 300, 9)], ids)

    # --- logs ---------------------------------------------------------------------------------------------

    def test_logs(self) -> None:
        """Each log keeps its records, in order, until it is removed."""
        queue_id = self.write().queue_id
        read, append = self.queue.read_log, self.queue.append_log
        self.assertEqual(self.successResultOf(read(LogKind.BOUNCE, queue_id)), [])
        self.assertIsNone(self.successResultOf(append(LogKind.BOUNCE, queue_id, [b"one", b""], True)))
        append(LogKind.BOUNCE, queue_id, [b"5:two,\n\0"], False)
        self.successResultOf(append(LogKind.DEFER, queue_id, [b"three"], False))
        self.assertEqual(self.successResultOf(read(LogKind.BOUNCE, queue_id)), [b"one", b"", b"5:two,\n\0"])
        self.assertEqual(self.successResultOf(read(LogKind.DEFER, queue_id)), [b"three"])
        for _ in range(2):
            self.assertIsNone(self.successResultOf(self.queue.remove_log(LogKind.BOUNCE, queue_id)))
        self.assertEqual(self.successResultOf(read(LogKind.BOUNCE, queue_id)), [])
        self.assertEqual(self.successResultOf(read(LogKind.DEFER, queue_id)), [b"three"])

    # --- start and stop -----------------------------------------------------------------------------------

    def restart(self) -> Recovery:
        """
        @return: what start-up found.
        """
        self.successResultOf(self.queue.stop())
        self.queue = self.make_queue()
        self.assertIsNone(self.successResultOf(self.queue.start()))
        recovery = self.successResultOf(self.queue.recovered())
        assert isinstance(recovery, Recovery)
        return recovery

    def test_restart(self) -> None:
        """Everything is there after a restart; active mail is in incoming, marks and due times are kept."""
        waiting = self.write()
        active = self.write(recipients=2)
        deferred = self.defer(NOW + 100)
        self.queue.move(active.queue_id, Queue.INCOMING, Queue.ACTIVE)
        first = self.run_now(active.recipients(None, 1)).recipients
        self.queue.mark(active, first, RecipientState.DELIVERED)
        self.queue.append_log(LogKind.DEFER, deferred, [b"because"], False)
        unfinished = self.write(commit=False)
        self.assertEqual(self.restart(), Recovery(1, 0, ()))
        self.assertEqual(self.listed(Queue.INCOMING), [waiting.queue_id, active.queue_id])
        self.assertEqual(self.listed(Queue.ACTIVE), [])
        self.assertEqual(list(self.queue.due(NOW + 100, 9)), [QueuedEntry(deferred, NOW + 100)])
        again = self.successResultOf(self.queue.open(active.queue_id, Queue.INCOMING))
        self.assertEqual(self.addresses(again), [b"user1@example.com"])
        self.assertEqual(self.successResultOf(self.queue.read_log(LogKind.DEFER, deferred)), [b"because"])
        self.failureResultOf(unfinished.commit(), CommitAbandoned)
        self.assertGreater(self.queue.create(NOW - 1000).queue_id, active.queue_id)

    def test_stop_waits(self) -> None:
        """A stop finishes commits under way."""
        writer = self.write(commit=False)
        self.hold()
        result = writer.commit()
        stopped = self.queue.stop()
        self.release()
        self.successResultOf(result)
        self.successResultOf(stopped)
        self.queue = self.make_queue()
        self.successResultOf(self.queue.start())
        self.assertEqual(self.listed(Queue.INCOMING), [writer.queue_id])

    def test_stopped(self) -> None:
        """A stopped queue refuses everything, with an error."""
        queue_id = self.write().queue_id
        self.successResultOf(self.queue.stop())
        self.assertRaises(SpoolError, self.queue.create, NOW)
        for result in (
            self.queue.open(queue_id, Queue.INCOMING),
            self.queue.move(queue_id, Queue.INCOMING, Queue.ACTIVE),
            self.queue.remove(queue_id, Queue.INCOMING),
        ):
            self.failureResultOf(result, SpoolError)
        self.successResultOf(self.queue.stop())
