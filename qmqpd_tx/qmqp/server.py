"""
The QMQP server: a factory of connections, their number, and their end.

Takes a cleanup service, an access list, client names and a configuration; gives an
L{IProtocolFactory<twisted.internet.interfaces.IProtocolFactory>} for any stream endpoint. At most
C{max_connections} are served at a time; at that number the ports are no longer read, so that further clients
wait in the kernel's queue, as they do for Postfix when master.cf's process limit is reached. Where Postfix's
process would end, after C{max_use} connections or an idle C{max_idle}, somebody is told, who sees whether the
configuration has changed. L{stop} ends
connections that are still receiving (their clients come again), lets commits under way finish and be
answered, and fires when all is quiet.

Answers to Postfix's master(8) and qmqpd(8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from qmqpd_tx.interfaces import ICleanup, IConfig
from qmqpd_tx.qmqp.admission import Admission, ClientLists
from qmqpd_tx.qmqp.connection import QMQPConnection
from qmqpd_tx.qmqp.deadlines import Deadlines
from qmqpd_tx.qmqp.limits import ClientLimits
from qmqpd_tx.qmqp.proxied import ProxiedConnections
from qmqpd_tx.qmqp.roles import Connection, NameLookup
from qmqpd_tx.qmqp.settings import read_settings
from qmqpd_tx.qmqp.usage import Usage

ACCEPTED_AT_ONCE = 100
"""How many connections a port of Twisted may accept before it notices that it is no longer to be read."""

DRAIN_LIMIT = 32 * 1024 * 1024
"""The default C{drain_limit}, in bytes: a client may send that much of a message that is too large."""


def never() -> bool:
    """
    @return: that the queue manager keeps up, where nobody knows better.
    """
    return False


class _ReadablePort(Protocol):
    def startReading(self) -> None: ...
    def stopReading(self) -> None: ...


@implementer(IProtocolFactory)
class QMQPServerFactory:
    """
    Serves QMQP.

    @ivar clock: the time.
    @ivar cleanup: where messages go.
    @ivar admission: who may connect, and as whom.
    @ivar limits: how often each client may.
    @ivar hostnames: how clients are called.
    @ivar settings: for connections from now on.
    @ivar behind: whether the queue manager does not keep up.
    @ivar deadlines: when connections are overdue.
    @ivar service: what the service is called.
    @ivar proxied: for ports behind a proxy: makes connections whose client the proxy names first.
    """

    def __init__(
        self,
        config: IConfig,
        clock: IReactorTime,
        cleanup: ICleanup,
        clients: ClientLists,
        hostnames: NameLookup,
        max_connections: int = 0,
        drain_limit: int = DRAIN_LIMIT,
        behind: Callable[[], bool] = never,
        service: str = "qmqpd",
        refresh: Callable[[], None] | None = None,
    ) -> None:
        """
        @param config: for the parameters in L{qmqpd_tx.qmqp.settings}.
        @param clock: the time.
        @param cleanup: where messages go.
        @param clients: who may use the service, and other lists of clients.
        @param hostnames: C{lookup(address)} gives a client's name or a Deferred of it.
        @param max_connections: how many connections are served at a time; 0 is without limit, as in the
            C{maxproc} column of master.cf.
        @param drain_limit: how many bytes of unwanted input are thrown away, for each connection, to let a
            client that sends on regardless have its negative reply.
        @param behind: whether mail arrives faster than the queue manager takes it; asked once a message.
        @param service: the service's name in master.cf, for the log.
        @param refresh: called when it is time to see whether the configuration has changed (C{max_use},
            C{max_idle}).
        """
        self.clock: IReactorTime = clock
        self.cleanup: ICleanup = cleanup
        self.hostnames = hostnames
        self.behind = behind
        self.deadlines = Deadlines(clock)
        self.service = service
        self._drain_limit = drain_limit
        self.settings = read_settings(config, drain_limit)
        self.admission = Admission(clients, self.settings)
        self.limits = ClientLimits(self.settings.limits)
        self.proxied = ProxiedConnections(self)
        self._clients = clients
        self._usage = None if refresh is None else Usage(clock, refresh, self.settings)
        self._max_connections = max_connections
        self._connections: set[Connection] = set()
        self._waiting: deque[Connection] = deque()
        self._ports: list[IListeningPort] = []
        self._own_ports: list[IListeningPort] = []
        self._paused = False
        self._stopping = False
        self._quiet: list[Deferred[None]] = []

    @property
    def connection_count(self) -> int:
        """
        How many connections are open, those that wait for their turn included.
        """
        return len(self._connections) + len(self._waiting)

    def reconfigure(
        self,
        config: IConfig,
        clients: ClientLists | None = None,
        max_connections: int | None = None,
        cleanup: ICleanup | None = None,
    ) -> None:
        """
        Use another configuration for connections from now on.

        @param config: as for the constructor.
        @param clients: as for the constructor; L{None} keeps it.
        @param max_connections: as for the constructor; L{None} keeps it.
        @param cleanup: as for the constructor; L{None} keeps it.
        """
        settings = read_settings(config, self._drain_limit)
        self._clients = clients or self._clients
        self.settings = settings
        self.admission = Admission(self._clients, settings)
        self.limits.settings = settings.limits
        if self._usage is not None:
            self._usage.settings = settings
        if cleanup is not None:
            self.cleanup = cleanup
        if max_connections is not None:
            self._max_connections = max_connections
            self._make_room()

    def listen(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        """
        Listen, with back-pressure, until L{stop}.

        @return: a Deferred that gives the port, or fails when it cannot be bound.
        """

        def bound(port: IListeningPort) -> IListeningPort:
            self._own_ports.append(port)
            self.add_port(port)
            return port

        listening: Deferred[IListeningPort] = endpoint.listen(self)
        return listening.addCallback(bound)

    def add_port(self, port: IListeningPort) -> None:
        """
        Apply C{max_connections} to a port that somebody else bound, and will close, by no longer
        accepting from it. A port that cannot be paused is served all the same.
        """
        self._ports.append(port)
        if self._paused:
            self._read_ports(False)

    def doStart(self) -> None:
        """
        A port begins to use this factory. Nothing to prepare.
        """

    def doStop(self) -> None:
        """
        A port no longer uses this factory. Connections go on: see L{stop}.
        """

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """
        @return: a connection, or L{None} to hang up at once: when stopping, or when far too many come.
        """
        if self.settings.proxied:
            return self.proxied.buildProtocol(addr)
        return self.connection(addr)

    def connection(self, address: IAddress | None, early: bytes = b"") -> QMQPConnection | None:
        """
        @param address: who connects.
        @param early: what it has sent already.
        @return: as L{buildProtocol}.
        """
        if self._stopping or len(self._waiting) >= ACCEPTED_AT_ONCE or address is None:
            return None
        return QMQPConnection(self, address, early)

    def opened(self, connection: Connection) -> bool:
        """
        @return: whether C{connection} may start now.
        """
        limit = self._max_connections
        if limit and len(self._connections) >= limit:
            self._waiting.append(connection)
            return False
        self._connections.add(connection)
        if len(self._connections) == limit and not self._paused:
            self._read_ports(False)
        return True

    def closed(self, connection: Connection) -> None:
        """
        A connection is gone: others may come.
        """
        if self._usage is not None and not self._stopping:
            self._usage.used()
        if connection in self._connections:
            self._connections.remove(connection)
        else:
            self._waiting.remove(connection)
        if self._paused or self._waiting:
            self._make_room()
        if self._stopping:
            self._check_quiet()

    def _make_room(self) -> None:
        if self._stopping:
            return
        limit = self._max_connections
        while self._waiting and (not limit or len(self._connections) < limit):
            connection = self._waiting.popleft()
            self._connections.add(connection)
            connection.start(resume=True)
        full = bool(limit) and len(self._connections) >= limit
        if full != self._paused:
            self._read_ports(not full)

    def _read_ports(self, read: bool) -> None:
        self._paused = not read
        for port in self._ports:
            if hasattr(port, "stopReading"):
                readable = cast(_ReadablePort, port)
                if read:
                    readable.startReading()
                else:
                    readable.stopReading()

    def stop(self) -> Deferred[None]:
        """
        Take no new connections, drop those that have not sent their whole message, let the others have
        their answer.

        @return: a Deferred that fires when no connection is left.
        """
        self._stopping = True
        self._read_ports(False)
        closing = [end for port in self._own_ports if (end := port.stopListening()) is not None]
        self._own_ports = []
        quiet: Deferred[None] = Deferred()
        self._quiet.append(quiet)
        self.proxied.stop()
        if self._usage is not None:
            self._usage.stop()
        for connection in [*self._waiting, *self._connections]:
            connection.drop()
        self._check_quiet()
        return gatherResults([*closing, quiet]).addCallback(lambda _results: None)

    def _check_quiet(self) -> None:
        if not self._connections and not self._waiting:
            quiet, self._quiet = self._quiet, []
            for deferred in quiet:
                deferred.callback(None)
