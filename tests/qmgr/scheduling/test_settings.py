"""What main.cf says about a transport."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.qmgr.scheduling.feedback import Feedback
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, read_settings


class SettingsTests(SynchronousTestCase):
    """C{<transport>_...} and C{default_...}."""

    def test_slots_and_pools(self) -> None:
        """Each is read for its transport, else by default."""
        config = config_from_text(
            "default_delivery_slot_cost = 7\nsmtp_delivery_slot_loan = 1\nsmtp_recipient_limit = 40\n"
            "smtp_extra_recipient_limit = 30\nsmtp_recipient_refill_limit = 20\n"
            "smtp_recipient_refill_delay = 2s\nsmtp_minimum_delivery_slots = 9\n"
            "smtp_delivery_slot_discount = 10\n"
        )
        found = read_settings(config, "smtp")
        self.assertEqual(
            (found.slot_cost, found.slot_loan, found.slot_discount, found.minimum_slots), (7, 1, 10, 9)
        )
        self.assertEqual(
            (found.pool, found.extra_pool, found.refill_limit, found.refill_delay), (40, 30, 20, 2.0)
        )
        other = read_settings(config, "relay")
        self.assertEqual((other.slot_cost, other.slot_loan, other.pool), (7, 3, 20000))

    def test_windows_and_times(self) -> None:
        """What a destination starts with, how far it grows, and for how long it is left alone."""
        config = config_from_text(
            "initial_destination_concurrency = 3\nsmtp_initial_destination_concurrency = 2\n"
            "smtp_destination_concurrency_limit = 9\n"
            "smtp_destination_concurrency_failed_cohort_limit = 4\nsmtp_destination_recipient_limit = 6\n"
            "minimal_backoff_time = 11s\ntransport_retry_time = 12s\n"
        )
        found, other = read_settings(config, "smtp"), read_settings(config, "relay")
        self.assertEqual((found.window.initial, found.window.limit, found.window.cohort_limit), (2, 9, 4))
        self.assertEqual((other.window.initial, other.window.limit, other.window.cohort_limit), (3, 20, 1))
        self.assertEqual((found.recipient_limit, other.recipient_limit), (6, 50))
        self.assertEqual((found.dead_time, found.retry_time), (11.0, 12.0))

    def test_rates_below_a_second(self) -> None:
        """Beyond Postfix: rate delays may be fractions; other times may not."""
        config = config_from_text("smtp_destination_rate_delay = 0.25s\ndefault_transport_rate_delay = .5\n")
        found = read_settings(config, "smtp")
        self.assertEqual((found.rate_delay, found.transport_rate_delay), (0.25, 0.5))
        self.assertEqual(found.window.limit, 1)
        self.assertRaises(ConfigError, config_from_text, "queue_run_delay = 0.5s\n")
        self.assertRaises(ConfigError, config_from_text, "smtp_destination_rate_delay = 1.2.3s\n")

    def test_bad_feedback(self) -> None:
        """It is named, and 1 is used."""
        config = config_from_text("smtp_destination_concurrency_positive_feedback = 1.5\n")
        with capturedLogs() as events:
            found = read_settings(config, "smtp")
        self.assertEqual(found.window.positive, Feedback(1.0))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "smtp_destination_concurrency_positive_feedback: "
                "ignoring malformed or unreasonable feedback: 1.5"
            ],
        )

    def test_debug(self) -> None:
        """The feedback in force is told when a transport is first used."""
        config = config_from_text(
            "destination_concurrency_feedback_debug = yes\n"
            "smtp_destination_concurrency_positive_feedback = 1/concurrency\n"
        )
        with capturedLogs() as events:
            found = read_settings(config, "smtp")
        self.assertTrue(found.debug)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "smtp: smtp_destination_concurrency_positive_feedback feedback type 1 value at 5: 0.2",
                "smtp: default_destination_concurrency_negative_feedback feedback type 0 value at 5: 1",
            ],
        )

    def test_recipient_limits(self) -> None:
        """As in Postfix: room for one recipient of each active message."""
        config = config_from_text("qmgr_message_recipient_limit = 5\nqmgr_message_active_limit = 50\n")
        with capturedLogs() as events:
            self.assertEqual(RecipientLimits.from_config(config).limit, 50)
        self.assertIn("adjusting qmgr_message_recipient_limit", formatEvent(events[0]))
        self.assertRaises(ConfigError, config_from_text, "qmgr_fudge_factor = 9\n")
