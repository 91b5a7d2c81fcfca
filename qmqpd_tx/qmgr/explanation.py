"""
What L{explain<qmqpd_tx.qmgr.explain>} gives: values, for people and tools. No behaviour.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import frozen

from qmqpd_tx.message import Queue, QueueID


class Reason(enum.Enum):
    """What a message or a recipient waits for; the value is the word for tools."""

    DELIVERING = "being delivered"
    TURN = "its turn"
    WINDOW = "a full concurrency window"
    PROCESSES = "the process limit"
    DESTINATION_RATE = "destination_rate_delay"
    TRANSPORT_RATE = "transport_rate_delay"
    DEAD_DESTINATION = "a dead destination"
    DEAD_TRANSPORT = "a throttled transport"
    DEFER_TRANSPORTS = "defer_transports"
    BACKOFF = "its next attempt"
    QUEUE_RUN = "the next queue run"
    OTHERS = "the other recipients of this attempt"
    ROUTING = "address resolution"
    UNREAD = "its recipients being read"
    ACTIVE_LIMIT = "room in the active queue"
    RECORD = "a delivery status record or notice"
    HOLD = "its release from hold"
    CORRUPT = "somebody to look at a damaged file"
    OPERATOR = "an operator's action"


@frozen(slots=True)
class Waiting:
    """
    One thing that is waited for.

    @ivar reason: what.
    @ivar text: the same for people, with numbers and names, without times.
    @ivar since: since when, POSIX seconds, where that is known.
    @ivar until: until when, POSIX seconds, where that is known.
    @ivar behind: whose turn is before.
    @ivar ahead: how many deliveries to the same destination are before.
    @ivar busy: how many deliveries are under way there.
    @ivar limit: how many may be.
    """

    reason: Reason
    text: str
    since: float | None = None
    until: float | None = None
    behind: QueueID | None = None
    ahead: int | None = None
    busy: int | None = None
    limit: int | None = None


@frozen(slots=True)
class LastStatus:
    """
    How the last attempt ended for a recipient.

    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    @ivar relay: C{host[address]:port}, C{local} or C{none}.
    """

    dsn: str
    text: str
    relay: str


@frozen(slots=True)
class RecipientExplanation:
    """
    @ivar address: where to deliver to.
    @ivar original: as the client sent it.
    @ivar transport: the master.cf name, or L{None} when that is not known now.
    @ivar nexthop: the next hop, likewise.
    @ivar last: how the last attempt ended, or L{None}: there was none, or it is not known.
    @ivar next_attempt: when it is tried again, POSIX seconds, or L{None}: when its turn has come.
    @ivar waits: what it waits for, the most important first.
    """

    address: bytes
    original: bytes
    transport: str | None
    nexthop: str | None
    last: LastStatus | None
    next_attempt: float | None
    waits: Sequence[Waiting]


@frozen(slots=True)
class Explanation:
    """
    @ivar queue_id: which message.
    @ivar queue: where its file is.
    @ivar sender: the envelope sender.
    @ivar size: bytes of content.
    @ivar arrival_time: POSIX seconds.
    @ivar recipient_count: all its recipients, done or not.
    @ivar recipients: those that are not done, up to the limit.
    @ivar more: whether there are others.
    @ivar waits: what the message as a whole waits for.
    """

    queue_id: QueueID
    queue: Queue
    sender: bytes
    size: int
    arrival_time: float
    recipient_count: int
    recipients: Sequence[RecipientExplanation]
    more: bool
    waits: Sequence[Waiting]
