"""
A list of records in the queue store that can be taken and begun anew without a moment in which it is lost.

Takes records, gives them back. It is two logs of the store, of which one takes new records; to empty the
list is to let the other take them, work off the first, and remove that. A crash at any step leaves every
record that was written in one of the two, and the next reader looks into both; so a record may come back once
more, and is never lost. Appends are written, not synced: they survive the process, not a power cut.

A log of the store is named by a queue id. A ledger's names are made of a number, and are those of the years
before 2001: no message ever has such a name, so that a start-up that looks at all names sees nothing new in
them. Fails with L{SpoolError<qmqpd_tx.interfaces.SpoolError>}.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from twisted.internet.defer import Deferred

from qmqpd_tx.interfaces import IMailQueue
from qmqpd_tx.message import LogKind, QueueID
from qmqpd_tx.spool.queueid import encode

NUMBERS = 450_000_000_000_000
"""How many ledgers there can be: each has two names out of the microseconds before September 2001."""


def ledger_number(name: str) -> int:
    """
    @param name: of a site.
    @return: the number of its ledger, 1 to L{NUMBERS} - 1. Nobody chooses names so that two sites that are
        not their own share one; if chance does it, a request for one site tries the other's mail as well.
    """
    digest = sha256(name.encode("utf-8", "surrogateescape")).digest()
    return 1 + int.from_bytes(digest[:8], "big") % (NUMBERS - 1)


class Ledger:
    """
    One list.

    @ivar names: its two logs.
    """

    __slots__ = ("_current", "_queue", "names")

    def __init__(self, queue: IMailQueue, number: int) -> None:
        """
        @param queue: the store.
        @param number: which list, 0 to L{NUMBERS} - 1.
        """
        self.names: tuple[QueueID, QueueID] = (encode(2 * number), encode(2 * number + 1))
        self._queue = queue
        self._current = 0

    def append(self, records: Sequence[bytes]) -> Deferred[None]:
        """
        @return: a Deferred that fires when they are written.
        """
        name = self.names[self._current]
        appended: Deferred[None] = self._queue.append_log(LogKind.FLUSH, name, records, False)
        return appended

    async def read(self) -> list[bytes]:
        """
        @return: all records.
        """
        found: list[bytes] = []
        for name in self.names:
            found += await self._queue.read_log(LogKind.FLUSH, name)
        return found

    async def gather(self) -> None:
        """
        Bring what a crash has left in the other log into the one that takes new records. To be called before
        L{turn}.
        """
        other = self.names[1 - self._current]
        left = await self._queue.read_log(LogKind.FLUSH, other)
        if left:
            await self.append(left)
            await self._queue.remove_log(LogKind.FLUSH, other)

    def turn(self) -> Deferred[list[bytes]]:
        """
        From now on the other log takes new records.

        @return: a Deferred that gives all records until now; they are there until L{drop}.
        """
        name = self.names[self._current]
        self._current = 1 - self._current
        records: Deferred[list[bytes]] = self._queue.read_log(LogKind.FLUSH, name)
        return records

    async def drop(self) -> None:
        """
        Remove the records that L{turn} gave.
        """
        await self._queue.remove_log(LogKind.FLUSH, self.names[1 - self._current])
