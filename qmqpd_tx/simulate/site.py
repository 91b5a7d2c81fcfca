"""
A scripted server, with the connections that a client has to it.

Takes deliveries, gives their reports after the time that it takes. The server of a L{ServerLimit} is modelled
as what it is on a real host:

  - So many I{processes}, each of which serves one connection from its beginning to its end, idle times
    included.
  - The kernel's I{accept queue}: connections that are established and wait for a process, in order,
    C{backlog} of them. A client that gives up leaves its connection there until a process takes it and finds
    it closed.
  - Connections that find that queue full are not established (C{connect-timeout}), or only look so to the
    client (C{greeting-timeout}). TCP tries them again at fixed times, and they get in if there is room at
    that moment; mostly there is none, because a new connection is quicker than that.
  - With C{421} there is no queue: who comes when so many connections are open is turned away at once, and
    counts while that takes.

The client's side, Postfix's: its time-outs for the connection and for the greeting, and its connection cache
on demand: a connection is kept after a delivery that was begun when another one had just ended, because that
is what much mail for one destination looks like. A connection from the cache has its process already, and
keeps it.
"""

from __future__ import annotations

import math
from collections import deque

from qmqpd_tx.simulate.behaviour import Behaviour, Delivery
from qmqpd_tx.simulate.clock import SimulatedCall, SimulatedClock
from qmqpd_tx.simulate.records import Failure
from qmqpd_tx.simulate.scenario import Above, OutageKind
from qmqpd_tx.status import Action, DeliveryReport, DestinationFailure, Outcome

_JUST = 1.0
"""Within so many seconds after the end of a delivery the next one follows it."""


class Connection:
    """
    One connection.

    @ivar opened: when it was begun, POSIX seconds.
    @ivar uses: how many deliveries have used it.
    @ivar limit: the call that ends its wait, or its idle time.
    @ivar retry: the call that tries it again.
    @ivar retries: how often it was tried again.
    @ivar gone: the client has given it up.
    """

    __slots__ = ("delivery", "gone", "limit", "opened", "retries", "retry", "uses")

    def __init__(self, opened: float, delivery: Delivery) -> None:
        self.opened = opened
        self.delivery = delivery
        self.uses = 0
        self.limit: SimulatedCall | None = None
        self.retry: SimulatedCall | None = None
        self.retries = 0
        self.gone = False


