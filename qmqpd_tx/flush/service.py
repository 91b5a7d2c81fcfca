"""
The fast flush service: remembers which deferred messages wait for a site, and tries them when asked.

Takes from the queue manager which message waits for whom, keeps the queue ids of each site in
C{fast_flush_domains} in the queue store, once each as far as it remembers; gives them to the queue manager
when the site is flushed. The list may have tables that must be waited for. Answers to flush(8) and
ETRN_README.

Durability: what L{FlushService.deferred} says is written survives a restart; a site's record is removed only
when all of its mail was made active, and mail that is deferred meanwhile goes into a new record. So a crash
can make a message be tried once too often, and never forgets one. A record may name messages that are gone,
or mail for other sites of the same message as well, as in Postfix; both are harmless. It fails with
L{NotEligible} for sites that are not served, with L{TableError} when that cannot be found out, and with
L{SpoolError} when a record cannot be read; a record that cannot be written is logged, and the mail waits for
its next attempt as all other mail does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.address.syntax import valid_hostname, valid_literal
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.events import Logger
from qmqpd_tx.flush.sites import Site, Sites
from qmqpd_tx.interfaces import (
    IConfig,
    IFlush,
    IMailQueue,
    MessageNotFound,
    NotEligible,
    SpoolError,
    TableError,
)
from qmqpd_tx.message import QueueID, Recipient
from qmqpd_tx.tables import DomainMatchList, OpenTable, open_table

log = Logger(namespace="qmqpd_tx.flush")

REFRESH_INTERVAL: Final = 1000.0
"""How often sites are looked through, in seconds: the flush service's usual wakeup time in master.cf."""

_SHOWN: Final = 100
"""How much of a bad site name is shown."""


def valid_site(site: str) -> bool:
    """
    @return: whether this can be a site: a host name, or an address literal in C{[]}.
    """
    name = site.encode("utf-8", "surrogateescape")
    return valid_hostname(name) or valid_literal(name)


