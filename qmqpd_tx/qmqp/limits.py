"""
How often, and how many times at once, one client may connect.

Takes network addresses as clients come and go; says when one of them is over a limit. Clients of one network
(C{qmqpd_client_ipv4_prefix_length}, C{qmqpd_client_ipv6_prefix_length}) count as one: an IPv6 host can have
as many addresses as it likes. Rates count in a window of C{anvil_rate_time_unit} that begins with the
client's first connection. Memory is bounded: open connections are, and at most
C{qmqpd_client_event_cache_size} windows are kept, of which the oldest is forgotten first; a client that is
forgotten so begins anew. A connection costs the same however many clients there are. Pure; the time is an
argument. Answers to anvil(8) and to smtpd(8)'s limits for clients; Postfix's qmqpd(8) has none.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from attrs import define, frozen


@frozen(slots=True)
class LimitSettings:
    """
    @ivar connections: C{qmqpd_client_connection_count_limit}; 0: none.
    @ivar rate: C{qmqpd_client_connection_rate_limit}; 0: none.
    @ivar window: C{anvil_rate_time_unit}, seconds.
    @ivar ipv4_prefix: how many bits of an IPv4 address tell clients apart.
    @ivar ipv6_prefix: how many bits of an IPv6 address do.
    @ivar windows: how many clients' windows to keep.
    """

    connections: int = 0
    rate: int = 0
    window: float = 60.0
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64
    windows: int = 100_000


@frozen(slots=True)
class Excess:
    """
    A limit that was exceeded.

    @ivar what: which, for the log.
    @ivar number: how far the client has come.
    """

    what: str
    number: int


@define(slots=True)
class _Window:
    started: float
    count: int = 0


@lru_cache(maxsize=4096)
def network_of(address: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """
    @return: what a client counts as: the address, or its network with the prefix length.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        prefix, whole = ipv6_prefix, 128
    else:
        prefix, whole = ipv4_prefix, 32
    if prefix >= whole:
        return str(parsed)
    return str(ip_network((parsed, prefix), strict=False))


class ClientLimits:
    """
    The counters of one service.

    @ivar settings: may be replaced at any time.
    """

    __slots__ = ("_open", "_windows", "settings")

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self._open: dict[str, int] = {}
        self._windows: dict[str, _Window] = {}

    @property
    def active(self) -> bool:
        """Whether there is anything to count."""
        return bool(self.settings.connections or self.settings.rate)

    @property
    def size(self) -> int:
        """How many counters there are."""
        return len(self._open) + len(self._windows)

    def key(self, address: str) -> str:
        """
        @return: what a client is counted by.
        """
        return network_of(address, self.settings.ipv4_prefix, self.settings.ipv6_prefix)

    def opened(self, key: str, now: float) -> Excess | None:
        """
        Count a connection.

        @param key: from L{key}.
        @return: the limit that it exceeds; then it must not be given to L{closed}.
        """
        settings = self.settings
        rate = self._rate(key, now) if settings.rate else 0
        count = self._open.get(key, 0) + 1
        if settings.connections and count > settings.connections:
            return Excess("Connection concurrency", count)
        if settings.rate and rate > settings.rate:
            return Excess("Connection rate", rate)
        self._open[key] = count
        return None

    def closed(self, key: str) -> None:
        """
        A connection that was counted is over.
        """
        count = self._open[key] - 1
        if count:
            self._open[key] = count
        else:
            del self._open[key]

    def _rate(self, key: str, now: float) -> int:
        settings, windows = self.settings, self._windows
        window = windows.get(key)
        if window is None or now - window.started >= settings.window or now < window.started:
            # In the order of their beginning, so that the oldest are in front.
            windows.pop(key, None)
            self._forget(now)
            window = windows[key] = _Window(now)
        window.count += 1
        return window.count

    def _forget(self, now: float) -> None:
        """
        Make room for a window. Two go for one that comes, so that what has run out is gone in time.
        """
        windows = self._windows
        for _ in range(2):
            if not windows:
                return
            oldest = next(iter(windows))
            if len(windows) < self.settings.windows and now - windows[oldest].started < self.settings.window:
                return
            del windows[oldest]
