"""
The queue manager.

L{QueueManager} puts the parts of this room to work: messages come in by L{QueueManager.arrived}, by a trigger
or by a scan; they leave delivered, returned, deferred or saved. It works in turns on the reactor, each
bounded in time, so that intake can answer its clients between two of them.

Durable state is the store's and the bounce service's alone; what is in memory here can be lost at any
moment, and start-up recovery brings it back from C{active}. Nothing raises into the reactor: what fails is
logged and contained. Answers to qmgr(8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IArrivals, IBounces, IConfig, IMailQueue, IRouter, IStoredMessage, SpoolError
from qmqpd_tx.message import QueueID
from qmqpd_tx.qmgr.active import Admission
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.deliver import Deliveries, ITransports
from qmqpd_tx.qmgr.finish import Finisher
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.qmgr.recipients import RecipientReader
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus, IQueueScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings, read_settings
from qmqpd_tx.qmgr.share import IntakeShare
from qmqpd_tx.qmgr.triggers import Triggers

log = Logger(namespace="qmqpd_tx.qmgr")

_TURN_SECONDS: Final = 0.005
"""How long one turn may keep the reactor."""

_TURN_STEPS: Final = 200
"""How many steps one turn may take, whatever the clock says."""

_CANCEL_SECONDS: Final = 5.0
"""How long a cancelled delivery may take to say what is certain."""

_BUG_SECONDS: Final = 1.0
"""How long to wait after a turn that ended in an exception."""

_IDLE_SECONDS: Final = 300.0
"""The longest wait for a rate delay before the clock is looked at again."""


MakeScheduler = Callable[[Callable[[str], TransportSettings], RecipientLimits], IQueueScheduler]
"""Makes a scheduler from what gives a transport's settings by its name, and the limits for all."""


@frozen(slots=True)
class ActiveMessage:
    """
    One active message, for tools.

    @ivar queue_id: which.
    @ivar size: bytes of content.
    @ivar arrival_time: POSIX seconds.
    @ivar sender: the envelope sender.
    @ivar recipients: those in memory without an outcome.
    @ivar unread: whether more recipients wait in the file.
    """

    queue_id: QueueID
    size: int
    arrival_time: float
    sender: bytes
    recipients: Sequence[bytes]
    unread: bool


@frozen(slots=True)
class QueueStatus:
    """
    What the queue manager has in hand.

    @ivar messages: the active messages.
    @ivar destinations: the destinations with mail or with something to remember.
    """

    messages: Sequence[ActiveMessage]
    destinations: Sequence[DestinationStatus]


