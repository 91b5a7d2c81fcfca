"""
What filters change about a message. Expectations were watched in a running Postfix.
"""

from __future__ import annotations

from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.interfaces import IntakeError, TableError
from qmqpd_tx.message import CONTENT_FILTER, Envelope
from tests.interop.scripted_milter import (
    Act,
    Script,
    Step,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_recipient,
    insert_header,
    quarantine,
    replace_body,
)
from tests.milter.memory import CONTENT, TOP, Lab, Outcome, log_lines


def changed(*steps: Step, protocol: int = 0, final: bytes = b"c", content: bytes = CONTENT) -> Outcome:
    """
    @return: what becomes of a message with these changes.
    """
    return Lab([Script(replies={"eom": [*steps, final]}, protocol=protocol)]).send(content)


def names(outcome: Outcome) -> list[bytes]:
    """
    @return: the names of the headers.
    """
    section = outcome.content.partition(b"\n\n")[0]
    return [line.partition(b":")[0] for line in section.split(b"\n") if line[:1] not in b" \t"]


class HeaderTests(SynchronousTestCase):
    """Headers."""

    def stored(self, *steps: Step, protocol: int = 0) -> bytes:
        """
        @return: the header section without our own header.
        """
        section = changed(*steps, protocol=protocol).content.partition(b"\n\n")[0] + b"\n"
        self.assertIn(TOP, section)
        return section.replace(TOP, b"")

    def test_add(self) -> None:
        """New headers go to the end; a space comes before the value."""
        self.assertEqual(
            self.stored(add_header(b"X-1", b"v"), add_header(b"X-2", b" v"), add_header(b"X-3", b"")),
            b"Subject: hello\nX-A: 1\nX-B: b\nX-A: 2\nX-1: v\nX-2:  v\nX-3: \n",
        )

    def test_leading_space(self) -> None:
        """A filter that gives the white space itself gets no more."""
        found = self.stored(
            add_header(b"X-1", b"v"),
            add_header(b"X-2", b" v"),
            insert_header(1, b"X-3", b"v"),
            change_header(1, b"X-B", b"new"),
            protocol=0x100000,
        )
        self.assertEqual(found, b"X-3:v\nSubject: hello\nX-A: 1\nX-B:new\nX-A: 2\nX-1:v\nX-2: v\n")

    def test_folded(self) -> None:
        """Lines of a value become continuation lines."""
        self.assertEqual(
            self.stored(
                add_header(b"X-1", b"a\n\tb"),
                add_header(b"X-2", b"a\r\n b\r\n"),
                add_header(b"X-3", b"a\nInjected: yes\n\nbody"),
                add_header(b"X-4", b"\n v"),
            ).partition(b"X-1")[2],
            b": a\n\tb\nX-2: a\n b\nX-3: a\n\tInjected: yes\n\tbody\nX-4: \n v\n",
        )

    def test_bad_names(self) -> None:
        """What is no header name is not stored, and logged."""
        lines = log_lines(self)
        for name in (b"X A", b"X:A", b"", b"X\nY", b"X-\xc3\xa9"):
            self.assertEqual(changed(add_header(name, b"v")).content, changed().content)
        self.assertIn("ignoring a header with the bad name X A", "\n".join(lines))

    def test_insert(self) -> None:
        """The position counts our own header, too; beyond the end is the end."""
        for index, place in ((0, 0), (1, 1), (2, 2), (3, 3), (100, 5)):
            expected = [b"Received", b"Subject", b"X-A", b"X-B", b"X-A"]
            expected.insert(place, b"X-I")
            self.assertEqual(names(changed(insert_header(index, b"X-I", b"v"))), expected)

    def test_insert_several(self) -> None:
        """Each position is that of the moment."""
        found = changed(
            *(insert_header(index, b"X-%d" % number, b"v") for number, index in enumerate((0, 0, 1, 2)))
        )
        self.assertEqual(names(found)[:5], [b"X-1", b"X-2", b"X-3", b"X-0", b"Received"])

    def test_change(self) -> None:
        """The how manieth of a name, in any case; 0 is the first; one that is not there is added."""
        self.assertEqual(
            self.stored(
                change_header(2, b"x-a", b"two"),
                change_header(0, b"X-A", b"one"),
                change_header(3, b"X-A", b"three"),
                change_header(1, b"X-None", b"none"),
            ),
            b"Subject: hello\nx-a: one\nX-B: b\nx-a: two\nX-A: three\nX-None: none\n".replace(
                b"x-a: one", b"X-A: one"
            ),
        )

    def test_delete(self) -> None:
        """An empty value removes the header; the others move up."""
        self.assertEqual(
            self.stored(
                change_header(1, b"X-A", b""),
                change_header(1, b"X-A", b"new"),
                change_header(1, b"X-None", b""),
            ),
            b"Subject: hello\nX-B: b\nX-A: new\n",
        )

    def test_own_header(self) -> None:
        """Our own Received header cannot be changed."""
        self.assertEqual(
            self.stored(change_header(1, b"Received", b"")), CONTENT.partition(b"\n\n")[0] + b"\n"
        )
        outcome = changed(change_header(1, b"Received", b"x"), content=b"Received: from a\nX: y\n\nb\n")
        self.assertEqual(outcome.content, TOP + b"Received: x\nX: y\n\nb\n")

    def test_eight_bit(self) -> None:
        """A header with bytes above 127 makes the message an 8-bit one."""
        outcome = changed(add_header(b"X-8", b"\xc3\xa9"))
        assert outcome.stored is not None
        self.assertTrue(outcome.stored.envelope.eight_bit)
        outcome = changed(add_header(b"X-8", b"e"))
        assert outcome.stored is not None
        self.assertFalse(outcome.stored.envelope.eight_bit)


