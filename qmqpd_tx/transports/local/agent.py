"""
The C{local} delivery agent: mailboxes on this machine.

Takes a delivery request, gives an outcome for each recipient. A recipient is a user of the system
(L{qmqpd_tx.transports.local.users}), found by the local part in lower case without its extension; the
mailbox is a Maildir or an mbox file, in the home directory or the mail spool directory. A recipient
already named in a C{Delivered-To} header is a loop and bounces.

A recipient is reported as sent when its copy is on disk; a crash before the report delivers again, and
nothing is lost. File work happens in the reactor's threads, with the user's rights
(L{qmqpd_tx.transports.local.rights}); a large message passes through in slices, so memory stays
bounded. Trouble with files defers; an unknown user, a loop and a mailbox that is too large bounce.
Answers to local(8), without aliases, C{.forward}, and commands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address import quote_address, split_address, split_extension
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import (
    DeliveryRequest,
    IDeliveryAgent,
    IDeliveryTransport,
    IMessageContent,
    SpoolError,
    TransportContext,
)
from qmqpd_tx.message import Recipient
from qmqpd_tx.status import Action, DeliveryReport, Outcome
from qmqpd_tx.transports.local.failure import MailboxBusy, MailboxFailure
from qmqpd_tx.transports.local.headers import delivered_to, from_line, mailbox_headers
from qmqpd_tx.transports.local.maildir import MaildirDelivery
from qmqpd_tx.transports.local.mbox import MboxDelivery
from qmqpd_tx.transports.local.rights import RightsUnavailable
from qmqpd_tx.transports.local.settings import LocalSettings, local_settings
from qmqpd_tx.transports.local.users import User, UserLookup

log = Logger(namespace="qmqpd_tx.local")

SLICE = 262_144
"""Bytes of content in memory for one delivery under way."""

_REQUIRED = (b"postmaster", b"mailer-daemon", b"double-bounce")
"""Names that every mail system has. Their mail must not bounce, or bounces would go in circles."""

_Delivery = MboxDelivery | MaildirDelivery
_T = TypeVar("_T")


class MailboxTurns:
    """
    Lets one delivery at a time write a mailbox file: fcntl locks do not keep a process from itself.
    """

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    async def run(self, path: str, deliver: Callable[[], Deferred[None]]) -> None:
        """
        Run C{deliver} when it is this path's turn.
        """
        lock = self._locks.setdefault(path, DeferredLock())
        await lock.acquire()
        try:
            await deliver()
        finally:
            lock.release()
            if not lock.locked and not lock.waiting and self._locks.get(path) is lock:
                del self._locks[path]


class _Job:
    """
    One request under way.

    @ivar outcomes: of the recipients done so far.
    @ivar cancelled: whether no further recipient is to be begun.
    """

    def __init__(self, request: DeliveryRequest) -> None:
        self.request = request
        self.outcomes: list[Outcome] = []
        self.cancelled = False
        self._waiting: Deferred[None] | None = None

    async def pause(self, clock: IReactorTime, seconds: float) -> None:
        """
        Wait, but not past a cancellation.

        @raise CancelledError: the job was cancelled.
        """
        self._waiting = deferLater(clock, seconds)
        await self._waiting
        self._waiting = None

    def proceed(self) -> None:
        """
        @raise CancelledError: the job was cancelled.
        """
        if self.cancelled:
            raise CancelledError

    def cancel(self, result: Deferred[DeliveryReport]) -> None:
        """
        Report at once what is certain. A copy that is being written may still arrive; its recipient
        counts as deferred, so that the worst is a second copy.
        """
        self.cancelled = True
        done = {outcome.recipient.position for outcome in self.outcomes}
        rest = [
            Outcome(recipient, Action.DEFERRED, "4.3.2", "delivery was interrupted")
            for recipient in self.request.recipients
            if recipient.position not in done
        ]
        result.callback(DeliveryReport([*self.outcomes, *rest]))
        if self._waiting is not None:
            self._waiting.cancel()


@implementer(IDeliveryTransport)
class LocalTransport:
    """
    @param context: where it runs.
    @param settings: from the context's configuration.
    @param turns: shared by all transports of the process.
    """

    program = "local"

    def __init__(self, context: TransportContext, settings: LocalSettings, turns: MailboxTurns) -> None:
        self._name = context.name
        self._reactor = context.reactor
        self._settings = settings
        self._turns = turns

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        job = _Job(request)
        result: Deferred[DeliveryReport] = Deferred(job.cancel)

        def finished(_: None) -> None:
            if not job.cancelled:
                result.callback(DeliveryReport(job.outcomes))

        def failed(reason: Failure) -> None:
            if job.cancelled and isinstance(reason.value, CancelledError):
                return
            if job.cancelled:
                log.failure(
                    "{queue_id}: interrupted local delivery failed", reason, queue_id=request.queue_id
                )
            else:
                result.errback(reason)

        Deferred.fromCoroutine(self._deliver(job)).addCallbacks(finished, failed)
        return result

    def stop(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    async def _deliver(self, job: _Job) -> None:
        request = job.request
        seen = await delivered_to(request.content)
        for recipient in request.recipients:
            if job.cancelled:
                return
            action, dsn, text = await self._one(job, recipient, seen)
            job.outcomes.append(Outcome(recipient, action, dsn, text, relay=self._name))

    async def _one(self, job: _Job, recipient: Recipient, seen: frozenset[bytes]) -> tuple[Action, str, str]:
        request = job.request
        address = quote_address(recipient.address)
        if address.lower() in seen:
            return Action.BOUNCED, "5.4.6", f"mail forwarding loop for {_text(address)}"
        local, _ = split_address(recipient.address.lower())
        name, _ = split_extension(local, self._settings.delimiters)
        try:
            user = await self._in_thread(lambda: self._settings.find(name))
        except MailboxFailure as failure:
            return Action.DEFERRED, failure.dsn, failure.text
        if user is None:
            if name in _REQUIRED:
                log.warn("required alias not found: {name}", name=name, queue_id=request.queue_id)
                return Action.SENT, "2.0.0", "discarded"
            return Action.BOUNCED, "5.1.1", f'unknown user: "{_text(name)}"'
        try:
            delivery = self._settings.delivery(user, self._reactor.seconds)
            await self._turns.run(
                delivery.path,
                lambda: Deferred.fromCoroutine(self._patiently(delivery, job, recipient)),
            )
        except MailboxFailure as failure:
            self._warn(request, user, failure)
            action = Action.BOUNCED if failure.dsn.startswith("5") else Action.DEFERRED
            return action, failure.dsn, failure.text
        except RightsUnavailable as error:
            return Action.DEFERRED, "4.3.0", f"{error}; run the service as that user"
        except SpoolError as error:
            return Action.DEFERRED, "4.3.0", f"queue file read error: {error}"
        return Action.SENT, "2.0.0", delivery.done

    @staticmethod
    def _warn(request: DeliveryRequest, user: User, failure: MailboxFailure) -> None:
        if isinstance(failure, MailboxBusy):
            return
        log.warn(
            "mailbox access problem for UID/GID={uid}/{gid}: {text}",
            queue_id=request.queue_id,
            uid=user.uid,
            gid=user.gid,
            text=failure.text,
        )

    async def _patiently(self, delivery: _Delivery, job: _Job, recipient: Recipient) -> None:
        """Try again while the mailbox is locked."""
        job.proceed()
        request = job.request
        head = mailbox_headers(request.sender, recipient, self._settings.delivered_to)
        if isinstance(delivery, MboxDelivery):
            head = from_line(request.sender, self._reactor.seconds()) + head
        for attempt in range(self._settings.lock_attempts):
            if attempt:
                await job.pause(self._reactor, self._settings.lock_delay)
            try:
                await self._write(delivery, head, request.content)
            except MailboxBusy as busy:
                last = busy
            else:
                return
        raise last

    async def _write(self, delivery: _Delivery, head: bytes, content: IMessageContent) -> None:
        first = await content.read(0, SLICE)
        if len(first) == content.size:
            await self._in_thread(lambda: _write_whole(delivery, head, first))
            return
        await self._in_thread(delivery.begin)
        try:
            await self._in_thread(lambda: delivery.write(head + first))
            offset = len(first)
            while offset < content.size:
                data = await content.read(offset, SLICE)
                if not data:
                    raise SpoolError(f"content ends at {offset} instead of {content.size}")
                await self._in_thread(partial(delivery.write, data))
                offset += len(data)
            await self._in_thread(delivery.commit)
        except BaseException:
            await self._in_thread(delivery.abort)
            raise

    def _in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


def _write_whole(delivery: _Delivery, head: bytes, data: bytes) -> None:
    delivery.begin()
    try:
        delivery.write(head + data)
        delivery.commit()
    except BaseException:
        delivery.abort()
        raise


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


@implementer(IDeliveryAgent)
class LocalAgent:
    """
    Makes local transports.

    @param system_users: looks up system users; the system's own database when L{None}.
    """

    command = "local"

    def __init__(self, system_users: UserLookup | None = None) -> None:
        self._system_users = system_users
        self._turns = MailboxTurns()

    def transport(self, context: TransportContext) -> LocalTransport:
        return LocalTransport(context, local_settings(context.config, self._system_users), self._turns)
