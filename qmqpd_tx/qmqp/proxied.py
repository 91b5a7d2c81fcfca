"""
Connections through a proxy that says who the client is: the PROXY protocol, versions 1 and 2.

Takes connections of a proxy; reads the header, and hands the connection over to a
L{QMQPConnection<qmqpd_tx.qmqp.connection.QMQPConnection>} of the client that it names: from then on the proxy
is not seen anywhere, and nothing stands between that protocol and the transport but a call. The header is
understood by Twisted's own C{haproxy:} endpoint; what is added here is that it may come in pieces, that what
it says is a network address and a port, that it has a time limit (C{qmqpd_upstream_proxy_timeout}) and a size
limit (C{qmqpd_upstream_proxy_header_limit}), and that a client may finish sending before it has its reply. A
proxy that connects for itself (C{LOCAL}, a health check) is the client.

How it fails: a connection without a good header is dropped with a warning in the log, and the client learns
nothing; so it is when too many wait for their header (C{qmqpd_upstream_proxy_pending_limit}). Answers to
smtpd_upstream_proxy_protocol in Postfix's smtpd(8), whose words for a bad header are used.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import ServerFactory
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.events import Logger
from qmqpd_tx.qmqp.settings import Settings

log = Logger(namespace="qmqpd_tx.qmqpd")

_V1 = b"PROXY "
_V1_LIMIT = 107
"""How long a header of version 1 can be: so the protocol has it."""

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_SHOWN = 100


class BadHeader(Exception):
    """What a proxy sent is no header; the text says why."""


class _Receiver(Protocol):
    def makeConnection(self, transport: ITransport) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def readConnectionLost(self) -> None: ...
    def writeConnectionLost(self) -> None: ...
    def connectionLost(self, reason: Failure) -> None: ...


class Server(Protocol):
    """What is asked of the QMQP server."""

    clock: IReactorTime
    settings: Settings

    @property
    def connection(self) -> Callable[[IAddress, bytes], _Receiver | None]:
        """
        Makes the connection of a client that has sent something already.
        """


class _HeaderOnly(TwistedProtocol):
    """Behind Twisted's wrapper: never gets anything."""


@implementer(IStreamServerEndpoint)
class _Endpoint:
    """Under Twisted's endpoint: keeps the factory that it makes instead of listening."""

    wrapping: IProtocolFactory

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.wrapping = protocolFactory
        return succeed(None)


class _NoTransport:
    """In front of Twisted's wrapper: there is nobody to talk to, and the proxy is L{None}."""

    def __init__(self) -> None:
        self.closed = False

    def getPeer(self) -> None:
        return None

    def loseConnection(self) -> None:
        self.closed = True


def header_size(data: bytes, limit: int) -> int:
    """
    @param data: the first bytes of a connection.
    @param limit: the longest header, in bytes.
    @return: the size of the header when it is complete; 0 when more has to come.
    @raise BadHeader: it is none.
    """
    start = data[: len(_V2)]
    if _V1.startswith(data[: len(_V1)]):
        end = data.find(b"\r\n", 0, _V1_LIMIT)
        if end < 0 and len(data) >= _V1_LIMIT:
            raise BadHeader("bad or missing newline")
        return end + 2 if end >= 0 else 0
    if not _V2.startswith(start):
        raise BadHeader("short protocol header")
    if len(data) < _V2_FIXED:
        return 0
    if data[12] >> 4 != 2:
        raise BadHeader("unrecognized protocol version")
    size = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if size > limit:
        raise BadHeader("too long protocol header")
    return size if len(data) >= size else 0


def client_of(header: bytes) -> IAddress | None:
    """
    @param header: a complete header.
    @return: the client; L{None}: the proxy itself.
    @raise BadHeader: it makes no sense, or names something that is no TCP client.
    """
    transport = _NoTransport()
    endpoint = _Endpoint()
    proxyEndpoint(endpoint).listen(ServerFactory.forProtocol(_HeaderOnly))  # type: ignore[no-untyped-call]
    wrapper: Any = endpoint.wrapping.buildProtocol(None)  # type: ignore[arg-type]
    wrapper.makeConnection(transport)
    try:
        wrapper.dataReceived(header)
        source: object = wrapper.getPeer()
    except Exception as problem:
        # Twisted's parser raises more than it says, for numbers and names that are none.
        raise BadHeader("bad or missing client address or port") from problem
    if transport.closed:
        raise BadHeader("bad or missing protocol type")
    if source is None:
        if header.startswith(_V2) and not header[12] & 0x0F:
            return None
        raise BadHeader("unsupported network protocol")
    if not isinstance(source, IPv4Address | IPv6Address) or source.type != "TCP":
        raise BadHeader("unsupported network protocol")
    try:
        host = ip_address(source.host)
    except ValueError:
        raise BadHeader("bad or missing client address") from None
    if (host.version == 6) is not isinstance(source, IPv6Address) or "%" in source.host:
        raise BadHeader("bad or missing client address")
    if not 0 < source.port < 65536:
        raise BadHeader("bad or missing client port")
    return type(source)("TCP", str(host), source.port)


