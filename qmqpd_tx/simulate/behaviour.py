"""
What servers of one plan do: how long they take, what they say, when they are down.

Takes deliveries, gives times and outcomes, with the chance that the scenario asks for. Connections are the
business of L{site<qmqpd_tx.simulate.site>}.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import DeliveryRequest
from qmqpd_tx.message import Recipient
from qmqpd_tx.simulate.chance import lengths
from qmqpd_tx.simulate.records import DestinationRecord, MessageRecord
from qmqpd_tx.simulate.scenario import DAY, DestinationPlan, Latency, OutageKind, Stage
from qmqpd_tx.status import Action, DeliveryReport, Outcome

_OK = "250 2.0.0 Ok: simulated"
_GREYLISTED = "said: 450 4.2.0 Greylisted, please try again (in reply to RCPT TO command)"
_DOWN = "said: 451 4.3.0 Temporary failure (in reply to RCPT TO command)"


class Delivery:
    """
    One delivery under way.

    @ivar request: what is delivered.
    @ivar record: of its message.
    @ivar began: when, POSIX seconds.
    @ivar setup: seconds until its connection was ready.
    @ivar follows: another one to the same server had just ended.
    @ivar result: fires with its report.
    """

    __slots__ = ("began", "follows", "record", "request", "result", "setup")

    def __init__(self, request: DeliveryRequest, record: MessageRecord, began: float) -> None:
        self.request = request
        self.record = record
        self.began = began
        self.setup = 0.0
        self.follows = False
        self.result: Deferred[DeliveryReport] = Deferred()


class Behaviour:
    """
    What all servers of one plan have in common.

    @ivar plan: the plan.
    @ivar record: counts for it.
    @ivar relay: what the log calls a server.
    """

    def __init__(
        self, plan: DestinationPlan, record: DestinationRecord, random: Random, midnight: float
    ) -> None:
        """
        @param midnight: of the first day, POSIX seconds.
        """
        self.plan = plan
        self.record = record
        self.random = random
        self.connect = lengths(plan.connect, random)
        self.greeting = lengths(plan.greeting, random)
        self.message = lengths(plan.message, random)
        self.recipient = lengths(plan.recipient, random)
        self.turnaround = lengths(plan.limit.turnaround if plan.limit else Latency(), random)
        self.at_connect = [one for one in plan.refusals if one.at is Stage.CONNECT]
        self.at_greeting = [one for one in plan.refusals if one.at is Stage.GREETING]
        self.at_mail = [one for one in plan.refusals if one.at is Stage.MAIL]
        self.at_recipient = [one for one in plan.refusals if one.at is Stage.RECIPIENT]
        self.plain = not (self.at_mail or self.at_recipient or plan.greylisting or plan.outages)
        self.first_seen: dict[bytes, float] = {}
        self._midnight = midnight

    def outage(self, now: float) -> OutageKind | None:
        """
        @return: what is wrong now.
        """
        for outage in self.plan.outages:
            at = now - self._midnight
            if outage.daily and at > outage.begin:
                at = (at - outage.begin) % DAY + outage.begin
            if outage.begin <= at < outage.end:
                return outage.kind
        return None

    def seconds(self, delivery: Delivery) -> float:
        """
        @return: what the mail of one delivery takes on a connection that is ready.
        """
        recipient = self.recipient
        seconds = self.message()
        for _ in delivery.request.recipients:
            seconds += recipient()
        if self.plan.bandwidth:
            seconds += delivery.record.size / self.plan.bandwidth
        return seconds

    def outcomes(self, delivery: Delivery, relay: str, now: float) -> Sequence[Outcome]:
        """
        @return: what the server says to each recipient.
        """
        recipients = delivery.request.recipients
        if self.plain:
            return [Outcome(recipient, Action.SENT, "2.0.0", _OK, relay) for recipient in recipients]
        for refusal in self.at_mail:
            if self.random.random() < refusal.probability:
                said = _said(relay, refusal.code, "DATA")
                return [_refused(recipient, refusal.code, said, relay) for recipient in recipients]
        down = self.outage(now) is OutageKind.RECIPIENT
        return [self._outcome(recipient, relay, now, down) for recipient in recipients]

    def _outcome(self, recipient: Recipient, relay: str, now: float, down: bool) -> Outcome:
        if down:
            return Outcome(recipient, Action.DEFERRED, "4.3.0", f"host {relay} {_DOWN}", relay)
        for refusal in self.at_recipient:
            if self.random.random() < refusal.probability:
                return _refused(recipient, refusal.code, _said(relay, refusal.code, "RCPT TO"), relay)
        if self.plan.greylisting:
            seen = self.first_seen.setdefault(recipient.address, now)
            if now - seen < self.plan.greylisting:
                return Outcome(recipient, Action.DEFERRED, "4.2.0", f"host {relay} {_GREYLISTED}", relay)
            del self.first_seen[recipient.address]
        return Outcome(recipient, Action.SENT, "2.0.0", _OK, relay)


def _said(relay: str, code: int, command: str) -> str:
    return f"host {relay} said: {code} {code // 100}.0.0 Refused (in reply to {command} command)"


def _refused(recipient: Recipient, code: int, text: str, relay: str) -> Outcome:
    if code >= 500:
        return Outcome(recipient, Action.BOUNCED, "5.0.0", text, relay)
    return Outcome(recipient, Action.DEFERRED, "4.0.0", text, relay)
