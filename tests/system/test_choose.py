"""
The qmgr line of master.cf chooses the queue manager.
"""

from __future__ import annotations

import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import Destination, relay, scratch

MASTER = """\
qmgr unix n - n 300 1 {command}
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
"""

SETTINGS = """\
smtp_destination_recipient_limit = 2
smtp_destination_concurrency_limit = 1
initial_destination_concurrency = 1
"""


class ChooseTests(SynchronousTestCase):
    """qmgr and oqmgr, by the order in which mail to one destination goes out."""

    def order(self, command: str) -> list[str]:
        """
        @return: whose deliveries these were: a mailing, and single mail that came after it.
        """
        with Destination(hold=True) as destination:
            service = RunningService(
                scratch(self),
                free_port(),
                relay(destination) + SETTINGS,
                master=MASTER.format(command=command),
            )
            with service:
                mailing = [b"m%d@list.test" % number for number in range(40)]
                for recipients in (mailing, [b"single@list.test"]):
                    qmqp_send(service.port, b"Subject: x\n\nx\n", b"a@source.test", recipients)
                wait_until(lambda: service.log_text().count("(queue active)") == 2, 10, "both active")
                destination.release()
                wait_until(lambda: not service.queued(), 20, "an empty queue")
            return destination.recipients

    def test_preemptive(self) -> None:
        """qmgr lets single mail overtake a mailing."""
        order = self.order("qmgr")
        self.assertEqual(len(order), 41)
        self.assertLess(order.index("single@list.test"), 10)

    def test_first_come(self) -> None:
        """oqmgr serves a destination first come, first served."""
        order = self.order("oqmgr")
        self.assertEqual(len(order), 41)
        self.assertEqual(order.index("single@list.test"), 40)

    def test_unknown(self) -> None:
        """Another program on that line is refused at the start, by file and line."""
        service = RunningService(scratch(self), free_port(), master=MASTER.format(command="nqmgr"))
        service.start(wait=False)
        self.assertEqual(service.process.wait(20) if service.process else 0, 1)
        self.assertIn("master.cf, line 1: qmgr: there is no queue manager nqmgr", service.output.read_text())

    def test_options(self) -> None:
        """The -o options of that line are the queue manager's, at the start and after a reload."""
        master = MASTER.format(command="qmgr -o qmgr_message_active_limit=1")
        with Destination(hold=True) as destination:
            service = RunningService(scratch(self), free_port(), relay(destination), master=master)
            with service:
                for number in range(3):
                    qmqp_send(
                        service.port, b"Subject: x\n\nx\n", b"a@source.test", [b"m%d@list.test" % number]
                    )
                wait_until(lambda: destination.waiting == 1, 10, "the first at its destination")
                self.assertEqual(service.log_text().count("(queue active)"), 1)
                (service.scratch / "master.cf").write_text(
                    MASTER.format(command="qmgr -o qmgr_message_active_limit=3")
                )
                service.signal(signal.SIGHUP)
                service.wait_for_log("reload -- configuration")
                qmqp_send(service.port, b"Subject: x\n\nx\n", b"a@source.test", [b"m9@list.test"])
                wait_until(lambda: service.log_text().count("(queue active)") == 3, 10, "three active")
                destination.release()
                wait_until(lambda: not service.queued(), 20, "an empty queue")

    def test_reload(self) -> None:
        """A change needs a restart, and a warning says so; a wrong one is refused."""
        master = MASTER.format(command="qmgr")
        with RunningService(scratch(self), free_port(), master=master) as service:
            (service.scratch / "master.cf").write_text(MASTER.format(command="oqmgr"))
            service.signal(signal.SIGHUP)
            service.wait_for_log(
                "the queue manager in master.cf has changed: restart for that to take effect"
            )
            (service.scratch / "master.cf").write_text(MASTER.format(command="nqmgr"))
            service.signal(signal.SIGHUP)
            service.wait_for_log("reload refused")
