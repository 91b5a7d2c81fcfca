"""
Why is this message still here, and until when?

Takes a queue id, gives an L{Explanation}: for each recipient that is not done its destination, its last
status, and what it waits for now. Looks and changes nothing: not the queue, nor what is scheduled. Costs
what the message has, up to a limit of recipients; nothing is linear in the number of messages. Durable
state is read, never written; a message that cannot be read is explained as far as it goes. Answers to
nothing in Postfix: there, it takes postqueue, qshape, the log and a person.

An explanation is of a moment. What is said of another message, whose turn is before this one's, is gone
when that one is delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.interfaces import IMailQueue, IStoredMessage, MessageNotFound, SpoolError
from qmqpd_tx.message import Queue, QueueID, Recipient, RecipientSlice, Route
from qmqpd_tx.qmgr.chores import Chores
from qmqpd_tx.qmgr.deliver import Deliveries
from qmqpd_tx.qmgr.explanation import Explanation, LastStatus, Reason, RecipientExplanation, Waiting
from qmqpd_tx.qmgr.job import ActiveQueue, Job
from qmqpd_tx.qmgr.routes import Routes
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.waits import Waits, job_waits
from qmqpd_tx.status import Outcome

LIMIT: Final = 1000
"""How many recipients are explained if nothing else is said."""

_STATUS_LIMIT: Final = 20000
"""
The last status is looked up for messages with up to so many recipients, because the log is read as a whole.
"""


class RememberedStatus(Protocol):
    """What is remembered of a recipient that waits."""

    @property
    def address(self) -> bytes:
        """Where it was to be delivered to."""

    @property
    def original(self) -> bytes:
        """As the client sent it."""

    @property
    def dsn(self) -> str:
        """The RFC 3463 code."""

    @property
    def text(self) -> str:
        """The reason."""

    @property
    def relay(self) -> str:
        """C{host[address]:port}, C{local} or C{none}."""


Remembered = Callable[[QueueID], Any]
"""Gives an awaitable of the L{RememberedStatus} of a message's waiting recipients."""

_Statuses = Mapping[tuple[bytes, bytes], LastStatus]


