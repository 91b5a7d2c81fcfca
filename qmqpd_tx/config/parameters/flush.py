"""
Which sites can be flushed on their own, and how long that is kept in mind. Answers to flush(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="fast_flush_domains",
        type=Type.LIST,
        default="$relay_domains",
        help="Domains whose deferred mail can be tried at once (postqueue -s).",
    ),
    Parameter(
        name="fast_flush_memory_limit",
        type=Type.INTEGER,
        default="100000",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help="How many deferred messages are kept in mind so that they are not recorded again for a site.",
    ),
    Parameter(
        name="fast_flush_purge_time",
        type=Type.TIME,
        default="7d",
        low=1,
        unit="d",
        help="After how long a site for which no mail waits is forgotten.",
    ),
    Parameter(
        name="fast_flush_refresh_time",
        type=Type.TIME,
        default="12h",
        low=1,
        unit="h",
        help="After how long the mail for a site is tried without being asked to, to renew the record.",
    ),
    Parameter(
        name="fast_flush_site_limit",
        type=Type.INTEGER,
        default="10000",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="For how many sites it is recorded which mail waits for them.",
    ),
)
