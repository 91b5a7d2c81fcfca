"""
Addresses made complete. Pure.

Takes addresses in internal (unquoted) form, as QMQP carries them; gives the same with a domain, without a
source route, without a final dot. Where no domain follows, C{!} and C{%} name one, but not in a local part
that needs quotes. Never raises: what makes no sense as an address stays what it is, and bounces later with
C{5.1.3}. Answers to the I{rewrite} service of trivial-rewrite(8) (C{append_at_myorigin},
C{append_dot_mydomain}, C{swap_bangpath}, C{allow_percent_hack}, C{remote_header_rewrite_domain}), watched in
a running Postfix.
"""

from __future__ import annotations

import re
from typing import Self

from attrs import evolve, frozen

from qmqpd_tx.address.syntax import needs_quotes, strip_source_route
from qmqpd_tx.interfaces import IConfig

_PLAIN = re.compile(rb"[!-?A-~]+@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
"""An address that no rewriting changes, but for C{append_dot_mydomain}."""

CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
"""What an envelope address must not hold."""


@frozen(slots=True)
class AddressRewriter:
    """
    Makes addresses complete.

    @ivar origin: C{myorigin}: the domain of addresses that have none.
    @ivar domain: C{mydomain}.
    @ivar append_origin: C{append_at_myorigin}.
    @ivar append_domain: C{append_dot_mydomain}.
    @ivar swap_bangpath: C{site!user} means C{user@site}.
    @ivar percent_hack: C{user%domain} means C{user@domain}.
    """

    origin: bytes
    domain: bytes = b""
    append_origin: bool = True
    append_domain: bool = False
    swap_bangpath: bool = True
    percent_hack: bool = True

    @classmethod
    def from_config(cls, config: IConfig) -> Self:
        """
        @param config: the configuration.
        @return: what completes the addresses of this system's users.
        """
        return cls(
            origin=config.string("myorigin").encode("utf-8", "surrogateescape"),
            domain=config.string("mydomain").encode("utf-8", "surrogateescape"),
            append_origin=config.boolean("append_at_myorigin"),
            append_domain=config.boolean("append_dot_mydomain"),
            swap_bangpath=config.boolean("swap_bangpath"),
            percent_hack=config.boolean("allow_percent_hack"),
        )

    def remote(self, domain: bytes) -> Self:
        """
        @param domain: C{remote_header_rewrite_domain}.
        @return: the same for headers of mail from elsewhere, whose incomplete addresses are not ours.
        """
        return evolve(self, origin=domain, domain=domain)

    def rewrite(self, address: bytes) -> bytes:
        """
        @param address: in internal form; C{b""} stays.
        @return: with a domain, without a source route, without a final dot.
        """
        if _PLAIN.fullmatch(address):
            if not self.append_domain or b"." in address[address.index(b"@") :]:
                return address
            return address + b"." + self.domain
        if not address:
            return address
        # No recursion, and all at once below: a header has room for a hundred thousand of them.
        direct = strip_source_route(address)
        while direct != address:
            address, direct = direct, strip_source_route(direct)
        local, at, domain = address.rpartition(b"@")
        if at:
            return local + b"@" + self._complete_domain(domain)
        if not needs_quotes(address):
            if self.swap_bangpath and b"!" in address:
                site, _, user = address.partition(b"!")
                return user + b"@" + self._complete_domain(site)
            if self.percent_hack and b"%" in address:
                user, _, site = address.rpartition(b"%")
                return user + b"@" + self._complete_domain(site)
        return self.complete(address)

    def complete(self, local: bytes) -> bytes:
        """
        @param local: a local part that stands alone, whatever is in it.
        @return: with C{myorigin}, where that is wanted.
        """
        return local + b"@" + self._complete_domain(self.origin) if self.append_origin else local

    def _complete_domain(self, domain: bytes) -> bytes:
        domain = b".".join(label.strip(b" \t") for label in domain.split(b".")).rstrip(b"\\")
        if len(domain) > 1 and domain.endswith(b".") and not domain.endswith(b".."):
            # Who writes the dot means the domain as it stands.
            return domain[:-1]
        if self.append_domain and domain and b"." not in domain and b"[" not in domain:
            domain += b"." + self.domain
        return domain
