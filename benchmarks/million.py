"""
One message with a million recipients at ten thousand domains, through the whole queue manager.

The clock is simulated, the queue is on disk in a temporary folder (without threads, so that one run is like
the other), and each delivery takes a second. Every recipient must get it once, and memory must not grow with
their number: C{qmgr_message_recipient_limit} of them are in memory at a time. Run it as
C{python -m benchmarks.million [RECIPIENTS [DOMAINS [qmgr|oqmgr]]]}; it prints memory before and at most, the
wall-clock time, and how long it took on the simulated clock.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import DeliveryRequest, IBounces, IDeliveryTransport, IRouter
from qmqpd_tx.message import Envelope, QueueID, Route
from qmqpd_tx.qmgr.selection import SCHEDULERS
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.spool.disk import InlineDisk
from qmqpd_tx.spool.store import FileMailQueue
from qmqpd_tx.status import Action, DeliveryReport, Outcome

LATENCY = 1.0
"""Seconds that a delivery takes."""


@frozen(slots=True)
class Result:
    """
    What a run gave.

    @ivar missed: how many recipients did not get it.
    @ivar twice: how many got it more than once.
    @ivar deliveries: how many deliveries it took.
    @ivar most_recipients: how many recipients were in memory at most.
    @ivar simulated: seconds on the simulated clock.
    @ivar wall: seconds on the wall.
    @ivar before: memory in use before the first recipient was read, bytes.
    @ivar peak: memory in use at most after that, bytes; 0 where the system does not tell.
    @ivar left: whether the message is still in the queue.
    """

    missed: int
    twice: int
    deliveries: int
    most_recipients: int
    simulated: float
    wall: float
    before: int
    peak: int
    left: bool


@implementer(IDeliveryTransport)
class SlowTransport:
    """Delivers to everybody after a while, and counts."""

    program = "smtp"

    def __init__(self, clock: Clock, recipients: int) -> None:
        self._clock = clock
        self.seen = bytearray(recipients)
        self.deliveries = 0
        self.reports = 0

    def deliver(self, request: DeliveryRequest) -> Deferred[DeliveryReport]:
        """Later."""
        self.deliveries += 1
        report: Deferred[DeliveryReport] = Deferred()
        self._clock.callLater(LATENCY, self._done, request, report)
        return report

    def _done(self, request: DeliveryRequest, report: Deferred[DeliveryReport]) -> None:
        seen = self.seen
        for recipient in request.recipients:
            number = int(recipient.address[1:8])
            seen[number] = min(seen[number] + 1, 2)
        self.reports += len(request.recipients)
        report.callback(
            DeliveryReport(
                [Outcome(r, Action.SENT, "2.0.0", "250 2.0.0 Ok", "sink") for r in request.recipients]
            )
        )

    def stop(self) -> Deferred[None]:
        """Nothing to close."""
        return succeed(None)


@implementer(IRouter)
class ByDomain:
    """Each domain is a destination."""

    def resolve(self, sender: bytes, recipient: bytes) -> Route:
        """Its domain."""
        return Route("smtp", recipient[9:].decode(), recipient)


@implementer(IBounces)
class NoBounces:
    """Nothing fails here."""

    confirms = False

    def bounced(self, message: object, outcomes: object) -> Deferred[None]:
        """Nobody."""
        raise AssertionError("nothing can fail")

    deferred = delivered = bounced

    def delayed(self, message: object) -> Deferred[None]:
        """Nothing."""
        return succeed(None)

    notify = delayed

    def forget(self, queue_id: QueueID) -> Deferred[None]:
        """Nothing."""
        return succeed(None)


def _memory(field: str) -> int:
    """
    @param field: C{VmRSS} for what is in use now, C{VmHWM} for the most.
    @return: bytes; 0 where the system does not tell.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _forget_peak() -> None:
    """Have the most memory in use counted from now on."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def run(recipients: int, domains: int, scheduler: str = "qmgr", settings: str = "") -> Result:
    """
    Send one message.

    @param recipients: to how many, in the order in which their domains take turns.
    @param domains: at how many domains.
    @param scheduler: C{qmgr} or C{oqmgr}.
    @param settings: lines of main.cf.
    """
    clock = Clock()
    clock.advance(1_700_000_000.0)
    transport = SlowTransport(clock, recipients)
    with tempfile.TemporaryDirectory() as folder:
        config = config_from_text(f"myhostname = bench.test\nqueue_directory = {folder}\n" + settings)
        queue = FileMailQueue(config, clock, disk=InlineDisk())
        queue.start()
        clock.advance(0)
        manager = QueueManager(
            config=config,
            clock=clock,
            queue=queue,
            router=ByDomain(),
            transports={"smtp": transport},
            bounces=NoBounces(),
            random=random.Random(1),
            scheduler=SCHEDULERS[scheduler],
        )
        manager.startService()
        _commit(queue, clock, recipients, domains)
        _forget_peak()
        before = _memory("VmRSS")
        began, wall = clock.seconds(), time.perf_counter()
        manager.flush()
        most = 0
        # A message that does not come to its end must not keep us.
        end = began + 10 * (LATENCY * recipients + 1000.0)
        while transport.reports < recipients and clock.seconds() < end:
            clock.advance(_step(clock))
            most = max(most, manager.recipients())
        clock.pump([0.0] * 10)
        result = Result(
            missed=transport.seen.count(0),
            twice=transport.seen.count(2),
            deliveries=transport.deliveries,
            most_recipients=most,
            simulated=clock.seconds() - began,
            wall=time.perf_counter() - wall,
            before=before,
            peak=_memory("VmHWM"),
            left=any(any((Path(folder) / name).rglob("*")) for name in ("incoming", "active")),
        )
        manager.stopService()
        clock.advance(10)
        queue.stop()
    return result


def _step(clock: Clock) -> float:
    """How long until the next timer."""
    return max(0.0, min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds())


def _commit(queue: FileMailQueue, clock: Clock, recipients: int, domains: int) -> None:
    now = clock.seconds()
    writer = queue.create(now)
    writer.write(b"Subject: to all\n\nhello\n")
    writer.envelope(Envelope(b"list@src.test", now), b"")
    for number in range(recipients):
        address = b"u%07d@d%05d.test" % (number, number % domains)
        writer.recipient(address, address)
    writer.commit().addCallback(lambda message: message.close())


@implementer(ILogObserver)
def _no_log(event: LogEvent) -> None:
    """A million lines are nobody's business."""


def main(write: Callable[[str], object] = print) -> None:
    """
    Run and print.
    """
    globalLogBeginner.beginLoggingTo([_no_log], discardBuffer=True, redirectStandardIO=False)
    arguments = sys.argv[1:]
    recipients = int(arguments[0]) if arguments else 1_000_000
    domains = int(arguments[1]) if len(arguments) > 1 else 10_000
    scheduler = arguments[2] if len(arguments) > 2 else "qmgr"
    result = run(recipients, domains, scheduler)
    write(f"{recipients} recipients at {domains} domains, {scheduler}: {result.deliveries} deliveries")
    write(f"missed: {result.missed}, more than once: {result.twice}, left in the queue: {result.left}")
    write(f"recipients in memory: {result.most_recipients} at most")
    write(f"memory: {result.before / 2**20:.1f} MiB before, {result.peak / 2**20:.1f} MiB at most")
    each = result.wall / recipients * 1e6
    write(f"time: {result.wall:.1f} s, {each:.1f} us a recipient; simulated: {result.simulated:.0f} s")


if __name__ == "__main__":
    main()
