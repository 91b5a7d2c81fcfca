"""
The commands of the running service, for the control socket.

Takes the services that do the work, each by the methods that are needed here; gives a handler each command.
What comes from a client is checked before anything else sees it. Errors are L{ControlError}, or
L{SpoolError<qmqpd_tx.interfaces.SpoolError>}, whose text the client is told.

Answers to: nothing in Postfix, whose commands talk to one server each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.admin.codec import ANSWER_LIMIT, ControlError, encode_object
from qmqpd_tx.admin.control import Handler
from qmqpd_tx.admin.explaining import RECIPIENTS
from qmqpd_tx.admin.operating import Operations
from qmqpd_tx.interfaces import IFlush, IMailQueue, MessageNotFound, NotEligible, TableError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.offline import Change


class IManaged(Protocol):
    """What of the queue manager is used here."""

    def status(self) -> Any:
        """
        @return: what is in hand now.
        """

    def flush(self) -> None:
        """Try all deferred mail now."""

    def deliver_now(self, queue_id: QueueID) -> Deferred[bool]:
        """Try one deferred message now."""

    def explain(self, queue_id: QueueID, limit: int) -> Deferred[Any]:
        """Say what a message is waiting for."""

    def hold(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """Keep a message from being delivered."""

    def release(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """Let it be delivered again."""

    def requeue(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """Hand it over again."""

    def delete(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """Remove it."""


def commands(manager: IManaged, queue: IMailQueue, flush: IFlush, clock: IReactorTime) -> dict[str, Handler]:
    """
    @param manager: the queue manager.
    @param queue: the store.
    @param flush: the fast flush service.
    @param clock: for time limits.
    @return: the handlers, by the names of their commands.
    """
    actions = {
        Change.HOLD: manager.hold,
        Change.RELEASE: manager.release,
        Change.REQUEUE: manager.requeue,
        Change.DELETE: manager.delete,
    }
    operations = Operations(actions, queue, clock)

    async def flush_site(site: str) -> int:
        try:
            count: int = await flush.flush_site(site)
        except NotEligible as problem:
            raise ControlError(str(problem)) from problem
        except TableError as problem:
            raise ControlError(f"Cannot flush mail queue - fast_flush_domains: {problem}") from problem
        return count

    return {
        "status": lambda _request: manager.status(),
        "flush": lambda _request: manager.flush(),
        "deliver_now": lambda request: manager.deliver_now(_queue_id(request)),
        "explain": lambda request: manager.explain(_queue_id(request), RECIPIENTS).addCallback(_fitting),
        "flush_site": lambda request: Deferred.fromCoroutine(flush_site(_text(request, "site"))),
        **operations.handlers(),
    }


def _fitting(explained: Any) -> Any:
    """
    @return: an explanation of as many recipients as an answer has room for. Addresses are as long as senders
        make them, and reasons as destinations make them.
    """
    while len(encode_object({"ok": True, "result": explained})) > ANSWER_LIMIT and explained.recipients:
        some = explained.recipients[: len(explained.recipients) // 2]
        explained = evolve(explained, recipients=some, more=True)
    return explained


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise ControlError(f"{name} is missing")
    return value


def _queue_id(request: Mapping[str, Any]) -> QueueID:
    name = _text(request, "queue_id")
    if not queueid.valid(name):
        raise MessageNotFound(f"{name[:100]}: no such message: this cannot be a queue id")
    return name
