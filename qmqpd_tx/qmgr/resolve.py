"""
Finds out where recipients go, and hands them over.

Takes the recipients of a message a slice at a time, as they are read. They are resolved, and handed over, a
piece at a time, so that the largest slice does not keep the reactor; those of one destination are handed
over together when all are resolved, so that they travel together.

A resolver that fails, or takes longer than C{qmgr_ipc_timeout}, defers the recipient. What an operator puts
aside meanwhile is dropped here and stays in the queue file. Nothing here is durable. Answers to qmgr(8)'s
message and resolver parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.message import Recipient, Route
from qmqpd_tx.qmgr.chores import Chores, TimeLimitExceeded
from qmqpd_tx.qmgr.handover import Groups, Handover
from qmqpd_tx.qmgr.job import Job, Trouble, Wish
from qmqpd_tx.qmgr.routes import Routes
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler

log = Logger(namespace="qmqpd_tx.qmgr")

_PIECE: Final = 500
"""How many recipients are resolved, or handed over, at a time."""


class _Slice:
    """
    Recipients on their way from the file to the scheduler.

    @ivar recipients: all of them.
    @ivar at: how many were resolved, or asked for.
    @ivar late: those whose routes have not come yet.
    @ivar answers: give those.
    @ivar groups: the others, by transport and next hop.
    @ivar ready: those groups that wait to be handed over; L{None} as long as not all are resolved.
    """

    __slots__ = ("answers", "at", "groups", "job", "late", "ready", "recipients")

    def __init__(self, job: Job, recipients: Sequence[Recipient]) -> None:
        self.job = job
        self.recipients = recipients
        self.at = 0
        self.late: list[Recipient] = []
        self.answers: list[Deferred[Route | None]] = []
        self.groups: Groups = {}
        self.ready: deque[tuple[tuple[str, str], list[Recipient]]] | None = None

    def left(self) -> list[Recipient]:
        """
        @return: those who were not handed over.
        """
        groups = self.groups.values() if self.ready is None else (group for _, group in self.ready)
        grouped = [recipient for group in groups for recipient in group]
        return [*grouped, *self.late, *self.recipients[self.at :]]


class RecipientResolver:
    """
    The way of recipients from the slice that was read to the scheduler.

    @ivar slices: those that L{go_on} with.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        routes: Routes,
        chores: Chores,
        scheduler: IQueueScheduler,
        handover: Handover,
        check: Callable[[Job], None],
        wake: Callable[[], None],
    ) -> None:
        """
        @param clock: tells the scheduler the time.
        @param routes: resolves recipients.
        @param chores: limits how long an answer is waited for.
        @param scheduler: is told who does not come after all.
        @param handover: takes those that are resolved.
        @param check: called with a message whose work may have ended.
        @param wake: called when the scheduler has something new.
        """
        self._clock = clock
        self._routes = routes
        self._chores = chores
        self._scheduler = scheduler
        self._handover = handover
        self._check = check
        self._wake = wake
        self.slices: deque[_Slice] = deque()

    def begin(self, job: Job, recipients: Sequence[Recipient]) -> None:
        """
        Take a slice. It is done at once if it is small and nothing has to be waited for.

        @param recipients: in C{job.todo}.
        """
        self._begin(_Slice(job, recipients))

    def begin_late(self, job: Job, recipient: Recipient, answer: Deferred[Route | None]) -> None:
        """
        Take a recipient that came alone and was asked for, as soon as the answer is there.

        @param answer: from L{resolve}.
        """
        alone = _Slice(job, [recipient])
        alone.at = 1
        alone.late.append(recipient)
        alone.answers.append(answer)
        self._begin(alone)

    def go_on(self) -> None:
        """
        Go on with the first of L{slices}.
        """
        self._go_on(self.slices.popleft())

    def close(self) -> None:
        """
        Go on with nothing; the recipients stay in the file.
        """
        slices, self.slices = self.slices, deque()
        for each in slices:
            each.job.busy -= 1
            self._chores.end()

    def resolve(self, job: Job, recipient: Recipient) -> Route | Deferred[Route | None] | None:
        """
        Ask where a recipient goes.

        @return: its route; L{None}: the resolver has failed; or a Deferred that gives one of these.
        """
        try:
            route: Route | Deferred[Any] = self._routes.resolve(job.message.envelope, recipient.address)
        except Exception:
            log.failure("{queue_id}: resolve", queue_id=job.queue_id)
            return None
        if isinstance(route, Deferred):
            answer: Deferred[Route | None] = self._chores.limited(job.queue_id, "resolve", route)
            return answer.addErrback(self._not_resolved, job)
        return route

    def ended(self, job: Job) -> None:
        """
        A step with recipients of a message has ended.
        """
        job.busy -= 1
        if job.todo or job.next_position is not None:
            # Also when nobody of a slice was scheduled: there are others to be read.
            self._wake()
        if not job.todo:
            self._check(job)

    def bug(self, failure: Failure, job: Job) -> None:
        """
        It ended in an exception: the message is kept, for another attempt.
        """
        log.failure("{queue_id}: read recipients", failure, queue_id=job.queue_id)
        job.next_position = None
        if job.trouble is Trouble.NONE:
            job.trouble = Trouble.READ

    def drop(self, job: Job, recipients: Iterable[Recipient]) -> None:
        """
        Those who were not handed over stay in the file, for another attempt.
        """
        left = [recipient for recipient in recipients if recipient.position in job.todo]
        for recipient in left:
            del job.todo[recipient.position]
        self._scheduler.forgo(job, len(left), self._clock.seconds())

    def _begin(self, slice_: _Slice) -> None:
        slice_.job.busy += 1
        self._chores.begin()
        if len(slice_.recipients) > _PIECE:
            self.slices.append(slice_)
        else:
            self._go_on(slice_)

    def _go_on(self, slice_: _Slice) -> None:
        """Take a slice as far as it goes without waiting, and without taking long."""
        job = slice_.job
        room = _PIECE
        try:
            if job.wish is not Wish.NONE:
                self._drop_slice(slice_)
                job.left = True
            if slice_.at < len(slice_.recipients):
                self._resolve_some(slice_, room)
                room -= _PIECE if len(slice_.recipients) > _PIECE else 0
            if slice_.at >= len(slice_.recipients):
                if slice_.answers:
                    self._await(slice_)
                    return
                self._schedule(slice_, room)
        except Exception:
            self.bug(Failure(), job)  # type: ignore[no-untyped-call]
            self._drop_slice(slice_)
        if slice_.ready is None or slice_.ready:
            self.slices.append(slice_)
            # Many outcomes are not to pile up.
            self._check(job)
        else:
            self.ended(job)
            self._chores.end()

    def _resolve_some(self, slice_: _Slice, count: int) -> None:
        job, at = slice_.job, slice_.at
        for recipient in slice_.recipients[at : at + count]:
            route = self.resolve(job, recipient)
            if isinstance(route, Deferred):
                slice_.late.append(recipient)
                slice_.answers.append(route)
            else:
                self._handover.group(job, slice_.groups, recipient, route)
            slice_.at += 1

    def _await(self, slice_: _Slice) -> None:
        """Wait for the late answers, so that recipients of one destination still travel together."""
        answers, slice_.answers = slice_.answers, []

        def resolved(results: list[Any]) -> None:
            if slice_.job.wish is Wish.NONE:
                late, slice_.late = slice_.late, []
                taken = 0
                try:
                    for recipient, (_, route) in zip(late, results, strict=True):
                        self._handover.group(slice_.job, slice_.groups, recipient, route)
                        taken += 1
                except Exception:
                    self.bug(Failure(), slice_.job)  # type: ignore[no-untyped-call]
                    slice_.late = late[taken:]
                    self._drop_slice(slice_)
            self._go_on(slice_)

        DeferredList(answers).addCallback(resolved).addErrback(self.bug, slice_.job)

    def _schedule(self, slice_: _Slice, room: int) -> None:
        job, ready = slice_.job, slice_.ready
        if ready is None:
            ready = slice_.ready = deque(slice_.groups.items())
        while ready and room > 0:
            (transport, nexthop), recipients = ready[0]
            room -= len(recipients)
            self._handover.some(job, transport, nexthop, recipients)
            # Only now, so that nobody is lost from sight when this goes wrong.
            ready.popleft()

    def _drop_slice(self, slice_: _Slice) -> None:
        left = slice_.left()
        slice_.at = len(slice_.recipients)
        slice_.late.clear()
        slice_.answers.clear()
        slice_.ready = deque()
        self.drop(slice_.job, left)

    def _not_resolved(self, failure: Failure, job: Job) -> None:
        if not isinstance(failure.value, TimeLimitExceeded):
            log.failure("{queue_id}: resolve", failure, queue_id=job.queue_id)
