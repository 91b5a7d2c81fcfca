"""
What both schedulers know of a transport and of a destination, without what waits for them.

Pure: plain state, and the few questions about it that are asked for every delivery.
"""

from __future__ import annotations

from typing import Any, Final

from qmqpd_tx.interfaces import Destination
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus
from qmqpd_tx.qmgr.scheduling.feedback import Window
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings
from qmqpd_tx.status import DestinationFailure

MANY: Final = float("inf")
"""No limit."""


class TransportState:
    """
    One transport.

    @ivar name: the master.cf name.
    @ivar settings: the present ones.
    @ivar destinations: those with something to do or to remember, by their key.
    @ivar busy: deliveries under way.
    @ivar waiting: entries that wait.
    @ivar most: how many deliveries may be under way.
    @ivar failure: why it is left alone, or L{None}.
    @ivar resumes: until when it is left alone, for a failure or a rate delay; 0 when it is not.
    @ivar listed: whether it stands in the ring of transports.
    @ivar rested: whether the pause before its next delivery is over, or there is none.
    """

    __slots__ = (
        "busy",
        "destinations",
        "failure",
        "listed",
        "most",
        "name",
        "rested",
        "resumes",
        "settings",
        "waiting",
    )

    def __init__(self, name: str, settings: TransportSettings) -> None:
        self.name = name
        self.destinations: dict[str, Any] = {}
        self.busy = 0
        self.waiting = 0
        self.failure: DestinationFailure | None = None
        self.resumes = 0.0
        self.listed = False
        self.adopt(settings)

    def adopt(self, settings: TransportSettings) -> None:
        """
        Take settings.
        """
        self.settings = settings
        # A distance in time between deliveries makes sense only when there is one at a time.
        limit = 1 if settings.transport_rate_delay > 0 else settings.process_limit
        self.most: float = limit or MANY
        self.rested = not settings.transport_rate_delay


class DestinationState:
    """
    One destination.

    @ivar transport: its transport.
    @ivar key: its name, as entries carry it.
    @ivar window: its concurrency window.
    @ivar busy: deliveries under way.
    @ivar waiting: entries that wait.
    @ivar put: entries that have ever come, for a guess at how many are before one.
    @ivar failure: why it is dead, or L{None}.
    @ivar resumes: until when it is left alone, for a failure or a rate delay; 0 when it is not.
    """

    __slots__ = ("busy", "failure", "key", "put", "resumes", "transport", "waiting", "window")

    def __init__(self, transport: Any, nexthop: str) -> None:
        self.transport = transport
        self.key = Destination(transport.name, nexthop)
        self.window = Window(transport.settings.window)
        self.busy = 0
        self.waiting = 0
        self.put = 0
        self.failure: DestinationFailure | None = None
        self.resumes = 0.0

    def status(self, now: float) -> DestinationStatus | None:
        """
        @return: what is to say of it, or L{None} when all of it is over.
        """
        transport = self.transport
        resumes = max(self.resumes, transport.resumes)
        if resumes <= now and not self.busy and not self.waiting:
            return None
        reason = self.failure if self.resumes > now else None
        if transport.failure is not None and transport.resumes > now:
            reason = transport.failure
        return DestinationStatus(
            transport=transport.name,
            nexthop=self.key.nexthop,
            window=self.window.concurrency,
            busy=self.busy,
            waiting=self.waiting,
            resumes=resumes if resumes > now else None,
            reason=reason,
        )
