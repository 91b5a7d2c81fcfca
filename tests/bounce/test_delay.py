"""
Warnings of a delay, and the word that it is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent

from qmqpd_tx.bounce import Bounces
from qmqpd_tx.bounce.compose import duration
from qmqpd_tx.interfaces import InsufficientSpace, IntakeError, IStoredMessage, Treatment
from qmqpd_tx.message import LogKind, Queue, QueueID, Recipient
from qmqpd_tx.status import Action, Outcome
from tests.bounce.support import CONTENT, BounceTestCase, failure
from tests.cleanup.support import Stored, config

HOUR = 3600.0
WARN = "delay_warning_time = 4h\n"
CONFIRM = WARN + "confirm_delay_cleared = yes\n"
FULL = InsufficientSpace("no space left on device")


def late(recipient: Recipient, text: str = "450 4.2.1 later") -> Outcome:
    """
    @return: a recipient that waits.
    """
    return Outcome(
        recipient, Action.DEFERRED, "4.2.1", f"host mx said: {text}", remote_mta="mx", diagnostic=text
    )


def sent(recipient: Recipient) -> Outcome:
    """
    @return: a recipient that was delivered to another host.
    """
    text = "250 2.0.0 Ok"
    return Outcome(recipient, Action.SENT, "2.0.0", text, "mx[192.0.2.1]:25", "mx", text)


class DelayTestCase(BounceTestCase):
    """Mail that waits."""

    def restart(self, text: str) -> None:
        """
        A new service over the same queue.
        """
        self.bounces = Bounces(
            config=config(text),
            clock=self.intake.clock,
            queue=self.intake.queue,
            cleanup=self.intake.cleanup,
            timezone=lambda _: 0,
        )

    def again(self, message: IStoredMessage) -> IStoredMessage:
        """
        @return: the message, opened for another attempt.
        """
        opened: IStoredMessage = self.successResultOf(
            self.intake.queue.open(message.queue_id, Queue.INCOMING)
        )
        return opened

    def stored(self) -> list[Stored]:
        """
        @return: the notices since this was last asked.
        """
        found = list(self.intake.arrivals.stored)
        self.intake.arrivals.stored.clear()
        return found

    def defer(self, message: IStoredMessage, recipients: Sequence[Recipient]) -> list[Stored]:
        """
        An attempt ends, and these wait.

        @return: the notices that come of it.
        """
        self.successResultOf(self.bounces.deferred(message, [late(each) for each in recipients]))
        warning = self.successResultOf(self.bounces.delayed(message))
        found = self.stored()
        self.assertEqual(warning, found[0].queue_id if found else None)
        return found

    def deliver(self, message: IStoredMessage, *recipients: Recipient) -> list[Stored]:
        """
        An attempt ends, and these were delivered.

        @return: the notices that come of it.
        """
        self.successResultOf(self.bounces.delivered(message, [sent(each) for each in recipients]))
        self.successResultOf(self.bounces.notify(message))
        return self.stored()

    def named(self, notice: Stored) -> list[str]:
        """
        @return: the recipients that a notice is about.
        """
        return [block["Final-Recipient"].partition("; ")[2] for block in self.parse(notice)[2][1:]]


class Warnings(DelayTestCase):
    """The sender is told that a message is late."""

    def setUp(self) -> None:
        self.configure(WARN)

    def test_by_default(self) -> None:
        """
        Nobody is warned of anything, and the disk is not asked either.
        """
        self.configure("")
        message, recipients = self.message()
        self.intake.clock.advance(100 * HOUR)
        self.successResultOf(self.bounces.deferred(message, [late(each) for each in recipients]))
        self.intake.queue.read_log = lambda *_: fail(AssertionError("read"))  # type: ignore[method-assign]
        self.assertIsNone(self.successResultOf(self.bounces.delayed(message)))
        self.assertFalse(self.bounces.confirms)
        self.assertEqual(self.stored(), [])

    def test_when(self) -> None:
        """
        Not before C{delay_warning_time}, and then once; nothing is read before that.
        """
        message, recipients = self.message()
        read = self.intake.queue.read_log
        self.intake.queue.read_log = lambda *_: fail(AssertionError("read"))  # type: ignore[method-assign]
        self.assertEqual(self.defer(message, recipients), [])
        self.intake.clock.advance(4 * HOUR - 1)
        self.assertEqual(self.defer(self.again(message), recipients), [])
        self.intake.queue.read_log = read  # type: ignore[method-assign]
        self.intake.clock.advance(1)
        self.assertEqual(len(self.defer(self.again(message), recipients)), 1)
        self.intake.clock.advance(HOUR)
        self.assertEqual(self.defer(self.again(message), recipients), [])

    def test_automatic_copy(self) -> None:
        """
        A copy that is late is no reason for a warning, and is not named in one.
        """
        self.configure(WARN + "always_bcc = archive@x.test\n")
        message, (recipient, copy) = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.assertEqual(self.defer(message, [copy]), [])
        (notice,) = self.defer(self.again(message), [copy, recipient])
        self.assertNotIn(b"archive@x.test", notice.content)

    def test_automatic_copy_and_postmaster(self) -> None:
        """
        As in Postfix, the postmaster hears of a copy that is late, also when nothing else is, and once.
        """
        self.configure(WARN + "always_bcc = archive@x.test\nnotify_classes = delay\n")
        message, (recipient, copy) = self.message()
        other, (_, alone) = self.message()
        self.intake.clock.advance(5 * HOUR)
        told, postmaster = self.defer(message, [copy, recipient])
        self.assertEqual(self.named(told), ["bad@y.test"])
        self.assertEqual(self.named(postmaster), ["archive@x.test", "bad@y.test"])
        for count in (1, 0):
            self.successResultOf(self.bounces.deferred(other, [late(alone)]))
            self.assertIsNone(self.successResultOf(self.bounces.delayed(other)))
            found = self.stored()
            self.assertEqual([self.named(notice) for notice in found], [["archive@x.test"]] * count)

    def test_after_restart(self) -> None:
        """
        That the warning was sent is remembered on disk.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.assertEqual(len(self.defer(message, recipients)), 1)
        self.restart(WARN)
        self.assertEqual(self.defer(self.again(message), recipients), [])

    def test_envelope(self) -> None:
        """
        From the null sender to the sender, logged in Postfix's words.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        with capturedLogs() as events:
            (notice,) = self.defer(message, recipients)
        self.assertEqual(notice.envelope.sender, b"")
        self.assertEqual(notice.recipients, [(b"s@ex.test", b"s@ex.test")])
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_namespace"] == "qmqpd_tx.bounce"],
            [f"{message.queue_id}: sender delay notification: {notice.queue_id}"],
        )

    def test_report(self) -> None:
        """
        What it says, of those who wait.
        """
        message, recipients = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.intake.clock.advance(5 * HOUR)
        (notice,) = self.defer(message, recipients)
        report, text, (about, *blocks), original = self.parse(notice)
        self.assertEqual(report["Subject"], "Delayed Mail (still being retried)")
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertIn("ONLY A WARNING", text)
        self.assertIn("more than 4 hours", text)
        self.assertIn("5 days old", text)
        self.assertIn("<a@y.test>: host mx said: 450 4.2.1 later", text)
        self.assertEqual(about["X-Postfix-Queue-ID"], message.queue_id)
        self.assertEqual(
            [dict(block.items()) for block in blocks],
            [
                {
                    "Final-Recipient": f"rfc822; {name}@y.test",
                    "Original-Recipient": f"rfc822; {name}@y.test",
                    "Action": "delayed",
                    "Status": "4.2.1",
                    "Remote-MTA": "dns; mx",
                    "Diagnostic-Code": "smtp; 450 4.2.1 later",
                    "Will-Retry-Until": "Fri, 27 Nov 2026 05:00:52 +0000",
                }
                for name in "ab"
            ],
        )
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        self.assertEqual(original["Content-Description"], "Undelivered Message Headers")
        self.assertIn("Subject: hey", original.get_payload())
        self.assertNotIn("body", original.get_payload())

    def test_only_those_who_wait(self) -> None:
        """
        It is about the last attempt.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.assertEqual(self.defer(message, [first, second]), [])
        self.intake.clock.advance(5 * HOUR)
        (notice,) = self.defer(self.again(message), [second])
        self.assertEqual(self.named(notice), ["b@y.test"])

    def test_nobody_waits(self) -> None:
        """
        A message that is kept for another reason is no delay of anybody's.
        """
        message, _ = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.assertIsNone(self.successResultOf(self.bounces.delayed(message)))

    def test_not_for_notices(self) -> None:
        """
        Nobody is warned about a notice.
        """
        self.configure(CONFIRM + "notify_classes = delay, 2bounce\n")
        for sender in (b"", b"double-bounce@relay.test", b"DOUBLE-bounce"):
            message, recipients = self.message(sender=sender)
            self.intake.clock.advance(5 * HOUR)
            self.assertEqual(self.defer(message, recipients), [])
            self.assertEqual(self.deliver(self.again(message), *recipients), [])

    def test_verp(self) -> None:
        """
        A VERP sender gets one warning of all, at the address before expansion.
        """
        message, recipients = self.message(
            sender=b"l@x.test", recipients=[b"joe@y.test", b"bill@z.test"], verp=b"-="
        )
        self.intake.clock.advance(5 * HOUR)
        (notice,) = self.defer(message, recipients)
        self.assertEqual(notice.recipients[0][0], b"l@x.test")
        self.assertEqual(self.named(notice), ["joe@y.test", "bill@z.test"])

    def test_postmaster_copy(self) -> None:
        """
        With C{delay}, C{delay_notice_recipient} gets the headers too.
        """
        self.configure(WARN + "notify_classes = delay\ndelay_notice_recipient = late@x.test\n")
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        with capturedLogs() as events:
            first, second = self.defer(message, recipients)
        self.assertEqual(first.recipients[0][0], b"s@ex.test")
        self.assertEqual(second.recipients[0][0], b"late@x.test")
        self.assertEqual(second.envelope.sender, b"double-bounce@relay.test")
        report, _, (about, block), original = self.parse(second)
        self.assertEqual(report["Subject"], "Postmaster Warning: Delayed Mail")
        self.assertEqual(report["Auto-Submitted"], "auto-generated")
        self.assertEqual(about["X-Postfix-Sender"], "rfc822; s@ex.test")
        self.assertEqual(block["Action"], "delayed")
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        said = [formatEvent(event) for event in events if event["log_namespace"] == "qmqpd_tx.bounce"]
        self.assertIn(f"{message.queue_id}: postmaster delay notification: {second.queue_id}", said)

    def test_copy_fails(self) -> None:
        """
        The sender is not warned again because the postmaster's copy fails.
        """
        self.configure(WARN + "notify_classes = delay\n")
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        begin = self.intake.cleanup.begin
        left = [begin]

        def begin_once(client: None, treatment: Treatment) -> object:
            if not left:
                raise IntakeError(False, "4.3.1", "Error: insufficient system storage")
            return left.pop()(client)

        self.patch(self.intake.cleanup, "begin", begin_once)
        with capturedLogs() as events:
            self.assertEqual(len(self.defer(message, recipients)), 1)
        self.assertIn("postmaster notice failed", "".join(formatEvent(event) or "" for event in events))
        self.patch(self.intake.cleanup, "begin", begin)
        self.assertEqual(self.defer(self.again(message), recipients), [])

    def test_disk_full(self) -> None:
        """
        A warning that cannot be queued is sent at the next attempt.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.successResultOf(self.bounces.deferred(message, [late(each) for each in recipients]))
        self.intake.queue.capacity = 0
        self.failureResultOf(self.bounces.delayed(message), IntakeError)
        self.intake.queue.capacity = None
        self.assertEqual(len(self.defer(self.again(message), recipients)), 1)

    def test_not_remembered(self) -> None:
        """
        A warning that cannot be remembered is logged, and the sender hears again: better than never.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.successResultOf(self.bounces.deferred(message, [late(each) for each in recipients]))
        append = self.intake.queue.append_log
        self.intake.queue.append_log = lambda *_: fail(FULL)  # type: ignore[method-assign]
        with capturedLogs() as events:
            self.assertIsNotNone(self.successResultOf(self.bounces.delayed(message)))
        self.intake.queue.append_log = append  # type: ignore[method-assign]
        self.assertIn("may be notified again", "".join(formatEvent(event) or "" for event in events))
        self.stored()
        self.assertEqual(len(self.defer(self.again(message), recipients)), 1)

    def test_reconfigure(self) -> None:
        """
        A reload turns warnings on and off.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.bounces.reconfigure(config(""))
        self.assertEqual(self.defer(message, recipients), [])
        self.bounces.reconfigure(config("delay_warning_time = 90m\n"))
        (notice,) = self.defer(self.again(message), recipients)
        self.assertIn("more than 90 minutes", self.parse(notice)[1])

    def test_forget(self) -> None:
        """
        Nothing is left of a message that is gone.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, recipients)
        self.successResultOf(self.bounces.forget(message.queue_id))
        for kind in (LogKind.DEFER, LogKind.BOUNCE, LogKind.TRACE):
            self.assertEqual(self.successResultOf(self.intake.queue.read_log(kind, message.queue_id)), [])

    def test_duration(self) -> None:
        """
        Times are written in the unit that fits.
        """
        times = (0, 1, 90, 60, 5400, 3600, 86400, 432000, 1209600)
        self.assertEqual(
            ", ".join(duration(seconds) for seconds in times),
            "0 seconds, 1 second, 90 seconds, 1 minute, 90 minutes, 1 hour, 1 day, 5 days, 2 weeks",
        )


