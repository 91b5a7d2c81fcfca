"""
What the queue manager waits for, and store operations that must happen, sooner or later.

Keeps count of everything that is under way, so that a stop can wait for it. Looks after what takes longer
than C{qmgr_ipc_timeout}, with one timer for all: a store operation cannot be taken back, so that it is
logged, with what was being done and to which message, and stays counted; what can be given up
(L{Chores.limited}) is cancelled and fails.

A store operation of L{Chores.run} is tried at once and again after a while as long as the store fails. The
message's id is remembered meanwhile, so that no scan brings up a message whose story has ended. A failure is
logged with the message's id and what was being done; a message that is not there any more ends its chore.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageNotFound, SpoolError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.qmgr")

T = TypeVar("T")

_SHOWN: Final = 10
"""How many overdue operations are logged at a time: a disk that hangs has thousands."""


class TimeLimitExceeded(SpoolError):
    """Something took longer than C{qmgr_ipc_timeout} and was given up."""


class Operation:
    """
    Something under way that is to end soon.

    @ivar queue_id: whose it is.
    @ivar what: for the log, as in C{move to active}.
    @ivar since: when it began, POSIX seconds.
    @ivar late: called when it takes too long: gives it up; L{None} when that is not possible.
    """

    __slots__ = ("late", "queue_id", "since", "what")

    def __init__(self, queue_id: QueueID, what: str, since: float) -> None:
        self.queue_id = queue_id
        self.what = what
        self.since = since
        self.late: Callable[[], None] | None = None


class Chores:
    """
    @ivar stuck: the messages that no scan may bring up: their chore failed and waits to be tried again, or
        an operator's action has them in hand.
    @ivar retry_time: seconds until then, give or take a tenth, so that a thousand do not come at once.
    @ivar time_limit: C{qmgr_ipc_timeout}, seconds.
    """

    def __init__(
        self, clock: IReactorTime, random: Random, retry_time: float, time_limit: float = 60.0
    ) -> None:
        """
        @param clock: for the retries and the time limit.
        @param random: for the spread of the retries.
        """
        self._clock = clock
        self._random = random
        self.retry_time = retry_time
        self.time_limit = time_limit
        self.stuck: set[QueueID] = set()
        self._calls: set[IDelayedCall] = set()
        self._under_way = 0
        self._idle: list[Deferred[None]] = []
        self._stopped = False
        # In the order in which they began.
        self._operations: dict[Operation, None] = {}
        self._check_call: IDelayedCall | None = None

    def begin(self) -> None:
        """
        Something is under way that a stop waits for.
        """
        self._under_way += 1

    def end(self) -> None:
        """
        It is not any more.
        """
        self._under_way -= 1
        if not self._under_way and self._idle:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)

    def watch(self, queue_id: QueueID, what: str) -> Operation:
        """
        As L{begin}, for what is to end within the time limit.

        @param what: for the log.
        @return: to be given to L{ended}.
        """
        self._under_way += 1
        operation = Operation(queue_id, what, self._clock.seconds())
        self._operations[operation] = None
        if self._check_call is None and not self._stopped:
            self._check_call = self._clock.callLater(self.time_limit, self._check)
        return operation

    def ended(self, operation: Operation) -> None:
        """
        It has ended, in whatever way.
        """
        if self._operations.pop(operation, operation) is operation and operation.late is None:
            # It was overdue, and logged.
            log.info(
                "{queue_id}: {what}: done after {seconds} seconds",
                queue_id=operation.queue_id,
                what=operation.what,
                seconds=round(self._clock.seconds() - operation.since),
            )
        self.end()

    def limited(self, queue_id: QueueID, what: str, deferred: Deferred[T]) -> Deferred[T]:
        """
        Wait for something that can be given up.

        @param deferred: it is cancelled when the time limit has passed. If not even that ends it, it stays
            counted, and its late result is dropped.
        @return: a Deferred that gives its result or failure.
        @raise TimeLimitExceeded: (failure) it took too long.
        """
        if deferred.called and not deferred.paused and not isinstance(deferred.result, Deferred):
            return deferred
        operation = self.watch(queue_id, what)
        answer: Deferred[T] = Deferred()
        exceeded = False

        def late() -> None:
            nonlocal exceeded
            exceeded = True
            deferred.cancel()
            if not answer.called:
                text = f"{queue_id}: {what}: not done within {self.time_limit:g} seconds"
                answer.errback(TimeLimitExceeded(text))

        def done(result: T | Failure) -> None:
            self.ended(operation)
            if exceeded and isinstance(result, Failure):
                # The cancellation at work; that it took too long says more.
                return
            if not answer.called:
                answer.callback(result)

        operation.late = late
        deferred.addBoth(done)
        return answer

    def idle(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when nothing is under way. Chores that wait for a retry do not count.
        """
        deferred: Deferred[None] = Deferred(lambda gone: self._idle.remove(gone))
        if self._under_way:
            self._idle.append(deferred)
        else:
            deferred.callback(None)
        return deferred

    def stop(self) -> None:
        """
        Give up the retries; start-up recovery sees to their messages.
        """
        self._stopped = True
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        if self._check_call is not None:
            self._check_call.cancel()
            self._check_call = None

    def spawn(self, queue_id: QueueID, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """
        Run a coroutine to its end; an exception from it is a bug and is logged.
        """
        self.begin()
        deferred = Deferred.fromCoroutine(work)
        deferred.addErrback(self._bug, queue_id)
        deferred.addBoth(self._spawned)

    def run(
        self,
        queue_id: QueueID,
        what: str,
        operation: Callable[[], Deferred[Any]],
        then: Callable[[QueueID], None] | None = None,
    ) -> None:
        """
        @param queue_id: whose operation it is.
        @param what: for the log, as in C{remove}.
        @param operation: starts it; called again when it failed.
        @param then: called with the id after it succeeded.
        """
        watched = self.watch(queue_id, what)
        deferred = operation()
        deferred.addCallbacks(
            self._did,
            self._failed,
            callbackArgs=(watched, then),
            errbackArgs=(watched, operation, then),
        )

    def _did(self, _: object, watched: Operation, then: Callable[[QueueID], None] | None) -> None:
        if self.stuck:
            self.stuck.discard(watched.queue_id)
        try:
            if then is not None:
                then(watched.queue_id)
        finally:
            self.ended(watched)

    def _failed(
        self,
        failure: Failure,
        watched: Operation,
        operation: Callable[[], Deferred[Any]],
        then: Callable[[QueueID], None] | None,
    ) -> None:
        queue_id, what = watched.queue_id, watched.what
        if isinstance(failure.value, MessageNotFound):
            self.stuck.discard(queue_id)
            log.warn(
                "{queue_id}: {what}: {reason}; nothing to do",
                queue_id=queue_id,
                what=what,
                reason=failure.getErrorMessage(),
            )
        else:
            self.stuck.add(queue_id)
            if isinstance(failure.value, SpoolError):
                log.warn(
                    "{queue_id}: {what}: {reason}; will try again",
                    queue_id=queue_id,
                    what=what,
                    reason=failure.getErrorMessage(),
                )
            else:
                log.failure("{queue_id}: {what}", failure, queue_id=queue_id, what=what)
            if not self._stopped:
                delay = self.retry_time * self._random.uniform(0.9, 1.1)
                call: IDelayedCall

                def again() -> None:
                    self._calls.discard(call)
                    self.run(queue_id, what, operation, then)

                call = self._clock.callLater(delay, again)
                self._calls.add(call)
        self.ended(watched)

    def _bug(self, failure: Failure, queue_id: QueueID) -> None:
        log.failure("{queue_id}: internal error", failure, queue_id=queue_id)

    def _spawned(self, _: object) -> None:
        self.end()

    def _check(self) -> None:
        """Look at the oldest operations; what is overdue is logged once, and a few at a time."""
        self._check_call = None
        now = self._clock.seconds()
        limit = self.time_limit
        overdue: list[Operation] = []
        for operation in self._operations:
            if now - operation.since < limit:
                break
            overdue.append(operation)
        for count, operation in enumerate(overdue):
            del self._operations[operation]
            if count < _SHOWN:
                log.warn(
                    "{queue_id}: {what}: not done within {limit} seconds (qmgr_ipc_timeout)",
                    queue_id=operation.queue_id,
                    what=operation.what,
                    limit=f"{limit:g}",
                )
            if operation.late is not None:
                operation.late()
        if len(overdue) > _SHOWN:
            log.warn(
                "{count} more operations are not done within {limit} seconds (qmgr_ipc_timeout)",
                count=len(overdue) - _SHOWN,
                limit=f"{limit:g}",
            )
        if self._check_call is not None:
            # Set by what has begun just now.
            self._check_call.cancel()
            self._check_call = None
        if self._operations and not self._stopped:
            oldest = next(iter(self._operations))
            # A clock that was set back must not make us wait for as long as it was wrong.
            delay = min(max(oldest.since + limit - now, 0.0), limit)
            self._check_call = self._clock.callLater(delay, self._check)
