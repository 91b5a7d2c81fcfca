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
        self.assertEqual(Feedback.parse("1e-1"), Feedback(0.1))

    def test_amounts(self) -> None:
        """The amount follows the concurrency where the form says so."""
        self.assertEqual(Feedback.parse("1/concurrency").amount(4), 0.25)
        self.assertEqual(Feedback.parse("1/sqrt_concurrency").amount(4), 0.5)
        self.assertEqual(Feedback.parse("1/3").amount(4), 1 / 3)

    def test_refused(self) -> None:
        """What is no feedback is refused by name."""
        for text in ("", "x", "2", "-1", "1/0", "1/x", "1/2/3", "nan", "1e1", "1 concurrency"):
            error = self.assertRaises(ValueError, Feedback.parse, text)
            self.assertIn(text, str(error))


def script(window: Window, steps: str) -> list[int]:
    """The window after each success (C{+}) and failure (C{-}), with all of it in use."""
    seen = []
    for step in steps:
        if step == "+":
            window.succeeded(window.concurrency)
        else:
            window.failed()
        seen.append(window.concurrency)
    return seen


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

    def test_dead_after_three_refusals(self) -> None:
        """As seen in Postfix: window 5, feedback 1: 0.2, 0.33 and 0.5 of a cohort are enough."""
        window = Window(WindowSettings())
        self.assertEqual([window.failed() for _ in range(3)], [False, False, True])
        self.assertAlmostEqual(window.failed_cohorts, 1 / 5 + 1 / 3 + 1 / 2)

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
        self.assertEqual(script(window, "------"), [4, 4, 4, 3, 3, 3])

    def test_growth_as_in_postfix(self) -> None:
        """Windows step by step, recorded from a running Postfix, for 24 successes."""
        for feedback, seen in {
            "0.5": "5 6 6 7 7 8 8 9 9 10 10 11 11 12 12 13 13 14 14 15 15 16 16 17",
            "0.3": "5 5 6 6 6 6 7 7 7 8 8 8 9 9 9 9 10 10 10 11 11 11 12 12",
            "0.4": "5 6 6 6 7 7 8 8 8 9 9 10 10 10 11 11 12 12 12 13 13 14 14 14",
            "0.7": "6 6 7 8 8 9 10 10 11 12 13 13 14 15 15 16 17 17 18 19 20 20 20 20",
            "1": "6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 20 20 20 20 20 20 20 20 20",
            "0": "5 " * 24,
            "0.5/concurrency": "5 " * 9 + "6 " * 12 + "7 " * 3,
            "1/concurrency": "5 " * 4 + "6 " * 6 + "7 " * 7 + "8 " * 7,
        }.items():
            window = Window(WindowSettings(positive=Feedback.parse(feedback)))
            self.assertEqual(script(window, "+" * 24), [int(word) for word in seen.split()], feedback)

    def test_both_ways_as_in_postfix(self) -> None:
        """Successes and failures mixed, from a window of 12."""
        for negative, positive, steps, seen in (
            ("1", "1", "-" * 14 + "+-+-++--", "10 9 8 7 6 5 4 3 2 1 1 1 1 1 2 1 2 1 2 3 1 1"),
            ("0.5", "1", "-" * 14 + "++--++--", "11 10 10 9 9 8 8 7 7 6 6 5 5 4 5 6 5 4 5 6 5 4"),
            ("0", "1", "------++--", "12 12 12 12 12 12 13 14 14 14"),
            (
                "0.3",
                "0.5",
                "----------+-+-++--++++--",
                "11 11 10 10 10 10 9 9 9 8 8 8 9 8 8 9 8 8 8 9 9 10 9 9",
            ),
            (
                "0.4",
                "0.4",
                "----------+-+-++--++++--",
                "11 10 10 10 9 9 8 8 8 7 7 7 8 7 7 8 7 6 6 7 7 7 6 5",
            ),
            ("0.7", "0.7", "------+-+-++--++++--", "10 10 9 8 8 7 8 6 7 5 6 6 4 4 5 5 6 7 5 5"),
            ("1/concurrency", "1", "-" * 34, "11 " * 10 + "10 " * 10 + "9 " * 9 + "8 " * 5),
        ):
            window = Window(
                WindowSettings(12, 20, Feedback.parse(positive), Feedback.parse(negative), cohort_limit=99)
            )
            self.assertEqual(script(window, steps), [int(word) for word in seen.split()], negative)

    def test_cohorts_as_in_postfix(self) -> None:
        """After how many failures a destination is dead, by initial window, cohort limit and feedback."""
        for initial, limit, feedback, seen in (
            (5, 1, "1", 3),
            (5, 5, "1", 7),
            (5, 10, "1", 12),
            (1, 1, "1", 1),
            (1, 2, "1", 2),
            (1, 10, "1", 10),
            (5, 1, "0", 5),
            (5, 2, "0", 10),
        ):
            window = Window(WindowSettings(initial, negative=Feedback.parse(feedback), cohort_limit=limit))
            self.assertEqual([window.failed() for _ in range(20)].index(True) + 1, seen)

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
