"""
The active queue: what is known in memory of each message that is being delivered.

Plain state, no behaviour beyond bookkeeping; the verbs are in L{active<qmqpd_tx.qmgr.active>},
L{recipients<qmqpd_tx.qmgr.recipients>}, L{deliver<qmqpd_tx.qmgr.deliver>}, L{settle<qmqpd_tx.qmgr.settle>}
and L{finish<qmqpd_tx.qmgr.finish>}. Nothing here is durable: the queue file is the truth, and a crash brings
the message back from C{active} with the recipients that are not marked done.
"""

from __future__ import annotations

import enum

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import IStoredMessage
from qmqpd_tx.message import Queue, QueueID, Recipient
from qmqpd_tx.status import Outcome


class Trouble(enum.Enum):
    """What has gone wrong with the message itself, as opposed to its deliveries."""

    NONE = enum.auto()
    READ = enum.auto()
    """The file could not be read on: keep the message and try later."""
    DAMAGED = enum.auto()
    """The file makes no sense: it goes to C{corrupt}."""
    VANISHED = enum.auto()
    """Somebody took the file away: no more deliveries, nothing to keep."""


class Wish(enum.Enum):
    """What an operator wants of an active message; it happens when the deliveries under way have ended."""

    NONE = enum.auto()
    HOLD = enum.auto()
    """To C{hold}; the file is there already."""
    DELETE = enum.auto()
    """Out of the queue, without a word to the sender; the file is in C{hold} until then."""
    RELEASE = enum.auto()
    """Not to be held after all: deferred, and due at once."""
    REQUEUE = enum.auto()
    """Through cleanup again, under a new queue id."""


class Job:
    """
    One active message.

    @ivar message: the open message.
    @ivar queue: where its file is.
    @ivar fresh: it was handed over by intake in this process: no delivery status log can exist yet.
    @ivar active_time: when it entered the active queue, POSIX seconds.
    @ivar todo: the recipients in memory without an outcome, by position.
    @ivar next_position: where to read on in the recipients, or L{None} when all are read.
    @ivar busy: steps under way (a read, a resolve, a record being written) that must end first.
    @ivar deferred: outcomes of recipients that wait, not yet remembered.
    @ivar kept: some recipients wait; their outcomes may be remembered already.
    @ivar bounced: some recipients failed for good in this attempt.
    @ivar expired: whether it is too old to be kept; L{None} as long as nobody had to know.
    @ivar trouble: what is wrong with the file.
    @ivar wish: what an operator wants of it: nothing more is read, nor are deliveries begun.
    @ivar left: recipients were not tried because of that.
    @ivar requeued: those are in the queue again, as another message.
    @ivar flushed: it was asked for by a person: C{defer_transports} does not hold it back.
    @ivar urgent: it was asked for by its id: dead destinations do not hold it back either.
    @ivar late: positions of recipients that turned out to be delivered after all, by a delivery that had been
        given up; L{None} as a rule.
    @ivar leaving: fired when it leaves the active queue; L{None} as long as nobody waits for that.
    @ivar finishing: the last step has begun.
    """

    __slots__ = (
        "active_time",
        "arrival_time",
        "bounced",
        "busy",
        "deferred",
        "expired",
        "finishing",
        "flushed",
        "fresh",
        "kept",
        "late",
        "leaving",
        "left",
        "message",
        "next_position",
        "queue",
        "queue_id",
        "requeued",
        "sender",
        "todo",
        "trouble",
        "urgent",
        "verp",
        "wish",
    )

    def __init__(self, message: IStoredMessage, queue: Queue, fresh: bool, now: float) -> None:
        envelope = message.envelope
        self.message = message
        self.queue_id: QueueID = message.queue_id
        self.sender: bytes = envelope.sender
        self.verp: bytes | None = envelope.verp_delimiters
        self.arrival_time: float = envelope.arrival_time
        self.queue = queue
        self.fresh = fresh
        self.active_time = now
        self.todo: dict[int, Recipient] = {}
        self.next_position: int | None = None
        self.busy = 0
        self.deferred: list[Outcome] = []
        self.kept = False
        self.bounced = False
        self.expired: bool | None = None
        self.trouble = Trouble.NONE
        self.wish = Wish.NONE
        self.left = False
        self.requeued = False
        self.flushed = False
        self.urgent = False
        self.late: set[int] | None = None
        self.leaving: list[Deferred[None]] | None = None
        self.finishing = False

    def gone(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when it has left the active queue.
        """
        deferred: Deferred[None] = Deferred()
        if self.leaving is None:
            self.leaving = []
        self.leaving.append(deferred)
        return deferred

    def settled(self) -> bool:
        """
        @return: whether every recipient was read and has an outcome, and nothing is under way.
        """
        return not self.todo and not self.busy and self.next_position is None

    def clean(self) -> bool:
        """
        @return: whether all that happened in this attempt were deliveries, so that the message can go
            without further words.
        """
        return not self.kept and not self.bounced and self.trouble is Trouble.NONE and self.wish is Wish.NONE


class ActiveQueue:
    """
    All active messages.

    @ivar jobs: by queue id.
    @ivar done: positions of recipients that are done although the file could not be told: no retry of
        this process may repeat them.
    """

    __slots__ = ("done", "jobs")

    def __init__(self) -> None:
        self.jobs: dict[QueueID, Job] = {}
        self.done: dict[QueueID, set[int]] = {}
