"""
What stands in for the rest of the mail system: routing, transports, and the bounce service.

Takes what the queue manager asks of them; gives answers from the scenario, and counts. Routes come from the
scenario's destinations, not from main.cf. Notices to senders are counted and not sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from qmqpd_tx.interfaces import DeliveryRequest, IBounces, IDeliveryTransport, IRouter, IStoredMessage
from qmqpd_tx.message import QueueID, Route
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.simulate.behaviour import Behaviour, Delivery
from qmqpd_tx.simulate.clock import SimulatedClock
from qmqpd_tx.simulate.records import DestinationRecord, IDeliveryLog, MessageRecord
from qmqpd_tx.simulate.scenario import DestinationPlan
from qmqpd_tx.simulate.site import Site
from qmqpd_tx.status import Action, DeliveryReport, Outcome

_SUSPENDED = "delivery temporarily suspended"


@implementer(IRouter)
class ScenarioRouter:
    """
    Sends each domain to the transport and next hop of its destination.
    """

    def __init__(self, destinations: Sequence[DestinationPlan]) -> None:
        self._places = {
            domain.encode(): (plan.transport, plan.nexthop or domain)
            for plan in destinations
            for domain in plan.domains
        }

    def resolve(self, sender: bytes, recipient: bytes) -> Route:
        """See L{IRouter.resolve}."""
        transport, nexthop = self._places[recipient.rpartition(b"@")[2]]
        return Route(transport, nexthop, recipient)


class Network:
    """
    All servers, made when mail first goes there.
    """

    def __init__(
        self,
        behaviours: Sequence[Behaviour],
        clock: SimulatedClock,
        records: Mapping[QueueID, MessageRecord],
        log: IDeliveryLog | None,
    ) -> None:
        """
        @param records: of the messages in the queue.
        @param log: where each delivery is written, or L{None}.
        """
        self.scheduler: IQueueScheduler | None = None
        self.clock = clock
        self.records = records
        self.log = log
        self._behaviours = {
            (behaviour.plan.transport, host): behaviour
            for behaviour in behaviours
            for host in _hosts(behaviour.plan)
        }
        self._sites: dict[tuple[str, str], Site] = {}
        self._shared: dict[str, Site] = {}
        self._dead: dict[tuple[str, str], float] = {}

    def place(self, transport: str, nexthop: str) -> tuple[Site, Behaviour]:
        """
        @return: the server of a next hop, and what is behind it.
        """
        key = (transport, nexthop)
        behaviour = self._behaviours[key]
        site = self._sites.get(key)
        if site is None:
            plan = behaviour.plan
            if plan.one_server:
                site = self._shared.get(plan.name)
            if site is None:
                site = Site(plan.name if plan.one_server else nexthop, behaviour, self.clock)
            if plan.one_server:
                self._shared[plan.name] = site
            else:
                self._sites[key] = site
        return site, behaviour

    def watch(self, transport: str, key: str, record: DestinationRecord, failed: bool) -> int:
        """
        A delivery has ended, and the scheduler does not know yet: look at the window, and be called again
        when it knows.

        @return: the window.
        """
        if self.scheduler is None:
            return 0
        now = self.clock.seconds()
        status = self.scheduler.destination(transport, key, now)
        if failed:
            self.clock.callLater(0, self._look, transport, key, record)
        elif self._dead:
            until = self._dead.pop((transport, key), 0.0)
            if until > now:
                # Somebody got through after all, and so it lives again.
                record.dead_seconds -= until - now
        return status.window if status is not None else 0

    def _look(self, transport: str, key: str, record: DestinationRecord) -> None:
        """Is it dead now?"""
        if self.scheduler is None:
            return
        now = self.clock.seconds()
        if self.scheduler.dead(transport, key, now) is None:
            return
        status = self.scheduler.destination(transport, key, now)
        until = status.resumes if status is not None else None
        if until is not None and self._dead.get((transport, key), 0.0) < until:
            known = max(now, self._dead.get((transport, key), 0.0))
            self._dead[transport, key] = until
            record.dead_seconds += until - known
            record.deaths += 1


def _hosts(plan: DestinationPlan) -> Sequence[str]:
    return plan.domains if plan.nexthop is None else [plan.nexthop]


@implementer(IDeliveryTransport)
class ScriptedTransport:
    """
    A transport of the scenario.
    """

    program = "smtp"

    def __init__(self, network: Network) -> None:
        self._network = network

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """See L{IDeliveryTransport.deliver}."""
        network = self._network
        now = network.clock.seconds()
        site, behaviour = network.place(request.transport, request.nexthop)
        delivery = Delivery(request, network.records[request.queue_id], now)
        behaviour.record.began(now, delivery.record.runs > 0)
        delivery.result.addCallback(self._ended, delivery, behaviour)
        site.deliver(delivery)
        return delivery.result

    def stop(self) -> Deferred[None]:
        """See L{IDeliveryTransport.stop}."""
        return succeed(None)

    def _ended(self, report: DeliveryReport, delivery: Delivery, behaviour: Behaviour) -> DeliveryReport:
        """Count what came of it."""
        network = self._network
        now = network.clock.seconds()
        request, message, record = delivery.request, delivery.record, behaviour.record
        record.busy.add(-1, now)
        key = request.nexthop
        scheduler = network.scheduler
        if scheduler is not None and scheduler.per_recipient(request.transport):
            key = request.recipients[0].address.decode("latin-1")
        failed = report.destination_failure is not None
        window = network.watch(request.transport, key, record, failed)
        tries = record.later if message.runs else record.first
        if window:
            tries.window.add(window)
            record.window = window
        sent = deferred = 0
        for outcome in report.outcomes:
            if outcome.action is Action.SENT:
                sent += 1
            elif outcome.action is Action.DEFERRED:
                deferred += 1
        bounced = len(report.outcomes) - sent - deferred
        tries.deliveries += 1
        tries.recipients += len(report.outcomes)
        tries.deferred += deferred
        record.bounced += bounced
        if sent:
            record.delivered += sent
            mail = message.mail
            mail.delivered.add(now, sent)
            delay = now - message.arrived
            mail.delays.add(delay, sent)
        if network.log is not None:
            domain = request.recipients[0].address.rpartition(b"@")[2].decode("ascii")
            for status, count in (("sent", sent), ("deferred", deferred), ("bounced", bounced)):
                if count:
                    network.log.wrote(now, message, record.name, domain, status, count)
        return report


class Transports:
    """
    The transports that the scenario names. All alike: what differs is behind them.
    """

    def __init__(self, network: Network, names: Sequence[str]) -> None:
        transport = ScriptedTransport(network)
        self._transports = {name: transport for name in names}

    def get(self, name: str) -> IDeliveryTransport | None:
        """
        @return: a transport, or L{None} if there is none of that name.
        """
        return self._transports.get(name)


@implementer(IBounces)
class CountingBounces:
    """
    The bounce service: counts and forgets.

    @ivar confirms: never.
    """

    confirms = False

    def __init__(self, records: Mapping[QueueID, MessageRecord], clock: SimulatedClock) -> None:
        """
        @param records: of the messages in the queue.
        """
        self._records = records
        self._clock = clock

    def bounced(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.bounced}."""
        record = self._records.get(message.queue_id)
        if record is not None:
            record.mail.gone.add(self._clock.seconds(), len(outcomes))
            for outcome in outcomes:
                if outcome.dsn.startswith("5"):
                    record.mail.bounced += 1
                else:
                    # What is given up keeps its last temporary status.
                    record.mail.expired += 1
        return succeed(None)

    def deferred(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.deferred}."""
        record = self._records.get(message.queue_id)
        if record is not None:
            mail = record.mail
            mail.deferrals += len(outcomes)
            if not record.runs:
                mail.first_deferrals += len(outcomes)
            mail.untried += sum(
                outcome.relay == "none" and outcome.text.startswith(_SUSPENDED) for outcome in outcomes
            )
        return succeed(None)

    def delayed(self, message: IStoredMessage) -> Deferred[None]:
        """See L{IBounces.delayed}."""
        return succeed(None)

    def delivered(self, message: IStoredMessage, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """See L{IBounces.delivered}."""
        return succeed(None)

    def notify(self, message: IStoredMessage) -> Deferred[None]:
        """See L{IBounces.notify}."""
        return succeed(None)

    def forget(self, queue_id: QueueID) -> Deferred[None]:
        """See L{IBounces.forget}."""
        return succeed(None)
