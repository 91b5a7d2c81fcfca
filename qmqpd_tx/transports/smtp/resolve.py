"""
Where to connect: from a destination to a list of hosts with addresses, in the order to try them.

Takes a L{Target}; asks an L{IResolver<twisted.internet.interfaces.IResolver>} for MX, A and AAAA records
(or the system's own name service, C{smtp_host_lookup = native}); network addresses are never looked up.
Fails with L{Unresolved}, which says whether trying later can help. Order of RFC 5321 section 5.1: by
preference, hosts of equal preference and their addresses in random order, ourselves and everything
worse dropped, no MX records means the domain itself; null MX of RFC 7505. Answers to smtp(8), in its
words.

Loops are looked for where the DNS decides, on the standard port. A C{[host]} in main.cf that is this
machine is not one, other than in Postfix: we have no SMTP server that it could be.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IResolver
from twisted.names import dns, error

from qmqpd_tx.address.internationalized import ascii_domain
from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.events import Logger
from qmqpd_tx.transports.smtp.nexthop import Target, literal_address
from qmqpd_tx.transports.smtp.settings import Settings

log = Logger(namespace="qmqpd_tx.smtp")

_CNAME_LIMIT = 10
_TIMEOUTS = (1, 3, 11, 45)
"""Seconds for each try of a DNS query, as twisted.names has them."""

AddressInfo = Sequence[tuple[Any, ...]]
"""What L{socket.getaddrinfo} gives."""


@frozen(slots=True)
class Host:
    """
    One place to try.

    @ivar name: the host's name, for log and reports.
    @ivar address: its network address.
    @ivar port: where to connect.
    """

    name: str
    address: str
    port: int


class Unresolved(Exception):
    """
    A destination without a usable host.

    @ivar permanent: whether trying later is pointless.
    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    """

    def __init__(self, permanent: bool, dsn: str, text: str) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.dsn = dsn
        self.text = text


def _not_found(failure: Exception) -> bool:
    """NXDOMAIN, as opposed to a server that failed or did not answer."""
    if isinstance(failure, error.DNSNameError | error.AuthoritativeDomainError):
        return True
    return type(failure) is error.DomainError


def _dns_failure(name: str, kind: str, what: str, permanent: bool) -> Unresolved:
    return Unresolved(
        permanent,
        "5.4.4" if permanent else "4.4.3",
        f"Host or domain name not found. Name service error for name={name} type={kind}: {what}",
    )


class HostFinder:
    """Finds the hosts of destinations for one transport."""

    def __init__(
        self,
        settings: Settings,
        resolver: IResolver,
        getaddrinfo: Callable[[str, int], Deferred[AddressInfo]],
        rng: random.Random,
        is_local: Callable[[str], bool] = is_local_address,
    ) -> None:
        """
        @param settings: the transport's.
        @param resolver: for the DNS.
        @param getaddrinfo: the system's name service, off the reactor thread: host name and socket
            family to what L{socket.getaddrinfo} gives.
        @param rng: for the order among equals.
        @param is_local: whether an address is ours.
        """
        self._settings = settings
        self._resolver = resolver
        self._getaddrinfo = getaddrinfo
        self._rng = rng
        self._is_local = is_local

    async def find(self, target: Target) -> list[Host]:
        """
        @return: at least one host, in the order to try them.
        @raise Unresolved: there is none.
        """
        if target.literal:
            family = "ipv6" if ":" in target.host else "ipv4"
            if family not in self._settings.families:
                raise Unresolved(
                    True,
                    "5.4.4",
                    f"Name service error for {target.host}: invalid host or domain name"
                    f" ({family} is not enabled in inet_protocols)",
                )
            return [Host(target.host, target.host, target.port)]
        host = ascii_domain(target.host, self._settings.idna2003)
        if host is None:
            raise Unresolved(
                True,
                "5.4.4",
                f"Name service error for {target.host}: invalid host or domain name"
                f" (it has no form for the DNS)",
            )
        if target.use_mx and self._settings.use_dns:
            addresses = await self._by_mx(target, host)
        else:
            addresses = self._mixed(host, await self._addresses(host))
        return [Host(name, address, target.port) for name, address in self._limited(addresses)]

    # --- MX ---------------------------------------------------------------------------------------

    async def _by_mx(self, target: Target, host: str) -> list[tuple[str, str]]:
        domain = host.rstrip(".")
        records = await self._mx_records(domain)
        if not records:
            addresses = self._mixed(domain, await self._addresses(domain))
            if target.default_port and any(self._ours(name, address) for name, address in addresses):
                raise self._loop(domain)
            return addresses
        if any(not name for _, name in records):
            raise Unresolved(True, "5.1.0", f"Domain {domain} does not accept mail (nullMX)")
        by_preference: dict[int, list[tuple[str, str]]] = {}
        own_preference: int | None = None
        last: Unresolved | None = None
        # Each name may cost the whole time of a DNS query, and an answer has room for thousands.
        for preference, name in sorted(records)[: self._settings.mx_lookup_limit or None]:
            try:
                found = await self._addresses(name)
            except Unresolved as failure:
                # A name that may have an address later says more than one that has none.
                if last is None or last.permanent:
                    last = failure
                continue
            mixed = self._mixed(name, found)
            if target.default_port and any(self._ours(name, address) for _, address in mixed):
                own_preference = preference
                break
            by_preference.setdefault(preference, []).extend(mixed)
        if own_preference is not None:
            by_preference.pop(own_preference, None)
            if not by_preference:
                raise self._loop(domain)
        if not by_preference:
            log.warn("no MX host for {domain} has a valid address record", domain=domain)
            assert last is not None
            if last.permanent and self._settings.defer_if_no_mx_address_found:
                raise Unresolved(False, "4" + last.dsn[1:], last.text)
            raise last
        ordered: list[tuple[str, str]] = []
        for preference in sorted(by_preference):
            ordered.extend(self._shuffled(by_preference[preference]))
        return ordered

    async def _mx_records(self, domain: str) -> list[tuple[int, str]]:
        """@return: preference and host name of each; C{""} is the null MX."""
        name = domain
        for _ in range(_CNAME_LIMIT):
            try:
                answers: Any = (await self._resolver.lookupMailExchange(name, _TIMEOUTS))[0]
            except CancelledError:
                raise
            except Exception as failure:
                if _not_found(failure):
                    return []
                if self._settings.ignore_mx_lookup_error:
                    return []
                raise _dns_failure(domain, "MX", "Host not found, try again", False) from failure
            records = []
            alias = ""
            for header in answers:
                payload = header.payload
                if header.type == dns.MX:
                    exchange = payload.name.name.decode("ascii", "replace").rstrip(".")
                    records.append((payload.preference, exchange))
                elif header.type == dns.CNAME:
                    alias = payload.name.name.decode("ascii", "replace").rstrip(".")
            if records or not alias:
                return records
            name = alias
        raise _dns_failure(domain, "MX", "too many aliases", True)

    def _loop(self, domain: str) -> Unresolved:
        return Unresolved(True, "5.4.6", f"mail for {domain} loops back to myself")

    def _ours(self, name: str, address: str) -> bool:
        settings = self._settings
        if name.lower().rstrip(".") == settings.myhostname.lower().rstrip("."):
            return True
        if address in settings.proxy_interfaces:
            return True
        interfaces = settings.inet_interfaces
        if "all" in interfaces:
            return self._is_local(address)
        if "loopback-only" in interfaces:
            return address.startswith("127.") or address == "::1"
        return address in [interface.strip("[]") for interface in interfaces]

    # --- addresses --------------------------------------------------------------------------------

    async def _addresses(self, name: str) -> list[str]:
        """@return: the addresses of a host, at least one."""
        literal = literal_address(name)
        if literal is not None:
            return [literal]
        settings = self._settings
        failure: Unresolved | None = None
        if "dns" in settings.host_lookup:
            try:
                return await self._dns_addresses(name)
            except Unresolved as unresolved:
                failure = unresolved
        if "native" in settings.host_lookup:
            return await self._native_addresses(name)
        assert failure is not None
        raise failure

    async def _dns_addresses(self, name: str) -> list[str]:
        found: list[str] = []
        lasting = True
        what = "Host found but no data record of requested type"
        kinds = [("ipv4", "A", dns.A), ("ipv6", "AAAA", dns.AAAA)]
        last_kind = "A"
        for family, kind, record_type in kinds:
            if family not in self._settings.families:
                continue
            last_kind = kind
            lookup = (
                self._resolver.lookupAddress if record_type == dns.A else self._resolver.lookupIPV6Address
            )
            try:
                answers: Any = (await lookup(name, _TIMEOUTS))[0]
            except CancelledError:
                raise
            except Exception as failure:
                if _not_found(failure):
                    what = "Host not found"
                else:
                    lasting = False
                continue
            found.extend(
                header.payload.dottedQuad() if record_type == dns.A else _ipv6(header.payload)
                for header in answers
                if header.type == record_type
            )
        if found:
            return found
        if not lasting:
            what = "Host not found, try again"
        raise _dns_failure(name, last_kind, what, lasting)

    async def _native_addresses(self, name: str) -> list[str]:
        families = self._settings.families
        family = socket.AF_UNSPEC
        if len(families) == 1:
            family = socket.AF_INET if "ipv4" in families else socket.AF_INET6
        try:
            answers = await self._getaddrinfo(name, family)
        except socket.gaierror as failure:
            reason = failure.strerror or str(failure)
            if failure.errno == socket.EAI_AGAIN:
                raise Unresolved(False, "4.4.3", f"unable to look up host {name}: {reason}") from failure
            dsn = "5.4.4" if failure.errno == socket.EAI_NONAME else "5.3.0"
            raise Unresolved(True, dsn, f"unable to look up host {name}: {reason}") from failure
        except (OSError, UnicodeError) as failure:
            reason = os.strerror(failure.errno) if isinstance(failure, OSError) and failure.errno else ""
            raise Unresolved(
                True, "5.4.4", f"unable to look up host {name}: {reason or 'bad host name'}"
            ) from failure
        found = dict.fromkeys(str(answer[4][0]) for answer in answers)
        if not found:
            raise Unresolved(True, "5.4.4", f"unable to look up host {name}: no address")
        return list(found)

    # --- order ------------------------------------------------------------------------------------

    def _mixed(self, name: str, addresses: list[str]) -> list[tuple[str, str]]:
        return self._shuffled([(name, address) for address in addresses])

    def _shuffled(self, hosts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        hosts = list(hosts)
        if self._settings.randomize_addresses:
            self._rng.shuffle(hosts)
        preferred = self._settings.address_preference
        if preferred != "any":
            hosts.sort(key=lambda host: (":" in host[1]) != (preferred == "ipv6"))
        return hosts

    def _limited(self, hosts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        limit = self._settings.mx_address_limit
        if not limit or len(hosts) <= limit:
            return hosts
        kept = hosts[:limit]
        if self._settings.balance_inet_protocols and limit > 1:
            # Both address types get a try before the limit, as far as both exist.
            families = {":" in address for _, address in kept}
            if len(families) == 1:
                other = next((host for host in hosts[limit:] if (":" in host[1]) not in families), None)
                if other is not None:
                    kept[-1] = other
        return kept


def _ipv6(payload: Any) -> str:
    return socket.inet_ntop(socket.AF_INET6, payload.address)
