"""
Whatever happens to a message on its way in, and whenever: one answer, and nothing left behind.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.cleanup.incoming import IncomingMessage
from qmqpd_tx.interfaces import InsufficientSpace, IntakeError, TableError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.memory import MemoryMailQueue, MemoryMessageWriter
from qmqpd_tx.tables import Tables
from qmqpd_tx.tables.cdb import write_cdb
from tests.cleanup.maps import BASE, inline
from tests.cleanup.support import CLIENT, Arrivals, Intake, config
from tests.cleanup.test_wait import SlowTable
from tests.milter.memory import log_lines

TABLES = (
    "canonical_maps",
    "virtual_alias_maps",
    "sender_bcc_maps",
    "recipient_bcc_maps",
)
CONTENT = b"To: t@x.test, u@x.test\nX: y\nFrom: f@x.test\nCc: a@x.test\n\nbody\n"


class HastyTable(SlowTable):
    """One that knows at once of some keys that it cannot say."""

    def lookup(self, key: bytes) -> Deferred[bytes | None]:
        """See L{ILookupTable.lookup}."""
        if key.startswith(b"bad"):
            raise TableError("slow:table: at once")
        return super().lookup(key)


@define
class Trial:
    """
    One message, all of which was given, and whose tables take their time; the disk does, too.
    """

    content: bytes = CONTENT
    table: HastyTable = field(factory=HastyTable)
    queue: MemoryMailQueue = field(factory=MemoryMailQueue)
    arrivals: Arrivals = field(factory=Arrivals)
    answers: list[QueueID | Failure] = field(factory=list)
    incoming: IncomingMessage = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue.start()
        self.queue.hold = True
        cleanup = Cleanup(
            config=config(
                BASE + "".join(f"{name} = slow:x\n" for name in TABLES) + "always_bcc = log@x.test\n"
            ),
            clock=Clock(),
            queue=self.queue,
            arrivals=self.arrivals,
            open_table=lambda text, parameter: self.table,  # type: ignore[arg-type,return-value]
        )
        self.incoming = cleanup.begin(CLIENT)
        self.incoming.content(self.content)
        self.incoming.sender(b"s@x.test")
        self.incoming.recipient(b"r@x.test")
        self.incoming.recipient(b"q@x.test")
        self.incoming.finish().addBoth(self.answers.append)

    def answer(self, number: int, instead: Callable[[Trial, Deferred[bytes | None]], None]) -> bool:
        """
        Answer what is asked, but for one question.

        @return: whether there was that one.
        """
        asked = 0
        while self.table.waiting:
            key, waiter = self.table.waiting.pop(0)
            if asked == number:
                instead(self, waiter)
            else:
                known = key.startswith(b"new-") or key.startswith(b"log")
                waiter.callback(None if known else b"new-" + key)
            asked += 1
        return asked > number

    def left(self) -> int:
        """
        @return: how many messages are in the queue.
        """
        found: list[object] = []
        for queue in Queue:
            self.queue.scan(queue).next(100).addCallback(found.extend)
        return len(found)


class Interruptions(SynchronousTestCase):
    """The same thing happens at each point at which a message waits, in turn."""

    def each(self, instead: Callable[[Trial, Deferred[bytes | None]], None]) -> int:
        """
        @return: at how many points it happened.
        """
        number = 0
        while True:
            trial = Trial()
            if not trial.answer(number, instead):
                trial.queue.release()
                self.assertIsInstance(trial.answers[0], str)
                self.assertEqual((len(trial.answers), trial.left()), (1, 1))
                return number
            trial.queue.release()
            (answer,) = trial.answers
            assert isinstance(answer, Failure), f"accepted in spite of what happened at {number}"
            answer.trap(IntakeError)  # type: ignore[no-untyped-call]
            assert isinstance(answer.value, IntakeError) and not answer.value.permanent
            self.assertEqual((trial.left(), trial.arrivals.stored), (0, []))
            # The message can be forgotten, and with it whatever still had to be said.
            del trial
            number += 1

    def tearDown(self) -> None:
        """What nobody has heard of is logged when it is forgotten, and fails the test."""
        gc.collect()

    def test_table(self) -> None:
        """
        A table cannot say: never is that "not found".
        """
        points = self.each(lambda _, waiter: waiter.errback(TableError("slow:table: away")))
        self.assertGreater(points, 20)

    def test_several(self) -> None:
        """
        All that are asked at that time cannot.
        """

        def all_of_them(trial: Trial, waiter: Deferred[bytes | None]) -> None:
            waiting = [waiter, *(one for _, one in trial.table.waiting)]
            trial.table.waiting.clear()
            for one in reversed(waiting):
                one.errback(TableError("slow:table: away"))

        self.each(all_of_them)

    def test_bug(self) -> None:
        """
        A table has a bug: it is logged, and the client comes again.
        """

        class Bug(Exception):
            pass

        points = self.each(lambda _, waiter: waiter.errback(Bug()))
        self.assertEqual(len(self.flushLoggedErrors(Bug)), points)

    def test_abort(self) -> None:
        """
        The client goes away.
        """

        def abort(trial: Trial, waiter: Deferred[bytes | None]) -> None:
            trial.incoming.abort()
            waiter.callback(None)

        self.each(abort)

    def test_abort_then_failure(self) -> None:
        """
        The client goes away, and then a table cannot say.
        """

        def abort(trial: Trial, waiter: Deferred[bytes | None]) -> None:
            trial.incoming.abort()
            waiter.errback(TableError("slow:table: away"))

        self.each(abort)


class SlowWriter:
    """
    A message on a disk that has to be waited for at every step, and then fails to take it, or does.
    """

    def __init__(self, writer: MemoryMessageWriter, waiting: list[Deferred[None]]) -> None:
        self._writer = writer
        self._waiting = waiting
        self.queue_id = writer.queue_id
        self.envelope = writer.envelope
        self.commit = writer.commit
        self.abort = writer.abort

    @property
    def size(self) -> int:
        """See L{IMessageWriter}."""
        return self._writer.size

    def _later(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def write(self, data: bytes) -> Deferred[None]:
        """See L{IMessageWriter.write}."""
        self._writer.write(data)
        return self._later()

    def recipient(self, address: bytes, original: bytes, silent: bool = False) -> Deferred[None]:
        """See L{IMessageWriter.recipient}."""
        self._writer.recipient(address, original, silent)
        return self._later()


class SlowQueue(MemoryMailQueue):
    """
    A queue of L{SlowWriter}s.

    @ivar waiting: what is waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    def create(self, arrival_time: float) -> Any:
        """See L{IMailQueue.create}."""
        return SlowWriter(super().create(arrival_time), self.waiting)


