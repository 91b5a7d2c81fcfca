"""
What a message or a recipient waits for, in words.

Takes what the scheduler and the others of this room know of the moment, gives L{Waiting} values for
L{explain<qmqpd_tx.qmgr.explain>}. Looks and changes nothing, and waits for nothing. Answers to nothing in
Postfix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.interfaces import IMailQueue
from qmqpd_tx.message import Queue, QueueID, Route
from qmqpd_tx.qmgr.active import Admission
from qmqpd_tx.qmgr.explanation import Reason, Waiting
from qmqpd_tx.qmgr.handover import Handover
from qmqpd_tx.qmgr.job import Job, Wish
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler, Wait, WaitingEntry
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits

_WAITS: Final[Mapping[Wait, Reason]] = {
    Wait.TURN: Reason.TURN,
    Wait.WINDOW: Reason.WINDOW,
    Wait.PROCESSES: Reason.PROCESSES,
    Wait.DESTINATION_RATE: Reason.DESTINATION_RATE,
    Wait.TRANSPORT_RATE: Reason.TRANSPORT_RATE,
}


class Waits:
    """Says what is waited for."""

    def __init__(
        self,
        *,
        queue: IMailQueue,
        clock: IReactorTime,
        admission: Admission,
        scheduler: IQueueScheduler,
        handover: Handover,
        process_limit: Callable[[str], int],
        next_run: Callable[[float], float],
        limits: Callable[[], RecipientLimits],
    ) -> None:
        """
        @param queue: knows when a message is due.
        @param clock: tells what that is from now.
        @param admission: knows whether there is room in the active queue.
        @param scheduler: knows what waits, and what for.
        @param handover: knows which transports are deferred.
        @param process_limit: how many deliveries a transport may run, 0 for any number.
        @param next_run: when the first queue run at or after a time is.
        @param limits: how many recipients may be in memory.
        """
        self._queue = queue
        self._clock = clock
        self._admission = admission
        self._scheduler = scheduler
        self._handover = handover
        self._process_limit = process_limit
        self._next_run = next_run
        self._limits = limits

    def scheduled(self, held: WaitingEntry) -> Waiting:
        """
        @param held: recipients that the scheduler has.
        @return: what they wait for.
        """
        reason = _WAITS[held.wait]
        behind = held.behind.queue_id if held.behind is not None else None
        transport = held.entry.destination.transport
        limit = held.window
        if held.wait is Wait.TURN:
            text = f"{held.ahead} deliveries to this destination are before it"
            if behind is not None:
                text = f"behind {behind}; {text}"
        elif held.wait is Wait.WINDOW:
            text = f"{held.busy} of {held.window} deliveries to this destination are under way"
        elif held.wait is Wait.PROCESSES:
            limit = self._process_limit(transport)
            text = f"{transport} runs as many deliveries as it may: {limit}"
        elif held.wait is Wait.DESTINATION_RATE:
            text = "the pause after the last delivery to this destination is not over"
        else:
            text = f"the pause after the last delivery by {transport} is not over"
        return Waiting(
            reason, text, until=held.until, behind=behind, ahead=held.ahead, busy=held.busy, limit=limit
        )

    def unread(self) -> Waiting:
        """
        @return: what recipients wait for that are not read yet.
        """
        limits = self._limits()
        text = "it has more recipients than are read at a time"
        if self._scheduler.recipients() >= limits.limit:
            text = f"as many recipients are in memory as qmgr_message_recipient_limit = {limits.limit} allows"
        return Waiting(Reason.UNREAD, text, busy=self._scheduler.recipients(), limit=limits.limit)

    def stored(self, queue_id: QueueID, where: Queue) -> tuple[list[Waiting], float | None]:
        """
        @param where: the queue that the message is in, without being active.
        @return: what it waits for; and when it is tried again, POSIX seconds, if there is such a time.
        """
        now = self._clock.seconds()
        waits: list[Waiting] = []
        attempt: float | None = None
        if where is Queue.DEFERRED:
            due = self._queue.when_due(queue_id)
            if due is not None and due > now:
                attempt = self._next_run(due)
                text = "it has failed before, and is tried again after a while"
                waits.append(Waiting(Reason.BACKOFF, text, until=attempt))
            else:
                attempt = self._next_run(now)
                waits.append(Waiting(Reason.QUEUE_RUN, "its time has come", until=attempt))
        elif where is Queue.HOLD:
            waits.append(Waiting(Reason.HOLD, "it is on hold until somebody releases it"))
        elif where is Queue.CORRUPT:
            waits.append(
                Waiting(Reason.CORRUPT, "its file was damaged; look at it, and requeue or delete it")
            )
        else:
            waits.append(Waiting(Reason.QUEUE_RUN, "it is about to become active", until=self._next_run(now)))
        if where in (Queue.DEFERRED, Queue.INCOMING) and self._admission.full():
            text = f"the active queue has as many messages as it may: {self._admission.limit}"
            waits.insert(0, Waiting(Reason.ACTIVE_LIMIT, text, limit=self._admission.limit))
        return waits, attempt

    def destination(self, route: Route) -> list[Waiting]:
        """
        @return: what would keep recipients of a message that is not active back if it became so now.
        """
        now = self._clock.seconds()
        scheduler = self._scheduler
        waits: list[Waiting] = []
        key = route.nexthop
        if scheduler.per_recipient(route.transport):
            key = route.recipient.decode("latin-1")
        failure = scheduler.dead(route.transport, key, now)
        status = scheduler.destination(route.transport, key, now)
        until = status.resumes if status is not None else None
        if failure is not None:
            suspended = failure.text.startswith("delivery temporarily suspended")
            reason = Reason.DEAD_DESTINATION if suspended else Reason.DEAD_TRANSPORT
            waits.append(Waiting(reason, failure.text, until=until))
        if self._handover.deferred_transport(route.transport):
            text = f"{route.transport} is in defer_transports: it waits for a flush"
            waits.append(Waiting(Reason.DEFER_TRANSPORTS, text))
        return waits


def job_waits(job: Job) -> Sequence[Waiting]:
    """
    @return: what an active message waits for as a whole.
    """
    if job.wish is not Wish.NONE:
        text = f"to {job.wish.name.lower()} it, when the deliveries under way have ended"
        return [Waiting(Reason.OPERATOR, text)]
    if job.finishing:
        return [Waiting(Reason.RECORD, "everybody was tried; the outcome is being recorded")]
    return []
