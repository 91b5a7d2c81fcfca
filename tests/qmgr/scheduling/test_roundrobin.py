"""The round-robin scheduler."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import Entry, IScheduler
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.feedback import Feedback, WindowSettings
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.status import DestinationFailure

Workload = tuple[list[tuple[int, str, str, int]], list[int], dict[str, TransportSettings]]

REFUSED = DestinationFailure("4.4.1", "connection refused")


def recipients(*addresses: str) -> list[Recipient]:
    """Recipients with positions in the order given."""
    return [Recipient(a.encode(), a.encode(), position) for position, a in enumerate(addresses)]


def one(address: str = "u@d.test") -> list[Recipient]:
    """One recipient."""
    return recipients(address)


def scheduler(**kinds: TransportSettings) -> RoundRobinScheduler:
    """A scheduler with settings by transport name."""
    return RoundRobinScheduler(lambda name: kinds.get(name, TransportSettings()))


def take(subject: RoundRobinScheduler, now: float = 0.0) -> list[Entry]:
    """All that may be delivered now."""
    found = []
    while (entry := subject.next(now)) is not None:
        found.append(entry)
    return found


def jobs(entries: list[Entry]) -> list[object]:
    """Whose they are."""
    return [entry.job for entry in entries]


class OrderTests(SynchronousTestCase):
    """Who comes when."""

    def test_interfaces(self) -> None:
        """It is what it says."""
        self.assertTrue(verifyObject(IScheduler, scheduler()))
        self.assertTrue(verifyObject(IQueueScheduler, scheduler()))

    def test_first_come_first_served(self) -> None:
        """Within a destination in order of arrival."""
        subject = scheduler()
        for job in "abc":
            subject.add(job, "smtp", "d.test", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["a", "b", "c"])

    def test_destinations_take_turns(self) -> None:
        """A destination with much mail does not go before one with little."""
        subject = scheduler()
        for job in range(4):
            subject.add(f"big{job}", "smtp", "big.test", one(), 0.0)
        subject.add("small", "smtp", "small.test", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["big0", "small", "big1", "big2", "big3"])

    def test_transports_take_turns(self) -> None:
        """A transport with many destinations does not go before one with few."""
        subject = scheduler()
        for n in range(3):
            subject.add(f"s{n}", "smtp", f"d{n}.test", one(), 0.0)
        subject.add("l0", "lmtp", "here", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["s0", "l0", "s1", "s2"])

    def test_recipients_sorted_then_cut(self) -> None:
        """As seen in Postfix: by domain, then address, upper case or not, cut at the limit."""
        subject = scheduler(smtp=TransportSettings(recipient_limit=3))
        subject.add(
            "m", "smtp", "relay", recipients("z@b.test", "a@c.test", "A@b.test", "b@B.test", "m@a.test"), 0.0
        )
        self.assertEqual(
            [[r.address for r in entry.recipients] for entry in take(subject)],
            [[b"m@a.test", b"A@b.test", b"b@B.test"], [b"z@b.test", b"a@c.test"]],
        )

    def test_no_recipient_limit(self) -> None:
        """Limit 0 is no limit."""
        subject = scheduler(smtp=TransportSettings(recipient_limit=0))
        subject.add("m", "smtp", "relay", recipients(*[f"u{n}@d.test" for n in range(200)]), 0.0)
        self.assertEqual([len(entry.recipients) for entry in take(subject)], [200])


class WindowTests(SynchronousTestCase):
    """How many at a time."""

    def test_window(self) -> None:
        """Five at first; each success lets two follow."""
        subject = scheduler()
        for job in range(30):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        first = take(subject)
        self.assertEqual(len(first), 5)
        subject.done(first[0], None, 0.0)
        self.assertEqual(len(take(subject)), 2)

    def test_recipient_is_destination(self) -> None:
        """With a recipient limit of 1, windows are about recipients."""
        subject = scheduler(local=TransportSettings(WindowSettings(limit=2), recipient_limit=1))
        for job in range(3):
            subject.add(job, "local", "here.test", recipients("a@here.test", "b@here.test"), 0.0)
        entries = take(subject)
        self.assertEqual(
            Counter(entry.recipients[0].address for entry in entries), {b"a@here.test": 2, b"b@here.test": 2}
        )
        self.assertEqual(entries[0].destination.nexthop, "a@here.test")
        self.assertEqual(entries[0].nexthop, "here.test")

    def test_process_limit(self) -> None:
        """The transport's maxproc holds over all of its destinations, and moves on when one is done."""
        subject = scheduler(smtp=TransportSettings(process_limit=3))
        for n in range(9):
            subject.add(n, "smtp", f"d{n}.test", one(), 0.0)
        entries = take(subject)
        self.assertEqual(len(entries), 3)
        subject.done(entries[0], None, 0.0)
        self.assertEqual(len(take(subject)), 1)

    def test_forgets_idle_destinations(self) -> None:
        """A destination without mail costs nothing."""
        subject = scheduler()
        for n in range(100):
            subject.add(n, "smtp", f"d{n}.test", one(), 0.0)
        for entry in take(subject):
            subject.done(entry, None, 0.0)
        self.assertEqual(list(subject.destinations(0.0)), [])

    def test_reload(self) -> None:
        """New limits hold for what comes next."""
        subject = scheduler()
        for job in range(10):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        entries = take(subject)
        subject.reconfigure(lambda name: TransportSettings(WindowSettings(limit=2)), RecipientLimits())
        for entry in entries:
            subject.done(entry, None, 0.0)
        self.assertEqual(len(take(subject)), 2)


