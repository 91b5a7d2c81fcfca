"""
Values that name a message and the people in it.

Takes nothing, does nothing: frozen values shared by every room. Addresses and content are
L{bytes}, exactly as they came or as cleanup(8) left them; text appears only at the edges.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NewType

from attrs import Factory, field, frozen

QueueID = NewType("QueueID", str)
"""The name of one message in the queue: unique, sortable by arrival, safe in a path and a log line."""


class Queue(enum.Enum):
    """A queue that holds messages; the value is its folder under C{queue_directory}."""

    INCOMING = "incoming"
    ACTIVE = "active"
    DEFERRED = "deferred"
    HOLD = "hold"
    CORRUPT = "corrupt"


class LogKind(enum.Enum):
    """
    A log beside the queue; the value is its folder under C{queue_directory}. The first three are delivery
    status logs and belong to the message of their name. A C{FLUSH} log belongs to a site and lists messages;
    its name is no message's.
    """

    BOUNCE = "bounce"
    DEFER = "defer"
    TRACE = "trace"
    FLUSH = "flush"


class RecipientState(enum.Enum):
    """What has become of a recipient; the value is the status byte in the queue file."""

    TODO = b"R"
    DELIVERED = b"D"
    BOUNCED = b"B"


@frozen(slots=True)
class ClientInfo:
    """
    Where a message came from.

    @ivar address: the textual network address, as in C{127.0.0.1} or C{2001:db8::1}.
    @ivar name: the confirmed host name, or C{unknown}.
    @ivar port: the remote port, or L{None}.
    @ivar protocol: the protocol name for the C{with} clause of the Received header.
    """

    address: str
    name: str = "unknown"
    port: int | None = None
    protocol: str = "QMQP"

    def label(self, with_port: bool = False) -> str:
        """
        @return: C{name[address]}, or C{name[address]:port}: the form in which Postfix logs a client.
        """
        label = f"{self.name}[{self.address}]"
        return f"{label}:{self.port}" if with_port and self.port is not None else label


CONTENT_FILTER = "content_filter"
"""
The attribute with the C{transport:nexthop} to which all recipients go instead of where they would go; from
the parameter of that name, or from a FILTER action.
"""

SMTPUTF8 = "smtputf8"
"""
The attribute of a message that may need SMTPUTF8 (RFC 6531); the value is a mark that says whether it always
does, or for some senders and recipients only: see L{qmqpd_tx.address.smtputf8}.
"""


@frozen(slots=True)
class Envelope:
    """
    What the queue file says of a message, apart from content and recipients.

    @ivar sender: the envelope sender; C{b""} is the null sender.
    @ivar arrival_time: when the message arrived, POSIX seconds.
    @ivar client: who brought it, or L{None} for mail made here (bounces).
    @ivar message_id: the Message-ID with its angle brackets, for the log; C{b""} when there is none.
    @ivar eight_bit: whether the content has bytes above 127 (what C{BODY=8BITMIME} declares).
    @ivar verp_delimiters: the two VERP delimiter characters (qmqpd(8): C{prefix-@origin-@[]}), or
        L{None} when the sender is to be used as it is.
    @ivar attributes: further named attributes, kept with the message: L{CONTENT_FILTER}, L{SMTPUTF8}.
    """

    sender: bytes
    arrival_time: float
    client: ClientInfo | None = None
    message_id: bytes = b""
    eight_bit: bool = False
    verp_delimiters: bytes | None = None
    attributes: Mapping[str, bytes] = Factory(dict)


@frozen(slots=True)
class Recipient:
    """
    One recipient of one stored message.

    @ivar address: where to deliver to.
    @ivar original: the address as the client sent it.
    @ivar silent: whether the sender is not to hear of it: an automatic copy.
    @ivar position: the store's own mark of this recipient (the offset of its status byte in the
        file store); unique within the message and opaque to everybody else.
    """

    address: bytes
    original: bytes
    position: int
    silent: bool = False


@frozen(slots=True)
class RecipientSlice:
    """
    Some of a message's unfinished recipients, in file order.

    @ivar recipients: those still to do.
    @ivar next_position: where to read on, or L{None} at the end.
    """

    recipients: list[Recipient]
    next_position: int | None


@frozen(slots=True)
class Route:
    """
    Where a recipient's mail goes next: a destination, and the address to hand over there.

    @ivar transport: a master.cf service name, as in C{smtp}.
    @ivar nexthop: the next-hop destination, as in C{example.org} or C{[127.0.0.1]:2525}; for the
        C{error} and C{retry} transports the reason text, with an optional leading RFC 3463 code.
    @ivar recipient: the address to deliver to.
    @ivar local: whether its domain is of the local address class, wherever the route leads.
    """

    transport: str
    nexthop: str
    recipient: bytes
    local: bool = field(default=False, eq=False)
