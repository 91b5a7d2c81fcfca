"""
Reads a message's recipients from its queue file.

A slice at a time: the scheduler says when a message's next recipients are to be read and how many, so that
one with a million recipients passes through and stops nobody. What is read goes to
L{resolve<qmqpd_tx.qmgr.resolve>}; those that are done although the file does not say so are left out, and
marked again.

A file that cannot be read on keeps the message for later; a damaged one is saved to C{corrupt} when the
deliveries under way have ended. Answers to qmgr(8)'s message part.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.eager import eager
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageDamaged
from qmqpd_tx.message import Recipient, RecipientSlice, RecipientState
from qmqpd_tx.qmgr.chores import Chores, Operation
from qmqpd_tx.qmgr.handover import Handover
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble, Wish
from qmqpd_tx.qmgr.resolve import RecipientResolver
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.settle import Settler

log = Logger(namespace="qmqpd_tx.qmgr")


class RecipientReader:
    """The way of recipients from the queue file into memory."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        active: ActiveQueue,
        chores: Chores,
        scheduler: IQueueScheduler,
        resolver: RecipientResolver,
        handover: Handover,
        settler: Settler,
    ) -> None:
        """
        @param clock: tells the scheduler the time.
        @param active: knows who is done although the file does not say so.
        @param chores: where reads are kept an eye on.
        @param scheduler: says what to read.
        @param resolver: takes what was read.
        @param handover: takes recipients that come alone, and are resolved at once.
        @param settler: marks recipients.
        """
        self._clock = clock
        self._active = active
        self._chores = chores
        self._scheduler = scheduler
        self._resolver = resolver
        self._handover = handover
        self._settler = settler

    def begin(self, job: Job) -> None:
        """
        A message has become active: read its first slice.
        """
        count = job.message.recipient_count
        self._read(job, self._scheduler.begin(job, self._clock.seconds(), count))

    def step(self) -> bool:
        """
        Go on with a slice that was read, or read the next one of a message that wants it.

        @return: whether there was one.
        """
        if self._resolver.slices:
            self._resolver.go_on()
            return True
        wanted = self._scheduler.refill(self._clock.seconds())
        if wanted is None:
            return False
        job, size = wanted
        if job.next_position is None or job.trouble is not Trouble.NONE:
            # As if it had been read to its end, so that it comes to its own.
            job.busy += 1
            job.next_position = None
            self._scheduler.refilled(job, 0, False, self._clock.seconds())
            self._resolver.ended(job)
        else:
            self._read(job, size)
        return True

    def _read(self, job: Job, size: int) -> None:
        job.busy += 1
        operation = self._chores.watch(job.queue_id, "read recipients")
        eager(
            job.message.recipients(job.next_position, size),
            lambda found: self._found(found, job, operation),
            lambda failure: self._not_found(failure, job, operation),
        )

    def _found(self, found: RecipientSlice, job: Job, operation: Operation) -> None:
        try:
            self._got(found, job)
        except Exception:
            self._resolver.bug(Failure(), job)  # type: ignore[no-untyped-call]
            self._resolver.drop(job, found.recipients)
        self._resolver.ended(job)
        self._chores.ended(operation)

    def _not_found(self, failure: Failure, job: Job, operation: Operation) -> None:
        self._unreadable(failure, job)
        self._scheduler.refilled(job, 0, False, self._clock.seconds())
        self._resolver.ended(job)
        self._chores.ended(operation)

    def _got(self, found: RecipientSlice, job: Job) -> None:
        recipients = found.recipients
        more = found.next_position is not None
        if job.wish is not Wish.NONE:
            # An operator was faster.
            job.left = job.left or more or bool(recipients)
            job.next_position = None
            self._scheduler.refilled(job, 0, False, self._clock.seconds())
            return
        job.next_position = found.next_position
        if self._active.done:
            recipients = self._without_done(job, recipients)
        self._scheduler.refilled(job, len(recipients), more, self._clock.seconds())
        if not recipients:
            return
        todo = job.todo
        if len(recipients) == 1:
            recipient = recipients[0]
            todo[recipient.position] = recipient
            route = self._resolver.resolve(job, recipient)
            if isinstance(route, Deferred):
                self._resolver.begin_late(job, recipient, route)
            else:
                self._handover.one(job, recipient, route)
            return
        for recipient in recipients:
            todo[recipient.position] = recipient
        self._resolver.begin(job, recipients)

    def _without_done(self, job: Job, recipients: list[Recipient]) -> list[Recipient]:
        """Leave out those that are done although the file does not say so; and tell it again."""
        done = self._active.done.get(job.queue_id)
        if not done:
            return recipients
        repeated = [recipient for recipient in recipients if recipient.position in done]
        left = [recipient for recipient in recipients if recipient.position not in done]
        if repeated:
            # May empty the very set.
            self._settler.mark(job, repeated, RecipientState.DELIVERED)
        return left

    def _unreadable(self, failure: Failure, job: Job) -> None:
        damaged = isinstance(failure.value, MessageDamaged)
        job.next_position = None
        if job.trouble is Trouble.NONE:
            job.trouble = Trouble.DAMAGED if damaged else Trouble.READ
        log.warn(
            "{queue_id}: read recipients: {reason}",
            queue_id=job.queue_id,
            reason=failure.getErrorMessage(),
        )