class DeadTests(SynchronousTestCase):
    """Destinations and transports that do not answer."""

    def kill(self, subject: RoundRobinScheduler, waiting: int = 3) -> list[Entry]:
        """Fail until the destination is dead; what was waiting."""
        for job in range(4 + waiting):
            subject.add(job, "smtp", "dead.test", one(), 0.0)
        returned: list[Entry] = []
        for _ in range(4):
            entry = subject.next(0.0)
            assert entry is not None
            self.assertEqual(returned, [])
            returned = list(subject.done(entry, REFUSED, 0.0))
        return returned

    def test_waiting_mail_returned(self) -> None:
        """The mail that waits for a dead destination comes back untried, each once."""
        subject = scheduler()
        self.assertEqual(jobs(self.kill(subject)), [4, 5, 6])
        self.assertEqual(take(subject), [])
        self.assertEqual(subject.dead("smtp", "dead.test", 0.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "other.test", 0.0))
        self.assertIsNone(subject.dead("nosuch", "other.test", 0.0))

    def test_revives(self) -> None:
        """After C{minimal_backoff_time} it is tried again, carefully."""
        subject = scheduler()
        self.kill(subject)
        self.assertEqual(subject.wakeup(1.0), 300.0)
        self.assertEqual(subject.dead("smtp", "dead.test", 299.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "dead.test", 300.0))
        for job in range(9):
            subject.add(job, "smtp", "dead.test", one(), 300.0)
        self.assertEqual(len(take(subject, 300.0)), 5)

    def test_added_mail_waits(self) -> None:
        """Mail added all the same waits until the time has come, and not longer."""
        subject = scheduler()
        self.kill(subject)
        subject.add("late", "smtp", "dead.test", one(), 1.0)
        self.assertEqual(take(subject, 299.0), [])
        self.assertEqual(jobs(take(subject, 300.0)), ["late"])

    def test_flush(self) -> None:
        """Trigger F forgets the dead."""
        subject = scheduler()
        self.kill(subject)
        subject.add("late", "smtp", "dead.test", one(), 1.0)
        subject.flush()
        self.assertIsNone(subject.dead("smtp", "dead.test", 1.0))
        self.assertEqual(jobs(take(subject, 1.0)), ["late"])

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not make a destination dead for years."""
        subject = scheduler()
        self.kill(subject)
        self.assertEqual(subject.dead("smtp", "dead.test", 100.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "dead.test", 100.0 - 86400))

    def test_late_success_revives(self) -> None:
        """A delivery that was under way and works says that it lives."""
        subject = scheduler()
        for job in range(6):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        entries = take(subject)
        for entry in entries[:4]:
            subject.done(entry, REFUSED, 0.0)
        self.assertEqual(subject.dead("smtp", "d.test", 0.0), REFUSED)
        subject.done(entries[4], None, 0.0)
        self.assertIsNone(subject.dead("smtp", "d.test", 0.0))
        self.assertEqual(list(subject.destinations(0.0)), [])

    def test_other_failures_do_not_kill(self) -> None:
        """A destination that answers is alive, whatever it answers."""
        subject = scheduler()
        for job in range(50):
            subject.add(job, "smtp", "d.test", one(), 0.0)
            for entry in take(subject):
                self.assertEqual(subject.done(entry, None, 0.0), ())
        self.assertIsNone(subject.dead("smtp", "d.test", 0.0))

    def test_throttled_transport(self) -> None:
        """A broken transport gives back all its mail and is left alone for a minute; others go on."""
        subject = scheduler()
        for n in range(4):
            subject.add(n, "bad", f"d{n}.test", one(), 0.0)
        subject.add("good", "smtp", "d.test", one(), 0.0)
        entry = subject.next(0.0)
        assert entry is not None
        subject.done(entry, None, 0.0)
        broken = DestinationFailure("4.3.0", "mail transport unavailable")
        self.assertEqual(jobs(list(subject.throttle("bad", broken, 0.0))), [1, 2, 3])
        self.assertEqual(subject.dead("bad", "any.test", 59.0), broken)
        self.assertEqual(jobs(take(subject)), ["good"])
        self.assertIsNone(subject.dead("bad", "any.test", 60.0))
        subject.add("again", "bad", "d.test", one(), 60.0)
        self.assertEqual(jobs(take(subject, 60.0)), ["again"])

    def test_status(self) -> None:
        """A tool can see why and until when."""
        subject = scheduler()
        self.kill(subject)
        (status,) = subject.destinations(1.0)
        self.assertEqual((status.nexthop, status.resumes, status.reason), ("dead.test", 300.0, REFUSED))


class RateTests(SynchronousTestCase):
    """Deliveries that keep a distance."""

    def test_rate_delay(self) -> None:
        """One delivery, then the delay, then the next; the end of the delay is announced."""
        subject = scheduler(slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0))
        for job in range(3):
            subject.add(job, "slow", "d.test", one(), 0.0)
        (first,) = take(subject)
        self.assertIsNone(subject.wakeup(0.0))
        subject.done(first, None, 1.0)
        self.assertEqual(take(subject, 10.9), [])
        self.assertEqual(subject.wakeup(10.9), 11.0)
        self.assertEqual(jobs(take(subject, 11.0)), [1])

    def test_delay_holds_for_later_mail(self) -> None:
        """Mail that comes when the destination is idle keeps the distance to the last delivery too."""
        subject = scheduler(slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0))
        subject.add("a", "slow", "d.test", one(), 0.0)
        (first,) = take(subject)
        subject.done(first, None, 0.0)
        subject.add("b", "slow", "d.test", one(), 5.0)
        self.assertEqual(take(subject, 9.0), [])
        self.assertEqual(jobs(take(subject, 10.0)), ["b"])
        # It is not a dead destination, and no flush hurries it.
        self.assertIsNone(subject.dead("slow", "d.test", 9.0))


@st.composite
def workloads(
    draw: st.DrawFn,
) -> tuple[list[tuple[int, str, str, int]], list[int], dict[str, TransportSettings]]:
    """Mail, outcomes, and settings."""
    mail = draw(
        st.lists(
            st.tuples(
                st.integers(0, 6),
                st.sampled_from(["smtp", "local", "slow"]),
                st.sampled_from(["a", "b", "c"]),
                st.integers(1, 7),
            ),
            max_size=25,
        )
    )
    results = draw(st.lists(st.integers(0, 9), min_size=1, max_size=60))
    kinds = {
        "smtp": TransportSettings(
            WindowSettings(
                draw(st.integers(1, 5)),
                draw(st.integers(1, 6)),
                positive=Feedback.parse(draw(st.sampled_from(["1", "1/concurrency"]))),
            ),
            recipient_limit=draw(st.integers(0, 3)),
            process_limit=draw(st.integers(0, 8)),
        ),
        "local": TransportSettings(WindowSettings(limit=2), recipient_limit=1, process_limit=3),
        "slow": TransportSettings(WindowSettings(limit=1), rate_delay=7.0, recipient_limit=2),
    }
    return mail, results, kinds


class PropertyTests(SynchronousTestCase):
    """Whatever happens."""

    @settings(max_examples=150, deadline=None)
    @given(workloads())
    def test_each_recipient_once_within_limits(self, load: Workload) -> None:
        """
        Every recipient is either tried once or returned once; no window, process limit, or recipient limit
        is exceeded; nothing is left at the end.
        """
        mail, results, kinds = load
        subject = scheduler(**kinds)
        seen: Counter[tuple[object, int]] = Counter()
        expected: Counter[tuple[object, int]] = Counter()
        position = 0
        now = 0.0
        pending = deque(mail)
        under_way: list[Entry] = []
        busy: Counter[object] = Counter()
        step = 0
        while True:
            step += 1
            result = results[step % len(results)]
            if pending and (result % 3 != 1 or not under_way):
                job, transport, nexthop, count = pending.popleft()
                batch = [
                    Recipient(b"u%d@%s" % (position + n, nexthop.encode()), b"", position + n)
                    for n in range(count)
                ]
                position += count
                expected.update((job, recipient.position) for recipient in batch)
                subject.add(job, transport, nexthop, batch, now)
            while (entry := subject.next(now)) is not None:
                limits = kinds[entry.destination.transport]
                busy[entry.destination] += 1
                busy[entry.destination.transport] += 1
                self.assertTrue(busy[entry.destination] <= limits.window.limit)
                if limits.process_limit:
                    self.assertTrue(busy[entry.destination.transport] <= limits.process_limit)
                if limits.recipient_limit:
                    self.assertTrue(0 < len(entry.recipients) <= limits.recipient_limit)
                seen.update((entry.job, recipient.position) for recipient in entry.recipients)
                under_way.append(entry)
            if not pending and not under_way and subject.wakeup(now) is None:
                break
            if under_way and (result or not pending):
                entry = under_way.pop(result % len(under_way))
                busy[entry.destination] -= 1
                busy[entry.destination.transport] -= 1
                for back in subject.done(entry, REFUSED if result > 6 else None, now):
                    seen.update((back.job, recipient.position) for recipient in back.recipients)
            elif not pending:
                when = subject.wakeup(now)
                if when is not None:
                    now = max(now, when)
            now += 0.5
        self.assertEqual(seen, expected)
        self.assertEqual(list(subject.destinations(now)), [])

    @settings(max_examples=60, deadline=None)
    @given(st.integers(2, 8), st.integers(20, 60))
    def test_no_destination_starves(self, count: int, flood: int) -> None:
        """
        While one destination is flooded, each of the others gets its turn within one round of all.
        """
        subject = scheduler(smtp=TransportSettings(WindowSettings(limit=3), process_limit=2))
        for n in range(flood):
            subject.add(("flood", n), "smtp", "flood.test", one(), 0.0)
        for n in range(count):
            subject.add(("single", n), "smtp", f"d{n}.test", one(), 0.0)
        turns: list[object] = []
        under_way = deque(take(subject))
        while under_way:
            entry = under_way.popleft()
            turns.append(entry.job)
            subject.done(entry, None, 0.0)
            under_way.extend(take(subject))
        last = max(turns.index(("single", n)) for n in range(count))
        self.assertTrue(last <= count + 3, turns[: count + 6])
        self.assertEqual(len(turns), count + flood)

    def test_cost_does_not_grow(self) -> None:
        """A step with 50,000 destinations waiting costs about what it costs with 500."""
        import time

        def cost(count: int) -> float:
            subject = scheduler(smtp=TransportSettings(process_limit=1))
            for n in range(count):
                subject.add(n, "smtp", f"d{n}.test", one(), 0.0)
            best = 1.0
            for _ in range(5):
                began = time.perf_counter()
                for _ in range(200):
                    entry = subject.next(0.0)
                    assert entry is not None
                    subject.done(entry, None, 0.0)
                best = min(best, time.perf_counter() - began)
            return best

        self.assertTrue(cost(50000) < 10 * cost(2000))
