"""
The commands of the control socket: what reaches the services behind them, and what does not.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.admin.codec import ANSWER_LIMIT, ControlError, encode_object
from qmqpd_tx.admin.commands import commands
from qmqpd_tx.interfaces import IFlush, MessageNotFound, NotEligible, TableError
from qmqpd_tx.message import Queue, QueueID
from qmqpd_tx.qmgr.explanation import Explanation, LastStatus, Reason, RecipientExplanation, Waiting


class Manager:
    """
    A queue manager.

    @ivar asked: what it was asked for.
    @ivar explanation: what it answers to C{explain}.
    """

    def __init__(self) -> None:
        self.explanation: Explanation | None = None
        self.asked: list[tuple[str, object]] = []

    def status(self) -> Any:
        """See L{QueueManager.status}."""
        return {"messages": []}

    def flush(self) -> None:
        """See L{QueueManager.flush}."""
        self.asked.append(("flush", None))

    def _ask(self, name: str, queue_id: QueueID) -> Deferred[Any]:
        self.asked.append((name, queue_id))
        return succeed(None)

    def deliver_now(self, queue_id: QueueID) -> Deferred[None]:
        """See L{QueueManager.deliver_now}."""
        return self._ask("deliver_now", queue_id)

    def explain(self, queue_id: QueueID, limit: int) -> Deferred[Any]:
        """See L{QueueManager.explain}."""
        return self._ask("explain", queue_id).addCallback(lambda _: self.explanation)

    def hold(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """See L{QueueManager.hold}."""
        return self._ask("hold", queue_id)

    def release(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """See L{QueueManager.release}."""
        return self._ask("release", queue_id)

    def requeue(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """See L{QueueManager.requeue}."""
        return self._ask("requeue", queue_id)

    def delete(self, queue_id: QueueID, queue: Queue | None = None) -> Deferred[None]:
        """See L{QueueManager.delete}."""
        return self._ask("delete", queue_id)


@implementer(IFlush)
class Flush:
    """A flush service that knows one site."""

    def deferred(self, queue_id: QueueID, recipients: Any) -> None:
        """See L{IFlush.deferred}."""

    def flush_site(self, site: str) -> Deferred[int]:
        """See L{IFlush.flush_site}."""
        if site == "who.test":
            return fail(TableError("pgsql:/x: no server"))
        if site != "dst.test":
            return fail(NotEligible(f"not configured for {site}"))
        return succeed(3)

    def refresh(self) -> Deferred[int]:
        """See L{IFlush.refresh}."""
        return succeed(0)


class CommandTests(SynchronousTestCase):
    """Each command."""

    def setUp(self) -> None:
        self.manager = Manager()
        queue: Any = None
        self.handlers = commands(self.manager, queue, Flush(), Clock())

    def test_one_message(self) -> None:
        """A queue id reaches the queue manager; what cannot be one does not."""
        for name in ("deliver_now", "explain"):
            self.successResultOf(self.handlers[name]({"queue_id": "316BTD3SSHJ"}))
            self.assertEqual(self.manager.asked.pop(), (name, "316BTD3SSHJ"))
            for queue_id in ("../../etc/passwd", "NOSUCH", "", "316BTD3SSHJ\n", "A" * 100000):
                problem = self.assertRaises(MessageNotFound, self.handlers[name], {"queue_id": queue_id})
                self.assertLess(len(str(problem)), 200)
            for request in ({}, {"queue_id": None}, {"queue_id": ["316BTD3SSHJ"]}):
                self.assertRaises(ControlError, self.handlers[name], request)
        self.assertEqual(self.manager.asked, [])

    def test_explain_what_is_too_long(self) -> None:
        """
        Long addresses and the long reason of a destination make an answer shorter, and not an internal error.
        """
        address, reason = "\u00e9".encode() * 450 + b"@dst.test", "\u0100" * 1000
        waits = [Waiting(Reason.DEAD_DESTINATION, reason)] * 2
        one = RecipientExplanation(
            address, address, "smtp", "dst.test", LastStatus("4.4.1", reason, "none"), 1.0, waits
        )
        whole = Explanation("316BTD3SSHJ", Queue.DEFERRED, b"", 1, 1.0, 1000, [one] * 1000, False, waits)
        self.manager.explanation = whole
        told = self.successResultOf(self.handlers["explain"]({"queue_id": "316BTD3SSHJ"}))
        self.assertLess(len(encode_object({"ok": True, "result": told})), ANSWER_LIMIT)
        self.assertEqual((len(told.recipients), told.more, told.recipient_count), (500, True, 1000))
        self.manager.explanation = small = evolve(whole, recipients=[one] * 10)
        self.assertIs(self.successResultOf(self.handlers["explain"]({"queue_id": "316BTD3SSHJ"})), small)

    def test_all(self) -> None:
        """A flush, and the status."""
        self.handlers["flush"]({})
        self.assertEqual(self.manager.asked, [("flush", None)])
        self.assertEqual(self.handlers["status"]({}), {"messages": []})

    def test_site(self) -> None:
        """A site that is not served is the client's error, with its reason."""
        self.assertEqual(self.successResultOf(self.handlers["flush_site"]({"site": "dst.test"})), 3)
        failure = self.failureResultOf(self.handlers["flush_site"]({"site": "x"}), ControlError)
        self.assertEqual(failure.getErrorMessage(), "not configured for x")
        self.assertRaises(ControlError, self.handlers["flush_site"], {})
        failure = self.failureResultOf(self.handlers["flush_site"]({"site": "who.test"}), ControlError)
        self.assertEqual(
            failure.getErrorMessage(),
            "Cannot flush mail queue - fast_flush_domains: pgsql:/x: no server",
        )

    def test_changes(self) -> None:
        """Each change is its method."""
        for change in ("hold", "release", "requeue", "delete"):
            task = self.handlers["change"]({"change": change, "queue_ids": ["316BTD3SSHJ"], "queues": None})
            told = self.successResultOf(self.handlers["progress"]({"task": task}))
            self.assertEqual((told["done"], told["finished"]), (["316BTD3SSHJ"], True))
            self.assertEqual(self.manager.asked.pop(), (change, "316BTD3SSHJ"))