class SlowDisk(SynchronousTestCase):
    """The disk is waited for at each step, in turn: it fails, or the message is given up meanwhile."""

    def each(self, instead: Callable[[IncomingMessage, Deferred[None]], None]) -> list[IntakeError]:
        """
        @return: the answers, of the steps in order.
        """
        errors: list[IntakeError] = []
        while True:
            queue = SlowQueue()
            queue.start()
            cleanup = Cleanup(
                config=config("always_bcc = log@x.test\n"),
                clock=Clock(),
                queue=queue,
            )
            incoming = cleanup.begin(CLIENT)
            for piece in (b"X: " + b"y" * 200_000 + b"\n", b"Z: " + b"y" * 200_000 + b"\n\nbody\n", b"more"):
                incoming.content(piece)
            incoming.sender(b"s@x.test")
            for number in range(3):
                incoming.recipient(b"r%d@x.test" % number)
            answers: list[Any] = []
            incoming.finish().addBoth(answers.append)
            steps = 0
            while queue.waiting:
                waiter = queue.waiting.pop(0)
                if steps == len(errors):
                    instead(incoming, waiter)
                else:
                    waiter.callback(None)
                steps += 1
            found: list[object] = []
            queue.scan(Queue.INCOMING).next(100).addCallback(found.extend)
            (answer,) = answers
            if steps <= len(errors):
                self.assertEqual((answer, len(found)), (incoming.queue_id, 1))
                return errors
            assert isinstance(answer, Failure), f"accepted in spite of what happened at {len(errors)}"
            assert isinstance(answer.value, IntakeError)
            self.assertEqual(found, [])
            errors.append(answer.value)
            del incoming, cleanup, answer, answers
            gc.collect()

    def test_full(self) -> None:
        """
        There is no room: the client is told so, wherever that was.
        """
        errors = self.each(lambda _, waiter: waiter.errback(InsufficientSpace("full")))
        self.assertGreater(len(errors), 5)
        self.assertEqual({error.text for error in errors}, {"Error: insufficient system storage"})

    def test_bug(self) -> None:
        """
        Something goes wrong that nobody has foreseen.
        """
        errors = self.each(lambda _, waiter: waiter.errback(ZeroDivisionError()))
        self.assertEqual({error.permanent for error in errors}, {False})

    def test_abort(self) -> None:
        """
        The client goes away.
        """

        def abort(incoming: IncomingMessage, waiter: Deferred[None]) -> None:
            incoming.abort()
            waiter.callback(None)

        self.each(abort)


