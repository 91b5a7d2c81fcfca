"""
The Received header (RFC 5321 section 4.4), in Postfix's shape. Pure.

Takes who brought a message and, for a single recipient, to whom; gives the header with its line end. What
comes from the network in it is a host name and an address that the intake checked, and an address that
L{quote_address} quotes; control characters were refused before. Answers to qmqpd(8) and cleanup(8).
"""

from __future__ import annotations

from qmqpd_tx.address.syntax import quote_address, strip_source_route
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.message import ClientInfo, QueueID


def received(
    settings: Settings, queue_id: QueueID, client: ClientInfo | None, recipient: bytes | None, date: bytes
) -> bytes:
    """
    @param settings: for its C{by} clause.
    @param queue_id: the message's name here.
    @param client: who brought it; L{None} for mail made here.
    @param recipient: the only recipient, as the client sent it; L{None} if there are several.
    @param date: when it arrived.
    @return: the header.
    """
    if client is None:
        return b"Received: %b\n\tid %b; %b\n" % (settings.by, queue_id.encode(), date)
    host, address = client.name, client.address
    if ":" in address:
        address = f"IPv6:{address}"
    start = f"Received: from {host} ({host} [{address}])\n\t".encode("ascii", "replace")
    if recipient is None:
        end = f" with {client.protocol}\n\tid {queue_id}; ".encode("ascii", "replace")
        return b"%b%b%b%b\n" % (start, settings.by, end, date)
    end = f" with {client.protocol} id {queue_id}\n\tfor <".encode("ascii", "replace")
    return b"%b%b%b%b>; %b\n" % (start, settings.by, end, _quote(recipient), date)


def _quote(recipient: bytes) -> bytes:
    """
    @return: an address in external form; a source route stays in front.
    """
    if not recipient.startswith(b"@"):
        return quote_address(recipient) if recipient else b'""'
    direct = strip_source_route(recipient)
    route = recipient[: len(recipient) - len(direct)]
    return route + quote_address(direct)
