"""
C{tcp:host:port} and C{socketmap:inet:host:port:name}, C{socketmap:unix:path:name}: tables on a server.

Takes a place and asks there for each key, as tcp_table(5) and socketmap_table(5) say: keys are sent as they
are, whole, never parts of an address. Gives a Deferred. A reply that says "later", makes no sense or is too
long is a L{TableError}, and so is a server that does not answer. A place that cannot be one is a
L{ConfigError}; whether somebody is there turns out with the first lookup. Answers to Postfix's dict_tcp and
dict_sockmap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.netstring import NetstringReader, encode
from qmqpd_tx.tables.client import ReplyReader, TableClient
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.limits import ServerLimits, integer
from qmqpd_tx.tables.wording import not_empty, printable

_PLAIN = re.compile(rb"[^\x21-\x24\x26-\x7e]")
_ESCAPE = re.compile(rb"%(..?)?", re.DOTALL)
_TCP_REPLY = re.compile(rb"(\d{3})[ \t]+([^\r\n]*)\r?")


def quote_tcp(key: bytes) -> bytes:
    """
    @return: a key as it is sent: C{%}, white space and what cannot be printed as C{%XX}.
    """
    return _PLAIN.sub(lambda found: b"%%%02X" % found[0][0], key)


def unquote_tcp(text: bytes) -> bytes:
    """
    @return: the text of a reply.
    @raise ValueError: a C{%} is not followed by two hexadecimal digits.
    """

    def byte(found: re.Match[bytes]) -> bytes:
        digits = found[1] or b""
        if len(digits) != 2 or digits.strip(b"0123456789abcdefABCDEF"):
            raise ValueError(text)
        return bytes([int(digits, 16)])

    return _ESCAPE.sub(byte, text)


class LineReader:
    """
    Reads a reply that is a line.

    @param limit: its longest length, line end included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""

    def feed(self, data: bytes) -> bytes | None:
        """See L{ReplyReader}."""
        self._data += data
        line, end, rest = self._data.partition(b"\n")
        if len(line) + 1 > self._limit:
            raise ValueError(f"a reply longer than tcp_table_reply_size_limit = {self._limit}")
        if not end:
            return None
        if rest:
            raise ValueError("the server has sent two replies to one request")
        self._data = b""
        return line


class SocketmapReader:
    """
    Reads a reply that is a netstring.

    @param limit: its longest length.
    """

    def __init__(self, limit: int) -> None:
        self._reader = NetstringReader(limit)

    def feed(self, data: bytes) -> bytes | None:
        """See L{ReplyReader}."""
        replies = self._reader.feed(data)
        if len(replies) > 1 or (replies and not self._reader.between):
            raise ValueError("the server has sent two replies to one request")
        return replies[0] if replies else None


def _shown(data: bytes) -> str:
    """
    @return: what a server has sent, for a message.
    """
    return printable(data, 80)


def read_tcp(name: str, reply: bytes) -> bytes | None:
    """
    @param name: C{type:name}, for messages.
    @return: the value that a reply gives.
    @raise TableError: it does not say.
    """
    found = _TCP_REPLY.fullmatch(reply)
    try:
        text = unquote_tcp(found[2]) if found is not None else None
    except ValueError:
        text = None
    if found is None or text is None:
        raise TableError(f"{name}: malformed reply: {_shown(reply)}")
    match found[1]:
        case b"200":
            return text
        case b"500":
            return None
        case b"400":
            raise TableError(f"{name}: the server says: {_shown(text)}")
    raise TableError(f"{name}: bad status code: {_shown(reply)}")


_SOCKETMAP_ERRORS = {b"TEMP": "temporary", b"TIMEOUT": "timeout", b"PERM": "permanent"}


def read_socketmap(name: str, reply: bytes) -> bytes | None:
    """
    @param name: C{type:name}, for messages.
    @return: the value that a reply gives.
    @raise TableError: it does not say.
    """
    status, _, text = reply.partition(b" ")
    if status == b"OK":
        return text
    if status == b"NOTFOUND":
        return None
    error = _SOCKETMAP_ERRORS.get(status, "unknown")
    raise TableError(f"{name}: socketmap server {error} error: {_shown(text)}")


@implementer(ILookupTable)
class ServerTable:
    """
    A table on a server.

    @param name: C{type:name}.
    @param client: the connections.
    @param request: makes a request of a key.
    @param read: gets the value out of a reply.
    """

    fixed_keys = False
    immediate = False
    stable = False
    sources: Sequence[str] = ()

    def __init__(
        self,
        name: str,
        client: TableClient,
        request: Callable[[bytes], bytes],
        read: Callable[[str, bytes], bytes | None],
    ) -> None:
        self.name = name
        self._client = client
        self._request = request
        self._read = read

    def lookup(self, key: bytes) -> Deferred[bytes | None]:
        """See L{ILookupTable}."""
        return cast(
            "Deferred[bytes | None]", self._client.ask(self._request(key)).addCallback(self._value, key)
        )

    def _value(self, reply: bytes, key: bytes) -> bytes | None:
        return not_empty(self.name, key, self._read(self.name, reply))

    def close(self) -> None:
        """See L{ILookupTable}."""
        self._client.close()


def _host(place: str, table: str, context: TableContext) -> IStreamClientEndpoint:
    """
    @param place: C{host:port}, C{[address]:port}.
    @raise ConfigError: it is none.
    """
    host, colon, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port:
        raise ConfigError(f'{context.parameter}: bad server "{place}" in {table}; write host:port')
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f'{context.parameter}: bad port "{port}" in {table}; write a number to 65535')
    return HostnameEndpoint(context.reactor, host, int(port), ServerLimits.of(context.setting).timeout)


def _reactor(context: TableContext, table: str) -> Any:
    if context.reactor is None:
        raise ConfigError(f"{context.parameter}: {table}: a table on a server cannot be asked here")
    return context.reactor


@implementer(ILookupTableType)
class TcpType:
    """Opens C{tcp:} tables."""

    type = "tcp"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        table = f"tcp:{name}"
        reactor = _reactor(context, table)
        limit = integer(context.setting, "tcp_table_reply_size_limit")

        def reader() -> ReplyReader:
            return LineReader(limit)

        limits = ServerLimits.of(context.setting)
        client = TableClient(table, _host(name, table, context), limits, reactor, reader)
        return ServerTable(table, client, lambda key: b"get %b\n" % quote_tcp(key), read_tcp)


@implementer(ILookupTableType)
class SocketmapType:
    """Opens C{socketmap:} tables."""

    type = "socketmap"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        table = f"socketmap:{name}"
        reactor = _reactor(context, table)
        place, colon, map_name = name.rpartition(":")
        kind, _, where = place.partition(":")
        if not colon or not where or kind not in ("inet", "unix"):
            raise ConfigError(
                f"{context.parameter}: {table}: write socketmap:inet:host:port:name or "
                "socketmap:unix:pathname:name"
            )
        limits = ServerLimits.of(context.setting)
        if kind == "inet":
            endpoint = _host(where, table, context)
        elif where.startswith("/"):
            endpoint = UNIXClientEndpoint(reactor, where, limits.timeout)  # type: ignore[no-untyped-call]
        else:
            raise ConfigError(f"{context.parameter}: {table}: the path must be absolute")
        limit = integer(context.setting, "socketmap_reply_size_limit")

        def reader() -> ReplyReader:
            return SocketmapReader(limit)

        client = TableClient(table, endpoint, limits, reactor, reader)
        prefix = map_name.encode("utf-8", "surrogateescape") + b" "
        return ServerTable(table, client, lambda key: encode(prefix + key), read_socketmap)
