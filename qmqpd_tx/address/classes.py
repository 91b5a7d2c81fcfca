"""
Which address class a domain belongs to.

Takes a domain; gives its L{AddressClass}: local (C{mydestination}, own address literals), virtual alias,
virtual mailbox, relay, default. The lists are asked in this order, and the first that has the domain decides.
A list with a table that has to ask somebody is waited for. Fails with
L{TableError<qmqpd_tx.interfaces.TableError>} when a list cannot say, and for as long as none before it has
the domain. Answers to ADDRESS_CLASS_README.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from qmqpd_tx.address.syntax import literal_address
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IConfig, TableError
from qmqpd_tx.tables import DomainMatchList, OpenTable

log = Logger(namespace="qmqpd_tx.trivial-rewrite")

OwnAddresses = Callable[[IConfig], Collection[IPv4Address | IPv6Address]]
"""Gives the network addresses of this system under a configuration."""


class AddressClass(enum.Enum):
    """An address class; the value is the parameter that lists its domains."""

    LOCAL = "mydestination"
    ALIAS = "virtual_alias_domains"
    MAILBOX = "virtual_mailbox_domains"
    RELAY = "relay_domains"
    DEFAULT = ""


_WARNED = (
    (AddressClass.LOCAL, AddressClass.ALIAS),
    (AddressClass.LOCAL, AddressClass.MAILBOX),
    (AddressClass.ALIAS, AddressClass.MAILBOX),
    (AddressClass.MAILBOX, AddressClass.RELAY),
)
"""Pairs of lists that Postfix warns of when they have a domain in common."""


class AddressClasses:
    """
    The lists of one configuration.

    @param config: read once, here.
    @param own: see L{OwnAddresses}.
    @param open_table: opens tables in the lists.
    @ivar stable: whether a domain's class may be kept.
    @ivar local_is_immediate: whether L{is_ours_now} can be asked.
    @raise ConfigError: a list cannot be used.
    """

    def __init__(self, config: IConfig, own: OwnAddresses, open_table: OpenTable) -> None:
        parents = config.words("parent_domain_matches_subdomains")

        def exactly(parameter: str) -> DomainMatchList:
            return DomainMatchList(config.words(parameter), parameter, False, open_table, exact=True)

        self._lists: Mapping[AddressClass, DomainMatchList] = {
            AddressClass.LOCAL: exactly("mydestination"),
            AddressClass.ALIAS: exactly("virtual_alias_domains"),
            AddressClass.MAILBOX: exactly("virtual_mailbox_domains"),
            AddressClass.RELAY: DomainMatchList(
                config.words("relay_domains"), "relay_domains", "relay_domains" in parents, open_table
            ),
        }
        self._own = frozenset(own(config))
        self._origin = _text(config.string("myorigin").encode("utf-8", "surrogateescape")).lower()
        self._helpful = config.boolean("helpful_warnings")
        self.stable = all(each.stable for each in self._lists.values())
        self.local_is_immediate = self._lists[AddressClass.LOCAL].immediate

    async def is_local(self, domain: bytes) -> bool:
        """
        @return: whether mail for the domain ends here.
        @raise TableError: C{mydestination} cannot say.
        """
        return self._is_own(domain) or await self._has(AddressClass.LOCAL, _text(domain))

    async def is_ours(self, domain: bytes) -> bool:
        """
        @return: whether bare user names in tables mean this domain's users: it is local, or C{myorigin}.
        """
        return _text(domain).lower() == self._origin or await self.is_local(domain)

    def is_ours_now(self, domain: bytes) -> bool:
        """
        As L{is_ours}, where C{mydestination} has to wait for nobody.
        """
        text = _text(domain)
        return (
            text.lower() == self._origin
            or self._is_own(domain)
            or self._lists[AddressClass.LOCAL].matches(text)
        )

    async def classify(self, domain: bytes) -> AddressClass:
        """
        Does not suspend when the lists answer at once.

        @raise TableError: a list cannot say.
        """
        if self._is_own(domain):
            return AddressClass.LOCAL
        text = _text(domain)
        for each in self._lists:
            if await self._has(each, text):
                if self._helpful:
                    self._warn(each, text)
                return each
        return AddressClass.DEFAULT

    def _is_own(self, domain: bytes) -> bool:
        return domain.startswith(b"[") and literal_address(domain) in self._own

    async def _has(self, which: AddressClass, domain: str) -> bool:
        listed = self._lists[which]
        try:
            return listed.matches(domain) if listed.immediate else await listed.find(domain)
        except TableError as error:
            raise TableError(f"{which.value} lookup failure: {error}") from None

    def _warn(self, found: AddressClass, domain: str) -> None:
        """Point to a domain that is in two lists; nobody waits for that."""
        for other in self._others(found):
            listed = self._lists[other]
            try:
                doubled = listed.immediate and listed.matches(domain)
            except TableError:
                continue
            if doubled:
                log.warn(
                    "do not list domain {domain} in BOTH {first} and {second}",
                    domain=domain,
                    first=found.value,
                    second=other.value,
                )

    @staticmethod
    def _others(found: AddressClass) -> Iterator[AddressClass]:
        return (second for first, second in _WARNED if first is found)


def _text(domain: bytes) -> str:
    return domain.decode("utf-8", "surrogateescape")
