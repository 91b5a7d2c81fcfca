"""
The composition root: C{twistd qmqp --config FILE [--listen ENDPOINT]...}.

The only module that knows all rooms and the global reactor, and the only place where they are wired
together; nobody imports it but the twistd plugin. Answers to master(8): it reads main.cf and master.cf,
binds sockets while it may still be root, serves when the queue is recovered, reloads at SIGHUP, and stops
in the order that loses nothing: listeners, commits under way, queue manager, transports, store, log.

How it fails: a configuration that cannot be used, a socket that cannot be bound or a queue that belongs to
another service ends start-up with one line and a non-zero exit status. A bad configuration at SIGHUP is
refused with one line, and the old one stays in force.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver
from twisted.names.client import createResolver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from qmqpd_tx.address import Router
from qmqpd_tx.admin.codec import SOCKET, ControlError
from qmqpd_tx.admin.control import ControlService
from qmqpd_tx.bounce import Bounces
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import Config, load_config
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError, Recovery, SpoolError
from qmqpd_tx.maillog import MailLog
from qmqpd_tx.message import QueueID
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.qmgr.triggers import TriggerFactory
from qmqpd_tx.qmqp.endpoints import DEFAULT_SERVICE, endpoint_descriptions
from qmqpd_tx.qmqp.hostnames import ClientNames
from qmqpd_tx.qmqp.server import QMQPServerFactory
from qmqpd_tx.spool.store import FileMailQueue
from qmqpd_tx.tables import HostMatchList
from qmqpd_tx.transports.registry import TransportRegistry

log = Logger(namespace="qmqpd_tx.master")

TRIGGER_SOCKET = "public/qmgr"


class Options(usage.Options):
    """The command line of C{twistd qmqp}."""

    synopsis = "[--config FILE] [--listen ENDPOINT]..."
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["config", "c", "/etc/qmqpd_tx/main.cf", "The main.cf to use; master.cf is looked for beside it."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        A Twisted endpoint to take QMQP on, as in tcp:628:interface=127.0.0.1; may be given more than
        once. By default the qmqpd lines of master.cf, or port 628 on inet_interfaces.
        """
        self["listen"].append(endpoint)

    opt_l = opt_listen


@frozen(slots=True)
class Intake:
    """
    One QMQP service: a C{qmqpd} line of master.cf, or the command line's endpoints.

    @ivar name: what identifies it across a reload.
    @ivar endpoints: Twisted endpoint descriptions.
    @ivar config: the configuration with the line's C{-o} overrides.
    @ivar max_connections: the line's process limit; 0 is none.
    """

    name: str
    endpoints: Sequence[str]
    config: Config
    max_connections: int

    def access(self) -> HostMatchList:
        """
        @return: who may connect.
        """
        parameter = "qmqpd_authorized_clients"
        parents = self.config.words("parent_domain_matches_subdomains")
        return HostMatchList(self.config.words(parameter), parameter, parameter in parents)


def intakes(config: Config, listen: Sequence[str]) -> Sequence[Intake]:
    """
    @param listen: endpoints from the command line, which replace those of master.cf.
    @return: the QMQP services to run.
    @raise ConfigError: a service column or an override cannot be used.
    """
    default_limit = config.integer("default_process_limit")
    if listen:
        return [Intake("--listen", listen, config, default_limit)]
    lines = [service for service in config.services if service.command == "qmqpd"]
    if not lines and not config.has_master_cf:
        return [
            Intake(DEFAULT_SERVICE, endpoint_descriptions(DEFAULT_SERVICE, config), config, default_limit)
        ]
    found = []
    for line in lines:
        own = config.for_service(line)
        limit = default_limit if line.maxproc is None else line.maxproc
        found.append(Intake(line.name, endpoint_descriptions(line.name, own), own, limit))
    return found


