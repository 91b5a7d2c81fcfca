"""
What main.cf and master.cf say about one transport's scheduling.

Takes an L{IConfig} and a transport's name, gives a frozen value. A feedback setting that cannot be
understood is logged with its parameter name and Postfix's default is used, so that a typo in one transport
does not stop the mail of all. Answers to qmgr(8), "DELIVERY CONCURRENCY CONTROLS".
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, frozen

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.qmgr.scheduling.feedback import Feedback, WindowSettings

log = Logger(namespace="qmqpd_tx.qmgr")


@frozen(slots=True)
class RecipientLimits:
    """
    How many recipients may be in memory, whatever their transports.

    @ivar limit: C{qmgr_message_recipient_limit}; also the most dead destinations that are remembered.
    @ivar minimum: C{qmgr_message_recipient_minimum}: what any message may have, at least 1.
    """

    limit: int = 20000
    minimum: int = 10

    @classmethod
    def from_config(cls, config: IConfig) -> RecipientLimits:
        """
        @param config: where both are read.
        """
        return cls(
            limit=config.integer("qmgr_message_recipient_limit"),
            minimum=max(1, config.integer("qmgr_message_recipient_minimum")),
        )


@frozen(slots=True)
class TransportSettings:
    """
    @ivar window: how the windows of its destinations behave.
    @ivar recipient_limit: C{destination_recipient_limit}: the most recipients of one delivery, 0 for no
        limit; 1 makes each recipient a destination of its own.
    @ivar process_limit: master.cf's maxproc: the most deliveries at a time, 0 for no limit.
    @ivar rate_delay: C{destination_rate_delay}, seconds between deliveries to one destination.
    @ivar dead_time: how long a dead destination is left alone, seconds (C{minimal_backoff_time}).
    @ivar retry_time: how long a broken transport is left alone, seconds (C{transport_retry_time}).
    """

    window: WindowSettings = Factory(WindowSettings)
    recipient_limit: int = 50
    process_limit: int = 100
    rate_delay: float = 0.0
    dead_time: float = 300.0
    retry_time: float = 60.0


def read_settings(
    config: IConfig, transport: str, process_limit: Callable[[str], int] | None = None
) -> TransportSettings:
    """
    @param config: where C{<transport>_...} and C{default_...} are read.
    @param transport: a master.cf name.
    @param process_limit: gives the maxproc of a transport; without it C{default_process_limit} holds.
    @return: the settings.
    """
    maxproc = process_limit(transport) if process_limit else config.integer("default_process_limit")
    rate_delay = config.transport_seconds(transport, "destination_rate_delay")
    limit = config.transport_integer(transport, "destination_concurrency_limit")
    return TransportSettings(
        window=WindowSettings(
            initial=config.transport_integer(transport, "initial_destination_concurrency"),
            # Deliveries that keep a distance in time cannot be parallel.
            limit=1 if rate_delay > 0 else limit,
            positive=_feedback(config, transport, "destination_concurrency_positive_feedback"),
            negative=_feedback(config, transport, "destination_concurrency_negative_feedback"),
            cohort_limit=config.transport_integer(transport, "destination_concurrency_failed_cohort_limit"),
        ),
        recipient_limit=config.transport_integer(transport, "destination_recipient_limit"),
        process_limit=maxproc,
        rate_delay=rate_delay,
        dead_time=config.seconds("minimal_backoff_time"),
        retry_time=config.seconds("transport_retry_time"),
    )


def _feedback(config: IConfig, transport: str, suffix: str) -> Feedback:
    try:
        return Feedback.parse(config.transport_string(transport, suffix))
    except ValueError as error:
        log.warn(
            "{parameter}: {reason}; using 1",
            parameter=f"{transport}_{suffix}",
            reason=str(error),
        )
        return Feedback(1.0)
