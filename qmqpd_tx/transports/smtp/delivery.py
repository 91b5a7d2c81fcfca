"""
One delivery request: which connection, which host next, and what becomes of each recipient.

Tries a waiting connection first, then the hosts of the nexthop in order. A host that cannot be reached,
does not want to talk, answers 4xx at any stage, or is lost, leaves the recipients it did not settle to
the next host, up to C{smtp_mx_session_limit} sessions; with the last host the recipients are deferred in
its words. 5xx settles a recipient at once. A waiting connection that turns out dead before MAIL is
answered counts for nothing: the message cannot have been taken, and a fresh one is tried. Never raises
for what a server or the DNS does. Answers to smtp(8).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from qmqpd_tx.address.smtputf8 import needs_smtputf8
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import DeliveryRequest, SpoolError
from qmqpd_tx.message import SMTPUTF8, Recipient
from qmqpd_tx.status import Action, DeliveryReport, DestinationFailure, Outcome
from qmqpd_tx.transports.smtp.addresses import BadAddress, orcpt_parameter, wire_address
from qmqpd_tx.transports.smtp.connection import SMTPConnection
from qmqpd_tx.transports.smtp.content import content_for
from qmqpd_tx.transports.smtp.conversation import Stage, Transaction
from qmqpd_tx.transports.smtp.nexthop import BadNexthop, Target, parse_nexthop
from qmqpd_tx.transports.smtp.outcomes import Verdict, refused, verdicts
from qmqpd_tx.transports.smtp.pool import ConnectionPool
from qmqpd_tx.transports.smtp.resolve import Host, HostFinder, Unresolved
from qmqpd_tx.transports.smtp.settings import Settings

log = Logger(namespace="qmqpd_tx.smtp")

Connect = Callable[[Host], Awaitable[SMTPConnection]]
"""Opens a TCP connection; fails with what L{twisted.internet.error} has."""


def connect_error_text(failure: BaseException) -> str:
    """
    @return: why a connection could not be made, in the operating system's words.
    """
    if isinstance(failure, error.TimeoutError):
        return os.strerror(errno.ETIMEDOUT)
    os_error = getattr(failure, "osError", None)
    number = getattr(os_error, "errno", None) or getattr(failure, "errno", None)
    if isinstance(number, int):
        return os.strerror(number)
    if isinstance(failure, error.ConnectionRefusedError):
        return os.strerror(errno.ECONNREFUSED)
    return str(failure) or type(failure).__name__


class Delivery:
    """The course of one delivery request."""

    __slots__ = (
        "_clock",
        "_connect",
        "_failure",
        "_finder",
        "_had_session",
        "_outcomes",
        "_paths",
        "_pool",
        "_remaining",
        "_request",
        "_sender",
        "_settings",
        "_setup_seconds",
        "_tried",
        "_uses",
    )

    def __init__(
        self,
        request: DeliveryRequest,
        *,
        settings: Settings,
        clock: IReactorTime,
        pool: ConnectionPool,
        finder: HostFinder,
        connect: Connect,
    ) -> None:
        """
        @param request: what to deliver where.
        @param settings: the transport's.
        @param clock: for delays.
        @param pool: connections that wait.
        @param finder: finds hosts.
        @param connect: opens connections.
        """
        self._request = request
        self._settings = settings
        self._clock = clock
        self._pool = pool
        self._finder = finder
        self._connect = connect
        self._outcomes: list[Outcome] = []
        self._remaining: list[Recipient] = []
        self._paths: dict[Recipient, bytes] = {}
        self._sender = b""
        self._had_session = False
        self._setup_seconds = 0.0
        self._uses = 1
        self._failure: DestinationFailure | None = None
        self._tried = ""

    async def run(self) -> DeliveryReport:
        """
        @return: exactly one outcome for each recipient.
        """
        try:
            if self._check_addresses():
                await self._reuse()
                if self._remaining:
                    await self._fresh()
        except CancelledError:
            pass
        except SpoolError as problem:
            log.error("{queue_id}: {reason}", queue_id=self._request.queue_id, reason=str(problem))
            self._settle_all(
                Verdict(Action.DEFERRED, "4.3.0", "error reading the message from the queue"), "none", None
            )
        if self._remaining:
            self._settle_all(Verdict(Action.DEFERRED, "4.3.2", "delivery was interrupted"), "none", None)
        return DeliveryReport(self._outcomes, self._failure, self._setup_seconds, self._uses)

    # --- addresses --------------------------------------------------------------------------------

    def _check_addresses(self) -> bool:
        """Nothing that could be taken for another command, or for the end of one, reaches the wire."""
        quote = self._settings.quote_envelope
        request = self._request
        self._remaining = list(request.recipients)
        try:
            self._sender = wire_address(request.sender, quote)
        except BadAddress as problem:
            self._settle_all(Verdict(Action.BOUNCED, "5.1.7", f"bad sender address: {problem}"), "none", None)
            return False
        paths = self._paths
        try:
            for recipient in request.recipients:
                paths[recipient] = wire_address(recipient.address, quote)
        except BadAddress:
            self._remaining = [r for r in request.recipients if self._good(r, quote)]
        return bool(self._remaining)

    def _good(self, recipient: Recipient, quote: bool) -> bool:
        try:
            self._paths[recipient] = wire_address(recipient.address, quote)
        except BadAddress as problem:
            verdict = Verdict(Action.BOUNCED, "5.1.3", f"bad recipient address: {problem}")
            self._settle(recipient, verdict, "none", None)
            return False
        return True

    # --- outcomes ---------------------------------------------------------------------------------

    def _settle(self, recipient: Recipient, verdict: Verdict, relay: str, remote_mta: str | None) -> None:
        self._outcomes.append(
            Outcome(
                recipient,
                verdict.action,
                verdict.dsn,
                verdict.text,
                relay,
                remote_mta if verdict.diagnostic is not None else None,
                verdict.diagnostic,
            )
        )

    def _settle_all(self, verdict: Verdict, relay: str, remote_mta: str | None) -> None:
        remaining, self._remaining = self._remaining, []
        for recipient in remaining:
            self._settle(recipient, verdict, relay, remote_mta)

    # --- hosts ------------------------------------------------------------------------------------

    async def _reuse(self) -> None:
        nexthop = self._request.nexthop
        while True:
            connection = self._pool.take(nexthop)
            if connection is None:
                return
            last = not connection.others or self._settings.mx_session_limit == 1
            if not await self._session(connection, last=last, fresh=False):
                continue
            self._tried = connection.address
            return

    async def _fresh(self) -> None:
        """The targets of the nexthop in order, then the fallback relays, host by host."""
        try:
            targets = list(self._targets())
        except BadNexthop as problem:
            self._settle_all(Verdict(Action.DEFERRED, "4.3.5", str(problem)), "none", None)
            return
        for number, target in enumerate(targets):
            last_target = number == len(targets) - 1
            begun = self._clock.seconds()
            try:
                hosts = await self._finder.find(target)
            except Unresolved as problem:
                self._setup_seconds += self._clock.seconds() - begun
                if last_target:
                    action = Action.BOUNCED if problem.permanent else Action.DEFERRED
                    self._destination_failed(Verdict(action, problem.dsn, problem.text), "none", None)
                    return
                self._note(problem.text)
                continue
            self._setup_seconds += self._clock.seconds() - begun
            if self._tried and len(hosts) > 1:
                hosts = [host for host in hosts if host.address != self._tried] or hosts
            if await self._hosts(hosts, last_target, 1 if self._tried and not number else 0):
                return

    async def _hosts(self, hosts: Sequence[Host], last_target: bool, sessions: int) -> bool:
        """
        @param sessions: how many of the C{smtp_mx_session_limit} are used up.
        @return: whether all recipients are settled.
        """
        limit = self._settings.mx_session_limit
        for index, host in enumerate(hosts):
            last = last_target and index == len(hosts) - 1
            last_session = last or (last_target and sessions + 1 == limit)
            sessions += await self._try(host, last, last_session)
            if not self._remaining:
                return True
            if sessions == limit and limit:
                break
        return False

    def _targets(self) -> Iterator[Target]:
        port = self._settings.tcp_port
        yield from parse_nexthop(self._request.nexthop, port)
        for word in self._settings.fallback_relay:
            yield from parse_nexthop(word, port)

    def _note(self, text: str) -> None:
        log.info("{queue_id}: {reason}", queue_id=self._request.queue_id, reason=text)

    def _destination_failed(self, verdict: Verdict, relay: str, remote_mta: str | None) -> None:
        """The last host could not be reached or greeted, and there is no other."""
        if verdict.action is Action.DEFERRED and not self._had_session:
            self._failure = DestinationFailure(verdict.dsn, verdict.text)
        self._settle_all(verdict, relay, remote_mta)

    async def _try(self, host: Host, last: bool, last_session: bool) -> bool:
        """@return: whether there was a session: whether the handshake was completed."""
        begun = self._clock.seconds()
        label = f"{host.name}[{host.address}]"
        try:
            connection = await self._connect(host)
        except CancelledError:
            raise
        except Exception as failure:
            self._setup_seconds += self._clock.seconds() - begun
            text = f"connect to {label}:{host.port}: {connect_error_text(failure)}"
            log.info("{reason}", reason=text, queue_id=self._request.queue_id)
            if last:
                self._destination_failed(Verdict(Action.DEFERRED, "4.4.1", text), "none", None)
            return False
        await connection.handshake()
        self._setup_seconds += self._clock.seconds() - begun
        verdict: Verdict | None = None
        refusal = connection.conversation.refusal
        if refusal is not None:
            verdict = refused(
                refusal,
                connection.label,
                greeting=connection.conversation.stage is Stage.GREETING,
                skip_5xx_greeting=self._settings.skip_5xx_greeting,
            )
            connection.quit()
        elif connection.loss is not None:
            if connection.loss.interrupted:
                raise CancelledError
            verdict = connection.loss.verdict(connection.label)
        if verdict is None:
            connection.others = not last
            await self._session(connection, last=last_session, fresh=True)
            return True
        if last or verdict.action is Action.BOUNCED:
            self._destination_failed(verdict, connection.relay, connection.name)
        else:
            self._note(verdict.text)
        return False

    # --- one session ------------------------------------------------------------------------------

    async def _session(self, connection: SMTPConnection, *, last: bool, fresh: bool) -> bool:
        """
        Try the remaining recipients over one connection.

        @return: L{False} when a waiting connection was dead before MAIL was answered.
        """
        request, settings = self._request, self._settings
        conversation = connection.conversation
        recipients = self._remaining
        internationalized = self._internationalized(recipients)
        if internationalized and not conversation.smtputf8:
            text = f"SMTPUTF8 is required, but was not offered by host {connection.label}"
            self._settle_all(Verdict(Action.BOUNCED, "5.6.7", text), connection.relay, connection.name)
            self._pool.release(connection, request.nexthop)
            return True
        downgrade = not conversation.eight_bit_mime and not settings.disable_mime_output_conversion
        content, size = await content_for(request.content, settings.line_length_limit, downgrade)
        limit = conversation.size_limit
        if limit and size > limit:
            text = f"message size {size} exceeds size limit {limit} of server {connection.label}"
            self._settle_all(Verdict(Action.BOUNCED, "5.3.4", text), connection.relay, connection.name)
            self._pool.release(connection, request.nexthop)
            return True
        transaction = self._transaction(connection, recipients, size, internationalized)
        garbage = conversation.garbage
        await connection.transact(transaction, content)
        loss = connection.loss
        mail = transaction.mail_reply
        if not fresh and (mail is None or mail.code == 421) and not (loss is not None and loss.interrupted):
            connection.quit()
            return False
        self._had_session = True
        self._uses = connection.uses
        if conversation.garbage != garbage:
            log.warn(
                "{queue_id}: non-ESMTP response from {relay}: {line}",
                queue_id=request.queue_id,
                relay=connection.relay,
                line=conversation.last_garbage.decode("utf-8", "backslashreplace"),
            )
            conversation.reusable = False
        results = verdicts(transaction, loss, connection.label, conversation.garbage != garbage)
        final = last or (loss is not None and loss.interrupted)
        self._apply(connection, recipients, results, final)
        if loss is None:
            self._pool.release(connection, request.nexthop)
        return True

    def _internationalized(self, recipients: Sequence[Recipient]) -> bool:
        """Whether this needs a server with SMTPUTF8."""
        request = self._request
        mark = request.envelope.attributes.get(SMTPUTF8)
        if mark is None or not self._settings.smtputf8:
            return False
        return needs_smtputf8(mark, request.sender, (recipient.address for recipient in recipients))

    def _transaction(
        self, connection: SMTPConnection, recipients: Sequence[Recipient], size: int, internationalized: bool
    ) -> Transaction:
        conversation = connection.conversation
        mail = b"MAIL FROM:<" + self._sender + b">"
        if conversation.size:
            mail += b" SIZE=%d" % size
        if conversation.eight_bit_mime and self._request.envelope.eight_bit:
            mail += b" BODY=8BITMIME"
        if internationalized:
            mail += b" SMTPUTF8"
        paths = self._paths
        if conversation.dsn:
            utf8 = self._settings.smtputf8
            rcpts = [
                b"RCPT TO:<" + paths[recipient] + b">" + orcpt_parameter(recipient.original, utf8) + b"\r\n"
                for recipient in recipients
            ]
        else:
            rcpts = [b"RCPT TO:<" + paths[recipient] + b">\r\n" for recipient in recipients]
        return Transaction(mail + b"\r\n", rcpts)

    def _apply(
        self,
        connection: SMTPConnection,
        recipients: Sequence[Recipient],
        results: Sequence[Verdict],
        final: bool,
    ) -> None:
        self._remaining = []
        relay, name = connection.relay, connection.name
        noted = ""
        for recipient, verdict in zip(recipients, results, strict=True):
            if verdict.action is not Action.DEFERRED or final:
                self._settle(recipient, verdict, relay, name)
            else:
                self._remaining.append(recipient)
                if verdict.text != noted:
                    noted = verdict.text
                    self._note(noted)
