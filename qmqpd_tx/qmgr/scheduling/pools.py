"""
How many recipients may be in memory, whose they are, and whose are to be read next.

Takes what is read, scheduled and delivered, recipient by recipient; gives the size of the next read. Pure.
Answers to SCHEDULER_README, "Dealing with memory resource limits": a message begins with what
C{qmgr_message_recipient_limit} leaves, C{qmgr_message_recipient_minimum} at least; later reads are what the
slots of its jobs allow, and that minimum besides.

Each transport has a pool of slots. In words, the first job with unread recipients has all unused slots of its
transport, and passes them on when all are read. Here they stay in the pool, and the first unread job is the
one that may count on it: the same, but nothing has to be passed along. So a job's slots are never more than
its recipients in memory, apart from a grant: what a job got from the extra pool because it overtook another
before all of its recipients were read. A grant stays with the job until all are read, and then goes back with
the recipients that leave.

The documented upper bound is kept in all cases: a read beyond the minimum is cut down to it.
"""

from __future__ import annotations

import heapq
from collections import deque

from qmqpd_tx.qmgr.scheduling.jobs import JobState, Lane, MessageState
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings


class RecipientPools:
    """
    @ivar limits: the limits for all transports together.
    @ivar recipients: how many are in memory.
    @ivar messages: how many messages are active.
    """

    __slots__ = (
        "_capacity",
        "_delays",
        "_hungry",
        "_reserved",
        "_serial",
        "limits",
        "messages",
        "recipients",
    )

    def __init__(self, limits: RecipientLimits) -> None:
        self.limits = limits
        self.recipients = 0
        self.messages = 0
        self._reserved = 0
        self._capacity = 0
        self._serial = 0
        self._hungry: deque[MessageState] = deque()
        self._delays: list[tuple[float, int, MessageState]] = []

    # --- transports ---

    def opened(self, lane: Lane) -> None:
        """
        A transport is used for the first time.
        """
        self._capacity += lane.settings.pool + lane.settings.extra_pool

    def adopt(self, lane: Lane, settings: TransportSettings) -> None:
        """
        A transport has new settings. A pool that became smaller may be overdrawn for a time.
        """
        old = lane.settings
        self._capacity += settings.pool + settings.extra_pool - old.pool - old.extra_pool
        lane.pool += settings.pool - old.pool
        lane.extra += settings.extra_pool - old.extra_pool

    # --- messages ---

    def begin(self, message: MessageState) -> int:
        """
        @return: how many recipients to read first.
        """
        self.messages += 1
        limits = self.limits
        size = limits.limit - self.recipients - self._reserved
        if size < limits.minimum:
            size = limits.minimum
        self._reserve(message, size)
        return size

    def read(self, message: MessageState, count: int, more: bool, now: float) -> None:
        """
        A read has ended.
        """
        self._reserved -= message.reading
        message.reading = 0
        message.read_at = now
        message.recipients += count
        message.pending += count
        self.recipients += count
        if more:
            message.more = True
            message.unread = max(1.0, message.unread - count)
            if not message.recipients:
                self._want(message)
        else:
            message.more = False
            message.unread = 0
            for job in message.jobs.values():
                self.complete(job)

    def end(self, message: MessageState) -> None:
        """
        A message leaves.
        """
        self.messages -= 1
        message.more = False
        self._reserved -= message.reading
        self.recipients -= message.recipients
        for job in message.jobs.values():
            job.recipients = 0
            self.complete(job)

    def left(self, message: MessageState, count: int) -> None:
        """
        Recipients of a message are out of memory.
        """
        message.recipients -= count
        self.recipients -= count
        if message.more and not message.recipients:
            self._want(message)

    # --- jobs ---

    def gained(self, job: JobState, count: int) -> None:
        """
        Recipients got their destination. They take slots, unless a job of an older message has them all.
        """
        job.recipients += count
        lane: Lane = job.transport
        if job.message.more and job not in lane.unread:
            lane.unread.push(job, job.message.serial)
        if lane.pool > 0:
            need = job.recipients - job.slots
            if need > 0:
                first = lane.unread.first() if lane.unread else None
                if first is None or job.message.serial <= first.message.serial:
                    taken = min(need, lane.pool)
                    job.slots += taken
                    lane.pool -= taken

    def lost(self, job: JobState, count: int) -> None:
        """
        Recipients of a job are out of memory: their slots are free.
        """
        job.recipients -= count
        excess = job.slots - job.recipients
        if excess > 0:
            if job.grant:
                self._give_back(job)
            else:
                job.slots -= excess
                job.transport.pool += excess

    def complete(self, job: JobState) -> None:
        """
        All recipients of a job's message are read: what it does not use is for others.
        """
        job.transport.unread.discard(job)
        if job.slots > job.recipients:
            self._give_back(job)

    def overtook(self, job: JobState) -> None:
        """
        A job was put before the current one. If some of its recipients are not read, it gets half of what
        is left for such cases, so that its reads are worth their while.
        """
        lane: Lane = job.transport
        if job.message.more and lane.extra > 1:
            grant = lane.extra // 2
            lane.extra -= grant
            job.grant += grant
            job.slots += grant

    def _give_back(self, job: JobState) -> None:
        lane: Lane = job.transport
        more = job.message.more
        excess = job.slots - (max(job.recipients, job.grant) if more else job.recipients)
        if excess > 0:
            granted = 0 if more else min(job.grant, excess)
            job.slots -= excess
            job.grant -= granted
            lane.extra += granted
            lane.pool += excess - granted

    # --- what to read ---

    def consider(self, job: JobState, now: float) -> None:
        """
        A job has its turn, and recipients of its message are unread: see whether to read on.
        """
        message = job.message
        if message.hungry or message.reading:
            return
        size = self.size(message)
        settings = job.transport.settings
        due = message.read_at + settings.refill_delay
        if size >= settings.refill_limit or (size > 0 and now >= due):
            self._want(message)
        elif not message.delayed:
            message.delayed = True
            self._serial += 1
            heapq.heappush(self._delays, (due, self._serial, message))

    def refill(self, now: float) -> tuple[MessageState, int] | None:
        """
        @return: a message to be read, and how many recipients at most.
        """
        hungry = self._hungry
        while hungry:
            message = hungry.popleft()
            message.hungry = False
            size = self._begin_read(message)
            if size:
                return message, size
        delays = self._delays
        while delays and delays[0][0] <= now:
            message = heapq.heappop(delays)[2]
            message.delayed = False
            size = self._begin_read(message)
            if size:
                return message, size
        return None

    def wakeup(self) -> float | None:
        """
        @return: when a refill delay ends.
        """
        delays = self._delays
        while delays and not delays[0][2].more:
            heapq.heappop(delays)
        return delays[0][0] if delays else None

    def size(self, message: MessageState) -> int:
        """
        @return: how many recipients of a message may be read now; may be less than 0.
        """
        slots = 0
        for job in message.jobs.values():
            slots += job.slots
            lane: Lane = job.transport
            if lane.pool > 0 and lane.unread and lane.unread.first() is job:
                slots += lane.pool
        limits = self.limits
        bound = max(limits.minimum * self.messages + self._capacity, limits.limit)
        room = bound - self.recipients - self._reserved
        owed = limits.minimum - message.recipients
        return max(owed, min(slots + owed, room))

    def _begin_read(self, message: MessageState) -> int:
        if not message.more or message.reading:
            return 0
        size = self.size(message)
        if size <= 0:
            return 0
        self._reserve(message, size)
        return size

    def _reserve(self, message: MessageState, size: int) -> None:
        """Count what is being read. A read that cannot give so much does not take the room of others."""
        message.reading = int(min(size, max(1, message.unread)))
        self._reserved += message.reading

    def _want(self, message: MessageState) -> None:
        if not message.hungry and not message.reading:
            message.hungry = True
            self._hungry.append(message)
