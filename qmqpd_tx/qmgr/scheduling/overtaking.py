"""
When a job may overtake the current one, and who pays for it.

Pure: functions on jobs. A job earns a credit with each entry that is selected; an overtaker costs it
C{delivery_slot_cost} credits for each entry. It may go into debt as far as discount and loan allow, but not
beyond what it will have earned in the end; and as long as it is in debt, nobody overtakes it. So a job of N
entries is delayed by at most N/k entries of others for a cost of k, and by N/(k-1) with those that overtake
the overtakers. Answers to SCHEDULER_README, "How the preemption works", and to what Postfix was seen to do.
"""

from __future__ import annotations

from qmqpd_tx.qmgr.scheduling.jobs import LAST, JobState, Lane
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings


def overtaker(job: JobState, settings: TransportSettings, now: float) -> JobState | None:
    """
    @param job: the current job, with some credit.
    @return: the job to be put before it now, if there is one and it can be paid for.
    """
    cost = settings.slot_cost
    # What it is good for in all, and what it is good for yet.
    if (job.selected + job.most()) // cost < max(1, settings.minimum_slots):
        return None
    limit = (job.credit + job.waiting) // cost
    if limit < 1:
        return None
    lane: Lane = job.transport
    other: JobState | None = lane.candidates.best(job, limit, now)
    if other is None:
        return None
    needed = other.count[0] * (100 - settings.slot_discount)
    return other if needed <= 100 * (job.credit // cost + settings.slot_loan) else None


def overtake(job: JobState, other: JobState, cost: int) -> None:
    """
    Put a job just before the current one, which pays. Another one that has paid before gets nothing back: two
    jobs that may overtake each other would do so for ever.
    """
    count = int(other.count[0])
    job.credit -= count * cost
    other.parent = job
    other.charged = count
    other.place = (*job.place[:-1], job.before, LAST)
    job.before += 1


def refund(job: JobState) -> None:
    """
    Pay back for entries that were paid for and do not exist: their destination is dead, their message was
    withdrawn, or unread recipients made fewer entries than they might have.
    """
    left = job.most()
    _repay(job, job.charged - left)
    if not left:
        # It is back in the order of time, should it ever get more.
        job.parent = None
        job.place = (job.message.serial, LAST)


def _repay(job: JobState, count: float) -> None:
    """A parent that is through has no use for it, but perhaps its own parent has."""
    if count <= 0:
        return
    job.charged -= int(count)
    parent = job.parent
    while parent is not None and not parent.waiting:
        parent = parent.parent
    if parent is not None:
        parent.credit += int(count) * parent.transport.settings.slot_cost
