"""
What the queue manager asks of a scheduler beyond L{IScheduler<qmqpd_tx.interfaces.IScheduler>}.

An interface and values; no code. Both schedulers provide it, so that the service does not know which one it
drives.

A message goes through a scheduler like this: L{begin<IQueueScheduler.begin>} when it becomes active; then
as often as needed L{refill<IQueueScheduler.refill>} says that its next recipients are to be read, they are,
and L{refilled<IQueueScheduler.refilled>} says how many they were, after which each of them is given to
C{add} or L{forgone<IQueueScheduler.forgo>}; C{next} gives an entry, C{done} takes it back; and
L{end<IQueueScheduler.end>} when the message leaves the active queue.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen

from qmqpd_tx.interfaces import Entry, IScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.status import DestinationFailure


@frozen(slots=True)
class DestinationStatus:
    """
    One destination, for people and tools.

    @ivar transport: the master.cf name.
    @ivar nexthop: the next hop, or the recipient where the recipient limit is 1.
    @ivar window: how many deliveries it may have at a time.
    @ivar busy: how many are under way.
    @ivar waiting: how many entries wait for their turn.
    @ivar resumes: when it is tried again if it is dead or held back by a rate delay, POSIX seconds.
    @ivar reason: why it is dead, or L{None}.
    """

    transport: str
    nexthop: str
    window: int
    busy: int
    waiting: int
    resumes: float | None
    reason: DestinationFailure | None


class Wait(enum.Enum):
    """What an entry waits for; the value is the word for tools."""

    TURN = "turn"
    """Nothing but its turn: others are before it."""
    WINDOW = "concurrency"
    """Its destination has as many deliveries as it may."""
    PROCESSES = "processes"
    """Its transport has as many deliveries as master.cf's maxproc allows."""
    DESTINATION_RATE = "destination_rate_delay"
    """The pause after a delivery to its destination is not over."""
    TRANSPORT_RATE = "transport_rate_delay"
    """The pause after a delivery by its transport is not over."""


@frozen(slots=True)
class WaitingEntry:
    """
    Why one entry of a message is not under way.

    @ivar entry: which.
    @ivar wait: what it waits for.
    @ivar until: when that is over, POSIX seconds, where it is known.
    @ivar behind: the job of the message whose turn it is before this one's, or L{None}.
    @ivar ahead: how many entries of its destination are before it.
    @ivar window: the present window of its destination.
    @ivar busy: how many deliveries its destination has.
    """

    entry: Entry
    wait: Wait
    until: float | None
    behind: Any | None
    ahead: int
    window: int
    busy: int


class IQueueScheduler(IScheduler):
    """
    A scheduler that decides when recipients are read, that can be told about broken transports and new
    settings, and can be looked into.
    """

    def begin(job: Any, now: float, total: int | None = None) -> int:
        """
        A message becomes active. Its place in the order of messages is this moment.

        @param job: any hashable key of the message.
        @param total: how many recipients it has at most, done or not; L{None} when nobody knows. With it, a
            message whose recipients are not all read can be compared with others, and a read does not take
            the room of more recipients than there are.
        @return: how many recipients may be read at first, at least 1. The read is under way from here on,
            until L{refilled}.
        """

    def refill(now: float) -> tuple[Any, int] | None:
        """
        Which message's recipients are to be read now.

        @return: a job and how many recipients may be read, at least 1, or L{None}. The read is under way
            from here on, until L{refilled}; no other is asked for meanwhile for this job.
        """

    def refilled(job: Any, count: int, more: bool, now: float) -> None:
        """
        A read has ended.

        @param count: how many recipients it gave; they are in memory now.
        @param more: whether there are others to be read.
        """

    def forgo(job: Any, count: int, now: float) -> None:
        """
        Recipients that were read do not need a delivery (they were discarded, or deferred without a try).
        """

    def withdraw(job: Any, now: float) -> Sequence[Entry]:
        """
        A message's deliveries are not to be begun any more, and no more recipients are read.

        @return: its waiting entries; they are no longer scheduled. Those under way are not among them.
        """

    def end(job: Any, now: float) -> None:
        """
        A message leaves the active queue: none of its entries is waiting or under way.
        """

    def per_recipient(transport: str) -> bool:
        """
        @return: whether the transport's recipient limit is 1, so that each recipient is a destination.
        """

    def revive(transport: str, nexthop: str) -> None:
        """
        Forget that this destination, or its transport, is dead: somebody wants its mail out now.
        """

    def throttle(transport: str, failure: DestinationFailure, now: float) -> Sequence[Entry]:
        """
        The transport itself is broken: leave it alone for C{transport_retry_time}.

        @return: its waiting entries, to be deferred without a try; they are no longer scheduled.
        """

    def reconfigure(settings: Callable[[str], TransportSettings], limits: RecipientLimits) -> None:
        """
        Take new settings; what is scheduled stays.
        """

    def recipients() -> int:
        """
        @return: how many recipients are in memory.
        """

    def destination(transport: str, nexthop: str, now: float) -> DestinationStatus | None:
        """
        @return: one destination, or L{None} when there is nothing to say of it.
        """

    def destinations(now: float) -> Iterator[DestinationStatus]:
        """
        @return: all destinations with something to say, in no order.
        """

    def waiting(job: Any, now: float) -> Iterator[WaitingEntry]:
        """
        @return: the entries of one message that wait, and what for. Costs what the message has.
        """
