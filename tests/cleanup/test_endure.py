"""
Whatever happens to a message on its way in, and whenever: one answer, and nothing left behind.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.cleanup.incoming import IncomingMessage
from qmqpd_tx.interfaces import IntakeError, TableError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.memory import MemoryMailQueue
from tests.cleanup.maps import BASE
from tests.cleanup.support import CLIENT, Arrivals, config
from tests.cleanup.test_wait import SlowTable

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
