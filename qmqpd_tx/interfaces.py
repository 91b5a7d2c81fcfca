"""
The contracts between the rooms, and nothing else.

A room imports this module, L{qmqpd_tx.message}, L{qmqpd_tx.status} and libraries; it never imports
another room. L{qmqpd_tx.mailsystem} wires the rooms together. It is long because it is read as one: all that
one room may ask of another.

Conventions:

  - Time is an argument: a service takes C{clock}, an
    L{IReactorTime<twisted.internet.interfaces.IReactorTime>}, and pure code takes C{now}, POSIX
    seconds (C{clock.seconds()}).
  - "Gives a Deferred" means it may fire at once. Everything that may wait for a disk or the network
    gives a Deferred; nothing here blocks the reactor.
  - Each failure that a caller may meet is one of the exceptions below, and says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from zope.interface import Attribute, Interface

from qmqpd_tx.message import Envelope, Queue, QueueID, Recipient

# --- failures ----------------------------------------------------------------------------------------


class ConfigError(Exception):
    """A configuration that cannot be used; the text names file, line, parameter and remedy."""


class IntakeError(Exception):
    """
    A message that cannot be accepted now, or ever.

    @ivar permanent: whether trying the same message again is pointless (C{D} rather than C{Z}).
    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason for the client, in one line of printable ASCII.
    """

    def __init__(self, permanent: bool, dsn: str, text: str) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.dsn = dsn
        self.text = text


class TableError(Exception):
    """
    A lookup table could not say whether it has a key: its server is away, its file is damaged. The text names
    the table and the reason. Mail that depends on it is to be tried again later.
    """


class SpoolError(Exception):
    """The queue store failed; the text names the message and what was being done."""


class InsufficientSpace(SpoolError):
    """The file system of the queue is full, or below C{queue_minfree}; nothing was left behind."""


class CommitAbandoned(SpoolError):
    """A commit was given up before the disk answered; the message does not and will not exist."""


class MessageNotFound(SpoolError):
    """There is no such message in that queue (any more)."""


class MessageUnfinished(SpoolError):
    """The queue file is not complete: still being written, or left behind by a crash."""


class MessageDamaged(SpoolError):
    """
    The queue file is complete by its marks but cannot be understood.

    @ivar offset: the byte offset at which it stopped making sense.
    """

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


class QueueLocked(SpoolError):
    """Another service has this C{queue_directory}; the text names its process id."""


# --- configuration -----------------------------------------------------------------------------------


class IConfig(Interface):
    """
    One immutable configuration. Names are main.cf names, to the letter; an unknown name or the wrong
    accessor for a parameter's type is a programming error and raises L{KeyError} or L{TypeError}.
    """

    def string(name: str) -> str:
        """
        @return: the value with all C{$name} references expanded.
        """

    def integer(name: str) -> int:
        """
        @return: the value of an integer parameter, within its bounds.
        """

    def boolean(name: str) -> bool:
        """
        @return: the value of a yes/no parameter.
        """

    def seconds(name: str) -> float:
        """
        @return: the value of a time parameter, in seconds.
        """

    def words(name: str) -> Sequence[str]:
        """
        @return: the value of a list parameter, split at commas and white space outside C{{ }}.
        """

    def transport_integer(transport: str, suffix: str) -> int:
        """
        @param suffix: as in C{destination_concurrency_limit}.
        @return: C{<transport>_<suffix>} when set, else the value of its default parameter.
        """

    def transport_seconds(transport: str, suffix: str) -> float:
        """
        As L{transport_integer}, for time parameters.
        """

    def transport_string(transport: str, suffix: str) -> str:
        """
        As L{transport_integer}, for other parameters.
        """

    def with_overrides(overrides: Mapping[str, str]) -> Any:
        """
        @param overrides: raw C{name=value} pairs, as from a master.cf C{-o}.
        @return: a new L{IConfig}.
        @raise ConfigError: when a value is bad.
        """


# --- the queue store ---------------------------------------------------------------------------------


class IMessageContent(Interface):
    """The content of a stored message: header and body, lines ending in LF, byte for byte."""

    size = Attribute("L{int}: bytes of content.")
    memo = Attribute(
        "L{dict}: transports keep derived forms here (a message encoded for SMTP), so that one message "
        "is encoded once for all its deliveries; dies with the content."
    )

    def read(offset: int, length: int) -> Any:
        """
        @return: a coroutine giving up to C{length} bytes from C{offset}; C{b""} at the end. It does
            not suspend when the content is in memory. What it gives is never of another message.
        @raise MessageNotFound: the message is gone, or its file holds another message now.
        @raise MessageDamaged: its file was cut or changed behind our back.
        @raise SpoolError: the file cannot be read.
        """


class IStoredMessage(Interface):
    """A committed message, open for delivery."""

    queue_id = Attribute("L{QueueID}")
    envelope = Attribute("L{Envelope}")
    content = Attribute("L{IMessageContent}")
    size = Attribute("L{int}: what Postfix logs as C{size=}: bytes of content with CRLF-free line ends.")
    recipient_count = Attribute("L{int}: all recipients, done or not.")

    def recipients(position: int | None, limit: int) -> Any:
        """
        Read on in the unfinished recipients.

        @param position: L{None} to start, else the C{next_position} of the slice before.
        @return: a coroutine giving a L{RecipientSlice<qmqpd_tx.message.RecipientSlice>}. It does not
            suspend for a message that was just committed and is small.
        @raise MessageNotFound: the message is gone, or its file holds another message now.
        @raise MessageDamaged: naming the offset; or the file was cut or changed behind our back.
        """

    def close() -> None:
        """
        Let go of the file and the memory. Safe to call twice.
        """


class IMessageWriter(Interface):
    """
    One message on its way into the queue: content, then envelope, then recipients, then commit.

    Nothing needs to touch the disk before the message outgrows a small buffer or is committed.
    """

    queue_id = Attribute("L{QueueID}: known from the start, for the Received header.")
    size = Attribute("L{int}: bytes that the queue file has so far, envelope included.")

    def write(data: bytes) -> Any:
        """
        Append to the content (all but the C{top} given to L{envelope}).

        @return: L{None}, or a Deferred that fires when the writer can take more; until then the
            caller pauses its producer. A failed write fails that Deferred and L{commit}.
        """

    def envelope(envelope: Envelope, top: bytes) -> None:
        """
        End the content.

        @param top: what comes before the content that was written: the Received header, which can
            only be made when it is known whether there is one recipient.
        """

    def recipient(address: bytes, original: bytes, silent: bool = False) -> Any:
        """
        Append a recipient.

        @param silent: as in L{Recipient<qmqpd_tx.message.Recipient>}.

        @return: as L{write}.
        """

    def commit(queue: Any = Queue.INCOMING) -> Any:
        """
        Make the message complete and durable.

        @param queue: where: L{Queue.INCOMING<qmqpd_tx.message.Queue>} or C{HOLD}. A message that is to be
            held never is in C{incoming}, whenever a crash may come.
        @return: a Deferred that gives an L{IStoredMessage} after the fsync; the caller must close it.
            Until the Deferred fires no scan of C{incoming} lists the message.
        @raise InsufficientSpace: the disk is full. Nothing is left behind.
        @raise CommitAbandoned: L{abort} was called first.
        """

    def abort() -> None:
        """
        Drop the message. During a commit this is final: the commit's Deferred fails at once with
        L{CommitAbandoned}, and whatever the disk still does is undone when it answers.
        """


@frozen(slots=True)
class Recovery:
    """
    What recovery found.

    @ivar reactivated: messages moved from C{active} back to C{incoming}.
    @ivar swept: unfinished files removed.
    @ivar damaged: ids moved to C{corrupt}.
    """

    reactivated: int
    swept: int
    damaged: Sequence[QueueID]


@frozen(slots=True)
class QueuedEntry:
    """
    A line of a queue scan.

    @ivar queue_id: which message.
    @ivar due: for C{deferred}: when its next attempt is due, POSIX seconds; the file's time elsewhere.
    """

    queue_id: QueueID
    due: float


class IMailQueue(Interface):
    """
    The queue store. Nothing above it knows about paths.

    Operations on one message take effect in the order in which they were called, so a caller need not
    wait for a move before it asks for the removal. Each Deferred fails with a L{SpoolError}.
    """

    def start() -> Any:
        """
        Make missing folders, take the lock, and begin to recover what the run before left: bring
        C{active} back to C{incoming}, sweep unfinished files older than a day, move damaged ones to
        C{corrupt}, build the index of C{deferred}.

        @return: a Deferred that gives L{None} as soon as messages can be taken and delivered, without
            waiting for the recovery: see L{recovered}.
        @raise QueueLocked: another service has the queue.
        """

    def recovered() -> Any:
        """
        Wait for the recovery that L{start} began. Until it is complete:

          - C{active} still has messages of the run before, which nobody works on; nothing moves them but
            the recovery, L{locate} (which brings the message it is asked for back first), and whoever
            names C{active} as the source;
          - a scan of C{incoming} does not have all that will be there: scan again afterwards;
          - L{due} and L{next_due} tell what is known so far; L{waiting} gives all, and waits for it.

        @return: a new Deferred that gives the L{Recovery}. It fails with a L{SpoolError} when the
            recovery could not go on, or the queue was stopped before: what is left is for the next start.
        """

    def stop() -> Any:
        """
        Finish what was asked for, then give up the lock.

        @return: a Deferred.
        """

    def create(arrival_time: float) -> Any:
        """
        @return: an L{IMessageWriter}.
        @raise InsufficientSpace: below C{queue_minfree}.
        """

    def open(queue_id: QueueID, queue: Any) -> Any:
        """
        @param queue: a L{Queue<qmqpd_tx.message.Queue>}.
        @return: a Deferred that gives an L{IStoredMessage}.
        @raise MessageNotFound: it is not there.
        @raise MessageUnfinished: it is in C{incoming}, and not complete.
        @raise MessageDamaged: it makes no sense, naming the offset, or it was complete once and is not any
            more.
        """

    def mark(message: Any, recipients: Sequence[Recipient], state: Any) -> Any:
        """
        Record in place that recipients are done (a
        L{RecipientState<qmqpd_tx.message.RecipientState>}), so that no retry repeats them.

        @return: a Deferred that fires when written (surviving the process, not yet a power cut).
        @raise MessageNotFound: the message is gone, or its file holds another message now.
        @raise MessageDamaged: its file was cut or changed behind our back; nothing is written.
        """

    def move(queue_id: QueueID, source: Any, target: Any, due: float | None = None) -> Any:
        """
        Move a message, from any queue to any other. Its delivery status logs stay.

        @param due: when the message is next due, POSIX seconds; kept with it (the file's modification
            time) in every queue. L{None} leaves its time as it is. Required when the target is
            C{deferred}, unless the source is C{hold}: a message that is released may keep the time that
            it had when it was held.
        @return: a Deferred.
        @raise MessageNotFound: it was not in C{source}.
        @raise ValueError: (at once) C{due} is missing or no time.
        """

    def locate(queue_id: QueueID) -> Any:
        """
        Find out where a message is, after all that was asked for before.

        @return: a Deferred that gives its L{Queue<qmqpd_tx.message.Queue>}; or L{None}: there is no such
            message, or it is still being written.
        """

    def newest() -> Any:
        """
        Tell the messages that are there from those that are still to come. Names follow the clock only
        roughly: after a crash they are ahead of it.

        @return: a queue id: no message that L{recovered} has seen, or that came since the start, has a
            greater one, and every message that is created from now on has.
        """

    def remove(queue_id: QueueID, queue: Any) -> Any:
        """
        Remove a message for good. Its delivery status logs stay: see L{remove_log}.

        @return: a Deferred.
        @raise MessageNotFound: it was not in C{queue}.
        """

    def scan(queue: Any) -> Any:
        """
        Walk a queue. Messages that come or go meanwhile may or may not be seen; unfinished ones are
        not.

        @return: an L{IQueueScan}.
        """

    def due(now: float, limit: int) -> Sequence[QueuedEntry]:
        """
        @return: up to C{limit} deferred messages whose time has come, earliest first, from the index
            in memory. They stay in the index until they are moved.
        """

    def next_due() -> float | None:
        """
        @return: when the earliest deferred message is due, POSIX seconds, or L{None} if there is none.
        """

    def when_due(queue_id: QueueID) -> float | None:
        """
        @return: when a deferred message is due, POSIX seconds, from the index in memory; L{None} when it is
            not in there.
        """

    def waiting() -> Any:
        """
        Walk through all deferred messages, due or not, from the index in memory. Each that was deferred
        when this was called is given once, earliest due first, unless it has left since, even if it is
        deferred again.

        @return: an L{IQueueScan}.
        """

    def append_log(kind: Any, queue_id: QueueID, records: Sequence[bytes], durable: bool) -> Any:
        """
        Append to a message's delivery status log.

        @param kind: a L{LogKind<qmqpd_tx.message.LogKind>}.
        @param durable: whether to fsync before the Deferred fires.
        @return: a Deferred.
        """

    def read_log(kind: Any, queue_id: QueueID) -> Any:
        """
        @return: a Deferred that gives the list of records, empty when there is no log. A torn last
            record is left out.
        """

    def remove_log(kind: Any, queue_id: QueueID) -> Any:
        """
        Remove a log; none is fine.

        @return: a Deferred.
        """


class IQueueScan(Interface):
    """A walk through one queue, a slice at a time."""

    def next(limit: int) -> Any:
        """
        @return: a Deferred that gives a list of up to C{limit} L{QueuedEntry}; empty at the end.
        """


# --- intake ------------------------------------------------------------------------------------------


@frozen(slots=True)
class Treatment:
    """
    What is to be done to a message on its way in. Who brings it decides: a service by its
    C{receive_override_options}, C{content_filter} and so on; a notice by C{internal_mail_filter_classes}.

    @ivar checks: header and body checks.
    @ivar mappings: canonical mapping, virtual aliases, masquerading, automatic bcc recipients.
    @ivar milters: mail filters (C{non_smtpd_milters}).
    @ivar content_filter: C{transport:nexthop} that all recipients go to first; C{""}: none.
    @ivar remote_domain: L{None}: headers are rewritten as those of local mail are. Otherwise this is mail
        from elsewhere: C{remote_header_rewrite_domain}, with which incomplete header addresses are made
        complete; C{""}: headers are not rewritten at all.
    @ivar about: the mark (L{SMTPUTF8<qmqpd_tx.message.SMTPUTF8>}) of the message that a notice is about, or
        that this one was before it was handed over again: it is looked at for what needs SMTPUTF8, too.
    """

    checks: bool = True
    mappings: bool = True
    milters: bool = True
    content_filter: str = ""
    remote_domain: str | None = None
    about: bytes | None = None


FULL_TREATMENT = Treatment()
"""That of a message from a client of a service without special options."""


class ICleanup(Interface):
    """cleanup(8): turns what a client sends into one queue file."""

    def begin(
        client: Any, verp_delimiters: bytes | None = None, treatment: Treatment = FULL_TREATMENT
    ) -> Any:
        """
        @param client: a L{ClientInfo<qmqpd_tx.message.ClientInfo>}, or L{None} for mail made here.
        @param treatment: what is to be done to it.
        @return: an L{IIncomingMessage}.
        @raise IntakeError: the queue cannot take mail now.
        """


class IIncomingMessage(Interface):
    """
    A message as it arrives. Content, then sender, then recipients, then L{finish}; or L{abort} at any
    time. The first thing wrong with it is kept and reported by L{finish}; from then on input is
    swallowed.
    """

    queue_id = Attribute("L{QueueID}")

    def content(data: bytes) -> Any:
        """
        Take the next bytes of the content, in any chunking; lines end in LF.

        @return: L{None}, or a Deferred that fires when more can be taken (a disk or a lookup table is waited
            for). What is given before that is kept in memory until then.
        """

    def sender(address: bytes, verp_delimiters: bytes | None = None) -> Any:
        """
        Take the envelope sender, C{b""} for the null sender; ends the content.

        @return: as L{content}.
        """

    def recipient(address: bytes, silent: bool = False) -> Any:
        """
        Take one recipient, as the client sent it.

        @param silent: whether it is an automatic copy already (of a message that is taken once more), as in
            L{Recipient<qmqpd_tx.message.Recipient>}.
        @return: as L{content}.
        """

    def finish() -> Any:
        """
        @return: a Deferred that gives the L{QueueID} when the message is safe on disk, or was discarded, as
            the operator wishes.
        @raise IntakeError: (failure of the Deferred) it was not accepted; nothing is left behind.
        """

    def abort() -> None:
        """
        The client went away or the time is up; during L{finish} this fails its Deferred at once, for
        good.
        """


class IArrivals(Interface):
    """The queue manager, as intake sees it."""

    def arrived(message: Any) -> None:
        """
        A message was just committed to C{incoming}. Returns at once; the receiver closes it.

        @param message: an L{IStoredMessage}.
        """


# --- routing -----------------------------------------------------------------------------------------


class IRouter(Interface):
    """trivial-rewrite(8): which destination is responsible for an address."""

    def resolve(sender: bytes, recipient: bytes) -> Any:
        """
        @return: a L{Route<qmqpd_tx.message.Route>}, or a Deferred that gives one. An address that
            cannot be routed gets a route to the C{error} or C{retry} transport.
        """


# --- scheduling --------------------------------------------------------------------------------------


@frozen(slots=True)
class Destination:
    """
    A transport and a next hop: what windows, dead marks and rate limits are about.

    @ivar transport: the master.cf name.
    @ivar nexthop: the next hop; with a recipient limit of 1, the recipient.
    """

    transport: str
    nexthop: str


@frozen(slots=True, eq=False)
class Entry:
    """
    A batch of one message's recipients for one destination: one delivery request.

    @ivar job: the key that C{add} was given.
    @ivar destination: where to.
    @ivar nexthop: the route's nexthop for the delivery agent.
    @ivar recipients: at most the transport's recipient limit.
    """

    job: Any
    destination: Destination
    nexthop: str
    recipients: Sequence[Recipient]


class IScheduler(Interface):
    """
    Which entry is next. Pure: no I/O, no timers; C{now} is an argument. No operation is linear in the
    number of messages or destinations.
    """

    def add(job: Any, transport: str, nexthop: str, recipients: Sequence[Recipient], now: float) -> None:
        """
        Add recipients of one message for one destination. May be called again for the same job.

        @param job: any hashable key of the message.
        """

    def next(now: float) -> Entry | None:
        """
        @return: the next entry that may be delivered now, counted as under way; or L{None}.
        """

    def done(entry: Entry, failed: Any, now: float) -> Sequence[Entry]:
        """
        An entry was tried: adapt the window.

        @param failed: a L{DestinationFailure<qmqpd_tx.status.DestinationFailure>}, or L{None}.
        @return: the waiting entries of this destination that must be deferred without a try because
            the destination is now dead; they are no longer scheduled.
        """

    def dead(transport: str, nexthop: str, now: float) -> Any:
        """
        @return: the L{DestinationFailure<qmqpd_tx.status.DestinationFailure>} because of which this
            destination is not tried now, or L{None}.
        """

    def wakeup(now: float) -> float | None:
        """
        @return: when L{next} may give something without a further call (a rate delay ends), POSIX
            seconds; or L{None}.
        """

    def flush() -> None:
        """
        Forget all dead destinations and transports (trigger F).
        """


# --- delivery ----------------------------------------------------------------------------------------


@frozen(slots=True)
class DeliveryRequest:
    """
    One batch for a delivery agent.

    @ivar queue_id: for log and Received.
    @ivar transport: the master.cf name it runs under.
    @ivar nexthop: the next-hop destination.
    @ivar sender: the envelope sender for this delivery.
    @ivar recipients: whom to deliver to; C{address} is where to.
    @ivar content: an L{IMessageContent}.
    @ivar envelope: the message's envelope.
    """

    queue_id: QueueID
    transport: str
    nexthop: str
    sender: bytes
    recipients: Sequence[Recipient]
    content: Any
    envelope: Envelope


class IDeliveryTransport(Interface):
    """A delivery agent under one master.cf name."""

    program = Attribute("L{str}: the agent's name in the log, as in C{smtp}.")

    def deliver(request: DeliveryRequest) -> Any:
        """
        Try to deliver. A Deferred that fails means a bug in the transport, and so does anything that is
        no Deferred, or gives no report: the recipients are deferred with 4.3.0 and the transport is
        throttled for C{transport_retry_time}. Cancelling it ends the attempt: recipients whose
        delivery is already certain are reported as such, the others as deferred.

        @return: a Deferred that gives a L{DeliveryReport<qmqpd_tx.status.DeliveryReport>}.
        """

    def stop() -> Any:
        """
        Close idle connections; nothing is under way any more.

        @return: a Deferred.
        """


@frozen(slots=True)
class TransportContext:
    """
    What a delivery agent may use.

    @ivar name: the master.cf service name it is to run under.
    @ivar config: an L{IConfig}, with the service's C{-o} overrides applied.
    @ivar reactor: the reactor (time, TCP, threads).
    @ivar resolver: an L{IResolver<twisted.internet.interfaces.IResolver>} for DNS.
    @ivar arguments: the command arguments of the master.cf line without C{-o} options.
    """

    name: str
    config: Any
    reactor: Any
    resolver: Any
    arguments: Sequence[str] = ()


class IDeliveryAgent(Interface):
    """
    A kind of delivery agent: the plugin that makes transports. Found by the command column of a
    master.cf line, among the built-in ones and the Twisted plugins that provide this interface
    (package C{twisted.plugins}).
    """

    command = Attribute("L{str}: the master.cf command, as in C{smtp}.")

    def transport(context: TransportContext) -> Any:
        """
        @return: an L{IDeliveryTransport}.
        @raise ConfigError: the configuration or the arguments are wrong.
        """


# --- bounces -----------------------------------------------------------------------------------------


class IBounces(Interface):
    """bounce(8): remembers what went wrong, and tells the sender."""

    def bounced(message: Any, outcomes: Sequence[Any]) -> Any:
        """
        Remember recipients that failed for good.

        @param message: an L{IStoredMessage}.
        @param outcomes: L{Outcome<qmqpd_tx.status.Outcome>}s.
        @return: a Deferred that fires when the record is durable; only then may they be marked done.
        """

    def deferred(message: Any, outcomes: Sequence[Any]) -> Any:
        """
        Remember why recipients wait. Replaces what was remembered for the attempt before.

        @return: a Deferred.
        """

    def delayed(message: Any) -> Any:
        """
        Warn the sender of a deferred message that is older than C{delay_warning_time}, unless that was
        done before. To be called whenever an attempt ends with recipients that wait, after L{deferred}.
        Costs next to nothing when no warning is due.

        @param message: an L{IStoredMessage}, still open.
        @return: a Deferred that gives the L{QueueID} of the warning when it is safely in the queue, or
            L{None} when there is nothing to say or nobody to say it to. A failure means: nothing was sent;
            log it, and go on: the next call tries again.
        """

    confirms = Attribute(
        "L{bool}: whether senders want to hear that a delay is over (C{confirm_delay_cleared}): while it is "
        "false, there is no need to call L{delivered}. A reload may change it."
    )

    def delivered(message: Any, outcomes: Sequence[Any]) -> Any:
        """
        Remember recipients that were delivered by an attempt after the first, for L{notify} to confirm when
        the sender was warned before. To be called before they are marked done; one need not wait for it,
        because the store keeps the order of operations on one message.

        @param outcomes: L{Outcome<qmqpd_tx.status.Outcome>}s, all of them sent.
        @return: a Deferred that fires when this is written (surviving the process, not yet a power cut). A
            failure means that the sender will not hear of it: log it, and go on.
        """

    def notify(message: Any) -> Any:
        """
        Send the sender a report of all recipients in the bounce log, if there are any; and one of those
        delivered after a warning (see L{delivered}), if there are any.

        @return: a Deferred that gives the L{QueueID} of the non-delivery notice, or L{None} when there is
            nothing to say or nobody to say it to. It fires when the notices are safely in the queue and
            will not be repeated; a failure means: keep the message and try later.
        """

    def forget(queue_id: QueueID) -> Any:
        """
        Remove all delivery status logs of a message that leaves the queue, and with them the memory of a
        warning.

        @return: a Deferred.
        """


# --- fast flush --------------------------------------------------------------------------------------


class NotEligible(Exception):
    """A flush was asked for a site that is not in C{fast_flush_domains}; the text names it."""


class IFlush(Interface):
    """flush(8): remembers which deferred messages wait for a site, so that one site can be flushed."""

    def deferred(queue_id: QueueID, recipients: Sequence[Recipient]) -> Any:
        """
        Remember that a message waits for the sites of some recipients. To be called before the message is
        moved to C{deferred}; again and again for the same message is fine.

        @return: L{None} when there is nothing to wait for: no recipient's domain is in
            C{fast_flush_domains}, or all of this is remembered already. Else a Deferred that fires when it
            is written and never fails (what cannot be written, or found out, is logged): wait for it before
            the move, and a restart loses nothing.
        """

    def flush_site(site: str) -> Any:
        """
        Try all deferred mail for a site now, whatever its time and however dead its destination
        (C{postqueue -s}, ETRN).

        @param site: a domain or an address literal, as after the C{@} of an address; case does not matter.
        @return: a Deferred that gives how many messages were made active.
        @raise NotEligible: (failure) the site is not in C{fast_flush_domains}.
        @raise TableError: (failure) whether it is cannot be found out.
        @raise SpoolError: (failure) what waits for the site cannot be read.
        """

    def refresh() -> Any:
        """
        Flush sites that were not asked for in C{fast_flush_refresh_time}, and forget those for which nothing
        has waited in C{fast_flush_purge_time}.

        @return: a Deferred that gives how many messages were made active.
        """
