"""
Local delivery to Maildir and mbox. Answers to local(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER, MAXIMUM_LONG

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="biff",
        type=Type.BOOLEAN,
        default="yes",
        effect=False,
        help="Tell logged-in users about new mail.",
    ),
    Parameter(
        name="default_privs",
        type=Type.STRING,
        default="nobody",
        low=1,
        effect=False,
        help="The account for deliveries that belong to nobody.",
    ),
    Parameter(
        name="deliver_lock_attempts",
        type=Type.INTEGER,
        default="20",
        low=1,
        high=MAXIMUM_INTEGER,
        help="How often to try for a lock.",
    ),
    Parameter(
        name="deliver_lock_delay",
        type=Type.TIME,
        default="1s",
        low=1,
        help="The pause between two tries.",
    ),
    Parameter(
        name="expand_owner_alias",
        type=Type.BOOLEAN,
        default="no",
        effect=False,
        help="Replace the sender of list mail by what its owner alias says.",
    ),
    Parameter(
        name="fallback_transport",
        type=Type.STRING,
        default="",
        effect=False,
        help="The transport for unknown local users.",
    ),
    Parameter(
        name="fallback_transport_maps",
        type=Type.STRING,
        default="",
        effect=False,
        help="The same by user.",
    ),
    Parameter(
        name="forward_path",
        type=Type.LIST,
        default="$home/.forward${recipient_delimiter}${extension}, $home/.forward",
        effect=False,
        help="Where .forward files are.",
    ),
    Parameter(
        name="frozen_delivered_to",
        type=Type.BOOLEAN,
        default="yes",
        effect=False,
        help="Keep Delivered-To as it was before alias expansion.",
    ),
    Parameter(
        name="home_mailbox",
        type=Type.STRING,
        default="",
        help=(
            "Mailbox file or, with a final slash, Maildir under the recipient's home folder; "
            "empty: mail_spool_directory."
        ),
    ),
    Parameter(
        name="local_delivery_status_filter",
        type=Type.STRING,
        default="$default_delivery_status_filter",
        effect=False,
        help="Tables that change local delivery status codes.",
    ),
    Parameter(
        name="local_user_lookup",
        type=Type.ENUM,
        default="passwd",
        choices=("passwd", "any"),
        own=True,
        help=(
            "Who is a local user: passwd, those of the system; any, every name, all owned by the "
            "account that this program runs under."
        ),
    ),
    Parameter(
        name="luser_relay",
        type=Type.STRING,
        default="",
        effect=False,
        help="Where mail for unknown local users goes.",
    ),
    Parameter(
        name="mail_spool_directory",
        type=Type.STRING,
        default="/var/mail",
        help="The folder with mailboxes named after users; with a final slash, Maildirs.",
    ),
    Parameter(
        name="mailbox_command",
        type=Type.STRING,
        default="",
        effect=False,
        help="A command that delivers to local users.",
    ),
    Parameter(
        name="mailbox_command_maps",
        type=Type.STRING,
        default="",
        effect=False,
        help="The same by user.",
    ),
    Parameter(
        name="mailbox_delivery_lock",
        type=Type.LIST,
        default="fcntl, dotlock",
        choices=("fcntl", "flock", "dotlock"),
        help="How to lock a mailbox file.",
    ),
    Parameter(
        name="mailbox_size_limit",
        type=Type.INTEGER,
        default="51200000",
        low=0,
        high=MAXIMUM_LONG,
        help="The largest mailbox file or Maildir message, in bytes; 0 for no limit.",
    ),
    Parameter(
        name="mailbox_transport",
        type=Type.STRING,
        default="",
        effect=False,
        help="The transport for all local users.",
    ),
    Parameter(
        name="mailbox_transport_maps",
        type=Type.STRING,
        default="",
        effect=False,
        help="The same by user.",
    ),
    Parameter(
        name="prepend_delivered_header",
        type=Type.LIST,
        default="command, file, forward",
        choices=("command", "file", "forward"),
        help="Deliveries that get a Delivered-To header.",
    ),
    Parameter(
        name="propagate_unmatched_extensions",
        type=Type.LIST,
        default="canonical, virtual",
        choices=("canonical", "virtual", "alias", "forward", "include", "generic"),
        help="Look-ups that keep an address extension.",
    ),
    Parameter(
        name="require_home_directory",
        type=Type.BOOLEAN,
        default="no",
        help="Defer mail for users whose home folder is not there.",
    ),
    Parameter(
        name="stale_lock_time",
        type=Type.TIME,
        default="500s",
        low=1,
        help="The age at which a lock file counts as forgotten.",
    ),
    Parameter(
        name="strict_mailbox_ownership",
        type=Type.BOOLEAN,
        default="yes",
        help="Defer mail for mailbox files that are not their user's.",
    ),
    Parameter(
        name="sun_mailtool_compatibility",
        type=Type.BOOLEAN,
        default="no",
        effect=False,
        help="For old Suns.",
    ),
)
