"""
Connections that wait for more work.

After a delivery a connection is kept for C{smtp_connection_cache_time_limit} for the next delivery to the
same nexthop, until it is C{smtp_connection_reuse_time_limit} old or was reused
C{smtp_connection_reuse_count_limit} times; the newest is used first, so that surplus ones run out. Where
Postfix keeps connections only for busy destinations (C{smtp_connection_cache_on_demand}), here every
destination is served; C{no} leaves those in C{smtp_connection_cache_destinations}. Answers to scache(8).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.transports.smtp.connection import SMTPConnection
from qmqpd_tx.transports.smtp.conversation import Stage
from qmqpd_tx.transports.smtp.nexthop import bare_name
from qmqpd_tx.transports.smtp.settings import Settings


class ConnectionPool:
    """
    The connections of one transport.

    @ivar settings: its limits; may be replaced.
    """

    def __init__(self, clock: IReactorTime, settings: Settings) -> None:
        """
        @param clock: for the limits.
        @param settings: the limits.
        """
        self._clock = clock
        self.settings = settings
        self._idle: dict[str, list[tuple[float, SMTPConnection]]] = {}
        self._live: set[SMTPConnection] = set()
        self._timer: IDelayedCall | None = None
        self._stopping = False
        self._stopped: list[Deferred[None]] = []

    def add(self, connection: SMTPConnection) -> None:
        """
        A connection was opened; L{stop} waits for its end.
        """
        self._live.add(connection)
        connection.on_gone = self._gone

    def take(self, nexthop: str) -> SMTPConnection | None:
        """
        @return: a connection that waits for work for this nexthop, no longer kept here; or L{None}.
        """
        waiting = self._idle.get(nexthop)
        if not waiting:
            return None
        connection = waiting.pop()[1]
        connection.kept_for = None
        if not waiting:
            del self._idle[nexthop]
        return connection

    def release(self, connection: SMTPConnection, nexthop: str) -> None:
        """
        A delivery is over: keep the connection if it is of further use, else end it.
        """
        conversation = connection.conversation
        if connection.loss is not None:
            return
        if not conversation.reusable or self._stopping or not self._wanted(connection, nexthop):
            connection.quit()
        elif conversation.stage is Stage.RSET:
            connection.on_reset = lambda ready: self._reset(ready, nexthop)
        elif conversation.stage is Stage.IDLE:
            self._keep(connection, nexthop)
        else:
            connection.quit()

    def _wanted(self, connection: SMTPConnection, nexthop: str) -> bool:
        settings = self.settings
        if not settings.cache_on_demand and bare_name(nexthop) not in settings.cache_destinations:
            return False
        # N reuses are N+1 uses.
        if settings.reuse_count_limit and connection.uses > settings.reuse_count_limit:
            return False
        return self._clock.seconds() - connection.started < settings.reuse_time_limit

    def _reset(self, connection: SMTPConnection, nexthop: str) -> None:
        connection.on_reset = None
        self.release(connection, nexthop)

    def _keep(self, connection: SMTPConnection, nexthop: str) -> None:
        connection.idle()
        connection.kept_for = nexthop
        limit = self.settings.cache_time_limit
        expiry = self._clock.seconds() + limit
        self._idle.setdefault(nexthop, []).append((expiry, connection))
        if self._timer is None:
            self._timer = self._clock.callLater(limit, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        earliest: float | None = None
        expired: list[SMTPConnection] = []
        for nexthop, waiting in list(self._idle.items()):
            # The oldest is first: all limits are the same.
            fresh = 0
            while fresh < len(waiting) and waiting[fresh][0] <= now:
                expired.append(waiting[fresh][1])
                fresh += 1
            del waiting[:fresh]
            if not waiting:
                del self._idle[nexthop]
            elif earliest is None or waiting[0][0] < earliest:
                earliest = waiting[0][0]
        if earliest is not None:
            self._timer = self._clock.callLater(max(earliest - now, 0.0), self._expire)
        for connection in expired:
            connection.quit()

    def _gone(self, connection: SMTPConnection) -> None:
        self._live.discard(connection)
        nexthop = connection.kept_for
        if nexthop is not None and nexthop in self._idle:
            kept = [item for item in self._idle[nexthop] if item[1] is not connection]
            if kept:
                self._idle[nexthop] = kept
            else:
                del self._idle[nexthop]
        if self._stopped and not self._live:
            stopped, self._stopped = self._stopped, []
            for waiter in stopped:
                waiter.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Say QUIT on every connection that waits, and keep none from now on.

        @return: a Deferred that fires when all connections are closed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle = [connection for waiting in self._idle.values() for _, connection in waiting]
        self._idle.clear()
        self._stopping = True
        for connection in idle:
            connection.quit()
        if not self._live:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped
