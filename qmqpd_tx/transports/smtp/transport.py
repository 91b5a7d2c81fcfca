"""
The smtp transport: deliveries under one master.cf name, with the connections they share.

Takes delivery requests, gives reports; holds the settings, the pool of waiting connections and the host
finder. Cancelling a delivery ends it: recipients that are settled keep their outcome, the others are
deferred. L{SMTPTransport.stop} says QUIT on waiting connections and waits until all are closed. Answers
to smtp(8).
"""

from __future__ import annotations

import random
import socket
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, IConfig, IDeliveryTransport, TransportContext
from qmqpd_tx.status import DeliveryReport
from qmqpd_tx.transports.smtp.connection import SMTPConnection, stage_timeouts
from qmqpd_tx.transports.smtp.conversation import Conversation
from qmqpd_tx.transports.smtp.delivery import Delivery
from qmqpd_tx.transports.smtp.pool import ConnectionPool
from qmqpd_tx.transports.smtp.resolve import AddressInfo, Host, HostFinder
from qmqpd_tx.transports.smtp.settings import Settings, settings_from

log = Logger(namespace="qmqpd_tx.smtp")


class _Attempt(ClientFactory):
    """Gives the protocol of one connection attempt to whoever waits for it."""

    noisy = False

    def __init__(self, protocol: SMTPConnection) -> None:
        self._protocol = protocol
        self._connector: IConnector | None = None
        self._waiting = True
        self.connected: Deferred[SMTPConnection] = Deferred(self._cancel)

    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector

    def _cancel(self, connected: Deferred[SMTPConnection]) -> None:
        self._waiting = False
        if self._connector is not None:
            self._connector.disconnect()

    def buildProtocol(self, addr: IAddress | None) -> SMTPConnection:
        # The waiter runs when the transport is in place.
        self._protocol.on_made = self._made
        return self._protocol

    def _made(self) -> None:
        if self._waiting:
            self._waiting = False
            self.connected.callback(self._protocol)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if self._waiting:
            self._waiting = False
            self.connected.errback(reason)


@implementer(IDeliveryTransport)
class SMTPTransport:
    """
    An SMTP client under one master.cf name.

    @ivar program: C{smtp}, for the log.
    """

    program = "smtp"

    def __init__(self, context: TransportContext, rng: random.Random | None = None) -> None:
        """
        @param context: name, configuration, reactor, resolver.
        @param rng: for the order of equal hosts; by default one seeded by the system.
        @raise ConfigError: a parameter cannot be used.
        """
        self._reactor: Any = context.reactor
        self._resolver = context.resolver
        self._rng = rng if rng is not None else random.Random()
        self._pool: ConnectionPool | None = None
        self._configure(settings_from(context.config))

    def _configure(self, settings: Settings) -> None:
        self._settings = settings
        self._timeouts = stage_timeouts(settings)
        self._finder = HostFinder(settings, self._resolver, self._getaddrinfo, self._rng)
        if self._pool is None:
            self._pool = ConnectionPool(self._reactor, settings)
        else:
            self._pool.settings = settings

    def reconfigure(self, config: IConfig) -> None:
        """
        Use a new configuration for deliveries from now on.

        @param config: with the service's overrides applied.
        @raise ConfigError: it cannot be used; the old one stays in force.
        """
        self._configure(settings_from(config))

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """
        Try to deliver.

        @return: a Deferred that gives a report; see L{IDeliveryTransport.deliver}.
        """
        assert self._pool is not None
        return Deferred.fromCoroutine(
            Delivery(
                request,
                settings=self._settings,
                clock=self._reactor,
                pool=self._pool,
                finder=self._finder,
                connect=self._connect,
            ).run()
        )

    def stop(self) -> Deferred[None]:
        """
        Close waiting connections.

        @return: a Deferred that fires when all are closed.
        """
        assert self._pool is not None
        return self._pool.stop()

    # --- the outside ------------------------------------------------------------------------------

    def _getaddrinfo(self, name: str, family: int) -> Deferred[AddressInfo]:
        lookup: Deferred[AddressInfo] = deferToThreadPool(
            self._reactor,
            self._reactor.getThreadPool(),
            socket.getaddrinfo,
            name,
            None,
            family,
            socket.SOCK_STREAM,
        )
        return lookup

    def _connect(self, host: Host) -> Deferred[SMTPConnection]:
        settings = self._settings
        bind = settings.bind_address6 if ":" in host.address else settings.bind_address
        attempt = self._attempt(host, bind)
        if bind and not settings.bind_address_enforce:

            def unbound(failure: Failure) -> Deferred[SMTPConnection]:
                if not isinstance(failure.value, error.ConnectBindError):
                    failure.raiseException()
                log.warn("bind {address}: {reason}", address=bind, reason=str(failure.value))
                return self._attempt(host, "")

            attempt.addErrback(unbound)
        return attempt

    def _attempt(self, host: Host, bind: str) -> Deferred[SMTPConnection]:
        settings = self._settings
        protocol = SMTPConnection(
            self._reactor,
            Conversation(
                settings.helo_name,
                reply_limit=settings.reply_length_limit,
                always_send_ehlo=settings.always_send_ehlo,
                never_send_ehlo=settings.never_send_ehlo,
                discard_keywords=settings.discard_ehlo_keywords,
            ),
            self._timeouts,
            name=host.name,
            address=host.address,
            port=host.port,
            skip_quit_response=settings.skip_quit_response,
        )
        attempt = _Attempt(protocol)
        self._reactor.connectTCP(
            host.address,
            host.port,
            attempt,
            timeout=settings.timeouts.connect or None,
            bindAddress=(bind, 0) if bind else None,
        )
        assert self._pool is not None
        pool = self._pool

        def opened(connection: SMTPConnection) -> SMTPConnection:
            pool.add(connection)
            return connection

        return attempt.connected.addCallback(opened)
