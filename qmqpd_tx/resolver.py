"""
The DNS resolver of one mail system. Part of the composition root.

Takes C{dns_resolver_addresses}; gives an L{IResolver<twisted.internet.interfaces.IResolver>}: /etc/hosts,
then those servers, or else the ones in /etc/resolv.conf, which is looked at again every minute. Keeps no
answers: that is for a name server on this machine or near it. Asks nobody by itself. A server that is not an
address is a L{ConfigError}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IResolver
from twisted.names.client import Resolver
from twisted.names.dns import PORT
from twisted.names.hosts import Resolver as HostsResolver
from twisted.names.resolve import ResolverChain

from qmqpd_tx.interfaces import ConfigError, IConfig

PARAMETER = "dns_resolver_addresses"
RESOLV_CONF = "/etc/resolv.conf"


def dns_servers(config: IConfig) -> Sequence[tuple[str, int]]:
    """
    @return: address and port of each server in C{dns_resolver_addresses}.
    @raise ConfigError: one is not C{address}, C{address:port} or C{[address]:port}.
    """
    return [_server(word) for word in config.words(PARAMETER)]


def _server(word: str) -> tuple[str, int]:
    host, port = word, str(PORT)
    if word.startswith("[") or word.count(":") == 1:
        host, colon, rest = word.removeprefix("[").rpartition("]" if word.startswith("[") else ":")
        port = (rest.removeprefix(":") if word.startswith("[") else rest) or port
        host = host if colon else word
    try:
        address = str(ipaddress.ip_address(host))
        number = int(port) if port.isascii() and port.isdigit() else 0
        if not 0 < number < 65536:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{PARAMETER}: {word} is not a DNS server: write address, address:port or [address]:port"
        ) from None
    return address, number


def make_resolver(reactor: Any, config: IConfig, frozen: bool) -> IResolver:
    """
    @param reactor: asks, and has the time.
    @param config: C{dns_resolver_addresses}.
    @param frozen: whether /etc/resolv.conf is to be read now and never again: it is out of reach later
        (C{twistd --chroot}).
    @raise ConfigError: a server cannot be used.
    """
    servers = dns_servers(config)
    if servers:
        client = Resolver(None, [*servers], reactor=reactor)  # type: ignore[no-untyped-call]
    else:
        try:
            client = Resolver(RESOLV_CONF, reactor=reactor)  # type: ignore[no-untyped-call]
        except OSError as problem:
            raise ConfigError(
                f"{RESOLV_CONF}: cannot be read: {problem.strerror}; make it readable or set {PARAMETER}"
            ) from None
        if frozen:
            client._parseCall.cancel()
    chain = ResolverChain(  # type: ignore[no-untyped-call]
        [HostsResolver("/etc/hosts"), client]  # type: ignore[no-untyped-call]
    )
    return IResolver(chain)
