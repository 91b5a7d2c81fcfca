"""How many recipients are read, and when: as Postfix was seen to do it, and as SCHEDULER_README says."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.feedback import WindowSettings
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from tests.qmgr.scheduling.support import many, runs, send, take


class Reader:
    """A large message for one destination, and the reading of it, at once when it is asked for."""

    def __init__(
        self, subject: PreemptiveScheduler | RoundRobinScheduler, total: int, name: str = "big"
    ) -> None:
        self.subject = subject
        self.name = name
        self.total = total
        self.left = total
        self.reads: list[int] = []

    def begin(self, now: float = 0.0) -> None:
        """Become active."""
        self.read(self.subject.begin(self.name, now, self.total), now)

    def read(self, size: int, now: float = 0.0) -> None:
        """Read the next recipients."""
        count = min(size, self.left)
        batch: Sequence[Recipient] = many(count, first=self.total - self.left)
        self.left -= count
        self.reads.append(count)
        self.subject.refilled(self.name, count, self.left > 0, now)
        self.subject.add(self.name, "smtp", "relay", batch, now)

    def refill(self, now: float = 0.0) -> None:
        """Read what is to be read."""
        while (wanted := self.subject.refill(now)) is not None:
            assert wanted[0] == self.name
            self.read(wanted[1], now)

    def deliver(self, now: float = 0.0) -> list[int]:
        """
        @return: the sizes of all deliveries, one at a time.
        """
        sizes = []
        self.refill(now)
        while (entry := self.subject.next(now)) is not None:
            self.refill(now)
            sizes.append(len(entry.recipients))
            self.subject.done(entry, None, now)
            self.refill(now)
        return sizes


def scheduler(
    recipient_limit: int, limit: int = 50, minimum: int = 10, **settings: float
) -> PreemptiveScheduler:
    """One delivery at a time, with one recipient in memory already."""
    kind = TransportSettings(
        WindowSettings(initial=1, limit=1),
        recipient_limit=recipient_limit,
        pool=50,
        **settings,  # type: ignore[arg-type]
    )
    subject = PreemptiveScheduler(lambda name: kind, RecipientLimits(limit, minimum))
    subject.begin("plug", 0.0, 1)
    subject.refilled("plug", 1, False, 0.0)
    return subject


class PostfixTests(SynchronousTestCase):
    """400 recipients, as recorded."""

    def reads(self, subject: PreemptiveScheduler) -> tuple[str, str]:
        """
        @return: sizes of deliveries, and of reads.
        """
        reader = Reader(subject, 400)
        reader.begin()
        sizes = reader.deliver()
        self.assertEqual(sum(sizes), 400)
        return runs(sizes), runs(reader.reads)

    def test_empty_before_next(self) -> None:
        """With less room than the refill limit, the next read comes when all is done."""
        self.assertEqual(
            self.reads(scheduler(50, extra_pool=0)),
            ("49 50 10 50 10 50 10 50 10 50 10 50 1", "49 60*5 51"),
        )
        self.assertEqual(self.reads(scheduler(2, extra_pool=0)), ("2*24 1 2*175 1", "49 60*5 51"))
        self.assertEqual(
            self.reads(scheduler(2, extra_pool=0, refill_limit=1000, refill_delay=1000.0)),
            ("2*24 1 2*175 1", "49 60*5 51"),
        )

    def test_refill_limit(self) -> None:
        """As soon as so many can be read they are, and the last entry is filled up."""
        self.assertEqual(self.reads(scheduler(2, extra_pool=0, refill_limit=10)), ("2*200", "49 11 10*34"))
        self.assertEqual(self.reads(scheduler(2, extra_pool=0, refill_limit=30)), ("2*200", "49 31 30*10 20"))

    def test_minimum(self) -> None:
        """The minimum comes on top of the pool. (A single last recipient is an entry of its own with us.)"""
        self.assertEqual(
            self.reads(scheduler(2, minimum=5, extra_pool=0, refill_limit=10)), ("2*199 1*2", "49 10*35 1")
        )

    def test_small_start(self) -> None:
        """The limit for all is for the first read only."""
        self.assertEqual(
            self.reads(scheduler(2, limit=20, extra_pool=0, refill_limit=10)), ("2*200", "19 41 10*34")
        )

    def test_extra(self) -> None:
        """The extra pool is not for those who do not overtake."""
        self.assertEqual(self.reads(scheduler(2, extra_pool=1000, refill_limit=10)), ("2*200", "49 11 10*34"))


class PoolTests(SynchronousTestCase):
    """Slots and their ways."""

    def test_refill_delay(self) -> None:
        """What is not worth a read is read after a while, and the time is announced."""
        subject = scheduler(2, extra_pool=0, refill_delay=5.0)
        reader = Reader(subject, 400)
        reader.begin()
        for _ in range(6):
            entry = subject.next(0.0)
            assert entry is not None
            subject.done(entry, None, 0.0)
        self.assertEqual(subject.wakeup(0.0), 5.0)
        self.assertIsNone(subject.refill(4.9))
        self.assertEqual(subject.refill(5.0), ("big", 60 - 49 + 12))

    def test_read_takes_room_at_once(self) -> None:
        """What is being read counts, so that two reads at a time do not take the same room."""
        subject = PreemptiveScheduler(lambda name: TransportSettings(), RecipientLimits(50, 10))
        self.assertEqual(subject.begin("a", 0.0, 30), 50)
        self.assertEqual(subject.begin("b", 0.0), 20)
        self.assertEqual(subject.begin("c", 0.0), 10)

    def test_first_unread_has_all(self) -> None:
        """The slots are for the oldest message that is not read to its end; then for the next one."""
        kind = TransportSettings(
            recipient_limit=1, pool=100, extra_pool=0, refill_limit=1, window=WindowSettings(limit=1)
        )
        subject = PreemptiveScheduler(lambda name: kind, RecipientLimits(10, 2))
        first, second = Reader(subject, 500, "first"), Reader(subject, 500, "second")
        first.begin()
        second.begin()
        self.assertEqual((first.reads, second.reads), ([10], [2]))
        entry = subject.next(0.0)
        assert entry is not None
        self.assertEqual(subject.refill(0.0), ("first", 100 + 2 - 10))
        subject.refilled("first", 92, False, 0.0)
        subject.forgo("first", 92, 0.0)
        for waiting in take(subject)[:9]:
            subject.done(waiting, None, 0.0)
        # Only two of the second are in memory, and ninety of the slots of the first are free again.
        self.assertTrue(subject._pools.size(subject._messages["second"]) > 80)

    def test_overtaker_gets_half_of_the_extra_pool(self) -> None:
        """A message that overtakes another before it is read gets slots for its reads."""
        kind = TransportSettings(
            WindowSettings(1, 1), recipient_limit=1, pool=10, extra_pool=40, refill_limit=1
        )
        subject = PreemptiveScheduler(lambda name: kind, RecipientLimits(300, 2))
        batch = many(290)
        subject.begin("big", 0.0, 290)
        subject.refilled("big", 290, False, 0.0)
        subject.add("big", "smtp", "relay", batch, 0.0)
        reader = Reader(subject, 14, "small")
        reader.begin(1.0)
        self.assertEqual(reader.reads, [10])
        # The big one earns its credit with its deliveries, then the small one is put before it.
        for _ in range(60):
            entry = subject.next(2.0)
            assert entry is not None
            if entry.job == "small":
                break
            subject.done(entry, None, 2.0)
        self.assertEqual(entry.job, "small")
        message = subject._messages["small"]
        self.assertEqual(message.jobs["smtp"].grant, 20)
        subject.refilled("small", 0, False, 2.0)
        self.assertEqual(subject._transports["smtp"].extra + message.jobs["smtp"].grant, 40)


class FillTests(SynchronousTestCase):
    """Entries that have room for recipients of a later read."""

    def sizes(self, *batches: int) -> list[int]:
        """The sizes of entries, when recipients come in these batches."""
        subject = PreemptiveScheduler(lambda name: TransportSettings(recipient_limit=10))
        subject.begin("m", 0.0, sum(batches))
        first = 0
        for number, count in enumerate(batches, 1):
            subject.refilled("m", count, number < len(batches), 0.0)
            subject.add("m", "smtp", "d.test", many(count, first=first), 0.0)
            first += count
        return [len(entry.recipients) for entry in take(subject)]

    def test_filled(self) -> None:
        """The last one is filled up first, by one recipient as by many."""
        self.assertEqual(self.sizes(15, 12), [10, 10, 7])
        self.assertEqual(self.sizes(15, 1), [10, 6])

    def test_one_by_one(self) -> None:
        """What comes one by one stays so: each may have a sender of its own."""
        self.assertEqual(self.sizes(1, 1, 1), [1, 1, 1])


class OldTests(SynchronousTestCase):
    """oqmgr's limits."""

    def test_slices(self) -> None:
        """A message is read on when all that was read of it is done."""
        subject = RoundRobinScheduler(
            lambda name: TransportSettings(WindowSettings(1, 1), recipient_limit=1), RecipientLimits(50, 10)
        )
        reader = Reader(subject, 200)
        reader.begin()
        self.assertEqual(reader.deliver(), [1] * 200)
        self.assertEqual(reader.reads, [50, 50, 50, 50])

    def test_fudge_factor(self) -> None:
        """One message has its share of the memory only."""
        subject = RoundRobinScheduler(lambda name: TransportSettings(), RecipientLimits(1000, 10, 30))
        send(subject, "small", "d.test", many(5))
        self.assertEqual(subject.begin("big", 0.0, 5000), 300)
