"""
What the queue manager has in hand, for tools: values, and the one function that fills them in.

Takes the active queue and the scheduler, looks and changes nothing. It costs what is active. Answers to
nothing in Postfix, where qshape(1) and a look into folders must do.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from qmqpd_tx.message import QueueID
from qmqpd_tx.qmgr.job import ActiveQueue
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus, IQueueScheduler


@frozen(slots=True)
class ActiveMessage:
    """
    One active message.

    @ivar queue_id: which.
    @ivar size: bytes of content.
    @ivar arrival_time: POSIX seconds.
    @ivar sender: the envelope sender.
    @ivar recipients: those in memory without an outcome.
    @ivar unread: whether more recipients wait in the file.
    """

    queue_id: QueueID
    size: int
    arrival_time: float
    sender: bytes
    recipients: Sequence[bytes]
    unread: bool


@frozen(slots=True)
class QueueStatus:
    """
    What the queue manager has in hand.

    @ivar messages: the active messages.
    @ivar destinations: the destinations with mail or with something to remember.
    """

    messages: Sequence[ActiveMessage]
    destinations: Sequence[DestinationStatus]


def take_inventory(active: ActiveQueue, scheduler: IQueueScheduler, now: float) -> QueueStatus:
    """
    @param now: POSIX seconds.
    @return: what is in hand now.
    """
    messages = [
        ActiveMessage(
            queue_id=job.queue_id,
            size=job.message.size,
            arrival_time=job.arrival_time,
            sender=job.sender,
            recipients=[recipient.address for recipient in job.todo.values()],
            unread=job.next_position is not None,
        )
        for job in active.jobs.values()
    ]
    return QueueStatus(messages, list(scheduler.destinations(now)))
