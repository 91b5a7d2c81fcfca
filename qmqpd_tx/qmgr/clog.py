"""
Warns when one destination fills the active queue (C{qmgr_clog_warn_time}).

Looks at a destination when something is added to it; says what Postfix says when it has more deliveries
waiting and under way than a fifth of C{qmgr_message_active_limit}, at once and then at the earliest
C{qmgr_clog_warn_time} later. Costs a comparison as long as there are few recipients in memory at all, and
does not walk over anything. Answers to qmgr(8); the texts and their conditions were watched there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.qmgr.job import ActiveQueue
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings

log = Logger(namespace="qmqpd_tx.qmgr")

_SHARE: Final = 5
"""One part in so many is too much for one destination."""

_REMEMBERED: Final = 1000
"""How many destinations that were warned of are remembered."""


class ClogWarnings:
    """Warnings about destinations."""

    def __init__(
        self,
        *,
        config: IConfig,
        active: ActiveQueue,
        scheduler: IQueueScheduler,
        settings: Callable[[str], TransportSettings],
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param active: the active messages.
        @param scheduler: knows the destinations.
        @param settings: gives the settings of a transport by its name.
        """
        self._active = active
        self._scheduler = scheduler
        self._settings = settings
        self._warned: dict[tuple[str, str], float] = {}
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{qmgr_clog_warn_time}, C{helpful_warnings} and C{qmgr_message_active_limit} are
            read.
        """
        self._interval = config.seconds("qmgr_clog_warn_time") if config.boolean("helpful_warnings") else 0.0
        self._limit = config.integer("qmgr_message_active_limit")
        self._enough = self._limit // _SHARE if self._interval else None

    def added(self, transport: str, nexthop: str, now: float) -> None:
        """
        Something was added to a destination.
        """
        # A destination cannot have more deliveries than there are recipients.
        if self._enough is None or self._scheduler.recipients() <= self._enough:
            return
        state = self._scheduler.destination(transport, nexthop, now)
        if state is None or (state.busy + state.waiting) * _SHARE <= self._limit:
            return
        key = (transport, nexthop)
        warned = self._warned.get(key)
        # A clock that was set back must not silence us.
        if warned is not None and 0 <= now - warned < self._interval:
            return
        if len(self._warned) >= _REMEMBERED:
            self._warned = {k: when for k, when in self._warned.items() if now - when < self._interval}
        if len(self._warned) < _REMEMBERED:
            self._warned[key] = now
            self._warn(transport, nexthop, state.busy + state.waiting, state.busy, state.window)

    def _warn(self, transport: str, nexthop: str, count: int, busy: int, window: int) -> None:
        messages = len(self._active.jobs)
        limit = self._settings(transport).window.limit
        log.warn(
            "mail for {nexthop} is using up {count} of {messages} active queue entries",
            nexthop=nexthop,
            count=count,
            messages=messages,
        )
        if count < 0.9 * messages:
            log.warn("this may slow down other mail deliveries")
        if limit and busy >= limit:
            log.warn(
                "you may need to increase the main.cf {transport}_destination_concurrency_limit from {limit}",
                transport=transport,
                limit=limit,
            )
        elif window > self._limit:
            log.warn(
                "you may need to increase the main.cf qmgr_message_active_limit from {limit}",
                limit=self._limit,
            )
        else:
            log.warn(
                "you may need to reduce {transport} connect and helo timeouts",
                transport=transport,
            )
            log.warn("so that Postfix quickly skips unavailable hosts")
            log.warn("you may need to increase the main.cf minimal_backoff_time and maximal_backoff_time")
            log.warn("so that Postfix wastes less time on undeliverable mail")
            log.warn("you may need to increase the master.cf {transport} process limit", transport=transport)
        log.warn("please avoid flushing the whole queue when you have")
        log.warn("lots of deferred mail, that is bad for performance")
        log.warn("to turn off these warnings specify: qmgr_clog_warn_time = 0")