class Failures(SynchronousTestCase):
    """Single ones."""

    def test_at_once_while_another_waits(self) -> None:
        """
        One address cannot be looked up at once, and another one in front of it not until later: nobody is
        left who would have to hear of that.
        """
        for content in (
            b"To: t@x.test\nFrom: bad@x.test\n\nbody\n",
            b"Y: \0\nTo: t@x.test\nFrom: bad@x.test\n\n",
        ):
            trial = Trial(content)
            for _, waiter in trial.table.waiting:
                waiter.errback(TableError("slow:table: later"))
            (answer,) = trial.answers
            assert isinstance(answer, Failure)
            self.assertFalse(answer.value.permanent)
            del trial, waiter
            gc.collect()

    def test_many_headers_at_once(self) -> None:
        """
        Thousands of headers that are changed or dropped, in one piece: the work grows as the message does.
        """
        intake = Intake()
        start = time.process_time()
        stored = intake.store(b"To:a\nBcc:b\n" * 8000 + b"\nbody\n")
        self.assertLess(time.process_time() - start, 1.0)
        self.assertEqual(stored.body.count(b"To: a@"), 8000)
        self.assertNotIn(b"Bcc", stored.body)

    def test_many_headers(self) -> None:
        """
        A message with thousands of addresses in headers asks for some at a time, in order, so that other
        messages have their turn; and for no more once one of them could not be found out.
        """
        headers = b"".join(b"To: u%d@x.test\n" % number for number in range(3000))
        content = headers + b"\nbody\n"
        trial = Trial(content)
        most = 0
        while trial.table.waiting:
            most = max(most, len(trial.table.waiting))
            _, waiter = trial.table.waiting.pop(0)
            waiter.callback(None)
        self.assertLess(most, 100)
        trial.queue.release()
        (stored,) = trial.arrivals.stored
        self.assertTrue(headers in stored.content)

        trial = Trial(content)
        asked = 0
        while trial.table.waiting:
            _, waiter = trial.table.waiting.pop(0)
            asked += 1
            waiter.errback(TableError("slow:table: away"))
        self.assertLess(asked, 100)
        (answer,) = trial.answers
        assert isinstance(answer, Failure)

    def test_bug_at_the_end(self) -> None:
        """
        When finishing a message fails at once, and in a way that nobody has foreseen, the answer says so, and
        whoever then gives the message up hears no more of it.
        """

        class Bug(Exception):
            pass

        class BrokenTable(SlowTable):
            immediate = True

            def lookup(self, key: bytes) -> Deferred[bytes | None]:
                if key.startswith(b"log"):
                    raise Bug
                return None  # type: ignore[return-value]

        trial = Trial(table=BrokenTable())  # type: ignore[arg-type]
        (answer,) = trial.answers
        assert isinstance(answer, Failure)
        self.assertFalse(answer.value.permanent)
        trial.incoming.abort()
        self.assertEqual((len(trial.answers), trial.left()), (1, 0))
        del trial
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(Bug)), 1)


