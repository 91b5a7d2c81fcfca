"""
Folders, the queue on disk and its limits. Answers to Postfix's queue directory conventions.

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER, MAXIMUM_LONG

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="command_directory",
        type=Type.STRING,
        default="/usr/sbin",
        low=1,
        effect=False,
        help="The folder with Postfix's commands.",
    ),
    Parameter(
        name="config_directory",
        type=Type.STRING,
        default="/etc/qmqpd_tx",
        low=1,
        help="The folder with main.cf and master.cf.",
    ),
    Parameter(
        name="confirm_delay_cleared",
        type=Type.BOOLEAN,
        default="no",
        help="Tell the sender when a late message was delivered after all.",
    ),
    Parameter(
        name="daemon_directory",
        type=Type.STRING,
        default="/usr/lib/postfix/sbin",
        low=1,
        effect=False,
        help="The folder with Postfix's daemon programs.",
    ),
    Parameter(
        name="data_directory",
        type=Type.STRING,
        default="/var/lib/postfix",
        low=1,
        effect=False,
        help="The folder for caches that Postfix writes.",
    ),
    Parameter(
        name="delay_warning_time",
        type=Type.TIME,
        default="0h",
        low=0,
        unit="h",
        help="Age at which a sender is told that a message is late; 0 for never.",
    ),
    Parameter(
        name="dont_remove",
        type=Type.INTEGER,
        default="0",
        low=0,
        high=MAXIMUM_INTEGER,
        effect=False,
        help="Keep queue files after delivery, for debugging.",
    ),
    Parameter(
        name="enable_long_queue_ids",
        type=Type.BOOLEAN,
        default="no",
        effect=False,
        help="Postfix: long queue ids. Ours are always long and unique.",
    ),
    Parameter(
        name="fault_injection_code",
        type=Type.INTEGER,
        default="0",
        low=0,
        high=MAXIMUM_INTEGER,
        effect=False,
        help="For testing Postfix.",
    ),
    Parameter(
        name="hash_queue_depth",
        type=Type.INTEGER,
        default="1",
        low=1,
        high=16,
        help="How many levels of subfolders these have.",
    ),
    Parameter(
        name="hash_queue_names",
        type=Type.LIST,
        default="deferred, defer",
        help="Queues with a level of subfolders.",
    ),
    Parameter(
        name="html_directory",
        type=Type.STRING,
        default="/usr/share/doc/postfix/html",
        effect=False,
        help="Where Postfix's HTML pages are.",
    ),
    Parameter(
        name="qmgr_message_memory_limit",
        type=Type.INTEGER,
        default="67108864",
        low=0,
        high=MAXIMUM_LONG,
        own=True,
        help=(
            "Bytes of content of just committed messages that are kept in memory for their first delivery."
        ),
    ),
    Parameter(
        name="queue_commit_sync",
        type=Type.ENUM,
        default="auto",
        choices=("auto", "fsync", "syncfs"),
        own=True,
        help=(
            "What makes messages durable before they are acknowledged: an fsync each, one syncfs for all "
            "that wait, or (auto) whichever is cheaper for as many as wait. All are equally safe."
        ),
    ),
    Parameter(
        name="queue_commit_threads",
        type=Type.INTEGER,
        default="2",
        low=1,
        high=64,
        own=True,
        help=(
            "Threads that make queue files durable: those of large messages, and without "
            "queue_disk_process all of them."
        ),
    ),
    Parameter(
        name="queue_disk_process",
        type=Type.BOOLEAN,
        default="yes",
        own=True,
        help=(
            "Let a process of its own write, move and remove the queue files of small messages, which is "
            "much faster; no: threads do it."
        ),
    ),
    Parameter(
        name="queue_directory",
        type=Type.STRING,
        default="/var/spool/qmqpd_tx",
        low=1,
        help="The folder with the queues.",
    ),
    Parameter(
        name="queue_minfree",
        type=Type.INTEGER,
        default="0",
        low=0,
        high=MAXIMUM_LONG,
        help="Bytes that must be free in the queue's file system to accept mail; 0 for no limit.",
    ),
    Parameter(
        name="queue_spare_files",
        type=Type.INTEGER,
        default="4000",
        low=0,
        high=100000,
        own=True,
        help=(
            "Files of removed small messages that are kept in the folder spare, to be used again; 0: none. "
            "Using a file again costs less than making one."
        ),
    ),
    Parameter(
        name="readme_directory",
        type=Type.STRING,
        default="/usr/share/doc/postfix",
        effect=False,
        help="Where Postfix's README files are.",
    ),
    Parameter(
        name="trigger_timeout",
        type=Type.TIME,
        default="10s",
        low=1,
        help="Time limit for a trigger sent to the queue manager.",
    ),
    Parameter(
        name="table_check_interval",
        type=Type.TIME,
        default="2s",
        low=1,
        own=True,
        help="How often to look whether files of lookup tables have changed; then everything is read again.",
    ),
)
