"""
What the queue manager needs around it, without a network: transports that do as they are told, a router,
a bounce service that remembers, and a post office that puts messages into the queue.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import (
    DeliveryRequest,
    IBounces,
    IDeliveryTransport,
    IRouter,
    IStoredMessage,
    SpoolError,
)
from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient, Route
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.status import Action, DeliveryReport, DestinationFailure, Outcome

Script = Callable[[DeliveryRequest], Any]

START = 1_700_000_000.0


def sent(request: DeliveryRequest) -> DeliveryReport:
    """Everybody gets it."""
    return DeliveryReport(
        [Outcome(r, Action.SENT, "2.0.0", "250 2.0.0 Ok", "sink[127.0.0.1]:25") for r in request.recipients]
    )


def deferred(request: DeliveryRequest) -> DeliveryReport:
    """The server answers 4xx to everybody."""
    return DeliveryReport(
        [Outcome(r, Action.DEFERRED, "4.2.1", "host sink said: 450 4.2.1 busy") for r in request.recipients]
    )


def bounced(request: DeliveryRequest) -> DeliveryReport:
    """The server answers 5xx to everybody."""
    return DeliveryReport(
        [Outcome(r, Action.BOUNCED, "5.1.1", "host sink said: 550 5.1.1 who?") for r in request.recipients]
    )


def refused(request: DeliveryRequest) -> DeliveryReport:
    """Nobody listens."""
    text = "connect to 127.0.0.1[127.0.0.1]:25: Connection refused"
    return DeliveryReport(
        [Outcome(r, Action.DEFERRED, "4.4.1", text) for r in request.recipients],
        destination_failure=DestinationFailure("4.4.1", text),
    )


def hangs(request: DeliveryRequest) -> Deferred[DeliveryReport]:
    """The server never answers."""
    return Deferred()


@implementer(IDeliveryTransport)
class ScriptedTransport:
    """
    A transport that does what its script says, and remembers what it was asked.

    @ivar script: gives the answer to a request: a report, a Deferred, or an exception.
    @ivar requests: what it was asked.
    """

    def __init__(self, script: Script = sent, program: str = "smtp") -> None:
        self.script = script
        self.program = program
        self.requests: list[DeliveryRequest] = []
        self.waiting: list[tuple[DeliveryRequest, Deferred[DeliveryReport]]] = []

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """Follow the script."""
        self.requests.append(request)
        answer = self.script(request)
        if isinstance(answer, Deferred):
            self.waiting.append((request, answer))
            return answer
        return succeed(answer)

    def stop(self) -> Deferred[None]:
        """Nothing to close."""
        return succeed(None)

    def delivered(self) -> list[bytes]:
        """Who was tried, in order."""
        return [recipient.address for request in self.requests for recipient in request.recipients]


@implementer(IRouter)
class ScriptedRouter:
    """Routes C{user@domain} to C{smtp:domain}, unless the domain has a route of its own."""

    def __init__(self) -> None:
        self.routes: dict[bytes, Callable[[bytes], Any]] = {}

    def resolve(self, sender: bytes, recipient: bytes) -> Any:
        """Look up the domain."""
        domain = recipient.rpartition(b"@")[2]
        route = self.routes.get(domain)
        if route is not None:
            return route(recipient)
        return Route("smtp", domain.decode("latin-1"), recipient)


@implementer(IBounces)
class ScriptedBounces:
    """
    A bounce service that remembers in memory.

    @ivar log: bounce records by message.
    @ivar waiting: defer records by message.
    @ivar notices: what senders were told.
    @ivar late: whom it was confirmed about that they got it after all.
    @ivar confirms: whether it wants to know.
    @ivar broken: the operations that fail.
    @ivar hanging: the operations that do not answer.
    @ivar asked: what they were asked for.
    @ivar story: what was asked, in order.
    """

    def __init__(self) -> None:
        self.late: list[bytes] = []
        self.confirms = False
        self.hanging: set[str] = set()
        self.asked: list[Deferred[None]] = []
        self.log: dict[QueueID, list[Outcome]] = {}
        self.waiting: dict[QueueID, list[Outcome]] = {}
        self.notices: list[tuple[bytes, list[Outcome]]] = []
        self.broken: set[str] = set()
        self.story: list[str] = []

    def bounced(self, message: Any, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """Remember."""
        if waiting := self._begin("bounced"):
            return waiting
        self.log.setdefault(message.queue_id, []).extend(outcomes)
        return succeed(None)

    def deferred(self, message: Any, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """Remember."""
        if waiting := self._begin("deferred"):
            return waiting
        self.waiting.setdefault(message.queue_id, []).extend(outcomes)
        return succeed(None)

    def notify(self, message: Any) -> Deferred[None]:
        """Tell the sender."""
        if waiting := self._begin("notify"):
            return waiting
        failed = self.log.pop(message.queue_id, None)
        if failed:
            self.notices.append((message.envelope.sender, failed))
        return succeed(None)

    def forget(self, queue_id: QueueID) -> Deferred[None]:
        """Drop the logs."""
        if waiting := self._begin("forget"):
            return waiting
        self.log.pop(queue_id, None)
        self.waiting.pop(queue_id, None)
        return succeed(None)

    def delayed(self, message: Any) -> Deferred[QueueID | None]:
        """Warn the sender, or not."""
        return self._begin("delayed") or succeed(None)

    def delivered(self, message: Any, outcomes: Sequence[Outcome]) -> Deferred[None]:
        """Remember."""
        self.late += [outcome.recipient.address for outcome in outcomes]
        return self._begin("delivered") or succeed(None)

    def _begin(self, operation: str) -> Deferred[Any] | None:
        self.story.append(operation)
        if operation in self.broken:
            raise SpoolError(f"{operation}: disk full")
        if operation in self.hanging:
            self.asked.append(Deferred())
            return self.asked[-1]
        return None


class FlakyMailQueue(MemoryMailQueue):
    """
    The in-memory store, whose operations can be made to fail.

    @ivar broken: the names of the operations that fail.
    @ivar story: what was asked, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.story: list[str] = []

    def _step(self, name: str, queue_id: QueueID) -> Deferred[Any] | None:
        self.story.append(name)
        if name in self.broken:
            failed: Deferred[Any] = Deferred()
            failed.errback(SpoolError(f"{queue_id}: {name}: input/output error"))
            return failed
        return None

    def open(self, queue_id: QueueID, queue: Queue) -> Deferred[Any]:
        """Open, or not."""
        return self._step("open", queue_id) or super().open(queue_id, queue)

    def mark(self, message: Any, recipients: Sequence[Recipient], state: Any) -> Deferred[None]:
        """Mark, or not."""
        return self._step("mark", message.queue_id) or super().mark(message, recipients, state)

    def move(
        self, queue_id: QueueID, source: Queue, target: Queue, due: float | None = None
    ) -> Deferred[None]:
        """Move, or not."""
        return self._step(f"move to {target.value}", queue_id) or super().move(queue_id, source, target, due)

    def remove(self, queue_id: QueueID, queue: Queue) -> Deferred[None]:
        """Remove, or not."""
        return self._step("remove", queue_id) or super().remove(queue_id, queue)


