"""
The published table of SCHEDULER_README with 20,000 recipients comes out of the simulator.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.simulate.records import Failure
from tests.simulate.published import PUBLISHED, run


class PublishedTests(SynchronousTestCase):
    """300 seconds until the greeting is given up."""

    def check(self, style: str, caching: bool, deferred: float) -> None:
        """
        @param deferred: how far off the percentage may be, as a part of it.
        """
        row = PUBLISHED["greeting", style, caching]
        tries = run("greeting", style, caching, 1).destinations[0].first
        found = 100 * tries.deferred / tries.recipients
        label = f"{style}, caching {caching}: {found}, published {row}"
        self.assertLess(abs(found / row.deferred - 1), deferred, label)
        self.assertLess(abs(tries.window.mean() / row.average - 1), 0.02, label)
        self.assertEqual(sum(tries.failures.values()), tries.failures[Failure.GREETING])

    def test_without_caching(self) -> None:
        """Each delivery has a connection of its own."""
        for style in ("1/N", "1"):
            self.check(style, False, 0.04)

    def test_with_caching(self) -> None:
        """Connections stay: those that wait behind them wait longer, and some of them too long."""
        for style in ("1/N", "1"):
            self.check(style, True, 0.1)