class CheckTests(SynchronousTestCase):
    """milter_header_checks."""

    def lab(self, *steps: Step) -> Lab:
        """
        @return: one with a check that follows the header's value.
        """
        verdict = Verdict()

        def check(header: bytes) -> bytes | None:
            value = header.partition(b": ")[2]
            self.seen.append(header)
            if value == b"replace":
                return b"X-Other: new"
            if value == b"hold":
                verdict.hold = True
            if value == b"discard":
                verdict.discard = True
            if value == b"reject":
                verdict.reject(IntakeError(True, "5.7.1", "Error: 5.7.1 no"))
            if value == b"redirect":
                verdict.redirect = b"other@example.org"
            if value == b"filter":
                verdict.content_filter = b"smtp:there"
            if value == b"bcc":
                verdict.bcc[b"list@example.org"] = None
            return None if value == b"drop" else header

        self.seen: list[bytes] = []
        return Lab([Script(replies={"eom": [*steps, b"c"]})], check=check, verdict=verdict)

    def test_seen(self) -> None:
        """Headers that are added, inserted or changed are checked; those that are removed are not."""
        self.lab(
            add_header(b"X-1", b"v\r\n w"),
            insert_header(0, b"X-2", b"v"),
            change_header(1, b"X-B", b"v"),
            change_header(1, b"X-A", b""),
        ).send()
        self.assertEqual(self.seen, [b"X-1: v\n w", b"X-2: v", b"X-B: v"])

    def test_edits(self) -> None:
        """A header may be replaced, or not be stored; a change that is not stored leaves what was there."""
        outcome = self.lab(
            add_header(b"X-1", b"replace"),
            add_header(b"X-2", b"drop"),
            change_header(1, b"X-B", b"drop"),
            change_header(1, b"Subject", b"replace"),
        ).send()
        self.assertEqual(
            outcome.content, TOP + b"X-Other: new\nX-A: 1\nX-B: b\nX-A: 2\nX-Other: new\n\nbody\nline 2\n"
        )

    def test_decisions(self) -> None:
        """What a check decides is done."""
        self.assertTrue(self.lab(add_header(b"X", b"hold")).send().held)
        self.assertIsNone(self.lab(add_header(b"X", b"discard")).send().stored)
        error = self.assertRaises(IntakeError, self.lab(add_header(b"X", b"reject")).send)
        assert isinstance(error, IntakeError)
        self.assertEqual(error.text, "Error: 5.7.1 no")
        stored = self.lab(add_header(b"X", b"redirect")).send().stored
        assert stored is not None
        self.assertEqual(stored.recipients, [(b"other@example.org", b"other@example.org")])
        stored = self.lab(add_header(b"X", b"filter")).send().stored
        assert stored is not None
        self.assertEqual(stored.envelope.attributes, {CONTENT_FILTER: b"smtp:there"})
        stored = self.lab(add_header(b"X", b"bcc")).send().stored
        assert stored is not None
        self.assertEqual(
            [address for address, _ in stored.recipients][2:], [b"m1@example.org", b"m2@example.org"]
        )


