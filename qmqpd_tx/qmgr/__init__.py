"""
qmgr(8): decides what is delivered when, to whom, and what becomes of it.

The pure parts are L{scheduler<qmqpd_tx.qmgr.scheduling.roundrobin>}, L{feedback<qmqpd_tx.qmgr.scheduling.feedback>},
L{backoff<qmqpd_tx.qmgr.scheduling.backoff>}, L{triggers<qmqpd_tx.qmgr.triggers>},
L{delays<qmqpd_tx.qmgr.delays>} and L{verp<qmqpd_tx.qmgr.verp>}; the service that puts them to work is
L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>}.
"""
