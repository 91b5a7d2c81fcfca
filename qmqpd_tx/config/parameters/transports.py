"""
Parameters that exist once for each transport, as C{<transport>_<suffix>}. Answers to qmgr(8).

Each has a default parameter, whose type and bounds it shares.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from qmqpd_tx.config.table import TransportParameter

_ROWS: tuple[TransportParameter, ...] = (
    TransportParameter(
        suffix="delivery_slot_cost",
        default="default_delivery_slot_cost",
        help="After how many deliveries of this transport a message may be overtaken once.",
    ),
    TransportParameter(
        suffix="delivery_slot_discount",
        default="default_delivery_slot_discount",
        help="By how much less, in percent, a message of this transport may be overtaken.",
    ),
    TransportParameter(
        suffix="delivery_slot_loan",
        default="default_delivery_slot_loan",
        help="How many deliveries early a message of this transport may be overtaken.",
    ),
    TransportParameter(
        suffix="destination_concurrency_failed_cohort_limit",
        default="default_destination_concurrency_failed_cohort_limit",
        help="After how many failed rounds of connections a destination of this transport counts as dead.",
    ),
    TransportParameter(
        suffix="destination_concurrency_limit",
        default="default_destination_concurrency_limit",
        help="The most parallel deliveries to one destination of this transport.",
    ),
    TransportParameter(
        suffix="destination_concurrency_negative_feedback",
        default="default_destination_concurrency_negative_feedback",
        help="How much a failure narrows the window of parallel deliveries of this transport.",
    ),
    TransportParameter(
        suffix="destination_concurrency_positive_feedback",
        default="default_destination_concurrency_positive_feedback",
        help="How much a success widens the window of parallel deliveries of this transport.",
    ),
    TransportParameter(
        suffix="destination_rate_delay",
        default="default_destination_rate_delay",
        help="The pause between two deliveries to one destination of this transport.",
    ),
    TransportParameter(
        suffix="destination_recipient_limit",
        default="default_destination_recipient_limit",
        help="The most recipients in one delivery of this transport.",
    ),
    TransportParameter(
        suffix="extra_recipient_limit",
        default="default_extra_recipient_limit",
        help="Recipients in memory beyond this transport's limit, for messages that overtake others.",
    ),
    TransportParameter(
        suffix="initial_destination_concurrency",
        default="initial_destination_concurrency",
        help="With how many parallel deliveries a destination of this transport starts.",
    ),
    TransportParameter(
        suffix="minimum_delivery_slots",
        default="default_minimum_delivery_slots",
        help="How many recipients a message of this transport needs before it can be overtaken.",
    ),
    TransportParameter(
        suffix="recipient_limit",
        default="default_recipient_limit",
        help="The most recipients in memory for this transport.",
    ),
    TransportParameter(
        suffix="recipient_refill_delay",
        default="default_recipient_refill_delay",
        help="The longest time between two reads of recipients for this transport.",
    ),
    TransportParameter(
        suffix="recipient_refill_limit",
        default="default_recipient_refill_limit",
        help="The most recipients read at once for this transport.",
    ),
    TransportParameter(
        suffix="transport_rate_delay",
        default="default_transport_rate_delay",
        help="The pause between two deliveries of this transport.",
    ),
    TransportParameter(
        suffix="time_limit",
        default="command_time_limit",
        help="The time that a delivery command of this transport gets.",
        commands=("pipe", "spawn"),
    ),
)

TRANSPORT_PARAMETERS: Mapping[str, TransportParameter] = {row.suffix: row for row in _ROWS}
"""The rows by suffix."""


@frozen(slots=True)
class Member:
    """
    A name that has the form C{<transport>_<suffix>}.

    @ivar transport: the part that names a transport.
    @ivar suffix: the rest.
    @ivar default: the parameter that counts when this one is not set.
    """

    transport: str
    suffix: str
    default: str


def transport_member(name: str) -> Member | None:
    """
    @param name: a parameter name.
    @return: its parts by the longest suffix that fits, or L{None} when it is not of this form.
    """
    position = name.find("_")
    while position > 0:
        row = TRANSPORT_PARAMETERS.get(name[position + 1 :])
        if row is not None:
            return Member(name[:position], row.suffix, row.default)
        position = name.find("_", position + 1)
    return None
