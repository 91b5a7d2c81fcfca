"""
What the queue manager asks of a scheduler beyond L{IScheduler<qmqpd_tx.interfaces.IScheduler>}.

An interface and a value; no code. Both schedulers of this room provide it, so that the service does not
know which one it drives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from qmqpd_tx.interfaces import Entry, IScheduler
from qmqpd_tx.qmgr.settings import TransportSettings
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


class IQueueScheduler(IScheduler):
    """A scheduler that can be told about broken transports and new settings, and can be looked into."""

    def per_recipient(transport: str) -> bool:
        """
        @return: whether the transport's recipient limit is 1, so that each recipient is a destination.
        """

    def throttle(transport: str, failure: DestinationFailure, now: float) -> Sequence[Entry]:
        """
        The transport itself is broken: leave it alone for C{transport_retry_time}.

        @return: its waiting entries, to be deferred without a try; they are no longer scheduled.
        """

    def reconfigure(settings: Callable[[str], TransportSettings]) -> None:
        """
        Take new settings; what is scheduled stays.
        """

    def destinations(now: float) -> Iterator[DestinationStatus]:
        """
        @return: all destinations with something to say, in no order.
        """
