"""The watchdog over the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.qmgr.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]

STUCK = """
import time
from twisted.internet import reactor
from qmqpd_tx.qmgr.watchdog import Watchdog

class Config:
    def seconds(self, name):
        assert name == "qmgr_daemon_timeout"
        return 1.0

Watchdog(config=Config(), clock=reactor).startService()
reactor.callLater(0.3, lambda: [time.sleep(0.1) for _ in iter(int, 1)])
reactor.callLater(20, reactor.stop)
reactor.run()
"""


class WatchdogTests(SynchronousTestCase):
    """qmgr_daemon_timeout."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.armed: list[tuple[float, float]] = []
        self.disarmed = 0
        self.watchdog = Watchdog(
            config=config_from_text("qmgr_daemon_timeout = 100\n"),
            clock=self.clock,
            arm=lambda seconds: self.armed.append((self.clock.seconds(), seconds)),
            disarm=self.disarm,
        )

    def disarm(self) -> None:
        """Count."""
        self.disarmed += 1

    def test_pushed_back(self) -> None:
        """As long as the reactor turns, the alarm is always far away."""
        self.watchdog.startService()
        self.clock.pump([1.0] * 500)
        last = 0.0
        for when, seconds in self.armed:
            self.assertEqual(seconds, 100.0)
            self.assertLess(when - last, 50.0)
            last = when
        self.assertLess(500.0 - last, 50.0)

    def test_stopped(self) -> None:
        """Nothing is left after a stop."""
        self.watchdog.startService()
        self.watchdog.stopService()
        self.assertEqual((self.clock.getDelayedCalls(), self.disarmed), ([], 1))

    def test_reload(self) -> None:
        """A new time holds at once."""
        self.watchdog.startService()
        self.watchdog.reconfigure(config_from_text("qmgr_daemon_timeout = 7\n"))
        self.assertEqual(self.armed[-1][1], 7.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.watchdog.stopService()

    def test_reload_before_the_start(self) -> None:
        """A service that does not run sets no alarm."""
        self.watchdog.reconfigure(config_from_text("qmgr_daemon_timeout = 7\n"))
        self.assertEqual(self.armed, [])

    def test_stuck_process_ends(self) -> None:
        """A process whose reactor does not turn any more ends, and says where it was."""
        ended = subprocess.run(
            [sys.executable, "-c", STUCK], capture_output=True, timeout=30, check=False, cwd=ROOT
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn(b"Timeout", ended.stderr)
        self.assertIn(b"<lambda>", ended.stderr)
