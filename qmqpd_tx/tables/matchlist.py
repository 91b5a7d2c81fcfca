"""
Lists of domains and of hosts: what mydestination, relay_domains and qmqpd_authorized_clients hold.

Takes the words of a list parameter, gives an object that says whether a domain, or a host by its
confirmed name and its address, matches. Patterns are tried from left to right and the first that matches
decides; C{!pattern} excludes; C{/file/name} stands for the patterns in that file; C{type:table} matches
when the table has the name or address (the value is ignored). A plain domain pattern also matches
subdomains where the parameter is listed in C{parent_domain_matches_subdomains}; elsewhere C{.domain}
does so. Case does not matter. Neighbouring patterns that answer alike are merged into sets, so that a
list of a hundred thousand domains costs a few look-ups.

Files and tables are read when a list is made: make a new one on reload. A pattern that makes no
sense is a L{ConfigError} that names the element and where it stands. Answers to Postfix's
match lists (postconf(5): mynetworks, qmqpd_authorized_clients, mydestination).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import Factory, define

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import ILookupTable
from qmqpd_tx.tables.keeper import open_table
from qmqpd_tx.tables.lists import OpenTable
from qmqpd_tx.tables.words import decode, encode, expand_files, fold

_NUMERIC = re.compile(r"[0-9.]+")


def _fold_text(name: str) -> str:
    return name.lower() if name.isascii() else decode(fold(encode(name)))


def _parents(name: str) -> Iterator[str]:
    """The parent domains of a name, nearest first, each without its leading dot."""
    dot = name.find(".", 1)
    while dot != -1:
        yield name[dot + 1 :]
        dot = name.find(".", dot + 1)


def _table_has(table: ILookupTable, name: str, parent_style: bool) -> bool:
    if table.lookup(encode(name)) is not None:
        return True
    if not table.fixed_keys:
        return False
    dot = "" if parent_style else "."
    return any(table.lookup(encode(dot + parent)) is not None for parent in _parents(name) if parent)


@define(slots=True)
class _Names:
    """A run of neighbouring domain patterns with the same answer; their order is of no account."""

    include: bool
    parent_style: bool
    whole: bool = False
    exact: set[str] = Factory(set)
    parents: set[str] = Factory(set)
    tables: list[ILookupTable] = Factory(list)

    def add(self, pattern: str) -> None:
        pattern = _fold_text(pattern)
        self.exact.add(pattern)
        if self.whole:
            return
        if self.parent_style:
            self.parents.add(pattern)
        elif pattern.startswith("."):
            self.parents.add(pattern[1:])

    def matches(self, name: str) -> bool:
        if name in self.exact:
            return True
        if self.parents and any(parent in self.parents for parent in _parents(name)):
            return True
        if self.whole:
            return any(table.lookup(encode(name)) is not None for table in self.tables)
        return any(_table_has(table, name, self.parent_style) for table in self.tables)


class DomainMatchList:
    """
    A list of domains.

    @param patterns: the words of the parameter.
    @param parameter: its name, for messages.
    @param parent_style: whether C{example.com} also matches C{sub.example.com}: whether the parameter
        is listed in C{parent_domain_matches_subdomains}.
    @param open_table: opens C{type:name} for a parameter.
    @param exact: whether only the domain itself matches, never by way of a parent (C{mydestination} and
        the virtual domain lists).
    @raise ConfigError: a file or table cannot be read, naming the element.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        parameter: str,
        parent_style: bool = False,
        open_table: OpenTable = open_table,
        exact: bool = False,
    ) -> None:
        runs: list[_Names] = []
        for include, pattern, where in expand_files(patterns, parameter):
            if not runs or runs[-1].include is not include:
                runs.append(_Names(include, parent_style, exact))
            if ":" in pattern and not pattern.startswith("["):
                runs[-1].tables.append(open_table(pattern, where))
            else:
                runs[-1].add(pattern)
        self._runs = runs

    def matches(self, domain: str) -> bool:
        """
        @return: whether the domain is in the list; the empty domain never is.
        """
        if not domain:
            return False
        domain = _fold_text(domain)
        for run in self._runs:
            if run.matches(domain):
                return run.include
        return False


