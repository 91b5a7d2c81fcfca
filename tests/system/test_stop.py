"""
SIGTERM, SIGINT and kill -9: how the service ends, and that nothing is lost.
"""

from __future__ import annotations

import os
import signal
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import CLEAN, RunningService, qmqp_send, wait_until
from tests.system.support import Destination, alive, disk_process, relay, scratch

MESSAGE = b"Subject: hello\n\nbody\n"
REQUEST = b"37:21:" + MESSAGE + b",3:a@b,3:c@d,,"


def send(service: RunningService, message: bytes = MESSAGE) -> bytes:
    """
    @return: the reply.
    """
    return qmqp_send(service.port, message, b"a@source.test", [b"b@destination.test"])


class TerminateTests(SynchronousTestCase):
    """SIGTERM."""

    def test_idle(self) -> None:
        """
        With nothing to do it ends at once, and the disk process with it, without a word on standard error.
        """
        settings = "qmgr_shutdown_time_limit = 60s\n"
        with RunningService(scratch(self), free_port(), settings) as service:
            service.wait_for_log("accepting mail on")
            disk = disk_process(service)
            began = time.monotonic()
            self.assertIn(service.stop(), CLEAN)
            self.assertLess(time.monotonic() - began, 20)
            wait_until(lambda: not alive(disk), 5, "the end of the disk process")
            self.assertEqual(service.output.read_text(), "")
            self.assertTrue(service.log_text().endswith("daemon stopped\n"))
            for name in ("public/qmgr", "private/control"):
                self.assertFalse((service.queue / name).exists(), name)

    def test_unfinished_message(self) -> None:
        """
        A client in the middle of its message is dropped without a reply, and nothing of it is left.
        """
        with RunningService(scratch(self), free_port()) as service:
            with socket.create_connection(("127.0.0.1", service.port), 10) as client:
                client.sendall(b"1000000:900000:" + b"x" * 200_000)
                service.wait_for_log(": client=")
                self.assertIn(service.stop(), CLEAN)
                self.assertEqual(client.recv(100), b"")
            self.assertEqual(service.queued(), [])
            self.assertIn("server shutdown while receiving message content", service.log_text())

    def test_received_message(self) -> None:
        """
        Messages that were received whole are answered K, and are in the queue, even if the signal came in
        the middle of the commit; the port is closed at once.
        """
        settings = "relayhost = [127.0.0.1]:9\n"
        with RunningService(scratch(self), free_port(), settings) as service:
            service.wait_for_log("accepting mail on")
            clients = [socket.create_connection(("127.0.0.1", service.port), 10) for _ in range(40)]
            wait_until(lambda: service.log_text().count(" connect from ") >= 40, 10, "40 clients")
            for client in clients:
                client.sendall(REQUEST)
            service.signal(signal.SIGTERM)
            answers = []
            for client in clients:
                try:
                    answers.append(client.recv(100))
                except ConnectionResetError:
                    answers.append(b"")
                client.close()
            self.assertIn(service.stop(), CLEAN)
            accepted = [answer[6:].rstrip(b",").rpartition(b" ")[2].decode() for answer in answers if answer]
            self.assertTrue(accepted)
            self.assertTrue(all(answer[3:4] in b"K" for answer in answers), answers)
            kept = {name.partition("/")[2].rpartition("/")[2] for name in service.queued()}
            self.assertLessEqual(set(accepted), kept)

    def test_delivery_under_way(self) -> None:
        """
        A delivery under way may finish; it is not repeated after the next start.
        """
        with Destination(hold=True) as destination:
            folder = scratch(self)
            service = RunningService(folder, free_port(), relay(destination))
            with service:
                self.assertEqual(send(service)[:1], b"K")
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                service.signal(signal.SIGTERM)
                wait_until(lambda: self.refused(service.port), 5, "a closed port")
                destination.release()
                self.assertIn(service.stop(), CLEAN)
            self.assertEqual(service.queued(), [])
            self.assertIn("status=sent", service.log_text())
            self.assertEqual(len(destination.messages), 1)

    def refused(self, port: int) -> bool:
        """
        @return: whether nobody listens.
        """
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    def test_bounded(self) -> None:
        """
        A destination that does not answer holds the end up for qmgr_shutdown_time_limit, not longer; its
        message is delivered after the next start.
        """
        folder = scratch(self)
        with Destination(hold=True) as destination:
            settings = relay(destination) + "qmgr_shutdown_time_limit = 1s\n"
            service = RunningService(folder, free_port(), settings)
            with service:
                self.assertEqual(send(service)[:1], b"K")
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                began = time.monotonic()
                self.assertIn(service.stop(), CLEAN)
                self.assertGreater(time.monotonic() - began, 0.8)
                self.assertLess(time.monotonic() - began, 4)
            self.assertEqual(len(service.queued()), 1)
        with Destination() as destination:
            service.config.write_text(service.config.read_text() + relay(destination))
            with service:
                # Recovered from active, or deferred by the end of the delivery: then somebody flushes.
                (service.queue / "public").stat()
                service.wait_for_log("accepting mail on")
                with socket.socket(socket.AF_UNIX) as trigger:
                    wait_until(lambda: (service.queue / "public/qmgr").exists(), 5, "the trigger socket")
                    trigger.connect(str(service.queue / "public/qmgr"))
                    trigger.sendall(b"AFD")
                wait_until(lambda: len(destination.messages) == 1, 10, "the message")
                wait_until(lambda: not service.queued(), 10, "an empty queue")

    def test_twice(self) -> None:
        """
        An impatient second signal changes nothing.
        """
        with (
            Destination(hold=True) as destination,
            RunningService(scratch(self), free_port(), relay(destination)) as service,
        ):
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
            for _ in range(2):
                service.signal(signal.SIGTERM)
                wait_until(lambda: self.refused(service.port), 5, "a closed port")
            service.signal(signal.SIGHUP)
            destination.release()
            self.assertIn(service.stop(), CLEAN)
            self.assertIn("status=sent", service.log_text())
            self.assertNotIn("Traceback", service.log_text())


