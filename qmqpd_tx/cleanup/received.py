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
    @param settings: for C{myhostname} and C{mail_name}.
    @param queue_id: the message's name here.
    @param client: who brought it; L{None} for mail made here.
    @param recipient: the only recipient, as the client sent it; L{None} if there are several.
    @param date: when it arrived.
    @return: the header.
    """
    name = queue_id.encode()
    by = b"by %b (%b)" % (settings.hostname, settings.mail_name)
    if client is None:
        return b"Received: %b\n\tid %b; %b\n" % (by, name, date)
    host = client.name.encode("ascii", "replace")
    address = client.address.encode("ascii", "replace")
    if b":" in address:
        address = b"IPv6:" + address
    protocol = client.protocol.encode("ascii", "replace")
    start = b"Received: from %b (%b [%b])\n\t%b with %b" % (host, host, address, by, protocol)
    if recipient is None:
        return b"%b\n\tid %b; %b\n" % (start, name, date)
    return b"%b id %b\n\tfor <%b>; %b\n" % (start, name, _quote(recipient), date)


def _quote(recipient: bytes) -> bytes:
    """
    @return: an address in external form; a source route stays in front.
    """
    direct = strip_source_route(recipient)
    route = recipient[: len(recipient) - len(direct)]
    return route + quote_address(direct) if direct else b'""'