_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


@define(slots=True)
class _Hosts:
    """A run of neighbouring host patterns with the same answer."""

    names: _Names
    addresses: set[_Address] = Factory(set)
    networks: list[_Network] = Factory(list)

    def matches(self, name: str, text: str, address: _Address | None) -> bool:
        if address is not None and (
            address in self.addresses or any(address in network for network in self.networks)
        ):
            return True
        if self.names.matches(name):
            return True
        return any(table.lookup(encode(text)) is not None for table in self.names.tables)


def _network(pattern: str, where: str) -> _Network:
    """
    Read C{net/mask} or C{[net]/mask}.
    """
    base, _, mask = pattern.partition("/")
    bracketed = base.startswith("[") and base.endswith("]")
    try:
        address = ip_address(base[1:-1] if bracketed else base)
        if not (mask.isascii() and mask.isdigit()) or (address.version == 6 and not bracketed):
            raise ValueError(base)
        network = ip_network((address, int(mask)), strict=False)
    except ValueError:
        raise ConfigError(
            f'{where}: bad net/mask pattern: "{pattern}"; write it as 192.0.2.0/24 or [2001:db8::]/32'
        ) from None
    if network.network_address != address:
        shown = f"[{network.network_address}]" if bracketed else str(network.network_address)
        raise ConfigError(
            f'{where}: non-null host address bits in "{pattern}", perhaps you should use '
            f'"{shown}/{network.prefixlen}" instead'
        )
    return network


def _host_address(pattern: str, where: str) -> _Address | None:
    """
    Read C{192.0.2.1} or C{[2001:db8::1]}; L{None} when the pattern is a name.
    """
    bracketed = pattern.startswith("[")
    if not bracketed and not _NUMERIC.fullmatch(pattern):
        return None
    try:
        if bracketed and not pattern.endswith("]"):
            raise ValueError(pattern)
        return ip_address(pattern[1:-1] if bracketed else pattern)
    except ValueError:
        raise ConfigError(
            f'{where}: bad address pattern: "{pattern}"; write it as 192.0.2.1 or [2001:db8::1]'
        ) from None


@lru_cache(maxsize=4096)
def _client_address(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class HostMatchList:
    """
    A list of hosts, by name and by address: host names, C{.domain}, C{192.0.2.1}, C{192.0.2.0/24},
    C{[::1]}, C{[2001:db8::]/32}, C{/file/name}, C{type:table}.

    @param patterns: the words of the parameter.
    @param parameter: its name, for messages.
    @param parent_style: whether C{example.com} also matches C{host.example.com}.
    @param open_table: opens C{type:name} for a parameter.
    @raise ConfigError: a pattern is malformed, or a file or table cannot be read, naming the element.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        parameter: str,
        parent_style: bool = False,
        open_table: OpenTable = open_table,
    ) -> None:
        runs: list[_Hosts] = []
        for include, pattern, where in expand_files(patterns, parameter):
            if not runs or runs[-1].names.include is not include:
                runs.append(_Hosts(_Names(include, parent_style)))
            run = runs[-1]
            if ":" in pattern and not pattern.startswith("["):
                run.names.tables.append(open_table(pattern, where))
            elif "/" in pattern:
                run.networks.append(_network(pattern, where))
            elif (address := _host_address(pattern, where)) is not None:
                run.addresses.add(address)
            else:
                run.names.add(pattern)
        self._runs = runs

    def matches(self, name: str, address: str) -> bool:
        """
        @param name: the confirmed host name, or C{unknown}.
        @param address: the textual network address; an IPv4 address mapped into IPv6 counts as IPv4.
        @return: whether this host is in the list.
        """
        name = _fold_text(name)
        parsed = _client_address(address)
        for run in self._runs:
            if run.matches(name, address, parsed):
                return run.names.include
        return False
