"""
Recovery beside the service: the reactor's side of L{qmqpd_tx.spool.recovery}.

Puts slices of the recovery on the disk thread, one after the other, and takes what they find into the index.
Promises that nothing that the service does meanwhile is undone by it: what has left a queue since its file
was looked at, or has another time since, is not taken; what became active since the start is not brought
back. Fails by L{BackgroundRecovery.result} and a line in the log; the service goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import Recovery, SpoolError
from qmqpd_tx.message import QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.filesystem import FileSystem
from qmqpd_tx.spool.index import DueIndex, IndexWalk
from qmqpd_tx.spool.operations import FileOperation
from qmqpd_tx.spool.recovery import Foreign, Found, Recoverer, RecoverSlice

log = Logger(namespace="qmqpd_tx.qmgr")


class BackgroundRecovery:
    """
    One recovery.

    @param fs: the system calls.
    @param paths: where messages are.
    @param index: is given the deferred messages.
    @param ids: is told of the ids that are found; those above its present end belong to this run.
    @param submit: runs an operation on the ordered disk thread.
    @param now: POSIX seconds.
    @param unfinished_limit: age in seconds at which unfinished files go.
    @param foreign: called with paths that have no place in a queue.
    """

    def __init__(
        self,
        fs: FileSystem,
        paths: QueuePaths,
        index: DueIndex,
        ids: queueid.QueueIDs,
        submit: Callable[[FileOperation], Deferred[Any]],
        now: float,
        unfinished_limit: float,
        foreign: Foreign,
    ) -> None:
        self._index = index
        self._ids = ids
        self._submit = submit
        self._boundary = queueid.encode(ids.last)
        self._ours: set[QueueID] = set()
        self._recoverer = Recoverer(now, self._boundary, unfinished_limit, foreign, self._ours)
        self._steps = self._recoverer.steps(fs, paths)
        self._slice: RecoverSlice | None = None
        self._walks: WeakSet[IndexWalk] = WeakSet()
        self._outcome: Recovery | Failure | None = None
        self._waiting: list[Deferred[Recovery]] = []

    def begin(self) -> None:
        """
        Start.
        """
        Deferred.fromCoroutine(self._run()).addCallbacks(self._end, self._failed)

    def result(self) -> Deferred[Recovery]:
        """See L{IMailQueue.recovered<qmqpd_tx.interfaces.IMailQueue.recovered>}."""
        outcome = self._outcome
        if isinstance(outcome, Failure):
            return fail(outcome)
        if outcome is not None:
            return succeed(outcome)
        deferred: Deferred[Recovery] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def stop(self) -> None:
        """
        The queue stops: no more slices.
        """
        if self._outcome is None:
            error = SpoolError("recover the queue: stopped before the recovery was complete")
            self._end(Failure(error))  # type: ignore[no-untyped-call]

    # --- what the service does meanwhile --------------------------------------------------------------

    def left(self, queue_id: QueueID) -> None:
        """
        A message leaves the queue in which it is.
        """
        if self._slice is not None:
            self._slice.left.add(queue_id)

    def activated(self, queue_id: QueueID) -> None:
        """
        A message becomes active.
        """
        if self._outcome is None:
            self._ours.add(queue_id)

    def unchecked(self, queue_id: QueueID) -> bool:
        """
        @return: whether a message may be one that nobody has compared with its checksum since the start.
        """
        return self._outcome is None and queue_id <= self._boundary

    def out_of_turn(self) -> Callable[[FileSystem, QueuePaths, QueueID], None] | None:
        """
        @return: what recovers one message, on the disk thread, or L{None} when there is nothing to recover.
        """
        return None if self._outcome is not None else self._recoverer.recover_active

    def watch(self, walk: IndexWalk) -> None:
        """
        A walk that began before the index was whole gets what is still to be found.
        """
        if self._outcome is None:
            self._walks.add(walk)

    def whole(self) -> Deferred[object] | None:
        """
        @return: L{None} when the index is as whole as it will be, else a Deferred that fires then.
        """
        if self._outcome is not None:
            return None
        return self.result().addErrback(lambda _: None)

    # --- the work -------------------------------------------------------------------------------------

    async def _run(self) -> Recovery:
        while True:
            self._slice = operation = RecoverSlice(self._steps)
            found = await self._submit(operation)
            self._slice = None
            if self._outcome is None:
                self._take(operation, found)
            if operation.exhausted:
                return self._recoverer.result

    def _take(self, operation: RecoverSlice, found: list[Found]) -> None:
        index = self._index
        # One that is there already was deferred since.
        new = [pair for pair in found if pair[0] not in operation.left and pair[0] not in index]
        for queue_id, due in new:
            index.set(queue_id, due)
        for walk in self._walks:
            walk.add(new)
        if self._recoverer.last is not None:
            self._ids.seen(self._recoverer.last)

    def _failed(self, failure: Failure) -> None:
        if self._outcome is None:
            log.error(
                "recovery of the queue: {reason}: what is left waits for the next start",
                reason=failure.getErrorMessage(),
            )
            self._end(failure)

    def _end(self, outcome: Recovery | Failure) -> None:
        if self._outcome is not None:
            return
        self._outcome = outcome
        self._slice = None
        self._ours.clear()
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(outcome)