class Confirmations(DelayTestCase):
    """The sender who was warned is told that the message was delivered after all."""

    def setUp(self) -> None:
        self.configure(CONFIRM)
        self.assertTrue(self.bounces.confirms)

    def test_report(self) -> None:
        """
        What it says.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, recipients)
        with capturedLogs() as events:
            (notice,) = self.deliver(self.again(message), *recipients)
        self.assertEqual(notice.envelope.sender, b"")
        self.assertEqual(notice.recipients, [(b"s@ex.test", b"s@ex.test")])
        report, text, (about, block), original = self.parse(notice)
        self.assertEqual(report["Subject"], "Successful Mail Delivery Report")
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertIn("<bad@y.test>: delivery via mx[192.0.2.1]:25: 250 2.0.0 Ok", text)
        self.assertEqual(about["X-Postfix-Queue-ID"], message.queue_id)
        self.assertEqual(
            dict(block.items()),
            {
                "Final-Recipient": "rfc822; bad@y.test",
                "Original-Recipient": "rfc822; bad@y.test",
                "Action": "relayed",
                "Status": "2.0.0",
                "Remote-MTA": "dns; mx",
                "Diagnostic-Code": "smtp; 250 2.0.0 Ok",
            },
        )
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        self.assertEqual(original["Content-Description"], "Message Headers")
        said = [formatEvent(event) for event in events if event["log_namespace"] == "qmqpd_tx.bounce"]
        self.assertEqual(
            said, [f"{message.queue_id}: sender delivery status notification: {notice.queue_id}"]
        )

    def test_delivered_here(self) -> None:
        """
        What did not go to another host was delivered, not relayed.
        """
        message, (recipient,) = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, [recipient])
        outcome = Outcome(recipient, Action.SENT, "2.0.0", "delivered to mailbox", "local")
        message = self.again(message)
        self.successResultOf(self.bounces.delivered(message, [outcome]))
        self.successResultOf(self.bounces.notify(message))
        (notice,) = self.stored()
        _, text, (_, block), _ = self.parse(notice)
        self.assertIn("delivery via local: delivered to mailbox", text)
        self.assertEqual(block["Action"], "delivered")
        self.assertEqual(block["Diagnostic-Code"], "X-Postfix; delivered to mailbox")

    def test_not_by_default(self) -> None:
        """
        Without C{confirm_delay_cleared} nobody hears of it, and nothing is written.
        """
        self.configure(WARN)
        self.assertFalse(self.bounces.confirms)
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, recipients)
        self.intake.queue.append_log = lambda *_: fail(FULL)  # type: ignore[method-assign]
        self.assertEqual(self.deliver(self.again(message), *recipients), [])

    def test_needs_warnings(self) -> None:
        """
        C{confirm_delay_cleared} alone does nothing.
        """
        self.configure("confirm_delay_cleared = yes\n")
        self.assertFalse(self.bounces.confirms)

    def test_young(self) -> None:
        """
        A message that was never late costs neither a write nor a read of the trace log.
        """
        message, recipients = self.message()
        self.defer(message, recipients)
        asked: list[LogKind] = []

        def remember(kind: LogKind, queue_id: QueueID, *_: object) -> Deferred[list[bytes]]:
            asked.append(kind)
            return succeed([])

        self.intake.queue.read_log = remember  # type: ignore[method-assign]
        self.intake.queue.append_log = remember  # type: ignore[method-assign,assignment]
        self.assertEqual(self.deliver(self.again(message), *recipients), [])
        self.assertEqual(asked, [LogKind.BOUNCE])

    def test_not_warned(self) -> None:
        """
        Who was not warned needs no all-clear, however old the message.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.assertEqual(self.deliver(self.again(message), *recipients), [])

    def test_before_the_warning(self) -> None:
        """
        Whoever got it before the warning is not in the all-clear.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.intake.clock.advance(5 * HOUR)
        message = self.again(message)
        self.assertEqual(self.deliver(message, first), [])
        self.assertEqual(len(self.defer(message, [second])), 1)
        (notice,) = self.deliver(self.again(message), second)
        self.assertEqual(self.named(notice), ["b@y.test"])

    def test_one_after_the_other(self) -> None:
        """
        Each attempt that delivers something is confirmed, each recipient once; a restart changes nothing.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, [first, second])
        message = self.again(message)
        (notice,) = self.deliver(message, first)
        self.assertEqual(self.named(notice), ["a@y.test"])
        self.assertEqual(self.defer(message, [second]), [])
        self.restart(CONFIRM)
        message = self.again(message)
        (notice,) = self.deliver(message, second)
        self.assertEqual(self.named(notice), ["b@y.test"])
        self.successResultOf(self.bounces.notify(self.again(message)))
        self.assertEqual(self.stored(), [])

    def test_crash_before_the_notice(self) -> None:
        """
        What was delivered and not yet confirmed when the service died is confirmed later.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, [first, second])
        self.successResultOf(self.bounces.delivered(self.again(message), [sent(first)]))
        self.restart(CONFIRM)
        (notice,) = self.deliver(self.again(message), second)
        self.assertEqual(self.named(notice), ["a@y.test", "b@y.test"])

    def test_disk_full(self) -> None:
        """
        A notice that cannot be queued is a failure, and another try sends it.
        """
        message, recipients = self.message()
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, recipients)
        message = self.again(message)
        self.successResultOf(self.bounces.delivered(message, [sent(each) for each in recipients]))
        self.intake.queue.capacity = 0
        self.failureResultOf(self.bounces.notify(message), IntakeError)
        self.intake.queue.capacity = None
        self.successResultOf(self.bounces.notify(message))
        self.assertEqual(len(self.stored()), 1)

    def test_with_failures(self) -> None:
        """
        Failures and deliveries of one attempt are two notices; the first is the one that is returned.
        """
        message, (first, second) = self.message(recipients=[b"a@y.test", b"b@y.test"])
        self.intake.clock.advance(5 * HOUR)
        self.defer(message, [first, second])
        message = self.again(message)
        self.successResultOf(self.bounces.delivered(message, [sent(first)]))
        self.successResultOf(self.bounces.bounced(message, [failure(second)]))
        returned = self.successResultOf(self.bounces.notify(message))
        failed, delivered = self.stored()
        self.assertEqual(returned, failed.queue_id)
        self.assertEqual(self.named(failed), ["b@y.test"])
        self.assertEqual(self.named(delivered), ["a@y.test"])


class VerpNotices(DelayTestCase):
    """One notice for each recipient, of which some cannot be queued."""

    def test_not_repeated(self) -> None:
        """
        The next try is about those whose notices could not be queued; and so it is after a restart.
        """
        addresses = [b"a@y.test", b"b@y.test", b"c@y.test"]
        message, recipients = self.message(CONTENT, b"l@x.test", addresses, b"-=")
        self.successResultOf(self.bounces.bounced(message, [failure(each) for each in recipients]))
        begin = self.intake.cleanup.begin
        left = [begin, begin]

        def begin_twice(client: None, treatment: Treatment) -> object:
            if not left:
                raise IntakeError(False, "4.3.1", "Error: insufficient system storage")
            return left.pop()(client, treatment=treatment)

        self.patch(self.intake.cleanup, "begin", begin_twice)
        self.failureResultOf(self.bounces.notify(message), IntakeError)
        told = [notice.recipients[0][0] for notice in self.stored()]
        self.assertEqual(told, [b"l-a=y.test@x.test", b"l-b=y.test@x.test"])
        self.patch(self.intake.cleanup, "begin", begin)
        self.restart("")
        self.assertIsNotNone(self.successResultOf(self.bounces.notify(self.again(message))))
        self.assertEqual([notice.recipients[0][0] for notice in self.stored()], [b"l-c=y.test@x.test"])
