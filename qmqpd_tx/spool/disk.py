"""
Where disk work is done: threads, or the caller's own stack in tests.

Takes L{Operation}s: small objects with one part that runs away from the reactor and one that runs on its
thread. Promises that C{finish} is called on the reactor's thread exactly once for each operation that
was put, and that a lane with one thread runs its operations in the order in which they were put. A disk
that hangs holds up its lane, never the reactor.

What costs time here is not the work but handing the interpreter lock back and forth, so operations
travel in batches: a thread takes all that wait (up to a limit) and gives all its results with a single
wake-up of the reactor.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from qmqpd_tx.events import Logger

log = Logger(namespace="qmqpd_tx.qmgr")

BATCH_LIMIT = 100
"""How many operations a thread takes at a time."""

QUEUE_LANE = "queue"
"""The lane for operations on messages that exist, in order."""

COMMIT_LANE = "commit"
"""The lane for making new messages durable."""

CONTENT_LANE = "content"
"""The lane for what needs no order and may be large."""


class Operation:
    """
    A piece of disk work.

    @ivar error: what went wrong, set by the runner of the lane, or L{None}.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def finish(self) -> None:
        """
        Tell whoever waits; runs on the reactor's thread.
        """
        raise NotImplementedError


Post = Callable[[Sequence[Operation]], None]
"""Hands finished operations back; may be called from a disk thread."""

Runner = Callable[[Sequence[Operation], Post], None]
"""Runs a batch and posts each of its operations once; catches the operations' own exceptions."""


class Lane(Protocol):
    """A queue of disk work."""

    def put(self, operation: Operation) -> None:
        """
        Hand over an operation; called on the reactor's thread.
        """


