"""
The queue manager.

L{QueueManager} is the service: its start, its stop, and what others may ask of it. Messages come in by
L{QueueManager.arrived}, by a trigger or by a scan; they leave delivered, returned, deferred or saved. The
work is done by the parts of this room (L{parts<qmqpd_tx.qmgr.parts>}), in L{turns<qmqpd_tx.qmgr.turns>}.

Durable state is the store's and the bounce service's alone; what is in memory here can be lost at any
moment, and start-up recovery brings it back from C{active}. Nothing raises into the reactor: what fails is
logged and contained. Answers to qmgr(8).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
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
from qmqpd_tx.qmgr.deadlines import CANCEL_SECONDS
from qmqpd_tx.qmgr.deliver import ITransports
from qmqpd_tx.qmgr.explain import LIMIT, Remembered
from qmqpd_tx.qmgr.explanation import Explanation
from qmqpd_tx.qmgr.inventory import QueueStatus, take_inventory
from qmqpd_tx.qmgr.parts import Parts
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.selection import MakeScheduler
from qmqpd_tx.qmgr.triggers import Triggers

log = Logger(namespace="qmqpd_tx.qmgr")

T = TypeVar("T")


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
        worked: Callable[[], float] | None = None,
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
        @param worked: gives how many seconds the reactor's thread has worked, so that idle time is used for
            deliveries while mail arrives; without it, it is taken to work always.
        """
        self._clock = clock
        self._parts = Parts(
            config=config,
            clock=clock,
            queue=queue,
            router=router,
            transports=transports,
            bounces=bounces,
            random=random,
            process_limit=process_limit,
            time_limit=time_limit,
            cleanup=cleanup,
            flush=flush,
            remembered=remembered,
            scheduler=scheduler,
            worked=worked,
        )
        self._active = self._parts.active
        self._admission = self._parts.admission
        self._chores = self._parts.chores
        self._deliveries = self._parts.deliveries
        self._operator = self._parts.operator
        self._scheduler = self._parts.scheduler
        self._turns = self._parts.turns
        self._shutdown_limit = config.seconds("qmgr_shutdown_time_limit")

    def startService(self) -> None:
        """
        Begin with a scan of both queues, then one every C{queue_run_delay}.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._turns.start(
            self._admission.step, self._deliveries.step, self._parts.reader.step, self._scheduler.wakeup
        )
        self._parts.runs.start()

    def stopService(self) -> Deferred[None]:
        """
        Begin no more deliveries; give those under way C{qmgr_shutdown_time_limit}, then cancel them. What is
        not finished stays in C{active}, for recovery.

        @return: a Deferred that fires when all is quiet.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._turns.stop()
        self._parts.runs.stop()
        self._chores.stop()
        self._deliveries.stop()
        self._parts.resolver.close()
        self._admission.close()
        return Deferred.fromCoroutine(self._stop())

    def reconfigure(self, config: IConfig) -> None:
        """
        Take a new configuration. Deliveries under way are not touched.
        """
        self._shutdown_limit = config.seconds("qmgr_shutdown_time_limit")
        self._parts.reconfigure(config)

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
            self._scheduler.flush()
            # What the next scans bring in is not held back by defer_transports either.
            self._admission.incoming.flush_next = True
            self._admission.deferred.flush_next = True
            self._turns.wake()
        if triggers.scan_deferred:
            self._admission.deferred.request()
        if triggers.scan_incoming:
            self._admission.incoming.request()

    def flush(self) -> None:
        """
        Try all deferred mail now (C{postqueue -f}).
        """
        self.triggered(Triggers(ignore_times=True, flush_dead=True, scan_deferred=True, scan_incoming=True))

    def deliver_now(self, queue_id: QueueID) -> Deferred[bool]:
        """
        Try one deferred message now (C{postqueue -i}), whatever C{defer_transports} says and however dead its
        destination is.

        @return: a Deferred that fires when the message is active, with L{False} if it was before.
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
        @raise MessageNotFound: (failure) there is none; also when C{queue} is hold, where nothing is to do.
        @raise SpoolError: (failure) the store failed.
        """
        return self._operate(self._operator.hold(queue_id, queue))

    def release(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """
        Let a message on hold be delivered again (C{postsuper -H}): it is deferred, and due when it was due
        before.

        @param queue: hold, or L{None}, which is the same; nothing is released from anywhere else.
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

    def explain(self, queue_id: QueueID, limit: int = LIMIT) -> Deferred[Explanation]:
        """
        Say what a message waits for.

        @param limit: how many of its recipients to look at.
        @return: a Deferred that gives the explanation.
        @raise MessageNotFound: (failure) there is no such message.
        @raise SpoolError: (failure) it cannot be read.
        """
        return self._operate(self._parts.explainer.explain(queue_id, limit))

    def recipients(self) -> int:
        """
        @return: how many recipients are in memory.
        """
        return self._scheduler.recipients()

    def status(self) -> QueueStatus:
        """
        @return: what is in hand now.
        """
        return take_inventory(self._active, self._scheduler, self._clock.seconds())

    def _operate(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if not self.running:
            work.close()
            return fail(SpoolError("the queue manager is not running"))
        return Deferred.fromCoroutine(work)

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
