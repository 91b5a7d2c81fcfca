"""
What C{twistd} lists: one service, C{qmqp}.

This folder is a plugin drop-in of Twisted's, so it must not hold an C{__init__.py}.
"""

from twisted.application.service import ServiceMaker

qmqp = ServiceMaker(
    "qmqpd_tx",
    "qmqpd_tx.tap",
    "A mail queue for people who send: QMQP in, durable on disk, delivered with Postfix semantics.",
    "qmqp",
)
