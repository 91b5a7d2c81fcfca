"""
The things that the preemptive scheduler keeps in order: messages, their jobs, their peers.

A I{job} is what it takes to deliver one message by one transport; a I{peer} is what a job has for one
destination. Pure: plain state. Answers to SCHEDULER_README, "The structures used by nqmgr".
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.qmgr.scheduling.ordered import Ordered
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings
from qmqpd_tx.qmgr.scheduling.states import MANY, DestinationState, TransportState

Place = tuple[float, ...]
"""
A place in the order of jobs. The job that became active n-th has C{(n, MANY)}; what is put just before a
place C{(..., MANY)} for the i-th time gets C{(..., i, MANY)}: after all that was put there before.
"""

LAST: Final = MANY


class MessageState:
    """
    One message.

    @ivar job: the key that the caller knows it by.
    @ivar serial: the how manieth active message it is: its place in the order of time.
    @ivar began: when it became active.
    @ivar unread: how many of its recipients are not read yet, at most; L{MANY} when nobody said.
    @ivar more: whether some are not.
    @ivar pending: how many have been read and have not got their destination yet.
    @ivar recipients: how many of its recipients are in memory.
    @ivar reading: how many are being read now; 0 when none are.
    @ivar read_at: when they were last read.
    @ivar hungry: whether it stands in the queue of those that want to be read.
    @ivar delayed: whether a refill delay of it is running.
    @ivar jobs: its jobs, by transport name.
    """

    __slots__ = (
        "began",
        "delayed",
        "hungry",
        "job",
        "jobs",
        "more",
        "pending",
        "read_at",
        "reading",
        "recipients",
        "serial",
        "unread",
    )

    def __init__(self, job: Any, serial: int, now: float, unread: float) -> None:
        self.job = job
        self.serial = serial
        self.began = now
        self.unread = unread
        self.more = False
        self.pending = 0
        self.recipients = 0
        self.reading = 0
        self.read_at = now
        self.hungry = False
        self.delayed = False
        self.jobs: dict[str, JobState] = {}


class JobState:
    """
    One job.

    @ivar message: its message.
    @ivar transport: its transport.
    @ivar place: where it stands among the jobs of its transport.
    @ivar before: how many were put just before it, ever.
    @ivar peers: those with waiting entries, by destination.
    @ivar ring: the peers that may be open, in the order of their turns; the others are parked.
    @ivar waiting: entries that wait.
    @ivar selected: entries that were selected.
    @ivar credit: selected entries that have not paid for an overtaker; less than 0 in debt. Divided by the
        slot cost, these are the available delivery slots.
    @ivar charged: entries of its own that are paid for by C{parent} and not selected yet.
    @ivar parent: the job that it was put before, and pays.
    @ivar recipients: how many of its recipients are in memory.
    @ivar slots: how many of them (or, with a grant, how many) have a slot of the transport's pool.
    @ivar grant: how many of the slots come from the extra pool.
    @ivar count: under which numbers of entries (left, and in all) it stands among the candidates; empty when
        it does not.
    """

    __slots__ = (
        "before",
        "charged",
        "count",
        "credit",
        "grant",
        "message",
        "parent",
        "peers",
        "place",
        "recipients",
        "ring",
        "selected",
        "slots",
        "transport",
        "waiting",
    )

    def __init__(self, message: MessageState, transport: Any) -> None:
        self.message = message
        self.transport = transport
        self.place: Place = (message.serial, LAST)
        self.before = 0
        self.peers: dict[QueueState, PeerState] = {}
        self.ring: deque[PeerState] = deque()
        self.waiting = 0
        self.selected = 0
        self.credit = 0
        self.charged = 0
        self.parent: JobState | None = None
        self.recipients = 0
        self.slots = 0
        self.grant = 0
        self.count: tuple[float, ...] = ()

    def most(self) -> float:
        """
        @return: how many entries it may yet have, with those that are not read: an upper bound, because
            each recipient may be an entry.
        """
        message = self.message
        return self.waiting + message.pending + message.unread


class PeerState:
    """
    One peer.

    @ivar entries: those that wait, the next one last.
    @ivar parked: whether it was met while its destination was closed, and stands there instead of in the
        ring.
    @ivar ordinal: how many entries its destination had ever had when its first one came.
    """

    __slots__ = ("destination", "entries", "job", "ordinal", "parked")

    def __init__(self, job: JobState, destination: QueueState, ordinal: int) -> None:
        self.job = job
        self.destination = destination
        self.entries: list[Entry] = []
        self.parked = False
        self.ordinal = ordinal


class QueueState(DestinationState):
    """
    A destination, with the peers that have mail for it.

    @ivar peers: them, by job.
    @ivar parked: those that were met while it was closed, in the order of jobs; L{None} for none ever.
    """

    __slots__ = ("parked", "peers")

    def __init__(self, transport: Lane, nexthop: str) -> None:
        super().__init__(transport, nexthop)
        self.peers: dict[JobState, PeerState] = {}
        self.parked: Ordered[PeerState] | None = None


class Lane(TransportState):
    """
    A transport, with its jobs.

    @ivar jobs: all with waiting entries.
    @ivar runnable: those of them that have peers in their ring, in the scheduler's order.
    @ivar unread: the jobs of messages with unread recipients, in the order of time.
    @ivar pool: recipient slots that no job has.
    @ivar extra: the same of the extra pool.
    @ivar candidates: which job may overtake another.
    """

    __slots__ = ("candidates", "extra", "jobs", "pool", "runnable", "unread")

    def __init__(self, name: str, settings: TransportSettings, candidates: Any) -> None:
        super().__init__(name, settings)
        self.jobs: dict[JobState, None] = {}
        self.runnable: Ordered[JobState] = Ordered()
        self.unread: Ordered[JobState] = Ordered()
        self.pool = settings.pool
        self.extra = settings.extra_pool
        self.candidates = candidates
