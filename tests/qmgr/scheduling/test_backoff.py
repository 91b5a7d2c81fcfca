"""Retry times and expiry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.scheduling.backoff import RetryPolicy

DAY = 86400.0


class RetryPolicyTests(SynchronousTestCase):
    """The defaults of postconf(5)."""

    def test_doubles(self) -> None:
        """The interval is the age, so that it doubles, from the minimum up to the maximum."""
        policy = RetryPolicy()
        now, intervals = 0.0, []
        for _ in range(8):
            due = policy.next_attempt(now, 0.0)
            intervals.append(due - now)
            now = due
        self.assertEqual(intervals, [300, 300, 600, 1200, 2400, 4000, 4000, 4000])

    def test_clock_set_back(self) -> None:
        """A message from the future is new mail."""
        self.assertEqual(RetryPolicy().next_attempt(1000.0, 50000.0), 1300.0)

    def test_expired(self) -> None:
        """Expired when the age reaches the lifetime, not a moment before."""
        policy = RetryPolicy(lifetime=5 * DAY, bounce_lifetime=DAY)
        self.assertFalse(policy.expired(5 * DAY - 1, 0.0, False))
        self.assertTrue(policy.expired(5 * DAY, 0.0, False))
        self.assertTrue(policy.expired(DAY, 0.0, True))

    def test_zero_is_once(self) -> None:
        """Lifetime 0: tried once, even when the clock was set back."""
        self.assertTrue(RetryPolicy(lifetime=0).expired(10.0, 10.0, False))
        self.assertTrue(RetryPolicy(lifetime=0).expired(10.0, 20.0, False))
        self.assertFalse(RetryPolicy(lifetime=0).expired(10.0, 10.0, True))

    @given(st.floats(0, 1e10), st.floats(0, 1e10))
    def test_bounds(self, now: float, arrival: float) -> None:
        """The interval never leaves its bounds."""
        interval = RetryPolicy().next_attempt(now, arrival) - now
        self.assertTrue(299.9 <= interval <= 4000.1)
