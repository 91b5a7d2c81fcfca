"""
Which job is the best to overtake the current one.

Takes jobs as they get and lose entries; gives the one with the greatest age by number of entries among those
that have no more entries than the current job is good for. Pure. Answers to SCHEDULER_README, "How the
preemption works".

The search does not walk over the jobs. Of two jobs with the same numbers of entries (in all, and left) the
older one is always the better one, so that only the oldest of each counts: the jobs stand in one order of
time for each pair of numbers, and a search looks at the heads, from the smallest number up, until no larger
one can win (the oldest job of all would not). How many different numbers there are does not depend on how
many messages wait: nearly all messages are single ones. The answer is the same as that of a walk over all
jobs.

Nothing of this is done as long as nobody asks: a new job only gets into a dictionary, and out of it again
when it is delivered. A mail system without large messages never pays for the order. When somebody asks for
the first time while many wait, they get into the order a few at a time, the oldest first. A job that moves
in front of the current one, having overtaken it without having an open destination, stands aside until a job
that is before it is current: it cannot overtake what is behind it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from typing import Final

from qmqpd_tx.qmgr.scheduling.jobs import JobState, Place
from qmqpd_tx.qmgr.scheduling.ordered import Ordered
from qmqpd_tx.qmgr.scheduling.states import MANY

_AT_ONCE: Final = 500
"""How many jobs a search may take into the order: more than come between two deliveries."""

Count = tuple[float, ...]
"""How many entries a job has left, and how many it has in all."""


class Candidates:
    """
    The jobs of one transport, as candidates.
    """

    __slots__ = ("_all", "_aside", "_asked", "_by_count", "_counts", "_fresh")

    def __init__(self) -> None:
        self._fresh: OrderedDict[JobState, None] = OrderedDict()
        self._by_count: dict[Count, Ordered[JobState]] = {}
        self._counts: list[Count] = []
        self._all: Ordered[JobState] = Ordered()
        self._aside: dict[JobState, None] = {}
        self._asked: Place = ()

    def changed(self, job: JobState) -> None:
        """
        The number of entries of a job is another than before, or it is new.
        """
        if job.count:
            self._unplace(job)
        elif self._aside:
            self._aside.pop(job, None)
        self._fresh[job] = None

    def forget(self, job: JobState) -> None:
        """
        A job has no entries any more.
        """
        if job.count:
            self._unplace(job)
        else:
            self._fresh.pop(job, None)
            if self._aside:
                self._aside.pop(job, None)

    def best(self, current: JobState, limit: int, now: float) -> JobState | None:
        """
        @param limit: the most entries that it may have.
        @return: the job that has waited longest for its number of entries, of those behind the current one.
        """
        place = current.place
        if current.count:
            self.changed(current)
        if self._aside and place < self._asked:
            for other in [job for job in self._aside if job.place > place]:
                del self._aside[other]
                self._fresh[other] = None
        self._asked = place
        if len(self._fresh) > 1 or current not in self._fresh:
            self._settle(current)
        eldest = self._all.first()
        if eldest is None:
            return None
        most_age = now - eldest.message.began
        best: JobState | None = None
        best_age = 0.0
        best_count = 1.0
        for count in self._counts[: bisect_right(self._counts, (limit, MANY))]:
            left, total = count
            # A job of so many entries would have to be older than the oldest.
            if best is not None and most_age * best_count <= best_age * left:
                break
            job = self._head(count, place)
            if job is not None:
                age = now - job.message.began
                if best is None or age * best_count > best_age * total:
                    best, best_age, best_count = job, age, total
        return best

    def _head(self, count: Count, place: Place) -> JobState | None:
        """The oldest job of a number that is behind a place."""
        order = self._by_count[count]
        while (job := order.first()) is not None:
            if job.place > place:
                return job
            self._unplace(job)
            self._aside[job] = None
        return None

    def _settle(self, current: JobState) -> None:
        """
        Place what has come or changed, the oldest first, but not more than a few at a time. The current job
        changes with each delivery, and stays out.
        """
        fresh = self._fresh
        keep = fresh.pop(current, 0) is None
        for _ in range(min(len(fresh), _AT_ONCE)):
            other = fresh.popitem(last=False)[0]
            left = other.most()
            # Without end is no candidate; when its end is known, it has changed.
            if left < MANY:
                self._place(other, (int(left), other.selected + int(left)))
        if keep:
            fresh[current] = None

    def _place(self, job: JobState, count: Count) -> None:
        order = self._by_count.get(count)
        if order is None:
            order = self._by_count[count] = Ordered()
            insort(self._counts, count)
        order.push(job, job.message.serial)
        self._all.push(job, job.message.serial)
        job.count = count

    def _unplace(self, job: JobState) -> None:
        count = job.count
        job.count = ()
        self._all.discard(job)
        order = self._by_count[count]
        order.discard(job)
        if not order:
            del self._by_count[count]
            del self._counts[bisect_left(self._counts, count)]
