"""
SIGHUP: the new configuration, or the old one.
"""

from __future__ import annotations

import re
import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import Destination, relay, scratch

MESSAGE = b"Subject: hello\n\nbody\n"
NO_DELAY = "qmqpd_error_delay = 0\n"


def send(service: RunningService, message: bytes = MESSAGE) -> bytes:
    """
    @return: the reply.
    """
    return qmqp_send(service.port, message, b"a@source.test", [b"b@destination.test"])


def reload(service: RunningService, settings: str, answer: str = "reload -- configuration") -> str:
    """
    Add lines to main.cf and send SIGHUP.

    @return: what was logged from then on to C{answer} and after it.
    """
    before = len(service.log_text())
    with service.config.open("a") as config:
        config.write(settings)
    service.signal(signal.SIGHUP)
    wait_until(lambda: answer in service.log_text()[before:], 10, f"{answer!r} in {service.log}")
    return service.log_text()[before:]


class ReloadTests(SynchronousTestCase):
    """With a running service."""

    def test_new_values(self) -> None:
        """
        Who may connect, how large a message may be, and where mail goes, from the next connection on.
        """
        with (
            Destination() as first,
            Destination() as second,
            RunningService(scratch(self), free_port(), relay(first) + NO_DELAY) as service,
        ):
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(first.messages) == 1, 10, "mail at the first destination")
            reload(service, relay(second) + "message_size_limit = 1000\n")
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(second.messages) == 1, 10, "mail at the second destination")
            self.assertEqual(len(first.messages), 1)
            self.assertRegex(send(service, MESSAGE + b"x" * 2000), b"^D.*exceeds")
            reload(service, "qmqpd_authorized_clients = 192.0.2.1\n")
            self.assertRegex(send(service), b"^D.*not authorized")

    def test_overrides(self) -> None:
        """
        A line of master.cf keeps its own rules, the new ones.
        """
        ports = [free_port() for _ in range(2)]
        master = "".join(f"127.0.0.1:{port} inet n - n - - qmqpd%s\n" for port in ports)
        service = RunningService(scratch(self), ports[0], NO_DELAY, master=master % ("", ""), listen=())
        with service:
            text = master % ("", " -o qmqpd_authorized_clients=")
            (service.scratch / "master.cf").write_text(text)
            reload(service, "")
            # There is no transport in this master.cf: mail is taken, and waits.
            self.assertEqual(send(service)[:1], b"K")
            service.port = ports[1]
            self.assertEqual(send(service)[:1], b"D")

    def test_bad_value(self) -> None:
        """
        A bad file is refused, with file and line; the old configuration stays in force as a whole.
        """
        with (
            Destination() as destination,
            RunningService(scratch(self), free_port(), relay(destination) + NO_DELAY) as service,
        ):
            lines = len(service.config.read_text().splitlines())
            text = reload(
                service,
                "qmqpd_authorized_clients = 192.0.2.1\nrelayhost = [192.0.2.1]\nqmqpd_timeout = soon\n",
                "reload refused",
            )
            where = re.escape(f"{service.config}, line {lines + 3}: parameter qmqpd_timeout: ")
            self.assertRegex(text, f"error: reload refused, the old configuration stays in force: {where}")
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(destination.messages) == 1, 10, "mail at the old destination")

    def test_refused_late(self) -> None:
        """
        So is one that only the last of the rooms refuses, here the log: the others go back.
        """
        with (
            Destination() as destination,
            RunningService(scratch(self), free_port(), relay(destination) + NO_DELAY) as service,
        ):
            for settings in ("maillog_file = /nonesuch/mail.log\n", "transport_maps = nonesuch:x\n"):
                late = "qmqpd_authorized_clients = 192.0.2.1\nrelayhost = [192.0.2.1]\n" + settings
                reload(service, late, "reload refused")
                self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(destination.messages) == 2, 10, "mail at the old destination")

    def test_list_gone(self) -> None:
        """
        When the file of a list has gone, or is no list any more, a reload is refused, and the old list stays
        in force.
        """
        folder = scratch(self)
        domains = folder / "domains"
        domains.write_text("local.test\n")
        text = f"mydestination = {domains}\nlocal_transport = error:5.1.1 it is local\n"
        with Destination() as other, RunningService(folder, free_port(), NO_DELAY + text) as service:
            for change in (domains.unlink, lambda: domains.write_text("no:table\n")):
                change()
                reload(service, relay(other) + "qmqpd_authorized_clients = 192.0.2.1\n", "reload refused")
                before = len(service.log_text())
                reply = qmqp_send(service.port, MESSAGE, b"", [b"b@local.test"])
                self.assertEqual(reply[:1], b"K")
                wait_until(lambda at=before: "it is local" in service.log_text()[at:], 10, "a local bounce")
            domains.write_text("local.test\n")
            reload(service, "qmqpd_authorized_clients = 127.0.0.0/8\n")
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(other.messages) == 1, 10, "mail by the new configuration")

    def test_bad_master(self) -> None:
        """
        A bad master.cf is refused likewise.
        """
        port = free_port()
        line = f"127.0.0.1:{port} inet n - n - - qmqpd\n"
        with RunningService(scratch(self), port, master=line, listen=()) as service:
            (service.scratch / "master.cf").write_text(line + "nonsense\n")
            self.assertIn("master.cf, line 2: ", reload(service, "", "reload refused"))
            self.assertEqual(send(service)[:1], b"K")

    def test_needs_restart(self) -> None:
        """
        What only a restart can change is named, and goes on as it was.
        """
        port, other = free_port(), free_port()
        line = "127.0.0.1:%d inet n - n - - qmqpd\n"
        with RunningService(scratch(self), port, master=line % port, listen=()) as service:
            (service.scratch / "master.cf").write_text(line % other)
            text = reload(service, "queue_directory = /nonesuch\n", "where QMQP is listened for has changed")
            self.assertIn("warning: queue_directory has changed: restart for that to take effect", text)
            self.assertEqual(send(service)[:1], b"K")

    def test_rotated_log(self) -> None:
        """
        A log file that was renamed is made anew.
        """
        with RunningService(scratch(self), free_port()) as service:
            service.wait_for_log("accepting mail on")
            old = service.log.rename(service.log.with_suffix(".1"))
            reload(service, "")
            self.assertIn("daemon started", old.read_text())
            self.assertNotIn("daemon started", service.log_text())

    def test_while_mail_flows(self) -> None:
        """
        A delivery under way is finished with what it began with.
        """
        with (
            Destination(hold=True) as first,
            Destination() as second,
            RunningService(scratch(self), free_port(), relay(first)) as service,
        ):
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: first.waiting == 1, 10, "a delivery under way")
            reload(service, relay(second))
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: len(second.messages) == 1, 10, "mail at the new destination")
            first.release()
            wait_until(lambda: not service.queued(), 10, "an empty queue")
            self.assertEqual((len(first.messages), len(second.messages)), (1, 1))
