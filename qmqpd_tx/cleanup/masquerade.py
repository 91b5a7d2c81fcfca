"""
Address masquerading: host names taken off the domains of addresses. Pure.

Takes complete addresses in internal form; gives them with the domain of C{masquerade_domains} that theirs is
under. Answers to cleanup(8)'s masquerading (ADDRESS_REWRITING_README), watched in a running Postfix.
"""

from __future__ import annotations

from collections.abc import Iterable

from qmqpd_tx.address.syntax import fold_address


class Masquerade:
    """
    @param domains: C{masquerade_domains}, in order; C{!domain} and what is under it stay as they are.
    @param exceptions: C{masquerade_exceptions}: user names whose addresses stay as they are.
    """

    __slots__ = ("_domains", "_exceptions")

    def __init__(self, domains: Iterable[bytes], exceptions: Iterable[bytes] = ()) -> None:
        self._domains = [(domain.startswith(b"!"), fold_address(domain.lstrip(b"!"))) for domain in domains]
        self._exceptions = frozenset(map(fold_address, exceptions))

    def __bool__(self) -> bool:
        return bool(self._domains)

    def apply(self, address: bytes) -> bytes:
        """
        @param address: in internal form.
        @return: the address without host names; without change when there are none to hide.
        """
        local, at, domain = address.rpartition(b"@")
        if not at:
            return address
        domain = fold_address(domain)
        for keep, parent in self._domains:
            if domain == parent:
                return address
            if domain.endswith(b"." + parent):
                if keep or (self._exceptions and fold_address(local) in self._exceptions):
                    return address
                return local + b"@" + parent
        return address
