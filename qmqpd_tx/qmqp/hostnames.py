"""
The names of clients: PTR, confirmed by a forward look-up.

Takes a network address; gives the host name that the address claims and that leads back to the address,
else C{unknown}. Known answers come at once, without a Deferred; the others as a Deferred that never fails
and fires within the time limit, so that a dead DNS does not hold mail. Answers are kept for the time to live
that the DNS gave, within bounds; look-ups of the same address at the same time are shared; how many answers
are kept is bounded.

Answers to Postfix's client name look-ups (postconf(5): C{qmqpd_authorized_clients},
C{smtpd_peername_lookup}): a name counts only if it is well formed, is not all numbers, and its A (or AAAA)
records hold the address. /etc/hosts goes first, as it does there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns

from qmqpd_tx.events import Logger
from qmqpd_tx.qmqp.hosts import HostsFile

log = Logger(namespace="qmqpd_tx.qmqpd")

UNKNOWN = "unknown"

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,255}}\Z)(?!.*?\A[0-9.]+\Z){_LABEL}(\.{_LABEL})*\Z")


def valid_hostname(name: str) -> bool:
    """
    @return: whether C{name} may be a host name: labels of letters, digits, hyphens and underscores, and not
        the spelling of an address.
    """
    return _HOSTNAME.match(name) is not None


def _first_pointer(answers: Sequence[dns.RRHeader]) -> tuple[str, int]:
    """
    @param answers: to a PTR query; may hold CNAME records as well (RFC 2317).
    @return: the name in the first PTR record, which is the one that getnameinfo(3) gives, and its time to
        live.
    @raise ValueError: there is none.
    """
    for answer in answers:
        payload = answer.payload
        if isinstance(payload, dns.Record_PTR):
            return payload.name.name.decode("latin-1").rstrip("."), answer.ttl
    raise ValueError("no PTR record")


@frozen(slots=True)
class _Known:
    name: str
    expires: float


class ClientNames:
    """
    Looks up client names. Shared by all connections of a process.
    """

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        hosts: HostsFile | None = None,
        time_limit: float = 5.0,
        cache_time: float = 300.0,
        unknown_time: float = 30.0,
        cache_size: int = 5000,
    ) -> None:
        """
        @param clock: the time.
        @param resolver: the DNS.
        @param hosts: names that need no DNS; by default the system's /etc/hosts.
        @param time_limit: the most seconds that a look-up may take in all.
        @param cache_time: the most seconds to keep a confirmed name; less when the DNS says so.
        @param unknown_time: how many seconds to keep the answer that a client has no name.
        @param cache_size: how many answers to keep.
        """
        self._clock = clock
        self._resolver: IResolver = resolver
        self._hosts = HostsFile(clock) if hosts is None else hosts
        self._time_limit = time_limit
        self._cache_time = cache_time
        self._unknown_time = unknown_time
        self._cache_size = cache_size
        self._known: dict[str, _Known] = {}
        self._under_way: dict[str, list[Deferred[str]]] = {}
        self._searches: dict[str, Deferred[None]] = {}

    def lookup(self, address: str) -> str | Deferred[str]:
        """
        @param address: a textual IPv4 or IPv6 address.
        @return: the confirmed name or C{unknown}, at once when it is known.
        """
        known = self._known.get(address)
        if known is not None and self._clock.seconds() < known.expires:
            return known.name
        waiting = self._under_way.get(address)
        if waiting is None:
            name = self._hosts.name(address)
            if name is not None and valid_hostname(name):
                # The file gave this address to this name: that is the confirmation too.
                self._remember(address, name, 5.0)
                return name
            waiting = self._under_way[address] = []
            search = Deferred.fromCoroutine(self._search(address))
            if not search.called:
                self._searches[address] = search
            else:
                # The resolver had the answers in its cache.
                return self._known[address].name
        result: Deferred[str] = Deferred()
        waiting.append(result)
        return result

    def stop(self) -> None:
        """
        Give up what is under way: it ends as C{unknown}.
        """
        for work in list(self._searches.values()):
            work.cancel()

    async def _search(self, address: str) -> None:
        name, seconds = UNKNOWN, self._unknown_time
        work = Deferred.fromCoroutine(self._ask(address))
        limit = self._clock.callLater(self._time_limit, work.cancel)
        try:
            name, time_to_live = await work
            seconds = min(float(time_to_live), self._cache_time)
        except Exception as reason:
            # No such name, no DNS, the time limit, or a resolver that fails in its own way: a client without
            # a name is better than a client without service.
            log.debug("no name for {address}: {reason}", address=address, reason=repr(reason))
        finally:
            if limit.active():
                limit.cancel()
        self._remember(address, name, seconds)
        self._searches.pop(address, None)
        for result in self._under_way.pop(address):
            result.callback(name)

    async def _ask(self, address: str) -> tuple[str, int]:
        """
        @return: the confirmed name and how many seconds it is good for.
        @raise ValueError: there is none.
        """
        parsed = ipaddress.ip_address(address.partition("%")[0])
        timeout = (1, max(1, int(self._time_limit)))
        answers = await self._answers(self._resolver.lookupPointer, parsed.reverse_pointer, timeout)
        name, time_to_live = _first_pointer(answers)
        if not valid_hostname(name):
            raise ValueError("malformed or numeric host name")
        if self._hosts.has(name, str(parsed)):
            return name, time_to_live
        forward = self._resolver.lookupAddress if parsed.version == 4 else self._resolver.lookupIPV6Address
        for answer in await self._answers(forward, name, timeout):
            record_type = (dns.Record_A, dns.Record_AAAA)
            if isinstance(answer.payload, record_type) and answer.payload.address == parsed.packed:
                return name, min(time_to_live, answer.ttl)
        raise ValueError(f"address not listed for hostname {name}")

    async def _answers(self, ask: object, name: str, timeout: Sequence[int]) -> Sequence[dns.RRHeader]:
        """
        @param ask: a look-up method of an L{IResolver}.
        @return: the answer section.
        """
        assert callable(ask)
        answers, _authority, _additional = await maybeDeferred(ask, name, timeout)
        section: Sequence[dns.RRHeader] = answers
        return section

    def _remember(self, address: str, name: str, seconds: float) -> None:
        known = self._known
        known.pop(address, None)
        while len(known) >= self._cache_size > 0:
            # Dicts keep their order: the oldest answer goes first.
            del known[next(iter(known))]
        if seconds > 0 or address in self._under_way:
            known[address] = _Known(name, self._clock.seconds() + seconds)
