"""
The network addresses of this mail system.

Takes C{inet_interfaces} and C{proxy_interfaces}, gives the set of addresses. C{all} asks the operating
system for the addresses of its interfaces; a host name is looked up in the system's way. Called at
start-up and reload only: a look-up may block. Fails with L{ConfigError} that names the parameter and
the host. Whether a single address is this machine's can be asked at any time (L{is_local_address}). Answers
to Postfix's own_inet_addr.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from qmqpd_tx.interfaces import ConfigError, IConfig

Address = IPv4Address | IPv6Address

_SIOCGIFADDR = 0x8915
_LOOPBACK = ("127.0.0.1", "::1")


def interface_addresses() -> Iterator[Address]:
    """
    @return: the addresses of all network interfaces (Linux; elsewhere those of the host's own name).
    """
    yield from map(ip_address, _LOOPBACK)
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as stream:
            for line in stream:
                yield IPv6Address(bytes.fromhex(line[:32]))
    except (OSError, ValueError):
        yield from _look_up(socket.gethostname())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue
            yield IPv4Address(answer[20:24])


def _look_up(host: str) -> Iterator[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for *_, address in found:
        yield ip_address(str(address[0]).partition("%")[0])


def _listed(words: Iterable[str], parameter: str) -> Iterator[Address]:
    for word in words:
        if word == "all":
            yield from interface_addresses()
        elif word == "loopback-only":
            yield from map(ip_address, _LOOPBACK)
        else:
            try:
                yield ip_address(word.strip("[]"))
            except ValueError:
                found = list(_look_up(word))
                if not found:
                    raise ConfigError(
                        f"{parameter}: host not found: {word}; write its address, or correct the name"
                    ) from None
                yield from found


def is_local_address(address: str) -> bool:
    """
    @param address: an IPv4 or IPv6 address.
    @return: whether this machine has it now: whether a socket can be bound to it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def own_addresses(config: IConfig) -> frozenset[Address]:
    """
    @return: the addresses on which this system receives mail, by itself or through a proxy.
    @raise ConfigError: a host name in the parameters cannot be found.
    """
    return frozenset(
        address
        for parameter in ("inet_interfaces", "proxy_interfaces")
        for address in _listed(config.words(parameter), parameter)
    )
