"""
Where the mail for an address goes next.

Takes a recipient in internal form (cleanup(8) has made it complete; one without a domain is made
complete here all the same), gives a L{Route}: transport, nexthop, and the recipient for the next hop.
Synchronous, without I/O: tables and lists are read when the router is made or given a new
configuration. Never fails: what makes no sense as an address gets a route to the C{error} transport.
Answers to the I{resolve} service of trivial-rewrite(8), watched side by side (tests/interop):

  1. A domain of this system in a routed address (C{user%other@here}, C{other!user@here}, C{user@other@here})
     is taken off, as long as there is one.
  2. The address class of the domain gives transport and nexthop: local (C{mydestination}, own address
     literals), virtual alias, virtual mailbox, relay, default.
  3. C{relayhost} is the nexthop of the relay and default classes where their transport names none.
  4. C{transport_maps} overrides either or both.

What a domain gives is kept for the domains seen last, so that the usual recipient costs a split and a
dictionary look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen
from zope.interface import implementer

from qmqpd_tx.address.own import own_addresses
from qmqpd_tx.address.syntax import (
    literal_address,
    needs_quotes,
    numeric_domain,
    strip_source_route,
    valid_address,
)
from qmqpd_tx.address.transport_maps import Override, TransportMaps, parse_route
from qmqpd_tx.interfaces import IConfig, IRouter
from qmqpd_tx.message import Route
from qmqpd_tx.tables import DomainMatchList, TableList

BAD_SYNTAX = "5.1.3 bad address syntax"
UNDELIVERABLE = "Address is undeliverable"
UNKNOWN_ALIAS = "5.1.1 User unknown in virtual alias table"

_ROUTING = re.compile(rb"[@%!]")
_PLAIN_LOCAL = re.compile(rb"(?!-)[\x22-$&-?A-~]+")
"""
Local parts that give no cause to look twice: printable ASCII without C{@}, C{%}, C{!} and space, and
no C{-} at the start.
"""

_OwnAddresses = Callable[[IConfig], Collection[IPv4Address | IPv6Address]]


@frozen(slots=True)
class _Domain:
    """
    What a domain gives.

    @ivar local: whether mail for it ends here.
    @ivar transport: by its class, or by transport_maps.
    @ivar nexthop: likewise.
    @ivar by_class: transport and nexthop before transport_maps, for an address with its own entry.
    """

    local: bool
    transport: str
    nexthop: str
    by_class: Override


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _fold_domain(domain: bytes) -> str:
    text = _text(domain)
    return text.lower() if domain.isascii() else text.casefold()


class _Settings:
    """One configuration of the router, ready for use."""

    def __init__(self, config: IConfig, own: _OwnAddresses) -> None:
        parents = config.words("parent_domain_matches_subdomains")

        def domains(parameter: str) -> DomainMatchList:
            return DomainMatchList(config.words(parameter), parameter, exact=True)

        self.mydestination = domains("mydestination")
        self.virtual_alias_domains = domains("virtual_alias_domains")
        self.virtual_mailbox_domains = domains("virtual_mailbox_domains")
        self.relay_domains = DomainMatchList(
            config.words("relay_domains"), "relay_domains", "relay_domains" in parents
        )
        self.own = frozenset(own(config))
        self.local_transport = parse_route(config.string("local_transport"))
        self.virtual_transport = parse_route(config.string("virtual_transport"))
        self.relay_transport = parse_route(config.string("relay_transport"))
        self.default_transport = parse_route(config.string("default_transport"))
        self.relayhost = config.string("relayhost").strip()
        delimiters = config.string("recipient_delimiter").encode()
        tables = TableList(config.string("transport_maps"), "transport_maps")
        self.maps = TransportMaps(tables, delimiters, "transport_maps" in parents)
        self.hostname = config.string("myhostname").encode()
        self.origin = config.string("myorigin").encode()
        self.parent = config.string("mydomain").encode()
        self.null_recipient = config.string("empty_address_recipient").encode() + b"@" + self.hostname
        self.append_origin = config.boolean("append_at_myorigin")
        self.append_domain = config.boolean("append_dot_mydomain")
        self.swap_bangpath = config.boolean("swap_bangpath")
        self.percent_hack = config.boolean("allow_percent_hack")
        self.dequoted = config.boolean("resolve_dequoted_address")
        self.null_domain = config.boolean("resolve_null_domain")
        self.numeric_domain = config.boolean("resolve_numeric_domain")
        self.allow_min_user = config.boolean("allow_min_user")

    def is_local(self, domain: bytes) -> bool:
        if domain.startswith(b"["):
            address = literal_address(domain)
            return address is not None and address in self.own
        return self.mydestination.matches(_text(domain))

    def by_class(self, domain: bytes, local: bool) -> Override:
        """Transport and nexthop of the domain's address class."""
        text = _text(domain)
        relayhost = ""
        if local:
            route = self.local_transport
        elif self.virtual_alias_domains.matches(text):
            return Override("error", UNKNOWN_ALIAS)
        elif self.virtual_mailbox_domains.matches(text):
            route = self.virtual_transport
        elif self.relay_domains.matches(text):
            route, relayhost = self.relay_transport, self.relayhost
        else:
            route, relayhost = self.default_transport, self.relayhost
        return Override(
            route.transport, route.nexthop or relayhost or _default_nexthop(route.transport, domain)
        )

    def domain(self, domain: bytes) -> _Domain:
        local = self.is_local(domain)
        by_class = self.by_class(domain, local)
        override = self.maps.by_domain(domain) if self.maps else None
        route = by_class if override is None else _apply(override, by_class, domain)
        return _Domain(local, route.transport, route.nexthop, by_class)


