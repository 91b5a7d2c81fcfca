"""Looking at a queue from outside."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import MessageNotFound
from qmqpd_tx.message import LogKind, Queue, QueueID, RecipientState
from qmqpd_tx.spool import inspect, record
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.values import ENVELOPE, NOW, TOP, Values


class InspectTests(SynchronousTestCase):
    """Listings, while the service is up."""

    def setUp(self) -> None:
        """A queue with one message held, one deferred, and one half written."""
        self.directory = self.mktemp()
        clock = Clock()
        clock.advance(NOW)
        values = Values(self.directory, hash_queue_depth=2)
        self.queue = FileMailQueue(values, clock, disk=InlineDisk(), buffer_limit=500)
        self.successResultOf(self.queue.start())
        self.held = self.store(Queue.HOLD)
        self.deferred = self.store(Queue.DEFERRED)
        self.successResultOf(self.queue.append_log(LogKind.DEFER, self.deferred, [b"why", b"not"], False))
        self.unfinished = self.queue.create(NOW)
        self.unfinished.write(b"x" * 600)
        with open(os.path.join(self.directory, "hold", "notes"), "w") as file:
            file.write("by hand")

    def store(self, target: Queue) -> QueueID:
        """
        @return: the id of a message with its first recipient done.
        """
        writer = self.queue.create(NOW)
        writer.write(b"\nhello\n")
        writer.envelope(ENVELOPE, TOP)
        for number in range(4):
            writer.recipient(b"%d@b" % number, b"%d@c" % number)
        message = self.successResultOf(writer.commit())
        done = self.successResultOf(self.queue.mark(message, [], RecipientState.TODO))
        first = message.recipients(None, 1)
        try:
            first.send(None)
        except StopIteration as stop:
            done = self.successResultOf(
                self.queue.mark(message, stop.value.recipients, RecipientState.DELIVERED)
            )
        self.assertIsNone(done)
        self.successResultOf(self.queue.move(message.queue_id, Queue.INCOMING, target, NOW + 60))
        return QueueID(message.queue_id)

    def test_list(self) -> None:
        """Everything that is in the queue, without the lock and without the configuration."""
        found = {one.queue_id: one for one in inspect.list_messages(self.directory, recipient_limit=2)}
        self.assertEqual(set(found), {self.held, self.deferred})
        one = found[self.deferred]
        self.assertEqual(
            one,
            inspect.QueueListing(
                queue_id=self.deferred,
                queue=Queue.DEFERRED,
                size=len(TOP) + 7,
                arrival_time=NOW,
                sender=ENVELOPE.sender,
                recipients=[b"1@b", b"2@b"],
                more_recipients=True,
                recipient_count=4,
                due=NOW + 60,
                reasons=[b"why", b"not"],
                envelope=ENVELOPE,
            ),
        )
        self.assertEqual(found[self.held].queue, Queue.HOLD)
        self.assertEqual(list(found[self.held].reasons), [])

    def test_some(self) -> None:
        """Only the queues asked for."""
        found = list(inspect.list_messages(self.directory, [Queue.HOLD], recipient_limit=3))
        self.assertEqual([one.queue_id for one in found], [self.held])
        self.assertEqual(
            (list(found[0].recipients), found[0].more_recipients), ([b"1@b", b"2@b", b"3@b"], False)
        )

    def test_find(self) -> None:
        """One message, at any depth of subfolders; and nothing outside the queue."""
        self.assertEqual(inspect.find_message(self.directory, self.deferred).queue, Queue.DEFERRED)
        self.assertEqual(inspect.find_message(self.directory, self.held).queue, Queue.HOLD)
        for name in (self.unfinished.queue_id, "../hold/notes", ""):
            self.assertRaises(MessageNotFound, inspect.find_message, self.directory, name)
        self.assertEqual(inspect.read_log(self.directory, LogKind.DEFER, self.deferred), [b"why", b"not"])
        self.assertEqual(inspect.read_log(self.directory, LogKind.BOUNCE, self.deferred), [])

    def test_damaged(self) -> None:
        """A file that cannot be read is shown with the reason."""
        with open(os.path.join(self.directory, "hold", self.held), "r+b") as file:
            file.write(b"garbage")
        found = inspect.find_message(self.directory, self.held)
        self.assertIn("offset 0", found.problem or "")
        self.assertEqual((found.queue, found.size, found.envelope), (Queue.HOLD, 0, None))

    def test_used_again(self) -> None:
        """A file that becomes another message's while it is read, or before, shows nothing of either."""
        path = os.path.join(self.directory, "hold", self.held)
        with open(path, "rb") as file:
            old = file.read()
        other = old.replace(b"joe@example.org", b"eve@example.org")
        layout = record.decode_header(old, len(old))
        new = record.encode_header(layout, self.deferred) + other[record.HEADER_SIZE :]
        reads: list[int] = []

        class Recycling(RealFileSystem):
            def pread(self, fd: int, length: int, offset: int) -> bytes:  # type: ignore[override]
                data = os.pread(fd, length, offset)
                reads.append(offset)
                if len(reads) == 1:
                    with open(path, "r+b") as file:
                        file.write(new)
                return data

        for _ in range(2):
            found = list(inspect.list_messages(self.directory, [Queue.HOLD], fs=Recycling()))
            self.assertEqual(found, [])

    def test_empty(self) -> None:
        """A folder where no queue ever was is an empty queue."""
        self.assertEqual(list(inspect.list_messages(self.mktemp())), [])
