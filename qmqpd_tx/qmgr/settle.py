"""
Makes of each outcome of a delivery what it has to become.

Takes outcomes, from transports or made up for those that were not tried; gives log lines as the delivery
agent would write them, marks in the queue file for who is done, records in the bounce log for who failed for
good, and keeps the outcomes of those who wait with the message, for L{finish<qmqpd_tx.qmgr.finish>}.

Durability: a recipient that failed for good is marked only after the bounce service says that the record is
safe; without a record it waits instead. A delivered recipient is marked at once, unless the message is at its
end with it at the first try, and will be removed anyway. A mark that cannot be written is remembered, so that
this process does not deliver twice.

A report that names strangers, or somebody twice, is logged and changes nothing; who is missing in it is
deferred. Answers to qmgr(8)'s entry part, and to the delivery agents' logging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IBounces, IConfig, IMailQueue
from qmqpd_tx.message import Recipient, RecipientState
from qmqpd_tx.qmgr.chores import Chores, Operation, TimeLimitExceeded
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.qmgr.lines import Attempt
from qmqpd_tx.status import Action, DestinationFailure, Outcome

log = Logger(namespace="qmqpd_tx.qmgr")

UNKNOWN_ERROR: Final = DestinationFailure("4.3.0", "unknown mail transport error")
"""Why recipients wait whose transport is broken."""


class Settler:
    """What becomes of recipients."""

    def __init__(
        self,
        *,
        config: IConfig,
        queue: IMailQueue,
        clock: IReactorTime,
        bounces: IBounces,
        active: ActiveQueue,
        chores: Chores,
        check: Callable[[Job], None],
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param queue: the store, where marks are written.
        @param clock: tells when a delivery ended.
        @param bounces: remembers who failed for good.
        @param active: remembers who is done although the file could not be told.
        @param chores: where marks and records are kept an eye on.
        @param check: called with a message whose work may have ended.
        """
        self._queue = queue
        self._clock = clock
        self._bounces = bounces
        self._active = active
        self._chores = chores
        self._check = check
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{delay_logging_resolution_limit} and C{soft_bounce} are read.
        """
        self._resolution = config.integer("delay_logging_resolution_limit")
        self._soft_bounce = config.boolean("soft_bounce")

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
        sent: list[Outcome] = []
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
                sent.append(outcome)
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
                self._confirm(job, sent)
            self.mark(job, [outcome.recipient for outcome in sent], RecipientState.DELIVERED)
        if known < len(recipients):
            self._missing(job, recipients, attempt)

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

    def _missing(self, job: Job, recipients: Sequence[Recipient], attempt: Attempt) -> None:
        left = [recipient for recipient in recipients if recipient.position in job.todo]
        if left:
            log.warn(
                "{queue_id}: {transport} did not report on all recipients",
                queue_id=job.queue_id,
                transport=attempt.program,
            )
            self.suspend(job, left, UNKNOWN_ERROR)

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
        self._check(job)

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


def temporary(dsn: str) -> str:
    """
    @return: an RFC 3463 code for what will be tried again, whatever it was.
    """
    return dsn if dsn.startswith("4") else "4" + dsn[1:]


def _as_deferred(outcome: Outcome) -> Outcome:
    dsn = temporary(outcome.dsn)
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