def _default_nexthop(transport: str, domain: bytes) -> str:
    return UNDELIVERABLE if transport in ("error", "retry") else _fold_domain(domain)


def _apply(override: Override, by_class: Override, domain: bytes) -> Override:
    if override.transport:
        return Override(override.transport, override.nexthop or _default_nexthop(override.transport, domain))
    return Override(by_class.transport, override.nexthop or by_class.nexthop)


@implementer(IRouter)
class Router:
    """
    @param config: the configuration.
    @param own: gives the network addresses of this system under a configuration.
    @param cache_size: for how many domains the answer is kept.
    @raise ConfigError: a table or list in the configuration cannot be used.
    """

    def __init__(self, config: IConfig, own: _OwnAddresses = own_addresses, cache_size: int = 10_000) -> None:
        self._own = own
        self._cache_size = cache_size
        self._domains: dict[bytes, _Domain] = {}
        self._settings = _Settings(config, own)

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration from now on; tables are read again.

        @raise ConfigError: it cannot be used; the router goes on as before.
        """
        self._settings = _Settings(config, self._own)
        self._domains = {}

    def resolve(self, sender: bytes, recipient: bytes) -> Route:
        """
        @param sender: the envelope sender (for the sender-dependent maps, which have no effect yet).
        @param recipient: in internal form.
        @return: where to, always.
        """
        local, at, domain = recipient.rpartition(b"@")
        known = self._domains.get(domain) if at else None
        if known is None or not _PLAIN_LOCAL.fullmatch(local):
            return self._resolve_slowly(recipient)
        if self._settings.maps:
            return self._with_maps(known, local, domain, recipient)
        return Route(known.transport, known.nexthop, recipient)

    def _resolve_slowly(self, recipient: bytes) -> Route:
        settings = self._settings
        address = self._settle(settings, recipient)
        if not valid_address(address) or (address.startswith(b"-") and not settings.allow_min_user):
            return Route("error", BAD_SYNTAX, address)
        local, _, domain = address.rpartition(b"@")
        known = self._domains.get(domain)
        if known is None:
            known = settings.domain(domain)
            if len(self._domains) >= self._cache_size:
                self._domains.clear()
            self._domains[domain] = known
        return self._with_maps(known, local, domain, address)

    def _with_maps(self, known: _Domain, local: bytes, domain: bytes, address: bytes) -> Route:
        override = self._settings.maps.by_address(local, domain) if self._settings.maps else None
        if override is None:
            return Route(known.transport, known.nexthop, address)
        route = _apply(override, known.by_class, domain)
        return Route(route.transport, route.nexthop, address)

    @staticmethod
    def _settle(settings: _Settings, address: bytes) -> bytes:
        """
        Complete an address, and take local domains off a routed one.

        Each turn makes the address shorter, or gives it the domain that it lacks, once.
        """
        address = strip_source_route(address)
        if not address:
            return settings.null_recipient
        completed = False
        while True:
            local, at, domain = address.rpartition(b"@")
            if not at:
                if (unrouted := _unroute(settings, address)) is not None:
                    address = unrouted
                    continue
                if completed:
                    return address
                completed = True
                address += b"@" + (settings.origin if settings.append_origin else settings.hostname)
                continue
            if len(domain) > 1 and domain.endswith(b"."):
                domain = domain[:-1]
            if not domain:
                if b"@" in local:
                    address = local
                    continue
                if not settings.null_domain:
                    return address
                domain = settings.hostname
            elif settings.numeric_domain and numeric_domain(domain):
                domain = b"[" + (b"IPv6:" if b":" in domain else b"") + domain + b"]"
            elif settings.append_domain and settings.parent and b"." not in domain and domain[:1] != b"[":
                domain += b"." + settings.parent
            address = local + b"@" + domain
            if not (_ROUTING.search(local) and settings.is_local(domain)):
                return address
            if needs_quotes(local) and not settings.dequoted:
                return address
            if b"@" in local:
                address = local
                continue
            if (unrouted := _unroute(settings, local)) is None:
                return address
            address = unrouted


def _unroute(settings: _Settings, local: bytes) -> bytes | None:
    """
    Turn C{site!user} or C{user%site} into C{user@site}.

    @return: the address, or L{None} when the local part names no site.
    """
    if settings.swap_bangpath and b"!" in local:
        site, _, user = local.partition(b"!")
        return user + b"@" + site
    if settings.percent_hack and b"%" in local:
        user, _, site = local.rpartition(b"%")
        return user + b"@" + site
    return None