@implementer(IProtocol, IHalfCloseableProtocol)
class ProxiedConnection:
    """
    The protocol of one connection of a proxy.
    """

    __slots__ = ("__provides__", "_address", "_buffer", "_connection", "_owner", "_timer", "transport")

    transport: ITransport

    def __init__(self, owner: ProxiedConnections, address: IAddress) -> None:
        """
        @param owner: the factory.
        @param address: the proxy's.
        """
        self._owner = owner
        self._address = address
        self._buffer = b""
        self._connection: _Receiver | None = None
        self._timer: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """
        The proxy is there.
        """
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """
        Wait for the header.
        """
        self._timer = self._owner.opened(self, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        """
        The header, or what the client sends.
        """
        if self._connection is not None:
            self._connection.dataReceived(data)
            return
        if self._timer is None:
            # Dropped, and not gone yet.
            return
        self._buffer += data
        try:
            size = header_size(self._buffer, self._owner.header_limit)
            if not size:
                return
            client = client_of(self._buffer[:size])
        except BadHeader as problem:
            self._drop(str(problem))
            return
        self._settled()
        early, self._buffer = self._buffer[size:], b""
        connection = self._owner.connection(client or self._address, early)
        if connection is None:
            self._abort()
            return
        self._connection = connection
        connection.makeConnection(self.transport)

    def readConnectionLost(self) -> None:
        """
        The client has finished sending.
        """
        if self._connection is not None:
            self._connection.readConnectionLost()
        elif self._timer is not None:
            self._drop("EOF" if not self._buffer else "short protocol header")

    def writeConnectionLost(self) -> None:
        """
        We have finished sending.
        """
        if self._connection is not None:
            self._connection.writeConnectionLost()

    def connectionLost(self, reason: Failure) -> None:
        """
        It is over.
        """
        self._settled()
        if self._connection is not None:
            self._connection.connectionLost(reason)

    def stop(self) -> None:
        """
        The server is stopping, and the client is not known yet.
        """
        self._settled()
        self._abort()

    def _timed_out(self) -> None:
        self._timer = None
        self._drop("timeout error")

    def _drop(self, reason: str) -> None:
        log.warn(
            "haproxy read: {reason}: {data} from {address}",
            reason=reason,
            data=ascii(self._buffer[:_SHOWN])[1:],
            address=getattr(self._address, "host", "local socket"),
        )
        self._buffer = b""
        self._settled()
        self._abort()

    def _abort(self) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        if abort is None:
            self.transport.loseConnection()
        else:
            abort()

    def _settled(self) -> None:
        """
        Nobody waits for the header any more.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._owner.settled(self)


class ProxiedConnections(ServerFactory):
    """
    Makes connections for ports behind a proxy.
    """

    noisy = False

    def __init__(self, server: Server) -> None:
        """
        @param server: makes the connections of clients.
        """
        self._server = server
        self._waiting: set[ProxiedConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection | None:  # type: ignore[override]
        """
        @return: a connection, or L{None} to hang up at once.
        """
        if addr is None or len(self._waiting) >= self._server.settings.proxy_pending_limit:
            return None
        return ProxiedConnection(self, addr)

    @property
    def header_limit(self) -> int:
        """The longest header, in bytes."""
        return self._server.settings.proxy_header_limit

    def opened(self, connection: ProxiedConnection, late: Callable[[], None]) -> IDelayedCall:
        """
        A connection waits for its header.

        @param late: what to call when it has not come in time.
        """
        self._waiting.add(connection)
        return self._server.clock.callLater(self._server.settings.proxy_timeout, late)

    def settled(self, connection: ProxiedConnection) -> None:
        """
        A connection has its header, or is gone.
        """
        self._waiting.discard(connection)

    def connection(self, address: IAddress, early: bytes) -> _Receiver | None:
        """
        @return: the connection of a client.
        """
        return self._server.connection(address, early)

    def stop(self) -> None:
        """
        Drop those whose client is not known.
        """
        for connection in list(self._waiting):
            connection.stop()
