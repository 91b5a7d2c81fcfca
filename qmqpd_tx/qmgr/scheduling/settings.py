"""
What main.cf and master.cf say about one transport's scheduling.

Takes an L{IConfig} and a transport's name, gives a frozen value. A feedback setting that cannot be understood
is logged with its parameter name and Postfix's default is used, so that a typo in one transport does not stop
the mail of all; with C{destination_concurrency_feedback_debug} those in use are logged too. Answers to
qmgr(8), "DELIVERY CONCURRENCY CONTROLS".
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
    @ivar fudge_factor: C{qmgr_fudge_factor}, percent (oqmgr only).
    """

    limit: int = 20000
    minimum: int = 10
    fudge_factor: int = 100

    @classmethod
    def from_config(cls, config: IConfig) -> RecipientLimits:
        """
        @param config: where they are read. As in Postfix, there is room for one recipient of each active
            message.
        """
        limit = config.integer("qmgr_message_recipient_limit")
        active = config.integer("qmgr_message_active_limit")
        if limit < active:
            log.warn(
                "qmgr_message_recipient_limit is smaller than qmgr_message_active_limit - adjusting "
                "qmgr_message_recipient_limit"
            )
            limit = active
        return cls(
            limit=limit,
            minimum=max(1, config.integer("qmgr_message_recipient_minimum")),
            fudge_factor=config.integer("qmgr_fudge_factor"),
        )


@frozen(slots=True)
class TransportSettings:
    """
    @ivar window: how the windows of its destinations behave.
    @ivar recipient_limit: C{destination_recipient_limit}: the most recipients of one delivery, 0 for no
        limit; 1 makes each recipient a destination of its own.
    @ivar process_limit: master.cf's maxproc: the most deliveries at a time, 0 for no limit.
    @ivar rate_delay: C{destination_rate_delay}, seconds between deliveries to one destination.
    @ivar transport_rate_delay: C{transport_rate_delay}, seconds between any two deliveries.
    @ivar slot_cost: C{delivery_slot_cost}: for so many deliveries of a message, one of another may come
        before; below 2 for never.
    @ivar minimum_slots: C{minimum_delivery_slots}: what a message must be good for to be overtaken at all.
    @ivar slot_discount: C{delivery_slot_discount}, percent that need not be saved beforehand.
    @ivar slot_loan: C{delivery_slot_loan}: deliveries that need not be saved beforehand.
    @ivar pool: C{recipient_limit}: recipients in memory for this transport.
    @ivar extra_pool: C{extra_recipient_limit}: more of them, for messages that overtake others.
    @ivar refill_limit: C{recipient_refill_limit}: what is worth reading.
    @ivar refill_delay: C{recipient_refill_delay}: after this many seconds, less is worth it too.
    @ivar debug: C{destination_concurrency_feedback_debug}: whether each change of a window is logged.
    @ivar dead_time: how long a dead destination is left alone, seconds (C{minimal_backoff_time}).
    @ivar retry_time: how long a broken transport is left alone, seconds (C{transport_retry_time}).
    """

    window: WindowSettings = Factory(WindowSettings)
    recipient_limit: int = 50
    process_limit: int = 100
    rate_delay: float = 0.0
    transport_rate_delay: float = 0.0
    slot_cost: int = 5
    minimum_slots: int = 3
    slot_discount: int = 50
    slot_loan: int = 3
    pool: int = 20000
    extra_pool: int = 1000
    refill_limit: int = 100
    refill_delay: float = 5.0
    debug: bool = False
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
    initial = config.transport_integer(transport, "initial_destination_concurrency")
    debug = config.boolean("destination_concurrency_feedback_debug")
    positive = _feedback(config, transport, "destination_concurrency_positive_feedback", initial, debug)
    negative = _feedback(config, transport, "destination_concurrency_negative_feedback", initial, debug)
    return TransportSettings(
        window=WindowSettings(
            initial=initial,
            # Deliveries that keep a distance in time cannot be parallel.
            limit=1 if rate_delay > 0 else limit,
            positive=positive,
            negative=negative,
            cohort_limit=config.transport_integer(transport, "destination_concurrency_failed_cohort_limit"),
        ),
        recipient_limit=config.transport_integer(transport, "destination_recipient_limit"),
        process_limit=maxproc,
        rate_delay=rate_delay,
        transport_rate_delay=config.transport_seconds(transport, "transport_rate_delay"),
        slot_cost=config.transport_integer(transport, "delivery_slot_cost"),
        minimum_slots=config.transport_integer(transport, "minimum_delivery_slots"),
        slot_discount=config.transport_integer(transport, "delivery_slot_discount"),
        slot_loan=config.transport_integer(transport, "delivery_slot_loan"),
        pool=config.transport_integer(transport, "recipient_limit"),
        extra_pool=config.transport_integer(transport, "extra_recipient_limit"),
        refill_limit=config.transport_integer(transport, "recipient_refill_limit"),
        refill_delay=config.transport_seconds(transport, "recipient_refill_delay"),
        debug=debug,
        dead_time=config.seconds("minimal_backoff_time"),
        retry_time=config.seconds("transport_retry_time"),
    )


def _feedback(config: IConfig, transport: str, suffix: str, initial: int, debug: bool) -> Feedback:
    text = config.transport_string(transport, suffix)
    name = f"{transport}_{suffix}"
    try:
        feedback = Feedback.parse(text)
    except ValueError:
        log.warn(
            "{parameter}: ignoring malformed or unreasonable feedback: {value}", parameter=name, value=text
        )
        feedback = Feedback(1.0)
    if debug:
        default = f"default_{suffix}"
        log.info(
            "{transport}: {parameter} feedback type {kind} value at {initial}: {value}",
            transport=transport,
            parameter=default if config.string(default) == text else name,
            kind=feedback.scale.number,
            initial=initial,
            value=f"{feedback.amount(max(1, initial)):g}",
        )
    return feedback
