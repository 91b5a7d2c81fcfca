"""
What is counted while a scenario runs. State and bookkeeping; no behaviour beyond that.

One L{MailClass} for each class of mail, one L{DestinationRecord} for each destination of the scenario, one
L{MessageRecord} for each message as long as it is in the queue: memory follows the queue, not the number of
deliveries.
"""

from __future__ import annotations

import enum
from typing import Protocol

from qmqpd_tx.simulate.measures import Durations, Instants, Level, Samples


class Failure(enum.Enum):
    """How a destination failed; the value is the word in figures."""

    CONNECT = "connect time-out"
    GREETING = "greeting time-out"
    REFUSED = "connection refused"
    REPLY = "refused to talk"


class MailClass:
    """
    All mail of one class.

    @ivar planned: recipients of all messages that the scenario has of it.
    @ivar messages: messages that have arrived.
    @ivar finished: messages that have left the queue.
    @ivar arrived: recipients, when they came.
    @ivar delivered: recipients, when they were delivered.
    @ivar delays: how long that took from the message's arrival.
    @ivar bounced: recipients that were refused for good.
    @ivar expired: recipients that were given up as too old.
    @ivar gone: recipients that were refused or given up, when that was.
    @ivar deferrals: how often a recipient was put off.
    @ivar first_deferrals: that in the first run of its message.
    @ivar untried: how many of the deferrals were without a try, because the destination was dead.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.planned = 0
        self.messages = 0
        self.finished = 0
        self.arrived = Instants()
        self.delivered = Instants()
        self.delays = Durations()
        self.bounced = 0
        self.expired = 0
        self.gone = Instants()
        self.deferrals = 0
        self.first_deferrals = 0
        self.untried = 0


class MessageRecord:
    """
    One message in the queue.

    @ivar mail: its class.
    @ivar size: bytes, as the scenario says.
    @ivar arrived: when, POSIX seconds.
    @ivar runs: how many runs it has behind it.
    """

    __slots__ = ("arrived", "mail", "runs", "size")

    def __init__(self, mail: MailClass, size: int, arrived: float) -> None:
        self.mail = mail
        self.size = size
        self.arrived = arrived
        self.runs = 0


class Tries:
    """
    What came of delivery attempts.

    @ivar deliveries: how many.
    @ivar recipients: how many they had in all.
    @ivar deferred: recipients put off by them.
    @ivar failures: recipients put off because the destination failed, by how it did.
    @ivar window: the concurrency window at the end of each delivery.
    """

    def __init__(self) -> None:
        self.deliveries = 0
        self.recipients = 0
        self.deferred = 0
        self.failures: dict[Failure, int] = dict.fromkeys(Failure, 0)
        self.window = Samples()


class DestinationRecord:
    """
    All deliveries to one destination of the scenario.

    @ivar first: those in the first runs of messages.
    @ivar later: the others.
    @ivar delivered: recipients.
    @ivar bounced: recipients.
    @ivar busy: deliveries under way.
    @ivar busiest: the most deliveries after first runs that were begun within one minute of the clock.
    @ivar connections: how many connections were begun.
    @ivar dead_seconds: for how long deliveries were suspended, its domains added up.
    @ivar deaths: how often that began.
    @ivar window: the window of the domain that was heard of last.
    """

    def __init__(self, name: str, domains: int) -> None:
        self.name = name
        self.domains = domains
        self.first = Tries()
        self.later = Tries()
        self.delivered = 0
        self.bounced = 0
        self.busy = Level()
        self.busiest = 0
        self.connections = 0
        self._minute = 0
        self._in_minute = 0
        self.dead_seconds = 0.0
        self.deaths = 0
        self.window = 0

    def began(self, now: float, again: bool) -> None:
        """
        A delivery begins.

        @param again: it is not the first run of its message.
        """
        self.busy.add(1, now)
        if not again:
            return
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._in_minute = 0
        self._in_minute += 1
        if self._in_minute > self.busiest:
            self.busiest = self._in_minute


class IDeliveryLog(Protocol):
    """Where each outcome of a delivery is written, if anybody wants that."""

    def wrote(
        self, now: float, record: MessageRecord, where: str, domain: str, status: str, recipients: int
    ) -> None:
        """
        @param now: POSIX seconds.
        @param where: the destination's name in the scenario.
        @param status: C{sent}, C{deferred} or C{bounced}.
        @param recipients: how many of one delivery.
        """
