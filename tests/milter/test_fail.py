"""
Filters that fail: milter_default_action, time limits, and limits of what is taken from them.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from qmqpd_tx.cleanup.milters import Milters
from qmqpd_tx.interfaces import CommitAbandoned, IntakeError
from qmqpd_tx.message import Envelope
from qmqpd_tx.milter.connection import MilterConnection
from qmqpd_tx.milter.protocol import MilterError
from tests.cleanup.support import config
from tests.interop.scripted_milter import (
    Act,
    Raw,
    Script,
    Step,
    add_header,
    add_recipient,
    change_header,
    replace_body,
)
from tests.milter.memory import CONTENT, TOP, Lab, Refused, log_lines

UNAVAILABLE = "Error: 4.7.1 Service unavailable - try again later"


class DefaultActionTests(SynchronousTestCase):
    """What becomes of mail."""

    def test_tempfail(self) -> None:
        """By default the client is to try again."""
        for event in ("negotiate", "connect", "helo", "mail", "data", "header", "eoh", "body", "eom"):
            lab = Lab([Script(replies={event: [Act.CLOSE]})])
            error = self.assertRaises(IntakeError, lab.send)
            assert isinstance(error, IntakeError)
            self.assertEqual((error.permanent, error.text), (False, UNAVAILABLE))
            self.assertEqual(lab.queued(), [])

    def test_reject(self) -> None:
        """With reject it is not."""
        lab = Lab([Script(replies={"eom": [Act.CLOSE]})], "milter_default_action = reject\n")
        error = self.assertRaises(IntakeError, lab.send)
        assert isinstance(error, IntakeError)
        self.assertEqual(
            (error.permanent, error.dsn, error.text), (True, "5.5.0", "Error: 5.5.0 Service unavailable")
        )

    def test_accept(self) -> None:
        """With accept the mail is taken as if the filter was not there; other filters are asked."""
        for event in ("negotiate", "connect", "mail", "rcpt", "header", "body", "eom"):
            lab = Lab([Script(replies={event: [Act.CLOSE]}), Script()], "milter_default_action = accept\n")
            outcome = lab.send()
            self.assertEqual(outcome.content, TOP + CONTENT)
            self.assertFalse(outcome.held)
            self.assertEqual(outcome.events(1)[-2:], ["eom", "quit"])

    def test_quarantine(self) -> None:
        """With quarantine it is taken, and held."""
        lab = Lab([Script(replies={"body": [Act.CLOSE]})], "milter_default_action = quarantine\n")
        self.assertTrue(lab.send().held)

    def test_own_action(self) -> None:
        """A filter may have its own."""
        lab = Lab([Refused(), Script()], options="default_action=accept")
        self.assertEqual(lab.send().content, TOP + CONTENT)

    def test_refused(self) -> None:
        """A filter that is not there is named in the log."""
        lines = log_lines(self)
        lab = Lab([Refused()])
        error = self.assertRaises(IntakeError, lab.send)
        assert isinstance(error, IntakeError)
        self.assertEqual(error.text, UNAVAILABLE)
        self.assertIn("connect to Milter service inet:127.0.0.1:1001: Connection", lines[0])
        self.assertIn("milter-reject: CONNECT from localhost[127.0.0.1]: 4.7.1 Service", lines[1])

    def test_no_host_name(self) -> None:
        """What cannot be the name of a host is a filter that is not there, too."""
        lines = log_lines(self)
        for host in ("a..b", "x" * 64 + ".test"):
            lab = Lab([])
            lab.milters = Milters.from_config(
                config(f"non_smtpd_milters = {{ inet:{host}:99, default_action=accept }}\n"), lab.clock
            )
            self.assertEqual(lab.send().content, TOP + CONTENT)
            self.assertIn(f"connect to Milter service inet:{host}:99: invalid hostname: {host}", lines.pop())


@implementer(IHostnameResolver)
class SilentResolver:
    """Looks for ever."""

    def resolveHostName(self, receiver: IResolutionReceiver, *arguments: Any, **named: Any) -> Any:
        """See L{IHostnameResolver.resolveHostName}."""
        receiver.resolutionBegan(None)  # type: ignore[arg-type]


class TimeTests(SynchronousTestCase):
    """Time limits."""

    def test_name_is_not_found_out(self) -> None:
        """The time limit for connecting is also for looking up the name."""
        lines = log_lines(self)
        reactor: Any = MemoryReactorClock()  # type: ignore[no-untyped-call]
        # Twisted before 26.4 has no name resolver for its reactor of tests.
        alsoProvides(reactor, IReactorPluggableNameResolver)
        reactor.nameResolver = SilentResolver()
        lab = Lab([])
        lab.milters = Milters.from_config(
            config(
                "non_smtpd_milters = { inet:filter.test:99, connect_timeout=7s, default_action=accept }\n"
            ),
            reactor,
        )
        _, committed = lab.begin()
        reactor.advance(6)
        self.assertNoResult(committed)
        reactor.advance(1)
        self.assertEqual(lab.outcome(committed).content, TOP + CONTENT)
        self.assertIn("connect to Milter service inet:filter.test:99: Connection timed out", lines[0])
        self.assertEqual(reactor.getDelayedCalls(), [])

    def wait(self, event: str, limit: float, text: str = "") -> None:
        """
        A filter does not answer: the message waits as long as it may.
        """
        lab = Lab([Script(replies={event: [Act.HANG]})], text)
        _, committed = lab.begin()
        self.assertNoResult(committed)
        lab.clock.advance(limit - 0.01)
        self.assertNoResult(committed)
        lab.clock.advance(0.02)
        error = self.failureResultOf(committed, IntakeError).value
        self.assertFalse(error.permanent)
        self.assertEqual(lab.clock.getDelayedCalls(), [])
        self.assertEqual(lab.sessions[0].events[-1][0], "dropped")

    def test_limits(self) -> None:
        """For negotiating, for the envelope, and for the content."""
        text = "milter_connect_timeout = 3s\nmilter_command_timeout = 5s\nmilter_content_timeout = 7s\n"
        self.wait("negotiate", 3, text)
        for event in ("helo", "mail", "rcpt", "data"):
            self.wait(event, 5, text)
        for event in ("header", "eoh", "body", "eom"):
            self.wait(event, 7, text)

    def test_own_limits(self) -> None:
        """A filter may have its own."""
        lab = Lab([Script(replies={"mail": [Act.HANG]})], options="command_timeout=2m")
        _, committed = lab.begin()
        lab.clock.advance(119)
        self.assertNoResult(committed)
        lab.clock.advance(2)
        self.failureResultOf(committed, IntakeError)

    def test_progress(self) -> None:
        """A filter that says that it is still at work gets its time again."""
        lab = Lab([Script(replies={"eom": [b"p", Act.HANG]})])
        stage, committed = lab.begin()
        lab.clock.advance(299)
        self.assertNoResult(committed)
        self.assertEqual(len(lab.clock.getDelayedCalls()), 1)
        stage.abort()
        self.failureResultOf(committed, CommitAbandoned)

    def test_no_timer_left(self) -> None:
        """When all is said, nothing is left to happen."""
        lab = Lab([Script(), Script()])
        lab.send()
        self.assertEqual(lab.clock.getDelayedCalls(), [])


class GarbageTests(SynchronousTestCase):
    """Answers that make no sense."""

    def fails(self, event: str, *steps: Step, text: str = "") -> str:
        """
        @return: what is logged when a filter fails with this.
        """
        lines = log_lines(self)
        lab = Lab([Script(replies={event: steps})], text)
        error = self.assertRaises(IntakeError, lab.send)
        assert isinstance(error, IntakeError)
        self.assertFalse(error.permanent)
        self.assertEqual(lab.queued(), [])
        logged = "\n".join(lines)
        self.assertIn("milter inet:127.0.0.1:1001: ", logged)
        return logged

    def test_packets(self) -> None:
        """Packets that are empty, too long, or no packets at all."""
        for data in (b"\0\0\0\0", b"\xff\xff\xff\xffc", b"HTTP/1.0 400 bad\r\n"):
            for event in ("negotiate", "mail", "eom"):
                self.assertIn("unreasonable packet length", self.fails(event, Raw(data)))

    def test_replies(self) -> None:
        """Replies that are unknown, cut short, too long, or not possible now."""
        for event, reply, reason in (
            ("mail", b"Z", "unexpected filter response (unknown filter reply)"),
            ("mail", b"f", "unexpected filter response SMFIR_CONN_FAIL"),
            ("header", add_header(b"X", b"v"), "unexpected filter response SMFIR_ADDHEADER"),
            ("mail", b"cxxx", "reply SMFIR_CONTINUE was followed by 3 data bytes"),
            ("eom", b"h", "packet too short for string"),
            ("eom", b"hX\0", "packet too short for string"),
            ("eom", b"hX-Abc", "missing string null terminator"),
            ("eom", b"hX\0v\0junk\0", "left-over data"),
            ("eom", b"m\0\0", "input packet too short for network long"),
            ("eom", b"+", "packet too short for string"),
        ):
            self.assertIn(reason, self.fails(event, reply))

    def test_negotiation(self) -> None:
        """Answers to the offer that cannot be."""
        for version, actions, steps, reason in (
            (7, 0, 0, "protocol version 7 conflict with MTA protocol version 6"),
            (1, 0, 0, "unexpected protocol version 1"),
            (6, 0xFFF, 0, "request mask 0xfff conflict with MTA request mask 0x1ff"),
            (6, 0, 0x200000, "event mask 0x200000 conflict with MTA event mask 0x1fffff"),
        ):
            reply = b"O" + struct.pack("!III", version, actions, steps)
            self.assertIn(reason, self.fails("negotiate", reply))
        self.assertIn("too short", self.fails("negotiate", b"O\0\0\0\6"))
        self.assertIn('unexpected reply "r"', self.fails("negotiate", b"r"))
        self.assertIn("terminator", self.fails("negotiate", b"O" + struct.pack("!IIII", 6, 0, 0, 1) + b"abc"))

    def test_reply_limit(self) -> None:
        """A filter cannot go on forever, with progress, recipients, or nothing."""
        text = "milter_reply_count_limit = 100\n"
        for reply in (b"p", replace_body(b"")):
            self.assertIn("more than 100 replies", self.fails("eom", *[reply] * 200, text=text))
        many = [add_recipient(b"<r%d@example.org>" % number) for number in range(200)]
        self.assertIn("more than 100 replies", self.fails("eom", *many, text=text))

    def test_replies_nobody_asked_for(self) -> None:
        """A filter that says more than it was asked is read on only when there is a question."""
        lab = Lab([Script(replies={"mail": [b"c"] * 30})])
        lab.send()
        self.assertNotIn("dropped", [event for event, _, _ in lab.sessions[0].events])


class LimitTests(SynchronousTestCase):
    """Messages that filters cannot be asked about."""

    CONTENT = b"A: " + b"x" * 5000 + b"\n\nbody\n"

    def test_long_header_section(self) -> None:
        """By the default action it is refused for good, held, or taken as it is."""
        text = "milter_header_section_limit = 4000\n"
        for chunk in (len(self.CONTENT), 100):
            for action in ("tempfail", "reject", "accept", "quarantine"):
                lab = Lab([Script()], text, f"default_action={action}")
                stage = lab.stage()
                for start in range(0, len(self.CONTENT), chunk):
                    stage.write(self.CONTENT[start : start + chunk])
                stage.envelope(Envelope(b"s@x", 1.0), TOP)
                stage.recipient(b"a@b", b"a@b")
                if action in ("tempfail", "reject"):
                    error = self.failureResultOf(stage.commit(), IntakeError).value
                    self.assertTrue(error.permanent)
                    self.assertEqual(error.dsn, "5.3.4")
                else:
                    outcome = lab.outcome(stage.commit())
                    self.assertEqual(outcome.content, TOP + self.CONTENT)
                    self.assertEqual(outcome.held, action == "quarantine")
                self.assertEqual(lab.sessions, [])

    def test_flood(self) -> None:
        """
        A filter that gives header after header, or recipient after recipient, has the message refused before
        that fills the memory.
        """
        headers = [add_header(b"X-%d" % number, b"v" * 900) for number in range(100)]
        recipients = [add_recipient(b"<r%d@example.org>" % number) for number in range(100)]
        changes = [change_header(1, b"Subject", b"v" * 900)] * 100
        text = "milter_header_section_limit = 4000\nmessage_size_limit = 2000\n"
        for steps, limited in ((headers, True), (recipients, True), (changes, False)):
            lab = Lab([Script(replies={"eom": [*steps, b"c"]})], text)
            if limited:
                error = self.assertRaises(IntakeError, lab.send)
                assert isinstance(error, IntakeError)
                self.assertEqual((error.permanent, error.dsn), (True, "5.3.4"))
                self.assertEqual(lab.queued(), [])
            else:
                lab.send()
            roomy = Lab([Script(replies={"eom": [*steps, b"c"]})])
            self.assertIsNotNone(roomy.send().stored)


class AbortTests(SynchronousTestCase):
    """Giving a message up."""

    def test_while_filters_are_asked(self) -> None:
        """The commit fails at once, the filter is left, and nothing is in the queue."""
        lab = Lab([Script(), Script(replies={"body": [Act.HANG]})])
        stage, committed = lab.begin()
        stage.abort()
        self.failureResultOf(committed, CommitAbandoned)
        self.assertEqual([session.events[-1][0] for session in lab.sessions], ["quit", "quit"])
        self.assertEqual(lab.queued(), [])
        self.assertEqual(lab.clock.getDelayedCalls(), [])
        stage.abort()

    def test_full(self) -> None:
        """A filter that does not take what it is sent is not waited for when the message is given up."""
        transport = StringTransport()
        connection = MilterConnection(Clock(), 1000)
        connection.makeConnection(transport)
        connection.pauseProducing()
        waiting = connection.send(b"body", 10)
        assert waiting is not None
        connection.close(b"quit")
        self.failureResultOf(waiting, MilterError)
        self.assertTrue(transport.disconnected)
        self.assertEqual(transport.value(), b"body")

    def test_before(self) -> None:
        """A message that was given up cannot be committed."""
        lab = Lab([Script()])
        stage = lab.stage()
        stage.write(CONTENT)
        stage.abort()
        self.assertIsNone(stage.write(b"more"))
        self.failureResultOf(stage.commit(), CommitAbandoned)
        self.assertEqual(lab.sessions, [])

    def test_while_committing(self) -> None:
        """Giving up reaches the real writer."""
        lab = Lab([Script()])
        lab.queue.hold = True
        stage, committed = lab.begin()
        self.assertNoResult(committed)
        stage.abort()
        self.failureResultOf(committed, CommitAbandoned)
        self.assertEqual(lab.queued(), [])

    def test_cancel(self) -> None:
        """Cancelling the commit gives the message up."""
        lab = Lab([Script(replies={"mail": [Act.HANG]})])
        _, committed = lab.begin()
        committed.cancel()
        self.failureResultOf(committed, CommitAbandoned)
        self.assertEqual(lab.clock.getDelayedCalls(), [])
