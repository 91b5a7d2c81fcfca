"""
The order of deliveries is Postfix's: preemption, blockers, recipient slices, and the old queue manager's.

Each table is held against a running Postfix, against our whole service, and against our schedulers alone,
which also shows what the order does not depend on: sockets, processes and time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from tests.interop.order_cases import Stepper, order, play, runs, slices, steps, transport_settings
from tests.interop.order_tables import (
    DESTINATIONS,
    FUDGED,
    NESTED,
    OLD,
    READ_FIRST,
    SINGLES,
    SIZES,
    SLICES,
    Case,
)
from tests.interop.qmgr_peers import Side, SideBySideTestCase

NEW: Sequence[Case] = [*SINGLES, *SIZES, *NESTED, *DESTINATIONS]
OQMGR = "qmgr unix n - n 300 1 oqmgr\n"

Start = Callable[[dict[str, str], str], Side]


def spread(order_text: str) -> str:
    """
    @return: an order from a table in the form that L{order} gives.
    """
    words: list[str] = []
    for word in order_text.split():
        name, _, count = word.partition("*")
        words += [name] * int(count or 1)
    return runs(words)


class OrderTestCase(SideBySideTestCase):
    """Compares what was seen with the tables."""

    def compare(self, cases: Sequence[Case], seen: dict[str, tuple[str, str]]) -> None:
        """
        One failure names all scenarios that differ.
        """
        wanted = {case.scenario.name: (spread(case.order), case.slices) for case in cases}
        got = {
            case.scenario.name: (each[0], each[1] if case.slices else "")
            for case in cases
            for each in [seen[case.scenario.name]]
        }
        self.maxDiff = None
        self.assertEqual(got, wanted)

    def run_cases(self, start: Start, cases: Sequence[Case], master: str = "") -> None:
        """
        Start a queue manager and run all cases, each with its parameters.
        """
        stepper = Stepper([case.scenario for case in cases])
        self.addCleanup(stepper.stop)
        settings = cases[0].parameters()
        side = start({**stepper.settings(), **settings}, stepper.master() + master)
        seen = {}
        for number, case in enumerate(cases):
            # Postfix's count of recipients in memory drifts with the slices it reads; a reload clears it.
            if number and (case.slices or case.parameters() != settings):
                settings = case.parameters()
                side.reload(settings)
            found = steps(stepper.run(side, case.scenario))
            seen[case.scenario.name] = order(found), slices(found)
        self.compare(cases, seen)


class SchedulerTests(OrderTestCase):
    """The schedulers without anything around them."""

    def play_cases(self, cases: Sequence[Case], make: Callable[[Case], IQueueScheduler]) -> None:
        """
        Play all cases.
        """
        seen = {}
        for case in cases:
            found = play(make(case), case.scenario)
            seen[case.scenario.name] = order(found), slices(found)
        self.compare(cases, seen)

    def test_preemption(self) -> None:
        """Large and small messages, at one destination and at several."""
        self.play_cases(NEW, _preemptive)

    def test_slices(self) -> None:
        """Recipient pools of 50."""
        self.play_cases(SLICES, _preemptive)

    def test_old(self) -> None:
        """The order of C{oqmgr}."""
        self.play_cases(OLD, _round_robin)

    def test_fudge(self) -> None:
        """Slices of C{oqmgr}: the next one is read when all of the last one is done."""
        self.play_cases([case for case in FUDGED if case.scenario.name == "tenth"], _round_robin)

    def test_read_first(self) -> None:
        """A message that is not read to its end: a read comes before the next choice."""
        self.play_cases([case for case in READ_FIRST if case.scenario.name == "unknown"], _preemptive)

    def test_small_pools(self) -> None:
        """Where Postfix's reads come at another moment: everybody gets it once, and singles are not later."""
        makers = [(READ_FIRST, _preemptive), (FUDGED, _round_robin)]
        for case, make in [(case, make) for cases, make in makers for case in cases]:
            found = play(make(case), case.scenario)
            [big] = [mail for mail in case.scenario.start if mail.name == "big"]
            numbers = sorted(number for name, _, numbers in found if name == "big" for number in numbers)
            self.assertEqual(numbers, list(range(big.recipients["a"])))
            if "s1" in case.order:
                first = [name for name, _, _ in found].index("s1")
                theirs = spread(case.order).split(" s1")[0].removeprefix("big*")
                self.assertLessEqual(first, int(theirs))


def _preemptive(case: Case) -> IQueueScheduler:
    return PreemptiveScheduler(lambda name: transport_settings(case.scenario), case.limits)


def _round_robin(case: Case) -> IQueueScheduler:
    return RoundRobinScheduler(lambda name: transport_settings(case.scenario), case.limits)


class PostfixTests(OrderTestCase):
    """The tables are what Postfix does."""

    def test_preemption(self) -> None:
        """Large and small messages, at one destination and at several."""
        self.run_cases(self.postfix, NEW)

    def test_slices(self) -> None:
        """Recipient pools of 50."""
        self.run_cases(self.postfix, [*SLICES, *READ_FIRST])

    def test_old(self) -> None:
        """The order of C{oqmgr}."""
        self.run_cases(self.postfix, OLD, OQMGR)

    def test_fudge(self) -> None:
        """Slices of C{oqmgr}."""
        self.run_cases(self.postfix, FUDGED, OQMGR)


class ServiceTests(OrderTestCase):
    """Our whole service does the same."""

    def test_preemption(self) -> None:
        """Large and small messages, at one destination and at several; the others are played above."""
        self.run_cases(self.ours, [*SINGLES[:2], *SINGLES[-1:], *NESTED, *DESTINATIONS])

    def test_slices(self) -> None:
        """Recipient pools of 50."""
        self.run_cases(self.ours, SLICES)

    def test_old(self) -> None:
        """The order of C{oqmgr}."""
        self.run_cases(self.ours, OLD, OQMGR)