class BodyTests(SynchronousTestCase):
    """The body."""

    def body(self, *steps: Step, content: bytes = CONTENT) -> bytes:
        """
        @return: the body that is stored.
        """
        _, gap, body = changed(*steps, content=content).content.partition(b"\n\n")
        self.assertTrue(gap)
        return body

    def test_replace(self) -> None:
        """Pieces make up the new body; every kind of line end becomes ours; the last line gets one."""
        self.assertEqual(
            self.body(replace_body(b"new\r\n"), replace_body(b"body\nx\ry\r\n")), b"new\nbody\nx\ny\n"
        )
        self.assertEqual(
            self.body(replace_body(b"new bo"), replace_body(b"dy\r"), replace_body(b"\nlast")),
            b"new body\nlast\n",
        )
        self.assertEqual(self.body(replace_body(b"")), b"")
        self.assertEqual(self.body(replace_body(b"a\r\n\r\nb\r\n")), b"a\n\nb\n")

    def test_no_body_before(self) -> None:
        """A message without a body gets one."""
        self.assertEqual(self.body(replace_body(b"new\r\n"), content=b"Subject: x\n"), b"new\n")

    def test_not_mixed(self) -> None:
        """Pieces of a body come one after the other, or the filter is at fault."""
        for between in (add_header(b"X", b"v"), quarantine(b"x"), add_recipient(b"<a@b>")):
            lab = Lab(
                [Script(replies={"eom": [replace_body(b"a\r\n"), between, replace_body(b"b\r\n"), b"c"]})]
            )
            error = self.assertRaises(IntakeError, lab.send)
            assert isinstance(error, IntakeError)
            self.assertEqual(error.text, "Error: 4.3.5 Server configuration problem - try again later")
        self.assertEqual(
            self.body(add_header(b"X", b"v"), replace_body(b"a"), b"p", replace_body(b"b")), b"ab\n"
        )

    def test_size_limit(self) -> None:
        """A body cannot become longer than message_size_limit."""
        lab = Lab(
            [Script(replies={"eom": [*[replace_body(b"x" * 5000)] * 5, b"c"]})],
            "message_size_limit = 20000\nmilter_packet_size_limit = 65536\n",
        )
        error = self.assertRaises(IntakeError, lab.send)
        assert isinstance(error, IntakeError)
        self.assertTrue(error.permanent)
        self.assertEqual(error.text, "Error: 5.3.4 message too large")

    def test_half_a_body(self) -> None:
        """When a filter fails in the middle of a body, the message keeps the one it had."""
        lab = Lab(
            [Script(replies={"eom": [replace_body(b"half"), Act.CLOSE]})], options="default_action=accept"
        )
        self.assertEqual(lab.send().content, TOP + CONTENT)

    def test_quarantined(self) -> None:
        """A message in quarantine has the changes."""
        outcome = changed(replace_body(b"new"), add_header(b"X", b"v"), quarantine(b"x"))
        self.assertTrue(outcome.held)
        self.assertTrue(outcome.content.endswith(b"X: v\n\nnew\n"))


