"""
SMTP destination syntax: what a nexthop says.

Takes the nexthop of a route (or one word of C{smtp_fallback_relay}); gives where to look and which port.
Pure. Fails with L{BadNexthop} in the words smtp(8) uses; a bad nexthop is a mistake in transport_maps or
relayhost, so the mail waits for its repair. Answers to smtp(8), section SMTP DESTINATION SYNTAX.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from qmqpd_tx.transports.smtp.settings import port_number

_SEPARATORS = re.compile(r"[\s,]+")
# Postfix takes underscores; no empty, overlong or hyphen-edged labels; and no all-numeric last label.
_LABEL = r"(?!-)[A-Za-z0-9_\-\u0080-\U0010ffff]{1,63}(?<!-)"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


class BadNexthop(Exception):
    """A nexthop that makes no sense; the text says why."""


@frozen(slots=True)
class Target:
    """
    One SMTP destination.

    @ivar host: a host or domain name, or a network address without brackets and C{ipv6:}.
    @ivar port: where to connect.
    @ivar literal: C{host} is a network address: it never goes to the DNS.
    @ivar use_mx: look up mail exchangers first.
    @ivar default_port: C{port} is the standard one; only then can an MX list loop back to us.
    """

    host: str
    port: int
    literal: bool
    use_mx: bool
    default_port: bool


def literal_address(text: str) -> str | None:
    """
    @return: the network address in its usual form, or L{None} when the text is none.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def parse_target(word: str, tcp_port: int) -> Target:
    """
    @param word: C{domain}, C{domain:port}, C{[host]}, C{[address]:port}, C{[ipv6:address]}, ...
    @param tcp_port: the port when the destination names none (C{smtp_tcp_port}).
    @return: what it says.
    @raise BadNexthop: it is none of these.
    """
    bracketed = word.startswith("[")
    if bracketed:
        host, closed, rest = word[1:].partition("]")
        if not closed:
            raise BadNexthop(f'missing "]" in server description: {word}')
        if rest and not rest.startswith(":"):
            raise BadNexthop(f'garbage after "]" in server description: {word}')
        service = rest[1:]
    else:
        host, _, service = word.partition(":")
    if bracketed and host[:5].lower() == "ipv6:":
        host = host[5:]
    address = literal_address(host)
    if address is None and (
        not _HOSTNAME.fullmatch(host) or len(host) > 255 or host.rstrip(".").rpartition(".")[2].isdigit()
    ):
        raise BadNexthop(f"valid hostname or network address required in server description: {word}")
    port = port_number(service) if service else tcp_port
    if port is None:
        raise BadNexthop(f"unknown service: {service}/tcp in server description: {word}")
    return Target(
        host=address if address is not None else host,
        port=port,
        literal=address is not None,
        use_mx=not bracketed and address is None,
        default_port=port == tcp_port,
    )


def parse_nexthop(nexthop: str, tcp_port: int) -> list[Target]:
    """
    @param nexthop: one or more destinations, separated by comma or white space, to be tried in order.
    @param tcp_port: the port of those that name none.
    @return: at least one target.
    @raise BadNexthop: there is none, or one of them makes no sense.
    """
    words = [word for word in _SEPARATORS.split(nexthop) if word]
    if not words:
        raise BadNexthop("empty SMTP destination: name a domain, [host] or [address]")
    return [parse_target(word, tcp_port) for word in words]


def bare_name(nexthop: str) -> str:
    """
    @return: the nexthop without C{[]} and port, lower case: the form that
        C{smtp_connection_cache_destinations} lists.
    """
    host = nexthop[1:].partition("]")[0] if nexthop.startswith("[") else nexthop.partition(":")[0]
    return host.lower()
