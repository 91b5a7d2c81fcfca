"""
The service's side of postsuper(1): control commands that change messages.

Takes the queue manager's methods; gives handlers for the control socket. A change is begun by one request
(C{change}: some ids, or all messages of some queues) and followed by others (C{progress}), each of which is
answered within L{WAIT_SECONDS}, so that neither side ever waits long for the other, however many messages
there are and however long the deliveries take that must end first. C{changed} puts the totals into the log.

Nobody follows a change of all messages for L{PATIENCE_SECONDS}: then its client is gone, and it ends with
the messages that are in hand. What was begun for single messages goes on.

Answers to: postsuper(1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.admin.control import Handler
from qmqpd_tx.admin.steps import QUEUE_ID, QUEUES
from qmqpd_tx.admin.superintend import SLICE, counted
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IMailQueue, IQueueScan, MessageNotFound, SpoolError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.offline import SEARCHED, Change

log = Logger(namespace="qmqpd_tx.postsuper")

WAIT_SECONDS = 2.0
"""The longest that a C{progress} request waits for something to tell."""

PATIENCE_SECONDS = 60.0
"""After this time without a C{progress} request nobody is interested any more."""

TASKS_LIMIT = 50
"""How many changes may be under way: as many as there may be clients."""

Action = Callable[[QueueID, Queue | None], Any]
"""
Changes one message, in one queue or wherever it looks by itself; gives a Deferred. It fails with
L{MessageNotFound} when it is not there, or another L{SpoolError}.
"""

AT_A_TIME = 100
"""How many messages are in hand at a time when it is about all of them."""


@define(slots=True, eq=False)
class Task:
    """
    One change that is under way.

    @ivar change: what is done.
    @ivar asked: when somebody asked last, seconds of the clock.
    @ivar number: how many messages were changed and not told yet.
    @ivar done: which, of those that were asked for by id.
    @ivar failed: what could not be done and was not told yet.
    @ivar told: tells who waits.
    @ivar finished: whether it has ended.
    """

    change: Change
    asked: float
    number: int = 0
    done: list[QueueID] = Factory(list)
    failed: list[str] = Factory(list)
    told: Callable[[], None] | None = None
    finished: bool = False


class Operations:
    """
    The changes that are under way.
    """

    def __init__(self, actions: Mapping[Change, Action], queue: IMailQueue, clock: IReactorTime) -> None:
        """
        @param actions: what changes one message.
        @param queue: where all of them are found.
        @param clock: for time limits.
        """
        self._actions = actions
        self._queue = queue
        self._clock = clock
        self._tasks: dict[int, Task] = {}
        self._last = 0

    def handlers(self) -> dict[str, Handler]:
        """
        @return: the commands, for the control socket.
        """
        return {"change": self.change, "progress": self.progress, "changed": self.changed}

    def change(self, request: Mapping[str, Any]) -> int:
        """
        Begin a change.

        @param request: C{change}; C{queue_ids}, or C{null} for all messages; C{queues}, or C{null} for where
            the change looks by itself.
        @return: the number under which C{progress} knows it.
        @raise ControlError: the request makes no sense.
        """
        change = _change(request.get("change"))
        queues = _where(change, _queues(request.get("queues")))
        ids = request.get("queue_ids")
        if ids is not None:
            ids = _queue_ids(ids)
        if len(self._tasks) >= TASKS_LIMIT:
            self._forget()
        if len(self._tasks) >= TASKS_LIMIT:
            raise ControlError(f"{TASKS_LIMIT} changes are under way; try again")
        self._last += 1
        task = self._tasks[self._last] = Task(change, self._clock.seconds())
        if ids is None:
            work = self._change_all(task, SEARCHED[change] if queues is None else queues)
        else:
            work = self._change_some(task, ids, [None] if queues is None else queues)
        Deferred.fromCoroutine(work).addErrback(self._broken, task).addCallback(self._ended, task)
        return self._last

    def progress(self, request: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """
        Ask how far a change is; the answer comes at its end, or after L{WAIT_SECONDS}.

        @param request: C{task}.
        @return: what was C{done} since the last time: the ids, C{number} of them or of all messages; what
            C{failed}; whether it has C{finished}.
        @raise ControlError: there is no such change.
        """
        number = request.get("task")
        task = self._tasks.get(number) if isinstance(number, int) else None
        if task is None or not isinstance(number, int):
            raise ControlError("there is no such change under way")
        task.asked = self._clock.seconds()
        answered: Deferred[dict[str, Any]] = Deferred()

        def answer() -> None:
            task.told = None
            if limit.active():
                limit.cancel()
            if task.finished:
                self._tasks.pop(number, None)
            done, task.done = task.done, []
            failed, task.failed = task.failed, []
            count, task.number = task.number, 0
            answered.callback({"done": done, "number": count, "failed": failed, "finished": task.finished})

        if task.told is not None:
            raise ControlError("somebody else waits for this")
        limit = self._clock.callLater(WAIT_SECONDS, answer)
        task.told = answer
        if task.finished:
            answer()
        return answered

    def changed(self, request: Mapping[str, Any]) -> None:
        """
        Put into the log what a client has done in all.

        @param request: C{counts}: changes and numbers.
        @raise ControlError: the request makes no sense.
        """
        counts = request.get("counts")
        if not isinstance(counts, list) or len(counts) > len(Change):
            raise ControlError("changed needs counts")
        texts = []
        for one in counts:
            if not isinstance(one, list) or len(one) != 2 or not isinstance(one[1], int):
                raise ControlError("a count is a change and a number")
            texts.append(counted(_change(one[0]), one[1]))
        for text in texts:
            log.info("{text}", text=text)

    # --- the work -------------------------------------------------------------------------------------

    async def _change_some(self, task: Task, ids: Sequence[QueueID], queues: Sequence[Queue | None]) -> None:
        await gatherResults(
            [Deferred.fromCoroutine(self._change_one(task, queue_id, queues)) for queue_id in ids]
        )

    async def _change_one(self, task: Task, queue_id: QueueID, queues: Sequence[Queue | None]) -> None:
        for queue in queues:
            try:
                await self._actions[task.change](queue_id, queue)
            except MessageNotFound:
                continue
            except SpoolError as problem:
                log.warn("{reason}", reason=str(problem), queue_id=queue_id)
                task.failed.append(str(problem))
                return
            task.number += 1
            task.done.append(queue_id)
            return

    async def _change_all(self, task: Task, queues: Sequence[Queue]) -> None:
        # After a start, messages of the run before come from active to incoming, and would be missed.
        await self._queue.recovered().addErrback(lambda _: None)
        # Requeued mail comes to incoming under a new name: it must not be requeued without end.
        newest = self._queue.newest()
        # What is active comes last: it may have come from the other queues meanwhile.
        for queue in sorted(queues, key=lambda queue: queue is Queue.ACTIVE):
            scan: IQueueScan = self._queue.scan(queue)
            while entries := await scan.next(AT_A_TIME):
                ids = [entry.queue_id for entry in entries]
                if task.change is Change.REQUEUE:
                    ids = [queue_id for queue_id in ids if queue_id <= newest]
                await self._change_some(task, ids, [queue])
                task.done.clear()
                if self._clock.seconds() - task.asked > PATIENCE_SECONDS:
                    return
                await deferLater(self._clock, 0)

    def _broken(self, failure: Failure, task: Task) -> None:
        log.failure("a change of messages failed", failure)
        task.failed.append("internal error; see the mail log")

    def _ended(self, _: object, task: Task) -> None:
        task.finished = True
        if task.told is not None:
            task.told()

    def _forget(self) -> None:
        """Let go of what nobody asked for in time."""
        late = self._clock.seconds() - PATIENCE_SECONDS
        for number, task in list(self._tasks.items()):
            if task.finished and task.asked < late:
                del self._tasks[number]


def _change(value: object) -> Change:
    try:
        return Change(value)
    except ValueError:
        raise ControlError("change is one of " + ", ".join(change.value for change in Change)) from None


def _queues(value: object) -> Sequence[Queue] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) and name in QUEUES for name in value):
        raise ControlError("queues are some of " + ", ".join(QUEUES))
    return [QUEUES[name] for name in value]


def _where(change: Change, queues: Sequence[Queue] | None) -> Sequence[Queue] | None:
    """
    @return: in which of some queues there may be something to do: what is on hold is not held, and nothing
        else is released.
    """
    if queues is None or change not in (Change.HOLD, Change.RELEASE):
        return queues
    return [queue for queue in queues if (queue is Queue.HOLD) == (change is Change.RELEASE)]


def _queue_ids(value: object) -> list[QueueID]:
    if not isinstance(value, list) or len(value) > SLICE:
        raise ControlError(f"queue_ids are a list of at most {SLICE}")
    if not all(isinstance(name, str) and QUEUE_ID.fullmatch(name) for name in value):
        raise ControlError("one of queue_ids cannot be a queue id")
    # What Postfix would call a queue id, and is none here, is in no queue.
    return [name for name in value if queueid.valid(name)]
