"""
Brings the scenario's mail into the queue, message by message.

Takes the arrivals of a scenario, gives committed messages to the queue manager at their times. The content is
a few bytes, whatever the size that a message is said to have: nobody reads it, and a day of mail has to fit
into memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from qmqpd_tx.interfaces import IArrivals
from qmqpd_tx.message import Envelope
from qmqpd_tx.simulate.chance import domains, source, times, weighted
from qmqpd_tx.simulate.clock import SimulatedClock
from qmqpd_tx.simulate.queue import WatchedQueue
from qmqpd_tx.simulate.records import MailClass, MessageRecord
from qmqpd_tx.simulate.scenario import ArrivalPlan, Scenario

_CONTENT = b"Subject: simulated\n\n"


class _Stream:
    """One arrival of the scenario."""

    def __init__(self, plan: ArrivalPlan, mail: MailClass, scenario: Scenario, number: int) -> None:
        self.plan = plan
        self.mail = mail
        self.sender = f"{plan.label}@sender.test".encode("ascii")
        self.times: Iterator[float] = times(plan, source(scenario.seed, "arrival", number, "times"))
        random = source(scenario.seed, "arrival", number, "domains")
        by_name = {destination.name: destination for destination in scenario.destinations}
        choices: Sequence[Callable[[], str]] = [
            domains(by_name[name].domains, plan.spread, random) for name in plan.targets
        ]
        self._choose = weighted(choices, list(plan.targets.values()), random)

    def domain(self) -> bytes:
        """
        @return: of the next recipient.
        """
        return self._choose()().encode("ascii")


class Arrivals:
    """
    @ivar left: how many messages are still to come.
    """

    def __init__(
        self,
        scenario: Scenario,
        classes: dict[str, MailClass],
        clock: SimulatedClock,
        midnight: float,
        queue: WatchedQueue,
        manager: IArrivals,
    ) -> None:
        """
        @param classes: where mail is counted, by name.
        @param midnight: of the first day, POSIX seconds.
        """
        self._clock = clock
        self._midnight = midnight
        self._queue = queue
        self._manager = manager
        self._recipients = 0
        streams = [
            _Stream(plan, classes[plan.label], scenario, number)
            for number, plan in enumerate(scenario.arrivals)
        ]
        self.left = sum(plan.messages for plan in scenario.arrivals)
        self._events: Iterator[tuple[float, int, _Stream]] = heapq.merge(
            *(_events(stream, number) for number, stream in enumerate(streams)), key=lambda event: event[:2]
        )
        self._next()

    def _next(self) -> None:
        event = next(self._events, None)
        if event is not None:
            when, _, stream = event
            delay = max(0.0, self._midnight + when - self._clock.seconds())
            self._clock.callLater(delay, self._arrive, stream)

    def _arrive(self, stream: _Stream) -> None:
        now = self._clock.seconds()
        plan, mail = stream.plan, stream.mail
        writer = self._queue.create(now)
        writer.write(_CONTENT)
        writer.envelope(Envelope(stream.sender, now), b"")
        for _ in range(plan.recipients):
            self._recipients += 1
            address = b"u%d@%b" % (self._recipients, stream.domain())
            writer.recipient(address, address)
        self.left -= 1
        mail.messages += 1
        mail.arrived.add(now, plan.recipients)
        self._queue.enter(writer.queue_id, MessageRecord(mail, plan.size, now))
        writer.commit().addCallback(self._manager.arrived)
        self._next()


def _events(stream: _Stream, number: int) -> Iterator[tuple[float, int, _Stream]]:
    return ((when, number, stream) for when in stream.times)
