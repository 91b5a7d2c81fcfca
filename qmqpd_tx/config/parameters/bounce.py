"""
Delivery status reports and who gets them. Answers to bounce(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="2bounce_notice_recipient",
        type=Type.STRING,
        default="postmaster",
        help="Who is told about bounces that cannot be delivered, with notify_classes 2bounce.",
    ),
    Parameter(
        name="backwards_bounce_logfile_compatibility",
        type=Type.BOOLEAN,
        default="yes",
        effect=False,
        help="For old Postfix queue files.",
    ),
    Parameter(
        name="bounce_notice_recipient",
        type=Type.STRING,
        default="postmaster",
        help="Who gets copies of bounces, with notify_classes bounce.",
    ),
    Parameter(
        name="bounce_service_name",
        type=Type.STRING,
        default="bounce",
        low=1,
        effect=False,
        help="The master.cf service that bounces mail.",
    ),
    Parameter(
        name="bounce_size_limit",
        type=Type.INTEGER,
        default="50000",
        low=1,
        high=MAXIMUM_INTEGER,
        help="How much of a message is returned with a bounce, in bytes.",
    ),
    Parameter(
        name="bounce_template_file",
        type=Type.STRING,
        default="",
        effect=False,
        help="A file with the texts of bounces.",
    ),
    Parameter(
        name="defer_service_name",
        type=Type.STRING,
        default="defer",
        low=1,
        effect=False,
        help="The master.cf service that records why mail waits.",
    ),
    Parameter(
        name="delay_notice_recipient",
        type=Type.STRING,
        default="postmaster",
        help="Who gets copies of delay warnings, with notify_classes delay.",
    ),
    Parameter(
        name="double_bounce_sender",
        type=Type.STRING,
        default="double-bounce",
        low=1,
        help="The sender of reports to the postmaster; mail to it is dropped.",
    ),
    Parameter(
        name="enable_threaded_bounces",
        type=Type.BOOLEAN,
        default="no",
        effect=False,
        help="Give bounces References and In-Reply-To headers.",
    ),
    Parameter(
        name="error_notice_recipient",
        type=Type.STRING,
        default="postmaster",
        effect=False,
        help="Who is told about problems, with other notify_classes.",
    ),
    Parameter(
        name="internal_mail_filter_classes",
        type=Type.LIST,
        default="",
        choices=("bounce", "notify"),
        help="Mail made here that header and body checks and mail filters see, too: bounce is all of it.",
    ),
    Parameter(
        name="notify_classes",
        type=Type.LIST,
        default="resource, software",
        choices=("2bounce", "bounce", "data", "delay", "policy", "protocol", "resource", "software"),
        help="What the postmaster is told about.",
    ),
    Parameter(
        name="trace_service_name",
        type=Type.STRING,
        default="trace",
        low=1,
        effect=False,
        help="The master.cf service that records delivery traces.",
    ),
)