class EnvelopeTests(SynchronousTestCase):
    """Sender and recipients."""

    def sender(self, *steps: Step) -> bytes:
        """
        @return: the sender that is stored.
        """
        stored = changed(*steps).stored
        assert stored is not None
        return stored.envelope.sender

    def recipients(self, *steps: Step) -> list[bytes]:
        """
        @return: the recipients that are stored.
        """
        stored = changed(*steps).stored
        assert stored is not None
        return [address for address, _ in stored.recipients]

    def test_sender(self) -> None:
        """The sender is made complete; forms are forgiving."""
        for given, expected in (
            (b"<new@example.com>", b"new@example.com"),
            (b"new@example.com", b"new@example.com"),
            (b"<new>", b"new@relay.test"),
            (b'<"a b"@example.com>', b"a b@example.com"),
            (b"<>", b""),
            (b"", b""),
            (b"Foo <a@b>, c@d", b"a@b"),
            (b"<a\r\nb@c>", b"s@example.com"),
        ):
            self.assertEqual(self.sender(change_sender(given)), expected, given)

    def test_arguments(self) -> None:
        """ESMTP arguments are logged and have no effect."""
        lines = log_lines(self)
        self.assertEqual(self.sender(change_sender(b"<new@x>", b"SIZE=3")), b"new@x")
        self.assertIn('ignoring ESMTP argument from Milter inet:127.0.0.1:1001: "SIZE=3"', lines[0])

    def test_add(self) -> None:
        """New recipients are expanded, and come last; one that is there already is not added again."""
        self.assertEqual(
            self.recipients(
                add_recipient(b"<new@example.org>"),
                add_recipient(b"bare"),
                add_recipient(b"<list@example.org>", b"NOTIFY=NEVER"),
                add_recipient(b"<one@example.org>"),
                add_recipient(b"<>"),
                add_recipient(b"<\x01@x>"),
            ),
            [
                b"one@example.org",
                b"two@example.org",
                b"new@example.org",
                b"bare@relay.test",
                b"m1@example.org",
                b"m2@example.org",
            ],
        )

    def test_delete(self) -> None:
        """Recipients that filters do not want are not stored, also those that they have added."""
        self.assertEqual(
            self.recipients(
                delete_recipient(b"<one@example.org>"),
                delete_recipient(b"<none@example.org>"),
                add_recipient(b"<new@example.org>"),
                delete_recipient(b"new@example.org"),
            ),
            [b"two@example.org"],
        )
        self.assertEqual(
            self.recipients(delete_recipient(b"<one@example.org>"), add_recipient(b"<one@example.org>")),
            [b"two@example.org", b"one@example.org"],
        )

    def test_delete_expanded(self) -> None:
        """An address that was expanded goes as a whole, by its original form or by that which filters saw."""
        for address in (b"<Boss>", b"boss@example.org"):
            lab = Lab([Script(replies={"eom": [delete_recipient(address), b"c"]})])
            stage = lab.stage()
            stage.write(CONTENT)
            stage.envelope(Envelope(b"s@example.com", 1.0), TOP)
            stage.announce(b"boss@example.org")
            stage.recipient(b"m1@example.org", b"Boss")
            stage.recipient(b"m2@example.org", b"Boss")
            stage.announce(b"x@example.org")
            stage.recipient(b"x@example.org", b"x@example.org")
            stored = lab.outcome(stage.commit()).stored
            assert stored is not None
            self.assertEqual(stored.recipients, [(b"x@example.org", b"x@example.org")])

    def test_nobody_left(self) -> None:
        """A message that has lost all recipients is accepted and is not in the queue."""
        outcome = changed(delete_recipient(b"<one@example.org>"), delete_recipient(b"<two@example.org>"))
        self.assertIsNone(outcome.stored)

    def test_table_away(self) -> None:
        """When a new recipient cannot be looked up, the client is to try again."""
        lab = Lab(
            [Script(replies={"eom": [add_recipient(b"<a@b>"), b"c"]})],
            expand=lambda address: fail(TableError("tcp:x: away")),
        )
        error = self.assertRaises(IntakeError, lab.send)
        assert isinstance(error, IntakeError)
        self.assertFalse(error.permanent)
        self.assertEqual(lab.queued(), [])