class MailSystem(MultiService):
    """
    The whole mail system as one service.

    @param options: the parsed command line.
    @param reactor: the reactor.
    """

    def __init__(self, options: Options, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        twistd: Mapping[str, Any] = options.parent or {}
        self._reactor = reactor
        # Absolute now: twistd changes the working directory.
        self._path = os.path.abspath(options["config"])
        self._listen: Sequence[str] = options["listen"]
        self._foreground = bool(twistd.get("nodaemon"))
        self._owner = (twistd.get("uid"), twistd.get("gid"))
        self._own_log = not (twistd.get("logger") or twistd.get("logfile"))
        self._ports: list[IListeningPort] = []
        self._factories: dict[str, QMQPServerFactory] = {}
        self._started: Deferred[None] | None = None
        self._old_hangup: Any = None
        config = load_config(self._path)
        self._config = config
        self.maillog = MailLog(
            config, reactor, foreground=self._foreground, to_syslog=bool(twistd.get("syslog"))
        )
        self.queue = FileMailQueue(config, reactor, fork=True)
        self.router = Router(config)
        # The DNS is asked only when a name is needed; /etc/resolv.conf is read now, before a chroot.
        resolver = createResolver()
        self.transports = TransportRegistry(reactor, resolver)
        self.transports.reconfigure(config)
        self.cleanup = Cleanup(config=config, clock=reactor, queue=self.queue)
        self.bounces = Bounces(config=config, clock=reactor, queue=self.queue, cleanup=self.cleanup)
        self.manager = QueueManager(
            config=config,
            clock=reactor,
            queue=self.queue,
            router=self.router,
            transports=self.transports,
            bounces=self.bounces,
            random=random.Random(),
            process_limit=self._process_limit,
        )
        self.cleanup.arrivals = self.manager
        names = ClientNames(reactor, resolver)
        self._intakes = intakes(config, self._listen)
        for intake in self._intakes:
            self._factories[intake.name] = QMQPServerFactory(
                config=intake.config,
                clock=reactor,
                cleanup=self.cleanup,
                access=intake.access(),
                hostnames=names,
                max_connections=intake.max_connections,
            )
        self._queue_directory = Path(config.string("queue_directory"))
        self._control = ControlService(
            reactor=reactor,
            clock=reactor,
            path=self._queue_directory / SOCKET,
            handlers={
                "status": lambda _request: self.manager.status(),
                "flush": lambda _request: self.manager.flush(),
                "deliver_now": self._deliver_now,
            },
        )

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of an application; the mail log takes over its log, unless twistd was told otherwise.
        """
        if self._own_log and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.maillog.observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def _process_limit(self, transport: str) -> int:
        """
        @return: how many deliveries a transport may run at a time, by master.cf's maxproc column; 0 is
            without limit.
        """
        for service in self._config.services:
            if service.name == transport and service.type == "unix" and service.maxproc is not None:
                return service.maxproc
        return self._config.integer("default_process_limit")

    # --- start --------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """
        What may need root: the queue's folder, and the ports. Nothing is accepted before L{startService}.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            self._make_queue_directory()
            for intake in self._intakes:
                for description in intake.endpoints:
                    self._bind(description, self._factories[intake.name])
        except (ConfigError, OSError) as problem:
            self._refuse(str(problem))

    def _make_queue_directory(self) -> None:
        uid, gid = self._owner
        self._queue_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0 and uid is not None and self._queue_directory.stat().st_uid == 0:
            os.chown(self._queue_directory, uid, -1 if gid is None else gid)

    def _bind(self, description: str, factory: QMQPServerFactory) -> None:
        failures: list[Failure] = []
        try:
            endpoint = serverFromString(self._reactor, description)
        except Exception as problem:
            raise ConfigError(f"cannot listen on {description}: not a Twisted endpoint: {problem}") from None
        listening = factory.listen(endpoint)
        listening.addCallbacks(self._bound, failures.append)
        if failures:
            reason = failures[0].value
            if isinstance(reason, CannotListenError):
                reason = reason.socketError
            raise ConfigError(
                f"cannot listen on {description}: {reason}; end what listens there, choose another endpoint, "
                f"or start as root for a port below 1024"
            )

    def _bound(self, port: Any) -> None:
        self._ports.append(port)
        if hasattr(port, "stopReading"):
            port.stopReading()

    def startService(self) -> None:
        """
        Recover the queue, then serve.
        """
        super().startService()  # type: ignore[no-untyped-call]
        log.info("daemon started -- configuration {path}", path=self._path)
        for warning in [*self._config.warnings(), *self._unsupported()]:
            log.warn("{warning}", warning=warning)
        if threading.current_thread() is threading.main_thread():
            self._old_hangup = signal.signal(signal.SIGHUP, self._hangup)
        self._started = self.queue.start()
        self._started.addCallbacks(self._serve, self._not_started)

    def _unsupported(self) -> Sequence[str]:
        return [f"not supported yet, and not started: {what}" for what in self.transports.unsupported]

    def _serve(self, recovery: Recovery) -> None:
        if not self.running:
            return
        if recovery.reactivated or recovery.swept or recovery.damaged:
            log.info(
                "queue recovered: {active} active messages queued again, {swept} unfinished files removed, "
                "{damaged} damaged files moved to corrupt",
                active=recovery.reactivated,
                swept=recovery.swept,
                damaged=len(recovery.damaged),
            )
        try:
            self._listen_triggers()
            self._control.startService()
        except (ConfigError, CannotListenError, OSError) as problem:
            self._not_started(Failure(problem))
            return
        self.manager.startService()
        for port in self._ports:
            if hasattr(port, "startReading"):
                port.startReading()
        log.info("accepting mail on {endpoints}", endpoints=", ".join(self._endpoints()))

    def _endpoints(self) -> Sequence[str]:
        return [description for intake in self._intakes for description in intake.endpoints]

    def _listen_triggers(self) -> None:
        path = self._queue_directory / TRIGGER_SOCKET
        path.unlink(missing_ok=True)
        factory = TriggerFactory(
            self.manager.triggered, self._reactor, self._config.seconds("trigger_timeout")
        )
        UNIXServerEndpoint(self._reactor, os.fspath(path), mode=0o600).listen(factory).addCallbacks(
            self._ports.append, self._not_started
        )

    def _not_started(self, failure: Failure) -> None:
        """
        Too late for twistd to refuse: end the reactor, and see to a non-zero exit status.
        """
        text = str(failure.value)
        if failure.check(SpoolError, ConfigError, CannotListenError, OSError) is None:
            log.failure("start-up failed", failure)
        log.critical("{text}", text=text)
        self.maillog.flush()
        # twistd ends with status 0 whatever the reactor did; its pid file is gone by now.
        atexit.register(_exit_failed)
        self._reactor.callWhenRunning(self._reactor.stop)

    def _refuse(self, text: str) -> NoReturn:
        """
        End start-up with one line: on standard error in the foreground, through twistd's status pipe else.
        """
        log.critical("{text}", text=text)
        self.maillog.flush()
        if self._foreground:
            raise SystemExit(f"twistd qmqp: fatal: {text}")
        raise ConfigError(text)

    # --- reload ---------------------------------------------------------------------------------------

    def _hangup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """
        Read the configuration again; everything from now on follows the new one, or, if that cannot be
        used, the old one.
        """
        self.maillog.reopen()
        try:
            config = load_config(self._path)
            found = {intake.name: intake for intake in intakes(config, self._listen)}
            accesses = {name: intake.access() for name, intake in found.items()}
            # All that can refuse comes before all that cannot.
            Router(config)
            self.transports.reconfigure(config)
            self.router.reconfigure(config)
            self.maillog.reconfigure(config)
        except ConfigError as problem:
            log.error("reload refused, the old configuration stays in force: {problem}", problem=problem)
            return
        self._warn_of_fixed(config, list(found.values()))
        self._config = config
        self.queue.reconfigure(config)
        self.cleanup.reconfigure(config)
        self.bounces.reconfigure(config)
        self.manager.reconfigure(config)
        for name, factory in self._factories.items():
            if name in found:
                factory.reconfigure(found[name].config, accesses[name], found[name].max_connections)
        log.info("reload -- configuration {path}", path=self._path)
        for warning in [*config.warnings(), *self._unsupported()]:
            log.warn("{warning}", warning=warning)

    def _warn_of_fixed(self, config: Config, found: Sequence[Intake]) -> None:
        """
        Name what only a restart can change.
        """
        if [*self._endpoints()] != [text for intake in found for text in intake.endpoints]:
            log.warn("the endpoints for QMQP have changed: restart to listen on the new ones")
        for name in ("queue_directory", "queue_commit_threads", "queue_commit_sync", "queue_disk_process"):
            if config.string(name) != self._config.string(name):
                log.warn("{name} has changed: restart for that to take effect", name=name)

    def _deliver_now(self, request: Mapping[str, Any]) -> Any:
        queue_id = request.get("queue_id")
        if not isinstance(queue_id, str):
            raise ControlError("deliver_now needs a queue_id")
        return self.manager.deliver_now(QueueID(queue_id))

    # --- stop ---------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """
        Stop in order.

        @return: a Deferred that fires when all is quiet and the log is written.
        """
        if self._old_hangup is not None:
            signal.signal(signal.SIGHUP, self._old_hangup)
            self._old_hangup = None
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._started is None:
            return
        await gatherResults([factory.stop() for factory in self._factories.values()])
        await self._control.stopService()
        if self.manager.running:
            await self.manager.stopService()
        await self.transports.stop()
        for port in self._ports:
            if port is not None:
                await _stopped(port)
        await self.queue.stop()
        log.info("daemon stopped")
        self.maillog.close()


async def _stopped(port: IListeningPort) -> None:
    done = port.stopListening()
    if done is not None:
        await done


def _exit_failed() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def makeService(options: Options) -> Service:
    """
    @param options: the parsed command line.
    @return: the mail system.
    @raise SystemExit: the configuration cannot be used; the text says why, in one line.
    """
    from twisted.internet import reactor

    try:
        return MailSystem(options, reactor)
    except (ConfigError, SpoolError) as problem:
        raise SystemExit(f"twistd qmqp: fatal: {problem}") from None
