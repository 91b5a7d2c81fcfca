"""
Finds delivery agents, and makes one transport for each master.cf line that has one.

Takes the services of a configuration (C{config.services}); a line whose command is that of an
L{IDeliveryAgent<qmqpd_tx.interfaces.IDeliveryAgent>} becomes a transport under the line's name, with the
line's C{-o} overrides applied. Agents are the built-in ones and the Twisted plugins that provide
C{IDeliveryAgent}; where two have the same command, the built-in one counts. A delivery agent of
Postfix that this program does not have is named in L{TransportRegistry.unsupported}; mail for such a
transport waits, as mail for any unknown name does.

A reload builds all transports of the new configuration before the first of them is used: a
configuration that cannot be used (L{ConfigError}) changes nothing. Transports of the old one finish
what is under way and are stopped then. Answers to the part of master(8) that knows delivery agents.

A transport in twenty lines, as a plugin in C{twisted/plugins/} of any package on the path::

    from twisted.internet.defer import succeed
    from twisted.plugin import IPlugin
    from zope.interface import implementer
    from qmqpd_tx.interfaces import IDeliveryAgent, IDeliveryTransport
    from qmqpd_tx.status import Action, DeliveryReport, Outcome

    @implementer(IDeliveryTransport)
    class Counter:
        program = "counter"
        seen = 0
        def deliver(self, request):
            self.seen += len(request.recipients)
            text = f"counted {self.seen}"
            return succeed(DeliveryReport([
                Outcome(recipient, Action.SENT, "2.0.0", text) for recipient in request.recipients]))
        def stop(self):
            return succeed(None)

    @implementer(IPlugin, IDeliveryAgent)
    class CounterAgent:
        command = "counter"
        def transport(self, context):
            return Counter()

    counter = CounterAgent()

With C{count unix - - n - - counter} in master.cf, C{transport_maps = inline:{ {example.org = count:} }}
sends all mail for example.org there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IResolver
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    ConfigError,
    DeliveryRequest,
    IDeliveryAgent,
    IDeliveryTransport,
    TransportContext,
)
from qmqpd_tx.status import DeliveryReport
from qmqpd_tx.transports.discard import DiscardAgent
from qmqpd_tx.transports.error import ErrorAgent
from qmqpd_tx.transports.local import LocalAgent
from qmqpd_tx.transports.smtp import SMTPAgent

if TYPE_CHECKING:
    from qmqpd_tx.config.master_cf import MasterService
    from qmqpd_tx.config.model import Config

log = Logger(namespace="qmqpd_tx.master")

POSTFIX_AGENTS = frozenset({"smtp", "lmtp", "local", "virtual", "pipe", "error", "discard"})
"""The commands with which a line of Postfix's master.cf is a transport. Other programs are none."""


@implementer(IDeliveryTransport)
class _Tracked:
    """
    A transport that knows how many deliveries are under way, and can be stopped after the last.

    @param inner: the agent's transport.
    """

    def __init__(self, inner: IDeliveryTransport) -> None:
        self._inner = inner
        self._under_way = 0
        self._gone: Callable[[_Tracked], None] | None = None
        self.program: str = inner.program

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        self._under_way += 1
        # An agent that raises has a bug; it is told like any other failure.
        delivery: Deferred[DeliveryReport] = maybeDeferred(self._inner.deliver, request)
        return delivery.addBoth(self._done)

    def _done(self, result: DeliveryReport | Failure) -> DeliveryReport | Failure:
        self._under_way -= 1
        if self._under_way == 0 and self._gone is not None:
            self._finish(self._gone)
        return result

    def stop(self) -> Deferred[None]:
        stopping: Deferred[None] = maybeDeferred(self._inner.stop)
        return stopping

    def retire(self, gone: Callable[[_Tracked], None]) -> None:
        """
        Stop the agent when nothing is under way.

        @param gone: called when it has stopped.
        """
        self._gone = gone
        if self._under_way == 0:
            self._finish(gone)

    def _finish(self, gone: Callable[[_Tracked], None]) -> None:
        def failed(reason: Failure) -> None:
            log.failure("{program}: stopping failed", reason, program=self.program)

        def stopped(_: None) -> None:
            gone(self)

        self.stop().addErrback(failed).addCallback(stopped)


class TransportRegistry:
    """
    The transports of a running service, by master.cf name.

    @ivar unsupported: C{name (command)} of each line whose delivery agent this program does not have,
        for one line at start-up.
    @param reactor: for the agents: time, TCP, threads.
    @param resolver: for the agents: DNS.
    @param agents: all agents there are; the built-in ones and the installed plugins when L{None}.
    """

    def __init__(
        self,
        reactor: object,
        resolver: IResolver | None,
        agents: Iterable[IDeliveryAgent] | None = None,
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._agents: dict[str, IDeliveryAgent] = {}
        for agent in built_in_and_plugins() if agents is None else agents:
            self._agents.setdefault(agent.command, agent)
        self._transports: dict[str, _Tracked] = {}
        self._retiring: set[_Tracked] = set()
        self._waiters: list[Deferred[None]] = []
        self.unsupported: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of all transports, sorted."""
        return sorted(self._transports)

    def get(self, name: str) -> IDeliveryTransport | None:
        """
        @return: the transport of that name, or L{None} when there is none.
        """
        return self._transports.get(name)

    def reconfigure(self, config: Config) -> None:
        """
        Have the transports of a configuration; also the first one.

        @param config: L{IConfig<qmqpd_tx.interfaces.IConfig>} with C{services}, the lines of its master.cf.
        @raise ConfigError: an agent cannot work with it, naming the line; everything stays as it was.
        """
        transports: dict[str, _Tracked] = {}
        unsupported: list[str] = []
        for service in config.services:
            # Postfix reaches delivery agents by UNIX-domain socket; an smtp line of type inet is a server.
            if service.type != "unix":
                continue
            agent = self._agents.get(service.command)
            if agent is None:
                if service.command in POSTFIX_AGENTS:
                    unsupported.append(f"{service.name} ({service.command})")
                continue
            transports[service.name] = _Tracked(self._make(agent, config, service))
        old, self._transports = self._transports, transports
        self.unsupported = unsupported
        self._retire(old)

    def _make(self, agent: IDeliveryAgent, config: Config, service: MasterService) -> IDeliveryTransport:
        own = config.for_service(service)
        context = TransportContext(
            name=service.name,
            config=own,
            reactor=self._reactor,
            resolver=self._resolver,
            arguments=tuple(service.arguments),
        )
        try:
            transport: IDeliveryTransport = agent.transport(context)
        except ConfigError as error:
            raise ConfigError(f"{service.where()}: {service.name}: {error}") from error
        return transport

    def _retire(self, transports: Mapping[str, _Tracked]) -> None:
        # All are counted before the first can be gone.
        self._retiring.update(transports.values())
        for transport in transports.values():
            transport.retire(self._gone)

    def _gone(self, transport: _Tracked) -> None:
        self._retiring.discard(transport)
        if not self._retiring:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def stop(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when all deliveries under way have ended and all agents stopped.
        """
        old, self._transports = self._transports, {}
        self._retire(old)
        done: Deferred[None] = Deferred()
        if self._retiring:
            self._waiters.append(done)
        else:
            done.callback(None)
        return done


def built_in_and_plugins() -> list[IDeliveryAgent]:
    """
    @return: the agents of this package, then those of installed plugins.
    """
    return [
        SMTPAgent(),
        LocalAgent(),
        ErrorAgent(),
        DiscardAgent(),
        *getPlugins(IDeliveryAgent),
    ]
