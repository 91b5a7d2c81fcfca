"""
Which domains are ours and where others go. Answers to trivial-rewrite(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="empty_address_default_transport_maps_lookup_key",
        type=Type.STRING,
        default="<>",
        low=1,
        help="What stands for the null sender in sender_dependent_default_transport_maps.",
    ),
    Parameter(
        name="empty_address_relayhost_maps_lookup_key",
        type=Type.STRING,
        default="<>",
        low=1,
        help="What stands for the null sender in sender_dependent_relayhost_maps.",
    ),
    Parameter(
        name="error_service_name",
        type=Type.STRING,
        default="error",
        low=1,
        effect=False,
        help="The transport for addresses that cannot be delivered.",
    ),
    Parameter(
        name="local_recipient_maps",
        type=Type.STRING,
        default="proxy:unix:passwd.byname $alias_maps",
        help="Tables of all local recipients.",
    ),
    Parameter(
        name="local_transport",
        type=Type.STRING,
        default="local:$myhostname",
        low=1,
        help="The transport (and next hop) for mydestination.",
    ),
    Parameter(
        name="mydestination",
        type=Type.LIST,
        default="$myhostname, localhost.$mydomain, localhost",
        help="Domains that are delivered locally.",
    ),
    Parameter(
        name="permit_mx_backup_networks",
        type=Type.LIST,
        default="",
        effect=False,
        help="Networks for which this host may be a backup server.",
    ),
    Parameter(
        name="relay_domains",
        type=Type.LIST,
        default="${{$compatibility_level} <level {2} ? {$mydestination} : {}}",
        help="Domains for which this host relays.",
    ),
    Parameter(
        name="relay_recipient_maps",
        type=Type.STRING,
        default="",
        help="Tables of all relayed recipients.",
    ),
    Parameter(
        name="relay_transport",
        type=Type.STRING,
        default="relay",
        low=1,
        help="The transport (and next hop) for relay_domains.",
    ),
    Parameter(
        name="relayhost",
        type=Type.STRING,
        default="",
        help="Where all mail that is not for us goes, instead of to its domain's own server.",
    ),
    Parameter(
        name="relocated_maps",
        type=Type.STRING,
        default="",
        help="Tables of addresses that have moved.",
    ),
    Parameter(
        name="resolve_reject_unknown_recipients",
        type=Type.BOOLEAN,
        default="no",
        own=True,
        help="Bounce recipients that the recipient tables of their address class do not have.",
    ),
    Parameter(
        name="sender_dependent_default_transport_maps",
        type=Type.STRING,
        default="",
        help="Tables from sender to default_transport.",
    ),
    Parameter(
        name="sender_dependent_relayhost_maps",
        type=Type.STRING,
        default="",
        help="Tables from sender to relayhost.",
    ),
    Parameter(
        name="show_user_unknown_table_name",
        type=Type.BOOLEAN,
        default="yes",
        help="Tell the client which table a recipient is missing from.",
    ),
    Parameter(
        name="transport_maps",
        type=Type.STRING,
        default="",
        help="Tables from address or domain to transport:nexthop.",
    ),
    Parameter(
        name="virtual_alias_domains",
        type=Type.LIST,
        default="$virtual_alias_maps",
        help="Domains of which each address is an alias.",
    ),
    Parameter(
        name="virtual_alias_maps",
        type=Type.STRING,
        default="$virtual_maps",
        help="Tables of aliases: whom mail for an address, or a whole domain, goes to instead.",
    ),
    Parameter(
        name="virtual_mailbox_domains",
        type=Type.LIST,
        default="$virtual_mailbox_maps",
        help="Domains that virtual_transport delivers.",
    ),
    Parameter(
        name="virtual_mailbox_maps",
        type=Type.STRING,
        default="",
        help="Tables of the mailboxes in virtual_mailbox_domains.",
    ),
    Parameter(
        name="virtual_transport",
        type=Type.STRING,
        default="virtual",
        low=1,
        help="The transport (and next hop) for virtual_mailbox_domains.",
    ),
)
