"""
Reads a message's recipients, finds out where they go, and hands them to the scheduler.

A slice at a time: the scheduler says when a message's next recipients are to be read and how many, so that one
with a million recipients passes through and stops nobody.

Recipients of a dead destination or a throttled transport are deferred without a try. Mail for the local
double-bounce address is logged and discarded, which ends every loop of bounces. A resolver that fails
defers the recipient. A file that cannot be read on keeps the message for later; a damaged one is saved
to C{corrupt} when the deliveries under way have ended. Answers to qmgr(8)'s message and resolver parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig, IMailQueue, IRouter, MessageDamaged
from qmqpd_tx.message import Recipient, RecipientSlice, RecipientState, Route
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.deliver import Deliveries
from qmqpd_tx.qmgr.eager import eager
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.status import Action, DestinationFailure, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

_Groups = dict[tuple[str, str], list[Recipient]]

_UNRESOLVED = DestinationFailure("4.3.0", "address resolver failure")


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
        self._check = check
        self._wake = wake
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{double_bounce_sender}, C{myorigin} and C{local_transport} are read.
        """
        self._local_transport = config.string("local_transport").partition(":")[0]
        double_bounce = config.string("double_bounce_sender").encode("utf-8", "surrogateescape").lower()
        self._double_bounce = double_bounce.partition(b"@")[0] + b"@"
        self._origin = config.string("myorigin").encode("utf-8", "surrogateescape").lower()

    def begin(self, job: Job) -> None:
        """
        A message has become active: read its first slice.
        """
        self._read(job, self._scheduler.begin(job, self._clock.seconds()))

    def step(self) -> bool:
        """
        Read the next slice of a message, if one wants it.

        @return: whether there was one.
        """
        wanted = self._scheduler.refill(self._clock.seconds())
        if wanted is None:
            return False
        job, size = wanted
        if job.next_position is None or job.trouble is not Trouble.NONE:
            self._scheduler.refilled(job, 0, False, self._clock.seconds())
        else:
            self._read(job, size)
        return True

    def _read(self, job: Job, size: int) -> None:
        job.busy += 1
        self._chores.begin()
        eager(
            job.message.recipients(job.next_position, size),
            lambda found: self._found(found, job),
            lambda failure: self._not_found(failure, job),
        )

    def _found(self, found: RecipientSlice, job: Job) -> None:
        try:
            self._got(found, job)
        except Exception:
            self._bug(Failure(), job)  # type: ignore[no-untyped-call]
        self._ended(None, job)

    def _not_found(self, failure: Failure, job: Job) -> None:
        self._unreadable(failure, job)
        self._scheduler.refilled(job, 0, False, self._clock.seconds())
        self._ended(None, job)

    def _got(self, found: RecipientSlice, job: Job) -> None:
        job.next_position = found.next_position
        recipients = found.recipients
        if self._active.done:
            recipients = self._without_done(job, recipients)
        more = found.next_position is not None
        self._scheduler.refilled(job, len(recipients), more, self._clock.seconds())
        if not recipients:
            return
        todo = job.todo
        for recipient in recipients:
            todo[recipient.position] = recipient
        if len(recipients) == 1:
            recipient = recipients[0]
            route = self._resolve(job, recipient)
            if not isinstance(route, Deferred):
                self._schedule_one(job, recipient, route)
                return
            self._await(job, {}, [recipient], [route])
            return
        groups: _Groups = {}
        late: list[Recipient] = []
        answers: list[Deferred[Route | None]] = []
        for recipient in recipients:
            route = self._resolve(job, recipient)
            if isinstance(route, Deferred):
                late.append(recipient)
                answers.append(route)
            else:
                self._group(job, groups, recipient, route)
        if late:
            self._await(job, groups, late, answers)
        else:
            self._schedule(job, groups)

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

    def _ended(self, _: object, job: Job) -> None:
        job.busy -= 1
        if job.todo:
            self._wake()
        else:
            self._check(job)
        self._chores.end()

    def _resolve(self, job: Job, recipient: Recipient) -> Route | Deferred[Route | None] | None:
        try:
            route: Route | Deferred[Route | None] = self._router.resolve(job.sender, recipient.address)
        except Exception:
            log.failure("{queue_id}: resolve", queue_id=job.queue_id)
            return None
        if isinstance(route, Deferred):
            return route.addErrback(self._not_resolved, job)
        return route

    def _not_resolved(self, failure: Failure, job: Job) -> None:
        log.failure("{queue_id}: resolve", failure, queue_id=job.queue_id)

    def _await(
        self,
        job: Job,
        groups: _Groups,
        late: Sequence[Recipient],
        answers: Sequence[Deferred[Route | None]],
    ) -> None:
        """Wait for the late answers, so that recipients of one destination still travel together."""
        job.busy += 1
        self._chores.begin()

        def resolved(results: list[Any]) -> None:
            for recipient, (_, route) in zip(late, results, strict=True):
                self._group(job, groups, recipient, route)
            self._schedule(job, groups)

        DeferredList(answers).addCallback(resolved).addErrback(self._bug, job).addBoth(self._ended, job)

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

    def _schedule(self, job: Job, groups: _Groups) -> None:
        for (transport, nexthop), recipients in groups.items():
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
        failure = scheduler.dead(transport, key, now)
        if failure is not None:
            self._suspend(job, recipients, failure)
        else:
            scheduler.add(job, transport, nexthop, recipients, now)

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
