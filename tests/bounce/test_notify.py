"""
Who is told, when, and in which order things become safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest import SkipTest

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from qmqpd_tx.bounce import Bounces, decode_log
from qmqpd_tx.interfaces import IBounces, InsufficientSpace, IntakeError, SpoolError, Treatment
from qmqpd_tx.message import LogKind, Queue, QueueID
from tests.bounce.support import BounceTestCase, failure
from tests.cleanup.support import config

OURS = "qmqpd_tx.bounce"


class Audience(BounceTestCase):
    """Who gets a notice."""

    def test_interface(self) -> None:
        """
        The service provides what it says.
        """
        verifyObject(IBounces, self.bounces)

    def test_nothing_to_say(self) -> None:
        """
        Without a bounce log there is no notice.
        """
        message, _ = self.message()
        self.assertIsNone(self.successResultOf(self.bounces.notify(message)))

    def test_automatic_copy(self) -> None:
        """
        The sender does not hear of a copy that cannot be delivered, and does of what was asked for.
        """
        self.configure("always_bcc = archive@x.test\n")
        message, (recipient, copy) = self.message()
        self.assertEqual((copy.address, copy.silent, recipient.silent), (b"archive@x.test", True, False))
        self.assertEqual(self.notices(message, [failure(copy)]), [])
        (notice,) = self.notices(message, [failure(copy), failure(recipient)])
        self.assertNotIn(b"archive@x.test", notice.content)

    def test_automatic_copy_and_postmaster(self) -> None:
        """
        The postmaster hears of a copy that cannot be delivered, also when nothing else failed, and of double
        bounces.
        """
        settings = "always_bcc = archive@x.test\nnotify_classes = bounce, 2bounce\n"
        self.configure(settings)
        message, (_, copy) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(copy)]))
        self.assertIsNone(self.successResultOf(self.bounces.notify(message)))
        (alone,) = self.intake.arrivals.stored
        self.configure(settings)
        message, (recipient, copy) = self.message()
        told, both = self.notices(message, [failure(recipient), failure(copy)])
        self.configure(settings)
        message, (_, copy) = self.message(sender=b"")
        (double,) = self.notices(message, [failure(copy)])
        for notice in (alone, both, double):
            self.assertEqual(notice.envelope.sender, b"double-bounce@relay.test")
            self.assertIn(b"archive@x.test", notice.content)
        self.assertEqual(told.envelope.sender, b"")
        self.assertNotIn(b"archive@x.test", told.content)

    def test_postmaster_sender(self) -> None:
        """
        Notices to the postmaster come from this host, whatever C{myorigin} is; only what comes from there
        is one.
        """
        settings = "myorigin = origin.test\nnotify_classes = bounce\ndouble_bounce_sender = db\n"
        for sender, count in ((b"db@origin.test", 2), (b"s@ex.test", 2), (b"DB@relay.test", 0)):
            self.configure(settings)
            message, (recipient,) = self.message(sender=sender)
            notices = self.notices(message, [failure(recipient)])
            self.assertEqual(len(notices), count)
            self.assertEqual(
                [notice.envelope.sender for notice in notices[1:]], [b"db@relay.test"] * (count // 2)
            )

    def test_null_sender(self) -> None:
        """
        Nobody is told about a notice that cannot be delivered, by default.
        """
        message, (recipient,) = self.message(sender=b"")
        self.assertEqual(self.notices(message, [failure(recipient)]), [])
        log = self.successResultOf(self.intake.queue.read_log(LogKind.BOUNCE, message.queue_id))
        self.assertEqual(log, [])

    def test_double_bounce(self) -> None:
        """
        With C{2bounce}, the postmaster is told about it, from the double-bounce address.
        """
        self.configure("notify_classes = 2bounce\n2bounce_notice_recipient = pm@x.test\n")
        message, (recipient,) = self.message(sender=b"")
        with capturedLogs() as events:
            (notice,) = self.notices(message, [failure(recipient)])
        self.assertEqual(notice.envelope.sender, b"double-bounce@relay.test")
        self.assertEqual(notice.recipients, [(b"pm@x.test", b"pm@x.test")])
        report, _, (about, _), original = self.parse(notice)
        self.assertEqual(report["Subject"], "Postmaster Copy: Undelivered Mail")
        self.assertEqual(report["Auto-Submitted"], "auto-generated")
        self.assertEqual(about["X-Postfix-Sender"], "rfc822; MAILER-DAEMON@relay.test")
        self.assertEqual(original.get_content_type(), "message/rfc822")
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_namespace"] == OURS],
            [f"{message.queue_id}: postmaster non-delivery notification: {notice.queue_id}"],
        )

    def test_triple_bounce(self) -> None:
        """
        The postmaster's own notice is dropped, with a warning; so there is no loop.
        """
        self.configure("notify_classes = bounce, 2bounce\n")
        for sender in (b"double-bounce@relay.test", b"double-bounce", b"Double-Bounce@RELAY.test"):
            message, (recipient,) = self.message(sender=sender)
            with capturedLogs() as events:
                self.assertEqual(self.notices(message, [failure(recipient)]), [])
            self.assertEqual(
                [formatEvent(event) for event in events if event["log_namespace"] == OURS],
                [f"{message.queue_id}: undeliverable postmaster notification discarded"],
            )

    def test_chain_ends(self) -> None:
        """
        A message whose every notice fails makes two notices and no more.
        """
        self.configure("notify_classes = 2bounce\n")
        message, (recipient,) = self.message()
        sent = 0
        while notices := self.notices(message, [failure(recipient)]):
            sent += len(notices)
            self.assertLess(sent, 10)
            (notice,) = notices
            message, (recipient,) = self.message(
                notice.content, notice.envelope.sender, [address for address, _ in notice.recipients]
            )
        self.assertEqual(sent, 2)

    def test_postmaster_copy(self) -> None:
        """
        With C{bounce}, the postmaster gets the headers of each bounced message.
        """
        self.configure("notify_classes = bounce\n")
        message, (recipient,) = self.message()
        first, second = self.notices(message, [failure(recipient)])
        self.assertEqual(first.envelope.sender, b"")
        self.assertEqual(second.envelope.sender, b"double-bounce@relay.test")
        self.assertEqual(second.recipients, [(b"postmaster@relay.test", b"postmaster")])
        self.assertEqual(self.parse(second)[3].get_content_type(), "text/rfc822-headers")

    def test_verp(self) -> None:
        """
        One notice for each recipient, to the address that its mail came from.
        """
        addresses = [b"joe@y.test", b"bill@z.test"]
        message, recipients = self.message(sender=b"l@x.test", recipients=addresses, verp=b"-=")
        first, second = self.notices(message, [failure(recipient) for recipient in recipients])
        self.assertEqual(first.recipients[0][0], b"l-joe=y.test@x.test")
        self.assertEqual(second.recipients[0][0], b"l-bill=z.test@x.test")
        blocks = self.parse(second)[2]
        self.assertEqual(len(blocks), 2)
        self.assertEqual(blocks[1]["Final-Recipient"], "rfc822; bill@z.test")

    def test_verp_quoted(self) -> None:
        """
        As in Postfix, a recipient that needs quotes has them in the address to which the notice goes.
        """
        message, recipients = self.message(sender=b"l@x.test", recipients=[b"q u@y.test"], verp=b"-=")
        (notice,) = self.notices(message, [failure(recipient) for recipient in recipients])
        self.assertEqual(notice.recipients[0][0], b'l-"q u"=y.test@x.test')

    def test_verp_copies(self) -> None:
        """
        As in Postfix, the postmaster has a copy for each recipient of VERP mail.
        """
        self.configure("notify_classes = bounce\n")
        addresses = [b"joe@y.test", b"bill@z.test"]
        message, recipients = self.message(sender=b"l@x.test", recipients=addresses, verp=b"-=")
        notices = self.notices(message, [failure(recipient) for recipient in recipients])
        self.assertEqual(
            [notice.recipients[0][0] for notice in notices],
            [
                b"l-joe=y.test@x.test",
                b"postmaster@relay.test",
                b"l-bill=z.test@x.test",
                b"postmaster@relay.test",
            ],
        )
        self.assertNotIn(b"bill@z.test", notices[1].content)

    def test_one_notice_for_verp_mail(self) -> None:
        """
        With disable_verp_bounces, one for all, to the sender as it would be without VERP.
        """
        self.configure("disable_verp_bounces = yes\n")
        addresses = [b"joe@y.test", b"bill@z.test"]
        message, recipients = self.message(sender=b"l@x.test", recipients=addresses, verp=b"-=")
        (notice,) = self.notices(message, [failure(recipient) for recipient in recipients])
        self.assertEqual(notice.recipients[0][0], b"l@x.test")
        self.assertEqual(len(self.parse(notice)[2]), 3)

    def test_reconfigure(self) -> None:
        """
        The next notice follows the new configuration.
        """
        self.bounces.reconfigure(config("bounce_size_limit = 1\n"))
        message, (recipient,) = self.message()
        (notice,) = self.notices(message, [failure(recipient)])
        self.assertEqual(self.parse(notice)[3].get_content_type(), "text/rfc822-headers")


class Safety(BounceTestCase):
    """Nothing is forgotten before it is said."""

    def log(self, queue_id: QueueID, kind: LogKind = LogKind.BOUNCE) -> list[bytes]:
        """
        @return: the addresses in a log.
        """
        records = self.successResultOf(self.intake.queue.read_log(kind, queue_id))
        return [recipient.address for recipient in decode_log(records)]

    def test_log_outlives_the_commit(self) -> None:
        """
        The log goes after the notice is safe, and not before.
        """
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient)]))
        self.intake.queue.hold = True
        finished: Deferred[QueueID | None] = self.bounces.notify(message)
        self.assertNoResult(finished)
        self.assertEqual(self.log(message.queue_id), [b"bad@y.test"])
        self.intake.queue.release()
        self.assertIsNotNone(self.successResultOf(finished))
        self.assertEqual(self.log(message.queue_id), [])

    def test_disk_full(self) -> None:
        """
        Without a notice the log stays, for another try.
        """
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient)]))
        self.intake.queue.capacity = 0
        self.failureResultOf(self.bounces.notify(message), IntakeError)
        self.assertEqual(self.log(message.queue_id), [b"bad@y.test"])
        self.intake.queue.capacity = None
        self.assertIsNotNone(self.successResultOf(self.bounces.notify(message)))

    def test_record_not_durable(self) -> None:
        """
        A failure whose record may be lost is not told, though the record can be read for now: the recipient
        is tried again. What fails for good then is.
        """
        message, (recipient,) = self.message()
        append = self.intake.queue.append_log

        def written_but_not_durable(
            kind: LogKind, queue_id: QueueID, records: Sequence[bytes], durable: bool
        ) -> Deferred[None]:
            self.successResultOf(append(kind, queue_id, records, durable))
            return fail(SpoolError("fsync: input/output error")) if durable else succeed(None)

        self.patch(self.intake.queue, "append_log", written_but_not_durable)
        self.failureResultOf(self.bounces.bounced(message, [failure(recipient)]), SpoolError)
        self.patch(self.intake.queue, "append_log", append)
        self.assertIsNone(self.successResultOf(self.bounces.notify(message)))
        self.assertEqual(self.intake.arrivals.stored, [])
        self.assertEqual(len(self.notices(message, [failure(recipient)])), 1)

    def test_copy_fails(self) -> None:
        """
        The sender is not told again and again because the postmaster's copy fails.
        """
        self.configure("notify_classes = bounce\n")
        message, (recipient,) = self.message()
        begin = self.intake.cleanup.begin
        begun: list[object] = []

        def begin_once(client: None, treatment: Treatment) -> object:
            if begun:
                raise IntakeError(False, "4.3.1", "Error: insufficient system storage")
            begun.append(begin(client, treatment=treatment))
            return begun[0]

        self.patch(self.intake.cleanup, "begin", begin_once)
        with capturedLogs() as events:
            self.assertEqual(len(self.notices(message, [failure(recipient)])), 1)
        self.assertEqual(self.log(message.queue_id), [])
        self.assertIn("postmaster notice failed", "".join(formatEvent(event) for event in events))

    def test_unreadable_message(self) -> None:
        """
        A message that cannot be read makes no half a notice.
        """
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient)]))

        class Broken:
            """Content on a bad disk."""

            size = 100

            async def read(self, offset: int, length: int) -> bytes:
                raise SpoolError("read: input/output error")

        class Message:
            """A message with such content."""

            queue_id, envelope, content = message.queue_id, message.envelope, Broken()

        self.failureResultOf(self.bounces.notify(Message()), SpoolError)  # type: ignore[arg-type]
        self.assertEqual(self.log(message.queue_id), [b"bad@y.test"])
        self.assertEqual(self.intake.arrivals.stored, [])

    def test_log_is_durable(self) -> None:
        """
        Bounces are on disk before anybody is marked done; deferrals need not be.
        """
        asked: list[tuple[LogKind, bool]] = []
        append = self.intake.queue.append_log

        def remember(
            kind: LogKind, queue_id: QueueID, records: Sequence[bytes], durable: bool
        ) -> Deferred[None]:
            asked.append((kind, durable))
            return append(kind, queue_id, records, durable)

        self.intake.queue.append_log = remember  # type: ignore[method-assign]
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient)]))
        self.successResultOf(self.bounces.deferred(message, [failure(recipient)]))
        self.assertEqual(asked, [(LogKind.BOUNCE, True), (LogKind.DEFER, False)])

    def test_log_failure(self) -> None:
        """
        A log that cannot be written is reported.
        """
        message, (recipient,) = self.message()
        self.intake.queue.append_log = lambda *_: fail(InsufficientSpace("full"))  # type: ignore[method-assign]
        self.failureResultOf(self.bounces.bounced(message, [failure(recipient)]), InsufficientSpace)

    def test_repeated_record(self) -> None:
        """
        A recipient that was logged again after a crash is reported once.
        """
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient, "first")]))
        (notice,) = self.notices(message, [failure(recipient, "second")])
        _, text, blocks, _ = self.parse(notice)
        self.assertEqual(len(blocks), 2)
        self.assertIn("second", text)

    def test_damaged_record(self) -> None:
        """
        The others are still reported, and the loss is logged.
        """
        message, (recipient,) = self.message()
        damaged = self.intake.queue.append_log(LogKind.BOUNCE, message.queue_id, [b"\xff\xff"], True)
        self.successResultOf(damaged)
        with capturedLogs() as events:
            (notice,) = self.notices(message, [failure(recipient)])
        self.assertEqual(len(self.parse(notice)[2]), 2)
        self.assertIn("1 damaged records", "".join(formatEvent(event) for event in events))

    def test_deferred(self) -> None:
        """
        Each attempt's reasons replace those of the attempt before; within one attempt they add up.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.successResultOf(self.bounces.deferred(message, [failure(first, dsn="4.4.1")]))
        self.successResultOf(self.bounces.deferred(message, [failure(second, dsn="4.4.1")]))
        self.assertEqual(self.log(message.queue_id, LogKind.DEFER), [b"a@y.test", b"b@y.test"])
        again = self.successResultOf(self.intake.queue.open(message.queue_id, Queue.INCOMING))
        self.successResultOf(self.bounces.deferred(again, [failure(second, dsn="4.4.1")]))
        self.assertEqual(self.log(message.queue_id, LogKind.DEFER), [b"b@y.test"])

    def test_deferred_at_the_same_address(self) -> None:
        """
        It is a new attempt even if the message is where that of the attempt before was in memory.
        """
        message, (recipient,) = self.message()
        queue_id, address = message.queue_id, id(message)
        self.successResultOf(self.bounces.deferred(message, [failure(recipient)]))
        message.close()
        del message
        opened = []
        for _ in range(1000):
            opened.append(self.successResultOf(self.intake.queue.open(queue_id, Queue.INCOMING)))
            if id(opened[-1]) == address:
                break
        else:
            raise SkipTest("this interpreter does not use addresses again")
        self.successResultOf(self.bounces.deferred(opened[-1], [failure(recipient)]))
        self.assertEqual(len(self.successResultOf(self.intake.queue.read_log(LogKind.DEFER, queue_id))), 1)

    def test_forget(self) -> None:
        """
        Both logs go, and it is fine if there are none.
        """
        message, (recipient,) = self.message()
        self.successResultOf(self.bounces.bounced(message, [failure(recipient)]))
        self.successResultOf(self.bounces.deferred(message, [failure(recipient)]))
        for _ in range(2):
            self.successResultOf(self.bounces.forget(message.queue_id))
            self.assertEqual(self.log(message.queue_id), [])
            self.assertEqual(self.log(message.queue_id, LogKind.DEFER), [])

    def test_without_cleanup(self) -> None:
        """
        Until cleanup is set, notices wait.
        """
        bounces = Bounces(config=config(), clock=self.intake.clock, queue=self.intake.queue)
        message, (recipient,) = self.message()
        self.successResultOf(bounces.bounced(message, [failure(recipient)]))
        self.failureResultOf(bounces.notify(message), SpoolError)
        bounces.cleanup = self.intake.cleanup
        self.assertIsNotNone(self.successResultOf(bounces.notify(message)))
