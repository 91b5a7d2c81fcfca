"""
The composition root: the only place where the rooms are wired together, and what binds, starts, reloads and
stops them.

Answers to master(8): reads main.cf and master.cf, binds sockets while it may still be root, serves when the
queue is recovered, reloads at SIGHUP, and stops in the order that loses nothing: listeners, commits under
way, queue manager, transports, store, log. Only L{qmqpd_tx.tap} imports it.

How it fails: a configuration that cannot be used, a socket that cannot be bound or a queue that belongs to
another service ends start-up with one line and a non-zero exit status. A bad configuration at SIGHUP is
refused with one line, and the old one stays in force.

It is long because it is the one place that names everything: what has a life of its own is in
L{qmqpd_tx.intake}, L{qmqpd_tx.startup}, L{qmqpd_tx.resolver} and L{qmqpd_tx.admin.commands}.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from qmqpd_tx.address import Router
from qmqpd_tx.admin.codec import SOCKET
from qmqpd_tx.admin.commands import commands
from qmqpd_tx.admin.control import ControlService
from qmqpd_tx.bounce import Bounces
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.cleanups import Cleanups
from qmqpd_tx.config import Config, config_files, load_config
from qmqpd_tx.events import Logger
from qmqpd_tx.flush import FlushService
from qmqpd_tx.intake import Listeners, intakes
from qmqpd_tx.interfaces import ConfigError, IConfig, Recovery, SpoolError
from qmqpd_tx.maillog import MailLog
from qmqpd_tx.qmgr.selection import SERVICE, select_scheduler
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.qmgr.triggers import TriggerFactory, Triggers
from qmqpd_tx.qmgr.watchdog import Watchdog
from qmqpd_tx.qmgr.worktime import WorkTime
from qmqpd_tx.qmqp.hostnames import ClientNames
from qmqpd_tx.refresh import Refresh, no_changes
from qmqpd_tx.resolver import make_resolver
from qmqpd_tx.spool.store import FileMailQueue
from qmqpd_tx.startup import Invocation, Refusal, check_surroundings, give_away, give_log
from qmqpd_tx.tables import Tables
from qmqpd_tx.transports.registry import TransportRegistry

log = Logger(namespace="qmqpd_tx.master")

TRIGGER_SOCKET = "public/qmgr"

REWRITE = "rewrite"
"""The service in master.cf whose C{-o} options are for routing."""

SOCKET_NAME_LIMIT = 107
"""How many bytes the name of a socket may have (Linux; see unix(7))."""

FIXED = (
    "dns_resolver_addresses",
    "hash_queue_depth",
    "hash_queue_names",
    "qmqpd_client_name_cache_size",
    "qmqpd_client_name_cache_time",
    "qmqpd_client_name_timeout",
    "qmqpd_client_name_unknown_time",
    "qmqpd_drain_limit",
    "queue_commit_sync",
    "queue_commit_threads",
    "queue_directory",
    "queue_disk_process",
    "trigger_timeout",
)
"""Parameters that only a restart can change."""


class MailSystem(MultiService):
    """
    The whole mail system as one service.

    @param invocation: what the command line says.
    @param reactor: the reactor.
    @raise ConfigError: the configuration cannot be used.
    """

    def __init__(self, invocation: Invocation, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._invocation = invocation
        self._reactor = reactor
        self._trigger_port: IListeningPort | None = None
        self._started = False
        self._reading_ahead = False
        self._config = config = load_config(invocation.config)
        self.tables = Tables(reactor, self._in_thread, config.setting)
        self._services = intakes(config, invocation.listen, self.tables.open)
        self.maillog = MailLog(
            config, reactor, foreground=invocation.foreground, to_syslog=invocation.to_syslog
        )
        give_log(invocation, config)
        self._refusal = Refusal(invocation, config, self.maillog, reactor)
        self.queue = FileMailQueue(config, reactor, fork=True)
        self.router = Router(config.of_service(REWRITE), open_table=self.tables.open)
        resolver = make_resolver(reactor, config, frozen=invocation.chroot)
        self.transports = TransportRegistry(reactor, resolver)
        self.transports.reconfigure(config)
        self._cleanups = Cleanups(self._make_cleanup, config)
        self.cleanup = self._cleanups.named()
        self.bounces = Bounces(config=config, clock=reactor, queue=self.queue, cleanup=self.cleanup)
        self._scheduler = select_scheduler(config.services)
        # Each of the two has something for the other.
        self.flush = FlushService(
            config=config,
            clock=reactor,
            queue=self.queue,
            deliver_now=lambda queue_id: self.manager.deliver_now(queue_id),
            forget_dead=lambda: self.manager.triggered(Triggers(flush_dead=True)),
            open_table=self.tables.open,
        )
        self._work_time = WorkTime()
        self.manager = QueueManager(
            config=config.of_service(SERVICE),
            clock=reactor,
            queue=self.queue,
            router=self.router,
            transports=self.transports,
            bounces=self.bounces,
            random=random.Random(),
            process_limit=self._process_limit,
            time_limit=self._time_limit,
            cleanup=self.cleanup,
            flush=self.flush,
            scheduler=self._scheduler,
            remembered=self.bounces.deferred_recipients,
            worked=self._work_time,
        )
        self._cleanups.hand_over_to(self.manager)
        self._watchdog = Watchdog(config=config.of_service(SERVICE), clock=reactor)
        self._names = ClientNames(
            reactor,
            resolver,
            time_limit=config.seconds("qmqpd_client_name_timeout"),
            cache_time=config.seconds("qmqpd_client_name_cache_time"),
            unknown_time=config.seconds("qmqpd_client_name_unknown_time"),
            cache_size=config.integer("qmqpd_client_name_cache_size"),
        )
        # In a chroot the files have other names, and a reload is refused anyway.
        files: Sequence[str] = () if invocation.chroot else config_files(invocation.config)
        changed = no_changes if invocation.chroot else self.tables.changed
        self._refresh = Refresh(reactor, config, files, changed, self.reload)
        self._listeners = Listeners(
            reactor,
            self._cleanups.named,
            self._names,
            self._services,
            config.integer("qmqpd_drain_limit"),
            self.manager.behind,
            self._refresh.look,
        )
        self._queue_directory = Path(config.string("queue_directory"))
        self._control = ControlService(
            reactor=reactor,
            clock=reactor,
            path=self._queue_directory / SOCKET,
            handlers=commands(self.manager, self.queue, self.flush, reactor),
        )

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of an application; the mail log takes over its log, unless twistd was told otherwise.
        """
        if self._invocation.own_log and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.maillog)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def _make_cleanup(self, config: IConfig) -> Cleanup:
        return Cleanup(
            config=config,
            clock=self._reactor,
            queue=self.queue,
            open_table=self.tables.open,
            in_thread=self._in_thread,
        )

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Run what blocks, for tables whose libraries do.
        """
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    def _process_limit(self, transport: str) -> int:
        """
        @return: how many deliveries a transport may run at a time, by master.cf's maxproc column; 0 is
            without limit.
        """
        for service in self._config.services:
            if service.name == transport and service.type == "unix" and service.maxproc is not None:
                return service.maxproc
        return self._config.integer("default_process_limit")

    def _time_limit(self, transport: str) -> float:
        """
        @return: how long a delivery of a transport may take, in seconds: C{daemon_timeout}, with the C{-o}
            options of its line in master.cf.
        """
        for service in self._config.services:
            if service.name == transport and service.type == "unix":
                return self._config.for_service(service).seconds("daemon_timeout")
        return self._config.seconds("daemon_timeout")

    # --- start --------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """
        What may need root: the queue's folder, and the ports. Nothing is accepted before L{startService}.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        # Before anybody can see that we are there: from now on a SIGHUP waits for the reactor.
        _handle(self._hangup, signal.SIGHUP)
        try:
            check_surroundings(self._invocation)
            self._make_queue_directory()
            self._listeners.bind(self._invocation.owner)
        except ConfigError as problem:
            self._refusal.refuse(str(problem))

    def _make_queue_directory(self) -> None:
        path = self._queue_directory
        longest = os.fsencode(path / SOCKET)
        if len(longest) > SOCKET_NAME_LIMIT:
            raise ConfigError(
                f"queue_directory = {path}: too long: a socket in it has a name of {len(longest)} bytes, and "
                f"at most {SOCKET_NAME_LIMIT} are allowed"
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Where a link leads is for whoever made it to give away.
            if not path.is_symlink():
                give_away(os.fspath(path), self._invocation.owner)
        except OSError as problem:
            raise ConfigError(
                f"queue_directory = {path}: cannot be made: {problem.strerror}: make it, and give it to the "
                f"user of this service"
            ) from None

    def startService(self) -> None:
        """
        Recover the queue, then serve.
        """
        super().startService()  # type: ignore[no-untyped-call]
        try:
            # What can refuse does so now, while twistd can still tell who started it.
            self.queue.check()
        except SpoolError as problem:
            self._refusal.refuse(str(problem))
        log.info("daemon started -- configuration {path}", path=self._invocation.config)
        self._warn(self._config)
        self._started = True
        self.queue.start().addCallback(self._serve).addErrback(self._not_started)

    def _warn(self, config: Config) -> None:
        unsupported = [f"not supported yet, and not started: {what}" for what in self.transports.unsupported]
        for warning in [*config.warnings(), *unsupported]:
            log.warn("{warning}", warning=warning)

    def _recovered(self, recovery: Recovery) -> None:
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
        # The scans at the start saw what had been found by then.
        self.manager.triggered(Triggers(scan_incoming=True, scan_deferred=True))

    def _serve(self, _: None) -> None:
        if not self.running:
            return
        _settle_memory()
        # Not before the store has forked: its thread is one.
        self._watchdog.startService()
        self._listen_triggers()
        self._control.startService()
        self._refresh.startService()
        self.manager.startService()
        self.flush.startService()
        # What goes wrong with it, the store has logged.
        self.queue.recovered().addCallbacks(self._recovered, lambda _: None)
        self._listeners.accept()
        endpoints = ", ".join(self._listeners.endpoints)
        if endpoints:
            log.info("accepting mail on {endpoints}", endpoints=endpoints)
        else:
            log.warn("accepting no mail: there is no qmqpd line in master.cf; add one, or use --listen")

    def _listen_triggers(self) -> None:
        path = self._queue_directory / TRIGGER_SOCKET
        path.unlink(missing_ok=True)
        limit = self._config.seconds("trigger_timeout")
        factory = TriggerFactory(self.manager.triggered, self._reactor, limit)
        # The mode must hold from the first moment, and not only from a chmod on.
        before = os.umask(0o177)
        try:
            self._trigger_port = self._reactor.listenUNIX(os.fspath(path), factory, mode=0o600)
        except Exception as problem:
            raise ConfigError(
                f"cannot listen on the trigger socket {path}: {problem}; check queue_directory and its owner"
            ) from problem
        finally:
            os.umask(before)

    def _not_started(self, failure: Failure) -> None:
        """
        Too late for twistd to refuse: end the reactor, and see to a non-zero exit status.
        """
        if not isinstance(failure.value, (SpoolError, ConfigError)):
            log.failure("start-up failed", failure)
        self._refusal.give_up(str(failure.value))

    # --- reload ---------------------------------------------------------------------------------------

    def _hangup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """
        Read the configuration again; everything from then on follows the new one, or, if that cannot be
        used, the old one. Large tables that have changed are read before, while all goes on.
        """
        if not self.running:
            return
        self.maillog.reopen()
        if not self._reading_ahead:
            # What changes in the meantime is read all the same: the files are looked at again after that.
            self._reading_ahead = True
            self._refresh.loading()
            self.tables.read_ahead().addCallback(self._reload).addErrback(self._reload_failed)

    def _reload_failed(self, failure: Failure) -> None:
        log.failure("reload", failure)

    def _reload(self, _: None) -> None:
        self._reading_ahead = False
        if not self.running:
            return
        self._refresh.loading()
        old, old_services = self._config, self._services
        done: list[Callable[[Config], None]] = []
        try:
            config = load_config(self._invocation.config)
            self.tables.renew(config.setting)
            services = intakes(config, self._invocation.listen, self.tables.open)
            scheduler = select_scheduler(config.services)
            self._config, self._services = config, services
            for reconfigure in self._reconfigured():
                done.append(reconfigure)
                reconfigure(config)
        except Exception as problem:
            if not isinstance(problem, (ConfigError, SpoolError)):
                log.failure("reload")
            self._config, self._services = old, old_services
            self.tables.undo()
            for reconfigure in done:
                try:
                    reconfigure(old)
                except Exception:
                    # The others are to go back all the same.
                    log.failure("reload: going back to the old configuration")
            log.error("reload refused, the old configuration stays in force: {problem}", problem=str(problem))
            return
        self.tables.keep()
        log.info("reload -- configuration {path}", path=self._invocation.config)
        fixed = [name for name in FIXED if config.string(name) != old.string(name)]
        if [text for service in services for text in service.endpoints] != self._listeners.endpoints:
            fixed.append("where QMQP is listened for")
        if scheduler is not self._scheduler:
            fixed.append("the queue manager in master.cf")
        for name in fixed:
            log.warn("{name} has changed: restart for that to take effect", name=name)
        self._warn(config)

    def _reconfigured(self) -> Sequence[Callable[[Config], None]]:
        """
        @return: all that takes a new configuration, in order. Each can be given the old one again; the log is
            the last, because that may be unable to open the old file again.
        """
        return [
            self.transports.reconfigure,
            lambda config: self.router.reconfigure(config.of_service(REWRITE)),
            self.queue.reconfigure,
            self._cleanups.reconfigure,
            self.bounces.reconfigure,
            lambda config: self.manager.reconfigure(config.of_service(SERVICE)),
            self.flush.reconfigure,
            lambda config: self._watchdog.reconfigure(config.of_service(SERVICE)),
            self._refresh.reconfigure,
            lambda _config: self._listeners.reconfigure(self._services),
            self.maillog.reconfigure,
        ]

    # --- stop ---------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """
        Stop in order.

        @return: a Deferred that fires when all is quiet and the log is written.
        """
        # The end is bounded: whoever is impatient has kill -9.
        _handle(signal.SIG_IGN, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if not self._started:
            return
        # What fails must not keep the rest from ending well.
        for stop in (
            self._listeners.stop,
            self._refresh.stopService,
            self._names.stop,
            self._control.stopService,
            self._stop_flush,
            self._stop_manager,
            self.transports.stop,
            self._stop_triggers,
            self.queue.stop,
            self.tables.close,
        ):
            try:
                await maybeDeferred(stop)
            except Exception:
                log.failure("shutdown")
        if self._watchdog.running:
            self._watchdog.stopService()
        log.info("daemon stopped")
        self.maillog.close()

    async def _stop_flush(self) -> None:
        if self.flush.running:
            await self.flush.stopService()

    async def _stop_manager(self) -> None:
        if self.manager.running:
            await self.manager.stopService()
        self._work_time.close()

    async def _stop_triggers(self) -> None:
        if self._trigger_port is not None:
            await maybeDeferred(self._trigger_port.stopListening)


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: int) -> None:
    """
    Handle signals, where that is possible.
    """
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, handler)


def _settle_memory() -> None:
    """
    What is in memory by now stays there: the garbage collector need not look at it again. It comes less
    often, too: a message is a few hundred objects without a cycle, and thousands of them may be waiting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
