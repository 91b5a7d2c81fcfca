"""What both schedulers do alike: windows, dead destinations, rates, and what they say of what waits."""

from __future__ import annotations

from collections import Counter

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import Entry, IScheduler
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler, Wait, WaitingEntry
from qmqpd_tx.qmgr.scheduling.feedback import Feedback, WindowSettings
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.status import DestinationFailure
from tests.qmgr.scheduling.support import (
    REFUSED,
    MakeScheduler,
    Scheduler,
    jobs,
    one,
    recipients,
    take,
)


class SchedulerTests(SynchronousTestCase):
    """With a scheduler of either kind."""

    make: MakeScheduler = RoundRobinScheduler

    def scheduler(self, **kinds: TransportSettings) -> Scheduler:
        """A scheduler with settings by transport name."""
        return type(self).make(lambda name: kinds.get(name, TransportSettings()), None)


class OrderTests(SchedulerTests):
    """Who comes when."""

    def test_interfaces(self) -> None:
        """It is what it says."""
        for make in (RoundRobinScheduler, PreemptiveScheduler):
            subject = make(lambda name: TransportSettings())
            self.assertTrue(verifyObject(IScheduler, subject))
            self.assertTrue(verifyObject(IQueueScheduler, subject))

    def test_first_come_first_served(self) -> None:
        """Within a destination in order of arrival."""
        subject = self.scheduler()
        for job in "abc":
            subject.add(job, "smtp", "d.test", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["a", "b", "c"])

    def test_destinations_take_turns(self) -> None:
        """A destination with much mail does not go before one with little."""
        subject = self.scheduler()
        for job in range(4):
            subject.add(f"big{job}", "smtp", "big.test", one(), 0.0)
        subject.add("small", "smtp", "small.test", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["big0", "small", "big1", "big2", "big3"])

    def test_transports_take_turns(self) -> None:
        """A transport with many destinations does not go before one with few."""
        subject = self.scheduler()
        for n in range(3):
            subject.add(f"s{n}", "smtp", f"d{n}.test", one(), 0.0)
        subject.add("l0", "lmtp", "here", one(), 0.0)
        self.assertEqual(jobs(take(subject)), ["s0", "l0", "s1", "s2"])

    def test_recipients_sorted_then_cut(self) -> None:
        """As seen in Postfix: by domain, then address, upper case or not, cut at the limit."""
        subject = self.scheduler(smtp=TransportSettings(recipient_limit=3))
        subject.add(
            "m", "smtp", "relay", recipients("z@b.test", "a@c.test", "A@b.test", "b@B.test", "m@a.test"), 0.0
        )
        self.assertEqual(
            [[r.address for r in entry.recipients] for entry in take(subject)],
            [[b"m@a.test", b"A@b.test", b"b@B.test"], [b"z@b.test", b"a@c.test"]],
        )

    def test_no_recipient_limit(self) -> None:
        """Limit 0 is no limit."""
        subject = self.scheduler(smtp=TransportSettings(recipient_limit=0))
        subject.add("m", "smtp", "relay", recipients(*[f"u{n}@d.test" for n in range(200)]), 0.0)
        self.assertEqual([len(entry.recipients) for entry in take(subject)], [200])


