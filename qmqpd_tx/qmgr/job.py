"""
The active queue: what is known in memory of each message that is being delivered.

Plain state, no behaviour beyond bookkeeping; the verbs are in L{active<qmqpd_tx.qmgr.active>},
L{deliver<qmqpd_tx.qmgr.deliver>} and L{finish<qmqpd_tx.qmgr.finish>}. Nothing here is durable: the queue
file is the truth, and a crash brings the message back from C{active} with the recipients that are not
marked done.
"""

from __future__ import annotations

import enum

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
        "fresh",
        "kept",
        "message",
        "next_position",
        "queue",
        "queue_id",
        "sender",
        "todo",
        "trouble",
        "verp",
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
        self.finishing = False

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
        return not self.kept and not self.bounced and self.trouble is Trouble.NONE


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
