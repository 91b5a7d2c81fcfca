"""
What the queue manager is made of, and how its parts are put together.

Takes what L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>} was given; gives the parts, each of which knows
those it needs. Read the constructor from top to bottom, and you have seen the room. No part is started here,
nothing is durable, and nothing fails but what a configuration can be refused for.

The way of a message through them: L{Admission} takes it in, L{RecipientReader} reads whom it is for,
L{RecipientResolver} finds out where they go, L{Handover} gives them to the scheduler; L{Deliveries} takes
what the scheduler says is next to a transport, and the outcome to L{Settler}; and when everybody has one,
L{Finisher} takes it out again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.interfaces import IBounces, ICleanup, IConfig, IFlush, IMailQueue, IRouter
from qmqpd_tx.qmgr.active import Admission
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.clog import ClogWarnings
from qmqpd_tx.qmgr.deliver import Deliveries, ITransports
from qmqpd_tx.qmgr.explain import Explainer, Remembered
from qmqpd_tx.qmgr.finish import Finisher
from qmqpd_tx.qmgr.handover import Handover
from qmqpd_tx.qmgr.hung import HungDeliveries
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.qmgr.operator import Operator
from qmqpd_tx.qmgr.recipients import RecipientReader
from qmqpd_tx.qmgr.requeue import Requeuer
from qmqpd_tx.qmgr.resolve import RecipientResolver
from qmqpd_tx.qmgr.routes import Routes
from qmqpd_tx.qmgr.runs import QueueRuns
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings, read_settings
from qmqpd_tx.qmgr.selection import MakeScheduler
from qmqpd_tx.qmgr.settle import Settler
from qmqpd_tx.qmgr.turns import Turns
from qmqpd_tx.qmgr.waits import Waits


class Parts:
    """
    @ivar active: the active messages.
    @ivar turns: when there is work.
    @ivar chores: what is under way.
    @ivar scheduler: decides who is next.
    @ivar deliveries: runs deliveries.
    @ivar resolver: finds out where recipients go.
    @ivar reader: reads recipients.
    @ivar admission: takes messages in.
    @ivar runs: the queue runs.
    @ivar operator: does what an operator wants.
    @ivar explainer: says why a message waits.
    """

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        queue: IMailQueue,
        router: IRouter,
        transports: ITransports,
        bounces: IBounces,
        random: Random,
        process_limit: Callable[[str], int] | None,
        time_limit: Callable[[str], float] | None,
        cleanup: ICleanup | None,
        flush: IFlush | None,
        remembered: Remembered | None,
        scheduler: MakeScheduler,
        worked: Callable[[], float] | None,
    ) -> None:
        """
        See L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>} for the parameters.
        """
        self._config = config
        self._process_limit = process_limit
        self._time_limit = time_limit
        self._limits = RecipientLimits.from_config(config)
        self.active = ActiveQueue()
        self.turns = Turns(clock, config.integer("qmgr_intake_share") / 100, worked)
        self.chores = Chores(
            clock, random, config.seconds("transport_retry_time"), config.seconds("qmgr_ipc_timeout")
        )
        self._settler = Settler(
            config=config,
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self.active,
            chores=self.chores,
            check=self._check,
        )
        self._hung = HungDeliveries(
            queue=queue,
            active=self.active,
            chores=self.chores,
            mark=self._settler.mark,
            process_limit=self._processes,
            changed=self._adopt_settings,
        )
        self.scheduler = scheduler(self._settings, self._limits)
        self.deliveries = Deliveries(
            clock=clock,
            transports=transports,
            chores=self.chores,
            scheduler=self.scheduler,
            settler=self._settler,
            hung=self._hung,
            time_limit=self._delivery_time,
            check=self._check,
            wake=self.turns.wake,
        )
        requeuer = Requeuer(cleanup, self.active, lambda: self._config.string("content_filter"))
        self._finisher = Finisher(
            config=config,
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self.active,
            chores=self.chores,
            scheduler=self.scheduler,
            settler=self._settler,
            requeuer=requeuer,
            random=random,
            flush=flush,
            check=self._check,
            wake=self.turns.wake,
        )
        self._clog = ClogWarnings(
            config=config, active=self.active, scheduler=self.scheduler, settings=self._settings
        )
        self._handover = Handover(
            config=config,
            clock=clock,
            scheduler=self.scheduler,
            settler=self._settler,
            clog=self._clog,
        )
        self._routes = Routes(config, router)
        self.resolver = RecipientResolver(
            clock=clock,
            routes=self._routes,
            chores=self.chores,
            scheduler=self.scheduler,
            handover=self._handover,
            check=self._check,
            wake=self.turns.wake,
        )
        self.reader = RecipientReader(
            clock=clock,
            active=self.active,
            chores=self.chores,
            scheduler=self.scheduler,
            resolver=self.resolver,
            handover=self._handover,
            settler=self._settler,
        )
        self.admission = Admission(
            queue=queue,
            clock=clock,
            active=self.active,
            chores=self.chores,
            limit=config.integer("qmgr_message_active_limit"),
            admitted=self.reader.begin,
            wake=self.turns.wake,
        )
        self.runs = QueueRuns(
            clock, config.seconds("queue_run_delay"), (self.admission.incoming, self.admission.deferred)
        )
        self.operator = Operator(
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self.active,
            admission=self.admission,
            chores=self.chores,
            scheduler=self.scheduler,
            requeuer=requeuer,
            check=self._check,
        )
        waits = Waits(
            queue=queue,
            clock=clock,
            admission=self.admission,
            scheduler=self.scheduler,
            handover=self._handover,
            process_limit=self._processes,
            next_run=self.runs.next_run,
            limits=lambda: self._limits,
        )
        self.explainer = Explainer(
            queue=queue,
            clock=clock,
            routes=self._routes,
            active=self.active,
            chores=self.chores,
            scheduler=self.scheduler,
            deliveries=self.deliveries,
            waits=waits,
            remembered=remembered,
        )

    def reconfigure(self, config: IConfig) -> None:
        """
        Take a new configuration. Deliveries under way are not touched.
        """
        self._config = config
        self.turns.share.share = config.integer("qmgr_intake_share") / 100
        self.runs.delay = config.seconds("queue_run_delay")
        self.chores.retry_time = config.seconds("transport_retry_time")
        self.chores.time_limit = config.seconds("qmgr_ipc_timeout")
        self.admission.limit = config.integer("qmgr_message_active_limit")
        self._handover.reconfigure(config)
        self._routes.reconfigure(config)
        self.deliveries.reconfigure()
        self._settler.reconfigure(config)
        self._finisher.reconfigure(config)
        self._clog.reconfigure(config)
        self._limits = RecipientLimits.from_config(config)
        self._adopt_settings()

    def _check(self, job: Job) -> None:
        """See whether a message has come to its end."""
        if job.finishing:
            return
        if self._finisher.remember(job):
            return
        if job.settled():
            self._finisher.finish(job)

    def _adopt_settings(self) -> None:
        self.scheduler.reconfigure(self._settings, self._limits)
        self.turns.wake()

    def _settings(self, transport: str) -> TransportSettings:
        return read_settings(self._config, transport, self._hung.slots)

    def _processes(self, transport: str) -> int:
        """How many deliveries a transport may run, 0 for any number."""
        if self._process_limit is None:
            return self._config.integer("default_process_limit")
        return self._process_limit(transport)

    def _delivery_time(self, transport: str) -> float:
        """How long a delivery may take, in seconds."""
        if self._time_limit is None:
            return self._config.seconds("daemon_timeout")
        return self._time_limit(transport)
