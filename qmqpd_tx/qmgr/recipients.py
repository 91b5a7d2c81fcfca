"""
Reads a message's recipients, finds out where they go, and hands them to the scheduler.

A slice at a time: the scheduler says when a message's next recipients are to be read and how many, so that
one with a million recipients passes through and stops nobody. The recipients of a slice are resolved a
piece at a time, so that the largest does not keep the reactor; those of one destination are handed over
together when all are resolved, so that they travel together.

Recipients of a dead destination or a throttled transport are deferred without a try. Mail for the local
double-bounce address is logged and discarded, which ends every loop of bounces. A resolver that fails
defers the recipient. A file that cannot be read on keeps the message for later; a damaged one is saved
to C{corrupt} when the deliveries under way have ended. Answers to qmgr(8)'s message and resolver parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig, IMailQueue, IRouter, MessageDamaged
from qmqpd_tx.message import Recipient, RecipientSlice, RecipientState, Route
from qmqpd_tx.qmgr.chores import Chores, Operation, TimeLimitExceeded
from qmqpd_tx.qmgr.clog import ClogWarnings
from qmqpd_tx.qmgr.deliver import Deliveries
from qmqpd_tx.qmgr.eager import eager
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble, Wish
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.status import Action, DestinationFailure, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

_Groups = dict[tuple[str, str], list[Recipient]]

_PIECE: Final = 500
"""How many recipients are resolved, or handed over, at a time."""

_UNRESOLVED: Final = DestinationFailure("4.3.0", "address resolver failure")
_DEFERRED_TRANSPORT: Final = DestinationFailure("4.3.2", "deferred transport")


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
        self.groups: _Groups = {}
        self.ready: deque[tuple[tuple[str, str], list[Recipient]]] | None = None

    def left(self) -> list[Recipient]:
        """
        @return: those who were not handed over.
        """
        groups = self.groups.values() if self.ready is None else (group for _, group in self.ready)
        grouped = [recipient for group in groups for recipient in group]
        return [*grouped, *self.late, *self.recipients[self.at :]]


class RecipientReader:
    """The way of recipients from the queue file to the scheduler."""

    def __init__(
        self,
        *,
        config: IConfig,
        queue: IMailQueue,
        clock: IReactorTime,
        router: IRouter,
        active: ActiveQueue,
        chores: Chores,
        scheduler: IQueueScheduler,
        deliveries: Deliveries,
        clog: ClogWarnings,
        check: Callable[[Job], None],
        wake: Callable[[], None],
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param queue: the store.
        @param router: resolves recipients.
        @param active: counts recipients in memory.
        @param scheduler: where recipients go.
        @param deliveries: logs and counts the outcome of those that are not tried.
        @param clog: is told what was added where.
        @param check: called with a message whose work may have ended.
        @param wake: called when the scheduler has something new.
        """
        self._queue = queue
        self._clock = clock
        self._router = router
        self._active = active
        self._chores = chores
        self._scheduler = scheduler
        self._deliveries = deliveries
        self._clog = clog
        self._check = check
        self._wake = wake
        self._slices: deque[_Slice] = deque()
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{double_bounce_sender}, C{myorigin}, C{local_transport} and
            C{defer_transports} are read.
        """
        self._defer_transports = frozenset(config.words("defer_transports"))
        self._local_transport = config.string("local_transport").partition(":")[0]
        double_bounce = config.string("double_bounce_sender").encode("utf-8", "surrogateescape").lower()
        self._double_bounce = double_bounce.partition(b"@")[0] + b"@"
        self._origin = config.string("myorigin").encode("utf-8", "surrogateescape").lower()

    def deferred_transport(self, transport: str) -> bool:
        """
        @return: whether a transport delivers only what is flushed (C{defer_transports}).
        """
        return transport in self._defer_transports

    def begin(self, job: Job) -> None:
        """
        A message has become active: read its first slice.
        """
        count = job.message.recipient_count
        self._read(job, self._scheduler.begin(job, self._clock.seconds(), count))

    def step(self) -> bool:
        """
        Go on with a slice, or read the next one of a message if one wants it.

        @return: whether there was one.
        """
        if self._slices:
            self._go_on(self._slices.popleft())
            return True
        wanted = self._scheduler.refill(self._clock.seconds())
        if wanted is None:
            return False
        job, size = wanted
        if job.next_position is None or job.trouble is not Trouble.NONE:
            self._scheduler.refilled(job, 0, False, self._clock.seconds())
        else:
            self._read(job, size)
        return True

    def close(self) -> None:
        """
        Go on with nothing; the recipients stay in the file.
        """
        slices, self._slices = self._slices, deque()
        for each in slices:
            each.job.busy -= 1
            self._chores.end()

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
            self._bug(Failure(), job)  # type: ignore[no-untyped-call]
        self._ended(job)
        self._chores.ended(operation)

    def _not_found(self, failure: Failure, job: Job, operation: Operation) -> None:
        self._unreadable(failure, job)
        self._scheduler.refilled(job, 0, False, self._clock.seconds())
        self._ended(job)
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
            route = self._resolve(job, recipient)
            if not isinstance(route, Deferred):
                self._schedule_one(job, recipient, route)
                return
            alone = _Slice(job, recipients)
            alone.at = 1
            alone.late.append(recipient)
            alone.answers.append(route)
            self._begin(alone)
            return
        for recipient in recipients:
            todo[recipient.position] = recipient
        self._begin(_Slice(job, recipients))

    def _begin(self, slice_: _Slice) -> None:
        slice_.job.busy += 1
        self._chores.begin()
        if len(slice_.recipients) > _PIECE:
            self._slices.append(slice_)
        else:
            self._go_on(slice_)

    def _go_on(self, slice_: _Slice) -> None:
        """Take a slice as far as it goes without waiting, and without taking long."""
        job = slice_.job
        room = _PIECE
        try:
            if job.wish is not Wish.NONE:
                self._drop(slice_)
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
            self._bug(Failure(), job)  # type: ignore[no-untyped-call]
            self._drop(slice_)
        if slice_.ready is None or slice_.ready:
            self._slices.append(slice_)
            # Many outcomes are not to pile up.
            self._check(job)
        else:
            self._ended(job)
            self._chores.end()

    def _drop(self, slice_: _Slice) -> None:
        """Those who were not handed over stay in the file, for another attempt."""
        job = slice_.job
        left = [recipient for recipient in slice_.left() if recipient.position in job.todo]
        slice_.at = len(slice_.recipients)
        slice_.late.clear()
        slice_.answers.clear()
        slice_.ready = deque()
        for recipient in left:
            del job.todo[recipient.position]
        self._scheduler.forgo(job, len(left), self._clock.seconds())

    def _resolve_some(self, slice_: _Slice, count: int) -> None:
        job, at = slice_.job, slice_.at
        for recipient in slice_.recipients[at : at + count]:
            route = self._resolve(job, recipient)
            slice_.at += 1
            if isinstance(route, Deferred):
                slice_.late.append(recipient)
                slice_.answers.append(route)
            else:
                self._group(job, slice_.groups, recipient, route)

    def _without_done(self, job: Job, recipients: list[Recipient]) -> list[Recipient]:
        """Leave out those that are done although the file does not say so; and tell it again."""
        done = self._active.done.get(job.queue_id)
        if not done:
            return recipients
        repeated = [recipient for recipient in recipients if recipient.position in done]
        left = [recipient for recipient in recipients if recipient.position not in done]
        if repeated:
            # May empty the very set.
            self._deliveries.mark(job, repeated, RecipientState.DELIVERED)
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

    def _bug(self, failure: Failure, job: Job) -> None:
        log.failure("{queue_id}: read recipients", failure, queue_id=job.queue_id)
        job.next_position = None
        if job.trouble is Trouble.NONE:
            job.trouble = Trouble.READ

    def _ended(self, job: Job) -> None:
        job.busy -= 1
        if job.todo:
            self._wake()
        else:
            self._check(job)

    def _resolve(self, job: Job, recipient: Recipient) -> Route | Deferred[Route | None] | None:
        try:
            route: Route | Deferred[Route | None] = self._router.resolve(job.sender, recipient.address)
        except Exception:
            log.failure("{queue_id}: resolve", queue_id=job.queue_id)
            return None
        if isinstance(route, Deferred):
            answer = self._chores.limited(job.queue_id, "resolve", route)
            return answer.addErrback(self._not_resolved, job)
        return route

    def _not_resolved(self, failure: Failure, job: Job) -> None:
        if not isinstance(failure.value, TimeLimitExceeded):
            log.failure("{queue_id}: resolve", failure, queue_id=job.queue_id)

    def _await(self, slice_: _Slice) -> None:
        """Wait for the late answers, so that recipients of one destination still travel together."""
        answers, slice_.answers = slice_.answers, []

        def resolved(results: list[Any]) -> None:
            if slice_.job.wish is Wish.NONE:
                late, slice_.late = slice_.late, []
                try:
                    for recipient, (_, route) in zip(late, results, strict=True):
                        self._group(slice_.job, slice_.groups, recipient, route)
                except Exception:
                    self._bug(Failure(), slice_.job)  # type: ignore[no-untyped-call]
                    slice_.late = late
                    self._drop(slice_)
            self._go_on(slice_)

        DeferredList(answers).addCallback(resolved).addErrback(self._bug, slice_.job)

    def _group(self, job: Job, groups: _Groups, recipient: Recipient, route: Route | None) -> None:
        if route is None:
            self._suspend(job, [recipient], _UNRESOLVED)
            return
        if self._discarded(job, recipient, route):
            return
        if route.recipient != recipient.address:
            recipient = Recipient(route.recipient, recipient.original, recipient.position)
        key = (route.transport, route.nexthop)
        group = groups.get(key)
        if group is None:
            groups[key] = [recipient]
        else:
            group.append(recipient)

    def _schedule_one(self, job: Job, recipient: Recipient, route: Route | None) -> None:
        """The short way of most mail; the same as L{_group} and L{_schedule}."""
        if route is None:
            self._suspend(job, [recipient], _UNRESOLVED)
            return
        if self._discarded(job, recipient, route):
            return
        if route.recipient != recipient.address:
            recipient = Recipient(route.recipient, recipient.original, recipient.position)
        self._hand_over(job, route.transport, route.nexthop, [recipient])

    def _schedule(self, slice_: _Slice, room: int) -> None:
        job, ready = slice_.job, slice_.ready
        if ready is None:
            ready = slice_.ready = deque(slice_.groups.items())
        while ready and room > 0:
            (transport, nexthop), recipients = ready.popleft()
            room -= len(recipients)
            if job.verp is not None or self._scheduler.per_recipient(transport):
                # One sender each, or one destination each.
                for recipient in recipients:
                    self._hand_over(job, transport, nexthop, [recipient])
            else:
                self._hand_over(job, transport, nexthop, recipients)

    def _hand_over(self, job: Job, transport: str, nexthop: str, recipients: list[Recipient]) -> None:
        now = self._clock.seconds()
        scheduler = self._scheduler
        key = nexthop
        if scheduler.per_recipient(transport):
            key = recipients[0].address.decode("latin-1")
        if job.urgent:
            scheduler.revive(transport, key)
        failure = scheduler.dead(transport, key, now)
        if failure is None and transport in self._defer_transports and not job.flushed:
            failure = _DEFERRED_TRANSPORT
        if failure is not None:
            self._suspend(job, recipients, failure)
        else:
            scheduler.add(job, transport, nexthop, recipients, now)
            self._clog.added(transport, key, now)

    def _suspend(self, job: Job, recipients: list[Recipient], failure: DestinationFailure) -> None:
        self._scheduler.forgo(job, len(recipients), self._clock.seconds())
        self._deliveries.suspend(job, recipients, failure)

    def _discarded(self, job: Job, recipient: Recipient, route: Route) -> bool:
        """Whether it was mail for the double-bounce address, which ends here."""
        size = len(self._double_bounce)
        address = recipient.address
        if address[:size].lower() != self._double_bounce:
            return False
        if route.transport != self._local_transport and address[size:].lower() != self._origin:
            return False
        text = "undeliverable postmaster notification discarded"
        outcome = Outcome(recipient, Action.SENT, "2.0.0", text)
        self._scheduler.forgo(job, 1, self._clock.seconds())
        self._deliveries.settle(job, [recipient], [outcome], "qmgr")
        return True
