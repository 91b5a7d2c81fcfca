"""
What filters decide, and what the client and the log are told.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import IntakeError
from tests.interop.scripted_milter import Script, quarantine, reply_code
from tests.milter.memory import Lab, log_lines

STAGES = {
    "connect": "CONNECT",
    "helo": "EHLO",
    "mail": "MAIL",
    "data": "DATA",
    "header": "END-OF-MESSAGE",
    "eoh": "END-OF-MESSAGE",
    "body": "END-OF-MESSAGE",
    "eom": "END-OF-MESSAGE",
}
"""What the log calls events."""

FROM = "from=<s@example.com>"
KNOWN = FROM + " to=<two@example.org> proto=QMQP"


class DecideTests(SynchronousTestCase):
    """Decisions at each event."""

    def setUp(self) -> None:
        self.lines = log_lines(self)

    def refused(self, script: Script, **named: object) -> IntakeError:
        """
        @return: what the client is told.
        """
        lab = Lab([script])
        error = self.assertRaises(IntakeError, lab.send, **named)
        assert isinstance(error, IntakeError)
        self.assertEqual(lab.queued(), [])
        return error

    def test_reject(self) -> None:
        """A rejection is permanent, and logged with the event."""
        for event, stage in STAGES.items():
            self.lines.clear()
            error = self.refused(Script(replies={event: [b"r"]}))
            self.assertEqual(
                (error.permanent, error.dsn, error.text), (True, "5.7.1", "Error: 5.7.1 Command rejected")
            )
            known = FROM if event in ("connect", "helo", "mail") else KNOWN
            self.assertIn(
                f"milter-reject: {stage} from localhost[127.0.0.1]: 5.7.1 Command rejected; {known}",
                "\n".join(self.lines),
            )

    def test_tempfail(self) -> None:
        """A temporary failure is temporary."""
        for event in STAGES:
            error = self.refused(Script(replies={event: [b"t"]}))
            self.assertEqual(
                (error.permanent, error.dsn, error.text),
                (False, "4.7.1", "Error: 4.7.1 Service unavailable - try again later"),
            )

    def test_reply_code(self) -> None:
        """A filter's own reply is passed on."""
        for code, permanent, dsn, text in (
            (b"550 5.7.2 My text", True, "5.7.2", "Error: 5.7.2 My text"),
            (b"451 4.7.5 Later", False, "4.7.5", "Error: 4.7.5 Later"),
            (b"550 text only", True, "5.7.1", "Error: text only"),
            (b"421 4.3.2 bye", False, "4.3.2", "Error: 4.3.2 bye"),
            (b"599 5.99.99 %s x%%", True, "5.99.99", "Error: 5.99.99 s x%"),
            (b"550-5.7.1 a\r\n550 b\xff\x01", True, "5.7.1", "Error: 5.7.1 a??550 b??"),
        ):
            error = self.refused(Script(replies={"eom": [reply_code(code)]}))
            self.assertEqual((error.permanent, error.dsn, error.text), (permanent, dsn, text))

    def test_bad_reply_code(self) -> None:
        """A reply that is no refusal is a mistake in the filter."""
        for code in (b"250 ok", b"5", b"550 4.1.1 mismatch", b""):
            self.lines.clear()
            error = self.refused(Script(replies={"mail": [reply_code(code)]}))
            self.assertFalse(error.permanent)
            self.assertEqual(error.text, "Error: 4.3.5 Server configuration problem - try again later")
            self.assertIn("malformed reply: " + code.decode(), "\n".join(self.lines))

    def test_recipients_cannot_be_refused(self) -> None:
        """There is no way to tell the client of a single recipient, so this is a mistake in the set-up."""
        for reply in (b"r", b"t", reply_code(b"550 5.1.1 no")):
            self.lines.clear()
            error = self.refused(Script(replies={"rcpt:2": [reply]}))
            self.assertEqual(
                (error.permanent, error.text), (False, "Error: 4.3.5 Server configuration error")
            )
            logged = "\n".join(self.lines)
            self.assertIn("milter-reject: RCPT from localhost[127.0.0.1]: ", logged)
            self.assertIn("milter configuration error: can't reject recipient in non-smtpd(8)", logged)

    def test_discard(self) -> None:
        """A discarded message is accepted and is not in the queue."""
        for event in ("mail", "rcpt", "data", "header", "eoh", "body", "eom"):
            self.lines.clear()
            outcome = Lab([Script(replies={event: [b"d"]})]).send()
            self.assertIsNone(outcome.stored)
            self.assertIn("milter triggers DISCARD action", "\n".join(self.lines))

    def test_discard_of_a_client(self) -> None:
        """A client cannot be discarded: the message goes on."""
        for event in ("connect", "helo"):
            outcome = Lab([Script(replies={event: [b"d"]})]).send()
            self.assertIsNotNone(outcome.stored)
            self.assertEqual(outcome.events()[-1], "quit")
        self.assertIn("DISCARD action is not allowed for connect or helo", "\n".join(self.lines))

    def test_accept(self) -> None:
        """A filter that accepts hears no more of this message."""
        for event in ("mail", "rcpt:1", "data", "header:1", "eoh", "body", "eom"):
            outcome = Lab([Script(replies={event: [b"a"]})]).send()
            self.assertIsNotNone(outcome.stored)
            self.assertEqual(outcome.events()[-2:], [event.partition(":")[0], "quit"])
        for event in ("connect", "helo"):
            self.assertEqual(Lab([Script(replies={event: [b"a"]})]).send().events()[-1], event)

    def test_quarantine(self) -> None:
        """A message in quarantine is on hold, with the changes, whatever else the filter says."""
        for final in (b"c", b"a"):
            self.lines.clear()
            outcome = Lab([Script(replies={"eom": [quarantine(b"why"), final]})]).send()
            self.assertTrue(outcome.held)
            self.assertIn(
                "milter-hold: END-OF-MESSAGE from localhost[127.0.0.1]: "
                f"milter triggers HOLD action; {KNOWN}",
                "\n".join(self.lines),
            )

    def test_quarantine_and_worse(self) -> None:
        """A refusal or a discard counts more than quarantine."""
        self.refused(Script(replies={"eom": [quarantine(b"why"), b"r"]}))
        outcome = Lab([Script(replies={"eom": [quarantine(b"why"), b"d"]})]).send()
        self.assertIsNone(outcome.stored)

    def test_first_decision_counts(self) -> None:
        """The filters after the one that decides are not asked any more."""
        lab = Lab([Script(replies={"mail": [b"r"]}), Script()])
        self.assertRaises(IntakeError, lab.send)
        self.assertEqual(
            [event for event, _, _ in lab.sessions[1].events], ["negotiate", "connect", "helo", "quit"]
        )
        lab = Lab([Script(replies={"connect": [b"r"]}), Script()])
        self.assertRaises(IntakeError, lab.send)
        self.assertEqual(len(lab.sessions), 1)

    def test_shutdown_does_not_lose_mail(self) -> None:
        """A filter that wants the connection to be closed gets the message refused, for now."""
        error = self.refused(Script(replies={"mail": [b"4"]}))
        self.assertFalse(error.permanent)

    def test_own_mail(self) -> None:
        """Mail made here has no client in the log."""
        self.refused(Script(replies={"eom": [b"r"]}), client=None)
        self.assertIn(
            "milter-reject: END-OF-MESSAGE from local: 5.7.1 Command rejected;"
            " from=<s@example.com> to=<two@example.org>",
            self.lines[-1],
        )
