"""
Queue manager: how much, how often, how long, how parallel. Answers to qmgr(8) and oqmgr(8).

Rows of the parameter table; data only, as long as it has rows.
"""

from __future__ import annotations

from qmqpd_tx.config.table import Parameter, Type
from qmqpd_tx.config.values import MAXIMUM_INTEGER

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name='address_verify_pending_request_limit', type=Type.INTEGER, default='5000', low=1, high=MAXIMUM_INTEGER, effect=False, help='The most address probes in the queue.',),
    Parameter(name='bounce_queue_lifetime', type=Type.TIME, default='5d', low=0, high=8640000, unit='d', help='The same for bounces, which are then dropped.',),
    Parameter(name='command_time_limit', type=Type.TIME, default='1000s', low=1, effect=False, help='The time that a delivery command gets.',),
    Parameter(name='default_delivery_slot_cost', type=Type.INTEGER, default='5', low=0, high=MAXIMUM_INTEGER, help='After how many deliveries a message may be overtaken once; 0 or 1 for never.',),
    Parameter(name='default_delivery_slot_discount', type=Type.INTEGER, default='50', low=0, high=100, help='By how much less, in percent, it may be overtaken.',),
    Parameter(name='default_delivery_slot_loan', type=Type.INTEGER, default='3', low=0, high=MAXIMUM_INTEGER, help='How many deliveries early it may be overtaken.',),
    Parameter(name='default_destination_concurrency_failed_cohort_limit', type=Type.INTEGER, default='1', low=0, high=MAXIMUM_INTEGER, help='After how many failed rounds of connections a destination counts as dead; 0 for never.',),
    Parameter(name='default_destination_concurrency_limit', type=Type.INTEGER, default='20', low=0, high=MAXIMUM_INTEGER, help='The most parallel deliveries to one destination; 0 for no limit.',),
    Parameter(name='default_destination_concurrency_negative_feedback', type=Type.FEEDBACK, default='1', help='How much a failure narrows the window of parallel deliveries.',),
    Parameter(name='default_destination_concurrency_positive_feedback', type=Type.FEEDBACK, default='1', help='How much a success widens the window of parallel deliveries.',),
    Parameter(name='default_destination_rate_delay', type=Type.TIME, default='0s', low=0, help='The pause between two deliveries to one destination.',),
    Parameter(name='default_destination_recipient_limit', type=Type.INTEGER, default='50', low=0, high=MAXIMUM_INTEGER, help='The most recipients in one delivery; 0 for no limit.',),
    Parameter(name='default_extra_recipient_limit', type=Type.INTEGER, default='1000', low=0, high=MAXIMUM_INTEGER, help='Recipients in memory beyond that, for messages that overtake others.',),
    Parameter(name='default_minimum_delivery_slots', type=Type.INTEGER, default='3', low=0, high=MAXIMUM_INTEGER, help='How many recipients a message needs before it can be overtaken.',),
    Parameter(name='default_recipient_limit', type=Type.INTEGER, default='20000', low=0, high=MAXIMUM_INTEGER, help='The most recipients in memory for one transport.',),
    Parameter(name='default_recipient_refill_delay', type=Type.TIME, default='5s', low=1, help='The longest time between two such reads.',),
    Parameter(name='default_recipient_refill_limit', type=Type.INTEGER, default='100', low=1, high=MAXIMUM_INTEGER, help='The most recipients read at once for a message under way.',),
    Parameter(name='default_transport', type=Type.STRING, default='smtp', low=1, help='The transport (and next hop) for domains that are not ours.',),
    Parameter(name='default_transport_rate_delay', type=Type.TIME, default='0s', low=0, help='The pause between two deliveries of one transport.',),
    Parameter(name='defer_transports', type=Type.LIST, default='', help='Transports that deliver only when the queue is flushed by hand.',),
    Parameter(name='destination_concurrency_feedback_debug', type=Type.BOOLEAN, default='no', effect=False, help='Log each change of a window.',),
    Parameter(name='initial_destination_concurrency', type=Type.INTEGER, default='5', low=1, high=MAXIMUM_INTEGER, help='With how many parallel deliveries a destination starts.',),
    Parameter(name='local_destination_concurrency_limit', type=Type.INTEGER, default='2', low=0, high=MAXIMUM_INTEGER, help='The most parallel deliveries to one local mailbox.',),
    Parameter(name='local_destination_recipient_limit', type=Type.INTEGER, default='1', low=0, high=MAXIMUM_INTEGER, help='Recipients in one local delivery; with 1 the limits above count for each mailbox.',),
    Parameter(name='maximal_backoff_time', type=Type.TIME, default='4000s', low=1, help='The most time between two attempts to deliver a deferred message.',),
    Parameter(name='maximal_queue_lifetime', type=Type.TIME, default='5d', low=0, high=8640000, unit='d', help='The age at which a message that still cannot be delivered is returned.',),
    Parameter(name='minimal_backoff_time', type=Type.TIME, default='300s', low=1, help='The least time between two attempts to deliver a deferred message.',),
    Parameter(name='qmgr_clog_warn_time', type=Type.TIME, default='300s', low=0, help='The least time between warnings that one destination clogs the active queue; 0 for none.',),
    Parameter(name='qmgr_daemon_timeout', type=Type.TIME, default='1000s', low=1, effect=False, help="Postfix's watchdog over the queue manager. Here it shares the process.",),
    Parameter(name='qmgr_fudge_factor', type=Type.INTEGER, default='100', low=1, high=MAXIMUM_INTEGER, effect=False, help='How much of the active queue one destination may take, in percent (oqmgr).',),
    Parameter(name='qmgr_ipc_timeout', type=Type.TIME, default='60s', low=1, effect=False, help="Limit for the queue manager's messages to other processes. Here there are none.",),
    Parameter(name='qmgr_message_active_limit', type=Type.INTEGER, default='20000', low=1, high=MAXIMUM_INTEGER, help='The most messages in the active queue.',),
    Parameter(name='qmgr_message_recipient_limit', type=Type.INTEGER, default='20000', low=1, high=MAXIMUM_INTEGER, help='The most recipients in memory, and the most destinations remembered as dead.',),
    Parameter(name='qmgr_message_recipient_minimum', type=Type.INTEGER, default='10', low=1, high=MAXIMUM_INTEGER, help='The recipients of a message that are read even when memory is full.',),
    Parameter(name='qmgr_shutdown_time_limit', type=Type.TIME, default='5s', low=0, own=True, help='Deliveries under way at a stop get this long to finish.',),
    Parameter(name='queue_run_delay', type=Type.TIME, default='300s', low=1, help='The time between two scans of the deferred queue.',),
    Parameter(name='transport_retry_time', type=Type.TIME, default='60s', low=1, help='How long a transport that failed by itself is left alone.',),
)
