"""
Failures told to senders, end to end: a real QMQP client, our whole service, and a server that refuses some
recipients and takes the notices.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from email import message_from_bytes, message_from_string
from email.message import Message

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.scripted_smtp import ScriptedServer, Transaction
from tests.interop.test_destinations import lines, postqueue
from tests.peers import free_port, scratch
from tests.service import RunningService, qmqp_send, wait_until

LOGS = ("bounce", "defer", "trace")
CONTENT = b"From: sender@source.test\nSubject: hello\nX-Mark: kept\n\nHello.\n"


@frozen
class Notice:
    """
    What a notice says.

    @ivar failed: recipient, action and status, of each failed recipient.
    @ivar diagnostics: the server's words, of each.
    @ivar about: fields about the message.
    @ivar original: the message that it returns.
    """

    failed: Sequence[tuple[str, str, str]]
    diagnostics: Sequence[str]
    about: Message
    original: Message


def content(transaction: Transaction) -> Message:
    """
    @return: a message that the server took.
    """
    plain = transaction.content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
    return message_from_bytes(plain)


def notice(transaction: Transaction) -> Notice:
    """
    @return: the notice in a message, which must be one in the format of RFC 3464.
    """
    report = content(transaction)
    assert not report.defects, report
    assert report.get_content_type() == "multipart/report", report
    assert report.get_param("report-type") == "delivery-status", report
    text, status, original = report.get_payload()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    whole = original.is_multipart()
    about, *blocks = status.get_payload()
    return Notice(
        [(block["Final-Recipient"].partition("; ")[2], block["Action"], block["Status"]) for block in blocks],
        [" ".join(block["Diagnostic-Code"].split()) for block in blocks],
        about,
        original.get_payload()[0] if whole else message_from_string(original.get_payload()),
    )


class NoticeTestCase(SynchronousTestCase):
    """
    One server is the world: it takes mail, and refuses whom it is told to.

    @cvar settings: lines of main.cf.
    """

    settings = ""

    def setUp(self) -> None:
        self.server = ScriptedServer()
        self.addCleanup(self.server.stop)
        folder = scratch()
        self.addCleanup(shutil.rmtree, folder)
        relay = f"relayhost = [127.0.0.1]:{self.server.port}\nminimal_backoff_time = 1000s\n"
        self.service = RunningService(folder, free_port(), relay + self.settings)
        self.service.start()
        self.addCleanup(self.service.stop)

    def send(self, sender: bytes, *recipients: bytes) -> str:
        """
        @return: the queue id.
        """
        reply = qmqp_send(self.service.port, CONTENT, sender, list(recipients))
        self.assertEqual(reply[:1], b"K", reply)
        return reply.split()[-1].decode()

    def wait_for_end(self, messages: int) -> str:
        """
        Wait until so many messages are removed and the queue is empty.

        @return: the log.
        """
        wait_until(lambda: not self.service.queued(), 20, "an empty queue")
        wait_until(lambda: self.service.log_text().count(": removed") == messages, 20, f"{messages} removals")
        left = [path for name in LOGS for path in (self.service.queue / name).rglob("*")]
        self.assertEqual([path for path in left if path.is_file()], [])
        return self.service.log_text()

    def queues(self) -> list[str]:
        """
        @return: where messages are.
        """
        return [name.partition("/")[0] for name in self.service.queued()]

    def count(self, recipient: str) -> int:
        """
        @return: how many attempts there were for a recipient.
        """
        return sum(line.to == recipient for line in lines(self.service.log_text()))


class NoticeTests(NoticeTestCase):
    """Mail that fails."""

    def test_bounce(self) -> None:
        """
        A refused recipient is reported to the sender, with the server's status and words.
        """
        self.server.script = {"rcpt:nobody": b"550 5.1.1 <nobody@dest.test>: who?"}
        queue_id = self.send(b"sender@source.test", b"nobody@dest.test")
        (told,) = self.server.wait_for(1)
        self.assertEqual((told.sender, told.recipients), (b"", (b"sender@source.test",)))
        said = notice(told)
        self.assertEqual(said.failed, [("nobody@dest.test", "failed", "5.1.1")])
        self.assertEqual(said.diagnostics, ["smtp; 550 5.1.1 <nobody@dest.test>: who?"])
        self.assertEqual(said.about["Reporting-MTA"], "dns; relay.test")
        self.assertEqual(said.about["X-Postfix-Queue-ID"], queue_id)
        self.assertEqual((said.original["Subject"], said.original["X-Mark"]), ("hello", "kept"))
        self.assertEqual(said.original.get_payload(), "Hello.\r\n")
        self.assertEqual(content(told)["Auto-Submitted"], "auto-replied")
        log = self.wait_for_end(2)
        (notice_id,) = re.findall(rf"{queue_id}: sender non-delivery notification: (\w+)$", log, re.MULTILINE)
        self.assertEqual(
            [(line.to, line.status, line.dsn) for line in lines(log)],
            [("nobody@dest.test", "bounced", "5.1.1"), ("sender@source.test", "sent", "2.0.0")],
        )
        self.assertLess(log.index(f"notification: {notice_id}"), log.index(f"{queue_id}: removed"))

    def test_bounce_of_a_bounce(self) -> None:
        """
        A notice that cannot be delivered is the end of it: nobody is told, and nothing is left.
        """
        self.server.script = {"rcpt": b"550 5.1.1 who?"}
        self.send(b"sender@source.test", b"nobody@dest.test")
        log = self.wait_for_end(2)
        self.assertEqual(
            [(line.to, line.status) for line in lines(log)],
            [("nobody@dest.test", "bounced"), ("sender@source.test", "bounced")],
        )
        self.assertEqual(log.count("non-delivery notification"), 1)
        self.assertEqual(self.server.taken, [])

    def test_null_sender(self) -> None:
        """
        A message from nobody that fails is reported to nobody.
        """
        self.server.script = {"rcpt": b"550 5.1.1 who?"}
        self.send(b"", b"nobody@dest.test")
        log = self.wait_for_end(1)
        self.assertEqual([line.status for line in lines(log)], ["bounced"])
        self.assertEqual(self.server.taken, [])

    def test_verp(self) -> None:
        """
        A VERP sender gets one notice for each failed recipient, at the address that names the recipient.
        """
        self.server.script = {"rcpt:bad1": b"550 5.1.1 who?", "rcpt:bad2": b"551 5.7.1 not him"}
        self.send(b"list-owner-@source.test-@[]", b"bad1@dest.test", b"good@dest.test", b"bad2@other.test")
        taken = self.server.wait_for(3)
        told = {each.recipients: notice(each).failed for each in taken if not each.sender}
        self.assertEqual(
            told,
            {
                (b"list-owner-bad1=dest.test@source.test",): [("bad1@dest.test", "failed", "5.1.1")],
                (b"list-owner-bad2=other.test@source.test",): [("bad2@other.test", "failed", "5.7.1")],
            },
        )
        self.assertEqual(
            [(each.sender, each.recipients) for each in taken if each.sender],
            [(b"list-owner-good=dest.test@source.test", (b"good@dest.test",))],
        )
        self.wait_for_end(3)

    def test_mixed(self) -> None:
        """
        Of one message, a recipient is delivered, one fails and one waits: only the last is tried again, and
        the sender hears once of the failed one.
        """
        later = b"450 4.2.1 later"
        self.server.script = {"rcpt:bad": b"550 5.1.1 who?", "rcpt:slow": later}
        queue_id = self.send(b"sender@source.test", b"good@dest.test", b"bad@dest.test", b"slow@dest.test")
        first = self.server.wait_for(2)
        self.assertEqual(
            [(each.sender, each.recipients) for each in first],
            [(b"sender@source.test", (b"good@dest.test",)), (b"", (b"sender@source.test",))],
        )
        self.assertEqual(notice(first[1]).failed, [("bad@dest.test", "failed", "5.1.1")])
        wait_until(lambda: self.queues() == ["deferred"], 10, "the message in deferred, and nothing else")
        for tries in (2, 3):
            postqueue(self.service, "-f")
            wait_until(lambda n=tries: self.count("slow@dest.test") == n, 10, f"{tries} attempts")
            wait_until(lambda: self.queues() == ["deferred"], 10, "the message in deferred again")
        self.assertEqual(len(self.server.taken), 2)
        self.server.script = {}
        postqueue(self.service, "-f")
        last = self.server.wait_for(3)[2]
        self.assertEqual((last.sender, last.recipients), (b"sender@source.test", (b"slow@dest.test",)))
        log = self.wait_for_end(2)
        self.assertEqual(len(self.server.taken), 3)
        self.assertEqual(
            sorted((line.to, line.status) for line in lines(log)),
            [
                ("bad@dest.test", "bounced"),
                ("good@dest.test", "sent"),
                ("sender@source.test", "sent"),
                *[("slow@dest.test", "deferred")] * 3,
                ("slow@dest.test", "sent"),
            ],
        )
        self.assertEqual(log.count(f"{queue_id}: sender non-delivery notification"), 1)

    def test_marks_survive(self) -> None:
        """
        What was recorded of a message counts after a crash of the service: nobody gets it twice.
        """
        self.server.script = {"rcpt:slow": b"450 4.2.1 later"}
        self.send(b"sender@source.test", b"good@dest.test", b"slow@dest.test")
        self.server.wait_for(1)
        wait_until(lambda: self.queues() == ["deferred"], 10, "the message in deferred")
        self.service.stop(9)
        self.service.start()
        self.server.script = {}
        postqueue(self.service, "-f")
        self.assertEqual(
            [each.recipients for each in self.server.wait_for(2)],
            [(b"good@dest.test",), (b"slow@dest.test",)],
        )
        self.wait_for_end(1)
        self.assertEqual(len(self.server.taken), 2)


class DelayNoticeTests(NoticeTestCase):
    """Mail that is late."""

    settings = "delay_warning_time = 1s\nconfirm_delay_cleared = yes\n"

    def attempt(self) -> None:
        """
        Try what is deferred, and wait until it is deferred again.
        """
        tries = self.count("slow@dest.test") + 1
        postqueue(self.service, "-f")
        wait_until(lambda: self.count("slow@dest.test") == tries, 10, f"{tries} attempts")
        wait_until(lambda: self.queues() == ["deferred"], 10, "the message in deferred again")

    def test_delay(self) -> None:
        """
        The sender is warned once, however many attempts there are and whatever happens to the service; and is
        told when the message was delivered.
        """
        self.server.script = {"rcpt:slow": b"450 4.2.1 later"}
        queue_id = self.send(b"sender@source.test", b"slow@dest.test")
        wait_until(lambda: self.queues() == ["deferred"], 10, "the message in deferred")
        self.assertEqual(self.server.taken, [])
        wait_until(lambda: self.attempt() or self.server.taken, 10, "a warning")
        (warning,) = self.server.taken
        self.assertEqual((warning.sender, warning.recipients), (b"", (b"sender@source.test",)))
        said = notice(warning)
        self.assertEqual(said.failed, [("slow@dest.test", "delayed", "4.2.1")])
        self.assertEqual(said.diagnostics, ["smtp; 450 4.2.1 later"])
        self.assertEqual(said.about["X-Postfix-Queue-ID"], queue_id)
        self.assertEqual((said.original["Subject"], said.original.get_payload()), ("hello", ""))
        self.service.stop(9)
        self.service.start()
        for _ in range(2):
            self.attempt()
        self.server.script = {}
        postqueue(self.service, "-f")
        _, message, cleared = self.server.wait_for(3)
        self.assertEqual((message.sender, message.recipients), (b"sender@source.test", (b"slow@dest.test",)))
        self.assertEqual(content(cleared)["Subject"], "Successful Mail Delivery Report")
        self.assertEqual(notice(cleared).failed, [("slow@dest.test", "relayed", "2.0.0")])
        log = self.wait_for_end(3)
        self.assertEqual(log.count(f"{queue_id}: sender delay notification: "), 1)
        self.assertEqual(log.count(f"{queue_id}: sender delivery status notification: "), 1)

    def test_in_time(self) -> None:
        """
        Mail that is not late makes no notices.
        """
        self.send(b"sender@source.test", b"good@dest.test")
        self.server.wait_for(1)
        log = self.wait_for_end(1)
        self.assertNotIn("notification", log)
