"""Warnings about destinations that fill the active queue: texts and conditions as seen in Postfix."""

from __future__ import annotations

from tests.qmgr.scripted import QueueManagerTestCase, hangs

TAIL = [
    "qmgr: please avoid flushing the whole queue when you have",
    "qmgr: lots of deferred mail, that is bad for performance",
    "qmgr: to turn off these warnings specify: qmgr_clog_warn_time = 0",
]


class ClogTestCase(QueueManagerTestCase):
    """A small active queue, and a destination that does not answer."""

    def fill(self, count: int, domain: str = "d.test") -> list[str]:
        """Send messages; what is logged about the destination."""
        self.smtp.script = hangs
        before = len(self.lines())
        for number in range(count):
            self.send(f"u{number}@{domain}")
        return [line for line in self.lines()[before:] if "queue active" not in line]


class ClogTests(ClogTestCase):
    """qmgr_clog_warn_time."""

    config = "qmgr_message_active_limit = 20\n"

    def test_window(self) -> None:
        """More than a fifth of the limit, with the window not in full use."""
        self.assertEqual(self.fill(4), [])
        self.assertEqual(
            self.fill(1),
            [
                "qmgr: mail for d.test is using up 5 of 5 active queue entries",
                "qmgr: you may need to reduce smtp connect and helo timeouts",
                "qmgr: so that Postfix quickly skips unavailable hosts",
                "qmgr: you may need to increase the main.cf minimal_backoff_time and maximal_backoff_time",
                "qmgr: so that Postfix wastes less time on undeliverable mail",
                "qmgr: you may need to increase the master.cf smtp process limit",
                *TAIL,
            ],
        )

    def test_once(self) -> None:
        """Then not before qmgr_clog_warn_time is over; other destinations have their own."""
        self.fill(5)
        self.assertEqual(self.fill(3), [])
        self.assertEqual(len(self.fill(5, "e.test")), 10)
        self.wait(300)
        self.assertEqual(len(self.fill(1)), 10)

    def test_slows_down_others(self) -> None:
        """When others are there."""
        self.fill(4, "e.test")
        found = self.fill(5)
        self.assertEqual(found[0], "qmgr: mail for d.test is using up 5 of 9 active queue entries")
        self.assertEqual(found[1], "qmgr: this may slow down other mail deliveries")

    def test_clock_set_back(self) -> None:
        """A clock that was set back does not silence it for as long as it was wrong."""
        self.fill(5)
        self.clock.rightNow -= 86400
        self.assertEqual(len(self.fill(1)), 9)


class LimitTests(ClogTestCase):
    """The destination has as many deliveries as it may."""

    config = "qmgr_message_active_limit = 20\nsmtp_destination_concurrency_limit = 3\n"

    def test_limit(self) -> None:
        """Then that limit is what may have to change."""
        self.assertEqual(
            self.fill(5)[1:2],
            ["qmgr: you may need to increase the main.cf smtp_destination_concurrency_limit from 3"],
        )


class SilentTests(ClogTestCase):
    """helpful_warnings."""

    config = "qmgr_message_active_limit = 20\nhelpful_warnings = no\n"

    def test_none(self) -> None:
        """No helpful warnings, none of these."""
        self.assertEqual(self.fill(12), [])


class DisabledTests(ClogTestCase):
    """qmgr_clog_warn_time = 0."""

    config = "qmgr_message_active_limit = 20\nqmgr_clog_warn_time = 0\n"

    def test_none(self) -> None:
        """None."""
        self.assertEqual(self.fill(12), [])
