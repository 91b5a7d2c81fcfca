"""
Which delivery is next. Pure: no I/O and no timers; time is an argument.

L{control<qmqpd_tx.qmgr.scheduling.control>} is what the queue manager asks of a scheduler; two answer to it,
and share the modules about windows, rates and settings.
L{backoff<qmqpd_tx.qmgr.scheduling.backoff>} says when a message that failed is tried again.
"""
