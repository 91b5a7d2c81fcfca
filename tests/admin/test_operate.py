"""
The control commands behind postsuper: what a client sees while the queue manager works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.admin.operating import AT_A_TIME, PATIENCE_SECONDS, TASKS_LIMIT, WAIT_SECONDS, Operations
from qmqpd_tx.admin.superintend import SLICE
from qmqpd_tx.interfaces import IMailQueue, MessageNotFound, QueuedEntry, SpoolError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool.offline import Change
from qmqpd_tx.spool.queueid import encode

NOW = 1_795_325_003.0
IDS = [encode(int((NOW - 100 + second) * 1_000_000)) for second in range(10)]


@implementer(IMailQueue)
class World:  # type: ignore[misc]
    """
    A queue manager with messages in it, some of which it holds back.

    @ivar queues: where each message is.
    @ivar slow: what those wait for that do not end at once.
    @ivar changed: what was done.
    @ivar recovery: fires when the queue is recovered.
    @ivar ahead: how many seconds queue ids are ahead of the clock, as after a crash.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.queues = {queue_id: Queue.DEFERRED for queue_id in IDS}
        self.slow: dict[QueueID, Deferred[None]] = {}
        self.broken: set[QueueID] = set()
        self.changed: list[tuple[str, QueueID]] = []
        self.recovery: Deferred[Any] = succeed(None)
        self.ahead = 0.0

    def action(self, name: str) -> Callable[[QueueID, Queue | None], Any]:
        """
        @return: one of the queue manager's methods.
        """

        def act(queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
            return Deferred.fromCoroutine(work(queue_id, queue))

        async def work(queue_id: QueueID, queue: Queue | None) -> None:
            there = self.queues.get(queue_id)
            if there is None or queue not in (None, there):
                raise MessageNotFound(f"{queue_id}: no")
            if queue_id in self.slow:
                await self.slow[queue_id]
            if queue_id in self.broken:
                raise SpoolError(f"{queue_id}: disk error")
            self.changed.append((name, queue_id))
            if name == "delete":
                del self.queues[queue_id]
            if name == "requeue":
                del self.queues[queue_id]
                number = int((self.clock.seconds() + self.ahead) * 1_000_000) + len(self.changed)
                self.queues[encode(number)] = Queue.INCOMING

        return act

    def recovered(self) -> Deferred[Any]:
        """See L{IMailQueue.recovered}."""
        return self.recovery

    def newest(self) -> QueueID:
        """See L{IMailQueue.newest}."""
        return encode(int((self.clock.seconds() + self.ahead) * 1_000_000))

    def scan(self, queue: Queue) -> Scan:
        """See L{IMailQueue.scan}."""
        return Scan(self, queue)


class Scan:
    """A walk through a queue, which sees what comes meanwhile, too."""

    def __init__(self, world: World, queue: Queue) -> None:
        self._world = world
        self._queue = queue
        self._seen: set[QueueID] = set()

    def next(self, limit: int) -> Deferred[list[QueuedEntry]]:
        """See L{IQueueScan.next}."""
        found = [
            QueuedEntry(queue_id, 0)
            for queue_id, queue in self._world.queues.items()
            if queue is self._queue and queue_id not in self._seen
        ][:limit]
        self._seen.update(entry.queue_id for entry in found)
        return succeed(found)


class Case(SynchronousTestCase):
    """A world and its commands."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.world = World(self.clock)
        actions = {change: self.world.action(change.value) for change in Change}
        self.operations = Operations(actions, self.world, self.clock)

    def begin(self, change: str, ids: object, queues: object = None) -> int:
        """
        @return: the number of a change.
        """
        return self.operations.change({"change": change, "queue_ids": ids, "queues": queues})

    def ask(self, task: int) -> dict[str, Any]:
        """
        @return: the answer to C{progress}, however long it takes.
        """
        answer = self.operations.progress({"task": task})
        for _ in range(1000):
            if answer.called:
                break
            self.clock.advance(0)
        else:
            self.clock.advance(WAIT_SECONDS)
        return self.successResultOf(answer)


class ChangeTests(Case):
    """Single messages."""

    def test_some(self) -> None:
        """Those that are there are changed, and named; what is elsewhere or no id here is passed over."""
        task = self.begin("hold", [IDS[0], "NOSUCH", "316BTD3SSHJ", IDS[1]])
        answer = self.ask(task)
        self.assertEqual(answer, {"done": IDS[:2], "number": 2, "failed": [], "finished": True})
        self.assertEqual(self.world.changed, [("hold", IDS[0]), ("hold", IDS[1])])

    def test_queues(self) -> None:
        """Only the queues that are named."""
        self.world.queues[IDS[1]] = Queue.HOLD
        answer = self.ask(self.begin("delete", IDS[:2], ["incoming", "hold"]))
        self.assertEqual(answer["done"], [IDS[1]])
        self.assertEqual(self.ask(self.begin("delete", IDS[:2], []))["done"], [])

    def test_trouble(self) -> None:
        """What could not be done is said, and the others are changed."""
        self.world.broken = {IDS[0]}
        answer = self.ask(self.begin("delete", IDS[:2]))
        self.assertEqual((answer["done"], answer["failed"]), ([IDS[1]], [f"{IDS[0]}: disk error"]))

    def test_slow(self) -> None:
        """An answer comes in time, whatever a message waits for; nothing is told twice or lost."""
        self.world.slow[IDS[0]] = Deferred()
        task = self.begin("requeue", IDS[:2])
        first = self.ask(task)
        self.assertEqual((first["done"], first["finished"]), ([IDS[1]], False))
        asked = self.operations.progress({"task": task})
        self.assertNoResult(asked)
        self.world.slow[IDS[0]].callback(None)
        last = self.successResultOf(asked)
        self.assertEqual((last["done"], last["number"], last["finished"]), ([IDS[0]], 1, True))
        self.assertRaises(ControlError, self.operations.progress, {"task": task})
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AllTests(Case):
    """All messages."""

    def test_all(self) -> None:
        """All are changed, and counted without names."""
        self.world.queues[IDS[0]] = Queue.HOLD
        answer = self.ask(self.begin("delete", None))
        self.assertEqual(answer, {"done": [], "number": 10, "failed": [], "finished": True})
        self.assertEqual(self.world.queues, {})

    def test_where(self) -> None:
        """By default, where postsuper looks for it."""
        self.world.queues[IDS[0]] = Queue.HOLD
        self.assertEqual(self.ask(self.begin("release", None))["number"], 1)
        self.assertEqual(self.ask(self.begin("hold", None))["number"], 9)
        for change, queue in (("hold", "hold"), ("release", "deferred"), ("release", "active")):
            self.assertEqual(self.ask(self.begin(change, None, [queue]))["number"], 0)
            self.assertEqual(self.ask(self.begin(change, IDS, [queue]))["number"], 0)
        self.assertEqual(self.ask(self.begin("delete", None, ["incoming"]))["number"], 0)
        self.assertEqual(self.ask(self.begin("delete", None, ["incoming", "hold"]))["number"], 1)

    def test_after_a_start(self) -> None:
        """What the recovery brings from active to incoming is not missed."""
        for failed in (False, True):
            self.world.queues = {IDS[0]: Queue.ACTIVE, IDS[1]: Queue.DEFERRED}
            self.world.slow[IDS[1]] = Deferred()
            recovery = self.world.recovery = Deferred()
            task = self.begin("delete", None)
            self.clock.pump([0] * 10)
            self.world.queues[IDS[0]] = Queue.INCOMING
            if failed:
                recovery.errback(SpoolError("recover the queue: stopped"))
            else:
                recovery.callback(None)
            self.world.slow.pop(IDS[1]).callback(None)
            self.assertEqual(self.ask(task)["number"], 2)
            self.assertEqual(self.world.queues, {})

    def test_requeue_ends(self) -> None:
        """What was requeued comes again, and is not requeued again."""
        self.assertEqual(self.ask(self.begin("requeue", None))["number"], 10)
        self.assertEqual(set(self.world.queues.values()), {Queue.INCOMING})

    def test_requeue_ids_ahead(self) -> None:
        """After a crash ids may be ahead of the clock: such messages are requeued all the same, and once."""
        self.world.ahead = 60.0
        early = encode(int((NOW + 30) * 1_000_000))
        self.world.queues[early] = Queue.DEFERRED
        self.assertEqual(self.ask(self.begin("requeue", None))["number"], 11)
        self.assertIn(("requeue", early), self.world.changed)

    def test_progress(self) -> None:
        """While it goes on, the client hears how far it is."""
        self.world.slow[IDS[7]] = Deferred()
        task = self.begin("hold", None)
        first = self.ask(task)
        self.assertEqual((first["number"], first["finished"]), (9, False))
        self.world.slow[IDS[7]].callback(None)
        last = self.ask(task)
        self.assertEqual((last["number"], last["finished"]), (1, True))

    def test_client_gone(self) -> None:
        """When nobody follows it any more, no further message is touched."""
        ids = [encode(int((NOW - 1000 + second) * 1_000_000)) for second in range(3 * AT_A_TIME)]
        self.world.queues = dict.fromkeys(ids, Queue.DEFERRED)
        self.world.slow[ids[AT_A_TIME]] = Deferred()
        self.begin("delete", None)
        self.clock.pump([0] * 10)
        self.clock.advance(PATIENCE_SECONDS + 1)
        self.world.slow[ids[AT_A_TIME]].callback(None)
        self.clock.pump([0] * 10)
        self.assertEqual(sorted(queue_id for _, queue_id in self.world.changed), ids[: 2 * AT_A_TIME])


class RefuseTests(Case):
    """Requests that make no sense, and too many of them."""

    def test_nonsense(self) -> None:
        """Each is refused with a reason, and nothing is done."""
        for change, ids, queues in (
            ("nosuch", [], None),
            (None, [], None),
            ([], [], None),
            ("hold", "ABC", None),
            ("hold", [1], None),
            ("hold", ["../../etc/passwd"], None),
            ("hold", ["A" * 65], None),
            ("hold", IDS[:1] * (SLICE + 1), None),
            ("hold", IDS, "deferred"),
            ("hold", IDS, ["corrupt"]),
            ("hold", IDS, [["deferred"]]),
        ):
            self.assertRaises(ControlError, self.begin, change, ids, queues)
        self.assertEqual(self.world.changed, [])
        for task in (None, 1, "1", [], True):
            self.assertRaises(ControlError, self.operations.progress, {"task": task})
        for counts in (None, {}, [1], [["hold"]], [["hold", "1"]], [["nosuch", 1]], [["hold", 1]] * 9):
            self.assertRaises(ControlError, self.operations.changed, {"counts": counts})

    def test_too_many(self) -> None:
        """There is a limit to what is under way; results that nobody fetches do not count for ever."""
        for _ in range(TASKS_LIMIT):
            self.begin("hold", [])
        self.assertRaises(ControlError, self.begin, "hold", [])
        self.clock.advance(PATIENCE_SECONDS + 1)
        self.begin("hold", [])

    def test_two_ask(self) -> None:
        """Two cannot follow one change."""
        self.world.slow[IDS[0]] = Deferred()
        task = self.begin("hold", IDS)
        first = self.operations.progress({"task": task})
        self.assertRaises(ControlError, self.operations.progress, {"task": task})
        self.clock.advance(WAIT_SECONDS)
        self.assertEqual(self.successResultOf(first)["number"], 9)
