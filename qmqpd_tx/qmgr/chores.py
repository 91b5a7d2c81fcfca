"""
Queue store operations that must happen, sooner or later.

Takes an operation and the words for it, tries it at once and again after a while as long as the store
fails. The message's id is remembered meanwhile, so that no scan brings up a message whose story has
ended. Keeps count of everything that is under way, so that a stop can wait for it. A failure is logged
with the message's id and what was being done; a message that is not there any more ends its chore.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import MessageNotFound, SpoolError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.qmgr")


class Chores:
    """
    @ivar stuck: the messages whose chore failed and waits to be tried again.
    @ivar retry_time: seconds until then, give or take a tenth, so that a thousand do not come at once.
    """

    def __init__(self, clock: IReactorTime, random: Random, retry_time: float) -> None:
        """
        @param clock: for the retries.
        @param random: for their spread.
        """
        self._clock = clock
        self._random = random
        self.retry_time = retry_time
        self.stuck: set[QueueID] = set()
        self._calls: set[IDelayedCall] = set()
        self._under_way = 0
        self._idle: list[Deferred[None]] = []
        self._stopped = False

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

    def spawn(self, queue_id: QueueID, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """
        Run a coroutine to its end; an exception from it is a bug and is logged.
        """
        self.begin()
        deferred = Deferred.fromCoroutine(work)
        deferred.addErrback(self._bug, queue_id)
        deferred.addBoth(self._ended)

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
        self._under_way += 1
        deferred = operation()
        deferred.addCallbacks(
            self._did,
            self._failed,
            callbackArgs=(queue_id, then),
            errbackArgs=(queue_id, what, operation, then),
        )

    def _did(self, _: object, queue_id: QueueID, then: Callable[[QueueID], None] | None) -> None:
        if self.stuck:
            self.stuck.discard(queue_id)
        try:
            if then is not None:
                then(queue_id)
        finally:
            self.end()

    def _failed(
        self,
        failure: Failure,
        queue_id: QueueID,
        what: str,
        operation: Callable[[], Deferred[Any]],
        then: Callable[[QueueID], None] | None,
    ) -> None:
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
        self.end()

    def _bug(self, failure: Failure, queue_id: QueueID) -> None:
        log.failure("{queue_id}: internal error", failure, queue_id=queue_id)

    def _ended(self, _: object) -> None:
        self.end()