class QueueManagerTestCase(SynchronousTestCase):
    """A queue manager in its world, on a clock."""

    config = ""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.queue = FlakyMailQueue()
        self.successResultOf(self.queue.start())
        self.router = ScriptedRouter()
        self.smtp = ScriptedTransport()
        self.transports: dict[str, ScriptedTransport] = {"smtp": self.smtp}
        self.bounces = ScriptedBounces()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.manager = self.make_manager()
        self.manager.startService()
        self.addCleanup(self.stop)
        self.run_turns()

    def make_manager(self) -> QueueManager:
        """A new one over the same queue, as after a restart."""
        text = "myorigin = origin.test\nmyhostname = host.test\n" + self.config
        return QueueManager(
            config=config_from_text(text),
            clock=self.clock,
            queue=self.queue,
            router=self.router,
            transports=self.transports,
            bounces=self.bounces,
            random=random.Random(1),
            **self.more(),
        )

    def more(self) -> dict[str, Any]:
        """What else the queue manager is given."""
        return {}

    def stop(self) -> None:
        """Stop, and see that nothing is left behind."""
        if self.manager.running:
            stopped = self.manager.stopService()
            self.clock.pump([5.0, 5.0, 5.0])
            self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_turns(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(2000):
            due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
            if not due:
                return
            self.clock.advance(0)
        self.fail("it does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass in steps, as it does."""
        end = self.clock.seconds() + seconds
        while True:
            calls = [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end]
            if not calls:
                break
            self.clock.advance(max(0.0, min(calls) - self.clock.seconds()))
            self.run_turns()
        self.clock.advance(end - self.clock.seconds())
        self.run_turns()

    def message(
        self,
        *recipients: str | tuple[str, str],
        sender: bytes = b"sender@src.test",
        age: float = 0.0,
        verp: bytes | None = None,
    ) -> IStoredMessage:
        """Commit a message."""
        arrival = self.clock.seconds() - age
        writer = self.queue.create(arrival)
        writer.write(b"Subject: hi\n\nhello\n")
        writer.envelope(Envelope(sender, arrival, verp_delimiters=verp), b"")
        for recipient in recipients:
            address, original = recipient if isinstance(recipient, tuple) else (recipient, recipient)
            writer.recipient(address.encode(), original.encode())
        message: IStoredMessage = self.successResultOf(writer.commit())
        return message

    def send(self, *recipients: str | tuple[str, str], **more: Any) -> QueueID:
        """Commit a message and hand it over, as intake does."""
        message = self.message(*recipients, **more)
        queue_id: QueueID = message.queue_id
        self.manager.arrived(message)
        self.run_turns()
        return queue_id

    def where(self, queue_id: QueueID) -> list[Queue]:
        """In which queues a message is."""
        return [
            queue
            for queue in Queue
            if any(e.queue_id == queue_id for e in self.successResultOf(self.queue.scan(queue).next(10**6)))
        ]

    def due(self, queue_id: QueueID) -> float:
        """How long from now until the next attempt."""
        (when,) = (e.due for e in self.queue.due(float("inf"), 10**6) if e.queue_id == queue_id)
        return when - self.clock.seconds()

    def lines(self, queue_id: str = "") -> list[str]:
        """The log without the queue id, with the program where it is not qmgr's own line."""
        lines = []
        for event in self.events:
            if event.get("log_namespace") != "qmqpd_tx.qmgr" or not event["log_format"]:
                continue
            if queue_id and event.get("queue_id") != queue_id:
                continue
            if event["log_level"] is LogLevel.debug:
                continue
            plain = {k: v.decode("latin-1") if isinstance(v, bytes) else v for k, v in event.items()}
            text = formatEvent(plain).replace(f"{event.get('queue_id')}: ", "", 1)
            lines.append(f"{event.get('program', 'qmgr')}: {text}")
        return lines
