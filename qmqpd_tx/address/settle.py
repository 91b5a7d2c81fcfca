"""
Taking apart addresses that name a way.

Takes a recipient in internal form, which cleanup(8) has made complete where it could; gives it complete, and
without the domains of this system around another address: C{user%other@here}, C{other!user@here} and
C{user@other@here} are C{user@other}, where the parameters C{allow_percent_hack}, C{swap_bangpath} and
C{resolve_dequoted_address} say so. Fails with
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
        parent = config.string("mydomain").encode()
        self._parent = b"." + parent if parent else b""
        self._null_user = config.string("empty_address_recipient").encode()
        self._append_origin = config.boolean("append_at_myorigin")
        self._append_domain = config.boolean("append_dot_mydomain")
        self._swap_bangpath = config.boolean("swap_bangpath")
        self._percent_hack = config.boolean("allow_percent_hack")
        self._dequoted = config.boolean("resolve_dequoted_address")
        self._null_domain = config.boolean("resolve_null_domain")
        self._numeric_domain = config.boolean("resolve_numeric_domain")

    async def settle(self, address: bytes) -> bytes:
        """
        Each turn makes the address shorter, or gives it the domain that it lacks.

        @raise TableError: C{mydestination} cannot say.
        """
        address = strip_source_route(address)
        if not address:
            return self._null_user + b"@" + self._hostname
        # Domains within the local part are the ones that cleanup(8) has not completed.
        inner = False
        while True:
            local, at, domain = address.rpartition(b"@")
            if not at:
                origin = self._origin if self._append_origin else self._hostname
                address, inner = self._unroute(address) or address + b"@" + origin, True
                continue
            if len(domain) > 1 and domain.endswith(b"."):
                # Who writes the dot means the domain as it stands.
                domain = domain[:-1]
            elif self._numeric_domain and numeric_domain(domain):
                return local + b"@[" + (b"IPv6:" if b":" in domain else b"") + domain + b"]"
            elif inner and self._append_domain and domain and b"." not in domain and domain[:1] != b"[":
                domain += self._parent
            within = self._unroute(local)
            if within is None or (domain and not await self._classes.is_local(domain)):
                break
            address, inner = within, True
        if not local and (await self._classes.is_local(domain) if domain else self._null_domain):
            local = self._null_user
        if not domain and self._null_domain:
            domain = self._hostname
        return local + b"@" + domain

    def _unroute(self, local: bytes) -> bytes | None:
        """
        Turn C{site!user} or C{user%site} into C{user@site}.

        @return: the address, or L{None} when the local part names no site.
        """
        if not _ROUTING.search(local) or (needs_quotes(local) and not self._dequoted):
            return None
        if b"@" in local:
            return local
        if self._swap_bangpath and b"!" in local:
            site, _, user = local.partition(b"!")
            return user + b"@" + site
        if self._percent_hack and b"%" in local:
            user, _, site = local.rpartition(b"%")
            return user + b"@" + site
        return None
