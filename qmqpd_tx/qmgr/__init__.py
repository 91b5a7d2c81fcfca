"""
qmgr(8): decides what is delivered when, to whom, and what becomes of it.

Which delivery is next is decided in L{scheduling<qmqpd_tx.qmgr.scheduling>}, which is pure; so are
L{triggers<qmqpd_tx.qmgr.triggers>}, L{delays<qmqpd_tx.qmgr.delays>}, L{share<qmqpd_tx.qmgr.share>} and
L{verp<qmqpd_tx.qmgr.verp>}. The service that puts them to work is
L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>}.
"""
