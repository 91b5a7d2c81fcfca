"""
One address looked up in the tables of one parameter, and what they make of it.

Takes a complete address in internal form; gives the addresses that the table has in its place, complete and
in internal form, with the extension that the table's key left out where C{propagate_unmatched_extensions}
says so. C{@domain} as a value means the same user there. Canonical mapping goes on until nothing is found, at
most L{CANONICAL_DEPTH} times. Fails with L{MapError<qmqpd_tx.cleanup.errors.MapError>} when a table cannot
say, or says something that is no address. Answers to canonical(5) and virtual(5), watched in a running
Postfix.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from qmqpd_tx.address.lookup import AddressLookup, Found
from qmqpd_tx.address.mailboxes import is_address, parse_addresses
from qmqpd_tx.address.rewrite import CONTROLS, AddressRewriter
from qmqpd_tx.address.syntax import fold_address, quote_address, quote_local_part, split_address
from qmqpd_tx.cleanup.errors import MapError
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

CANONICAL_DEPTH = 10
"""How often the result of canonical mapping is looked up again; Postfix's figure, too."""


class AddressMap:
    """
    @ivar parameter: the parameter's name, for messages.
    @ivar lookup: its tables.
    @param rewriter: completes what the tables give.
    @param propagate: whether extensions are kept.
    @param ours: says of a domain whether its users have bare keys, where that has to be waited for; L{None}:
        the lookup knows.
    """

    __slots__ = ("_ours", "_propagate", "_rewriter", "lookup", "parameter")

    def __init__(
        self,
        parameter: str,
        lookup: AddressLookup,
        rewriter: AddressRewriter,
        propagate: bool,
        ours: Callable[[bytes], Awaitable[bool]] | None = None,
    ) -> None:
        self.parameter = parameter
        self.lookup = lookup
        self._rewriter = rewriter
        self._propagate = propagate
        self._ours = ours

    async def value(self, address: bytes) -> Found | None:
        """
        @param address: complete, in internal form.
        @return: what the tables have for it.
        @raise MapError: they cannot say.
        """
        try:
            return await self._look_up(address)
        except TableError as problem:
            raise MapError(str(problem), self.parameter) from problem

    async def find(self, address: bytes) -> list[bytes] | None:
        """
        @param address: complete, in internal form.
        @return: what the tables have for it, as addresses, at least one; L{None}: nothing.
        @raise MapError: they cannot say, or it is no address.
        """
        try:
            found = await self._look_up(address)
            return None if found is None else self._addresses(address, found.value, found.extension)
        except TableError as problem:
            raise MapError(str(problem), self.parameter, address) from problem

    async def _look_up(self, address: bytes) -> Found | None:
        if self._ours is None:
            return await self.lookup.find(address)
        return await self.lookup.find(address, await self._ours(address.rpartition(b"@")[2]))

    def _addresses(self, address: bytes, value: bytes, extension: bytes) -> list[bytes]:
        if value.startswith(b"@"):
            local, _ = split_address(address)
            # What the key left out of it comes back below, if it does.
            value = quote_local_part(local.removesuffix(extension)) + value
        if is_address(value):
            found = [self._rewriter.rewrite(value)]
            return [_extended(found[0], extension)] if extension and self._propagate else found
        parsed = parse_addresses(value)
        if parsed is None or not parsed.addresses or any(map(CONTROLS.search, parsed.addresses)):
            raise TableError(
                f"{self.parameter} lookup of {_shown(address)} returns non-address result"
                f' "{value.decode("utf-8", "backslashreplace")}"'
            )
        found = parsed.complete(self._rewriter)
        if extension and self._propagate:
            return [_extended(one, extension) for one in found]
        return found

    async def canonical(self, address: bytes, queue_id: QueueID) -> tuple[bytes, bool]:
        """
        @param address: complete, in internal form.
        @param queue_id: on behalf of which message, for the log.
        @return: the address that it is to be replaced with, or itself; and whether that went without a
            warning.
        @raise MapError: as L{find}.
        """
        quiet = True
        for _ in range(CANONICAL_DEPTH):
            found = await self.find(address)
            if found is None:
                return address, quiet
            if len(found) > 1:
                quiet = False
                log.warn(
                    "{queue_id}: multi-valued {parameter} entry for {address}",
                    queue_id=queue_id,
                    parameter=self.parameter,
                    address=quote_address(address),
                )
            before, address = address, found[0]
            if fold_address(address) == fold_address(before):
                return address, quiet
        log.warn(
            "{queue_id}: unreasonable {parameter} map nesting for {address}"
            " -- message not accepted, try again later",
            queue_id=queue_id,
            parameter=self.parameter,
            address=quote_address(address),
        )
        return address, False


def _shown(address: bytes) -> str:
    return quote_address(address).decode("utf-8", "backslashreplace")


def _extended(address: bytes, extension: bytes) -> bytes:
    local, at, domain = address.rpartition(b"@")
    return local + extension + at + domain if at else address + extension
