"""
postqueue --explain on a running service: what it says of mail in every state is what then happens.
"""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.support import command
from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import Destination, scratch

MASTER = """\
smtp unix - - n - - smtp
later unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
"""


class ExplainTests(SynchronousTestCase):
    """One service with a destination that is busy, one that is dead, and a deferred transport."""

    def setUp(self) -> None:
        self.destination = Destination(hold=True)
        self.destination.__enter__()
        self.addCleanup(self.destination.__exit__, None, None, None)
        self.dead = free_port()
        settings = (
            f"transport_maps = inline:{{ {{slow.test=smtp:[127.0.0.1]:{self.destination.port}}}, "
            f"{{dead.test=smtp:[127.0.0.1]:{self.dead}}}, {{late.test=later:[127.0.0.1]:{self.dead}}} }}\n"
            "smtp_destination_concurrency_limit = 1\ninitial_destination_concurrency = 1\n"
            "defer_transports = later\nminimal_backoff_time = 300s\n"
        )
        self.service = RunningService(scratch(self), free_port(), settings, master=MASTER)
        self.service.start()
        self.addCleanup(self.service.stop)

    def send(self, *recipients: str, queue: str) -> str:
        """
        @return: the queue id of a message that has come to a queue.
        """
        to = [recipient.encode() for recipient in recipients]
        reply = qmqp_send(self.service.port, b"Subject: x\n\nx\n", b"a@source.test", to)
        queue_id = reply.decode().split()[-1]
        wait_until(
            lambda: any(name.startswith(queue) and name.endswith(queue_id) for name in self.service.queued()),
            10,
            f"{queue_id} in {queue}",
        )
        return queue_id

    def explain(self, queue_id: str) -> dict[str, dict[str, Any]]:
        """
        @return: the recipients of a message by address, as C{--json} gives them.
        """
        status, output, errors = command(*self.arguments, queue_id, "--json")
        self.assertEqual((status, errors), (0, ""))
        told = json.loads(output)
        self.assertTrue(told["service_running"])
        self.assertEqual(told["queue_id"], queue_id)
        return {one["address"]: one for one in told["recipients"]}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line."""
        return ("-c", str(self.service.scratch), "postqueue", "--explain")

    def reasons(self, recipient: dict[str, Any]) -> list[str]:
        """
        @return: what a recipient waits for.
        """
        return [one["reason"] for one in recipient["waits"]]

    def test_active(self) -> None:
        """Under delivery; behind it, with the window full; tried, but the message is not at its end."""
        first = self.send("first@slow.test", "x@dead.test", queue="active")
        wait_until(lambda: self.destination.waiting == 1, 10, "a delivery under way")
        second = self.send("second@slow.test", queue="active")
        third = self.send("third@slow.test", queue="active")
        told = self.explain(first)
        under_way = told["first@slow.test"]
        self.assertEqual(self.reasons(under_way), ["being delivered"])
        self.assertEqual(
            (under_way["transport"], under_way["nexthop"]),
            ("smtp", f"[127.0.0.1]:{self.destination.port}"),
        )
        self.assertEqual(self.reasons(told["x@dead.test"]), ["the other recipients of this attempt"])
        self.assertEqual(told["x@dead.test"]["last"]["dsn"], "4.4.1")
        behind = self.explain(second)["second@slow.test"]
        self.assertEqual(self.reasons(behind), ["a full concurrency window"])
        self.assertEqual((behind["waits"][0]["busy"], behind["waits"][0]["limit"]), (1, 1))
        waits = self.explain(third)["third@slow.test"]["waits"]
        self.assertEqual(waits[0]["ahead"], 1)
        status, output, _ = command(*self.arguments, second)
        self.assertEqual(status, 0)
        self.assertIn("waits for     a full concurrency window: 1 of 1 deliveries", output)
        self.destination.release()
        wait_until(lambda: len(self.destination.recipients) == 3, 10, "all deliveries")
        self.assertEqual(self.destination.recipients[1:], ["second@slow.test", "third@slow.test"])

    def test_deferred(self) -> None:
        """A dead destination and a deferred transport: why, since when, and when again."""
        queue_id = self.send("x@dead.test", "y@late.test", queue="deferred")
        told = self.explain(queue_id)
        now = time.time()
        dead, late = told["x@dead.test"], told["y@late.test"]
        self.assertEqual(self.reasons(dead), ["its next attempt", "a dead destination"])
        self.assertIn("Connection refused", dead["last"]["text"])
        # With a backoff of 300 s, at the queue run that follows.
        self.assertTrue(290 <= dead["next_attempt"] - now <= 601, dead["next_attempt"] - now)
        self.assertTrue(50 <= dead["waits"][1]["until"] - now <= 301)
        self.assertEqual(self.reasons(late), ["its next attempt", "defer_transports"])
        self.assertEqual(late["last"]["text"], "deferred transport")
        self.assertEqual(late["transport"], "later")

    def test_hold(self) -> None:
        """Held mail waits for its release, also while a delivery of it is under way."""
        queue_id = self.send("x@dead.test", queue="deferred")
        command("-c", str(self.service.scratch), "postsuper", "-h", queue_id)
        self.assertEqual(self.reasons(self.explain(queue_id)["x@dead.test"])[0], "its release from hold")
        busy = self.send("first@slow.test", queue="active")
        wait_until(lambda: self.destination.waiting == 1, 10, "a delivery under way")
        command("-c", str(self.service.scratch), "postsuper", "-h", busy)
        output = command(*self.arguments, busy)[1]
        self.assertIn(": hold, ", output)
        self.assertIn("waits for     an operator's action: to hold it", output)
        self.assertIn("now           being delivered", output)

    def test_unknown(self) -> None:
        """A message that is not there."""
        for queue_id in ("316BTD3SSHJ", "NOSUCH"):
            status, output, errors = command(*self.arguments, queue_id)
            self.assertEqual((status, output), (69, ""))
            self.assertIn("no such message", errors)