class Reloads(SynchronousTestCase):
    """The tables change while a message is on its way."""

    def test_file(self) -> None:
        """
        A message that began before goes on with the table as it was, and the next one has the new one.
        """
        path = Path(self.mktemp()).absolute()
        self.write(path, b"old@y.test")
        clock = Clock()
        tables = Tables(reactor=clock)
        settings = config(BASE + f"virtual_alias_maps = cdb:{path}\n")
        queue = MemoryMailQueue()
        queue.start()
        arrivals = Arrivals()
        cleanup = Cleanup(
            config=settings, clock=clock, queue=queue, arrivals=arrivals, open_table=tables.open
        )
        incoming = cleanup.begin(CLIENT)
        incoming.content(b"\nbody\n")
        self.write(path, b"new@y.test")
        self.assertEqual(tables.changed(), [f"{path}.cdb"])
        tables.renew()
        cleanup.reconfigure(settings)
        tables.keep()
        clock.advance(60)
        following = cleanup.begin(CLIENT)
        for message in (incoming, following):
            message.sender(b"s@x.test")
            message.recipient(b"r@x.test")
            self.successResultOf(message.finish())
        self.assertEqual(
            [stored.recipients for stored in arrivals.stored],
            [[(b"old@y.test", b"r@x.test")], [(b"new@y.test", b"r@x.test")]],
        )
        tables.close()
        self.assertEqual(clock.getDelayedCalls(), [])

    def write(self, path: Path, value: bytes) -> None:
        """As postmap does it."""
        new = path.with_suffix(".new")
        with new.open("wb") as stream:
            write_cdb(stream, [(b"r@x.test", value)])
        new.rename(f"{path}.cdb")


class Memory(SynchronousTestCase):
    """What is remembered from one message to the next."""

    def growth(self, text: str, content: Callable[[bytes], bytes]) -> int:
        """
        @param content: makes a message around a long word that is another one each time.
        @return: how many bytes more are in use after a hundred of them.
        """
        intake = Intake(BASE + text)
        intake.arrivals.arrived = lambda message: message.close()  # type: ignore[method-assign]
        before = 0
        tracemalloc.start()
        try:
            for number in range(110):
                word = b"%d" % number + b"x" * 90_000
                intake.send([content(word)])
                self.forget(intake.queue)
                if number == 10:
                    gc.collect()
                    before = tracemalloc.get_traced_memory()[0]
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    def forget(self, queue: MemoryMailQueue) -> None:
        """Remove all messages."""
        found: list[Any] = []
        queue.scan(Queue.INCOMING).next(100).addCallback(found.extend)
        self.assertEqual(len(found), 1)
        for entry in found:
            queue.remove(entry.queue_id, Queue.INCOMING)

    def test_checks(self) -> None:
        """
        Actions with long texts out of messages are not remembered, nor is what was looked up and not found.
        """
        for table in ("pcre:{{/^Subject: (.*)/ REPLACE X-Subject: $$1}}", "cidr:{{127.0.0.0/8 HOLD}}"):
            text = f"header_checks = {table}\n"
            self.assertLess(self.growth(text, lambda word: b"Subject: " + word + b"\n\nbody\n"), 2_000_000)

    def test_message_ids(self) -> None:
        """
        A message of nothing but Message-ID headers neither stays in memory nor fills the log.
        """
        lines = log_lines(self)
        Intake().store(b"Message-Id: <x@y.test>\n" * 10_000 + b"\nbody\n")
        self.assertLess(sum("message-id=" in line for line in lines), 200)

    def test_domains(self) -> None:
        """
        Nor are domains that are longer than a domain can be.
        """
        text = f"canonical_maps = {inline({'a@b.test': 'b@b.test'})}\n"
        self.assertLess(self.growth(text, lambda word: b"To: u@" + word + b".test\n\nbody\n"), 2_000_000)
