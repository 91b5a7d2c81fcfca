"""
The queue store: durable messages in files, and the same in memory for tests and simulations.

Public: L{FileMailQueue<qmqpd_tx.spool.store.FileMailQueue>},
L{MemoryMailQueue<qmqpd_tx.spool.memory.MemoryMailQueue>}, L{qmqpd_tx.spool.inspect},
L{qmqpd_tx.spool.offline}.
"""
