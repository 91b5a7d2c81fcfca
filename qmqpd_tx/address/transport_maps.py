"""
C{transport_maps}: exceptions to routing by address class.

Takes a recipient, gives the transport and nexthop that the first matching key names. The search order
is transport(5)'s: C{user+ext@domain}, C{user@domain}, C{domain}, parent domains from the nearest (as
C{.parent}, or as C{parent} where C{parent_domain_matches_subdomains} lists transport_maps), C{*}. Keys
are addresses in external form, and then in internal form where that is another. What a domain gives may be
kept by the caller while the tables are C{stable}. Tables that match patterns are asked for whole addresses
only, and for C{*}. A table that has to ask somebody is waited for. Tables are opened by the constructor,
which raises L{ConfigError}; lookups fail with L{TableError<qmqpd_tx.interfaces.TableError>}.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from qmqpd_tx.address.syntax import quote_local_part, split_extension
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables import TableList


@frozen(slots=True)
class Override:
    """
    A table entry.

    @ivar transport: the transport, or C{""} to leave it as it would be.
    @ivar nexthop: the next hop, or C{""}: the recipient domain when a transport is named, else as it
        would be.
    """

    transport: str
    nexthop: str


def parse_route(text: str) -> Override:
    """
    @param text: C{transport:nexthop}, C{transport:}, C{:nexthop}, C{:} or C{transport}.
    """
    transport, _, nexthop = text.partition(":")
    return Override(transport.strip(), nexthop.strip())


_Key = tuple[bytes, bool]
"""A key, and whether it is a part of an address, which tables of patterns do not see."""


class TransportMaps:
    """
    @ivar immediate: whether no lookup has to be waited for.
    @ivar stable: whether answers may be kept.
    @param tables: the tables of C{transport_maps}.
    @param delimiters: the characters of C{recipient_delimiter}.
    @param parent_style: whether parent domains are looked up without their leading dot.
    @param special: C{owner_request_special}.
    """

    __slots__ = ("_delimiters", "_dot", "_special", "_tables", "immediate", "stable")

    def __init__(
        self, tables: TableList, delimiters: bytes, parent_style: bool, special: bool = True
    ) -> None:
        self._tables = tables
        self._delimiters = delimiters
        self._special = special
        self._dot = b"" if parent_style else b"."
        self.immediate = tables.immediate
        self.stable = tables.stable

    def __bool__(self) -> bool:
        return bool(self._tables)

    async def by_address(self, local: bytes, domain: bytes) -> Override | None:
        """
        @return: the entry of C{user+ext@domain} or C{user@domain}, or L{None}.
        @raise TableError: a table cannot say.
        """
        return await self._find(self._address_keys(local, domain))

    async def by_domain(self, domain: bytes) -> Override | None:
        """
        @return: the entry of the domain, of its nearest parent that has one, or of C{*}; or L{None}.
        @raise TableError: a table cannot say.
        """
        return await self._find(self._domain_keys(domain))

    def by_address_now(self, local: bytes, domain: bytes) -> Override | None:
        """
        As L{by_address}, where all tables are L{immediate}: what each recipient costs.
        """
        for key, partial in self._address_keys(local, domain):
            value = self._tables.lookup_now(key, partial)
            if value is not None:
                return parse_route(value.decode("utf-8", "surrogateescape"))
        return None

    def _address_keys(self, local: bytes, domain: bytes) -> Iterator[_Key]:
        quoted = quote_local_part(local)
        yield quoted + b"@" + domain, False
        if quoted != local:
            yield local + b"@" + domain, False
        if not self._delimiters:
            return
        user, extension = split_extension(local, self._delimiters, self._special)
        if extension is not None:
            quoted = quote_local_part(user)
            yield quoted + b"@" + domain, True
            if quoted != user:
                yield user + b"@" + domain, True

    def _domain_keys(self, domain: bytes) -> Iterator[_Key]:
        yield domain, True
        dot = -1 if domain.startswith(b"[") else domain.find(b".", 1)
        while dot != -1:
            yield self._dot + domain[dot + 1 :], True
            dot = domain.find(b".", dot + 1)
        yield b"*", False

    async def _find(self, keys: Iterator[_Key]) -> Override | None:
        try:
            for key, partial in keys:
                value = await self._tables.lookup(key, partial)
                if value is not None:
                    return parse_route(value.decode("utf-8", "surrogateescape"))
        except TableError as error:
            raise TableError(f"transport_maps lookup failure: {error}") from None
        return None
