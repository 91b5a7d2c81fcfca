"""
Where the mail for an address goes next.

Takes a sender and a recipient in internal form (cleanup(8) has made it complete; one without a domain is made
complete here all the same), gives a L{Route}: transport, nexthop, and the recipient for the next hop; or a
Deferred of one, when a table has to ask somebody. Never fails: what makes no sense as an address gets a route
to the C{error} transport, and what depends on a table that cannot say one to C{retry}, so that mail waits and
no table's trouble bounces it. Answers to the I{resolve} service of trivial-rewrite(8), watched side by side
(tests/interop):

  1. A domain of this system in a routed address (C{user%other@here}, C{other!user@here}, C{user@other@here})
     is taken off, as long as there is one.
  2. The address class of the domain gives transport and nexthop: local (C{mydestination}, own address
     literals), virtual alias, virtual mailbox, relay, default. For the default class the sender's entry in
     C{sender_dependent_default_transport_maps} comes before C{default_transport}.
  3. The sender's entry in C{sender_dependent_relayhost_maps}, or C{relayhost}, is the nexthop of the relay
     and default classes where their transport names none.
  4. C{transport_maps} overrides either or both, but for virtual alias domains.
  5. C{relocated_maps}, and with C{resolve_reject_unknown_recipients} the recipient tables of the class,
     override all of that.

What a domain gives is kept for the domains seen last, so that the usual recipient costs a split and a
dictionary look-up; what depends on the sender or the whole address is looked up each time, and nothing is
kept of a table or list that may answer otherwise the next time.
"""

from __future__ import annotations

import re

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from qmqpd_tx.address.address_maps import AddressTables, RecipientMaps, SenderMaps, SenderTransports
from qmqpd_tx.address.classes import AddressClass, AddressClasses, OwnAddresses
from qmqpd_tx.address.own import own_addresses
from qmqpd_tx.address.settle import Settler
from qmqpd_tx.address.smtputf8 import bad_encoding
from qmqpd_tx.address.syntax import valid_address
from qmqpd_tx.address.transport_maps import Override, TransportMaps, parse_route
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig, IRouter, TableError
from qmqpd_tx.message import Route
from qmqpd_tx.tables import OpenTable, TableList, open_table

log = Logger(namespace="qmqpd_tx.trivial-rewrite")

BAD_SYNTAX = "5.1.3 bad address syntax"
UNDELIVERABLE = "Address is undeliverable"
UNANSWERED = "4.3.0 address resolver failure"
UNKNOWN = "5.1.1 User unknown"
MOVED = "5.1.6 User has moved to "

LONGEST_DOMAIN = 255
"""For longer domains nothing is kept, in bytes: none is so long."""

_PLAIN_LOCAL = re.compile(rb"(?!-)[\x22-$&-?A-~]+")
"""
Local parts that give no cause to look twice: printable ASCII without C{@}, C{%}, C{!} and space, and
no C{-} at the start.
"""


@frozen(slots=True)
class _Domain:
    """
    What a domain gives.

    @ivar which: its address class.
    @ivar route: transport and nexthop by its class and transport_maps, for a sender without exceptions.
    @ivar by_class: the same before transport_maps, for an address with its own entry.
    @ivar override: its entry in transport_maps.
    @ivar mapped: whether transport_maps have a say.
    """

    which: AddressClass
    route: Override
    by_class: Override
    override: Override | None
    mapped: bool


def _fold_domain(domain: bytes) -> str:
    # Letters beyond ASCII stay: folded, some of them are another name.
    return domain.lower().decode("utf-8", "surrogateescape")


def _apply(override: Override | None, by_class: Override, domain: bytes) -> Override:
    if override is None:
        return by_class
    if override.transport:
        default = UNDELIVERABLE if override.transport in ("error", "retry") else _fold_domain(domain)
        return Override(override.transport, override.nexthop or default)
    return Override(by_class.transport, override.nexthop or by_class.nexthop)


