"""
Deliveries that do not end, not even when they are cancelled.

A delivery has the transport's C{daemon_timeout}; then it is cancelled, and a few seconds to say what is
certain. In Postfix a delivery agent that is stuck is killed by its watchdog. Code in our own process cannot
be killed, so L{deliver<qmqpd_tx.qmgr.deliver>} gives it up: its recipients are deferred, its transport is
left alone for C{transport_retry_time}, and it is kept here, where it takes one of the transport's process
slots for as long as it hangs.

If it reports after all, the report is logged; and whoever it delivered to is marked as done in the queue
file, wherever that is by now, so that they do not get the message again. Nothing can be done about those
whose next delivery is under way already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import Entry, IMailQueue, IStoredMessage, MessageNotFound
from qmqpd_tx.message import Queue, Recipient, RecipientState
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.status import Action, DeliveryReport

log = Logger(namespace="qmqpd_tx.qmgr")


class HungDeliveries:
    """
    @ivar deliveries: how many there are, by transport.
    """

    def __init__(
        self,
        *,
        queue: IMailQueue,
        active: ActiveQueue,
        chores: Chores,
        mark: Callable[[Job, Sequence[Recipient], RecipientState], None],
        process_limit: Callable[[str], int],
        changed: Callable[[], None],
    ) -> None:
        """
        @param queue: the store.
        @param active: the active messages.
        @param mark: marks recipients of an active message.
        @param process_limit: how many deliveries a transport may run, 0 for any number.
        @param changed: called when there are more or fewer.
        """
        self._queue = queue
        self._active = active
        self._chores = chores
        self._mark = mark
        self._process_limit = process_limit
        self._changed = changed
        self.deliveries: dict[str, int] = {}

    def add(self, entry: Entry) -> None:
        """
        A delivery has been given up.
        """
        transport = entry.destination.transport
        self.deliveries[transport] = self.deliveries.get(transport, 0) + 1
        log.error(
            "{queue_id}: transport {transport}: delivery to {nexthop} does not end although it was cancelled;"
            " given up: {count} of its deliveries hang until the next restart",
            queue_id=entry.job.queue_id,
            transport=transport,
            nexthop=entry.nexthop,
            count=self.deliveries[transport],
        )
        self._changed()

    def all_slots(self, transport: str) -> bool:
        """
        @return: whether a transport may not run any delivery beside those that hang.
        """
        limit = self._process_limit(transport)
        return bool(limit) and self.deliveries.get(transport, 0) >= limit

    def slots(self, transport: str) -> int:
        """
        @return: how many deliveries a transport may run beside those that hang, at least 1; 0 for any number.
        """
        limit = self._process_limit(transport)
        return max(1, limit - self.deliveries.get(transport, 0)) if limit else 0

    def ended(self, entry: Entry) -> None:
        """
        One has ended after all.
        """
        transport = entry.destination.transport
        left = self.deliveries.get(transport, 0) - 1
        if left > 0:
            self.deliveries[transport] = left
        else:
            self.deliveries.pop(transport, None)
        self._changed()

    def reported(self, entry: Entry, report: DeliveryReport) -> None:
        """
        One has ended with a report.
        """
        self.ended(entry)
        queue_id = entry.job.queue_id
        for outcome in report.outcomes:
            log.warn(
                "{queue_id}: late report of a delivery that was given up: to=<{to}>, relay={relay},"
                " dsn={dsn}, {action} ({text})",
                queue_id=queue_id,
                to=outcome.recipient.address,
                relay=outcome.relay,
                dsn=outcome.dsn,
                action=outcome.action.value,
                text=outcome.text,
            )
        sent = [outcome.recipient for outcome in report.outcomes if outcome.action is Action.SENT]
        if sent:
            self._chores.spawn(queue_id, self._remember(entry.job, sent))

    async def _remember(self, gone: Job, sent: Sequence[Recipient]) -> None:
        """They have it: whatever becomes of the message, they are not to get it again."""
        queue_id = gone.queue_id
        if self._tell(gone, sent):
            return
        leaving = self._active.jobs.get(queue_id)
        if leaving is not None:
            await leaving.gone()
        for where in (Queue.DEFERRED, Queue.HOLD, Queue.INCOMING):
            try:
                opened: Deferred[IStoredMessage] = self._queue.open(queue_id, where)
                message = await self._chores.limited(queue_id, "open", opened)
            except MessageNotFound:
                continue
            try:
                await self._queue.mark(message, sent, RecipientState.DELIVERED)
            finally:
                message.close()
            break
        # It may have become active while we were looking for it.
        self._tell(gone, sent)

    def _tell(self, gone: Job, sent: Sequence[Recipient]) -> bool:
        """Tell the attempt that is going on, if there is one that can be told."""
        job = self._active.jobs.get(gone.queue_id)
        if job is None or job.finishing:
            return False
        job.late = (job.late or set()) | {recipient.position for recipient in sent}
        self._mark(job, sent, RecipientState.DELIVERED)
        return True
