"""
What is done to one class of addresses, step by step.

Takes complete addresses in internal form; gives them after canonical mapping and masquerading. What becomes
of an address is remembered, if the tables are stable, unless there is something to warn of each time. Fails
with L{TableError<qmqpd_tx.interfaces.TableError>} when a table cannot say. Answers to cleanup(8)
(ADDRESS_REWRITING_README).
"""

from __future__ import annotations

from collections.abc import Sequence

from qmqpd_tx.cleanup.canonical import AddressMap
from qmqpd_tx.cleanup.masquerade import Masquerade
from qmqpd_tx.cleanup.remembered import Remembered
from qmqpd_tx.message import QueueID


class Chain:
    """
    What is done to the addresses of one class, after they were made complete.

    @ivar stable: whether it is always the same.

    @param maps: canonical maps, in order.
    @param masquerade: L{None}: not for this class.
    """

    __slots__ = ("_maps", "_masquerade", "_remembered", "stable")

    def __init__(self, maps: Sequence[AddressMap], masquerade: Masquerade | None) -> None:
        self._maps = [one for one in maps if one.lookup]
        self._masquerade = masquerade or None
        self.stable = all(one.lookup.stable for one in self._maps) and (
            masquerade is None or masquerade.stable
        )
        self._remembered: Remembered[bytes] = Remembered(self.stable, len)

    def __bool__(self) -> bool:
        return bool(self._maps) or self._masquerade is not None

    def known(self, address: bytes) -> bytes | None:
        """
        @return: what becomes of the address, if that is known.
        """
        return self._remembered.get(address)

    async def apply(self, address: bytes, queue_id: QueueID) -> bytes:
        """
        @param address: complete, in internal form; the null address stays.
        @param queue_id: on behalf of which message, for the log.
        """
        if not address:
            return address
        known = self._remembered.get(address)
        if known is not None:
            return known
        mapped = address
        quiet = True
        for one in self._maps:
            mapped, without_warning = await one.canonical(mapped, queue_id)
            quiet = quiet and without_warning
        if self._masquerade is not None:
            mapped = await self._masquerade.apply(mapped)
        if quiet:
            self._remembered.add(address, mapped)
        return mapped


NO_CHAIN = Chain((), None)
"""Does nothing."""
