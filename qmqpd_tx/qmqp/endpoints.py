"""
Where to listen: from master.cf's service column to Twisted endpoint descriptions. Pure, but for the names
of ports and hosts that the system is asked for.

A C{qmqpd} line's service is a port (C{628}, or a name from services(5)) on C{inet_interfaces}, a
C{host:port}, or a description that L{serverFromString<twisted.internet.endpoints.serverFromString>}
understands, as in C{unix:/run/qmqp} or C{systemd:domain=INET:index=0}. Fails with L{ConfigError}, naming
the service. Answers to master(5), "Service name".
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from qmqpd_tx.interfaces import ConfigError, IConfig

BACKLOG = 256
"""How many clients wait in the kernel until they are accepted."""

DEFAULT_SERVICE = "628"
"""The port of QMQP, where there is no master.cf."""

_BUILT_IN = frozenset({"tcp", "ssl", "unix"})
_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


def endpoint_descriptions(service: str, config: IConfig, service_type: str = "inet") -> Sequence[str]:
    """
    @param service: master.cf's service column.
    @param config: C{inet_interfaces} and C{inet_protocols}.
    @param service_type: master.cf's type column; anything but C{inet} needs a Twisted endpoint.
    @return: Twisted endpoint descriptions, one for each socket.
    @raise ConfigError: it cannot be understood.
    """
    kind = service.partition(":")[0]
    if ":" in service and (kind in _BUILT_IN or kind in _plugin_kinds()):
        return [service]
    if service_type != "inet":
        raise ConfigError(
            f"service {service}: qmqpd listens on type inet only; for a socket in the file system write "
            f"unix:/PATH as the service"
        )
    host, colon, port_name = service.rpartition(":")
    port = _port(port_name, service)
    families = _families(config)
    if colon and host:
        hosts: Sequence[str] = [host]
    else:
        hosts = config.words("inet_interfaces")
    if not hosts:
        raise ConfigError("inet_interfaces is empty: name the addresses to listen on, or use all")
    return [_describe(address, port) for address in dict.fromkeys(_addresses(hosts, families, service))]


def _plugin_kinds() -> frozenset[str]:
    return frozenset(parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser))


def _port(name: str, service: str) -> int:
    if name.isascii() and name.isdigit():
        port = int(name)
    else:
        try:
            port = socket.getservbyname(name, "tcp")
        except OSError:
            raise ConfigError(
                f"service {service}: {name} is not a port; use a number, host:port or a Twisted endpoint"
            ) from None
    if not 0 < port < 65536:
        raise ConfigError(f"service {service}: a port is a number from 1 to 65535")
    return port


def _families(config: IConfig) -> Sequence[socket.AddressFamily]:
    words = config.words("inet_protocols")
    if "all" in words:
        words = ["ipv6", "ipv4"] if _have_ipv6() else ["ipv4"]
    families = [_FAMILIES[word] for word in words if word in _FAMILIES]
    if not families:
        raise ConfigError(f"inet_protocols = {', '.join(words)}: use all, ipv4 or ipv6")
    return families


def _have_ipv6() -> bool:
    # Where IPv6 is switched off there may be sockets for it, but no address.
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _addresses(hosts: Sequence[str], families: Sequence[socket.AddressFamily], service: str) -> Iterator[str]:
    for host in hosts:
        if host == "all":
            # One IPv6 socket serves both families, as Linux does by default.
            yield "::" if socket.AF_INET6 in families else "0.0.0.0"
        elif host == "loopback-only":
            if socket.AF_INET in families:
                yield "127.0.0.1"
            if socket.AF_INET6 in families:
                yield "::1"
        else:
            yield from _look_up(host.removeprefix("[").removesuffix("]"), families, service)


def _look_up(host: str, families: Sequence[socket.AddressFamily], service: str) -> Iterator[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise ConfigError(f"service {service}: cannot find the address of {host}: {problem}") from None
    addresses = [str(address[0]) for family, _, _, _, address in found if family in families]
    if not addresses:
        raise ConfigError(f"service {service}: {host} has no address of the kind that inet_protocols allows")
    yield from addresses


def _describe(address: str, port: int) -> str:
    kind = "tcp6" if ":" in address else "tcp"
    quoted = quoteStringArgument(address)  # type: ignore[no-untyped-call]
    return f"{kind}:{port}:interface={quoted}:backlog={BACKLOG}"
