"""
The lists of clients of one service, out of its configuration.

Takes a configuration, how to make a list of hosts and how to open a table; gives L{ClientLists}. Pure, but
for what these two do. Fails with L{ConfigError<qmqpd_tx.interfaces.ConfigError>}, naming the parameter and
the word. Answers to postconf(5): debug_peer_list, qmqpd_authorized_clients, local_header_rewrite_clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.qmqp.admission import ClientList, ClientLists

ACCESS: Final = "qmqpd_authorized_clients"
DEBUG: Final = "debug_peer_list"
EXCEPTIONS: Final = "qmqpd_client_event_limit_exceptions"
LOCAL: Final = "qmqpd_local_header_rewrite_clients"
NETWORKS: Final = "mynetworks"

EVERYBODY = "static:all"

REMEMBERED_ADDRESSES = 1000
"""Of how many clients it is remembered whether they are on this host."""

NEVER = frozenset({"permit_sasl_authenticated", "permit_tls_clientcerts", "permit_tls_all_clientcerts"})
"""What may be written, and never is true of a QMQP client: there is no login, and no TLS."""

MakeList = Callable[[Sequence[str], str, bool], ClientList]
"""
Makes a list of hosts: takes the words, the name of the parameter, and whether C{example.com} matches names
under it.
"""


class Table(Protocol):
    """A lookup table."""

    immediate: bool
    stable: bool

    def lookup(self, key: bytes) -> bytes | Deferred[bytes | None] | None: ...


OpenTable = Callable[[str, str], Table]
"""Takes C{type:name} and the parameter on behalf of which it is opened."""


class AddressTable:
    """
    The clients whose network address a table has; its values do not matter.

    @ivar immediate: see L{ClientList}.
    @ivar stable: likewise.
    """

    __slots__ = ("_table", "immediate", "stable")

    def __init__(self, table: Table) -> None:
        self._table = table
        self.immediate: bool = table.immediate
        self.stable: bool = table.stable

    def matches(self, name: str, address: str) -> bool:
        """See L{ClientList.matches}."""
        return self._table.lookup(address.encode("utf-8")) is not None

    async def find(self, name: str, address: str) -> bool:
        """See L{ClientList.find}."""
        value = self._table.lookup(address.encode("utf-8"))
        if isinstance(value, Deferred):
            value = await value
        return value is not None


class OwnAddresses:
    """
    Clients on this host: C{permit_inet_interfaces}.

    @ivar immediate: see L{ClientList}.
    @ivar stable: likewise; addresses come and go.
    """

    __slots__ = ("_interfaces", "_is_ours")
    immediate = True
    stable = False

    def __init__(self, interfaces: Sequence[str], is_ours: Callable[[str], bool]) -> None:
        """
        @param interfaces: C{inet_interfaces}.
        @param is_ours: whether this host has an address.
        """
        self._interfaces = frozenset(word.strip("[]") for word in interfaces)
        # Asking the system takes a few system calls. A reload asks again.
        self._is_ours = lru_cache(REMEMBERED_ADDRESSES)(is_ours)

    def matches(self, name: str, address: str) -> bool:
        """See L{ClientList.matches}."""
        interfaces = self._interfaces
        if address in interfaces:
            return True
        if "all" in interfaces:
            return self._is_ours(address)
        return "loopback-only" in interfaces and (address == "::1" or address.startswith("127."))

    async def find(self, name: str, address: str) -> bool:
        """See L{ClientList.find}."""
        return self.matches(name, address)


def read_client_lists(
    config: IConfig,
    make_list: MakeList,
    open_table: OpenTable,
    is_ours: Callable[[str], bool],
) -> ClientLists:
    """
    @param config: of one service.
    @param make_list: makes lists of hosts.
    @param open_table: opens lookup tables.
    @param is_ours: whether this host has an address.
    @return: its lists of clients.
    @raise ConfigError: one of them cannot be used.
    """
    parents = config.words("parent_domain_matches_subdomains")

    def hosts(words: Sequence[str], parameter: str) -> ClientList:
        return make_list(words, parameter, parameter in parents)

    debug, exceptions = config.words("debug_peer_list"), config.words("qmqpd_client_event_limit_exceptions")
    local = config.words("qmqpd_local_header_rewrite_clients")
    everybody = EVERYBODY in local
    return ClientLists(
        access=hosts(config.words("qmqpd_authorized_clients"), ACCESS),
        debug=hosts(debug, DEBUG) if debug else None,
        exceptions=hosts(exceptions, EXCEPTIONS) if exceptions else None,
        local=None if everybody else list(_local(local, config, hosts, open_table, is_ours)),
    )


def _local(
    words: Sequence[str],
    config: IConfig,
    hosts: Callable[[Sequence[str], str], ClientList],
    open_table: OpenTable,
    is_ours: Callable[[str], bool],
) -> Iterator[ClientList]:
    rest = iter(words)
    for word in rest:
        if word == "permit_inet_interfaces":
            yield OwnAddresses(config.words("inet_interfaces"), is_ours)
        elif word == "permit_mynetworks":
            yield hosts(config.words("mynetworks"), NETWORKS)
        elif word == "check_address_map":
            table = next(rest, "")
            if ":" not in table:
                raise ConfigError(
                    f"{LOCAL}: check_address_map needs a lookup table: write type:name after it"
                )
            yield AddressTable(open_table(table, LOCAL))
        elif ":" in word:
            yield AddressTable(open_table(word, LOCAL))
        elif word not in NEVER:
            raise ConfigError(
                f'{LOCAL}: unknown word "{word}": use permit_inet_interfaces, permit_mynetworks, '
                f"check_address_map type:name, or type:name"
            )
