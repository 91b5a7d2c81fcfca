"""What the tests of the schedulers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.status import DestinationFailure

Scheduler = PreemptiveScheduler | RoundRobinScheduler

MakeScheduler = Callable[[Callable[[str], TransportSettings], RecipientLimits | None], Scheduler]

REFUSED = DestinationFailure("4.4.1", "connection refused")

BROKEN = DestinationFailure("4.3.0", "mail transport unavailable")


def recipients(*addresses: str) -> list[Recipient]:
    """Recipients with positions in the order given."""
    return [Recipient(a.encode(), a.encode(), position) for position, a in enumerate(addresses)]


def one(address: str = "u@d.test") -> list[Recipient]:
    """One recipient."""
    return recipients(address)


def many(count: int, domain: str = "d.test", first: int = 0) -> list[Recipient]:
    """Recipients of one domain, in the order in which they are sorted."""
    return recipients(*[f"u{number:06}@{domain}" for number in range(first, first + count)])


def take(subject: IQueueScheduler, now: float = 0.0) -> list[Entry]:
    """All that may be delivered now."""
    found = []
    while (entry := subject.next(now)) is not None:
        found.append(entry)
    return found


def jobs(entries: Sequence[Entry]) -> list[object]:
    """Whose they are."""
    return [entry.job for entry in entries]


def runs(names: Sequence[object]) -> str:
    """
    @return: a sequence with repetitions counted, as in C{"big*4 s1 big*2"}.
    """
    groups = [(name, len(list(group))) for name, group in groupby(names)]
    return " ".join(f"{name}" if count == 1 else f"{name}*{count}" for name, count in groups)


def send(subject: Scheduler, job: object, nexthop: str, batch: Sequence[Recipient], now: float = 0.0) -> None:
    """A whole message for one destination of C{smtp}, all of it read."""
    subject.begin(job, now, len(batch))
    subject.refilled(job, len(batch), False, now)
    subject.add(job, "smtp", nexthop, batch, now)