class InterruptTests(SynchronousTestCase):
    """SIGINT."""

    def test_process_group(self) -> None:
        """
        Ctrl-C reaches the whole process group: the disk process lets the service finish with it.
        """
        with Destination(hold=True) as destination:
            service = RunningService(scratch(self), free_port(), relay(destination))
            service.own_group = True
            with service:
                self.assertEqual(send(service)[:1], b"K")
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                disk = disk_process(service)
                os.killpg(service.pid, signal.SIGINT)
                time.sleep(0.2)  # a disk process that obeys would be gone by now
                self.assertTrue(alive(disk))
                destination.release()
                assert service.process is not None
                self.assertIn(service.process.wait(20), (0, -signal.SIGINT))
            self.assertEqual(service.queued(), [])
            self.assertNotIn("disk process ended", service.log_text())


class KillTests(SynchronousTestCase):
    """kill -9."""

    def test_disk_process(self) -> None:
        """
        Without its disk process the service goes on with threads: nothing is lost, and a line in the log.
        """
        with (
            Destination() as destination,
            RunningService(scratch(self), free_port(), relay(destination)) as service,
        ):
            disk = disk_process(service)
            clients = []
            for number in range(100):
                client = socket.create_connection(("127.0.0.1", service.port), 10)
                client.sendall(REQUEST)
                clients.append(client)
                if number == 50:
                    os.kill(disk, signal.SIGKILL)
            for client in clients:
                self.assertIn(b":K", client.recv(100))
                client.close()
            service.wait_for_log("the disk process ended")
            self.assertEqual(send(service)[:1], b"K")
            wait_until(lambda: not service.queued(), 20, "an empty queue")
            wait_until(lambda: len(destination.messages) >= 101, 5, "101 messages")
            self.assertEqual(len(destination.messages), 101)
            wait_until(lambda: not os.path.exists(f"/proc/{disk}"), 5, "no zombie")
            self.assertIn(service.stop(), CLEAN)

    def test_service(self) -> None:
        """
        The disk process of a service that was killed ends by itself; a new service can start at once and
        delivers what was accepted.
        """
        with Destination(hold=True) as destination:
            service = RunningService(scratch(self), free_port(), relay(destination))
            service.start()
            disk = disk_process(service)
            for _ in range(10):
                self.assertEqual(send(service)[:1], b"K")
            service.stop(signal.SIGKILL)
            with service:
                service.wait_for_log("queue recovered: ")
                destination.release()
                wait_until(lambda: not service.queued(), 20, "an empty queue")
                wait_until(lambda: not alive(disk), 5, "the end of the old disk process")
            self.assertGreaterEqual(len(destination.messages), 10)
