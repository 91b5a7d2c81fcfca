"""
Ends a message's stay in the active queue: it is removed, deferred, returned to its sender, or saved to
C{corrupt}.

Takes a message whose recipients all have outcomes. Order is what keeps mail from being lost: the record of a
failed recipient is durable before the recipient is marked; the notice to the sender is safe in the queue
before the original is removed; a notice that cannot be made keeps the message in C{deferred}, with everybody
marked, so that only the notice is tried again. Whether a message is too old is asked here, when an attempt
has failed, and the report keeps the last 4.x.x status. Answers to qmgr(8)'s active part.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IBounces, IConfig, IFlush, IMailQueue, IntakeError
from qmqpd_tx.message import Queue, RecipientState
from qmqpd_tx.qmgr.chores import Chores, TimeLimitExceeded
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble, Wish
from qmqpd_tx.qmgr.lines import log_deleted, log_expired, log_removed
from qmqpd_tx.qmgr.requeue import Requeuer
from qmqpd_tx.qmgr.scheduling.backoff import RetryPolicy
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.settle import Settler
from qmqpd_tx.status import Action, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

REMEMBERED: Final = 1000
"""How many outcomes of waiting recipients are held before they are handed to the bounce service."""


class Finisher:
    """The last step of a message in the active queue."""

    def __init__(
        self,
        *,
        config: IConfig,
        queue: IMailQueue,
        clock: IReactorTime,
        bounces: IBounces,
        active: ActiveQueue,
        chores: Chores,
        scheduler: IQueueScheduler,
        settler: Settler,
        requeuer: Requeuer,
        random: Random,
        flush: IFlush | None,
        check: Callable[[Job], None],
        wake: Callable[[], None],
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param queue: the store.
        @param bounces: remembers and tells what went wrong.
        @param active: where messages leave.
        @param scheduler: is told who leaves.
        @param settler: marks recipients.
        @param requeuer: hands over again what an operator wants requeued.
        @param random: spreads retries (C{deferred_retry_jitter}).
        @param flush: remembers which message waits for which site.
        @param check: called with a message whose work may have ended.
        @param wake: called when there is room in the active queue.
        """
        self._queue = queue
        self._clock = clock
        self._bounces = bounces
        self._active = active
        self._chores = chores
        self._scheduler = scheduler
        self._settler = settler
        self._requeuer = requeuer
        self._random = random
        self._flush = flush
        self._check = check
        self._wake = wake
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where backoff times, lifetimes and C{double_bounce_sender} are read.
        """
        self._policy = RetryPolicy.from_config(config)
        sender = config.string("double_bounce_sender").encode("utf-8", "surrogateescape").lower()
        self._double_bounce = sender.partition(b"@")[0]

    def finish(self, job: Job) -> None:
        """
        @param job: a message that is settled.
        """
        job.finishing = True
        if job.fresh and job.clean():
            # Everybody got it at the first try: no log exists, and no mark matters any more.
            self._remove(job)
            self._leave(job)
        else:
            self._chores.spawn(job.queue_id, self._conclude(job))

    def remember(self, job: Job) -> bool:
        """
        Hand over the outcomes of waiting recipients if there are many.

        @return: whether that was begun; the message is checked again when it is done.
        """
        if len(job.deferred) < REMEMBERED:
            return False
        job.busy += 1
        self._chores.spawn(job.queue_id, self._remember_some(job))
        return True

    async def _remember_some(self, job: Job) -> None:
        await self._remember(job)
        job.busy -= 1
        self._check(job)

    async def _remember(self, job: Job) -> None:
        """
        Record why recipients wait; or, when the message is too old, that they failed. The answer to that
        question holds for the whole attempt.
        """
        outcomes, job.deferred = job.deferred, []
        if not outcomes:
            return
        if job.expired is None:
            # What an operator has put aside does not grow too old meanwhile.
            job.expired = job.wish is Wish.NONE and self._expired(job)
        if job.expired:
            failed = [_as_failed(outcome) for outcome in outcomes]
            if await self._try(job, "bounce log", self._bounces.bounced, job.message, failed):
                job.bounced = True
                recipients = [outcome.recipient for outcome in outcomes]
                self._settler.mark(job, recipients, RecipientState.BOUNCED)
                return
            job.expired = False
        await self._try(job, "defer log", self._bounces.deferred, job.message, outcomes)
        if self._flush is not None:
            recipients = [outcome.recipient for outcome in outcomes]
            await self._try(job, "flush log", self._flush.deferred, job.queue_id, recipients)

    async def _conclude(self, job: Job) -> None:
        keep = True
        try:
            if job.trouble is not Trouble.VANISHED and job.wish is not Wish.DELETE:
                await self._remember(job)
                keep = (job.kept and not job.expired) or job.left or job.trouble is not Trouble.NONE
                if job.expired:
                    log_expired(job)
                if (job.bounced or not job.fresh) and not await self._try(
                    job, "notify the sender; will try again", self._bounces.notify, job.message
                ):
                    log.info("{queue_id}: status=deferred (bounce failed)", queue_id=job.queue_id)
                    keep = True
                elif job.kept and not job.expired and job.wish is Wish.NONE:
                    await self._try(job, "delay warning", self._bounces.delayed, job.message)
                elif keep and job.wish is Wish.REQUEUE and job.trouble is Trouble.NONE:
                    keep = not await self._requeue(job)
            if not keep or job.wish is Wish.DELETE:
                await self._try(job, "remove delivery status logs", self._bounces.forget, job.queue_id)
        finally:
            if job.trouble is Trouble.VANISHED:
                self._active.done.pop(job.queue_id, None)
            elif job.wish is Wish.DELETE:
                self._remove(job)
            elif job.trouble is Trouble.DAMAGED:
                self._save_corrupt(job)
            elif keep:
                self._keep(job)
            else:
                self._remove(job)
            self._leave(job)

    async def _try(
        self, job: Job, what: str, operation: Callable[..., Deferred[Any] | None], *arguments: Any
    ) -> bool:
        """
        Ask another service for something, and log it if that fails or takes too long.

        @return: whether it was done.
        """
        try:
            asked = operation(*arguments)
            if asked is not None:
                await self._chores.limited(job.queue_id, what, asked)
        except TimeLimitExceeded:
            # It is in the log already.
            return False
        except IntakeError as refused:
            # A notice is mail, which cleanup may refuse like any other.
            log.warn("{queue_id}: {what}: {reason}", queue_id=job.queue_id, what=what, reason=str(refused))
            return False
        except Exception:
            log.failure("{queue_id}: {what}", queue_id=job.queue_id, what=what)
            return False
        return True

    def _expired(self, job: Job) -> bool:
        sender = job.sender
        is_bounce = not sender or sender.rpartition(b"@")[0].lower() == self._double_bounce
        return self._policy.expired(self._clock.seconds(), job.arrival_time, is_bounce)

    async def _requeue(self, job: Job) -> bool:
        """
        @return: whether those that are left are in the queue again, as a message of their own.
        """
        requeued = Deferred.fromCoroutine(self._requeuer.requeue(job.message))
        job.requeued = await self._try(job, "requeue", lambda: requeued)
        return job.requeued

    def _remove(self, job: Job) -> None:
        queue_id, where = job.queue_id, job.queue
        self._active.done.pop(queue_id, None)
        told = log_deleted if job.wish is Wish.DELETE else log_removed
        self._chores.run(queue_id, "remove", lambda: self._queue.remove(queue_id, where), told)

    def _keep(self, job: Job) -> None:
        queue_id, where = job.queue_id, job.queue
        if where is Queue.HOLD:
            # An operator has put it there.
            return
        now = self._clock.seconds()
        # What an operator wanted elsewhere, and could not be done, need not wait.
        due = now
        if job.wish is Wish.NONE:
            due = self._policy.next_attempt(now, job.arrival_time, self._random)
        self._chores.run(
            queue_id, "move to deferred", lambda: self._queue.move(queue_id, where, Queue.DEFERRED, due)
        )

    def _save_corrupt(self, job: Job) -> None:
        queue_id, where = job.queue_id, job.queue
        self._active.done.pop(queue_id, None)
        log.warn(
            'saving corrupt file "{queue_id}" from queue "{source}" to queue "corrupt"',
            queue_id=queue_id,
            source=where.value,
        )
        self._chores.run(
            queue_id, "move to corrupt", lambda: self._queue.move(queue_id, where, Queue.CORRUPT)
        )

    def _leave(self, job: Job) -> None:
        self._active.jobs.pop(job.queue_id, None)
        self._scheduler.end(job, self._clock.seconds())
        job.message.close()
        if job.leaving is not None:
            for waiting in job.leaving:
                waiting.callback(None)
        self._wake()


def _as_failed(outcome: Outcome) -> Outcome:
    """The same outcome as a final one; its 4.x.x status tells the sender why it was given up."""
    return Outcome(
        outcome.recipient,
        Action.BOUNCED,
        outcome.dsn,
        outcome.text,
        outcome.relay,
        outcome.remote_mta,
        outcome.diagnostic,
    )
