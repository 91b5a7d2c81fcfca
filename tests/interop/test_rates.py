"""
Rate delays, and warnings about destinations that clog the queue: the same from Postfix and from us.

All cases of rates run at once, each with a transport of its own. Who comes after whom, how many at a time and
how large is compared to the letter. The pauses are compared with a tolerance, because Postfix counts whole
seconds: a pause of two takes it between one and three.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from tests.interop.qmgr_peers import Delivery, Side, SideBySideTestCase, Sink, Stage, routes
from tests.service import wait_until

DELAY = 2.0
"""The pause of most cases, in seconds."""

EARLY = 1.1
"""How much earlier than it should a pause may end: Postfix counts in whole seconds."""

LATE = 1.6
"""And how much later."""

TRANSPORTS = ("domain", "slow", "person", "large", "turns", "both", "single", "refusing")


def who(sink: Sink) -> list[str]:
    """
    @return: the local part of the first recipient of each delivery, in order.
    """
    return [delivery.recipients[0].partition(b"@")[0].decode() for delivery in sink.deliveries]


class RateTests(SideBySideTestCase):
    """C{destination_rate_delay} and C{transport_rate_delay}."""

    def setUp(self) -> None:
        names = ("domain", "person", "large", "turns", "turns2", "both", "both2", "single")
        self.destinations = self.sinks(names)
        self.destinations["slow"] = self.sink(latency=1.0)
        self.destinations["refusing"] = self.sink(hold=Stage.GREETING)
        domains = {f"{name.removesuffix('2')}:{name}.test": sink for name, sink in self.destinations.items()}
        destination, transport = "destination_rate_delay", "transport_rate_delay"
        self.settings = {
            **routes(domains),
            "minimal_backoff_time": "600s",
            "maximal_backoff_time": "600s",
            f"domain_{destination}": "2s",
            f"slow_{destination}": "2s",
            f"person_{destination}": "2s",
            "person_destination_recipient_limit": "1",
            f"large_{destination}": "2s",
            f"turns_{transport}": "2s",
            f"both_{transport}": "1s",
            f"both_{destination}": "3s",
            f"single_{transport}": "1s",
            "single_destination_recipient_limit": "1",
            f"refusing_{destination}": "2s",
            "refusing_destination_concurrency_failed_cohort_limit": "2",
        }
        self.master = "".join(f"{name} unix - - n - - smtp\n" for name in TRANSPORTS)

    def check(self, side: Side) -> None:
        """
        Send all, wait, and look at each case.
        """
        for number in range(3):
            for name in ("domain", "slow", "refusing"):
                side.send(b"m%d@%s.test" % (number, name.encode()))
            side.send(b"same@person.test")
        began = time.monotonic()
        for number in range(2):
            for name in ("turns", "turns2", "both", "both2"):
                side.send(b"m%d@%s.test" % (number, name.encode()))
        side.send(*(b"p%d@person.test" % number for number in range(6)))
        side.send(*(b"l%03d@large.test" % number for number in range(120)))
        side.send(*(b"s%d@single.test" % number for number in range(4)))
        refusing = self.destinations["refusing"]
        for _ in range(2):
            wait_until(refusing.held, 15, "a connection to be refused")
            refusing.release(1, b"421 4.3.2 no")
        counts = {
            "domain": 3,
            "slow": 3,
            "person": 9,
            "large": 3,
            "turns": 2,
            "turns2": 2,
            "single": 4,
            "both": 2,
            "both2": 2,
        }
        for name, count in counts.items():
            self.destinations[name].wait_taken(count)

        self.check_pauses("domain", DELAY)
        self.assertEqual(who(self.destinations["domain"]), ["m0", "m1", "m2"])
        # From the end of one to the beginning of the next.
        self.check_pauses("slow", DELAY)
        self.check_pauses("large", DELAY)
        self.assertEqual(
            [len(each.recipients) for each in self.destinations["large"].deliveries], [50, 50, 20]
        )
        self.check_persons()
        self.check_turns(began)
        self.check_pauses("single", 1)
        self.assertEqual(who(self.destinations["single"]), ["s0", "s1", "s2", "s3"])
        self.check_both()
        self.check_refusing(side)

    def check_pauses(self, name: str, delay: float) -> None:
        """
        One at a time, and a pause between two.
        """
        sink = self.destinations[name]
        self.assertEqual(sink.most, 1, name)
        self.in_time(name, self.pauses(sink.deliveries), delay)

    def pauses(self, deliveries: Sequence[Delivery]) -> list[float]:
        """
        @return: the seconds between the end of each delivery and the beginning of the next.
        """
        return [after.began - before.ended for before, after in pairwise(deliveries)]

    def in_time(self, name: str, pauses: Sequence[float], delay: float) -> None:
        """
        See that pauses are as long as they should.
        """
        for pause in pauses:
            self.assertTrue(delay - EARLY < pause < delay + LATE, f"{name}: {pause} of {pauses}, not {delay}")

    def check_persons(self) -> None:
        """
        With a recipient limit of 1 the pause is the recipient's: others come at once.
        """
        deliveries = self.destinations["person"].deliveries
        self.assertTrue(all(len(each.recipients) == 1 for each in deliveries))
        same = [each for each in deliveries if each.recipients == (b"same@person.test",)]
        self.in_time("person", self.pauses(same), DELAY)
        others = [each.began for each in deliveries if each not in same]
        self.assertEqual((len(same), len(others)), (3, 6))
        self.assertLess(max(others) - min(others), 1.0)
        self.assertLess(max(others), same[1].began)

    def check_turns(self, began: float) -> None:
        """
        A transport's pause is for all of its destinations, which take turns; it comes before the first
        delivery too.
        """
        one, two = (self.destinations[name] for name in ("turns", "turns2"))
        merged = sorted(
            ((each.began, name, each) for name, sink in (("1", one), ("2", two)) for each in sink.deliveries),
            key=lambda found: found[0],
        )
        self.assertEqual("".join(name for _, name, _ in merged), "1212")
        deliveries = [each for _, _, each in merged]
        self.in_time("turns", [deliveries[0].began - began, *self.pauses(deliveries)], DELAY)
        self.assertEqual((who(one), who(two)), (["m0", "m1"], ["m0", "m1"]))

    def check_both(self) -> None:
        """
        Both pauses together: the longer one holds for a destination, the shorter one between the two.
        """
        for name in ("both", "both2"):
            self.in_time(name, self.pauses(self.destinations[name].deliveries), 3.5)
        firsts = [self.destinations[name].deliveries[0] for name in ("both", "both2")]
        self.in_time("both", self.pauses(firsts), 1)

    def check_refusing(self, side: Side) -> None:
        """
        A refused delivery is followed by the pause too; when the destination is dead, the rest does not wait.
        """
        times = [each.at for each in self.destinations["refusing"].events if each.kind == "connect"]
        self.assertEqual(len(times), 2)
        self.in_time("refusing", [times[1] - times[0]], DELAY)
        lines = side.wait_statuses(3, "@refusing.test")
        self.assertEqual([line.program for line in lines], ["smtp", "smtp", "error"])

    def test_postfix(self) -> None:
        """
        Postfix.
        """
        self.check(self.postfix(self.settings, self.master))

    def test_ours(self) -> None:
        """
        We do the same.
        """
        self.check(self.ours(self.settings, self.master))


ACTIVE_LIMIT = 40

LIMIT = ("warning: you may need to increase the main.cf narrow_destination_concurrency_limit from 2",)
ACTIVE = (f"warning: you may need to increase the main.cf qmgr_message_active_limit from {ACTIVE_LIMIT}",)
SHARED = ("warning: this may slow down other mail deliveries",)
ENDING = (
    "warning: please avoid flushing the whole queue when you have",
    "warning: lots of deferred mail, that is bad for performance",
    "warning: to turn off these warnings specify: qmgr_clog_warn_time = 0",
)


def timeouts(transport: str) -> tuple[str, ...]:
    """
    @return: the advice about a destination that is slow or not there.
    """
    return (
        f"warning: you may need to reduce {transport} connect and helo timeouts",
        "warning: so that Postfix quickly skips unavailable hosts",
        "warning: you may need to increase the main.cf minimal_backoff_time and maximal_backoff_time",
        "warning: so that Postfix wastes less time on undeliverable mail",
        f"warning: you may need to increase the master.cf {transport} process limit",
    )


class ClogTests(SideBySideTestCase):
    """C{qmgr_clog_warn_time}."""

    def setUp(self) -> None:
        names = ("narrow", "wide", "huge", "batches", "people")
        self.destinations = self.sinks(names, hold=Stage.END)
        self.settings = {
            **routes({f"{name}:{name}.test": sink for name, sink in self.destinations.items()}),
            "qmgr_message_active_limit": str(ACTIVE_LIMIT),
            "qmgr_clog_warn_time": "300s",
            "narrow_destination_concurrency_limit": "2",
            "huge_initial_destination_concurrency": "50",
            "huge_destination_concurrency_limit": "50",
            "batches_destination_recipient_limit": "2",
            "people_destination_recipient_limit": "1",
        }
        self.master = "".join(f"{name} unix - - n - - smtp\n" for name in names)

    def check(self, side: Side) -> None:
        """
        Fill the active queue, destination by destination.
        """
        self.said = 0
        self.fill(side, "narrow", 8, 2)
        self.found(side, "as many as a fifth of the active queue may hold")
        self.fill(side, "narrow", 3)
        self.found(side, "one more", self.using("narrow", 9, 9), LIMIT, ENDING)
        self.fill(side, "wide", 11, 5)
        self.found(side, "with others", self.using("wide", 9, 20), SHARED, timeouts("wide"), ENDING)
        self.fill(side, "huge", 9, 9)
        self.found(side, "a wide window", self.using("huge", 9, 31), SHARED, ACTIVE, ENDING)
        self.empty(side)
        self.fill(side, "narrow", 9, 2)
        # Postfix has forgotten that it said so.
        again = (self.using("narrow", 9, 9), LIMIT, ENDING) if side.name == "Postfix" else ()
        self.found(side, "after it had run empty", *again)
        self.empty(side)
        # Deliveries are counted, and compared with messages.
        side.send(*(b"u%d@batches.test" % number for number in range(30)))
        self.destinations["batches"].wait_held(5)
        # We look when all of a message's recipients have been added, Postfix at each batch.
        count = 9 if side.name == "Postfix" else 15
        self.found(side, "one message", self.using("batches", count, 1), timeouts("batches"), ENDING)
        self.empty(side)
        side.send(*(b"u%d@people.test" % number for number in range(30)))
        self.destinations["people"].wait_held(30)
        self.found(side, "each recipient is a destination")

    def using(self, name: str, count: int, messages: int) -> tuple[str, ...]:
        """
        @return: the first line.
        """
        nexthop = f"[127.0.0.1]:{self.destinations[name].port}"
        return (f"warning: mail for {nexthop} is using up {count} of {messages} active queue entries",)

    def fill(self, side: Side, name: str, count: int, window: int = 0) -> None:
        """
        Send so many messages to a destination, one after the other.

        @param window: wait for the deliveries when there are so many.
        """
        for number in range(1, count + 1):
            side.send(b"u%d@%s.test" % (number, name.encode()))
            if number == window:
                wait_until(lambda: len(self.destinations[name].held()) == window, 10, f"{window} deliveries")

    def empty(self, side: Side) -> None:
        """
        Deliver all.
        """
        for sink in self.destinations.values():
            sink.release_all()
        side.wait_empty()
        for sink in self.destinations.values():
            sink.hold = Stage.END

    def found(self, side: Side, step: str, *blocks: Sequence[str]) -> None:
        """
        See that these lines have been logged since the step before.
        """
        wanted = [line for block in blocks for line in block]
        end = time.monotonic() + 10
        while True:
            lines = [line for line in side.lines() if line.startswith("warning")][self.said :]
            if len(lines) >= len(wanted) or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.assertEqual(lines, wanted, step)
        self.said += len(lines)

    def test_postfix(self) -> None:
        """
        Postfix.
        """
        self.check(self.postfix(self.settings, self.master))

    def test_ours(self) -> None:
        """
        We do the same.
        """
        self.check(self.ours(self.settings, self.master))