class _Settings:
    """
    One configuration of the router, ready for use.

    @ivar domains: what the domains seen last have given.
    @ivar stable: whether that may be kept.
    @ivar by_domain: whether the domain alone decides.
    @ivar maps_now: whether nothing but the domain and transport_maps decide, and those answer at once.
    """

    def __init__(self, config: IConfig, own: OwnAddresses, open_table: OpenTable, cache_size: int) -> None:
        self._cache_size = cache_size
        self.domains: dict[bytes, _Domain] = {}
        self.classes = classes = AddressClasses(config, own, open_table)
        self._relayhost = config.string("relayhost").strip()
        table_name = " in virtual alias table" if config.boolean("show_user_unknown_table_name") else ""
        self._show_table = bool(table_name)
        self._transports = {
            AddressClass.LOCAL: parse_route(config.string("local_transport")),
            AddressClass.ALIAS: Override("error", UNKNOWN + table_name),
            AddressClass.MAILBOX: parse_route(config.string("virtual_transport")),
            AddressClass.RELAY: parse_route(config.string("relay_transport")),
            AddressClass.DEFAULT: parse_route(config.string("default_transport")),
        }
        self._smtputf8 = config.boolean("smtputf8_enable")
        self.maps = TransportMaps(
            TableList(config.string("transport_maps"), "transport_maps", open_table, self._smtputf8),
            config.string("recipient_delimiter").encode(),
            "transport_maps" in config.words("parent_domain_matches_subdomains"),
            config.boolean("owner_request_special"),
        )
        self._relocated = AddressTables(config, "relocated_maps", classes, open_table)
        self._sender_hosts = SenderMaps(
            config,
            "sender_dependent_relayhost_maps",
            "empty_address_relayhost_maps_lookup_key",
            classes,
            open_table,
        )
        self._sender_transports = SenderTransports(
            config,
            "sender_dependent_default_transport_maps",
            "empty_address_default_transport_maps_lookup_key",
            classes,
            open_table,
        )
        self._recipients = (
            RecipientMaps(config, classes, open_table)
            if config.boolean("resolve_reject_unknown_recipients")
            else None
        )
        self._settler = Settler(config, classes)
        self._allow_min_user = config.boolean("allow_min_user")
        self.stable = classes.stable and self.maps.stable
        self._by_sender = bool(self._sender_hosts or self._sender_transports)
        more = self._relocated or self._by_sender or self._recipients is not None
        self.by_domain = not (self.maps or more)
        self.maps_now = not more and self.maps.immediate

    async def resolve(self, sender: bytes, recipient: bytes) -> Route:
        """
        @raise TableError: a table cannot say.
        """
        address = await self._settler.settle(recipient)
        if (
            not valid_address(address)
            or (address.startswith(b"-") and not self._allow_min_user)
            or bad_encoding(address, self._smtputf8)
        ):
            return Route("error", BAD_SYNTAX, address)
        local, _, domain = address.rpartition(b"@")
        known = self.domains.get(domain)
        if known is None:
            known = await self._domain(domain)
            if self.stable and len(domain) <= LONGEST_DOMAIN:
                if len(self.domains) >= self._cache_size:
                    self.domains.clear()
                self.domains[domain] = known
        override = known.override
        if self.maps and known.mapped:
            override = await self.maps.by_address(local, domain) or override
        by_class = known.by_class
        if self._by_sender and known.which in (AddressClass.RELAY, AddressClass.DEFAULT):
            by_class = await self._for_sender(known.which, sender, domain)
        route = _apply(override, by_class, domain)
        if self._relocated:
            value = await self._relocated.find(address)
            if value is not None:
                return Route("error", MOVED + value.decode("utf-8", "surrogateescape"), address)
        if self._recipients is not None and route.transport != "error":
            table = await self._recipients.missing_from(known.which, address)
            if table is not None:
                return Route("error", f"{UNKNOWN} in {table}" if self._show_table else UNKNOWN, address)
        return Route(route.transport, route.nexthop, address, known.which is AddressClass.LOCAL)

    async def _domain(self, domain: bytes) -> _Domain:
        which = await self.classes.classify(domain)
        by_class = self._by_class(which, self._transports[which], self._relayhost, domain)
        mapped = which is not AddressClass.ALIAS
        override = await self.maps.by_domain(domain) if self.maps and mapped else None
        return _Domain(which, _apply(override, by_class, domain), by_class, override, mapped)

    @staticmethod
    def _by_class(which: AddressClass, transport: Override, relayhost: str, domain: bytes) -> Override:
        if which not in (AddressClass.RELAY, AddressClass.DEFAULT):
            relayhost = ""
        return Override(transport.transport, transport.nexthop or relayhost or _fold_domain(domain))

    async def _for_sender(self, which: AddressClass, sender: bytes, domain: bytes) -> Override:
        transport = self._transports[which]
        if which is AddressClass.DEFAULT and self._sender_transports:
            transport = await self._sender_transports.route_of(sender) or transport
        relayhost = self._relayhost
        if not transport.nexthop and self._sender_hosts:
            relayhost = await self._sender_hosts.of(sender) or relayhost
        return self._by_class(which, transport, relayhost, domain)


@implementer(IRouter)
class Router:
    """
    @param config: the configuration, with the C{-o} options of the service that this stands for.
    @param own: gives the network addresses of this system under a configuration.
    @param cache_size: for how many domains the answer is kept.
    @param open_table: opens a table for a parameter.
    @raise ConfigError: a table or list in the configuration cannot be used.
    """

    def __init__(
        self,
        config: IConfig,
        own: OwnAddresses = own_addresses,
        cache_size: int = 10_000,
        open_table: OpenTable = open_table,
    ) -> None:
        self._own = own
        self._cache_size = cache_size
        self._open_table = open_table
        self._settings = _Settings(config, own, open_table, cache_size)

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration from now on, with the tables that C{open_table} gives now.

        @raise ConfigError: it cannot be used; the router goes on as before.
        """
        self._settings = _Settings(config, self._own, self._open_table, self._cache_size)

    def resolve(self, sender: bytes, recipient: bytes) -> Route | Deferred[Route]:
        """
        @param sender: the envelope sender, in internal form.
        @param recipient: in internal form.
        @return: where to, always.
        """
        settings = self._settings
        local, at, domain = recipient.rpartition(b"@")
        known = settings.domains.get(domain) if at else None
        if known is not None and _PLAIN_LOCAL.fullmatch(local):
            route = known.route
            if settings.by_domain or (settings.maps_now and not known.mapped):
                return Route(route.transport, route.nexthop, recipient, known.which is AddressClass.LOCAL)
            if settings.maps_now:
                try:
                    override = settings.maps.by_address_now(local, domain)
                except TableError:
                    # Once more, the way that says what was asked.
                    return now_or_later(self._resolve(sender, recipient))
                if override is not None:
                    route = _apply(override, known.by_class, domain)
                return Route(route.transport, route.nexthop, recipient, known.which is AddressClass.LOCAL)
        return now_or_later(self._resolve(sender, recipient))

    async def _resolve(self, sender: bytes, recipient: bytes) -> Route:
        while True:
            settings = self._settings
            try:
                return await settings.resolve(sender, recipient)
            except TableError as error:
                if settings is not self._settings:
                    # A reload came in between, and may have closed the table.
                    continue
                log.warn("{reason}", reason=str(error))
                return Route("retry", UNANSWERED, recipient)