class Site:
    """
    One server.
    """

    def __init__(self, host: str, behaviour: Behaviour, clock: SimulatedClock) -> None:
        """
        @param host: its name.
        """
        self._host = host
        self._relay = f"{host}[192.0.2.1]:25"
        self._behaviour = behaviour
        self._plan = behaviour.plan
        self._clock = clock
        self._reporting = behaviour.plan.report
        self._open = 0
        self._accepted: deque[Connection] = deque()
        self._idle: list[Connection] = []
        self._ended = -math.inf

    def deliver(self, delivery: Delivery) -> None:
        """
        Begin.
        """
        behaviour = self._behaviour
        now = delivery.began
        delivery.follows = now - self._ended < _JUST
        if self._plan.outages and self._down(delivery, now):
            return
        cached = self._from_cache(now)
        if cached is not None:
            cached.delivery = delivery
            self._use(cached, 0.0)
            return
        behaviour.record.connections += 1
        for refusal in behaviour.at_connect:
            if behaviour.random.random() < refusal.probability:
                self._clock.callLater(behaviour.connect(), self._fail, delivery, Failure.REFUSED)
                return
        connection = Connection(now, delivery)
        if self._plan.limit is None:
            self._greet(connection, behaviour.connect())
        else:
            self._clock.callLater(behaviour.connect(), self._arrive, connection)

    def _from_cache(self, now: float) -> Connection | None:
        """A connection that is too old is closed by whoever would have used it."""
        cache = self._plan.cache
        while self._idle and cache is not None:
            connection = self._idle.pop()
            _cancel(connection.limit)
            connection.limit = None
            if now - connection.opened < cache.age:
                return connection
            self._release()
        return None

    def _down(self, delivery: Delivery, now: float) -> bool:
        behaviour, later = self._behaviour, self._clock.callLater
        match behaviour.outage(now):
            case OutageKind.REFUSE:
                later(behaviour.connect(), self._fail, delivery, Failure.REFUSED)
            case OutageKind.TIMEOUT:
                later(self._plan.connect_timeout, self._fail, delivery, Failure.CONNECT)
            case OutageKind.REPLY:
                later(behaviour.connect() + behaviour.greeting(), self._fail, delivery, Failure.REPLY)
            case _:
                return False
        behaviour.record.connections += 1
        # What was connected is connected no more.
        for connection in self._idle:
            _cancel(connection.limit)
            self._release()
        self._idle.clear()
        return True

    # --- a server with a limit ------------------------------------------------------------------------

    def _arrive(self, connection: Connection) -> None:
        """The first packet of a connection has come to the server."""
        limit = self._plan.limit
        if limit is None:
            return
        if limit.above is Above.REPLY:
            self._open += 1
            if self._open > limit.concurrency:
                self._clock.callLater(self._behaviour.greeting(), self._turned_away, connection)
            else:
                self._greet(connection, 0.0)
            return
        if self._admit(connection):
            return
        if limit.above is Above.CONNECT:
            wait = connection.opened + self._plan.connect_timeout - self._clock.seconds()
            failure = Failure.CONNECT
        else:
            wait = self._plan.greeting_timeout
            failure = Failure.GREETING
        connection.limit = self._clock.callLater(max(0.0, wait), self._give_up, connection, failure)
        self._retry_later(connection)

    def _admit(self, connection: Connection) -> bool:
        """
        @return: whether there was room, at a process or in the accept queue.
        """
        limit = self._plan.limit
        if limit is None or self._open < limit.concurrency:
            self._open += 1
            self._greet(connection, 0.0)
            return True
        if len(self._accepted) >= limit.backlog:
            return False
        self._accepted.append(connection)
        if connection.limit is None or limit.above is Above.CONNECT:
            # The greeting is waited for from now on; to a client of the other kind it made no difference.
            _cancel(connection.limit)
            connection.limit = self._clock.callLater(
                self._plan.greeting_timeout, self._give_up, connection, Failure.GREETING
            )
        return True

    def _retry_later(self, connection: Connection) -> None:
        limit = self._plan.limit
        if limit is not None and connection.retries < len(limit.retries):
            at = connection.opened + limit.retries[connection.retries]
            connection.retries += 1
            delay = max(0.0, at - self._clock.seconds())
            connection.retry = self._clock.callLater(delay, self._try_again, connection)

    def _try_again(self, connection: Connection) -> None:
        connection.retry = None
        if not self._admit(connection):
            self._retry_later(connection)

    def _give_up(self, connection: Connection, failure: Failure) -> None:
        connection.limit = None
        _cancel(connection.retry)
        connection.retry = None
        connection.gone = True
        self._fail(connection.delivery, failure)

    def _turned_away(self, connection: Connection) -> None:
        self._open -= 1
        self._fail(connection.delivery, Failure.REPLY)

    def _release(self) -> None:
        """A process has nobody any more, and asks for the next after a moment."""
        limit = self._plan.limit
        if limit is None:
            return
        if limit.above is Above.REPLY:
            self._open -= 1
        else:
            self._clock.callLater(self._behaviour.turnaround(), self._take)

    def _take(self) -> None:
        """A process takes the next connection."""
        self._open -= 1
        accepted = self._accepted
        while accepted:
            connection = accepted.popleft()
            if not connection.gone:
                self._open += 1
                self._greet(connection, 0.0)
                return

    # --- the conversation -----------------------------------------------------------------------------

    def _greet(self, connection: Connection, connecting: float) -> None:
        """The connection has its process, or will have it after some seconds."""
        behaviour = self._behaviour
        _cancel(connection.limit)
        _cancel(connection.retry)
        connection.limit = connection.retry = None
        greeting = connecting + behaviour.greeting()
        for refusal in behaviour.at_greeting:
            if behaviour.random.random() < refusal.probability:
                self._clock.callLater(greeting, self._unwelcome, connection)
                return
        self._use(connection, greeting)

    def _unwelcome(self, connection: Connection) -> None:
        self._release()
        self._fail(connection.delivery, Failure.REPLY)

    def _use(self, connection: Connection, greeting: float) -> None:
        delivery = connection.delivery
        connection.uses += 1
        delivery.setup = self._clock.seconds() - delivery.began + greeting
        self._clock.callLater(greeting + self._behaviour.seconds(delivery), self._done, connection)

    def _done(self, connection: Connection) -> None:
        now = self._clock.seconds()
        delivery = connection.delivery
        outcomes = self._behaviour.outcomes(delivery, self._relay, now)
        cache = self._plan.cache
        self._ended = now
        if cache is not None and delivery.follows:
            connection.limit = self._clock.callLater(cache.idle, self._expire, connection)
            self._idle.append(connection)
        else:
            self._release()
        self._report(
            delivery,
            DeliveryReport(outcomes, None, setup_seconds=delivery.setup, connection_uses=connection.uses),
        )

    def _report(self, delivery: Delivery, report: DeliveryReport) -> None:
        """The queue manager hears of it, after a moment."""
        if self._reporting:
            self._clock.callLater(self._reporting, delivery.result.callback, report)
        else:
            delivery.result.callback(report)

    def _expire(self, connection: Connection) -> None:
        self._idle.remove(connection)
        self._release()

    def _fail(self, delivery: Delivery, failure: Failure) -> None:
        self._ended = self._clock.seconds()
        host = f"{self._host}[192.0.2.1]"
        match failure:
            case Failure.CONNECT:
                reason = DestinationFailure("4.4.1", f"connect to {host}:25: Connection timed out")
            case Failure.REFUSED:
                reason = DestinationFailure("4.4.1", f"connect to {host}:25: Connection refused")
            case Failure.GREETING:
                text = f"conversation with {host} timed out while receiving the initial server greeting"
                reason = DestinationFailure("4.4.2", text)
            case Failure.REPLY:
                text = f"host {host} refused to talk to me: 421 4.7.0 Error: too many connections"
                reason = DestinationFailure("4.7.0", text)
        outcomes = [
            Outcome(recipient, Action.DEFERRED, reason.dsn, reason.text)
            for recipient in delivery.request.recipients
        ]
        tries = self._behaviour.record.later if delivery.record.runs else self._behaviour.record.first
        tries.failures[failure] += len(outcomes)
        self._report(delivery, DeliveryReport(outcomes, reason))


def _cancel(call: SimulatedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
