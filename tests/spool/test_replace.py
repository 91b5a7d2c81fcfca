"""Queue files that are deleted, cut or replaced while their messages are active."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import MessageDamaged, MessageNotFound, SpoolError
from qmqpd_tx.message import Queue, RecipientState
from qmqpd_tx.spool import record
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.filesystem import RealFileSystem
from qmqpd_tx.spool.store import FileMailQueue
from tests.spool.test_read import build
from tests.spool.values import ENVELOPE, NOW, TOP, Values

OURS = b"\n" + b"ours " * 200
THEIRS = b"\n" + b"them " * 200


class MeddledFileSystem(RealFileSystem):
    """
    A file system in which somebody does something at a bad time.

    @ivar meddle: called once, before the read with that number.
    """

    def __init__(self) -> None:
        self.meddle: Callable[[], None] | None = None
        self.after = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:  # type: ignore[override]
        """Read, perhaps after something else."""
        if self.meddle is not None:
            if self.after == 0:
                meddle, self.meddle = self.meddle, None
                meddle()
            self.after -= 1
        return os.pread(fd, length, offset)


class ReplaceTests(SynchronousTestCase):
    """Everything that can happen to the file of an active message, at every step of its delivery."""

    def setUp(self) -> None:
        """An active message whose content is on disk only, and another message of the same size."""
        self.directory = self.mktemp()
        self.fs = MeddledFileSystem()
        self.queue = self.start()
        self.message = self.active(OURS)
        self.other = self.active(THEIRS)
        self.path = os.path.join(self.directory, "active", self.message.queue_id)
        with open(os.path.join(self.directory, "active", self.other.queue_id), "rb") as file:
            self.theirs = file.read()
        with open(self.path, "rb") as file:
            self.ours = file.read()
        self.recipients = self.now(self.message.recipients(None, 9)).recipients

    def start(self) -> FileMailQueue:
        """
        @return: a queue, started.
        """
        clock = Clock()
        clock.advance(NOW)
        values = Values(self.directory, qmgr_message_memory_limit=0)
        queue = FileMailQueue(values, clock, self.fs, InlineDisk())
        self.successResultOf(queue.start())
        self.addCleanup(lambda: self.successResultOf(queue.stop()))
        return queue

    def active(self, body: bytes) -> Any:
        """
        @return: a message of two recipients.
        """
        writer = self.queue.create(NOW)
        writer.write(body)
        writer.envelope(ENVELOPE, TOP)
        for address in (b"a@b", b"c@d"):
            writer.recipient(address, address)
        message = self.successResultOf(writer.commit())
        self.successResultOf(self.queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE))
        return message

    def now(self, coroutine: Any) -> Any:
        """
        @return: what a coroutine gives.
        """
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    # --- what happens ---------------------------------------------------------------------------------

    def delete(self) -> None:
        """It goes."""
        os.unlink(self.path)

    def truncate(self) -> None:
        """It loses its end, but not its first record."""
        os.truncate(self.path, len(self.ours) - 30)

    def truncate_wholly(self) -> None:
        """It loses everything."""
        os.truncate(self.path, 0)

    def replace(self) -> None:
        """Another message takes its name."""
        with open(self.path + ".new", "wb") as file:
            file.write(self.theirs)
        os.chmod(self.path + ".new", 0o700)
        os.rename(self.path + ".new", self.path)

    def overwrite(self) -> None:
        """Another message is written into the file, from its start: it is used again."""
        with open(self.path, "r+b") as file:
            file.write(self.theirs)

    def edit(self) -> None:
        """A whole message of the same name, but not the same message."""
        data, layout = build(THEIRS + b"longer", TOP, ENVELOPE, [(b"e@f", b"e@f")])
        with open(self.path, "wb") as file:
            file.write(record.encode_header(layout, self.message.queue_id) + data[record.HEADER_SIZE :])

    def noise(self) -> None:
        """Something that is no queue file."""
        with open(self.path, "wb") as file:
            file.write(os.urandom(len(self.ours)))

    def pipe(self) -> None:
        """Something that is no file."""
        os.unlink(self.path)
        os.mkfifo(self.path)

    events: tuple[tuple[str, type[SpoolError]], ...] = (
        ("delete", MessageNotFound),
        ("truncate", MessageDamaged),
        ("truncate_wholly", MessageDamaged),
        ("replace", MessageNotFound),
        ("overwrite", MessageNotFound),
        ("edit", MessageDamaged),
        ("noise", MessageDamaged),
        ("pipe", SpoolError),
    )

    def each(self, step: Callable[[], Any]) -> None:
        """
        See that a step fails with the right error after each event, and names the message.
        """
        for name, expected in self.events:
            getattr(self, name)()
            before = self.content()
            error = self.failureResultOf(step(), expected).value
            self.assertIn(self.message.queue_id, str(error), name)
            self.assertEqual(self.content(), before, name)
            self.restore()

    def content(self) -> bytes | None:
        """
        @return: what is in the file now.
        """
        if not os.path.isfile(self.path):
            return None
        with open(self.path, "rb") as file:
            return file.read()

    def restore(self) -> None:
        """As if nothing had happened."""
        if os.path.lexists(self.path):
            os.unlink(self.path)
        with open(self.path, "wb") as file:
            file.write(self.ours)
        os.chmod(self.path, 0o700)

    # --- when it happens ------------------------------------------------------------------------------

    def test_before_recipients(self) -> None:
        """No recipient of another message is ever given."""
        self.each(lambda: Deferred.fromCoroutine(self.message.recipients(None, 9)))
        self.each(lambda: Deferred.fromCoroutine(self.message.recipients(self.recipients[1].position, 9)))
        self.assertEqual(self.now(self.message.recipients(None, 9)).recipients, self.recipients)

    def test_before_content(self) -> None:
        """No byte of another message is ever given, whichever part is read."""
        for offset, length in ((0, 5), (len(TOP), 10), (0, 9999), (len(TOP + OURS) - 5, 5)):
            self.each(
                lambda at=offset, much=length: Deferred.fromCoroutine(  # type: ignore[misc]
                    self.message.content.read(at, much)
                )
            )
        self.assertEqual(self.now(self.message.content.read(0, 9999)), TOP + OURS)

    def test_before_mark(self) -> None:
        """Nothing is written into what is not the message."""
        self.each(lambda: self.queue.mark(self.message, self.recipients, RecipientState.DELIVERED))
        self.successResultOf(self.queue.mark(self.message, self.recipients[:1], RecipientState.DELIVERED))
        self.assertEqual(self.now(self.message.recipients(None, 9)).recipients, self.recipients[1:])

    def test_in_the_middle(self) -> None:
        """A file that is used again while it is read: all that is given is of the message, or nothing."""
        steps: list[Callable[[], Any]] = [
            lambda: Deferred.fromCoroutine(self.message.content.read(0, 9999)),
            lambda: Deferred.fromCoroutine(self.message.recipients(None, 9)),
        ]
        for step in steps:
            for after in range(5):
                self.fs.meddle, self.fs.after = self.overwrite, after
                results: list[Any] = []
                step().addCallbacks(results.append, lambda failure: failure.trap(MessageNotFound))
                if results and isinstance(results[0], bytes):
                    self.assertEqual(results[0], TOP + OURS)
                elif results:
                    self.assertEqual(results[0].recipients, self.recipients)
                happened = self.fs.meddle is None
                self.assertEqual(bool(results), not happened)
                self.fs.meddle = None
                self.restore()

    def test_before_the_end(self) -> None:
        """
        A message without a file is not found; any other file goes where the message should go, and is found
        out there: it is neither delivered nor waited for, and what makes no sense is kept for a person.
        """
        name = self.message.queue_id
        for event, _ in self.events[:-1]:
            getattr(self, event)()
            moved = self.queue.move(name, Queue.ACTIVE, Queue.DEFERRED, NOW)
            if event == "delete":
                self.failureResultOf(moved, MessageNotFound)
                self.failureResultOf(self.queue.remove(name, Queue.ACTIVE), MessageNotFound)
                self.assertIsNone(self.queue.next_due())
                self.restore()
                continue
            self.successResultOf(moved)
            if event in ("replace", "overwrite"):
                self.failureResultOf(self.queue.open(name, Queue.DEFERRED), MessageNotFound)
                self.assertIsNone(self.queue.next_due())
                self.restore()
                continue
            if event != "edit":
                # A file that was cut is not one that is still to be written.
                self.failureResultOf(self.queue.open(name, Queue.DEFERRED), MessageDamaged)
            self.successResultOf(self.queue.move(name, Queue.DEFERRED, Queue.CORRUPT))
            self.assertEqual(self.successResultOf(self.queue.locate(name)), Queue.CORRUPT)
            self.successResultOf(self.queue.move(name, Queue.CORRUPT, Queue.ACTIVE))
            self.restore()
        self.successResultOf(self.queue.remove(name, Queue.ACTIVE))

    def test_the_other_is_whole(self) -> None:
        """Through all of that, the other message is what it was."""
        self.each(lambda: self.queue.mark(self.message, self.recipients, RecipientState.BOUNCED))
        self.assertEqual(self.now(self.other.content.read(0, 9999)), TOP + THEIRS)
        self.assertEqual(len(self.now(self.other.recipients(None, 9)).recipients), 2)
