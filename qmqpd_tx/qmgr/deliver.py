"""
Runs deliveries.

Takes entries from the scheduler, gives L{DeliveryRequest}s to transports, and their reports as feedback to
the scheduler and as outcomes to L{settle<qmqpd_tx.qmgr.settle>}. Nothing here is durable: a crash in the
middle of a delivery brings its recipients back.

A transport that fails (a bug), gives something else than a report, or is missing defers the recipients and
is left alone for C{transport_retry_time}; what waits for it is deferred, too. A delivery that takes longer
than the transport's C{daemon_timeout} is cancelled; what becomes of one that does not even end then is in
L{hung<qmqpd_tx.qmgr.hung>}. Answers to qmgr(8)'s deliver part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, Entry, IDeliveryTransport
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.deadlines import Deadlines, Delivery
from qmqpd_tx.qmgr.hung import HungDeliveries
from qmqpd_tx.qmgr.job import Job, Trouble
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.settle import UNKNOWN_ERROR, Settler, temporary
from qmqpd_tx.qmgr.verp import verp_sender
from qmqpd_tx.status import Action, DeliveryReport, DestinationFailure, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

_UNAVAILABLE: Final = DestinationFailure("4.3.0", "mail transport unavailable")
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
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        transports: ITransports,
        chores: Chores,
        scheduler: IQueueScheduler,
        settler: Settler,
        hung: HungDeliveries,
        time_limit: Callable[[str], float],
        check: Callable[[Job], None],
        wake: Callable[[], None],
    ) -> None:
        """
        @param clock: tells when a delivery began and ended.
        @param transports: finds a transport by name.
        @param chores: counts what is under way.
        @param scheduler: says what is next.
        @param settler: takes the outcomes.
        @param hung: takes the deliveries that do not end.
        @param time_limit: how long a delivery of a transport may take, seconds.
        @param check: called with a message whose work may have ended.
        @param wake: called when the scheduler may have more.
        """
        self._clock = clock
        self._transports = transports
        self._chores = chores
        self._scheduler = scheduler
        self._settle = settler.settle
        self._suspend = settler.suspend
        self._hung = hung
        self._check = check
        self._wake = wake
        self.under_way: dict[Entry, Delivery] = {}
        self._deadlines = Deadlines(clock, self.under_way, time_limit, self._give_up)
        self._stopping = False

    def reconfigure(self) -> None:
        """
        Ask anew for the time limits, for deliveries that begin from now on.
        """
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
                self._check(job)
                return True
        if self._hung.deliveries and self._hung.all_slots(name):
            self._throttle(entry, _UNAVAILABLE, started)
            return True
        sender = job.sender
        if job.verp is not None:
            sender = verp_sender(sender, job.verp, recipients[0].original)
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
            if not isinstance(delivery, Deferred):
                raise TypeError(f"{name}: deliver() must return a Deferred, not {delivery!r:.200}")
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
        self._hung.add(entry)
        self._throttle(entry, UNKNOWN_ERROR, delivery.started)
        self._chores.end()
        self._wake()

    def _without_late(self, job: Job, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
        """Leave out those who have it already, by a delivery that had been given up."""
        late = job.late or ()
        for recipient in recipients:
            if recipient.position in late:
                job.todo.pop(recipient.position, None)
        return [recipient for recipient in recipients if recipient.position not in late]

    def _reported(self, report: DeliveryReport, entry: Entry, program: str, started: float) -> None:
        if not isinstance(report, DeliveryReport):
            problem = TypeError(f"deliver() must give a DeliveryReport, not {report!r:.200}")
            self._broke(Failure(problem), entry, started)
            return
        if self.under_way.pop(entry, None) is None:
            self._hung.reported(entry, report)
            return
        job: Job = entry.job
        failed = report.destination_failure
        if failed is not None:
            failed = DestinationFailure(temporary(failed.dsn), _SUSPENDED + failed.text)
        try:
            returned = self._scheduler.done(entry, failed, self._clock.seconds())
            self._settle(
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
        self._check(job)
        self._wake()

    def _broke(self, failure: Failure, entry: Entry, started: float) -> None:
        delivery = self.under_way.pop(entry, None)
        if delivery is None:
            self._hung.ended(entry)
            return
        cancelled = isinstance(failure.value, CancelledError)
        try:
            if cancelled and self._stopping:
                self._scheduler.done(entry, None, self._clock.seconds())
                self._suspend(entry.job, entry.recipients, _INTERRUPTED)
                self._check(entry.job)
            else:
                if not (cancelled and delivery.cancelled):
                    log.failure(
                        "{queue_id}: transport {transport} failed",
                        failure,
                        queue_id=entry.job.queue_id,
                        transport=entry.destination.transport,
                    )
                self._throttle(entry, UNKNOWN_ERROR, started)
        finally:
            self._chores.end()
        self._wake()

    def _bug(self, failure: Failure, entry: Entry) -> None:
        """Whatever a report was made of, its recipients must not be lost from sight."""
        log.failure("{queue_id}: delivery report", failure, queue_id=entry.job.queue_id)
        left = [recipient for recipient in entry.recipients if recipient.position in entry.job.todo]
        self._suspend(entry.job, left, UNKNOWN_ERROR)
        self._check(entry.job)
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
        self._settle(job, entry.recipients, outcomes, "error", started)
        self._check(job)
        self._return(returned, reason)

    def _return(self, entries: Sequence[Entry], reason: DestinationFailure) -> None:
        for entry in entries:
            self._suspend(entry.job, entry.recipients, reason)
            self._check(entry.job)

    def _drop(self, job: Job, recipients: Sequence[Recipient]) -> None:
        for recipient in recipients:
            job.todo.pop(recipient.position, None)
        self._check(job)
