"""
postsuper(1) on a running service: each change in each queue, while deliveries go on, and in bulk.
"""

from __future__ import annotations

import io
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.client import request
from tests.admin.support import command
from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import Destination, relay, scratch

MESSAGE = b"Subject: hello\n\nbody\n"

DEAD = "relayhost = [127.0.0.1]:9\n"
"""Nobody listens there: all mail is deferred."""


class Case(SynchronousTestCase):
    """A service, and the command that changes its queue."""

    def send(self, service: RunningService, *recipients: str) -> str:
        """
        @return: the queue id of a message that was accepted.
        """
        to = [recipient.encode() for recipient in recipients or ("b@destination.test",)]
        reply = qmqp_send(service.port, MESSAGE, b"a@source.test", to).decode()
        self.assertEqual(reply[:1], "K")
        return reply.split()[-1]

    def postsuper(self, service: RunningService, *arguments: str, stdin: bytes = b"") -> list[str]:
        """
        @return: the lines on standard error, without the name of the command.
        """
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status, output, errors = command("-c", str(service.scratch), "postsuper", *arguments)
        self.assertEqual((status, output), (0, ""), errors)
        lines = errors.splitlines()
        self.assertTrue(all(line.startswith("postsuper: ") for line in lines), errors)
        return [line.removeprefix("postsuper: ") for line in lines]

    def queue_of(self, service: RunningService, queue_id: str) -> str | None:
        """
        @return: where a message is.
        """
        found = [name.partition("/")[0] for name in service.queued() if name.endswith(queue_id)]
        return found[0] if found else None

    def wait_for_queue(self, service: RunningService, queue_id: str, queue: str | None) -> None:
        """
        Wait until a message is in a queue.
        """
        wait_until(lambda: self.queue_of(service, queue_id) == queue, 10, f"{queue_id} in {queue}")

    def wait_for_count(self, service: RunningService, queue: str, count: int) -> None:
        """
        Wait until so many messages are in a queue.
        """
        prefix = queue + "/"
        wait_until(lambda: sum(name.startswith(prefix) for name in service.queued()) == count, 10, prefix)


class DeferredTests(Case):
    """Mail that nobody is delivering."""

    def test_changes(self) -> None:
        """Hold, release, requeue and delete, with Postfix's words in terminal and log."""
        with RunningService(scratch(self), free_port(), DEAD) as service:
            first, second = self.send(service), self.send(service)
            for queue_id in (first, second):
                self.wait_for_queue(service, queue_id, "deferred")
            self.assertEqual(
                self.postsuper(service, "-h", first, "-h", "NOSUCH", "-h", "316BTD3SSHJ"),
                [f"{first}: placed on hold", "Placed on hold: 1 message"],
            )
            self.assertEqual(self.queue_of(service, first), "hold")
            for arguments in (["-h", first], ["-h", first, "hold"], ["-h", "ALL", "hold"]):
                self.assertEqual(self.postsuper(service, *arguments), ["Placed on hold: 0 messages"])
            for arguments in (["-H", second, "deferred", "active"], ["-H", "ALL", "deferred"]):
                self.assertEqual(self.postsuper(service, *arguments), ["Released from hold: 0 messages"])
            self.assertEqual(
                self.postsuper(service, "-H", first, "-H", second),
                [f"{first}: released from hold", "Released from hold: 1 message"],
            )
            self.assertEqual(self.queue_of(service, first), "deferred")
            self.assertEqual(
                self.postsuper(service, "-r", first), [f"{first}: requeued", "Requeued: 1 message"]
            )
            self.wait_for_queue(service, first, None)
            self.assertEqual(
                self.postsuper(service, "-h", second, "-d", second, "-H", second),
                [
                    f"{second}: placed on hold",
                    f"{second}: removed",
                    "Deleted: 1 message",
                    "Placed on hold: 1 message",
                    "Released from hold: 0 messages",
                ],
            )
            self.assertIsNone(self.queue_of(service, second))
            wait_until(lambda: len(service.queued()) == 1, 10, "the requeued message alone")
            log = service.wait_for_log("Released from hold: 0 messages")
        said = [line.partition("]: ")[2] for line in log.splitlines() if "postfix/postsuper[" in line]
        self.assertEqual(said.count(f"{first}: placed on hold"), 1, said)
        for text in (f"{first}: released from hold", f"{first}: requeued", f"{second}: removed"):
            self.assertIn(text, said)
        self.assertEqual(
            said[-3:], ["Deleted: 1 message", "Placed on hold: 1 message", "Released from hold: 0 messages"]
        )

    def test_all(self) -> None:
        """ALL, by queue and without one."""
        with RunningService(scratch(self), free_port(), DEAD) as service:
            ids = [self.send(service) for _ in range(7)]
            self.wait_for_count(service, "deferred", 7)
            self.postsuper(service, "-h", ids[0], "-h", ids[1])
            self.assertEqual(
                self.postsuper(service, "-d", "ALL", "incoming", "active"), ["Deleted: 0 messages"]
            )
            self.assertEqual(self.postsuper(service, "-d", "ALL", "hold")[-1], "Deleted: 2 messages")
            self.assertEqual(self.postsuper(service, "-h", "ALL")[-1], "Placed on hold: 5 messages")
            self.assertEqual(self.postsuper(service, "-r", "ALL")[-1], "Requeued: 5 messages")
            self.wait_for_count(service, "deferred", 5)
            self.assertEqual(
                self.postsuper(service, "-h", "ALL", "-H", "ALL", "-d", "ALL"),
                ["Deleted: 5 messages", "Placed on hold: 5 messages", "Released from hold: 5 messages"],
            )
            self.assertEqual(service.queued(), [])

    def test_stream(self) -> None:
        """Good, unknown and impossible ids on standard input."""
        with RunningService(scratch(self), free_port(), DEAD) as service:
            queue_id = self.send(service)
            self.wait_for_queue(service, queue_id, "deferred")
            stdin = b"NOSUCH\n../../etc/passwd\n" + b"A" * 10_000_000 + f"\n{queue_id}\n{queue_id}\n".encode()
            self.assertEqual(
                self.postsuper(service, "-d", "-", stdin=stdin),
                [
                    "warning: invalid mail queue id: ../../etc/passwd",
                    f"warning: invalid mail queue id: {'A' * 100}...",
                    f"{queue_id}: removed",
                    "Deleted: 1 message",
                ],
            )


