"""
The sites for which mail waits, or has waited lately: what is known of each, and a list of them on disk.

Takes names of sites, gives a L{Site} for each. The list is there so that a start finds the sites again: it
has a record for each site when mail begins to wait for it, and one for each time that it was flushed. What is
in memory is bounded by C{fast_flush_site_limit}. The list is a L{Ledger}, with its promises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from twisted.internet.defer import Deferred, DeferredLock

from qmqpd_tx.flush.ledger import Ledger, ledger_number
from qmqpd_tx.interfaces import IMailQueue
from qmqpd_tx.message import QueueID

_INDEX = 0
"""The number of the list's own ledger."""

_RECORD = re.compile(rb"([0-9]{1,12}) (.+)", re.DOTALL)

_SLACK = 1000
"""How many superfluous records the list may have before it is written anew."""


class Site:
    """
    One site.

    @ivar name: in lower case.
    @ivar ledger: the queue ids of mail that waits for it.
    @ivar known: queue ids that are in the ledger for certain; perhaps not all.
    @ivar empty: whether the ledger is empty for certain.
    @ivar listed: whether it is in the list on disk.
    @ivar updated: when the ledger has got a queue id, POSIX seconds.
    @ivar flushed: when it was flushed, or first heard of, POSIX seconds.
    @ivar lock: held while it is flushed.
    """

    __slots__ = ("empty", "flushed", "known", "ledger", "listed", "lock", "name", "updated")

    def __init__(self, queue: IMailQueue, name: str, now: float) -> None:
        self.name = name
        self.ledger = Ledger(queue, ledger_number(name))
        self.known: set[QueueID] = set()
        self.empty = False
        self.listed = False
        self.updated = now
        self.flushed = now
        self.lock = DeferredLock()

    def record(self) -> bytes:
        """
        @return: the site in the list on disk.
        """
        return b"%d %s" % (max(self.flushed, 0), self.name.encode("utf-8", "surrogateescape"))


class Sites:
    """All of them, by name."""

    def __init__(self, queue: IMailQueue) -> None:
        """
        @param queue: the store.
        """
        self._queue = queue
        self._sites: dict[str, Site] = {}
        self._index = Ledger(queue, _INDEX)
        self._records = 0

    def __len__(self) -> int:
        return len(self._sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(list(self._sites.values()))

    def get(self, name: str) -> Site | None:
        """
        @param name: in lower case.
        """
        return self._sites.get(name)

    def add(self, name: str, now: float) -> Site:
        """
        @return: a site that was not known.
        """
        site = self._sites[name] = Site(self._queue, name, now)
        return site

    def remove(self, site: Site) -> None:
        """
        Forget a site for which nothing waits. It goes from the list on disk when that is next written anew.
        """
        if self._sites.get(site.name) is site:
            del self._sites[site.name]

    def list(self, site: Site) -> Deferred[None]:
        """
        Put a site into the list on disk, with when it was flushed.

        @return: a Deferred that fires when it is written.
        """
        site.listed = True
        self._records += 1
        return self._index.append([site.record()])

    async def load(self, now: float) -> None:
        """
        Read the list; sites that are known already stay as they are.

        @raise SpoolError: it cannot be read.
        """
        records = await self._index.read()
        self._records += len(records)
        times: dict[str, float] = {}
        for record in records:
            match = _RECORD.fullmatch(record)
            if match is not None:
                name = match[2].decode("utf-8", "surrogateescape")
                times[name] = max(times.get(name, 0.0), float(match[1]))
        for name, flushed in times.items():
            site = self._sites.get(name) or self.add(name, now)
            site.listed = True
            # A time that has not come yet is from a clock that was wrong.
            site.flushed = min(flushed, now)

    async def tidy(self) -> None:
        """
        Write the list anew when most of it is superfluous.

        @raise SpoolError: it cannot be written; the old one is still there.
        """
        if self._records <= 2 * len(self._sites) + _SLACK:
            return
        await self._index.gather()
        turned = self._index.turn()
        listed = [site for site in self if site.listed]
        self._records = len(listed)
        appended = self._index.append([site.record() for site in listed])
        await turned
        await appended
        await self._index.drop()
