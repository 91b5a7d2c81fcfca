"""
The SMTP client, smtp(8): delivers mail to where MX records, a relayhost or transport_maps say.

The parts, from the wire up: L{replies<qmqpd_tx.transports.smtp.replies>} and
L{encode<qmqpd_tx.transports.smtp.encode>} (bytes), L{conversation<qmqpd_tx.transports.smtp.conversation>}
(one session, without I/O), L{connection<qmqpd_tx.transports.smtp.connection>} (the Twisted protocol),
L{pool<qmqpd_tx.transports.smtp.pool>} (connections that wait),
L{resolve<qmqpd_tx.transports.smtp.resolve>} (which hosts),
L{delivery<qmqpd_tx.transports.smtp.delivery>} (which host next, and what becomes of each recipient),
L{transport<qmqpd_tx.transports.smtp.transport>} (what the queue manager sees).
"""

from __future__ import annotations

import random

from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, IDeliveryAgent, TransportContext
from qmqpd_tx.transports.smtp.transport import SMTPTransport

__all__ = ["SMTPAgent", "SMTPTransport"]


@implementer(IDeliveryAgent)
class SMTPAgent:
    """
    The C{smtp} command of master.cf.

    @ivar command: C{smtp}.
    """

    command = "smtp"

    def __init__(self, rng: random.Random | None = None) -> None:
        """
        @param rng: for the order of equal hosts; by default each transport has its own.
        """
        self._rng = rng

    def transport(self, context: TransportContext) -> SMTPTransport:
        """
        @param context: what the transport may use.
        @return: the transport.
        @raise ConfigError: a parameter or argument cannot be used.
        """
        for argument in context.arguments:
            if argument.strip("v") != "-":
                raise ConfigError(
                    f"master.cf: {context.name}: smtp: argument {argument!r} is not supported: remove it"
                )
        return SMTPTransport(context, self._rng)