class ActiveTests(Case):
    """Mail that is being delivered."""

    SETTINGS = (
        "smtp_destination_recipient_limit = 2\n"
        "default_destination_concurrency_limit = 1\n"
        "initial_destination_concurrency = 1\n"
    )

    def test_hold_during_delivery(self) -> None:
        """
        Who is being delivered to gets it, the others do not until it is released; then each gets it once.
        """
        everybody = [f"r{number}@destination.test" for number in range(6)]
        with Destination(hold=True) as destination:
            with RunningService(scratch(self), free_port(), relay(destination) + self.SETTINGS) as service:
                queue_id = self.send(service, *everybody)
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                self.assertEqual(self.postsuper(service, "-h", queue_id)[-1], "Placed on hold: 1 message")
                self.assertEqual(self.queue_of(service, queue_id), "hold")
                destination.release()
                wait_until(lambda: not request(service.queue, "status")["messages"], 10, "its end")
                self.assertEqual(len(destination.messages), 1)
                self.assertEqual(self.queue_of(service, queue_id), "hold")
                self.assertEqual(self.postsuper(service, "-H", queue_id)[-1], "Released from hold: 1 message")
                command("-c", str(service.scratch), "postqueue", "-f")
                log = service.wait_for_log(f"{queue_id}: removed")
            self.assertEqual(sorted(destination.recipients), everybody)
            self.assertEqual(log.count("status=sent"), 6)

    def test_delete_during_delivery(self) -> None:
        """The delivery under way ends, nobody else gets it, and nobody is told."""
        with Destination(hold=True) as destination:
            with RunningService(scratch(self), free_port(), relay(destination) + self.SETTINGS) as service:
                queue_id = self.send(service, *[f"r{number}@destination.test" for number in range(6)])
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                said = self.postsuper(service, "-d", queue_id)
                self.assertEqual(said, [f"{queue_id}: removed", "Deleted: 1 message"])
                destination.release()
                wait_until(lambda: not service.queued(), 10, "an empty queue")
            self.assertEqual(len(destination.recipients), 2)

    def test_requeue_during_delivery(self) -> None:
        """Those under way end; the rest goes out under another queue id; nobody gets it twice."""
        everybody = [f"r{number}@destination.test" for number in range(6)]
        with Destination(hold=True) as destination:
            with RunningService(scratch(self), free_port(), relay(destination) + self.SETTINGS) as service:
                queue_id = self.send(service, *everybody)
                wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
                threading.Timer(0.5, destination.release).start()
                said = self.postsuper(service, "-r", queue_id)
                self.assertEqual(said, [f"{queue_id}: requeued", "Requeued: 1 message"])
                wait_until(lambda: not service.queued(), 10, "an empty queue")
            self.assertEqual(sorted(destination.recipients), everybody)

    def test_hold_while_waiting(self) -> None:
        """A message that waits behind another is held before it was tried at all."""
        with (
            Destination(hold=True) as destination,
            RunningService(scratch(self), free_port(), relay(destination) + self.SETTINGS) as service,
        ):
            first = self.send(service, "first@destination.test")
            wait_until(lambda: destination.waiting == 1, 10, "a delivery under way")
            second = self.send(service, "second@destination.test")
            self.wait_for_queue(service, second, "active")
            self.postsuper(service, "-h", "ALL", "active")
            self.assertEqual(self.queue_of(service, second), "hold")
            destination.release()
            self.wait_for_queue(service, first, None)
            self.assertEqual(destination.recipients, ["first@destination.test"])


class TroubleTests(Case):
    """A service that is not there, or half."""

    def test_stale_socket(self) -> None:
        """After kill -9 the socket is still there: the command sees to the queue itself."""
        folder = scratch(self)
        service = RunningService(folder, free_port(), DEAD)
        with service:
            queue_id = self.send(service)
            self.wait_for_queue(service, queue_id, "deferred")
            service.stop(9)
            self.assertTrue((service.queue / "public" / "control").is_socket())
            said = self.postsuper(service, "-h", "ALL")
            self.assertEqual(said, ["Placed on hold: 1 message"])
            self.assertEqual(self.queue_of(service, queue_id), "hold")
            self.assertIn("Placed on hold: 1 message", service.log_text())

    def test_no_socket(self) -> None:
        """A service that runs without its socket keeps its queue, and the error says so."""
        with RunningService(scratch(self), free_port(), DEAD) as service:
            queue_id = self.send(service)
            self.wait_for_queue(service, queue_id, "deferred")
            (service.queue / "public" / "control").unlink()
            status, _, errors = command("-c", str(service.scratch), "postsuper", "-d", "ALL")
            self.assertEqual(status, 1)
            self.assertIn("postsuper: fatal: the mail system has the queue, but takes no commands", errors)
            self.assertIn(str(service.pid), errors)
            self.assertEqual(self.queue_of(service, queue_id), "deferred")
