"""
Hands recipients whose destination is known to the scheduler, or says why they are not to be tried.

Takes recipients and their routes. Those of a dead destination, of a throttled transport or of one in
C{defer_transports} are deferred without a try, unless a person has asked for the message; so are those to
whom the resolver gave no route. Mail for the local double-bounce address is logged and discarded: it is about
a notice to the postmaster. Nothing here is durable: whoever is not tried stays in the queue file. Answers to
qmgr(8)'s message part.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.message import CONTENT_FILTER, Recipient, Route
from qmqpd_tx.qmgr.clog import ClogWarnings
from qmqpd_tx.qmgr.job import Job
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.settle import Settler
from qmqpd_tx.status import Action, DestinationFailure, Outcome

Groups = dict[tuple[str, str], list[Recipient]]
"""Recipients by transport and next hop."""

_UNRESOLVED: Final = DestinationFailure("4.3.0", "address resolver failure")
_DEFERRED_TRANSPORT: Final = DestinationFailure("4.3.2", "deferred transport")


class Handover:
    """The last step of recipients before they are scheduled."""

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        scheduler: IQueueScheduler,
        settler: Settler,
        clog: ClogWarnings,
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param clock: tells the scheduler the time.
        @param scheduler: where recipients go.
        @param settler: logs and counts the outcome of those that are not tried.
        @param clog: is told what was added where.
        """
        self._clock = clock
        self._scheduler = scheduler
        self._settler = settler
        self._clog = clog
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{double_bounce_sender} and C{defer_transports} are read.
        """
        self._defer_transports = frozenset(config.words("defer_transports"))
        double_bounce = config.string("double_bounce_sender").encode("utf-8", "surrogateescape").lower()
        self._double_bounce = double_bounce.partition(b"@")[0] + b"@"

    def deferred_transport(self, transport: str) -> bool:
        """
        @return: whether a transport delivers only what is flushed (C{defer_transports}).
        """
        return transport in self._defer_transports

    def one(self, job: Job, recipient: Recipient, route: Route | None) -> None:
        """
        Hand over a recipient that comes alone: the short way of most mail, the same as L{group} and L{some}.

        @param route: where it goes, or L{None}: the resolver has failed.
        """
        wanted = self._routed(job, recipient, route)
        if wanted is not None and route is not None:
            self._hand_over(job, route.transport, route.nexthop, [wanted])

    def group(self, job: Job, groups: Groups, recipient: Recipient, route: Route | None) -> None:
        """
        Put a recipient to those that go to the same destination, to be handed over with them.

        @param groups: where to put it.
        @param route: where it goes, or L{None}: the resolver has failed.
        """
        wanted = self._routed(job, recipient, route)
        if wanted is None or route is None:
            return
        key = (route.transport, route.nexthop)
        group = groups.get(key)
        if group is None:
            groups[key] = [wanted]
        else:
            group.append(wanted)

    def some(self, job: Job, transport: str, nexthop: str, recipients: list[Recipient]) -> None:
        """
        Hand over recipients that go to the same destination.
        """
        if job.verp is not None or self._scheduler.per_recipient(transport):
            # One sender each, or one destination each.
            for recipient in recipients:
                self._hand_over(job, transport, nexthop, [recipient])
        else:
            self._hand_over(job, transport, nexthop, recipients)

    def _hand_over(self, job: Job, transport: str, nexthop: str, recipients: list[Recipient]) -> None:
        now = self._clock.seconds()
        scheduler = self._scheduler
        key = nexthop
        if scheduler.per_recipient(transport):
            key = recipients[0].address.decode("latin-1")
        if job.urgent:
            scheduler.revive(transport, key)
        failure = scheduler.dead(transport, key, now)
        if failure is None and transport in self._defer_transports and not job.flushed:
            failure = _DEFERRED_TRANSPORT
        if failure is not None:
            self._suspend(job, recipients, failure)
        else:
            scheduler.add(job, transport, nexthop, recipients, now)
            self._clog.added(transport, key, now)

    def _suspend(self, job: Job, recipients: list[Recipient], failure: DestinationFailure) -> None:
        self._scheduler.forgo(job, len(recipients), self._clock.seconds())
        self._settler.suspend(job, recipients, failure)

    def _routed(self, job: Job, recipient: Recipient, route: Route | None) -> Recipient | None:
        """The recipient as it is to be delivered to; L{None} when its way ends here."""
        if route is None:
            self._suspend(job, [recipient], _UNRESOLVED)
            return None
        if self._discarded(job, recipient, route):
            return None
        if route.recipient != recipient.address:
            return Recipient(route.recipient, recipient.original, recipient.position, recipient.silent)
        return recipient

    def _discarded(self, job: Job, recipient: Recipient, route: Route) -> bool:
        """Whether it was mail for the double-bounce address, which ends here, unless a filter gets it."""
        size = len(self._double_bounce)
        address = recipient.address
        if address[:size].lower() != self._double_bounce:
            return False
        if CONTENT_FILTER in job.message.envelope.attributes:
            return False
        if not route.local:
            return False
        text = "undeliverable postmaster notification discarded"
        outcome = Outcome(recipient, Action.SENT, "2.0.0", text)
        self._scheduler.forgo(job, 1, self._clock.seconds())
        self._settler.settle(job, [recipient], [outcome], "qmgr")
        return True
