"""
Who changes messages for postsuper(1): the running service, or, when there is none, the command itself.

L{superintendent} finds out which, for one queue, and gives an L{ISuperintendent}. A service that has the
queue but does not listen is starting or stopping: then nothing is touched. Work is cut into slices of
L{SLICE} messages, so that no request holds up the service, and this command needs no memory for all of
them.

How durable a change is, the service says, or L{OfflineQueue<qmqpd_tx.spool.offline.OfflineQueue>}. A
command that is killed half way has done a part, and may be repeated.

Answers to: postsuper(1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from qmqpd_tx.admin.client import Conversation, NobodyListens, ServiceDown
from qmqpd_tx.admin.codec import ControlError
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import ConfigError, IConfig, QueueLocked, SpoolError
from qmqpd_tx.maillog import MailLog
from qmqpd_tx.message import Queue
from qmqpd_tx.spool.offline import Change, OfflineQueue

log = Logger(namespace="qmqpd_tx.postsuper")

SLICE = 200
"""How many messages are changed at a time."""

DONE: Mapping[Change, str] = {
    Change.DELETE: "removed",
    Change.HOLD: "placed on hold",
    Change.RELEASE: "released from hold",
    Change.REQUEUE: "requeued",
}
"""What is said of one message."""

_COUNTED: Mapping[Change, str] = {
    Change.DELETE: "Deleted",
    Change.HOLD: "Placed on hold",
    Change.RELEASE: "Released from hold",
    Change.REQUEUE: "Requeued",
}


class Refused(Exception):
    """Nothing more can be done; the text says why and what to do."""


def counted(change: Change, number: int) -> str:
    """
    @return: what is said of all messages to which something was done.
    """
    return f"{_COUNTED[change]}: {number} message{'' if number == 1 else 's'}"


class ISuperintendent(Protocol):
    """Changes messages, and sees that each change is in the mail log."""

    def change(self, change: Change, ids: Sequence[str], queues: Sequence[Queue] | None) -> list[str]:
        """
        @param ids: at most L{SLICE}.
        @param queues: where to look; L{None} is where the change looks by itself.
        @return: to which of them it was done.
        @raise Refused: it could not go on.
        """

    def change_all(self, change: Change, queues: Sequence[Queue] | None) -> Iterator[int]:
        """
        @return: to how many more it was done, time and again, to the end.
        @raise Refused: it could not go on.
        """

    def report(self, counts: Sequence[tuple[Change, int]]) -> None:
        """
        Put into the log what was done in all.

        @raise Refused: it could not.
        """

    def close(self) -> None:
        """
        Let go of the queue.
        """


def superintendent(config: IConfig, failed: Callable[[str], None]) -> ISuperintendent:
    """
    @param failed: called with what could not be done to one message, while the rest goes on.
    @return: who changes messages now.
    @raise Refused: nobody can.
    """
    try:
        return Running(Conversation(Path(config.string("queue_directory"))), failed)
    except NobodyListens:
        pass
    except ServiceDown as problem:
        raise Refused(str(problem)) from problem
    queue = OfflineQueue(config, time.time())
    try:
        queue.open()
    except QueueLocked as problem:
        text = "the mail system has the queue, but takes no commands: it is starting or stopping; try again"
        raise Refused(f"{text} ({problem})") from problem
    except SpoolError as problem:
        raise Refused(str(problem)) from problem
    return Stopped(queue, config, failed)


class Running:
    """
    The queue of a running service.

    @param service: the connection to it.
    @param failed: called with what could not be done to one message.
    """

    def __init__(self, service: Conversation, failed: Callable[[str], None]) -> None:
        self._service = service
        self._failed = failed

    def change(self, change: Change, ids: Sequence[str], queues: Sequence[Queue] | None) -> list[str]:
        """See L{ISuperintendent.change}."""
        done: list[str] = []
        for answer in self._follow(change, list(ids), queues):
            done += answer["done"]
        return done

    def change_all(self, change: Change, queues: Sequence[Queue] | None) -> Iterator[int]:
        """See L{ISuperintendent.change_all}."""
        for answer in self._follow(change, None, queues):
            yield int(answer["number"])

    def _follow(
        self, change: Change, ids: list[str] | None, queues: Sequence[Queue] | None
    ) -> Iterator[dict[str, Any]]:
        task = self._ask("change", change=change, queue_ids=ids, queues=queues)
        finished = False
        while not finished:
            answer = self._ask("progress", task=task)
            finished = answer["finished"]
            for text in answer["failed"]:
                self._failed(text)
            yield answer

    def report(self, counts: Sequence[tuple[Change, int]]) -> None:
        """See L{ISuperintendent.report}."""
        self._ask("changed", counts=counts)

    def _ask(self, command: str, **members: Any) -> Any:
        try:
            return self._service.ask(command, **members)
        except (ServiceDown, ControlError) as problem:
            raise Refused(str(problem)) from problem

    def close(self) -> None:
        """See L{ISuperintendent.close}."""
        self._service.close()


class Stopped:
    """
    The queue of a service that does not run.

    @param queue: open, and ours.
    @param config: where the log is.
    @param failed: called with what could not be done to one message.
    """

    def __init__(self, queue: OfflineQueue, config: IConfig, failed: Callable[[str], None]) -> None:
        self._queue = queue
        self._failed = failed
        self._maillog = _open_log(config, failed)
        observer: Any = self._tell  # mypy-zope does not know that a function may be an observer
        self._observer = observer
        globalLogPublisher.addObserver(self._observer)

    def _tell(self, event: dict[str, Any]) -> None:
        """Warnings, whoever gives them, are also for the person at the terminal."""
        if event.get("log_level") is LogLevel.warn:
            self._failed(formatEvent(event))
        if self._maillog is not None:
            self._maillog(event)

    def change(self, change: Change, ids: Sequence[str], queues: Sequence[Queue] | None) -> list[str]:
        """See L{ISuperintendent.change}."""
        done = []
        for queue_id in ids:
            try:
                if self._queue.change(change, queue_id, queues) is None:
                    continue
            except SpoolError as problem:
                log.warn("{reason}", reason=str(problem), queue_id=queue_id)
                continue
            log.info("{queue_id}: {done}", queue_id=queue_id, done=DONE[change])
            done.append(queue_id)
        self._flush()
        return done

    def change_all(self, change: Change, queues: Sequence[Queue] | None) -> Iterator[int]:
        """See L{ISuperintendent.change_all}."""
        try:
            changed = self._queue.change_all(change, queues)
            while count := sum(1 for _ in islice(changed, SLICE)):
                yield count
                self._flush()
        except (OSError, SpoolError) as problem:
            raise Refused(str(problem)) from problem

    def report(self, counts: Sequence[tuple[Change, int]]) -> None:
        """See L{ISuperintendent.report}."""
        try:
            # Only now it survives a power cut, and only then it is done.
            self._queue.close()
        except SpoolError as problem:
            raise Refused(str(problem)) from problem
        for change, number in counts:
            log.info("{text}", text=counted(change, number))
        self._flush()

    def _flush(self) -> None:
        if self._maillog is not None:
            self._maillog.flush()

    def close(self) -> None:
        """See L{ISuperintendent.close}."""
        globalLogPublisher.removeObserver(self._observer)
        if self._maillog is not None:
            self._maillog.close()
        try:
            self._queue.close()
        except SpoolError as problem:
            self._failed(str(problem))


def _open_log(config: IConfig, failed: Callable[[str], None]) -> MailLog | None:
    """
    @return: the mail log, or L{None}: it is a standard stream, and ours are not the service's; or it cannot
        be opened, which must keep nobody from seeing to the queue.
    """
    if config.string("maillog_file") in ("/dev/stdout", "/dev/stderr"):
        return None
    try:
        return MailLog(config, Clock())
    except ConfigError as problem:
        failed(f"this is not logged: {problem}")
        return None