class WindowTests(SchedulerTests):
    """How many at a time."""

    def test_window(self) -> None:
        """Five at first; each success lets two follow."""
        subject = self.scheduler()
        for job in range(30):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        first = take(subject)
        self.assertEqual(len(first), 5)
        subject.done(first[0], None, 0.0)
        self.assertEqual(len(take(subject)), 2)

    def test_recipient_is_destination(self) -> None:
        """With a recipient limit of 1, windows are about recipients."""
        subject = self.scheduler(local=TransportSettings(WindowSettings(limit=2), recipient_limit=1))
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
        subject = self.scheduler(smtp=TransportSettings(process_limit=3))
        for n in range(9):
            subject.add(n, "smtp", f"d{n}.test", one(), 0.0)
        entries = take(subject)
        self.assertEqual(len(entries), 3)
        subject.done(entries[0], None, 0.0)
        self.assertEqual(len(take(subject)), 1)

    def test_forgets_idle_destinations(self) -> None:
        """A destination without mail costs nothing."""
        subject = self.scheduler()
        for n in range(100):
            subject.add(n, "smtp", f"d{n}.test", one(), 0.0)
        for entry in take(subject):
            subject.done(entry, None, 0.0)
        self.assertEqual(list(subject.destinations(0.0)), [])

    def test_reload(self) -> None:
        """New limits hold for what comes next."""
        subject = self.scheduler()
        for job in range(10):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        entries = take(subject)
        subject.reconfigure(lambda name: TransportSettings(WindowSettings(limit=2)), RecipientLimits())
        for entry in entries:
            subject.done(entry, None, 0.0)
        self.assertEqual(len(take(subject)), 2)


