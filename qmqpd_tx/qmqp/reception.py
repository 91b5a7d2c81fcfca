"""
What a client finds at the door: whether it is served, and as whom.

Takes a client whose name is known; logs that it is there, counts it, and asks the lists in the order that
costs least; gives a L{Refusal<qmqpd_tx.qmqp.replies.Refusal>} or nothing, and notes in a L{Reception} what
the connection has to know. Waits only where a list has to ask a server, and may be cancelled then. Never
raises but for that: a list that cannot say is a temporary refusal. Answers to Postfix's qmqpd(8), watched,
and for the limits to its smtpd(8).
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import CancelledError

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import FULL_TREATMENT, Treatment
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.qmqp.clients import ACCESS, EXCEPTIONS, LOCAL
from qmqpd_tx.qmqp.replies import Refusal, ReplyClass
from qmqpd_tx.qmqp.roles import Owner
from qmqpd_tx.qmqp.trace import Trace

log = Logger(namespace="qmqpd_tx.qmqpd")

NO_QUEUE_ID = "NOQUEUE"
CONFIGURATION_ERROR = "Error: server configuration error"


@define(slots=True)
class Reception:
    """
    What is known of one client.

    @ivar stranger: whether it has no business here, so that it must not hold a place for long.
    @ivar counted: by what it is counted, as long as it is.
    @ivar treatment: what is to be done to its mail.
    @ivar trace: its verbose log, if it has one.
    """

    stranger: bool = False
    counted: str | None = None
    treatment: Treatment = FULL_TREATMENT
    trace: Trace | None = None

    async def admit(self, owner: Owner, client: ClientInfo, label: str) -> Refusal | None:
        """
        @param owner: the server.
        @param client: who is there.
        @param label: how it is logged.
        @return: why it is not served.
        """
        admission = owner.admission
        log.info("connect from {client}", client=label)
        if admission.level:
            level = await admission.debug_level(client)
            if level:
                self.trace = Trace(client, level)
        list_name = EXCEPTIONS
        try:
            if owner.limits.active and not await admission.excepted(client):
                excess = self._count(owner, client, label)
                if excess is not None:
                    return excess
            list_name = ACCESS
            authorized = await admission.authorized(client)
            if self.trace is not None:
                self.trace.listed(list_name, authorized)
            if not authorized:
                text = f"Error: {label} is not authorized to use this service"
                log.info("{queue_id}: {reason}", queue_id=NO_QUEUE_ID, reason=text)
                self.stranger = True
                return Refusal(ReplyClass.PERMANENT, text)
            list_name = LOCAL
            self.treatment = await admission.treatment(client)
        except CancelledError:
            raise
        except Exception as reason:
            log.warn("{list}: {reason}", list=list_name, reason=str(reason) or repr(reason))
            return Refusal(ReplyClass.TEMPORARY, CONFIGURATION_ERROR)
        return None

    def _count(self, owner: Owner, client: ClientInfo, label: str) -> Refusal | None:
        limits = owner.limits
        key = limits.key(client.address)
        excess = limits.opened(key, owner.clock.seconds())
        if excess is None:
            self.counted = key
            return None
        log.warn(
            "{what} limit exceeded: {number} from {client} for service {service}",
            what=excess.what,
            number=excess.number,
            client=label,
            service=owner.service,
        )
        self.stranger = True
        text = f"Error: too many connections from {client.address}"
        return Refusal(ReplyClass.TEMPORARY, text, delay=False)

    def leave(self, owner: Owner) -> None:
        """
        The client is gone.
        """
        if self.counted is not None:
            owner.limits.closed(self.counted)
            self.counted = None