class Explainer:
    """Explains messages."""

    def __init__(
        self,
        *,
        queue: IMailQueue,
        clock: IReactorTime,
        routes: Routes,
        active: ActiveQueue,
        chores: Chores,
        scheduler: IQueueScheduler,
        deliveries: Deliveries,
        waits: Waits,
        remembered: Remembered | None,
    ) -> None:
        """
        @param queue: the store.
        @param routes: says where those would go that are not active.
        @param active: the active messages.
        @param chores: limits how long anything is waited for.
        @param scheduler: knows what waits.
        @param deliveries: knows what is under way.
        @param waits: says what for.
        @param remembered: tells the last statuses of a message.
        """
        self._queue = queue
        self._clock = clock
        self._routes = routes
        self._active = active
        self._chores = chores
        self._scheduler = scheduler
        self._deliveries = deliveries
        self._waits = waits
        self._remembered = remembered

    async def explain(self, queue_id: QueueID, limit: int = LIMIT) -> Explanation:
        """
        @param limit: how many recipients to explain, at least 1.
        @raise MessageNotFound: there is no such message.
        @raise SpoolError: it cannot be read.
        """
        limit = max(1, limit)
        for _ in range(3):
            job = self._active.jobs.get(queue_id)
            if job is not None:
                return await self._explain_active(job, limit)
            located: Deferred[Queue | None] = self._queue.locate(queue_id)
            where = await self._chores.limited(queue_id, "locate", located)
            if where is None:
                break
            try:
                opened: Deferred[IStoredMessage] = self._queue.open(queue_id, where)
                message = await self._chores.limited(queue_id, "open", opened)
            except MessageNotFound:
                # It moves while we look.
                continue
            try:
                return await self._explain_stored(message, where, limit)
            finally:
                message.close()
        raise MessageNotFound(f"{queue_id}: there is no such message")

    # --- active --------------------------------------------------------------------------------------

    async def _explain_active(self, job: Job, limit: int) -> Explanation:
        message = job.message
        statuses = await self._statuses(job.queue_id, message.recipient_count)
        now = self._clock.seconds()
        waits: dict[int, tuple[str, str, Waiting]] = {}
        for entry, delivery in self._deliveries.under_way.items():
            if entry.job is job:
                waiting = Waiting(Reason.DELIVERING, "being delivered", since=delivery.started)
                for recipient in entry.recipients:
                    waits[recipient.position] = (entry.destination.transport, entry.nexthop, waiting)
        for held in self._scheduler.waiting(job, now):
            waiting = self._waits.scheduled(held)
            for recipient in held.entry.recipients:
                waits[recipient.position] = (held.entry.destination.transport, held.entry.nexthop, waiting)
        found: list[RecipientExplanation] = []
        routing = Waiting(Reason.ROUTING, "its destination is being looked up")
        for position, recipient in sorted(job.todo.items())[:limit]:
            transport, nexthop, waiting = waits.get(position, (None, None, routing))
            last = statuses.get((recipient.address, recipient.original))
            found.append(
                RecipientExplanation(
                    recipient.address, recipient.original, transport, nexthop, last, None, [waiting]
                )
            )
        more = len(job.todo) > limit
        for outcome in job.deferred[: limit - len(found)]:
            found.append(_tried(outcome))
        more = more or len(job.todo) + len(job.deferred) > limit
        position_read = job.next_position
        if position_read is not None and len(found) < limit:
            unread = self._waits.unread()
            rest: RecipientSlice = await message.recipients(position_read, limit - len(found))
            for recipient in rest.recipients:
                last = statuses.get((recipient.address, recipient.original))
                found.append(
                    RecipientExplanation(
                        recipient.address, recipient.original, None, None, last, None, [unread]
                    )
                )
            more = more or rest.next_position is not None
        elif position_read is not None:
            more = True
        return self._whole(message, job.queue, found, more, job_waits(job))

    # --- not active ------------------------------------------------------------------------------------

    async def _explain_stored(self, message: IStoredMessage, where: Queue, limit: int) -> Explanation:
        queue_id: QueueID = message.queue_id
        statuses = await self._statuses(queue_id, message.recipient_count)
        found: RecipientSlice = await message.recipients(None, limit)
        waits, attempt = self._waits.stored(queue_id, where)
        explained = [
            await self._explain_one(message, recipient, statuses, attempt, waits)
            for recipient in found.recipients
        ]
        return self._whole(message, where, explained, found.next_position is not None, waits)

    async def _explain_one(
        self,
        message: IStoredMessage,
        recipient: Recipient,
        statuses: _Statuses,
        attempt: float | None,
        waits: Sequence[Waiting],
    ) -> RecipientExplanation:
        route = await self._route(message, recipient)
        last = statuses.get((recipient.address, recipient.original))
        if route is None:
            return RecipientExplanation(
                recipient.address, recipient.original, None, None, last, attempt, waits
            )
        if last is None:
            last = statuses.get((route.recipient, recipient.original))
        more = self._waits.destination(route)
        return RecipientExplanation(
            route.recipient,
            recipient.original,
            route.transport,
            route.nexthop,
            last,
            attempt,
            [*waits, *more],
        )

    async def _route(self, message: IStoredMessage, recipient: Recipient) -> Route | None:
        try:
            route = self._routes.resolve(message.envelope, recipient.address)
            if isinstance(route, Deferred):
                route = await self._chores.limited(message.queue_id, "resolve", route)
        except Exception:
            # It would be deferred for that; the log will say why.
            return None
        return route

    # --- both ----------------------------------------------------------------------------------------

    async def _statuses(self, queue_id: QueueID, count: int) -> _Statuses:
        """The last status by address and original address, as far as it is remembered."""
        if self._remembered is None or count > _STATUS_LIMIT:
            return {}
        try:
            known: Iterable[RememberedStatus] = await self._remembered(queue_id)
        except SpoolError:
            return {}
        return {(each.address, each.original): LastStatus(each.dsn, each.text, each.relay) for each in known}

    def _whole(
        self,
        message: IStoredMessage,
        where: Queue,
        recipients: Sequence[RecipientExplanation],
        more: bool,
        waits: Sequence[Waiting],
    ) -> Explanation:
        return Explanation(
            queue_id=message.queue_id,
            queue=where,
            sender=message.envelope.sender,
            size=message.size,
            arrival_time=message.envelope.arrival_time,
            recipient_count=message.recipient_count,
            recipients=recipients,
            more=more,
            waits=waits,
        )


def _tried(outcome: Outcome) -> RecipientExplanation:
    recipient = outcome.recipient
    waiting = Waiting(Reason.OTHERS, "it was tried; the message is deferred when the others were tried, too")
    last = LastStatus(outcome.dsn, outcome.text, outcome.relay)
    return RecipientExplanation(recipient.address, recipient.original, None, None, last, None, [waiting])
