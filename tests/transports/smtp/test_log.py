"""What is said while a delivery is still going on, as smtp(8) logs it."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.transports.smtp.test_find_hosts import OK, Hosts


class Log(Hosts):
    def lines(self, events: list[Any]) -> list[str]:
        for event in events:
            self.assertEqual(event["log_namespace"], "qmqpd_tx.smtp")
        return [formatEvent(event) for event in events]

    def test_each_host_that_cannot_be_reached(self) -> None:
        with capturedLogs() as events:
            self.refuse_all("two.test")
        self.assertEqual(
            self.lines(events),
            [
                "connect to a.test[192.0.2.1]:25: Connection refused",
                "connect to b.test[192.0.2.2]:25: Connection refused",
            ],
        )

    def test_what_a_host_said_that_was_not_the_last(self) -> None:
        with capturedLogs() as events:
            self.deliver("two.test", recipients=[b"a@x.test", b"b@x.test"])
            peer = self.accept()
            peer.greet()
            peer.say(b"450 4.2.0 later", b"503 x", b"503 x", b"503 x")
            second = self.accept()
            second.greet()
            second.say(OK, OK, OK, b"354 go", OK)
        text = "Q1: host a.test[192.0.2.1] said: 450 4.2.0 later (in reply to MAIL FROM command)"
        self.assertEqual(self.lines(events), [text])

    def test_refusals_and_dns_failures_passed_over(self) -> None:
        with capturedLogs() as events:
            self.deliver("none.test two.test")
            self.accept().say(b"421 4.3.2 busy")
            self.refuse()
        self.assertEqual(
            self.lines(events),
            [
                "Q1: Host or domain name not found. Name service error for name=none.test type=A:"
                " Host not found",
                "Q1: host a.test[192.0.2.1] refused to talk to me: 421 4.3.2 busy",
                "connect to b.test[192.0.2.2]:25: Connection refused",
            ],
        )

    def test_garbage(self) -> None:
        with capturedLogs() as events:
            self.deliver("a.test")
            peer = self.accept()
            peer.greet()
            peer.say(b"xyz", OK, OK, b"354 go", OK)
        self.assertEqual(self.lines(events), ["Q1: non-ESMTP response from a.test[192.0.2.1]:25: xyz"])
        self.assertEqual(events[0]["log_level"].name, "warn")
