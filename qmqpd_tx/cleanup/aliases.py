"""
Virtual alias expansion: from one recipient to all whom its aliases mean.

Takes a complete address in internal form; gives the addresses in its place, in Postfix's order: an alias is
replaced by its first address, and its others go to the end of the list. An alias that names itself, directly,
is not expanded again anywhere in the list. Bounded by C{virtual_alias_recursion_limit} (how often in a row
the place of one address is taken by another), C{virtual_alias_expansion_limit} (how many addresses come of
one recipient) and C{virtual_alias_address_length_limit} (bytes of each): what goes beyond is an
L{IntakeError<qmqpd_tx.interfaces.IntakeError>}, so that the client tries again when the table was mended.
Answers to virtual(5), watched in a running Postfix.
"""

from __future__ import annotations

from typing import NoReturn

from attrs import frozen

from qmqpd_tx.address.syntax import fold_address, quote_address
from qmqpd_tx.cleanup.canonical import AddressMap
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IntakeError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

SHOWN = 300
"""How much of an address that is too long is logged."""


@frozen(slots=True)
class VirtualAliases:
    """
    @ivar map: C{virtual_alias_maps}.
    @ivar recursion_limit: C{virtual_alias_recursion_limit}.
    @ivar expansion_limit: C{virtual_alias_expansion_limit}.
    @ivar length_limit: C{virtual_alias_address_length_limit}, bytes.
    """

    map: AddressMap
    recursion_limit: int
    expansion_limit: int
    length_limit: int

    async def expand(self, address: bytes, queue_id: QueueID) -> list[bytes]:
        """
        @param address: complete, in internal form.
        @param queue_id: on behalf of which message, for the log.
        @return: the addresses in its place, perhaps with duplicates; itself, if it is no alias.
        @raise IntakeError: there are too many of them, or they are too long.
        @raise TableError: the tables cannot say.
        """
        expanded = [address]
        final: set[bytes] = set()
        place = 0
        while place < len(expanded):
            depth = 0
            while True:
                current = expanded[place]
                if final and fold_address(current) in final:
                    break
                if depth == self.recursion_limit:
                    self._complain("map nesting for", quote_address(address), queue_id)
                found = await self.map.find(current)
                if found is None:
                    break
                depth += 1
                if len(expanded) + len(found) - 1 > self.expansion_limit:
                    self._complain("map expansion size for", quote_address(address), queue_id)
                for one in found:
                    if len(one) > self.length_limit:
                        self._complain("result", one[:SHOWN] + b"...", queue_id)
                folded = fold_address(current)
                if any(fold_address(one) == folded for one in found):
                    final.add(folded)
                expanded[place] = found[0]
                expanded += found[1:]
            place += 1
        return expanded

    def _complain(self, what: str, address: bytes, queue_id: QueueID) -> NoReturn:
        log.warn(
            "{queue_id}: unreasonable {parameter} {what} {address} -- message not accepted, try again later",
            queue_id=queue_id,
            parameter=self.map.parameter,
            what=what,
            address=address,
        )
        raise IntakeError(False, "4.6.0", "Error: 4.6.0 Alias expansion error")
