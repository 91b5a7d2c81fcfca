"""
What a non-delivery notice says, as the standard library's e-mail parser reads it.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from qmqpd_tx.address.smtputf8 import ADDRESSES, HEADERS
from qmqpd_tx.message import SMTPUTF8
from tests.bounce.support import CONTENT, BounceTestCase, failure
from tests.cleanup.cases import COMPLETE


class Report(BounceTestCase):
    """An RFC 3464 report."""

    def test_envelope(self) -> None:
        """
        From the null sender, to the sender.
        """
        message, (recipient,) = self.message()
        with capturedLogs() as events:
            (notice,) = self.notices(message, [failure(recipient)])
        self.assertEqual(notice.envelope.sender, b"")
        self.assertEqual(notice.recipients, [(b"s@ex.test", b"s@ex.test")])
        self.assertIsNone(notice.envelope.client)
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_namespace"] == "qmqpd_tx.bounce"],
            [f"{message.queue_id}: sender non-delivery notification: {notice.queue_id}"],
        )

    def test_headers(self) -> None:
        """
        What makes it a notice that nobody answers.
        """
        message, (recipient,) = self.message()
        (notice,) = self.notices(message, [failure(recipient)])
        report, _, _, _ = self.parse(notice)
        self.assertEqual(report["From"], "Mail Delivery System <MAILER-DAEMON@relay.test>")
        self.assertEqual(report["To"], "s@ex.test")
        self.assertEqual(report["Subject"], "Undelivered Mail Returned to Sender")
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertEqual(report["MIME-Version"], "1.0")
        self.assertEqual(report["Content-Transfer-Encoding"], "7bit")
        self.assertEqual(report["Message-Id"], f"<20261122050052.{notice.queue_id}@relay.test>")
        self.assertEqual(report["Date"], "Sun, 22 Nov 2026 05:00:52 +0000 (UTC)")

    def test_status(self) -> None:
        """
        The fields for the message and for each recipient.
        """
        message, (bad, worse) = self.message(recipients=[b"bad@y.test", b"worse"])
        (notice,) = self.notices(
            message,
            [
                failure(
                    bad,
                    "host mx.y.test[192.0.2.1] said: 550 5.1.1 no such user",
                    remote_mta="mx.y.test",
                    diagnostic="550 5.1.1 no such user",
                ),
                failure(worse, "message expired", "4.4.1"),
            ],
        )
        _, text, (about, first, second), _ = self.parse(notice)
        self.assertEqual(about["Reporting-MTA"], "dns; relay.test")
        self.assertEqual(about["X-Postfix-Queue-ID"], message.queue_id)
        self.assertEqual(about["X-Postfix-Sender"], "rfc822; s@ex.test")
        self.assertEqual(about["Arrival-Date"], "Sun, 22 Nov 2026 05:00:52 +0000")
        self.assertEqual(
            dict(first.items()),
            {
                "Final-Recipient": "rfc822; bad@y.test",
                "Original-Recipient": "rfc822; bad@y.test",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; mx.y.test",
                "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
            },
        )
        self.assertEqual(
            dict(second.items()),
            {
                "Final-Recipient": "rfc822; worse@relay.test",
                "Original-Recipient": "rfc822; worse@relay.test",
                "Action": "failed",
                "Status": "4.4.1",
                "Diagnostic-Code": "X-Postfix; message expired",
            },
        )
        self.assertIn("This is the mail system at host relay.test.", text)
        self.assertIn("<bad@y.test>: host mx.y.test[192.0.2.1] said: 550 5.1.1 no such user", text)
        self.assertIn("<worse@relay.test> (originally <worse>): message expired", text)

    def test_whole_message(self) -> None:
        """
        A short message is attached whole, with its sender.
        """
        message, (recipient,) = self.message()
        (notice,) = self.notices(message, [failure(recipient)])
        original = self.parse(notice)[3]
        self.assertEqual(original.get_content_type(), "message/rfc822")
        self.assertEqual(original["Content-Description"], "Undelivered Message")
        (attached,) = original.get_payload()
        self.assertEqual(attached["Return-Path"], "<s@ex.test>")
        self.assertIn(f"id {message.queue_id}", attached["Received"])
        self.assertEqual(attached["Subject"], "hey")
        self.assertEqual(attached.get_payload(), "body\n")

    def test_headers_only(self) -> None:
        """
        Over C{bounce_size_limit}, headers only, wherever the chunks end.
        """
        self.configure("bounce_size_limit = 70000\n")
        for extra in range(-3, 4):
            headers = b"X: " + b"\n ".join([b"x" * 990] * 66) + b"y" * (65 + extra) + b"\n"
            message, (recipient,) = self.message(CONTENT[:-6] + headers + b"\nbody\n" * 1000)
            (notice,) = self.notices(message, [failure(recipient)])
            original = self.parse(notice)[3]
            self.assertEqual(original.get_content_type(), "text/rfc822-headers")
            payload = original.get_payload()
            assert isinstance(payload, str)
            self.assertTrue(payload.startswith("Return-Path: <s@ex.test>\nReceived: "))
            self.assertTrue(payload.endswith("y\n"), payload[-50:])
            self.assertNotIn("body", payload)

    def test_endless_headers(self) -> None:
        """
        A message of nothing but headers does not make an endless notice.
        """
        self.configure("bounce_size_limit = 1000\n")
        message, (recipient,) = self.message(COMPLETE + b"".join(b"X-%d: y\n" % i for i in range(100000)))
        (notice,) = self.notices(message, [failure(recipient)])
        self.assertLess(len(notice.content), 70000)
        self.assertTrue(self.parse(notice)[3].get_payload().endswith("y\n"))

    def test_limit(self) -> None:
        """
        Exactly C{bounce_size_limit} is still whole.
        """
        message, _ = self.message()
        for limit, expected in (
            (message.content.size, "message/rfc822"),
            (message.content.size - 1, "text/rfc822-headers"),
        ):
            self.configure(f"bounce_size_limit = {limit}\n")
            again, (recipient,) = self.message()
            (notice,) = self.notices(again, [failure(recipient)])
            self.assertEqual(self.parse(notice)[3].get_content_type(), expected)

    def test_eight_bit(self) -> None:
        """
        Bytes above 127 are declared and come back as they were.
        """
        message, (recipient,) = self.message(CONTENT + b"\xe9\xff\n")
        (notice,) = self.notices(message, [failure(recipient)])
        report, _, _, original = self.parse(notice)
        self.assertEqual(report["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(original["Content-Transfer-Encoding"], "8bit")
        self.assertTrue(notice.envelope.eight_bit)
        self.assertIn(b"body\n\xe9\xff\n\n--", notice.content)

    def test_internationalized(self) -> None:
        """
        A notice about mail that is marked for SMTPUTF8 has addresses as they are, in the parts for that.
        """
        addresses = ["ü@exämple.test".encode(), b"bad@y.test", b"\xe9@y.test"]
        for text, kind in (("", "message/global"), ("bounce_size_limit = 1\n", "message/global-headers")):
            self.configure(text)
            message, recipients = self.message(sender="ö@x.test".encode(), recipients=addresses)
            stored: Any = message
            stored.envelope = evolve(message.envelope, attributes={SMTPUTF8: b"addresses"})
            (notice,) = self.notices(message, [failure(recipient) for recipient in recipients])
            lines = notice.content.decode("utf-8", "replace").splitlines()
            for line in (
                "To: ö@x.test",
                "Content-Type: message/global-delivery-status",
                "X-Postfix-Sender: utf-8; ö@x.test",
                "Final-Recipient: utf-8; ü@exämple.test",
                "Original-Recipient: utf-8; ü@exämple.test",
                "Final-Recipient: rfc822; bad@y.test",
                "Final-Recipient: rfc822; ?@y.test",
                f"Content-Type: {kind}",
            ):
                self.assertIn(line, lines)
            self.assertTrue(any(line.startswith("<ü@exämple.test>: ") for line in lines))
            self.assertNotIn("Content-Transfer-Encoding: 7bit", lines)

    def test_internationalized_where_needed(self) -> None:
        """
        A notice is marked, and has the parts for that, when what it is about was marked and needs SMTPUTF8:
        a header, the sender, or one of these recipients; it is not for being looked at alone.
        """
        self.configure("smtputf8_enable = yes\n")
        for mark, sender, recipient, expected in (
            (ADDRESSES, b"s@x.test", b"bad@y.test", None),
            (ADDRESSES, "ö@x.test".encode(), b"bad@y.test", HEADERS),
            (ADDRESSES, b"s@x.test", "ü@y.test".encode(), ADDRESSES),
            (HEADERS, b"s@x.test", b"bad@y.test", ADDRESSES),
            (None, "ö@x.test".encode(), b"bad@y.test", None),
        ):
            message, (failed,) = self.message(sender=sender, recipients=[recipient])
            stored: Any = message
            attributes = {} if mark is None else {SMTPUTF8: mark}
            stored.envelope = evolve(message.envelope, attributes=attributes)
            (notice,) = self.notices(message, [failure(failed)])
            self.assertEqual(notice.envelope.attributes.get(SMTPUTF8), expected, (mark, sender, recipient))
            self.assertEqual(b"message/global" in notice.content, expected is not None)

    def test_eight_bit_reason(self) -> None:
        """
        A reason in UTF-8 is readable in the text, and ASCII in the status.
        """
        message, (recipient,) = self.message()
        (notice,) = self.notices(message, [failure(recipient, "unbekannter Empfänger", diagnostic="550 für")])
        report, text, (_, status), original = self.parse(notice)
        self.assertIn("unbekannter Empfänger", text)
        self.assertEqual(status["Diagnostic-Code"], "smtp; 550 f?r")
        self.assertEqual(report["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(original["Content-Transfer-Encoding"], "7bit")

    def test_hostile_reason(self) -> None:
        """
        What a remote host says cannot add fields, parts or lines.
        """
        boundary = f"--{self.message()[0].queue_id}"
        message, (recipient,) = self.message()
        nasty = f"550 no\r\nStatus: 2.0.0\r\n\r\n{boundary}\n\x1b[2J\0 \u2028 end"
        (notice,) = self.notices(
            message, [failure(recipient, nasty, "5.1.1\nX: y", remote_mta="mx\nX: y", diagnostic=nasty)]
        )
        _, text, (_, status), _ = self.parse(notice)
        self.assertEqual(status["Status"], "5.0.0")
        self.assertEqual(status["Remote-MTA"], "dns; mx X: y")
        self.assertEqual(sorted(status.keys())[0], "Action")
        self.assertNotIn("X", status)
        self.assertFalse(set(text) & {"\x1b", "\0", "\r", "\u2028"})

    def test_folding(self) -> None:
        """
        Long reasons are folded in the text and in the status.
        """
        message, (recipient,) = self.message()
        reason = "554 " + " ".join(["word"] * 60)
        (notice,) = self.notices(message, [failure(recipient, reason, diagnostic=reason)])
        _, text, (_, status), _ = self.parse(notice)
        self.assertLessEqual(max(map(len, text.split("\n"))), 79)
        unfolded = " ".join(status["Diagnostic-Code"].split())
        self.assertEqual(unfolded, "smtp; " + reason)

    def test_quoted_addresses(self) -> None:
        """
        Addresses are in external form.
        """
        message, (recipient,) = self.message(sender=b"a b@ex.test", recipients=[b"c d@y.test"])
        (notice,) = self.notices(message, [failure(recipient)])
        report, text, (about, status), original = self.parse(notice)
        self.assertEqual(report["To"], '"a b"@ex.test')
        self.assertEqual(about["X-Postfix-Sender"], 'rfc822; "a b"@ex.test')
        self.assertEqual(status["Final-Recipient"], 'rfc822; "c d"@y.test')
        self.assertIn('<"c d"@y.test>: ', text)
        self.assertEqual(original.get_payload()[0]["Return-Path"], '<"a b"@ex.test>')

    def test_no_final_newline_and_no_body(self) -> None:
        """
        The closing boundary is always found.
        """
        for content in (b"", b"\n", CONTENT + b"end"):
            message, (recipient,) = self.message(content)
            (notice,) = self.notices(message, [failure(recipient)])
            self.assertEqual(self.parse(notice)[3].get_content_type(), "message/rfc822")
            self.assertTrue(notice.content.endswith(b"--\n"))

    def test_many_recipients(self) -> None:
        """
        Each of them is named once.
        """
        addresses = [b"u%d@y.test" % number for number in range(3000)]
        message, recipients = self.message(recipients=addresses)
        (notice,) = self.notices(message, [failure(recipient) for recipient in recipients])
        _, text, (_, *blocks), _ = self.parse(notice)
        self.assertEqual([block["Final-Recipient"][8:].encode() for block in blocks], addresses)
        self.assertEqual(text.count("no such user"), 3000)
