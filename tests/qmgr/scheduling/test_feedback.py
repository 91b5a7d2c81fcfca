"""Concurrency windows, as SCHEDULER_README describes them and Postfix 3.7 was seen to do it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.scheduling.feedback import Feedback, Scale, Window, WindowSettings


class ParseTests(SynchronousTestCase):
    """The forms of the feedback parameters."""

    def test_forms(self) -> None:
        """All four forms of postconf(5) are understood."""
        self.assertEqual(Feedback.parse("1"), Feedback(1.0))
        self.assertEqual(Feedback.parse(" 1 / 4 "), Feedback(0.25))
        self.assertEqual(Feedback.parse("0.5/concurrency"), Feedback(0.5, Scale.CONCURRENCY))
        self.assertEqual(Feedback.parse("1/sqrt_concurrency"), Feedback(1.0, Scale.SQRT_CONCURRENCY))

    def test_amounts(self) -> None:
        """The amount follows the concurrency where the form says so."""
        self.assertEqual(Feedback.parse("1/concurrency").amount(4), 0.25)
        self.assertEqual(Feedback.parse("1/sqrt_concurrency").amount(4), 0.5)
        self.assertEqual(Feedback.parse("1/3").amount(4), 1 / 3)

    def test_refused(self) -> None:
        """What is no feedback is refused by name."""
        for text in ("", "x", "2", "-1", "1/0", "1/x", "1/2/3", "nan", "1e0", "1 concurrency"):
            error = self.assertRaises(ValueError, Feedback.parse, text)
            self.assertIn(text, str(error))


class WindowTests(SynchronousTestCase):
    """How a window grows and shrinks."""

    def test_doubles_with_each_cohort(self) -> None:
        """Feedback 1 grows by one for each success: 5, 10, 20, and no further than the limit."""
        window = Window(WindowSettings())
        seen = [window.concurrency]
        for _ in range(3):
            for _ in range(window.concurrency):
                window.succeeded(window.concurrency)
            seen.append(window.concurrency)
        self.assertEqual(seen, [5, 10, 20, 20])

    def test_linear_growth(self) -> None:
        """Feedback 1/concurrency grows by one at the end of each cohort, not before."""
        window = Window(WindowSettings(positive=Feedback.parse("1/concurrency")))
        for _ in range(4):
            window.succeeded(5)
        self.assertEqual(window.concurrency, 5)
        window.succeeded(5)
        self.assertEqual(window.concurrency, 6)

    def test_unused_window_does_not_grow(self) -> None:
        """A window far above what is in use stays, so that it can shrink in time."""
        window = Window(WindowSettings())
        for _ in range(50):
            window.succeeded(1)
        self.assertEqual(window.concurrency, 6)

    def test_dead_after_four_refusals(self) -> None:
        """As seen in Postfix: window 5, feedback 1: the fourth refused connection is the last."""
        window = Window(WindowSettings())
        self.assertEqual([window.failed() for _ in range(4)], [False, False, False, True])

    def test_dead_at_once_with_window_one(self) -> None:
        """As seen in Postfix: with initial concurrency 1 the first refused connection is the last."""
        self.assertTrue(Window(WindowSettings(initial=1)).failed())

    def test_success_forgives(self) -> None:
        """A success between failures starts the count of failed cohorts again."""
        window = Window(WindowSettings(negative=Feedback(0.0)))
        for _ in range(20):
            for _ in range(4):
                self.assertFalse(window.failed())
            window.succeeded(1)

    def test_cohort_limit(self) -> None:
        """A higher cohort limit takes that many whole cohorts."""
        window = Window(WindowSettings(negative=Feedback(0.0), cohort_limit=3))
        self.assertEqual([window.failed() for _ in range(15)].index(True), 14)

    def test_immune(self) -> None:
        """No feedback and no cohort limit: failures change nothing."""
        window = Window(WindowSettings(negative=Feedback(0.0), cohort_limit=0))
        self.assertFalse(any(window.failed() for _ in range(1000)))
        self.assertEqual(window.concurrency, 5)

    def test_negative_feedback_acts_at_the_start(self) -> None:
        """The first of a sequence of 1/feedback failures shrinks the window, the rest of it does not."""
        window = Window(WindowSettings(negative=Feedback.parse("1/concurrency"), cohort_limit=0))
        seen = []
        for _ in range(6):
            window.failed()
            seen.append(window.concurrency)
        # A quarter of feedback at 4 is used up after the fifth; the sixth begins the next sequence.
        self.assertEqual(seen, [4, 4, 4, 4, 3, 3])

    def test_initial_above_limit(self) -> None:
        """The limit holds from the start (C{local_destination_concurrency_limit = 2})."""
        self.assertEqual(Window(WindowSettings(initial=5, limit=2)).concurrency, 2)

    def test_no_limit(self) -> None:
        """Limit 0 is no limit."""
        window = Window(WindowSettings(limit=0))
        for _ in range(100):
            window.succeeded(window.concurrency)
        self.assertEqual(window.concurrency, 105)

    @given(
        st.integers(1, 30),
        st.integers(1, 30),
        st.sampled_from(["0", "1", "1/3", "1/concurrency", "1/sqrt_concurrency"]),
        st.sampled_from(["0", "1", "1/3", "1/concurrency", "1/sqrt_concurrency"]),
        st.lists(st.booleans(), max_size=200),
    )
    def test_bounds(
        self, initial: int, limit: int, positive: str, negative: str, results: list[bool]
    ) -> None:
        """Whatever happens, the window stays between 1 and the limit."""
        window = Window(
            WindowSettings(initial, limit, Feedback.parse(positive), Feedback.parse(negative), cohort_limit=0)
        )
        for success in results:
            if success:
                window.succeeded(window.concurrency)
            else:
                window.failed()
            self.assertTrue(1 <= window.concurrency <= limit)
