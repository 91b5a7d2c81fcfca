"""Delays, compared with what Postfix 3.7 was seen to log."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.delays import format_delay, format_delays


class FormatDelayTests(SynchronousTestCase):
    """One value."""

    def test_values(self) -> None:
        """Two digits count, trailing zeros do not, and what is below the resolution is 0."""
        for seconds, text in [
            (0, "0"),
            (0.0099, "0"),
            (0.01, "0.01"),
            (0.0151, "0.02"),
            (0.06, "0.06"),
            (0.1, "0.1"),
            (0.12, "0.12"),
            (0.994, "0.99"),
            (0.996, "1"),
            (1.0, "1"),
            (1.04, "1"),
            (1.14, "1.1"),
            (1.46, "1.5"),
            (9.94, "9.9"),
            (9.96, "10"),
            (12.3, "12"),
            (99.6, "100"),
            (300.5001, "301"),
            (432000.0, "432000"),
            (-5.0, "0"),
        ]:
            self.assertEqual(format_delay(seconds), text, seconds)

    def test_resolution(self) -> None:
        """C{delay_logging_resolution_limit} bounds the digits after the point."""
        self.assertEqual(format_delay(0.0123456, 6), "0.012")
        self.assertEqual(format_delay(0.000012, 6), "0.000012")
        self.assertEqual(format_delay(0.0000009, 6), "0")
        self.assertEqual(format_delay(0.5, 0), "0")
        self.assertEqual(format_delay(1.7, 0), "2")
        self.assertEqual(format_delay(1.66, 1), "1.7")

    @given(st.floats(0, 1e9), st.integers(0, 6))
    def test_shape(self, seconds: float, resolution: int) -> None:
        """Any delay reads as Postfix's do, and is near the truth."""
        text = format_delay(seconds, resolution)
        self.assertTrue(re.fullmatch(r"0|[1-9]\d*|\d+\.\d*[1-9]", text), text)
        _, _, fraction = text.partition(".")
        self.assertTrue(len(fraction) <= resolution)
        self.assertTrue(
            abs(float(text) - seconds) <= max(seconds * 0.051, 10.0**-resolution) + 0.5 * (seconds > 9.9)
        )


class FormatDelaysTests(SynchronousTestCase):
    """The pair of values in a line."""

    def test_seen_lines(self) -> None:
        """C{delay=1.5, delays=0.06/1.4/0.01/0}, as seen."""
        self.assertEqual(format_delays(100.0, 100.06, 101.46, 0.012, 101.474), ("1.5", "0.06/1.4/0.01/0"))

    def test_quick(self) -> None:
        """A delivery without delay."""
        self.assertEqual(format_delays(100.0, 100.001, 100.002, 0.0, 100.003), ("0", "0/0/0/0"))

    def test_set_up_bounded(self) -> None:
        """Set-up cannot take longer than the delivery, whatever a transport says."""
        self.assertEqual(format_delays(100.0, 101.0, 102.0, 50.0, 103.0), ("3", "1/1/1/0"))

    def test_clock_set_back(self) -> None:
        """A delivery that ends before it began took no time."""
        self.assertEqual(format_delays(100.0, 90.0, 91.0, 0.0, 80.0), ("0", "0/0/0/0"))
        self.assertEqual(format_delays(100.0, 90.0, 105.0, 0.0, 101.0), ("1", "0/15/0/0"))
