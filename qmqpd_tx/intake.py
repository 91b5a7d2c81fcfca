"""
The QMQP services of one mail system: which there are, their sockets, and their end.

Part of the composition root: takes a L{Config} and the command line's endpoints, gives an L{Intake} for each
C{qmqpd} line of master.cf, and L{Listeners} that bind all of them while the process may still be root, begin
to accept when the queue is ready, and stop. Answers to master(8), the part that owns sockets.

How it fails: a service column that makes no sense, or a socket that cannot be bound, is a L{ConfigError}
with one line. At a reload services keep their sockets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.cleanups import CLEANUP
from qmqpd_tx.config import Config
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError, ICleanup
from qmqpd_tx.qmqp.admission import ClientLists
from qmqpd_tx.qmqp.clients import read_client_lists
from qmqpd_tx.qmqp.endpoints import DEFAULT_SERVICE, endpoint_descriptions
from qmqpd_tx.qmqp.hostnames import ClientNames
from qmqpd_tx.qmqp.server import QMQPServerFactory, never
from qmqpd_tx.tables import HostMatchList, OpenTable

log = Logger(namespace="qmqpd_tx.master")

PROXIED = "haproxy:"
"""How the description of an endpoint behind a proxy begins."""

COMMAND_LINE = "--listen"
"""The name of the service that C{--listen} makes."""

Owner = tuple[int | None, int | None]
"""The user and the group that the process is going to be, where it is told to change."""


@frozen(slots=True)
class Intake:
    """
    One QMQP service: a C{qmqpd} line of master.cf, or the command line's endpoints.

    @ivar name: what identifies it across a reload.
    @ivar endpoints: Twisted endpoint descriptions.
    @ivar config: the configuration with the line's C{-o} overrides.
    @ivar max_connections: the line's process limit; 0 is none.
    @ivar clients: who may connect, and as whom.
    @ivar cleanup: the name of the cleanup service that it hands its mail to.
    """

    name: str
    endpoints: Sequence[str]
    config: Config
    max_connections: int
    clients: ClientLists
    cleanup: str

    @property
    def service(self) -> str:
        """Its name in the log: that in master.cf."""
        return self.name.partition(" ")[0]


def intakes(config: Config, listen: Sequence[str], open_table: OpenTable) -> Sequence[Intake]:
    """
    @param listen: endpoints from the command line, which replace those of master.cf.
    @param open_table: opens lookup tables.
    @return: the QMQP services to run.
    @raise ConfigError: a service column or an override cannot be used.
    """
    default_limit = config.integer("default_process_limit")
    if listen:
        return [_intake(COMMAND_LINE, listen, config, config, default_limit, open_table)]
    if not config.has_master_cf:
        endpoints = endpoint_descriptions(DEFAULT_SERVICE, config)
        return [_intake(DEFAULT_SERVICE, endpoints, config, config, default_limit, open_table)]
    found = []
    for line in config.services:
        if line.command != "qmqpd":
            continue
        own = config.for_service(line)
        try:
            endpoints = endpoint_descriptions(line.name, own, line.type)
            limit = default_limit if line.maxproc is None else line.maxproc
            name = f"{line.name} {line.type}"
            found.append(_intake(name, endpoints, config, own, limit, open_table))
        except ConfigError as problem:
            raise ConfigError(f"{line.where()}: {problem}") from None
    return found


def _intake(
    name: str, endpoints: Sequence[str], config: Config, own: Config, limit: int, open_table: OpenTable
) -> Intake:
    """
    @param config: the configuration of all.
    @param own: that of this service.
    """

    def hosts(words: Sequence[str], parameter: str, parents: bool) -> HostMatchList:
        return HostMatchList(words, parameter, parents, open_table)

    lists = read_client_lists(own, hosts, open_table, is_local_address)
    cleanup = own.string("cleanup_service_name")
    lines = (line.name for line in config.services if line.command == CLEANUP)
    if cleanup != CLEANUP and cleanup not in lines:
        raise ConfigError(f"cleanup_service_name = {cleanup}: master.cf has no cleanup service of that name")
    return Intake(name, endpoints, own, limit, lists, cleanup)


class Listeners:
    """
    The sockets of all QMQP services, and the servers behind them.
    """

    def __init__(
        self,
        reactor: Any,
        cleanup_of: Callable[[str], ICleanup],
        names: ClientNames,
        services: Sequence[Intake],
        drain_limit: int,
        behind: Callable[[], bool] = never,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        """
        @param reactor: listens, and has the time.
        @param cleanup_of: gives the cleanup service with a name of C{cleanup_service_name}; asked at every
            (re)configuration.
        @param names: how clients are called.
        @param services: what to serve.
        @param drain_limit: C{qmqpd_drain_limit}.
        @param behind: whether mail arrives faster than the queue manager takes it, for C{in_flow_delay}.
        @param refresh: sees whether the configuration has changed (C{max_use}, C{max_idle}).
        """
        self._reactor = reactor
        self._cleanup_of = cleanup_of
        self._services = services
        self._ports: list[IListeningPort] = []
        self._factories = {
            service.name: QMQPServerFactory(
                config=service.config,
                clock=reactor,
                cleanup=self._cleanup_of(service.cleanup),
                clients=service.clients,
                hostnames=names,
                max_connections=service.max_connections,
                drain_limit=drain_limit,
                behind=behind,
                service=service.service,
                refresh=refresh,
            )
            for service in services
        }

    @property
    def endpoints(self) -> Sequence[str]:
        """All endpoints, as Twisted describes them."""
        return [description for service in self._services for description in service.endpoints]

    def bind(self, owner: Owner) -> None:
        """
        Bind all sockets, as the one who may; nothing is accepted yet.

        @param owner: whom sockets in the file system are to belong to.
        @raise ConfigError: one cannot be bound; those before it are closed again.
        """
        try:
            for service in self._services:
                for description in service.endpoints:
                    self._bind(description, self._factories[service.name], owner)
        except ConfigError:
            # The process ends. What it would leave behind are the names in the file system.
            for path in filter(None, map(_path, self._ports)):
                with suppress(OSError):
                    os.unlink(path)
            raise

    def _bind(self, description: str, factory: QMQPServerFactory, owner: Owner) -> None:
        failures: list[Failure] = []
        ports: list[IListeningPort] = []
        proxied = description.startswith(PROXIED)
        described = description.removeprefix(PROXIED)
        try:
            endpoint = serverFromString(self._reactor, described)  # type: ignore[no-untyped-call]
        except Exception as problem:
            raise ConfigError(
                f"cannot listen on {description}: not a Twisted endpoint: {problem}; "
                f"write tcp:PORT:interface=ADDRESS or unix:/PATH"
            ) from None
        listening: Deferred[IListeningPort] = maybeDeferred(
            endpoint.listen, factory.proxied if proxied else factory
        )
        listening.addCallbacks(ports.append, failures.append)
        if failures:
            reason: object = failures[0].value
            if isinstance(reason, CannotListenError):
                reason = reason.socketError
            raise ConfigError(
                f"cannot listen on {description}: {reason}; end what listens there, choose another endpoint, "
                f"or start as root for a port below 1024"
            )
        for port in ports:
            self._ports.append(port)
            # The kernel keeps clients waiting until the queue is ready.
            _read(port, False)
            factory.add_port(port)
            path = _path(port)
            if path is not None and os.geteuid() == 0:
                uid, gid = owner
                os.lchown(path, -1 if uid is None else uid, -1 if gid is None else gid)

    def accept(self) -> None:
        """
        Begin to take mail.
        """
        for port in self._ports:
            _read(port, True)

    def reconfigure(self, services: Sequence[Intake]) -> None:
        """
        Serve connections from now on by another configuration.

        @raise ConfigError: it cannot be used.
        """
        for service in services:
            factory = self._factories.get(service.name)
            if factory is not None:
                cleanup = self._cleanup_of(service.cleanup)
                factory.reconfigure(service.config, service.clients, service.max_connections, cleanup)

    async def stop(self) -> None:
        """
        Take no new connections, and return when those under way have had their answer.
        """
        ports, self._ports = self._ports, []
        closing = [self._close(port) for port in ports]
        await gatherResults([*closing, *(factory.stop() for factory in self._factories.values())])

    def _close(self, port: IListeningPort) -> Deferred[Any]:
        path = _path(port)
        if path is not None and not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            # Bound as root, in a folder that is not ours: Twisted would fail half-way.
            _read(port, False)
            log.warn("{path}: no right to remove the socket: it stays until the next start", path=path)
            return maybeDeferred(str)
        return maybeDeferred(port.stopListening)


def _read(port: object, read: bool) -> None:
    """Accept from a port, or not, where its kind can be told to."""
    change = getattr(port, "startReading" if read else "stopReading", None)
    if change is not None:
        change()


def _path(port: IListeningPort) -> str | None:
    """
    @return: where a port is in the file system, if it is there.
    """
    host = port.getHost()
    if not isinstance(host, UNIXAddress) or not host.name or host.name[:1] in (b"\0", "\0"):
        return None
    path: str = os.fsdecode(host.name)
    return path
