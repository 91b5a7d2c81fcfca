"""
qmgr_daemon_timeout: a service that is stuck ends, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import CLEAN, RunningService, qmqp_send, wait_until
from tests.system.support import Destination, disk_process, relay, scratch


class WatchdogTests(SynchronousTestCase):
    """A process whose reactor does not turn."""

    def stuck(self, service: RunningService) -> int:
        """
        @return: with which status a service ends that is stuck for longer than it may be.
        """
        assert service.process is not None
        for _ in range(10):
            # Nothing but time makes a process stuck.
            service.signal(signal.SIGSTOP)
            time.sleep(2.5)
            service.signal(signal.SIGCONT)
            # When it may go on, the reactor may push the alarm back before the alarm's own thread runs.
            with contextlib.suppress(subprocess.TimeoutExpired):
                return service.process.wait(3)
        self.fail("it does not end")

    def test_stuck(self) -> None:
        """It ends with status 1 and says where it was; the next start delivers what was under way."""
        with Destination(hold=True) as destination:
            settings = relay(destination) + "qmgr_daemon_timeout = 2s\n"
            service = RunningService(scratch(self), free_port(), settings)
            with service:
                reply = qmqp_send(service.port, b"Subject: x\n\nx\n", b"a@b.test", [b"c@d.test"])
                self.assertEqual(reply[:1], b"K")
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                disk_process(service)
                self.assertEqual(self.stuck(service), 1)
                self.assertIn("Timeout (0:00:02)!", service.output.read_text())
            destination.release()
            with service:
                wait_until(lambda: not service.queued(), 10, "an empty queue")
                self.assertIn(service.stop(), CLEAN)

    def test_idle(self) -> None:
        """A service with nothing to do is not stuck."""
        with RunningService(scratch(self), free_port(), "qmgr_daemon_timeout = 2s\n") as service:
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 4.5, 20, "more than its time")
            self.assertIn(service.stop(), CLEAN)
