"""
Runs deliveries, and makes of each outcome what it has to become.

Takes entries from the scheduler, gives L{DeliveryRequest}s to transports, and from their reports: log lines
as the delivery agent would write them, marks in the queue file for who is done, records in the bounce log
for who failed for good, and feedback for the scheduler.

Durability: a recipient that failed for good is marked only after the bounce service says that the record is
safe. A delivered recipient is marked at once, unless the message is at its end with it at the first try,
and will be removed anyway. A mark that cannot be written is remembered, so that this process does not deliver
twice.

A transport that fails (a bug), is missing, or does not report on everybody defers the recipients and is
left alone for C{transport_retry_time}. A delivery that takes longer than the transport's C{daemon_timeout}
is cancelled; what becomes of one that does not even end then is in L{hung<qmqpd_tx.qmgr.hung>}. Answers to
qmgr(8)'s deliver and entry parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, Entry, IBounces, IConfig, IDeliveryTransport, IMailQueue
from qmqpd_tx.message import Recipient, RecipientState
from qmqpd_tx.qmgr.chores import Chores, Operation, TimeLimitExceeded
from qmqpd_tx.qmgr.deadlines import Deadlines, Delivery
from qmqpd_tx.qmgr.hung import HungDeliveries
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble
from qmqpd_tx.qmgr.lines import Attempt
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.verp import verp_sender
from qmqpd_tx.status import Action, DeliveryReport, DestinationFailure, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

_UNAVAILABLE: Final = DestinationFailure("4.3.0", "mail transport unavailable")
_UNKNOWN_ERROR: Final = DestinationFailure("4.3.0", "unknown mail transport error")
_INTERRUPTED: Final = DestinationFailure("4.3.2", "delivery interrupted: the mail system is stopping")
_SUSPENDED: Final = "delivery temporarily suspended: "


class ITransports(Protocol):
    """Where transports come from."""

    def get(self, name: str) -> IDeliveryTransport | None:
        """
        @param name: a master.cf name.
        @return: the transport, or L{None} if there is none of that name.
        """


class Deliveries:
    """
    @ivar under_way: the deliveries that have not reported yet.
    @ivar hung: those that were given up, and have not reported yet either.
    @ivar check: called with a message whose work may have ended.
    """

    def __init__(
        self,
        *,
        config: IConfig,
        queue: IMailQueue,
        clock: IReactorTime,
        transports: ITransports,
        bounces: IBounces,
        active: ActiveQueue,
        chores: Chores,
        scheduler: IQueueScheduler,
        check: Callable[[Job], None],
        wake: Callable[[], None],
        time_limit: Callable[[str], float],
        process_limit: Callable[[str], int],
        slots_changed: Callable[[], None],
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param transports: finds a transport by name.
        @param bounces: remembers who failed for good.
        @param scheduler: says what is next.
        @param check: called with a message whose work may have ended.
        @param wake: called when the scheduler may have more.
        @param time_limit: how long a delivery of a transport may take, seconds.
        @param process_limit: how many deliveries a transport may run, 0 for any number.
        @param slots_changed: called when a delivery begins or ceases to hang.
        """
        self._queue = queue
        self._clock = clock
        self._transports = transports
        self._bounces = bounces
        self._active = active
        self._chores = chores
        self._scheduler = scheduler
        self.check = check
        self._wake = wake
        self.under_way: dict[Entry, Delivery] = {}
        self.hung = HungDeliveries(
            queue=queue,
            active=active,
            chores=chores,
            mark=self.mark,
            process_limit=process_limit,
            changed=slots_changed,
        )
        self._deadlines = Deadlines(clock, self.under_way, time_limit, self._give_up)
        self._stopping = False
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{delay_logging_resolution_limit} and C{soft_bounce} are read.
        """
        self._resolution = config.integer("delay_logging_resolution_limit")
        self._soft_bounce = config.boolean("soft_bounce")
        self._deadlines.reconfigure()

    def step(self) -> bool:
        """
        Begin the next delivery.

        @return: whether there was one.
        """
        started = self._clock.seconds()
        entry: Entry | None = self._scheduler.next(started)
        if entry is None:
            return False
        job: Job = entry.job
        if job.trouble is Trouble.VANISHED:
            self._scheduler.done(entry, None, started)
            self._drop(job, entry.recipients)
            return True
        name = entry.destination.transport
        transport = self._transports.get(name)
        if transport is None:
            log.warn("connect to transport private/{transport}: No such file or directory", transport=name)
            self._throttle(entry, _UNAVAILABLE, started)
            return True
        recipients = entry.recipients
        if job.late is not None:
            recipients = self._without_late(job, recipients)
            if not recipients:
                self._scheduler.done(entry, None, started)
                self.check(job)
                return True
        if self.hung.deliveries and self.hung.all_slots(name):
            self._throttle(entry, _UNAVAILABLE, started)
            return True
        sender = job.sender
        if job.verp is not None:
            sender = verp_sender(sender, job.verp, recipients[0].address)
        message = job.message
        request = DeliveryRequest(
            queue_id=job.queue_id,
            transport=name,
            nexthop=entry.nexthop,
            sender=sender,
            recipients=recipients,
            content=message.content,
            envelope=message.envelope,
        )
        delivery: Deferred[DeliveryReport]
        try:
            delivery = transport.deliver(request)
        except Exception:
            delivery = fail()
        self._chores.begin()
        deadline = started + self._deadlines.limit(name)
        self.under_way[entry] = Delivery(delivery, started, deadline)
        delivery.addCallbacks(
            self._reported,
            self._broke,
            callbackArgs=(entry, transport.program, started),
            errbackArgs=(entry, started),
        )
        delivery.addErrback(self._bug, entry)
        if deadline < self._deadlines.next and entry in self.under_way:
            self._deadlines.look_at(deadline)
        return True

    def cancel(self) -> None:
        """
        End the deliveries under way: what is certain is reported, the rest is deferred.
        """
        self._stopping = True
        for delivery in list(self.under_way.values()):
            delivery.report.cancel()

    def stop(self) -> None:
        """
        No more time limits for deliveries.
        """
        self._deadlines.stop()

    def _give_up(self, entry: Entry, delivery: Delivery) -> None:
        """The transport does not answer any more: its recipients must not wait for it."""
        del self.under_way[entry]
        self.hung.add(entry)
        self._throttle(entry, _UNKNOWN_ERROR, delivery.started)
        self._chores.end()
        self._wake()

    def _without_late(self, job: Job, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
        """Leave out those who have it already, by a delivery that had been given up."""
        late = job.late or ()
        for recipient in recipients:
            if recipient.position in late:
                job.todo.pop(recipient.position, None)
        return [recipient for recipient in recipients if recipient.position not in late]

    def suspend(self, job: Job, recipients: Sequence[Recipient], failure: DestinationFailure) -> None:
        """
        Defer recipients without a try.

        @param failure: why, in the words of the log.
        """
        outcomes = [
            Outcome(recipient, Action.DEFERRED, failure.dsn, failure.text) for recipient in recipients
        ]
        # The error(8) agent does this in Postfix, and signs.
        self.settle(job, recipients, outcomes, "error")

    def settle(
        self,
        job: Job,
        recipients: Sequence[Recipient],
        outcomes: Sequence[Outcome],
        program: str,
        started: float | None = None,
        setup: float = 0.0,
        connection_uses: int = 1,
    ) -> None:
        """
        Log the outcomes and see that each has its consequence.

        @param recipients: those who were tried.
        @param outcomes: one for each of them; what is missing counts as deferred.
        @param program: the delivery agent's name for the log.
        @param started: when the delivery began, POSIX seconds; L{None} for none.
        @param setup: seconds it spent on connection set-up.
        @param connection_uses: how many deliveries have used the connection.
        """
        ended = self._clock.seconds()
        attempt = Attempt(
            job,
            program,
            ended if started is None else started,
            setup,
            ended,
            self._resolution,
            connection_uses,
        )
        todo = job.todo
        known = 0
        sent: list[Recipient] = []
        bounced: list[Outcome] = []
        for outcome in outcomes:
            recipient = outcome.recipient
            action = outcome.action
            if todo.pop(recipient.position, None) is None:
                log.warn(
                    "{queue_id}: {transport} reports twice or on a stranger: {to}",
                    queue_id=job.queue_id,
                    transport=program,
                    to=recipient.address,
                )
                continue
            known += 1
            if action is Action.SENT:
                sent.append(recipient)
                attempt.log(recipient, outcome.relay, outcome.dsn, "sent", outcome.text)
                continue
            if action is Action.BOUNCED and not self._soft_bounce:
                bounced.append(outcome)
                attempt.log(recipient, outcome.relay, outcome.dsn, "bounced", outcome.text)
                continue
            status = "SOFTBOUNCE" if action is Action.BOUNCED else "deferred"
            outcome = _as_deferred(outcome)
            job.kept = True
            job.deferred.append(outcome)
            attempt.log(recipient, outcome.relay, outcome.dsn, status, outcome.text)
        if bounced:
            job.bounced = True
            job.busy += 1
            self._chores.spawn(job.queue_id, self._record_bounced(job, bounced))
        # A message that was tried before may have to stay for a notice that cannot be sent.
        if sent and not (job.fresh and job.clean() and job.settled()):
            if not job.fresh and self._bounces.confirms:
                self._confirm(job, [outcome for outcome in outcomes if outcome.action is Action.SENT])
            self.mark(job, sent, RecipientState.DELIVERED)
        if known < len(recipients):
            self._missing(job, recipients, attempt)

    def _confirm(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """They got it late: the sender may want to know. Not waited for, as with marks."""
        operation = self._chores.watch(job.queue_id, "remember late deliveries")
        try:
            noted: Deferred[None] = self._bounces.delivered(job.message, outcomes)
        except Exception:
            noted = fail()

        def failed(failure: Failure) -> None:
            log.failure("{queue_id}: remember late deliveries", failure, queue_id=job.queue_id)

        noted.addErrback(failed).addBoth(lambda _: self._chores.ended(operation))

    def mark(self, job: Job, recipients: Sequence[Recipient], state: RecipientState) -> None:
        """
        Record that recipients are done. Not waited for: the store keeps the order of operations on one
        message, so that the mark is written before the message moves.
        """
        operation = self._chores.watch(job.queue_id, "mark recipients as done")
        marked: Deferred[None] = self._queue.mark(job.message, recipients, state)
        marked.addCallbacks(
            self._marked,
            self._not_marked,
            callbackArgs=(operation, job, recipients),
            errbackArgs=(operation, job, recipients),
        )

    def _reported(self, report: DeliveryReport, entry: Entry, program: str, started: float) -> None:
        if self.under_way.pop(entry, None) is None:
            self.hung.reported(entry, report)
            return
        job: Job = entry.job
        failed = report.destination_failure
        if failed is not None:
            failed = DestinationFailure(_temporary(failed.dsn), _SUSPENDED + failed.text)
        try:
            returned = self._scheduler.done(entry, failed, self._clock.seconds())
            self.settle(
                job,
                entry.recipients,
                report.outcomes,
                program,
                started,
                report.setup_seconds,
                report.connection_uses,
            )
            if failed is not None:
                self._return(returned, failed)
        finally:
            self._chores.end()
        self.check(job)
        self._wake()

    def _broke(self, failure: Failure, entry: Entry, started: float) -> None:
        delivery = self.under_way.pop(entry, None)
        if delivery is None:
            self.hung.ended(entry)
            return
        cancelled = isinstance(failure.value, CancelledError)
        try:
            if cancelled and self._stopping:
                self._scheduler.done(entry, None, self._clock.seconds())
                self.suspend(entry.job, entry.recipients, _INTERRUPTED)
                self.check(entry.job)
            else:
                if not (cancelled and delivery.cancelled):
                    log.failure(
                        "{queue_id}: transport {transport} failed",
                        failure,
                        queue_id=entry.job.queue_id,
                        transport=entry.destination.transport,
                    )
                self._throttle(entry, _UNKNOWN_ERROR, started)
        finally:
            self._chores.end()
        self._wake()

    def _bug(self, failure: Failure, entry: Entry) -> None:
        """Whatever a report was made of, its recipients must not be lost from sight."""
        log.failure("{queue_id}: delivery report", failure, queue_id=entry.job.queue_id)
        left = [recipient for recipient in entry.recipients if recipient.position in entry.job.todo]
        self.suspend(entry.job, left, _UNKNOWN_ERROR)
        self.check(entry.job)
        self._wake()

    def _throttle(self, entry: Entry, reason: DestinationFailure, started: float) -> None:
        """The transport is broken: nothing of what waits for it is tried."""
        now = self._clock.seconds()
        self._scheduler.done(entry, None, now)
        returned = self._scheduler.throttle(entry.destination.transport, reason, now)
        job: Job = entry.job
        outcomes = [
            Outcome(recipient, Action.DEFERRED, reason.dsn, reason.text) for recipient in entry.recipients
        ]
        self.settle(job, entry.recipients, outcomes, "error", started)
        self.check(job)
        self._return(returned, reason)

    def _return(self, entries: Sequence[Entry], reason: DestinationFailure) -> None:
        for entry in entries:
            self.suspend(entry.job, entry.recipients, reason)
            self.check(entry.job)

    def _missing(self, job: Job, recipients: Sequence[Recipient], attempt: Attempt) -> None:
        left = [recipient for recipient in recipients if recipient.position in job.todo]
        if left:
            log.warn(
                "{queue_id}: {transport} did not report on all recipients",
                queue_id=job.queue_id,
                transport=attempt.program,
            )
            self.suspend(job, left, _UNKNOWN_ERROR)

    def _drop(self, job: Job, recipients: Sequence[Recipient]) -> None:
        for recipient in recipients:
            job.todo.pop(recipient.position, None)
        self.check(job)

    async def _record_bounced(self, job: Job, bounced: list[Outcome]) -> None:
        """First the record, then the mark; without a record the recipients wait instead."""
        try:
            recorded = self._bounces.bounced(job.message, bounced)
            await self._chores.limited(job.queue_id, "bounce log", recorded)
        except Exception as problem:
            if not isinstance(problem, TimeLimitExceeded):
                log.failure("{queue_id}: bounce log", queue_id=job.queue_id)
            job.kept = True
            job.deferred.extend(_as_deferred(outcome) for outcome in bounced)
        else:
            self.mark(job, [outcome.recipient for outcome in bounced], RecipientState.BOUNCED)
        job.busy -= 1
        self.check(job)

    def _marked(self, _: object, operation: Operation, job: Job, recipients: Sequence[Recipient]) -> None:
        if self._active.done:
            done = self._active.done.get(job.queue_id)
            if done is not None:
                done.difference_update(recipient.position for recipient in recipients)
                if not done:
                    del self._active.done[job.queue_id]
        self._chores.ended(operation)

    def _not_marked(
        self, failure: Failure, operation: Operation, job: Job, recipients: Sequence[Recipient]
    ) -> None:
        log.warn(
            "{queue_id}: mark recipients as done: {reason}; kept in mind",
            queue_id=job.queue_id,
            reason=failure.getErrorMessage(),
        )
        done = self._active.done.setdefault(job.queue_id, set())
        done.update(recipient.position for recipient in recipients)
        self._chores.ended(operation)


def _temporary(dsn: str) -> str:
    """Whatever it was, it will be tried again."""
    return dsn if dsn.startswith("4") else "4" + dsn[1:]


def _as_deferred(outcome: Outcome) -> Outcome:
    dsn = _temporary(outcome.dsn)
    if outcome.action is Action.DEFERRED and dsn == outcome.dsn:
        return outcome
    return Outcome(
        outcome.recipient,
        Action.DEFERRED,
        dsn,
        outcome.text,
        outcome.relay,
        outcome.remote_mta,
        outcome.diagnostic,
    )
