"""
The queue manager.

L{QueueManager} puts the parts of this room to work: messages come in by L{QueueManager.arrived}, by a trigger
or by a scan; they leave delivered, returned, deferred or saved.

Durable state is the store's and the bounce service's alone; what is in memory here can be lost at any
moment, and start-up recovery brings it back from C{active}. Nothing raises into the reactor: what fails is
logged and contained. Answers to qmgr(8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IArrivals,
    IBounces,
    ICleanup,
    IConfig,
    IFlush,
    IMailQueue,
    IRouter,
    IStoredMessage,
    SpoolError,
)
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.qmgr.active import Admission
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.clog import ClogWarnings
from qmqpd_tx.qmgr.deadlines import CANCEL_SECONDS
from qmqpd_tx.qmgr.deliver import Deliveries, ITransports
from qmqpd_tx.qmgr.explain import LIMIT, Explainer, Remembered
from qmqpd_tx.qmgr.explanation import Explanation
from qmqpd_tx.qmgr.finish import Finisher
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.qmgr.operator import HOLD_FROM, RELEASE_FROM, REMOVE_FROM, Operator
from qmqpd_tx.qmgr.recipients import RecipientReader
from qmqpd_tx.qmgr.requeue import Requeuer
from qmqpd_tx.qmgr.scheduling.control import DestinationStatus, IQueueScheduler
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings, read_settings
from qmqpd_tx.qmgr.triggers import Triggers
from qmqpd_tx.qmgr.turns import Turns

log = Logger(namespace="qmqpd_tx.qmgr")

T = TypeVar("T")

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


def _queues(queue: Queue | None, default: Sequence[Queue]) -> Sequence[Queue]:
    return default if queue is None else (queue,)


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
        time_limit: Callable[[str], float] | None = None,
        cleanup: ICleanup | None = None,
        flush: IFlush | None = None,
        remembered: Remembered | None = None,
        scheduler: MakeScheduler = PreemptiveScheduler,
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
        @param time_limit: gives C{daemon_timeout}, in seconds, by transport name; without it main.cf's holds
            for all.
        @param cleanup: where requeued messages go.
        @param flush: is told of deferred messages, if there is such a service.
        @param remembered: tells the last status of a message's recipients, for L{explain}; gives an
            awaitable.
        @param scheduler: makes the scheduler.
        """
        self._clock = clock
        self._config = config
        self._process_limit = process_limit
        self._time_limit = time_limit
        self._active = ActiveQueue()
        self._turns = Turns(clock, config.integer("qmgr_intake_share") / 100)
        self._chores = Chores(
            clock, random, config.seconds("transport_retry_time"), config.seconds("qmgr_ipc_timeout")
        )
        self._requeuer = Requeuer(cleanup, self._active)
        self._hung: Mapping[str, int] = {}
        self._limits = RecipientLimits.from_config(config)
        self._scheduler = scheduler(self._settings, self._limits)
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
            wake=self._turns.wake,
            time_limit=self._delivery_time,
            process_limit=self._processes,
            slots_changed=self._adopt_settings,
        )
        self._hung = self._deliveries.hung.deliveries
        self._finisher = Finisher(
            config=config,
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self._active,
            chores=self._chores,
            deliveries=self._deliveries,
            scheduler=self._scheduler,
            requeuer=self._requeuer,
            random=random,
            flush=flush,
            wake=self._turns.wake,
        )
        self._clog = ClogWarnings(
            config=config, active=self._active, scheduler=self._scheduler, settings=self._settings
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
            clog=self._clog,
            check=self._check,
            wake=self._turns.wake,
        )
        self._admission = Admission(
            queue=queue,
            clock=clock,
            active=self._active,
            chores=self._chores,
            limit=config.integer("qmgr_message_active_limit"),
            admitted=self._reader.begin,
            wake=self._turns.wake,
        )
        self._operator = Operator(
            queue=queue,
            clock=clock,
            bounces=bounces,
            active=self._active,
            admission=self._admission,
            chores=self._chores,
            scheduler=self._scheduler,
            requeuer=self._requeuer,
            check=self._check,
        )
        self._explainer = Explainer(
            queue=queue,
            clock=clock,
            router=router,
            active=self._active,
            admission=self._admission,
            chores=self._chores,
            scheduler=self._scheduler,
            deliveries=self._deliveries,
            reader=self._reader,
            remembered=remembered,
            process_limit=self._processes,
            next_run=self._next_run,
            limits=lambda: self._limits,
        )
        self._run_call: IDelayedCall | None = None
        self._read_times()

    def startService(self) -> None:
        """
        Begin with a scan of both queues, then one every C{queue_run_delay}.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._turns.start(
            self._admission.step, self._deliveries.step, self._reader.step, self._scheduler.wakeup
        )
        self._run()

    def stopService(self) -> Deferred[None]:
        """
        Begin no more deliveries; give those under way C{qmgr_shutdown_time_limit}, then cancel them. What is
        not finished stays in C{active}, for recovery.

        @return: a Deferred that fires when all is quiet.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._turns.stop()
        if self._run_call is not None:
            self._run_call.cancel()
            self._run_call = None
        self._chores.stop()
        self._deliveries.stop()
        self._reader.close()
        self._admission.close()
        return Deferred.fromCoroutine(self._stop())

    def reconfigure(self, config: IConfig) -> None:
        """
        Take a new configuration. Deliveries under way are not touched.
        """
        self._config = config
        self._turns.share.share = config.integer("qmgr_intake_share") / 100
        self._read_times()
        self._chores.retry_time = config.seconds("transport_retry_time")
        self._chores.time_limit = config.seconds("qmgr_ipc_timeout")
        self._admission.limit = config.integer("qmgr_message_active_limit")
        self._reader.reconfigure(config)
        self._deliveries.reconfigure(config)
        self._finisher.reconfigure(config)
        self._clog.reconfigure(config)
        self._limits = RecipientLimits.from_config(config)
        self._adopt_settings()

    def arrived(self, message: IStoredMessage) -> None:
        """
        See L{IArrivals<qmqpd_tx.interfaces.IArrivals>}. A message that comes while the service does not run
        stays in C{incoming}.
        """
        if not self.running:
            message.close()
            return
        self._turns.share.arrived(self._clock.seconds())
        self._admission.arrived(message)
        self._turns.wake()

    def triggered(self, triggers: Triggers) -> None:
        """
        Do what triggers ask for.
        """
        if not self.running:
            return
        if triggers.ignore_times:
            self._admission.deferred.ignore_times()
        if triggers.flush_dead:
            self._flush()
        if triggers.scan_deferred:
            self._admission.deferred.request()
        if triggers.scan_incoming:
            self._admission.incoming.request()

    def _flush(self) -> None:
        """Forget what is dead; and what the next scans bring in is not held back by C{defer_transports}."""
        self._scheduler.flush()
        self._admission.incoming.flush_next = True
        self._admission.deferred.flush_next = True
        self._turns.wake()

    def flush(self) -> None:
        """
        Try all deferred mail now (C{postqueue -f}).
        """
        self.triggered(Triggers(ignore_times=True, flush_dead=True, scan_deferred=True, scan_incoming=True))

    def deliver_now(self, queue_id: QueueID) -> Deferred[None]:
        """
        Try one deferred message now (C{postqueue -i}), whatever C{defer_transports} says and however dead its
        destination is.

        @return: a Deferred that fires when the message is active.
        @raise MessageNotFound: (failure) it is not in the deferred queue.
        @raise SpoolError: (failure) it cannot be opened.
        """
        if not self.running:
            return fail(SpoolError(f"{queue_id}: the queue manager is not running"))
        return self._admission.open_now(queue_id)

    def behind(self) -> bool:
        """
        For C{in_flow_delay}: cheap enough to be asked for each message.

        @return: whether mail arrives faster than it is taken into the active queue.
        """
        return self._admission.behind()

    def hold(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """
        Keep a message from being delivered until it is released (C{postsuper -h}).

        @param queue: only if it is there; L{None}: incoming, active or deferred.
        @return: a Deferred that fires when it is on hold on disk; deliveries under way go on, and count.
        @raise MessageNotFound: (failure) there is none.
        @raise SpoolError: (failure) the store failed.
        """
        return self._operate(self._operator.hold(queue_id, queue))

    def release(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """
        Let a message on hold be delivered again (C{postsuper -H}): it is deferred, and due when it was due
        before.

        @param queue: where to look for it instead of hold.
        @return: a Deferred that fires when that is so on disk.
        @raise MessageNotFound: (failure) there is none.
        @raise SpoolError: (failure) the store failed.
        """
        return self._operate(self._operator.release(queue_id, queue))

    def requeue(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """
        Hand a message over again, as if it had just come, under a new queue id (C{postsuper -r}).

        @param queue: only if it is there; L{None}: hold, incoming, active or deferred.
        @return: a Deferred that fires when it is in the queue again and the old one is gone; deliveries
            under way end first.
        @raise MessageNotFound: (failure) there is none.
        @raise SpoolError: (failure) the store failed or cleanup refused it; it stays in the queue.
        """
        return self._operate(self._operator.requeue(queue_id, queue))

    def delete(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """
        Remove a message for good, without a word to its sender (C{postsuper -d}).

        @param queue: only if it is there; L{None}: hold, incoming, active or deferred.
        @return: a Deferred that fires when it is gone; or, with deliveries under way, when it is on hold and
            will be removed when they have ended.
        @raise MessageNotFound: (failure) there is none.
        @raise SpoolError: (failure) the store failed.
        """
        return self._operate(self._operator.delete(queue_id, queue))

    def hold_all(self, queue: Queue | None = None) -> Deferred[int]:
        """
        L{hold} all messages of a queue, or of incoming, active and deferred, a slice at a time.

        @return: a Deferred that gives how many there were. What fails is logged.
        """
        return self._operate(self._operator.every(self._operator.hold, _queues(queue, HOLD_FROM)))

    def release_all(self, queue: Queue | None = None) -> Deferred[int]:
        """
        L{release} all messages on hold, a slice at a time.

        @return: as L{hold_all}.
        """
        return self._operate(self._operator.every(self._operator.release, _queues(queue, RELEASE_FROM)))

    def requeue_all(self, queue: Queue | None = None) -> Deferred[int]:
        """
        L{requeue} all messages of a queue, or of hold, incoming, active and deferred, a slice at a time.

        @return: as L{hold_all}.
        """
        return self._operate(self._operator.every(self._operator.requeue, _queues(queue, REMOVE_FROM)))

    def delete_all(self, queue: Queue | None = None) -> Deferred[int]:
        """
        L{delete} all messages of a queue, or of hold, incoming, active and deferred, a slice at a time.

        @return: as L{hold_all}.
        """
        return self._operate(self._operator.every(self._operator.delete, _queues(queue, REMOVE_FROM)))

    def explain(self, queue_id: QueueID, limit: int = LIMIT) -> Deferred[Explanation]:
        """
        Say what a message waits for.

        @param limit: how many of its recipients to look at.
        @return: a Deferred that gives the explanation.
        @raise MessageNotFound: (failure) there is no such message.
        @raise SpoolError: (failure) it cannot be read.
        """
        return self._operate(self._explainer.explain(queue_id, limit))

    def _next_run(self, when: float) -> float:
        """When the first queue run at or after some time is."""
        call = self._run_call
        if call is None or not call.active():
            return when
        first = call.getTime()
        return first + max(0, math.ceil((when - first) / self._run_delay)) * self._run_delay

    def _operate(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if not self.running:
            work.close()
            return fail(SpoolError("the queue manager is not running"))
        return Deferred.fromCoroutine(work)

    def recipients(self) -> int:
        """
        @return: how many recipients are in memory.
        """
        return self._scheduler.recipients()

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

    def _adopt_settings(self) -> None:
        self._scheduler.reconfigure(self._settings, self._limits)
        self._turns.wake()

    def _settings(self, transport: str) -> TransportSettings:
        return read_settings(self._config, transport, self._slots)

    def _processes(self, transport: str) -> int:
        """How many deliveries a transport may run, 0 for any number."""
        if self._process_limit is None:
            return self._config.integer("default_process_limit")
        return self._process_limit(transport)

    def _slots(self, transport: str) -> int:
        """The same without those that deliveries which do not end hold for ever."""
        limit = self._processes(transport)
        return max(1, limit - self._hung.get(transport, 0)) if limit else 0

    def _delivery_time(self, transport: str) -> float:
        """How long a delivery may take, in seconds."""
        if self._time_limit is None:
            return self._config.seconds("daemon_timeout")
        return self._time_limit(transport)

    def _run(self) -> None:
        """One queue run."""
        self._run_call = self._clock.callLater(self._run_delay, self._run)
        self._admission.incoming.request()
        self._admission.deferred.request()

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
            if not await self._quiet(CANCEL_SECONDS):
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
