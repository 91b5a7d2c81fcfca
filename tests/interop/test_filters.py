"""
Content filters beside Postfix: where mail goes when content_filter names a transport, with a next hop or not.

The agents discard and error log the next hop that they were given; that is compared.
"""

from __future__ import annotations

import re
import subprocess
import time
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.events import Logger
from qmqpd_tx.message import CONTENT_FILTER, Envelope, Route
from qmqpd_tx.qmgr.routes import Routes
from qmqpd_tx.transports.reason import split_reason
from tests.peers import PrivatePostfix, free_port, require
from tests.qmgr.scripted import ScriptedRouter

FILTERS = (
    "discard:",
    "discard",
    "discard:hop",
    "discard:[127.0.0.1]:10025",
    "error:5.7.1 because",
    "error:",
    "error",
    "retry:4.2.1 later",
    "retry:",
    "nosuch:x",
    ":x",
)
"""Values of content_filter."""

RECIPIENTS = (
    "u@e.test",
    "U@Mixed.test",
    "moved@e.test",
    "u%b.test@relay.test",
    "u@a..b",
    "double-bounce@relay.test",
    "u@[127.0.0.1]",
)
"""Some of whom the router would send elsewhere."""

_LINE = re.compile(r"postfix/(\w+)\[\d+\]: \w+: to=<(.*?)>, .*, dsn=(\S+), status=(\w+) \((.*)\)$")

WAIT = 30.0
"""Seconds that Postfix may take for all."""


class FilterTests(SynchronousTestCase):
    """All values with all recipients."""

    def ours(self, route: Route) -> tuple[str, str, str]:
        """
        @return: status, code and reason that the agent of a route logs.
        """
        if route.transport == "discard":
            return "sent", "2.0.0", route.nexthop
        if route.transport in ("error", "retry"):
            bounce = route.transport == "error"
            dsn, text = split_reason(route.nexthop, "5.0.0" if bounce else "4.0.0", "test", Logger())
            return "bounced" if bounce else "deferred", dsn, text
        return "deferred", "4.3.0", "mail transport unavailable"

    def compare(self, default: str) -> None:
        """
        @param default: C{default_filter_nexthop}.
        """
        require("qmqp-source")
        ports = [free_port() for _ in FILTERS]
        master = "".join(
            f"{port} inet n - n - 50 qmqpd\n  -o {{ content_filter = {text} }}\n"
            for port, text in zip(ports, FILTERS, strict=True)
        )
        settings = {
            "default_filter_nexthop": default,
            "relocated_maps": "inline:{ {moved@e.test = away} }",
            "mydestination": "relay.test",
        }
        found: dict[tuple[str, str], tuple[str, str, str]] = {}
        with PrivatePostfix(settings, master) as postfix:
            for (port, text), recipient in product(zip(ports, FILTERS, strict=True), RECIPIENTS):
                # The sender says which filter it was.
                sender = f"s{FILTERS.index(text)}@src.test"
                subprocess.run(
                    [require("qmqp-source"), "-f", sender, "-t", recipient, f"127.0.0.1:{port}"],
                    check=True,
                    capture_output=True,
                )
            end = time.monotonic() + WAIT
            while len(found) < len(FILTERS) * len(RECIPIENTS) and time.monotonic() < end:
                time.sleep(0.2)
                found = self.logged(postfix.log())
        routes = Routes(
            config_from_text(f"myhostname = relay.test\ndefault_filter_nexthop = {default}\n"),
            ScriptedRouter(),
        )
        for text, recipient in product(FILTERS, RECIPIENTS):
            envelope = Envelope(b"s@src.test", 0.0, attributes={CONTENT_FILTER: text.encode()})
            route = routes.resolve(envelope, recipient.encode())
            assert isinstance(route, Route)
            self.assertEqual(route.recipient, recipient.encode())
            status, dsn, reason = found[text, recipient]
            # Domains are in lower case here (docs/differences).
            if reason == recipient.rpartition("@")[2]:
                reason = reason.lower()
            self.assertEqual((status, dsn, reason), self.ours(route), f"{text} for {recipient}")

    def logged(self, log: str) -> dict[tuple[str, str], tuple[str, str, str]]:
        """
        @return: status, code and reason by filter and recipient.
        """
        sender = dict(re.findall(r"qmgr\[\d+\]: (\w+): from=<s(\d+)@src\.test>", log))
        found = {}
        for line in log.splitlines():
            match = _LINE.search(line)
            queue_id = re.search(r"\]: (\w+): to=<", line)
            if match and queue_id and queue_id[1] in sender:
                found[FILTERS[int(sender[queue_id[1]])], match[2]] = (match[4], match[3], match[5])
        return found

    def test_recipient_domain(self) -> None:
        """Without default_filter_nexthop."""
        self.compare("")

    def test_default_nexthop(self) -> None:
        """With it."""
        self.compare("[filter.test]:10024")
