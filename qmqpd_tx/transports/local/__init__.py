"""
The C{local} delivery agent: Maildir and mbox on this machine. See L{qmqpd_tx.transports.local.agent}.
"""

from qmqpd_tx.transports.local.agent import LocalAgent, LocalTransport

__all__ = ["LocalAgent", "LocalTransport"]
