"""
Delivery agents, and the registry that finds them. See L{qmqpd_tx.transports.registry}.
"""