@implementer(IFlush)
class FlushService(Service):
    """See L{IFlush}. The store is started before it and stopped after it."""

    name = "flush"

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        queue: IMailQueue,
        deliver_now: Callable[[QueueID], Deferred[bool]],
        forget_dead: Callable[[], None],
        open_table: OpenTable = open_table,
    ) -> None:
        """
        @param config: see L{reconfigure}.
        @param clock: time and timers.
        @param queue: where the records are kept.
        @param deliver_now: makes a deferred message active, whatever its time; fails with L{MessageNotFound}
            when it is not deferred.
        @param forget_dead: makes the queue manager forget dead destinations and transports (trigger F).
        @param open_table: opens the tables in C{fast_flush_domains}.
        """
        self._clock = clock
        self._deliver_now = deliver_now
        self._forget_dead = forget_dead
        self._open_table = open_table
        self._sites = Sites(queue)
        self._known = 0
        self._full = False
        self._call: IDelayedCall | None = None
        self._work: set[Deferred[int]] = set()
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        @param config: where C{fast_flush_domains} and the times and limits are read.
        @raise ConfigError: the list makes no sense.
        """
        words = config.words("fast_flush_domains")
        parents = config.words("parent_domain_matches_subdomains")
        self._domains = (
            DomainMatchList(words, "fast_flush_domains", "fast_flush_domains" in parents, self._open_table)
            if words
            else None
        )
        self._refresh_time = config.seconds("fast_flush_refresh_time")
        self._purge_time = config.seconds("fast_flush_purge_time")
        self._site_limit = config.integer("fast_flush_site_limit")
        self._memory_limit = config.integer("fast_flush_memory_limit")

    def startService(self) -> None:
        """
        Find the sites again, then look through them every L{REFRESH_INTERVAL}.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._run(self._load()).addErrback(self._failed, "read")
        self._call = self._clock.callLater(REFRESH_INTERVAL, self._wakeup)

    def stopService(self) -> Deferred[None]:
        """
        End what is under way; what was not tried is still on record.

        @return: a Deferred that fires when all is quiet.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        work = list(self._work)
        for one in work:
            one.cancel()
        return DeferredList(work, consumeErrors=True).addCallback(lambda _: None)

    # --- remembering --------------------------------------------------------------------------------

    def deferred(self, queue_id: QueueID, recipients: Sequence[Recipient]) -> Deferred[None] | None:
        """See L{IFlush.deferred}."""
        if self._domains is None:
            return None
        return now_or_later(self._remember(self._domains, queue_id, recipients))

    async def _remember(
        self, domains: DomainMatchList, queue_id: QueueID, recipients: Sequence[Recipient]
    ) -> None:
        parts = {recipient.address.rpartition(b"@")[1:] for recipient in recipients}
        names = {domain.decode("utf-8", "surrogateescape").lower() for at, domain in parts if at}
        waiting: list[Deferred[None]] = []
        for name in names:
            try:
                eligible = valid_site(name) and await domains.find(name)
            except TableError as problem:
                log.warn("{queue_id}: fast_flush_domains: {reason}", queue_id=queue_id, reason=str(problem))
                continue
            site = self._site(name) if eligible else None
            if site is not None and queue_id not in site.known:
                waiting += self._add(site, queue_id)
        if waiting:
            await DeferredList(waiting)

    def _site(self, name: str) -> Site | None:
        site = self._sites.get(name)
        if site is not None:
            return site
        if len(self._sites) >= self._site_limit:
            if not self._full:
                self._full = True
                log.warn(
                    "mail waits for more than {limit} sites of fast_flush_domains: no record is kept of "
                    "further ones; raise fast_flush_site_limit, or name fewer domains",
                    limit=self._site_limit,
                )
            return None
        return self._sites.add(name, self._clock.seconds())

    def _add(self, site: Site, queue_id: QueueID) -> Iterable[Deferred[None]]:
        if self._known >= self._memory_limit:
            # They are on disk: what this costs is that some are written once more.
            for each in self._sites:
                each.known.clear()
            self._known = 0
        if not site.listed:
            yield self._sites.list(site).addErrback(self._not_written, site)
        site.known.add(queue_id)
        self._known += 1
        site.empty = False
        site.updated = self._clock.seconds()
        yield site.ledger.append([queue_id.encode("ascii")]).addErrback(self._not_written, site, queue_id)

    def _not_written(self, failure: Failure, site: Site, queue_id: QueueID | None = None) -> None:
        if queue_id is None:
            site.listed = False
        elif queue_id in site.known:
            site.known.remove(queue_id)
            self._known -= 1
        log.warn(
            '{queue_id}: record that mail waits for "{site}": {reason}',
            queue_id=queue_id or "fast flush",
            site=site.name,
            reason=failure.getErrorMessage(),
        )

    # --- flushing -----------------------------------------------------------------------------------

    def flush_site(self, site: str) -> Deferred[int]:
        """See L{IFlush.flush_site}."""
        if not valid_site(site):
            shown = site if len(site) <= _SHOWN else site[:_SHOWN] + "..."
            return fail(NotEligible(f'Cannot flush mail queue - invalid destination: "{shown}"'))
        return self._run(self._flush_listed(site))

    def refresh(self) -> Deferred[int]:
        """See L{IFlush.refresh}."""
        return self._run(self._refresh())

    async def _flush_listed(self, shown: str) -> int:
        name = shown.lower()
        if self._domains is None or not await self._domains.find(name):
            raise NotEligible(f'Flush service is not configured for destination "{shown}"')
        site = self._sites.get(name)
        if site is None and len(self._sites) >= self._site_limit:
            self._purge(self._clock.seconds())
        site = site or self._site(name)
        return 0 if site is None else await self._flush(site)

    async def _flush(self, site: Site) -> int:
        await site.lock.acquire()
        try:
            await site.ledger.gather()
            turned = site.ledger.turn()
            # From here on, mail that is deferred is recorded anew.
            self._known -= len(site.known)
            site.known.clear()
            site.empty = True
            try:
                records = await turned
                left, tried = await self._try(site, records)
                if left:
                    site.empty = False
                    await site.ledger.append(left)
                if records:
                    await site.ledger.drop()
            except BaseException:
                site.empty = False
                raise
            site.flushed = self._clock.seconds()
            if site.listed and records:
                await self._sites.list(site)
            return tried
        finally:
            site.lock.release()

    async def _try(self, site: Site, records: Iterable[bytes]) -> tuple[list[bytes], int]:
        """
        @return: the records to keep, of messages that cannot be opened now or were active already; and how
            many are active.
        """
        left: list[bytes] = []
        tried = 0
        # Once each, in the order in which they began to wait.
        waiting = list(dict.fromkeys(records))
        if waiting:
            self._forget_dead()
        for record in waiting:
            queue_id = QueueID(record.decode("ascii", "replace"))
            try:
                made_active = await self._deliver_now(queue_id)
            except MessageNotFound:
                # Delivered, returned or removed since; or on hold.
                continue
            except SpoolError as problem:
                left.append(record)
                log.warn(
                    '{queue_id}: flush "{site}": {reason}',
                    queue_id=queue_id,
                    site=site.name,
                    reason=str(problem),
                )
            else:
                tried += 1
                if not made_active:
                    # Its attempt may be at its end; what is recorded once too often does no harm.
                    left.append(record)
        return left, tried

    # --- upkeep -------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Deferred[Any], Any, int]) -> Deferred[int]:
        """Begin something that L{stopService} ends."""
        begun = Deferred.fromCoroutine(work)
        self._work.add(begun)

        def ended(result: int | Failure) -> int | Failure:
            self._work.discard(begun)
            return result

        return begun.addBoth(ended)

    def _wakeup(self) -> None:
        self._call = self._clock.callLater(REFRESH_INTERVAL, self._wakeup)
        self._run(self._refresh()).addErrback(self._failed, "refresh")

    async def _load(self) -> int:
        await self._sites.load(self._clock.seconds())
        return len(self._sites)

    def _failed(self, failure: Failure, doing: str) -> None:
        if isinstance(failure.value, SpoolError):
            log.warn("{doing} fast flush records: {reason}", doing=doing, reason=failure.getErrorMessage())
        elif not isinstance(failure.value, CancelledError):
            log.failure("{doing} fast flush records", failure, doing=doing)

    async def _refresh(self) -> int:
        now = self._clock.seconds()
        self._purge(now)
        tried = 0
        for site in self._sites:
            # A clock that was set back must not keep a site for as long as it was wrong.
            if not site.empty and not 0 <= now - site.flushed < self._refresh_time:
                try:
                    tried += await self._flush(site)
                except SpoolError as problem:
                    log.warn('refresh "{site}": {reason}', site=site.name, reason=str(problem))
        await self._sites.tidy()
        return tried

    def _purge(self, now: float) -> None:
        """Forget sites for which nothing waits, and has not for long."""
        for site in self._sites:
            if site.lock.locked or not site.empty:
                continue
            if not site.listed or not 0 <= now - site.updated < self._purge_time:
                self._sites.remove(site)
        self._full = self._full and len(self._sites) >= self._site_limit
