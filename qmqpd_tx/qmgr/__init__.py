"""
qmgr(8): decides what is delivered when, to whom, and what becomes of it.

A message passes through L{active<qmqpd_tx.qmgr.active>} (is let in), L{recipients<qmqpd_tx.qmgr.recipients>}
(is read), L{resolve<qmqpd_tx.qmgr.resolve>}, L{handover<qmqpd_tx.qmgr.handover>} (to the scheduler),
L{deliver<qmqpd_tx.qmgr.deliver>}, L{settle<qmqpd_tx.qmgr.settle>} (what becomes of each recipient) and
L{finish<qmqpd_tx.qmgr.finish>} (and of the message). L{parts<qmqpd_tx.qmgr.parts>} puts them together.

Which delivery is next is decided in L{scheduling<qmqpd_tx.qmgr.scheduling>}, which is pure; so are
L{triggers<qmqpd_tx.qmgr.triggers>}, L{delays<qmqpd_tx.qmgr.delays>}, L{share<qmqpd_tx.qmgr.share>} and
L{verp<qmqpd_tx.qmgr.verp>}. The service around them is
L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>}.
"""