class Disk(Protocol):
    """What runs disk work."""

    def lane(self, name: str, threads: int, runner: Runner) -> Lane:
        """
        @param threads: how many batches may run at the same time.
        @return: a new lane.
        """

    def drained(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when no operation is under way.
        """

    def hold_lock(self, fd: int) -> None:
        """
        Whatever else does disk work keeps the lock of the queue as well, until it ends.
        """

    def stop(self) -> None:
        """
        End the threads, once drained.
        """


class _Outstanding:
    """Counts operations under way; touched on the reactor's thread only."""

    __slots__ = ("_waiting", "count", "watch")

    def __init__(self) -> None:
        self.count = 0
        self.watch: Callable[[Operation], None] | None = None
        self._waiting: list[Deferred[None]] = []

    def finish(self, operation: Operation) -> None:
        try:
            operation.finish()
        except Exception:
            log.failure("panic: a finished disk operation could not be reported")
        if self.watch is not None:
            self.watch(operation)
        self.ended()

    def ended(self) -> None:
        self.count -= 1
        while self._waiting and self.count == 0:
            self._waiting.pop().callback(None)

    def drained(self) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        if self.count == 0:
            deferred.callback(None)
        else:
            self._waiting.append(deferred)
        return deferred


class ReportingDisk:
    """
    What the disks of this module share: counting what is under way, and reporting what is done. To be
    called on the reactor's thread.
    """

    def __init__(self) -> None:
        self._outstanding = _Outstanding()

    def drained(self) -> Deferred[None]:
        """See L{Disk.drained}."""
        return self._outstanding.drained()

    def hold_lock(self, fd: int) -> None:
        """See L{Disk.hold_lock}. Nothing here outlives this process."""

    def watch(self, finished: Callable[[Operation], None]) -> None:
        """
        @param finished: called after each operation that finished.
        """
        self._outstanding.watch = finished

    def begun(self) -> None:
        """
        Count an operation that is done elsewhere.
        """
        self._outstanding.count += 1

    def done(self, operation: Operation) -> None:
        """
        Report an operation that was done elsewhere.
        """
        self._outstanding.finish(operation)

    def ended(self) -> None:
        """
        Discount an operation that was counted, and goes on in a lane.
        """
        self._outstanding.ended()


class ThreadedDisk(ReportingDisk):
    """
    L{Disk} on threads of its own. They are daemon threads: a disk that hangs does not keep a process that
    was told to end from ending.

    @param reactor: where results are reported.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        super().__init__()
        self._reactor = reactor
        self._lanes: list[_ThreadLane] = []
        self._results: deque[Operation] = deque()
        self._waking = False

    def lane(self, name: str, threads: int, runner: Runner) -> Lane:
        """See L{Disk.lane}."""
        lane = _ThreadLane(self._outstanding, self._post, runner)
        self._lanes.append(lane)
        for number in range(threads):
            thread = threading.Thread(target=lane.work, name=f"qmqpd_tx-{name}-{number}", daemon=True)
            lane.threads.append(thread)
            thread.start()
        return lane

    def stop(self) -> None:
        """See L{Disk.stop}."""
        for lane in self._lanes:
            lane.stop()
        self._lanes = []

    def _post(self, operations: Sequence[Operation]) -> None:
        # Appending before looking, and collecting after resetting, is what makes this safe without a
        # lock: a result that doesn't wake the reactor is seen by a wake-up that is still to come.
        self._results.extend(operations)
        if not self._waking:
            self._waking = True
            self._reactor.callFromThread(self._collect)

    def _collect(self) -> None:
        self._waking = False
        results, finish = self._results, self._outstanding.finish
        while results:
            finish(results.popleft())


class _ThreadLane:
    """One lane of L{ThreadedDisk}."""

    def __init__(self, outstanding: _Outstanding, post: Post, runner: Runner) -> None:
        self.threads: list[threading.Thread] = []
        self._outstanding = outstanding
        self._post = post
        self._runner = runner
        self._waiting: SimpleQueue[Operation | None] = SimpleQueue()

    def put(self, operation: Operation) -> None:
        self._outstanding.count += 1
        self._waiting.put(operation)

    def stop(self) -> None:
        for _ in self.threads:
            self._waiting.put(None)
        for thread in self.threads:
            thread.join()

    def work(self) -> None:
        waiting = self._waiting
        while True:
            operation = waiting.get()
            if operation is None:
                return
            batch = [operation]
            try:
                while len(batch) < BATCH_LIMIT:
                    operation = waiting.get_nowait()
                    if operation is None:
                        waiting.put(None)
                        break
                    batch.append(operation)
            except Empty:
                pass
            self._runner(batch, self._post)


class InlineDisk(ReportingDisk):
    """
    L{Disk} without threads, for tests: work is done before C{put} returns, or when a test says so.

    @ivar hold_work: keep operations until L{release}, as if the disk hung.
    @ivar hold_results: do the work at once, but report it at L{release}, as if the reactor was busy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hold_work = False
        self.hold_results = False
        self._work: list[tuple[Runner, Operation]] = []
        self._results: list[Operation] = []

    def lane(self, name: str, threads: int, runner: Runner) -> Lane:
        """See L{Disk.lane}."""
        return _InlineLane(self, runner)

    def stop(self) -> None:
        """See L{Disk.stop}."""

    def release(self) -> None:
        """
        Do and report what was held, in batches as large as a thread would make them.
        """
        self.hold_work = self.hold_results = False
        while self._work or self._results:
            if self._results:
                results, self._results = self._results, []
                for operation in results:
                    self._outstanding.finish(operation)
                continue
            runner = self._work[0][0]
            batch = []
            while self._work and self._work[0][0] == runner:
                batch.append(self._work.pop(0)[1])
            runner(batch, self._post)

    def put(self, runner: Runner, operation: Operation) -> None:
        """
        Take an operation of one of the lanes.
        """
        self._outstanding.count += 1
        if self.hold_work:
            self._work.append((runner, operation))
        else:
            runner([operation], self._post)

    def _post(self, operations: Sequence[Operation]) -> None:
        if self.hold_results:
            self._results.extend(operations)
            return
        for operation in operations:
            self._outstanding.finish(operation)


class _InlineLane:
    """One lane of L{InlineDisk}."""

    def __init__(self, disk: InlineDisk, runner: Runner) -> None:
        self._disk = disk
        self._runner = runner

    def put(self, operation: Operation) -> None:
        self._disk.put(self._runner, operation)
