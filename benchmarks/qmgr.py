"""
What the queue manager costs a message, in memory: no disk, no network, an instantly succeeding transport.

Run it as C{python -m benchmarks.qmgr [MESSAGES]}. It prints microseconds of one core a message: from
C{arrived} to the removal, the log events emitted and thrown away; the same for one message with many
recipients; and the schedulers alone, with little and with much in the queue: the figures of one line should
be alike.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IBounces, IDeliveryTransport, IRouter, IStoredMessage
from qmqpd_tx.message import Envelope, Recipient, Route
from qmqpd_tx.qmgr.scheduling.feedback import WindowSettings
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.status import Action, DeliveryReport, Outcome

ROUNDS = 5


@implementer(IDeliveryTransport)
class Instant:
    """Delivers everything at once."""

    program = "smtp"

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """Done."""
        return succeed(
            DeliveryReport(
                [Outcome(r, Action.SENT, "2.0.0", "250 2.0.0 Ok", "sink") for r in request.recipients]
            )
        )

    def stop(self) -> Deferred[None]:
        """Nothing to close."""
        return succeed(None)


@implementer(IRouter)
class Relay:
    """Sends everything to one relay, or each domain to itself."""

    def __init__(self, relayhost: str | None) -> None:
        self._relayhost = relayhost

    def resolve(self, sender: bytes, recipient: bytes) -> Route:
        """The one place."""
        return Route("smtp", self._relayhost or recipient.rpartition(b"@")[2].decode(), recipient)


@implementer(IBounces)
class Silent:
    """Nothing fails here."""

    confirms = False

    def bounced(self, message: object, outcomes: object) -> Deferred[None]:
        """Nobody."""
        return succeed(None)

    deferred = delivered = bounced

    def notify(self, message: object) -> Deferred[None]:
        """Nothing."""
        return succeed(None)

    forget = delayed = notify


class FastClock(Clock):
    """A clock that also tells real time, so that turns are bounded as they are in life."""

    def seconds(self) -> float:
        """Real time."""
        return time.time()


def world(relayhost: str | None) -> tuple[FastClock, MemoryMailQueue, QueueManager]:
    """A running queue manager."""
    clock = FastClock()
    queue = MemoryMailQueue()
    queue.start()
    manager = QueueManager(
        # All of the time: with a share of it, most of the mail is still waiting at the end.
        config=config_from_text("myhostname = bench.test\nqmgr_intake_share = 100\n"),
        clock=clock,
        queue=queue,
        router=Relay(relayhost),
        transports={"smtp": Instant()},
        bounces=Silent(),
        random=random.Random(1),
    )
    manager.startService()
    return clock, queue, manager


def turns(clock: FastClock) -> None:
    """Let all turns happen."""
    while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
        clock.advance(0)


def message(queue: MemoryMailQueue, number: int, recipients: int) -> IStoredMessage:
    """Commit a message."""
    writer = queue.create(time.time())
    writer.write(b"Subject: x\n\n" + b"x" * 4000)
    writer.envelope(Envelope(b"sender@src.test", time.time()), b"")
    for n in range(recipients):
        address = b"u%d.%d@d%d.test" % (number, n, n % 100)
        writer.recipient(address, address)
    stored: list[IStoredMessage] = []
    writer.commit().addCallback(stored.append)
    return stored[0]


def measure(relayhost: str | None, messages: int, recipients: int) -> float:
    """
    @return: microseconds a recipient, the best of some rounds.
    """
    best = float("inf")
    for _ in range(ROUNDS):
        clock, queue, manager = world(relayhost)
        turns(clock)
        ready = [message(queue, n, recipients) for n in range(messages)]
        gc.collect()
        began = time.perf_counter()
        for stored in ready:
            manager.arrived(stored)
        turns(clock)
        best = min(best, time.perf_counter() - began)
        assert not manager.status().messages
        manager.stopService()
    return best / (messages * recipients) * 1e6


SCHEDULERS = (PreemptiveScheduler, RoundRobinScheduler)
Scheduler = PreemptiveScheduler | RoundRobinScheduler
ONE = [Recipient(b"u@d.test", b"u@d.test", 0)]


def put(scheduler: Scheduler, job: int, nexthop: str) -> None:
    """A message of one recipient."""
    scheduler.begin(job, 0.0, 1)
    scheduler.refilled(job, 1, False, 0.0)
    scheduler.add(job, "smtp", nexthop, ONE, 0.0)


def measure_queued(kind: Callable[..., Scheduler], queued: int, destinations: int) -> float:
    """
    @return: microseconds for a message of one recipient, from C{begin} to C{end}, with so many in the queue.
    """
    best = float("inf")
    steps = 10000
    names = [f"d{number}" for number in range(destinations)]
    for _ in range(ROUNDS):
        scheduler = kind(lambda name: TransportSettings())
        for number in range(queued):
            put(scheduler, number, names[number % destinations])
        gc.collect()
        began = time.perf_counter()
        for number in range(queued, queued + steps):
            put(scheduler, number, names[number % destinations])
            entry = scheduler.next(0.0)
            assert entry is not None
            scheduler.done(entry, None, 0.0)
            scheduler.end(entry.job, 0.0)
        best = min(best, time.perf_counter() - began)
    return best / steps * 1e6


def measure_mailing(kind: Callable[..., Scheduler], queued: int, domains: int) -> float:
    """
    @return: microseconds a delivery of a message of 10000 recipients, with so many single ones behind it
        that may overtake it.
    """
    best = float("inf")
    batch = [Recipient(b"u%d@d%d.test" % (n, n % domains), b"", n) for n in range(10000)]
    for _ in range(ROUNDS):
        scheduler = kind(lambda name: TransportSettings(WindowSettings(limit=0), recipient_limit=2))
        scheduler.begin(-1, 0.0, len(batch))
        scheduler.refilled(-1, len(batch), False, 0.0)
        for domain in range(domains):
            scheduler.add(-1, "smtp", f"d{domain}.test", batch[domain::domains], 0.0)
        for number in range(queued):
            put(scheduler, number, f"e{number}.test")
        # Those behind get into the order of candidates a few at a time, once.
        for _ in range(queued // 100):
            entry = scheduler.next(1.0)
            assert entry is not None
            scheduler.done(entry, None, 1.0)
        gc.collect()
        began = time.perf_counter()
        steps = 0
        while steps < 3000 and (entry := scheduler.next(1.0)) is not None:
            scheduler.done(entry, None, 1.0)
            steps += 1
        best = min(best, (time.perf_counter() - began) / steps)
    return best * 1e6


def main(write: Callable[[str], object] = print) -> None:
    """
    Measure and print.
    """
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    write(f"{count} messages of one recipient, one relay: {measure('relay', count, 1):.1f} us/message")
    write(f"{count} messages of one recipient, by domain: {measure(None, count, 1):.1f} us/message")
    many = max(1, count // 1000)
    write(f"{many} messages of 10000 recipients, by domain: {measure(None, many, 10000):.1f} us/recipient")
    sizes = (10, 10_000, 100_000)
    heads = ", ".join(f"{size:,}" for size in sizes)
    for kind in SCHEDULERS:
        name = kind.__name__
        one = [f"{measure_queued(kind, size, 1):.1f}" for size in sizes]
        write(f"{name}, {heads} messages waiting, one destination: {', '.join(one)} us/message")
        own = [f"{measure_queued(kind, size, size):.1f}" for size in sizes]
        write(f"{name}, {heads} messages waiting, to as many destinations: {', '.join(own)} us/message")
        for domains in (1, 5000):
            mailing = [f"{measure_mailing(kind, size, domains):.1f}" for size in sizes]
            write(
                f"{name}, 10,000 recipients of {domains} domains, {heads} messages behind: "
                f"{', '.join(mailing)} us/delivery"
            )


if __name__ == "__main__":
    main()
