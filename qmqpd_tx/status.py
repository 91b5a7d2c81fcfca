"""
Values that say how a delivery went.

A delivery agent returns a L{DeliveryReport}; the queue manager, the bounce service and the log read
it. Status codes are RFC 3463 C{class.subject.detail} strings.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import frozen

from qmqpd_tx.message import Recipient


class Action(enum.Enum):
    """What became of a recipient in one attempt; the value is Postfix's C{status=} word."""

    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"


@frozen(slots=True)
class Outcome:
    """
    The result of one attempt for one recipient.

    @ivar recipient: whose result this is.
    @ivar action: sent, deferred or bounced.
    @ivar dsn: the RFC 3463 code; its class agrees with C{action} (2, 4 or 5).
    @ivar text: the reason as Postfix would log it in parentheses after C{status=}, for example
        C{250 2.0.0 Ok} or C{connect to 127.0.0.1[127.0.0.1]:25: Connection refused}. May come from
        the network: the log escapes it.
    @ivar relay: C{host[address]:port}, C{local} or C{none}.
    @ivar remote_mta: the name of the host that gave C{diagnostic}, for RFC 3464 C{Remote-MTA}; or
        L{None}.
    @ivar diagnostic: the reply that the remote host gave, for RFC 3464 C{Diagnostic-Code: smtp}; or
        L{None}.
    """

    recipient: Recipient
    action: Action
    dsn: str
    text: str
    relay: str = "none"
    remote_mta: str | None = None
    diagnostic: str | None = None


@frozen(slots=True)
class DestinationFailure:
    """
    The destination itself could not be reached or greeted: what counts against its concurrency window.

    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    """

    dsn: str
    text: str


@frozen(slots=True)
class DeliveryReport:
    """
    The result of one L{DeliveryRequest<qmqpd_tx.interfaces.DeliveryRequest>}.

    @ivar outcomes: exactly one for each recipient of the request, in any order.
    @ivar destination_failure: set when connection or handshake failed (no delivery was tried at
        all), L{None} otherwise. A 4xx or 5xx to MAIL, RCPT or DATA is not a destination failure.
    @ivar setup_seconds: the part of the attempt spent on connection set-up, with DNS, greeting and
        EHLO: Postfix's C{c} in C{delays=a/b/c/d}.
    @ivar connection_uses: how many deliveries have used the connection so far, 1 for a fresh one
        (Postfix logs C{conn_use=N} from 2 on).
    """

    outcomes: Sequence[Outcome]
    destination_failure: DestinationFailure | None = None
    setup_seconds: float = 0.0
    connection_uses: int = 1
