"""
Accepting and refusing: the envelope, limits, replies, log lines, and what the queue manager hears.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from qmqpd_tx.cleanup import Cleanup, MailDate
from qmqpd_tx.interfaces import (
    ICleanup,
    IIncomingMessage,
    IMessageWriter,
    IntakeError,
    SpoolError,
)
from qmqpd_tx.message import ClientInfo, Envelope, Queue, QueueID
from tests.cleanup.cases import COMPLETE
from tests.cleanup.support import CLIENT, NOW, Intake, config

CONTENT = COMPLETE + b"\nb\n"


class Accepting(SynchronousTestCase):
    """Good messages."""

    def setUp(self) -> None:
        self.intake = Intake()

    def test_interfaces(self) -> None:
        """
        The service and its messages provide what they say.
        """
        verifyObject(ICleanup, self.intake.cleanup)
        verifyObject(IIncomingMessage, self.intake.cleanup.begin(None))

    def test_received_one_recipient(self) -> None:
        """
        The single recipient is named as the client sent it.
        """
        stored = self.intake.store(CONTENT, recipients=[b"bob"])
        self.assertEqual(
            stored.content,
            b"Received: from localhost (localhost [127.0.0.1])\n"
            b"\tby relay.test (Postfix) with QMQP id %s\n"
            b"\tfor <bob>; Sun, 22 Nov 2026 05:00:52 +0000 (UTC)\n" % stored.queue_id.encode() + CONTENT,
        )
        self.assertEqual(stored.recipients, [(b"bob@relay.test", b"bob")])

    def test_received_many_recipients(self) -> None:
        """
        No recipient is named, even if they turn out to be the same.
        """
        stored = self.intake.store(CONTENT, recipients=[b"a@x.test", b"A@x.test"])
        expected = (
            b"Received: from localhost (localhost [127.0.0.1])\n"
            b"\tby relay.test (Postfix) with QMQP\n"
            b"\tid %s; Sun, 22 Nov 2026 05:00:52 +0000 (UTC)\n" % stored.queue_id.encode()
        )
        self.assertEqual(stored.content, expected + CONTENT)
        self.assertEqual(stored.recipients, [(b"a@x.test", b"a@x.test")])

    def test_received_made_here(self) -> None:
        """
        Mail without a client.
        """
        stored = self.intake.store(CONTENT, client=None)
        expected = b"Received: by relay.test (Postfix)\n\tid %s; Sun, 22 Nov 2026 05:00:52 +0000 (UTC)\n"
        self.assertEqual(stored.content, expected % stored.queue_id.encode() + CONTENT)

    def test_received_ipv6(self) -> None:
        """
        An IPv6 client.
        """
        stored = self.intake.store(CONTENT, client=ClientInfo("2001:db8::1"))
        self.assertIn(b"from unknown (unknown [IPv6:2001:db8::1])\n", stored.content)

    def test_envelope(self) -> None:
        """
        Sender, times, client and 8-bit mark are kept.
        """
        stored = self.intake.store(CONTENT + b"\xe9\n", sender=b"joe")
        self.assertEqual(
            stored.envelope,
            Envelope(b"joe@relay.test", NOW, CLIENT, b"<m@x>", eight_bit=True),
        )
        self.assertFalse(self.intake.store(CONTENT).envelope.eight_bit)

    def test_verp(self) -> None:
        """
        VERP delimiters may come at the start or with the sender.
        """
        incoming = self.intake.cleanup.begin(CLIENT, b"-=")
        incoming.sender(b"l@x.test")
        incoming.recipient(b"r@x.test")
        incoming.finish()
        incoming = self.intake.cleanup.begin(CLIENT)
        incoming.sender(b"l@x.test", b"+=")
        incoming.recipient(b"r@x.test")
        incoming.finish()
        delimiters = [stored.envelope.verp_delimiters for stored in self.intake.arrivals.stored]
        self.assertEqual(delimiters, [b"-=", b"+="])

    def test_mailer_daemon_is_the_null_sender(self) -> None:
        """
        Under its bare name and at our own origin.
        """
        for address in (b"MAILER-DAEMON", b"mailer-daemon@relay.test"):
            self.assertEqual(self.intake.store(CONTENT, sender=address).envelope.sender, b"")
        address = b"MAILER-DAEMON@x.test"
        self.assertEqual(self.intake.store(CONTENT, sender=address).envelope.sender, address)

    def test_empty_recipient(self) -> None:
        """
        C{empty_address_recipient} gets its mail.
        """
        stored = self.intake.store(CONTENT, recipients=[b""])
        self.assertEqual(stored.recipients, [(b"MAILER-DAEMON@relay.test", b"")])

    def test_duplicate_limit(self) -> None:
        """
        The duplicate filter forgets nothing below its limit and takes no more memory above it.
        """
        recipients = [b"r%d@x.test" % (number % 5) for number in range(20)]
        self.assertEqual(len(self.intake.store(CONTENT, recipients=recipients).recipients), 5)
        small = Intake("duplicate_filter_limit = 2\n")
        self.assertEqual(len(small.store(CONTENT, recipients=recipients).recipients), 2 + 3 * 4)

    def test_log(self) -> None:
        """
        Postfix's line, and the id of a message that had none.
        """
        with capturedLogs() as events:
            stored = self.intake.store(b"Subject: a\n\nb\n")
        ours = [event for event in events if event["log_namespace"] == "qmqpd_tx.cleanup"]
        expected = f"{stored.queue_id}: message-id=<20261122050052.{stored.queue_id}@relay.test>"
        self.assertEqual([formatEvent(event) for event in ours], [expected.replace("<", "b'<") + "'"])
        self.assertEqual(stored.envelope.message_id.decode(), expected.partition("=")[2])

    def test_answer_comes_before_the_queue_manager(self) -> None:
        """
        The queue id is given before the arrival is announced; without anybody to hear, it is closed.
        """
        order: list[str] = []
        self.intake.queue.hold = True
        finished = self.intake.send([CONTENT])
        finished.addCallback(lambda _: order.append("answered"))
        arrived = self.intake.arrivals.arrived
        self.intake.arrivals.arrived = lambda message: (order.append("arrived"), arrived(message))[1]  # type: ignore
        self.intake.queue.release()
        self.assertEqual(order, ["answered", "arrived"])

    def test_without_queue_manager(self) -> None:
        """
        A front end only stores.
        """
        self.intake.cleanup.arrivals = None
        queue_id = self.successResultOf(self.intake.send([CONTENT]))
        stored = self.successResultOf(self.intake.queue.open(queue_id, Queue.INCOMING))
        self.assertEqual(stored.queue_id, queue_id)
        stored.close()

    def test_reconfigure(self) -> None:
        """
        The next message follows the new configuration.
        """
        self.intake.cleanup.reconfigure(config("myorigin = other.test\n"))
        self.assertEqual(self.intake.store(CONTENT, sender=b"joe").envelope.sender, b"joe@other.test")


class Refusing(SynchronousTestCase):
    """Bad messages, and bad days."""

    def refused(self, finished: Deferred[QueueID]) -> tuple[bool, str, str]:
        """
        @return: what the client is told.
        """
        error = self.failureResultOf(finished, IntakeError).value
        return error.permanent, error.dsn, error.text

    def nothing_left(self, intake: Intake) -> None:
        """
        @raise FailTest: something is in the queue.
        """
        self.assertEqual(self.successResultOf(intake.queue.scan(Queue.INCOMING).next(10)), [])
        self.assertEqual(intake.arrivals.stored, [])

    def test_no_recipients(self) -> None:
        """
        Refused for good.
        """
        intake = Intake()
        refused = self.refused(intake.send([CONTENT], recipients=[]))
        self.assertEqual(refused, (True, "5.1.0", "Error: no recipients specified"))
        self.nothing_left(intake)

    def test_hopcount(self) -> None:
        """
        Our own Received header counts too; those in the body do not.
        """
        Intake("hopcount_limit = 5\n").store(b"Received: x\n" * 3 + COMPLETE + b"\n" + b"Received: x\n" * 9)
        intake = Intake("hopcount_limit = 5\n")
        with capturedLogs() as events:
            refused = self.refused(intake.send([b"Received: x\n" * 4 + CONTENT]))
        self.assertEqual(refused, (True, "5.4.6", "Error: too many hops"))
        self.assertTrue(formatEvent(events[0]).endswith(": message rejected: hopcount exceeded"))
        self.nothing_left(intake)

    def test_size(self) -> None:
        """
        The limit is for the whole queue file: a body, or many recipients.
        """
        intake = Intake("message_size_limit = 3000\n")
        refused = (True, "5.3.4", "Error: message too large")
        self.assertEqual(self.refused(intake.send([CONTENT, b"x" * 3000])), refused)
        recipients = [b"user%d@dest.test" % number for number in range(200)]
        self.assertEqual(self.refused(intake.send([CONTENT], recipients=recipients)), refused)
        self.nothing_left(intake)
        intake.store(CONTENT + b"x" * 2000)

    def test_size_without_limit(self) -> None:
        """
        Zero means any size, and notices are never too large.
        """
        Intake("message_size_limit = 0\n").store(CONTENT + b"x" * 20_000_000)
        Intake("message_size_limit = 3000\n").store(CONTENT + b"x" * 5000, client=None)

    def test_control_characters(self) -> None:
        """
        They do not get into an envelope.
        """
        for bad in (b"a\nb@x.test", b"a\rb@x.test", b"a\0b@x.test", b"a\x7fb@x.test"):
            intake = Intake()
            permanent, dsn, text = self.refused(intake.send([CONTENT], recipients=[b"ok@x.test", bad]))
            self.assertEqual((permanent, dsn), (True, "5.1.3"))
            self.assertTrue(text.isprintable() and "recipient" in text, text)
            permanent, dsn, text = self.refused(intake.send([CONTENT], sender=bad))
            self.assertEqual((permanent, dsn), (True, "5.1.7"))
            self.nothing_left(intake)

    def test_disk_full(self) -> None:
        """
        The client may try again; before and during a message.
        """
        full = (False, "4.3.1", "Error: insufficient system storage")
        intake = Intake(capacity=600)
        intake.queue.hold = True
        finished = intake.send([CONTENT + b"x" * 1000])
        intake.queue.release()
        self.assertEqual(self.refused(finished), full)
        error = self.assertRaises(IntakeError, Intake(capacity=0).cleanup.begin, CLIENT)
        self.assertEqual((error.permanent, error.dsn, error.text), full)

    def test_abandoned(self) -> None:
        """
        An abort during the commit is answered at once, and nothing appears later.
        """
        intake = Intake()
        intake.queue.hold = True
        incoming = intake.cleanup.begin(CLIENT)
        incoming.content(CONTENT)
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        finished = incoming.finish()
        self.assertNoResult(finished)
        incoming.abort()
        permanent, _, _ = self.refused(finished)
        self.assertFalse(permanent)
        incoming.abort()
        intake.queue.release()
        self.nothing_left(intake)

    def test_abort_after_success(self) -> None:
        """
        What was accepted stays accepted.
        """
        intake = Intake()
        incoming = intake.cleanup.begin(CLIENT)
        incoming.content(CONTENT)
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        queue_id = self.successResultOf(incoming.finish())
        incoming.abort()
        entries = self.successResultOf(intake.queue.scan(Queue.INCOMING).next(10))
        self.assertEqual([entry.queue_id for entry in entries], [queue_id])

    def test_input_after_an_error(self) -> None:
        """
        It is swallowed, and the first error stays.
        """
        intake = Intake("hopcount_limit = 1\n")
        incoming = intake.cleanup.begin(CLIENT)
        incoming.content(CONTENT)
        self.assertIsNone(incoming.content(b"more"))
        incoming.sender(b"a\nb")
        self.assertIsNone(incoming.recipient(b"a\nb"))
        self.assertEqual(self.refused(incoming.finish())[2], "Error: too many hops")


@implementer(IMessageWriter)
class SlowWriter:
    """A writer whose disk takes its time, or fails."""

    def __init__(self) -> None:
        self.queue_id = QueueID("ABC")
        self.size = 0
        self.waiting: Deferred[None] = Deferred()
        self.aborted = False

    def write(self, data: bytes) -> Deferred[None]:
        """See L{IMessageWriter.write}."""
        return self.waiting

    def envelope(self, envelope: Envelope, top: bytes) -> None:
        """See L{IMessageWriter.envelope}."""

    def recipient(self, address: bytes, original: bytes, silent: bool = False) -> Deferred[None]:
        """See L{IMessageWriter.recipient}."""
        return self.waiting

    def commit(self) -> Deferred[None]:
        """See L{IMessageWriter.commit}."""
        failed: Deferred[None] = Deferred()
        failed.errback(SpoolError("ABC: write: input/output error"))
        return failed

    def abort(self) -> None:
        """See L{IMessageWriter.abort}."""
        self.aborted = True


class SlowQueue:
    """Gives one writer."""

    def __init__(self) -> None:
        self.writer = SlowWriter()

    def create(self, arrival_time: float) -> SlowWriter:
        """See L{IMailQueue.create}."""
        return self.writer


class BackPressure(SynchronousTestCase):
    """A disk that cannot keep up."""

    def setUp(self) -> None:
        self.queue = SlowQueue()
        self.cleanup = Cleanup(config=config(), clock=Intake().clock, queue=self.queue)  # type: ignore[arg-type]

    def test_producer_waits(self) -> None:
        """
        Content and recipients wait for the writer.
        """
        incoming = self.cleanup.begin(CLIENT)
        waiting = incoming.content(CONTENT)
        assert waiting is not None
        self.assertNoResult(waiting)
        self.queue.writer.waiting.callback(None)
        self.successResultOf(waiting)

    def test_write_error(self) -> None:
        """
        A failed write lets the producer go on, and refuses the message for now.
        """
        incoming = self.cleanup.begin(CLIENT)
        waiting = incoming.content(CONTENT)
        assert waiting is not None
        self.queue.writer.waiting.errback(SpoolError("ABC: write: input/output error"))
        self.successResultOf(waiting)
        self.assertTrue(self.queue.writer.aborted)
        self.assertIsNone(incoming.content(b"more"))
        error = self.failureResultOf(incoming.finish(), IntakeError).value
        self.assertEqual((error.permanent, error.text), (False, "Error: queue file write error"))

    def test_commit_error(self) -> None:
        """
        A failed commit is temporary, and logged with its reason.
        """
        self.queue.writer.waiting.callback(None)
        incoming = self.cleanup.begin(CLIENT)
        incoming.sender(b"s@x.test")
        incoming.recipient(b"r@x.test")
        with capturedLogs() as events:
            error = self.failureResultOf(incoming.finish(), IntakeError).value
        self.assertEqual((error.permanent, error.dsn), (False, "4.3.0"))
        self.assertIn("input/output error", formatEvent(events[-1]))


class Dates(SynchronousTestCase):
    """Dates in mail."""

    def test_offsets(self) -> None:
        """
        East, west, and with a fraction of an hour.
        """
        east = MailDate(lambda _: 19800, lambda _: "IST")
        self.assertEqual(east.render(NOW), b"Sun, 22 Nov 2026 10:30:52 +0530 (IST)")
        self.assertEqual(east.stamp(NOW), b"20261122103052")
        west = MailDate(lambda _: -34200, lambda _: "")
        self.assertEqual(west.render(NOW), b"Sat, 21 Nov 2026 19:30:52 -0930")

    def test_daylight_saving(self) -> None:
        """
        The offset is that of the moment, not of the start-up.
        """
        date = MailDate(lambda seconds: 3600 if seconds < NOW else 7200, lambda _: "X")
        self.assertIn(b"+0100", date.render(NOW - 1))
        self.assertIn(b"+0200", date.render(NOW))

    def test_local(self) -> None:
        """
        By default, this machine's zone.
        """
        self.assertRegex(
            MailDate().render(NOW), rb"^[SM]\w\w, 2[123] Nov 2026 \d\d:\d\d:52 [+-]\d{4} \(.+\)$"
        )
