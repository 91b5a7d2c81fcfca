"""
What an operator may do to messages while the service runs: hold, release, requeue and delete.

Takes queue ids, one a call; fails with L{MessageNotFound} when there is no such message in the queues in
question. What is on hold is not held again, and nothing else is released. Answers to postsuper(1): its
default queues, its log lines, its meaning.

On an active message: nothing more of it is read and no delivery is begun; deliveries under way go on, and
count: who gets it is marked. A message to be held goes to C{hold} at once, before those deliveries end, so
that a crash leaves it there, and at worst those recipients get it twice when it is released. A message to
be deleted goes to C{hold} first, too, and is removed when its deliveries have ended: a crash leaves it on
hold rather than delivering it. A message to be requeued is handed to cleanup when its deliveries have
ended, and then removed; a crash in between leaves it as it was, or both. If everybody has got it by then,
it simply leaves the queue.

A message that is on its way out of the queue, and only waits for the store to do it, is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IBounces,
    IMailQueue,
    IntakeError,
    IStoredMessage,
    MessageNotFound,
    SpoolError,
)
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.qmgr.active import Admission
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble, Wish
from qmqpd_tx.qmgr.lines import log_deleted
from qmqpd_tx.qmgr.requeue import Requeuer
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler

log = Logger(namespace="qmqpd_tx.postsuper")

_HOLD_FROM: Final = (Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED)
"""Where messages are held by default."""

_RELEASE_FROM: Final = (Queue.HOLD,)
"""Where messages are released."""

_REMOVE_FROM: Final = (Queue.HOLD, Queue.INCOMING, Queue.ACTIVE, Queue.DEFERRED)
"""Where messages are deleted and requeued by default."""


class Operator:
    """The operator's hands."""

    def __init__(
        self,
        *,
        queue: IMailQueue,
        clock: IReactorTime,
        bounces: IBounces,
        active: ActiveQueue,
        admission: Admission,
        chores: Chores,
        scheduler: IQueueScheduler,
        requeuer: Requeuer,
        check: Callable[[Job], None],
    ) -> None:
        """
        @param queue: the store.
        @param bounces: forgets what it knows of deleted messages.
        @param active: the active messages.
        @param admission: is kept from messages in hand.
        @param chores: where operations are kept an eye on.
        @param scheduler: gives back what is not to be delivered.
        @param requeuer: hands over again.
        @param check: called with an active message whose work may have ended.
        """
        self._queue = queue
        self._clock = clock
        self._bounces = bounces
        self._active = active
        self._admission = admission
        self._chores = chores
        self._scheduler = scheduler
        self._requeuer = requeuer
        self._check = check

    async def hold(self, queue_id: QueueID, queue: Queue | None = None) -> None:
        """
        Keep a message from being delivered until it is released.

        @param queue: only if it is there.
        @raise MessageNotFound: there is none, or it is in hold.
        @raise SpoolError: the store failed.
        """
        if queue is Queue.HOLD:
            raise MessageNotFound(f"{queue_id}: what is in hold is on hold already")
        sources = _HOLD_FROM if queue is None else (queue,)
        job = await self._active_job(queue_id, sources)
        if job is not None:
            await self._put(job, Wish.HOLD, Queue.HOLD)
        else:
            await self._move(queue_id, sources, Queue.HOLD)
        log.info("{queue_id}: placed on hold", queue_id=queue_id)

    async def release(self, queue_id: QueueID, queue: Queue | None = None) -> None:
        """
        Let a message on hold be delivered again: it is deferred, and due when it was due before.

        @param queue: C{hold}, or L{None}, which is the same.
        @raise MessageNotFound: there is none.
        @raise SpoolError: the store failed.
        """
        if queue is not None and queue is not Queue.HOLD:
            raise MessageNotFound(f"{queue_id}: what is in {queue.value} is not on hold")
        job = await self._active_job(queue_id, _RELEASE_FROM)
        if job is not None:
            # Its last deliveries have not ended yet. A crash brings it back from active.
            await self._put(job, Wish.RELEASE, Queue.ACTIVE)
        else:
            await self._move(queue_id, _RELEASE_FROM, Queue.DEFERRED)
        log.info("{queue_id}: released from hold", queue_id=queue_id)

    async def requeue(self, queue_id: QueueID, queue: Queue | None = None) -> None:
        """
        Hand a message over again, as if it had just come, under a new queue id.

        @param queue: only if it is there.
        @raise MessageNotFound: there is none, or everybody has it by now.
        @raise SpoolError: the store failed, or cleanup refused it; it stays in the queue.
        """
        sources = _REMOVE_FROM if queue is None else (queue,)
        job = await self._active_job(queue_id, sources)
        if job is None:
            await self._requeue(queue_id, sources)
        else:
            job.wish = Wish.REQUEUE
            self._withdraw(job)
            gone = job.gone()
            self._check(job)
            await gone
            if (job.left or job.kept) and not job.requeued:
                raise SpoolError(f"{queue_id}: requeue: it was not possible; see the mail log")
        log.info("{queue_id}: requeued", queue_id=queue_id)

    async def delete(self, queue_id: QueueID, queue: Queue | None = None) -> None:
        """
        Remove a message for good, without a word to its sender. It may take the deliveries under way to
        end until it is gone; it is out of the way at once.

        @param queue: only if it is there.
        @raise MessageNotFound: there is none.
        @raise SpoolError: the store failed.
        """
        sources = _REMOVE_FROM if queue is None else (queue,)
        job = await self._active_job(queue_id, sources)
        if job is not None:
            await self._put(job, Wish.DELETE, Queue.HOLD)
        else:
            await self._delete(queue_id, sources)

    async def _active_job(self, queue_id: QueueID, sources: Sequence[Queue]) -> Job | None:
        """
        @return: the active message, when that is where it is looked for; or L{None}: it is not active, and no
            scan brings it up before the caller has waited for something.
        """
        while True:
            opening = self._admission.opening(queue_id)
            if opening is not None:
                await opening
                continue
            job = self._active.jobs.get(queue_id)
            if job is None:
                return None
            if job.finishing or job.wish in (Wish.DELETE, Wish.REQUEUE):
                await job.gone()
                continue
            if job.queue not in sources:
                raise MessageNotFound(f"{queue_id}: it is in {job.queue.value}")
            return job

    def _withdraw(self, job: Job) -> None:
        """Nothing more of it is delivered, but for what is under way."""
        for entry in self._scheduler.withdraw(job, self._clock.seconds()):
            job.left = True
            for recipient in entry.recipients:
                job.todo.pop(recipient.position, None)
        if job.next_position is not None:
            job.left = True
            job.next_position = None

    async def _put(self, job: Job, wish: Wish, target: Queue) -> None:
        """Put the file where it is to be, at once; the deliveries under way end there."""
        before, job.wish = job.wish, wish
        if before is Wish.NONE:
            self._withdraw(job)
        queue_id, source = job.queue_id, job.queue
        job.busy += 1
        try:
            if source is not target:
                job.queue = target
                operation = self._chores.watch(queue_id, f"move to {target.value}")
                try:
                    await self._queue.move(queue_id, source, target)
                except SpoolError as problem:
                    if job.queue is target:
                        job.queue = source
                    if isinstance(problem, MessageNotFound):
                        job.trouble = Trouble.VANISHED
                    raise
                finally:
                    self._chores.ended(operation)
        finally:
            job.busy -= 1
            self._check(job)

    async def _find(self, queue_id: QueueID, sources: Sequence[Queue]) -> Queue:
        """
        Find a message that is not active. From now on no scan brings it up, until the caller takes it out of
        C{chores.stuck} again.
        """
        if queue_id in self._chores.stuck:
            raise MessageNotFound(f"{queue_id}: on its way out of the queue")
        if self._admission.handed_over(queue_id):
            if Queue.INCOMING not in sources:
                raise MessageNotFound(f"{queue_id}: it is in incoming")
            self._admission.withdraw(queue_id)
            self._chores.stuck.add(queue_id)
            return Queue.INCOMING
        self._chores.stuck.add(queue_id)
        operation = self._chores.watch(queue_id, "locate")
        try:
            source: Queue | None = await self._queue.locate(queue_id)
            if source is None:
                raise MessageNotFound(f"{queue_id}: there is no such message")
            if source not in sources:
                raise MessageNotFound(f"{queue_id}: it is in {source.value}")
        except BaseException:
            self._chores.stuck.discard(queue_id)
            raise
        finally:
            self._chores.ended(operation)
        return source

    async def _move(self, queue_id: QueueID, sources: Sequence[Queue], target: Queue) -> None:
        """Move a message that is not active, from wherever it is."""
        source = await self._find(queue_id, sources)
        operation = self._chores.watch(queue_id, f"move to {target.value}")
        try:
            due = None
            if target is Queue.DEFERRED and source is not Queue.HOLD:
                due = self._clock.seconds()
            await self._queue.move(queue_id, source, target, due)
        finally:
            self._chores.ended(operation)
            self._chores.stuck.discard(queue_id)

    async def _delete(self, queue_id: QueueID, sources: Sequence[Queue]) -> None:
        source = await self._find(queue_id, sources)
        operation = self._chores.watch(queue_id, "remove")
        try:
            await self._queue.remove(queue_id, source)
            self._active.done.pop(queue_id, None)
            log_deleted(queue_id)
            # The other way round a crash could leave a message that does not know whom it has failed.
            await self._bounces.forget(queue_id)
        finally:
            self._chores.ended(operation)
            self._chores.stuck.discard(queue_id)

    async def _requeue(self, queue_id: QueueID, sources: Sequence[Queue]) -> None:
        source = await self._find(queue_id, sources)
        self._chores.begin()
        removed = True
        try:
            message: IStoredMessage = await self._queue.open(queue_id, source)
            try:
                # Those who failed for good must hear of it before their record goes.
                await self._bounces.notify(message)
                await self._requeuer.requeue(message)
            finally:
                message.close()
            self._active.done.pop(queue_id, None)
            try:
                await self._queue.remove(queue_id, source)
            except SpoolError:
                # The new one is in the queue: the old one must go, sooner or later, and not be delivered.
                removed = False
                self._chores.run(queue_id, "remove", lambda: self._queue.remove(queue_id, source))
            await self._bounces.forget(queue_id)
        except IntakeError as problem:
            raise SpoolError(f"{queue_id}: requeue: {problem}") from problem
        finally:
            self._chores.end()
            if removed:
                self._chores.stuck.discard(queue_id)
