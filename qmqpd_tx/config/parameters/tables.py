"""
Lookup tables in indexed files, on servers and in databases. Answers to postmap(1), tcp_table(5) and others.

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER, MAXIMUM_LONG

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="berkeley_db_create_buffer_size",
        type=Type.INTEGER,
        default="16777216",
        low=1,
        high=MAXIMUM_INTEGER,
        help="Bytes of memory for building a hash or btree file.",
    ),
    Parameter(
        name="berkeley_db_read_buffer_size",
        type=Type.INTEGER,
        default="131072",
        low=1,
        high=MAXIMUM_INTEGER,
        help="Bytes of memory for reading a hash or btree table.",
    ),
    Parameter(
        name="lmdb_map_size",
        type=Type.INTEGER,
        default="16777216",
        low=1,
        high=MAXIMUM_LONG,
        help="Bytes that an lmdb file may have at first; it is doubled when that is too few.",
    ),
    Parameter(
        name="socketmap_reply_size_limit",
        type=Type.INTEGER,
        default="100000",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="Bytes that a reply of a socketmap server may have.",
    ),
    Parameter(
        name="table_close_delay",
        type=Type.TIME,
        default="300s",
        low=0,
        own=True,
        help="How long messages under way may use a table that a reload has replaced.",
    ),
    Parameter(
        name="table_connection_limit",
        type=Type.INTEGER,
        default="5",
        low=1,
        high=1000,
        own=True,
        help="Connections, and so lookups at a time, of each table on a server or in an SQL database.",
    ),
    Parameter(
        name="table_idle_time",
        type=Type.TIME,
        default="60s",
        low=1,
        own=True,
        help="When an unused connection of a table is closed.",
    ),
    Parameter(
        name="table_lock_timeout",
        type=Type.TIME,
        default="5s",
        low=0,
        own=True,
        help="How long to wait for a hash, btree or lmdb file that somebody is writing.",
    ),
    Parameter(
        name="table_queue_limit",
        type=Type.INTEGER,
        default="1000",
        low=0,
        high=MAXIMUM_INTEGER,
        own=True,
        help="Lookups that may wait for a connection of a table; more fail, and the mail is tried later.",
    ),
    Parameter(
        name="table_request_timeout",
        type=Type.TIME,
        default="100s",
        low=1,
        own=True,
        help="How long a lookup on a server or in an SQL database may take.",
    ),
    Parameter(
        name="table_retry_delay",
        type=Type.TIME,
        default="60s",
        low=0,
        own=True,
        help="How long a pgsql server that failed is left alone if there are others.",
    ),
    Parameter(
        name="tcp_table_reply_size_limit",
        type=Type.INTEGER,
        default="4096",
        low=1,
        high=MAXIMUM_INTEGER,
        own=True,
        help="Bytes that a reply of a tcp table server may have.",
    ),
)