class DeadTests(SchedulerTests):
    """Destinations and transports that do not answer."""

    def kill(self, subject: Scheduler, waiting: int = 3) -> list[Entry]:
        """Fail until the destination is dead; what was waiting."""
        for job in range(3 + waiting):
            subject.add(job, "smtp", "dead.test", one(), 0.0)
        returned: list[Entry] = []
        for _ in range(3):
            entry = subject.next(0.0)
            assert entry is not None
            self.assertEqual(returned, [])
            returned = list(subject.done(entry, REFUSED, 0.0))
        return returned

    def test_waiting_mail_returned(self) -> None:
        """The mail that waits for a dead destination comes back untried, each once."""
        subject = self.scheduler()
        self.assertEqual(jobs(self.kill(subject)), [3, 4, 5])
        self.assertEqual(take(subject), [])
        self.assertEqual(subject.dead("smtp", "dead.test", 0.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "other.test", 0.0))
        self.assertIsNone(subject.dead("nosuch", "other.test", 0.0))

    def test_revives(self) -> None:
        """After C{minimal_backoff_time} it is tried again, carefully."""
        subject = self.scheduler()
        self.kill(subject)
        self.assertEqual(subject.wakeup(1.0), 300.0)
        self.assertEqual(subject.dead("smtp", "dead.test", 299.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "dead.test", 300.0))
        for job in range(9):
            subject.add(job, "smtp", "dead.test", one(), 300.0)
        self.assertEqual(len(take(subject, 300.0)), 5)

    def test_added_mail_waits(self) -> None:
        """Mail added all the same waits until the time has come, and not longer."""
        subject = self.scheduler()
        self.kill(subject)
        subject.add("late", "smtp", "dead.test", one(), 1.0)
        self.assertEqual(take(subject, 299.0), [])
        self.assertEqual(jobs(take(subject, 300.0)), ["late"])

    def test_flush(self) -> None:
        """Trigger F forgets the dead."""
        subject = self.scheduler()
        self.kill(subject)
        subject.add("late", "smtp", "dead.test", one(), 1.0)
        subject.flush()
        self.assertIsNone(subject.dead("smtp", "dead.test", 1.0))
        self.assertEqual(jobs(take(subject, 1.0)), ["late"])

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not make a destination dead for years."""
        subject = self.scheduler()
        self.kill(subject)
        self.assertEqual(subject.dead("smtp", "dead.test", 100.0), REFUSED)
        self.assertIsNone(subject.dead("smtp", "dead.test", 100.0 - 86400))

    def test_late_success_revives(self) -> None:
        """A delivery that was under way and works says that it lives."""
        subject = self.scheduler()
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
        subject = self.scheduler()
        for job in range(50):
            subject.add(job, "smtp", "d.test", one(), 0.0)
            for entry in take(subject):
                self.assertEqual(subject.done(entry, None, 0.0), ())
        self.assertIsNone(subject.dead("smtp", "d.test", 0.0))

    def test_throttled_transport(self) -> None:
        """A broken transport gives back all its mail and is left alone for a minute; others go on."""
        subject = self.scheduler()
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
        subject = self.scheduler()
        self.kill(subject)
        (status,) = subject.destinations(1.0)
        self.assertEqual((status.nexthop, status.resumes, status.reason), ("dead.test", 300.0, REFUSED))


class RateTests(SchedulerTests):
    """Deliveries that keep a distance."""

    def test_rate_delay(self) -> None:
        """One delivery, then the delay, then the next; the end of the delay is announced."""
        subject = self.scheduler(slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0))
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
        subject = self.scheduler(slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0))
        subject.add("a", "slow", "d.test", one(), 0.0)
        (first,) = take(subject)
        subject.done(first, None, 0.0)
        subject.add("b", "slow", "d.test", one(), 5.0)
        self.assertEqual(take(subject, 9.0), [])
        self.assertEqual(jobs(take(subject, 10.0)), ["b"])
        # It is not a dead destination, and no flush hurries it.
        self.assertIsNone(subject.dead("slow", "d.test", 9.0))

    def test_transport_rate_delay(self) -> None:
        """As in Postfix: each delivery of the transport waits first, and there is one at a time."""
        subject = self.scheduler(paced=TransportSettings(transport_rate_delay=0.25))
        for number in range(3):
            subject.add(number, "paced", f"d{number}.test", one(), 10.0)
        self.assertEqual(take(subject, 10.0), [])
        self.assertEqual(subject.wakeup(10.0), 10.25)
        (first,) = take(subject, 10.25)
        self.assertEqual(take(subject, 11.0), [])
        subject.done(first, None, 11.0)
        self.assertEqual(take(subject, 11.2), [])
        self.assertEqual(jobs(take(subject, 11.25)), [1])

    def test_flush_keeps_distance(self) -> None:
        """Trigger F does not end a pause."""
        subject = self.scheduler(slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0))
        subject.add("a", "slow", "d.test", one(), 0.0)
        (first,) = take(subject)
        subject.done(first, None, 0.0)
        subject.add("b", "slow", "d.test", one(), 0.0)
        subject.flush()
        self.assertEqual(take(subject, 9.9), [])


class WaitingTests(SchedulerTests):
    """What an entry waits for."""

    def only(self, subject: Scheduler, job: object, now: float = 0.0) -> WaitingEntry:
        """The one entry of a message that waits."""
        (found,) = subject.waiting(job, now)
        self.assertEqual(found.entry.job, job)
        return found

    def test_window(self) -> None:
        """Behind a full window."""
        subject = self.scheduler(smtp=TransportSettings(WindowSettings(limit=1)))
        for job in "abc":
            subject.add(job, "smtp", "d.test", one(), 0.0)
        take(subject)
        found = self.only(subject, "c")
        self.assertEqual(
            (found.wait, found.behind, found.ahead, found.window, found.busy), (Wait.WINDOW, "b", 1, 1, 1)
        )
        self.assertEqual(self.only(subject, "b").behind, None)
        self.assertEqual(list(subject.waiting("a", 0.0)), [])
        self.assertEqual(list(subject.waiting("nobody", 0.0)), [])

    def test_turn(self) -> None:
        """Behind others."""
        subject = self.scheduler()
        for job in "ab":
            subject.add(job, "smtp", "d.test", one(), 0.0)
        found = self.only(subject, "b")
        self.assertEqual((found.wait, found.behind, found.ahead), (Wait.TURN, "a", 1))

    def test_processes(self) -> None:
        """The transport is at its limit."""
        subject = self.scheduler(smtp=TransportSettings(process_limit=1))
        for number in range(2):
            subject.add(number, "smtp", f"d{number}.test", one(), 0.0)
        take(subject)
        self.assertEqual(self.only(subject, 1).wait, Wait.PROCESSES)

    def test_rates(self) -> None:
        """Pauses, and until when."""
        subject = self.scheduler(
            slow=TransportSettings(WindowSettings(limit=1), rate_delay=10.0),
            paced=TransportSettings(transport_rate_delay=0.5),
        )
        for job in "ab":
            subject.add(job, "slow", "d.test", one(), 0.0)
        (first,) = take(subject)
        subject.done(first, None, 1.0)
        found = self.only(subject, "b", 2.0)
        self.assertEqual((found.wait, found.until), (Wait.DESTINATION_RATE, 11.0))
        subject.add("c", "paced", "d.test", one(), 2.0)
        take(subject, 2.0)
        found = self.only(subject, "c", 2.0)
        self.assertEqual((found.wait, found.until), (Wait.TRANSPORT_RATE, 2.5))


class MemoryTests(SchedulerTests):
    """What is remembered, and for how long."""

    def test_dead_cache_is_bounded(self) -> None:
        """No more dead destinations than the recipient limit; the oldest is forgotten."""
        subject = type(self).make(
            lambda name: TransportSettings(WindowSettings(initial=1)), RecipientLimits(3, 1)
        )
        for number in range(5):
            subject.add(number, "smtp", f"d{number}.test", one(), 0.0)
            (entry,) = take(subject)
            subject.done(entry, REFUSED, 0.0)
        self.assertEqual(
            [subject.dead("smtp", f"d{number}.test", 1.0) for number in range(5)],
            [None, None, REFUSED, REFUSED, REFUSED],
        )

    def test_withdraw(self) -> None:
        """The mail of one message comes back, the others go on."""
        subject = self.scheduler(smtp=TransportSettings(recipient_limit=1, process_limit=1))
        for job in "abc":
            subject.begin(job, 0.0, 3)
            subject.refilled(job, 3, False, 0.0)
            subject.add(job, "smtp", "relay", recipients("x@d.test", "y@d.test", "z@d.test"), 0.0)
        (entry,) = take(subject)
        returned = subject.withdraw("b", 0.0)
        self.assertEqual(
            sorted(each.recipients[0].address for each in returned), [b"x@d.test", b"y@d.test", b"z@d.test"]
        )
        self.assertEqual(subject.recipients(), 6)
        subject.end("b", 0.0)
        order = [entry.job]
        while entry is not None:
            subject.done(entry, None, 0.0)
            entry = subject.next(0.0)
            order += [entry.job] if entry is not None else []
        self.assertEqual(Counter(order), {"a": 3, "c": 3})

    def test_feedback_debug(self) -> None:
        """The lines of destination_concurrency_feedback_debug, as Postfix writes them."""
        subject = self.scheduler(
            smtp=TransportSettings(
                WindowSettings(
                    positive=Feedback.parse("1/concurrency"), negative=Feedback.parse("1/concurrency")
                ),
                debug=True,
            )
        )
        for job in range(3):
            subject.add(job, "smtp", "d.test", one(), 0.0)
        entries = take(subject)
        with capturedLogs() as events:
            subject.done(entries[0], None, 0.0)
            subject.done(entries[1], REFUSED, 0.0)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "qmgr_queue_unthrottle: feedback 0.2",
                "qmgr_queue_unthrottle: queue d.test: limit 20 window 5 success 0.2 failure 0 fail_cohorts 0",
                "qmgr_queue_throttle: feedback 0.2",
                "qmgr_queue_throttle: queue d.test: limit 20 window 4 success 0 failure 0.8 fail_cohorts 0.2",
            ],
        )


class PreemptiveWindowTests(WindowTests):
    """qmgr's scheduler."""

    make = PreemptiveScheduler


class PreemptiveDeadTests(DeadTests):
    """qmgr's scheduler."""

    make = PreemptiveScheduler


class PreemptiveRateTests(RateTests):
    """qmgr's scheduler."""

    make = PreemptiveScheduler


class PreemptiveWaitingTests(WaitingTests):
    """qmgr's scheduler."""

    make = PreemptiveScheduler


class PreemptiveMemoryTests(MemoryTests):
    """qmgr's scheduler."""

    make = PreemptiveScheduler
