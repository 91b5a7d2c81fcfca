"""
The published tables of SCHEDULER_README come out of the simulator.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.simulate.records import Failure
from tests.simulate.published import PUBLISHED, measure, run


class PublishedTests(SynchronousTestCase):
    """The rows of the three tables, each within a few percent."""

    def check(self, table: str, seeds: range, deferred: float, average: float) -> None:
        """
        @param deferred: how far off the percentage may be, as a part of it.
        @param average: how far off the concurrency may be, as a part of it.
        """
        for (which, style, caching), row in PUBLISHED.items():
            if which == table:
                found = measure(which, style, caching, seeds)
                label = f"{style}, caching {caching}: {found}, published {row}"
                self.assertLess(abs(found.deferred / row.deferred - 1), deferred, label)
                self.assertLess(abs(found.average / row.average - 1), average, label)
                self.assertLess(abs(found.deviation - row.deviation), 0.35, label)

    def test_connect_timeout(self) -> None:
        """30 seconds until the connection is given up."""
        self.check("connect", range(1, 3), 0.05, 0.02)

    def test_refused(self) -> None:
        """421 at once."""
        self.check("421", range(1, 3), 0.03, 0.03)

    def test_what_fails(self) -> None:
        """
        A full queue of connections is a time-out of the connection for all; nobody waits for a greeting.
        """
        for caching in (False, True):
            failures = run("connect", "1/N", caching, 1).destinations[0].first.failures
            self.assertGreater(failures[Failure.CONNECT], 0)
            self.assertEqual(sum(failures.values()), failures[Failure.CONNECT])

    def test_not_dead(self) -> None:
        """No pseudo-cohort fails as a whole: a success comes in between."""
        for table in ("connect", "421"):
            world = run(table, "1", False, 1)
            self.assertEqual(world.destinations[0].deaths, 0)
            self.assertEqual(world.classes["list"].untried, 0)
