"""
Lets messages into the active queue.

Takes messages from intake's hand and from the scans of incoming and deferred, one of each in turn, as long
as C{qmgr_message_active_limit} has room: the leaky bucket. An admitted message is moved to C{active} and
logged; its recipients are the business of L{recipients<qmqpd_tx.qmgr.recipients>}.

A file that cannot be opened stays where it is and is tried again at a later scan; one that is damaged goes
to C{corrupt}; one that has gone is nobody's business any more. Answers to qmgr(8), "leaky bucket" and
"fairness".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    IMailQueue,
    IStoredMessage,
    MessageDamaged,
    MessageNotFound,
    MessageUnfinished,
    SpoolError,
)
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.qmgr.chores import Chores, Operation
from qmqpd_tx.qmgr.job import ActiveQueue, Job, Trouble
from qmqpd_tx.qmgr.lines import log_active
from qmqpd_tx.qmgr.scan import QueueScan

log = Logger(namespace="qmqpd_tx.qmgr")

_OPENS: Final = 20
"""How many files are opened at a time."""


class Admission:
    """
    @ivar limit: C{qmgr_message_active_limit}.
    @ivar incoming: the scan of the incoming queue.
    @ivar deferred: the scan of the deferred queue.
    """

    def __init__(
        self,
        *,
        queue: IMailQueue,
        clock: IReactorTime,
        active: ActiveQueue,
        chores: Chores,
        limit: int,
        admitted: Callable[[Job], None],
        wake: Callable[[], None],
    ) -> None:
        """
        @param queue: the store.
        @param clock: tells when a message entered.
        @param active: where messages enter.
        @param chores: where moves are kept an eye on.
        @param admitted: called with each message that has entered, to read its recipients.
        @param wake: called when L{step} may have something to do.
        """
        self._queue = queue
        self._clock = clock
        self._active = active
        self._chores = chores
        self.limit = limit
        self._admitted = admitted
        self._wake = wake
        self.incoming = QueueScan(queue, Queue.INCOMING, clock, wake)
        self.deferred = QueueScan(queue, Queue.DEFERRED, clock, wake)
        self._arrived: OrderedDict[QueueID, IStoredMessage] = OrderedDict()
        self._opening: set[QueueID] = set()
        self._waiting: dict[QueueID, list[Deferred[None]]] = {}
        self._missed = False
        self._deferred_turn = False
        self._scan_turn = False

    def arrived(self, message: IStoredMessage) -> None:
        """
        Take a message that was just committed; when there is no room it stays on disk, to be found by a
        scan as soon as there is.
        """
        queue_id = message.queue_id
        if queue_id in self._active.jobs or queue_id in self._opening:
            # A scan was faster.
            message.close()
        elif self._used() >= self.limit:
            message.close()
            self._missed = True
        else:
            self._arrived[queue_id] = message

    def full(self) -> bool:
        """
        @return: whether there is no room in the active queue.
        """
        return self._used() >= self.limit

    def behind(self) -> bool:
        """
        @return: whether mail arrives faster than it is taken into the active queue: that is full, and intake
            had to leave messages in C{incoming}.
        """
        return self._missed or (self._used() >= self.limit and self.incoming.pending())

    def step(self) -> bool:
        """
        Admit one message, or begin to.

        @return: whether there was one.
        """
        if not (self._arrived or self._missed) and not self._scanning():
            return False
        if self._used() - len(self._arrived) >= self.limit:
            return False
        if self._missed:
            self._missed = False
            self.incoming.request()
        self._deferred_turn = not self._deferred_turn
        if self._deferred_turn:
            return self._from_deferred() or self._from_incoming()
        return self._from_incoming() or self._from_deferred()

    def open_now(self, queue_id: QueueID) -> Deferred[bool]:
        """
        Bring one deferred message in, whatever its time and however full the active queue is.

        @return: a Deferred that fires when it is active: L{False} if it was before, so that the attempt under
            way may be at its end.
        @raise MessageNotFound: (failure) it is not in the deferred queue, or should not be any more.
        @raise SpoolError: (failure) it cannot be opened.
        """
        if queue_id in self._active.jobs or queue_id in self._opening or queue_id in self._arrived:
            return succeed(False)
        if queue_id in self._chores.stuck:
            return fail(MessageNotFound(f"{queue_id}: on its way out of the queue"))
        self._opening.add(queue_id)
        operation = self._chores.watch(queue_id, "open")
        opened: Deferred[IStoredMessage] = self._queue.open(queue_id, Queue.DEFERRED)

        def admit(message: IStoredMessage) -> bool:
            self._opened(message, queue_id, Queue.DEFERRED, True, True)
            return True

        def failed(failure: Failure) -> Failure:
            self._opening.discard(queue_id)
            return failure

        def end(result: Failure | bool) -> Failure | bool:
            self._open_ended(None, operation)
            return result

        return opened.addCallbacks(admit, failed).addBoth(end)

    def opening(self, queue_id: QueueID) -> Deferred[None] | None:
        """
        @return: L{None}, or, when the message is just being opened, a Deferred that fires when it is active
            or will not be.
        """
        if queue_id not in self._opening:
            return None
        deferred: Deferred[None] = Deferred()
        self._waiting.setdefault(queue_id, []).append(deferred)
        return deferred

    def handed_over(self, queue_id: QueueID) -> bool:
        """
        @return: whether the message was handed over and waits to be admitted; it is in C{incoming}.
        """
        return queue_id in self._arrived

    def withdraw(self, queue_id: QueueID) -> None:
        """
        Such a message is not to be admitted: an operator wants it elsewhere.
        """
        self._arrived.pop(queue_id).close()

    def close(self) -> None:
        """
        Let go of what has arrived and was not admitted; it stays on disk.
        """
        for message in self._arrived.values():
            message.close()
        self._arrived.clear()
        self._missed = False

    def _used(self) -> int:
        return len(self._active.jobs) + len(self._arrived) + len(self._opening)

    def _scanning(self) -> bool:
        return self.incoming.pending() or self.deferred.pending()

    def _from_incoming(self) -> bool:
        """Those in memory and those of a scan in turn: a backlog on disk must not wait for a lull."""
        if self._arrived:
            self._scan_turn = not self._scan_turn
            if self._scan_turn and self.incoming.pending() and self._from_scan(self.incoming, Queue.INCOMING):
                return True
            _, message = self._arrived.popitem(last=False)
            # What a flush does to the next scan, it does to what would have been found by one.
            flushed, self.incoming.flush_next = self.incoming.flush_next, False
            self._admit(message, Queue.INCOMING, True, flushed)
            return True
        return self._from_scan(self.incoming, Queue.INCOMING)

    def _from_deferred(self) -> bool:
        return self._from_scan(self.deferred, Queue.DEFERRED)

    def _from_scan(self, scan: QueueScan, source: Queue) -> bool:
        if len(self._opening) >= _OPENS:
            return False
        queue_id = scan.take()
        if queue_id is None:
            return False
        flushed = scan.flushing
        if (
            queue_id in self._active.jobs
            or queue_id in self._opening
            or queue_id in self._arrived
            or queue_id in self._chores.stuck
        ):
            return True
        self._opening.add(queue_id)
        operation = self._chores.watch(queue_id, "open")
        opened: Deferred[IStoredMessage] = self._queue.open(queue_id, source)
        opened.addCallbacks(
            self._opened,
            self._not_opened,
            callbackArgs=(queue_id, source, flushed),
            errbackArgs=(queue_id, source),
        )
        opened.addBoth(self._open_ended, operation)
        return True

    def _opened(
        self, message: IStoredMessage, queue_id: QueueID, source: Queue, flushed: bool, urgent: bool = False
    ) -> None:
        self._opening.discard(queue_id)
        if queue_id in self._chores.stuck or queue_id in self._active.jobs:
            # It was opened behind its own removal, and that has failed.
            message.close()
        else:
            self._admit(message, source, False, flushed, urgent)

    def _not_opened(self, failure: Failure, queue_id: QueueID, source: Queue) -> None:
        self._opening.discard(queue_id)
        if isinstance(failure.value, MessageNotFound):
            # Delivered or removed between the scan and now.
            return
        if isinstance(failure.value, MessageDamaged):
            self._save_corrupt(queue_id, source, failure.getErrorMessage())
        elif isinstance(failure.value, MessageUnfinished):
            log.debug("{queue_id}: not complete yet", queue_id=queue_id)
        elif isinstance(failure.value, SpoolError):
            log.warn(
                "{queue_id}: open: {reason}; will try again",
                queue_id=queue_id,
                reason=failure.getErrorMessage(),
            )
        else:
            log.failure("{queue_id}: open", failure, queue_id=queue_id)

    def _open_ended(self, _: object, operation: Operation) -> None:
        self._chores.ended(operation)
        if self._waiting:
            for deferred in self._waiting.pop(operation.queue_id, ()):
                deferred.callback(None)
        self._wake()

    def _save_corrupt(self, queue_id: QueueID, source: Queue, reason: str) -> None:
        log.warn("{queue_id}: {reason}", queue_id=queue_id, reason=reason)
        log.warn(
            'saving corrupt file "{queue_id}" from queue "{source}" to queue "corrupt"',
            queue_id=queue_id,
            source=source.value,
        )
        self._chores.run(
            queue_id, "move to corrupt", lambda: self._queue.move(queue_id, source, Queue.CORRUPT)
        )

    def _admit(
        self, message: IStoredMessage, source: Queue, fresh: bool, flushed: bool, urgent: bool = False
    ) -> None:
        job = Job(message, Queue.ACTIVE, fresh, self._clock.seconds())
        job.flushed = flushed
        job.urgent = urgent
        queue_id = job.queue_id
        self._active.jobs[queue_id] = job
        # Nobody waits for the move: the store keeps the order of operations on one message.
        operation = self._chores.watch(queue_id, "move to active")
        moved: Deferred[None] = self._queue.move(queue_id, source, Queue.ACTIVE)
        moved.addCallbacks(
            self._moved,
            self._not_moved,
            callbackArgs=(operation, source),
            errbackArgs=(operation, job, source),
        )
        log_active(job)
        self._admitted(job)

    def _moved(self, _: object, operation: Operation, source: Queue) -> None:
        if source is Queue.DEFERRED:
            self.deferred.moved(operation.queue_id)
        self._chores.ended(operation)

    def _not_moved(self, failure: Failure, operation: Operation, job: Job, source: Queue) -> None:
        if isinstance(failure.value, MessageNotFound):
            job.trouble = Trouble.VANISHED
        else:
            # It can be delivered all the same, and leaves from where it is.
            job.queue = source
        log.warn(
            "{queue_id}: move to active: {reason}", queue_id=job.queue_id, reason=failure.getErrorMessage()
        )
        self._chores.ended(operation)
