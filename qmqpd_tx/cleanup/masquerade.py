"""
Address masquerading: host names taken off the domains of addresses.

Takes complete addresses in internal form; gives them with the domain of C{masquerade_domains} that theirs is
under. Fails with L{MapError<qmqpd_tx.cleanup.errors.MapError>} when a table of exceptions cannot say. Answers
to cleanup(8)'s masquerading (ADDRESS_REWRITING_README), watched in a running Postfix.
"""

from __future__ import annotations

from collections.abc import Iterable

from qmqpd_tx.address.syntax import fold_address
from qmqpd_tx.cleanup.errors import MapError
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables import StringMatchList


class Masquerade:
    """
    @param domains: C{masquerade_domains}, in order; C{!domain} and what is under it stay as they are.
    @param exceptions: C{masquerade_exceptions}: user names whose addresses stay as they are.

    @ivar stable: whether the same address always has the same result.
    """

    __slots__ = ("_domains", "_exceptions", "stable")

    def __init__(self, domains: Iterable[bytes], exceptions: StringMatchList) -> None:
        self._domains = [(domain.startswith(b"!"), fold_address(domain.lstrip(b"!"))) for domain in domains]
        self._exceptions = exceptions
        self.stable: bool = exceptions.stable

    def __bool__(self) -> bool:
        return bool(self._domains)

    async def apply(self, address: bytes) -> bytes:
        """
        Does not suspend when the exceptions answer at once.

        @param address: in internal form.
        @return: the address without host names; without change when there are none to hide.
        @raise MapError: a table of exceptions cannot say.
        """
        local, at, domain = address.rpartition(b"@")
        if not at:
            return address
        domain = fold_address(domain)
        for keep, parent in self._domains:
            if domain == parent:
                return address
            if domain.endswith(b"." + parent):
                user = local.decode("utf-8", "surrogateescape")
                if keep or (self._exceptions and await self._excepted(user)):
                    return address
                return local + b"@" + parent
        return address

    async def _excepted(self, user: str) -> bool:
        try:
            return await self._exceptions.find(user)
        except TableError as problem:
            raise MapError(str(problem), "masquerade_exceptions") from problem
