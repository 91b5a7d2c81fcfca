"""
C{transport_maps}: exceptions to routing by address class.

Takes a recipient, gives the transport and nexthop that the first matching key names. The search order
is transport(5)'s: C{user+ext@domain}, C{user@domain}, C{domain}, parent domains from the nearest (as
C{.parent}, or as C{parent} where C{parent_domain_matches_subdomains} lists transport_maps), C{*}. Keys
are addresses in external form. Domain keys are looked up once for a domain; the caller keeps the
answer. Tables that match patterns are asked for whole addresses only. Pure; tables are opened by the
constructor, which raises L{ConfigError}.
"""

from __future__ import annotations

from attrs import frozen

from qmqpd_tx.address.syntax import quote_local_part, split_extension
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


def _parse_value(value: bytes) -> Override:
    return parse_route(value.decode("utf-8", "surrogateescape"))


class TransportMaps:
    """
    @param tables: the tables of C{transport_maps}.
    @param delimiters: the characters of C{recipient_delimiter}.
    @param parent_style: whether parent domains are looked up without their leading dot.
    """

    def __init__(self, tables: TableList, delimiters: bytes, parent_style: bool) -> None:
        self._tables = tables
        self._delimiters = delimiters
        self._dot = b"" if parent_style else b"."

    def __bool__(self) -> bool:
        return bool(self._tables)

    def by_address(self, local: bytes, domain: bytes) -> Override | None:
        """
        @return: the entry of C{user+ext@domain} or C{user@domain}, or L{None}.
        """
        value = self._tables.lookup_now(quote_local_part(local) + b"@" + domain)
        if value is None and self._delimiters:
            user, extension = split_extension(local, self._delimiters)
            if extension is not None:
                value = self._tables.lookup_now(quote_local_part(user) + b"@" + domain, partial=True)
        return None if value is None else _parse_value(value)

    def by_domain(self, domain: bytes) -> Override | None:
        """
        @return: the entry of the domain, of its nearest parent that has one, or of C{*}; or L{None}.
        """
        value = self._tables.lookup_now(domain, partial=True)
        dot = -1 if domain.startswith(b"[") else domain.find(b".", 1)
        while value is None and dot != -1:
            value = self._tables.lookup_now(self._dot + domain[dot + 1 :], partial=True)
            dot = domain.find(b".", dot + 1)
        if value is None:
            value = self._tables.lookup_now(b"*", partial=True)
        return None if value is None else _parse_value(value)
