"""
Lists of domains, of hosts, and of other names: what mydestination, relay_domains and qmqpd_authorized_clients
hold.

Takes the words of a list parameter, gives an object that says whether a domain, or a host by its
confirmed name and its address, matches. Patterns are tried from left to right and the first that matches
decides; C{!pattern} excludes; C{/file/name} stands for the patterns in that file; C{type:table} matches
when the table has the name or address (the value is ignored). A plain domain pattern also matches
subdomains where the parameter is listed in C{parent_domain_matches_subdomains}; elsewhere C{.domain}
does so. Case does not matter. Neighbouring patterns that answer alike are merged into sets, so that a
list of a hundred thousand domains or networks costs a few look-ups.

Files and tables are read when a list is made: make a new one on reload. A pattern that makes no
sense is a L{ConfigError} that names the element and where it stands. A table that cannot say whether it has a
name raises L{TableError}, if its turn comes: a pattern to the left of it may have decided. Where a list has
tables that must be waited for, it is not C{immediate}: use C{find} rather than C{matches}. Answers to
Postfix's match lists (postconf(5): mynetworks, qmqpd_authorized_clients, mydestination).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred

from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable
from qmqpd_tx.tables.keeper import open_table
from qmqpd_tx.tables.lists import OpenTable, reader_of
from qmqpd_tx.tables.networks import Address, HostBits, Network, Networks, network_of, read_address
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


@frozen(slots=True)
class _Asked:
    """
    What is looked for in a list.

    @ivar name: folded.
    @ivar text: the address as text, or C{""}.
    @ivar address: as a value.
    """

    name: str
    text: str = ""
    address: Address | None = None


@frozen(slots=True)
class _Style:
    """
    How names match patterns.

    @ivar whole: only the name itself matches, never by way of a parent.
    @ivar parents: a plain domain matches its subdomains, too.
    """

    whole: bool
    parents: bool


@define(slots=True)
class _Sets:
    """Neighbouring patterns with the same answer; their order is of no account."""

    style: _Style
    exact: set[str] = Factory(set)
    parents: set[str] = Factory(set)
    addresses: set[Address] = Factory(set)
    networks: Networks = Factory(Networks)

    def add(self, pattern: str) -> None:
        pattern = _fold_text(pattern)
        self.exact.add(pattern)
        if self.style.whole:
            return
        if self.style.parents:
            self.parents.add(pattern)
        elif pattern.startswith("."):
            self.parents.add(pattern[1:])

    def hold(self, asked: _Asked) -> bool:
        if asked.address is not None and (
            asked.address in self.addresses or self.networks.first(asked.address) is not None
        ):
            return True
        name = asked.name
        return name in self.exact or (
            bool(self.parents) and any(parent in self.parents for parent in _parents(name))
        )


@frozen(slots=True)
class _Table:
    """A pattern that is a table."""

    style: _Style
    table: ILookupTable

    async def holds(self, asked: _Asked) -> bool:
        if await self._has(asked.name):
            return True
        if self.table.fixed_keys and not self.style.whole:
            dot = "" if self.style.parents else "."
            for parent in _parents(asked.name):
                if parent and await self._has(dot + parent):
                    return True
        return bool(asked.text) and await self._has(asked.text)

    async def _has(self, key: str) -> bool:
        found = self.table.lookup(encode(key))
        if isinstance(found, Deferred):
            found = await found
        return found is not None


class _MatchList:
    """
    What the lists have in common.

    @ivar immediate: whether C{matches} may be used.
    @ivar stable: whether the same question has the same answer for as long as the list lives.
    """

    def __init__(self, patterns: Sequence[str], parameter: str, style: _Style, opener: OpenTable) -> None:
        self._parameter = parameter
        self._steps: list[tuple[bool, _Sets | _Table]] = []
        tables = []
        for include, pattern, where in expand_files(patterns, parameter, reader_of(opener)):
            if ":" in pattern and not pattern.startswith("["):
                table = opener(pattern, where)
                tables.append(table)
                self._steps.append((include, _Table(style, table)))
                continue
            last = self._steps[-1] if self._steps else None
            if last is None or last[0] is not include or isinstance(last[1], _Table):
                sets = _Sets(style)
                self._steps.append((include, sets))
            self._add(sets, pattern, where)
        self.immediate: bool = all(table.immediate for table in tables)
        self.stable: bool = all(table.stable for table in tables)
        self._plain = not tables

    def __bool__(self) -> bool:
        return bool(self._steps)

    def _add(self, sets: _Sets, pattern: str, where: str) -> None:
        sets.add(pattern)

    def _matches(self, asked: _Asked) -> bool:
        if self._plain:
            for include, step in self._steps:
                if step.hold(asked):  # type: ignore[union-attr]
                    return include
            return False
        found = now_or_later(self._find(asked))
        if isinstance(found, Deferred):
            found.addErrback(lambda failure: None)
            found.cancel()
            raise TableError(f"{self._parameter}: a table has to be waited for, which cannot be done here")
        return found

    async def _find(self, asked: _Asked) -> bool:
        for include, step in self._steps:
            if step.hold(asked) if isinstance(step, _Sets) else await step.holds(asked):
                return include
        return False


class DomainMatchList(_MatchList):
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
        super().__init__(patterns, parameter, _Style(exact, parent_style), open_table)

    def matches(self, domain: str) -> bool:
        """
        Where the list is L{immediate}.

        @return: whether the domain is in the list; the empty domain never is.
        @raise TableError: a table could not say.
        """
        return bool(domain) and self._matches(_Asked(_fold_text(domain)))

    async def find(self, domain: str) -> bool:
        """
        As L{matches}, with any tables. Does not suspend when the answer is there at once.
        """
        return bool(domain) and await self._find(_Asked(_fold_text(domain)))


class StringMatchList(_MatchList):
    """
    A list of names that are no domains, such as C{masquerade_exceptions}, or of domains without their
    subdomains.

    @param patterns: the words of the parameter.
    @param parameter: its name, for messages.
    @param open_table: opens C{type:name} for a parameter.
    @raise ConfigError: a file or table cannot be read, naming the element.
    """

    def __init__(self, patterns: Sequence[str], parameter: str, open_table: OpenTable = open_table) -> None:
        super().__init__(patterns, parameter, _Style(True, False), open_table)

    def matches(self, text: str) -> bool:
        """
        Where the list is L{immediate}.

        @return: whether the text is in the list, in any case; the empty text never is.
        @raise TableError: a table could not say.
        """
        return bool(text) and self._matches(_Asked(_fold_text(text)))

    async def find(self, text: str) -> bool:
        """
        As L{matches}, with any tables. Does not suspend when the answer is there at once.
        """
        return bool(text) and await self._find(_Asked(_fold_text(text)))


def _network(pattern: str, where: str) -> Network:
    """
    Read C{net/mask} or C{[net]/mask}.
    """
    base, _, mask = pattern.partition("/")
    bracketed = base.startswith("[") and base.endswith("]")
    try:
        address = ip_address(base[1:-1] if bracketed else base)
        length = int(mask) if mask.isascii() and mask.isdigit() else -1
        if not 0 <= length <= address.max_prefixlen or (address.version == 6 and not bracketed):
            raise ValueError(base)
        return network_of(address, length)
    except ValueError:
        raise ConfigError(
            f'{where}: bad net/mask pattern: "{pattern}"; write it as 192.0.2.0/24 or [2001:db8::]/32'
        ) from None
    except HostBits as bits:
        shown = f"[{bits.first}]" if bracketed else str(bits.first)
        raise ConfigError(
            f'{where}: non-null host address bits in "{pattern}", perhaps you should use '
            f'"{shown}/{mask}" instead'
        ) from None


def _host_address(pattern: str, where: str) -> Address | None:
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
def _client_address(text: str) -> Address | None:
    address = read_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class HostMatchList(_MatchList):
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
        super().__init__(patterns, parameter, _Style(False, parent_style), open_table)

    def _add(self, sets: _Sets, pattern: str, where: str) -> None:
        if "/" in pattern:
            sets.networks.add(_network(pattern, where), 0)
        elif (address := _host_address(pattern, where)) is not None:
            sets.addresses.add(address)
        else:
            sets.add(pattern)

    def matches(self, name: str, address: str) -> bool:
        """
        Where the list is L{immediate}.

        @param name: the confirmed host name, or C{unknown}.
        @param address: the textual network address; an IPv4 address mapped into IPv6 counts as IPv4.
        @return: whether this host is in the list.
        @raise TableError: a table could not say.
        """
        return self._matches(_Asked(_fold_text(name), address, _client_address(address)))

    async def find(self, name: str, address: str) -> bool:
        """
        As L{matches}, with any tables. Does not suspend when the answer is there at once.
        """
        return await self._find(_Asked(_fold_text(name), address, _client_address(address)))
