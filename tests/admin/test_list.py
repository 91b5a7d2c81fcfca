"""
The queue listings: byte for byte what postqueue(1) prints.
"""

from __future__ import annotations

import json
import os
import time

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.listing import ListedMessage, ListedRecipient, as_json, plain

REASON = "connect to 127.0.0.1[127.0.0.1]:1: Connection refused"
SUSPENDED = f"delivery temporarily suspended: {REASON}"
ARRIVAL = 1795325003.7

MESSAGES = [
    ListedMessage(
        "deferred",
        "B267B40C074",
        ARRIVAL,
        282,
        "",
        [ListedRecipient(name, REASON) for name in ("b@dst.test", "c@dst.test", "other@elsewhere.test")],
    ),
    ListedMessage("active", "B98140C2F0D", ARRIVAL, 296, "a@src.test", [ListedRecipient("b@dst.test")]),
    ListedMessage(
        "hold", "4072840C261", ARRIVAL, 105270, "h@src.test", [ListedRecipient('"a b"@dst.test', SUSPENDED)]
    ),
]

# As Postfix 3.7.11 printed them, with TZ=UTC.
PLAIN = """\
-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
B267B40C074     282 Sun Nov 22 05:23:23  MAILER-DAEMON
                       (connect to 127.0.0.1[127.0.0.1]:1: Connection refused)
                                         b@dst.test
                                         c@dst.test
                                         other@elsewhere.test

B98140C2F0D*     296 Sun Nov 22 05:23:23  a@src.test
                                         b@dst.test

4072840C261!  105270 Sun Nov 22 05:23:23  h@src.test
(delivery temporarily suspended: connect to 127.0.0.1[127.0.0.1]:1: Connection refused)
                                         "a b"@dst.test

-- 103 Kbytes in 3 Requests.
"""


class ListingTests(SynchronousTestCase):
    """What is printed."""

    def setUp(self) -> None:
        before = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()

        def restore() -> None:
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)

    def test_plain(self) -> None:
        """Marks, sizes, times, reasons said once, and the sum."""
        self.assertEqual("".join(f"{line}\n" for line in plain(MESSAGES)), PLAIN)

    def test_one(self) -> None:
        """One request is singular."""
        self.assertEqual(list(plain(MESSAGES[:1]))[-1], "-- 0 Kbytes in 1 Request.")

    def test_empty(self) -> None:
        """An empty queue is said to be so."""
        self.assertEqual(list(plain([])), ["Mail queue is empty"])

    def test_reasons(self) -> None:
        """A reason is told before its recipients, and again only when another came between."""
        message = ListedMessage(
            "deferred",
            "B267B40C074",
            ARRIVAL,
            1,
            "s@src.test",
            [
                ListedRecipient("a@x", "one"),
                ListedRecipient("b@x", "two"),
                ListedRecipient("c@x", "one"),
                ListedRecipient("new@x"),
            ],
        )
        shown = [line.strip() for line in plain([message])][2:-2]
        self.assertEqual(shown, ["(one)", "a@x", "(two)", "b@x", "(one)", "c@x", "new@x"])

    def test_json(self) -> None:
        """One object a message, with Postfix's members in Postfix's order and spacing."""
        self.assertEqual(
            as_json(MESSAGES[2]),
            '{"queue_name": "hold", "queue_id": "4072840C261", "arrival_time": 1795325003, '
            '"message_size": 105270, "forced_expire": false, "sender": "h@src.test", '
            '"recipients": [{"address": "\\"a b\\"@dst.test", '
            f'"delay_reason": "{SUSPENDED}"}}]}}',
        )
        active = json.loads(as_json(MESSAGES[1]))
        self.assertEqual(active["recipients"], [{"address": "b@dst.test"}])
        self.assertEqual(json.loads(as_json(MESSAGES[0]))["sender"], "MAILER-DAEMON")

    def test_hostile(self) -> None:
        """An address or a reason cannot forge a line or drive a terminal."""
        message = ListedMessage(
            "deferred",
            "B267B40C074",
            ARRIVAL,
            1,
            "a\n\x1b[2J@src",
            [ListedRecipient("b\r\n@\u202ex", "bad\nreason")],
        )
        lines = list(plain([message]))
        self.assertEqual(len(lines), 6)
        self.assertTrue(all(line.isprintable() for line in lines))
        self.assertIn("a??[2J@src", lines[1])
        self.assertEqual(json.loads(as_json(message))["sender"], "a??[2J@src")