@implementer(IArrivals)
class QueueManager(Service):
    """
    The queue manager service. The store is started before it and stopped after it.
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
        process_limit: Callable[[str], int] | None = None,
        scheduler: MakeScheduler = RoundRobinScheduler,
    ) -> None:
        """
        @param config: the configuration; L{reconfigure} takes another one later.
        @param clock: time and timers.
        @param queue: the store.
        @param router: resolves recipients.
        @param transports: has C{get(name)}, giving an
            L{IDeliveryTransport<qmqpd_tx.interfaces.IDeliveryTransport>} or L{None}.
        @param bounces: the bounce service.
        @param random: spreads the retries of failed store operations.
        @param process_limit: gives master.cf's maxproc by transport name; without it
            C{default_process_limit} holds for all.
        @param scheduler: makes the scheduler.
        """
        self._clock = clock
        self._config = config
        self._process_limit = process_limit
        self._active = ActiveQueue()
        self._chores = Chores(clock, random, config.seconds("transport_retry_time"))
        self._scheduler = scheduler(self._settings, RecipientLimits.from_config(config))
        self._deliveries = Deliveries(
            config=config,
            queue=queue,
            clock=clock,
            transports=transports,
            bounces=bounces,
            active=self._active,
            chores=self._chores,
            scheduler=self._scheduler,
            check=self._check,
            wake=self._wake,
        )
        self._finisher = Finisher(
            config=config,
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self._active,
            chores=self._chores,
            deliveries=self._deliveries,
            scheduler=self._scheduler,
            wake=self._wake,
        )
        self._reader = RecipientReader(
            config=config,
            queue=queue,
            clock=clock,
            router=router,
            active=self._active,
            chores=self._chores,
            scheduler=self._scheduler,
            deliveries=self._deliveries,
            check=self._check,
            wake=self._wake,
        )
        self._admission = Admission(
            queue=queue,
            clock=clock,
            active=self._active,
            chores=self._chores,
            limit=config.integer("qmgr_message_active_limit"),
            admitted=self._reader.begin,
            wake=self._wake,
        )
        self._share = IntakeShare(config.integer("qmgr_intake_share") / 100)
        self._turn_call: IDelayedCall | None = None
        self._run_call: IDelayedCall | None = None
        self._wakeup_call: IDelayedCall | None = None
        self._in_turn = False
        self._read_times()

    def startService(self) -> None:
        """
        Begin with a scan of both queues, then one every C{queue_run_delay}.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._run()

    def stopService(self) -> Deferred[None]:
        """
        Begin no more deliveries; give those under way C{qmgr_shutdown_time_limit}, then cancel them. What is
        not finished stays in C{active}, for recovery.

        @return: a Deferred that fires when all is quiet.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        for call in (self._turn_call, self._run_call, self._wakeup_call):
            if call is not None and call.active():
                call.cancel()
        self._turn_call = self._run_call = self._wakeup_call = None
        self._chores.stop()
        self._admission.close()
        return Deferred.fromCoroutine(self._stop())

    def reconfigure(self, config: IConfig) -> None:
        """
        Take a new configuration. Deliveries under way are not touched.
        """
        self._config = config
        self._share.share = config.integer("qmgr_intake_share") / 100
        self._read_times()
        self._chores.retry_time = config.seconds("transport_retry_time")
        self._admission.limit = config.integer("qmgr_message_active_limit")
        self._reader.reconfigure(config)
        self._deliveries.reconfigure(config)
        self._finisher.reconfigure(config)
        self._scheduler.reconfigure(self._settings, RecipientLimits.from_config(config))
        self._wake()

    def arrived(self, message: IStoredMessage) -> None:
        """
        See L{IArrivals<qmqpd_tx.interfaces.IArrivals>}. A message that comes while the service does not run
        stays in C{incoming}.
        """
        if not self.running:
            message.close()
            return
        self._share.arrived(self._clock.seconds())
        self._admission.arrived(message)
        if self._turn_call is None and not self._in_turn:
            self._turn_call = self._clock.callLater(0, self._turn)

    def triggered(self, triggers: Triggers) -> None:
        """
        Do what triggers ask for.
        """
        if not self.running:
            return
        if triggers.ignore_times:
            self._admission.deferred.ignore_times()
        if triggers.flush_dead:
            self._scheduler.flush()
            self._wake()
        if triggers.scan_deferred:
            self._admission.deferred.request()
        if triggers.scan_incoming:
            self._admission.incoming.request()

    def flush(self) -> None:
        """
        Try all deferred mail now (C{postqueue -f}).
        """
        self.triggered(Triggers(ignore_times=True, flush_dead=True, scan_deferred=True, scan_incoming=True))

    def deliver_now(self, queue_id: QueueID) -> Deferred[None]:
        """
        Try one deferred message now (C{postqueue -i}).

        @return: a Deferred that fires when the message is active.
        @raise MessageNotFound: (failure) it is not in the deferred queue.
        @raise SpoolError: (failure) it cannot be opened.
        """
        if not self.running:
            return fail(SpoolError(f"{queue_id}: the queue manager is not running"))
        return self._admission.open_now(queue_id)

    def status(self) -> QueueStatus:
        """
        @return: what is in hand now.
        """
        messages = [
            ActiveMessage(
                queue_id=job.queue_id,
                size=job.message.size,
                arrival_time=job.arrival_time,
                sender=job.sender,
                recipients=[recipient.address for recipient in job.todo.values()],
                unread=job.next_position is not None,
            )
            for job in self._active.jobs.values()
        ]
        return QueueStatus(messages, list(self._scheduler.destinations(self._clock.seconds())))

    def _read_times(self) -> None:
        self._run_delay = self._config.seconds("queue_run_delay")
        self._shutdown_limit = self._config.seconds("qmgr_shutdown_time_limit")

    def _settings(self, transport: str) -> TransportSettings:
        return read_settings(self._config, transport, self._process_limit)

    def _run(self) -> None:
        """One queue run."""
        self._run_call = self._clock.callLater(self._run_delay, self._run)
        self._admission.incoming.request()
        self._admission.deferred.request()

    def _wake(self) -> None:
        if self._turn_call is None and not self._in_turn and self.running:
            self._turn_call = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        """Admit and deliver in turn until there is nothing to do or the time is up."""
        self._turn_call = None
        self._in_turn = True
        clock = self._clock.seconds
        admit = self._admission.step
        deliver = self._deliveries.step
        read = self._reader.step
        began = clock()
        allowance = self._share.allowance(began)
        if allowance <= 0:
            self._in_turn = False
            self._turn_call = self._clock.callLater(self._share.wait(), self._turn)
            return
        limit = min(_TURN_SECONDS, allowance)
        steps = 0
        pause = 0.0
        try:
            while admit() | deliver() | read():
                steps += 1
                if steps >= _TURN_STEPS or not 0 <= clock() - began < limit:
                    break
            else:
                self._sleep()
                return
        except Exception:
            # A bug, but not one that may stop the queue, nor fill the log.
            log.failure("queue manager turn")
            pause = _BUG_SECONDS
        finally:
            self._in_turn = False
            self._share.spent(clock() - began)
        if self.running:
            self._turn_call = self._clock.callLater(pause, self._turn)

    def _sleep(self) -> None:
        """Nothing to do: see that a rate delay or the end of a suspension wakes us."""
        now = self._clock.seconds()
        when = self._scheduler.wakeup(now)
        call = self._wakeup_call
        if call is not None and call.active():
            call.cancel()
        self._wakeup_call = None
        if when is not None and self.running:
            delay = min(max(when - now, 0.0), _IDLE_SECONDS)
            self._wakeup_call = self._clock.callLater(delay, self._wake)

    def _check(self, job: Job) -> None:
        """See whether a message has come to its end."""
        if job.finishing:
            return
        if self._finisher.remember(job):
            return
        if job.settled():
            self._finisher.finish(job)

    async def _stop(self) -> None:
        if not await self._quiet(self._shutdown_limit):
            self._deliveries.cancel()
            if not await self._quiet(_CANCEL_SECONDS):
                log.warn(
                    "{count} deliveries did not end; their messages are tried again after the next start",
                    count=len(self._deliveries.under_way),
                )
        for job in self._active.jobs.values():
            job.message.close()
        self._active.jobs.clear()

    async def _quiet(self, seconds: float) -> bool:
        """Wait until nothing is under way, for a time."""
        idle = self._chores.idle()
        limit = self._clock.callLater(seconds, idle.cancel)
        try:
            await idle
        except Exception:
            return False
        finally:
            if limit.active():
                limit.cancel()
        return True
