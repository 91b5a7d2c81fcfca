"""
Taking apart addresses that name a way.

Takes a recipient in internal form; gives it complete, and without the domains of this system around another
address: C{user%other@here}, C{other!user@here} and C{user@other@here} are C{user@other}, where the parameters
C{allow_percent_hack}, C{swap_bangpath} and C{resolve_dequoted_address} say so. Fails with
L{TableError<qmqpd_tx.interfaces.TableError>} when C{mydestination} cannot say. Pure otherwise. Answers to the
first part of trivial-rewrite(8)'s I{resolve}.
"""

from __future__ import annotations

import re

from qmqpd_tx.address.classes import AddressClasses
from qmqpd_tx.address.syntax import needs_quotes, numeric_domain, strip_source_route
from qmqpd_tx.interfaces import IConfig

_ROUTING = re.compile(rb"[@%!]")


class Settler:
    """
    @param config: read once, here.
    @param classes: says which domains are ours.
    """

    def __init__(self, config: IConfig, classes: AddressClasses) -> None:
        self._classes = classes
        self._hostname = config.string("myhostname").encode()
        self._origin = config.string("myorigin").encode()
        self._parent = config.string("mydomain").encode()
        self._null_recipient = config.string("empty_address_recipient").encode() + b"@" + self._hostname
        self._append_origin = config.boolean("append_at_myorigin")
        self._append_domain = config.boolean("append_dot_mydomain")
        self._swap_bangpath = config.boolean("swap_bangpath")
        self._percent_hack = config.boolean("allow_percent_hack")
        self._dequoted = config.boolean("resolve_dequoted_address")
        self._null_domain = config.boolean("resolve_null_domain")
        self._numeric_domain = config.boolean("resolve_numeric_domain")

    async def settle(self, address: bytes) -> bytes:
        """
        Each turn makes the address shorter, or gives it the domain that it lacks, once.

        @raise TableError: C{mydestination} cannot say.
        """
        address = strip_source_route(address)
        if not address:
            return self._null_recipient
        completed = False
        while True:
            local, at, domain = address.rpartition(b"@")
            if not at:
                if (unrouted := self._unroute(address)) is not None:
                    address = unrouted
                    continue
                if completed:
                    return address
                completed = True
                address += b"@" + (self._origin if self._append_origin else self._hostname)
                continue
            if len(domain) > 1 and domain.endswith(b"."):
                domain = domain[:-1]
            if not domain:
                if b"@" in local:
                    address = local
                    continue
                if not self._null_domain:
                    return address
                domain = self._hostname
            elif self._numeric_domain and numeric_domain(domain):
                domain = b"[" + (b"IPv6:" if b":" in domain else b"") + domain + b"]"
            elif self._append_domain and self._parent and b"." not in domain and domain[:1] != b"[":
                domain += b"." + self._parent
            address = local + b"@" + domain
            if not (_ROUTING.search(local) and await self._classes.is_local(domain)):
                return address
            if needs_quotes(local) and not self._dequoted:
                return address
            if b"@" in local:
                address = local
                continue
            if (unrouted := self._unroute(local)) is None:
                return address
            address = unrouted

    def _unroute(self, local: bytes) -> bytes | None:
        """
        Turn C{site!user} or C{user%site} into C{user@site}.

        @return: the address, or L{None} when the local part names no site.
        """
        if self._swap_bangpath and b"!" in local:
            site, _, user = local.partition(b"!")
            return user + b"@" + site
        if self._percent_hack and b"%" in local:
            user, _, site = local.rpartition(b"%")
            return user + b"@" + site
        return None
