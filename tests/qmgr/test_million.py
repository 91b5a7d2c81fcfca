"""A message with very many recipients, on disk; the million itself is benchmarks/million.py."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.million import Result, run

LIMITS = (
    "qmgr_message_active_limit = 500\nqmgr_message_recipient_limit = 2000\n"
    "default_recipient_limit = 2000\ndefault_extra_recipient_limit = 100\n"
)


class ManyRecipientsTests(SynchronousTestCase):
    """Everybody gets it once, and only some are in memory at a time."""

    def assert_delivered(self, result: Result) -> None:
        """To all."""
        self.assertEqual((result.missed, result.twice, result.left), (0, 0, False))
        self.assertTrue(0 < result.most_recipients <= 2110, result.most_recipients)

    def test_preemptive(self) -> None:
        """With qmgr."""
        self.assert_delivered(run(12_000, 150, "qmgr", LIMITS))

    def test_in_turn(self) -> None:
        """With oqmgr."""
        self.assert_delivered(run(12_000, 150, "oqmgr", LIMITS))

    def test_one_slice(self) -> None:
        """A slice of twenty thousand is resolved in pieces, and mail for one domain travels together."""
        result = run(20_000, 40)
        self.assertEqual((result.missed, result.twice, result.left), (0, 0, False))
        self.assertEqual(result.deliveries, 400)
