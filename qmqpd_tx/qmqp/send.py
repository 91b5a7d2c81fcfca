"""
Sending a message by QMQP to one of several servers.

Takes servers, a message of known size and its envelope; gives an exit status of qmail-qmqpc's and a text for
people. Servers are tried in turn until a connection is established. From there the one server decides, and
its C{Z} or C{D} is the answer; so is a connection that breaks when the server may have the whole message,
because giving it to another one could deliver it twice. Only a server that hangs up before it can have the
whole message is passed over for the next.

Nothing is raised for what servers and networks do. Answers to qmail-qmqpc(8) and, for the exit statuses,
qmail-queue(8).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Sequence
from typing import Protocol as TypingProtocol

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, DNSLookupError, TCPTimedOutError, TimeoutError
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from qmqpd_tx.qmqp.client import ClientError, ConnectionBroken, QMQPClientProtocol, make_packet
from qmqpd_tx.qmqp.replies import ReplyClass

DEFAULT_PORT = 628
ADDRESS_LIMIT = 1000
"""The longest address, in bytes, that qmail's programs take."""


class ExitStatus(enum.IntEnum):
    """What qmail-queue(8) documents. 11 to 40 are permanent, all others temporary."""

    ACCEPTED = 0
    ADDRESS_TOO_LONG = 11
    REFUSED_PERMANENTLY = 31
    WRITE_ERROR = 53
    READ_ERROR = 54
    CONFIGURATION = 55
    NETWORK = 56
    REFUSED_TEMPORARILY = 71
    CONNECTION_TIMED_OUT = 72
    CONNECTION_REJECTED = 73
    COMMUNICATION_FAILED = 74
    ENVELOPE_FORMAT = 91


_STATUS = {
    ReplyClass.ACCEPTED: ExitStatus.ACCEPTED,
    ReplyClass.TEMPORARY: ExitStatus.REFUSED_TEMPORARILY,
    ReplyClass.PERMANENT: ExitStatus.REFUSED_PERMANENTLY,
}


class SeekableContent(TypingProtocol):
    """The message content: a binary file that can be read again for the next server."""

    def read(self, size: int, /) -> bytes:
        """
        @return: up to C{size} bytes.
        """

    def seek(self, offset: int, /) -> int:
        """
        @return: the new position.
        """


@frozen(slots=True)
class Server:
    """
    A QMQP server.

    @ivar host: its address or name.
    @ivar port: its TCP port.
    """

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@frozen(slots=True)
class Result:
    """
    How it went.

    @ivar status: what to exit with.
    @ivar text: what the last server said, or what went wrong.
    @ivar server: which one that was.
    """

    status: ExitStatus
    text: str
    server: Server


def parse_server(text: str) -> Server:
    """
    @param text: C{host}, C{host:port}, C{[address]} or C{[address]:port}; an IPv6 address may also stand
        alone.
    @return: the server.
    @raise ValueError: it is none of these.
    """
    text = text.strip()
    try:
        return Server(str(ipaddress.IPv6Address(text)))
    except ValueError:
        pass
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        separator, port = rest[:1], rest[1:]
        well_formed = bool(bracket) and separator in ("", ":")
    else:
        host, separator, port = text.partition(":")
        well_formed = True
    if not host or any(character.isspace() for character in host) or not well_formed:
        raise ValueError(f"not a server: {text!r}; specify host, host:port or [address]:port")
    if not separator:
        return Server(host)
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError(f"not a port number: {port!r} in {text!r}")
    return Server(host, int(port))


def parse_servers(text: str) -> list[Server]:
    """
    @param text: one server a line, as in qmail's C{control/qmqpservers}; empty lines and lines that begin
        with C{#} do not count.
    @return: the servers in order.
    @raise ValueError: a line is wrong; the text has its number.
    """
    servers = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                servers.append(parse_server(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return servers


def envelope_fault(sender: bytes, recipients: Sequence[bytes]) -> tuple[ExitStatus, str] | None:
    """
    @return: what is wrong with an envelope, before any server is asked; or L{None}.
    """
    if not recipients:
        return ExitStatus.ENVELOPE_FORMAT, "no recipients"
    for address in (sender, *recipients):
        if len(address) > ADDRESS_LIMIT:
            return ExitStatus.ADDRESS_TOO_LONG, f"an address is longer than {ADDRESS_LIMIT} bytes"
        if b"\0" in address or b"\n" in address:
            return ExitStatus.ENVELOPE_FORMAT, f"an address has a NUL or a line end in it: {address!r}"
    return (ExitStatus.ENVELOPE_FORMAT, "an empty recipient") if b"" in recipients else None


@implementer(IProtocolFactory)
class _ClientFactory:
    """Makes the one protocol."""

    def __init__(self, client: QMQPClientProtocol) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> QMQPClientProtocol:
        return self._client

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


async def send_message(
    servers: Sequence[Server],
    connect: Callable[[Server], IStreamClientEndpoint],
    clock: IReactorTime,
    content: SeekableContent,
    content_size: int,
    sender: bytes,
    recipients: Sequence[bytes],
    timeout: float,
) -> Result:
    """
    @param servers: whom to try, in order; at least one.
    @param connect: makes the endpoint for a server.
    @param clock: the time.
    @param content: the message content.
    @param content_size: its size in bytes.
    @param sender: the envelope sender.
    @param recipients: the envelope recipients.
    @param timeout: how many seconds to wait for anything from a server once connected.
    @return: how it went with the last server that was tried.
    """
    packet = make_packet(content_size, sender, recipients)
    result = Result(ExitStatus.CONFIGURATION, "no servers", Server(""))
    for server in servers:
        content.seek(0)
        client = QMQPClientProtocol(packet, content, content_size, clock, timeout)
        try:
            endpoint: IStreamClientEndpoint = connect(server)
            await endpoint.connect(_ClientFactory(client))
        except (TCPTimedOutError, TimeoutError) as error:
            result = Result(ExitStatus.CONNECTION_TIMED_OUT, f"connection timed out: {error}", server)
            continue
        except (DNSLookupError, ValueError) as error:
            # ValueError: no host can have such a name.
            result = Result(ExitStatus.NETWORK, f"host not found: {error}", server)
            continue
        except (ConnectError, OSError) as error:
            result = Result(ExitStatus.CONNECTION_REJECTED, f"cannot connect: {error}", server)
            continue
        try:
            reply = await client.result
        except ConnectionBroken as error:
            result = Result(ExitStatus.COMMUNICATION_FAILED, str(error), server)
            if not client.sent:
                continue
        except (ClientError, CancelledError) as error:
            result = Result(ExitStatus.COMMUNICATION_FAILED, str(error), server)
        else:
            text = reply.text.decode("utf-8", "replace")
            result = Result(_STATUS[reply.reply_class], text, server)
        return result
    return result
