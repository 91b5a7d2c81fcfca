"""
What header and body checks do to a message, and what the log says. Watched in a running Postfix.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.checks import ContentChecks
from qmqpd_tx.cleanup.header_rules import HeaderRules, header_kinds
from qmqpd_tx.cleanup.headers import HeaderSection
from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.remarks import REMARKS_LIMIT
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, QueuedEntry
from qmqpd_tx.maillog.render import TextFormatter
from qmqpd_tx.message import Queue, QueueID
from tests.cleanup.cases import COMPLETE
from tests.cleanup.inspection import CLIENT, QUEUE_ID, WHERE, Inspected, Patterns, content_checks, inspect
from tests.cleanup.support import Intake

QMQP = f"{WHERE} proto=QMQP"


def header(action: str, headers: bytes = b"Subject: x\n", **tables: str) -> Inspected:
    """
    @param action: what header_checks gives for C{Subject}.
    @param headers: what comes before the body C{b}.
    """
    checks = content_checks({"header_checks": f"^Subject: = {action}", **tables})
    return inspect(checks, [COMPLETE + headers + b"\nb\n"])


def body(action: str, text: bytes = b"line\nfind\nlast\n") -> Inspected:
    """
    @param action: what body_checks gives for a line that begins with C{find}.
    """
    return inspect(content_checks({"body_checks": f"^find = {action}"}), [COMPLETE + b"\n" + text])


class Refusals(SynchronousTestCase):
    """REJECT."""

    def test_without_text(self) -> None:
        """
        A text of its own.
        """
        seen = header("REJECT")
        self.assertEqual(seen.reply, "DError: 5.7.1 message content rejected")
        self.assertEqual(seen.log, [f"reject: header Subject: x {QMQP}: 5.7.1 message content rejected"])

    def test_with_text(self) -> None:
        """
        The text of the table.
        """
        self.assertEqual(header("reject no, thanks").reply, "DError: 5.7.1 no, thanks")
        self.assertEqual(body("REJECT no").reply, "DError: 5.7.1 no")

    def test_status(self) -> None:
        """
        A status code decides whether trying again makes sense.
        """
        self.assertEqual(header("REJECT 4.7.5 try later").reply, "ZError: 4.7.5 try later")
        self.assertEqual(header("REJECT 5.9.9 no").reply, "DError: 5.9.9 no")
        self.assertEqual(header("REJECT 5.9.9").reply, "DError: 5.9.9 ")
        error = header("REJECT 4.7.5 try later").verdict.error
        assert error is not None
        self.assertEqual(error.dsn, "4.7.5")

    def test_wrong_status(self) -> None:
        """
        A status of success refuses for now, and is logged.
        """
        seen = header("REJECT 2.0.0 fine")
        self.assertEqual(seen.reply, "ZError: 4.0.0 fine")
        self.assertIn("warning: bad DSN action in 2.0.0 fine -- need 4.x.x or 5.x.x", seen.log)

    def test_bytes_of_the_content(self) -> None:
        """
        What a pattern copies from the message reaches the client only in printable ASCII, and not all of it.
        """
        checks = content_checks({"header_checks": r"^Subject: (.*) = REJECT \1"})
        seen = inspect(checks, [b"Subject: a\x1b\xe9" + b"x" * 2000 + b"\n\nb\n"])
        error = seen.verdict.error
        assert error is not None
        self.assertTrue(error.text.startswith("Error: 5.7.1 a??xxx"))
        self.assertTrue(error.text.isascii() and error.text.isprintable())
        self.assertLess(len(error.text), 600)

    def test_nothing_after_it(self) -> None:
        """
        After it nothing is looked up.
        """
        seen = inspect(
            content_checks({"header_checks": "^Subject: = REJECT\n^X: = WARN", "body_checks": "b = WARN"}),
            [COMPLETE + b"Subject: x\nX: y\n\nb\n"],
        )
        self.assertEqual(len(seen.log), 1)

    def test_table_error(self) -> None:
        """
        A table that cannot say refuses the message for now.
        """
        seen = header("TableError")
        self.assertEqual(seen.reply, "ZError: queue file write error")
        self.assertEqual(
            seen.log,
            [
                "warning: patterns: is broken",
                "warning: header_checks map lookup problem -- message not accepted, try again later",
            ],
        )


class Decisions(SynchronousTestCase):
    """What is decided about a message that is accepted."""

    def test_discard(self) -> None:
        """
        DISCARD, and a later REJECT does not count.
        """
        seen = header("DISCARD bye", b"Subject: x\nX: y\n", body_checks="b = REJECT")
        self.assertTrue(seen.verdict.discard)
        self.assertEqual(seen.reply, "")
        self.assertEqual(seen.log, [f"discard: header Subject: x {QMQP}: bye"])

    def test_hold(self) -> None:
        """
        HOLD goes on, and is logged once.
        """
        seen = header("HOLD look", b"Subject: x\nSubject: y\n", body_checks="b = WARN")
        self.assertTrue(seen.verdict.hold)
        self.assertEqual(seen.log, [f"hold: header Subject: x {QMQP}: look", f"warning: body b {QMQP}"])

    def test_hold_then_reject(self) -> None:
        """
        A REJECT after it counts.
        """
        self.assertEqual(header("HOLD", body_checks="b = REJECT").reply[:1], "D")

    def test_pass(self) -> None:
        """
        PASS turns off all that follows, mail filters too.
        """
        seen = header("PASS friend", body_checks="b = REJECT")
        self.assertTrue(seen.verdict.passed)
        self.assertEqual(seen.reply, "")
        self.assertEqual(seen.log, [f"pass: header Subject: x {QMQP}: friend"])

    def test_redirect(self) -> None:
        """
        REDIRECT turns off the checks, too, so that the first one counts.
        """
        seen = header("REDIRECT boss@ex.test", body_checks="b = REDIRECT other@ex.test")
        self.assertEqual(seen.verdict.redirect, b"boss@ex.test")
        self.assertEqual(seen.log, [f"redirect: header Subject: x {QMQP}: boss@ex.test"])

    def test_filter(self) -> None:
        """
        The last FILTER counts.
        """
        seen = header("FILTER smtp:a", body_checks="b = FILTER smtp:b")
        self.assertEqual(seen.verdict.content_filter, b"smtp:b")
        self.assertEqual(
            seen.log, [f"filter: header Subject: x {QMQP}: smtp:a", f"filter: body b {QMQP}: smtp:b"]
        )

    def test_bcc(self) -> None:
        """
        BCC adds each address once.
        """
        seen = header("BCC a@ex.test", b"Subject: x\nSubject: y\n", body_checks="b = BCC b@ex.test")
        self.assertEqual(list(seen.verdict.bcc), [b"a@ex.test", b"b@ex.test"])
        self.assertEqual(seen.log[0], f"bcc: header Subject: x {QMQP}: a@ex.test")
        self.assertEqual(len(seen.log), 3)

    def test_only_logged(self) -> None:
        """
        WARN and INFO do nothing else; DUNNO and OK not even that.
        """
        content = COMPLETE + b"Subject: x\n\nb\n"
        for action, log in (
            ("WARN", [f"warning: header Subject: x {QMQP}"]),
            ("WARN careful", [f"warning: header Subject: x {QMQP}: careful"]),
            ("info told", [f"info: header Subject: x {QMQP}: told"]),
            ("DUNNO", []),
            ("OK", []),
        ):
            seen = header(action)
            self.assertEqual((seen.log, seen.content, seen.reply), (log, content, ""), action)

    def test_nonsense(self) -> None:
        """
        What the operator wrote wrongly is logged, and changes nothing.
        """
        content = COMPLETE + b"Subject: x\n\nb\n"
        for action, log in (
            ("FROB me", "unknown command in header_checks map: FROB me"),
            ("DELAY 1h", "unknown command in header_checks map: DELAY 1h"),
            ("REJECT: no", "unknown command in header_checks map: REJECT: no"),
            ("REDIRECT bob", 'bad REDIRECT target "bob" in header_checks map -- need user@domain'),
            ("REDIRECT", 'bad REDIRECT target "" in header_checks map -- need user@domain'),
            ("BCC bob", 'bad BCC address "bob" in header_checks map -- need user@domain'),
            ("FILTER", "missing FILTER command argument in header_checks map"),
            ("FILTER x", "bad FILTER command x in header_checks -- need transport:destination"),
            ("REPLACE", "REPLACE action without text in header_checks map"),
            ("PREPEND", "PREPEND action without text in header_checks map"),
            (
                "PREPEND no header",
                'bad PREPEND header text "no header" in header_checks map -- need "headername: headervalue"',
            ),
            (
                "REPLACE a b: c",
                'bad REPLACE header text "a b: c" in header_checks map -- need "headername: headervalue"',
            ),
        ):
            seen = header(action)
            self.assertEqual((seen.log, seen.content, seen.reply), ([f"warning: {log}"], content, ""), action)


class Changes(SynchronousTestCase):
    """What is stored."""

    def test_headers(self) -> None:
        """
        A header dropped, replaced, with another one before it.
        """
        for action, stored, log in (
            ("IGNORE", b"", []),
            ("STRIP gone", b"", [f"strip: header Subject: x {QMQP}: gone"]),
            ("REPLACE X-Y:  z", b"X-Y:  z\n", [f"replace: header Subject: x {QMQP}: X-Y:  z"]),
            ("PREPEND To: joe", b"To: joe\nSubject: x\n", [f"prepend: header Subject: x {QMQP}: To: joe"]),
        ):
            seen = header(action, b"A: b\nSubject: x\nC: d\n")
            self.assertEqual(seen.content, COMPLETE + b"A: b\n" + stored + b"C: d\n\nb\n", action)
            self.assertEqual(seen.log, log, action)

    def test_replaced_by_a_dropped_header(self) -> None:
        """
        What replaces a header is treated as if it had come.
        """
        self.assertEqual(header("REPLACE Bcc: joe").content, COMPLETE + b"\nb\n")

    def test_before_dropping(self) -> None:
        """
        Headers are looked up before they are dropped, in the form in which they would be stored.
        """
        table = Patterns("")
        inspect(
            content_checks({"header_checks": table}),
            [b"From joe Mon\nBcc : a@b\nX: a\n\tb\0c\nReceived: x\n\nb\n"],
        )
        self.assertEqual(
            table.keys, [b"X-Mailbox-Line: From joe Mon", b"Bcc: a@b", b"X: a\n\tb", b"Received: x"]
        )

    def test_lines(self) -> None:
        """
        A body line dropped, replaced, with another one before it.
        """
        for action, stored in (
            ("IGNORE", b""),
            ("STRIP", b""),
            ("REPLACE new", b"new\n"),
            ("PREPEND a b: c", b"a b: c\nfind\n"),
            ("DUNNO", b"find\n"),
        ):
            seen = body(action)
            self.assertEqual(seen.content, COMPLETE + b"\nline\n" + stored + b"last\n", action)

    def test_last_line(self) -> None:
        """
        The last line, without a line end.
        """
        self.assertEqual(body("REPLACE new", b"a\nfind").content, COMPLETE + b"\na\nnew\n")
        self.assertEqual(body("IGNORE", b"a\nfind").content, COMPLETE + b"\na\n")

    def test_received(self) -> None:
        """
        A Received header that is replaced or dropped is no hop, and neither is one that replaces another.
        """
        for headers, hops in (
            (b"Received: a\nReceived: b\n", 2),
            (b"Received: gone\nReceived: b\n", 1),
            (b"Received: other\nX-Hop: y\n", 0),
        ):
            checks = content_checks(
                {
                    "header_checks": "^Received: gone = IGNORE\n^Received: other = REPLACE X: y\n"
                    "^X-Hop = REPLACE Received: z"
                }
            )
            self.assertEqual(self.hops(checks, headers), hops, headers)

    def hops(self, checks: ContentChecks, headers: bytes) -> int:
        """
        @return: how many hops a header section counts.
        """
        rules = HeaderRules(header_kinds(frozenset()), 1000, 100, lambda name, value: None)
        section = HeaderSection(rules, Inspector(checks, Verdict(), QUEUE_ID, CLIENT))
        section.section(headers)
        return section.received

    def test_our_own_header(self) -> None:
        """
        The Received header that is made here is looked up, too.
        """
        checks = content_checks({"header_checks": "^Received: from here = REPLACE X: y"})
        inspected = Inspector(checks, Verdict(), QUEUE_ID, CLIENT)
        self.assertEqual(inspected.header(b"Received: from here\n\tby us\n"), b"X: y\n")
        self.assertEqual(inspected.header(b"Received: from there\n"), b"Received: from there\n")

    def test_own_header_after_the_end(self) -> None:
        """
        So it is when a header of the message has ended the inspection.
        """
        for action in ("PASS", "REDIRECT q@re.test"):
            checks = content_checks({"header_checks": f"^Received: from here = IGNORE\n^X: = {action}"})
            inspected = Inspector(checks, Verdict(), QUEUE_ID, CLIENT)
            inspected.primary(b"x", b"X: y")
            self.assertEqual(inspected.header(b"Received: from here\n"), b"", action)

    def test_filters(self) -> None:
        """
        What mail filters add has its own check, without PREPEND.
        """
        checks = content_checks(
            {"milter_header_checks": "^X-A: = IGNORE\n^X-B: = REPLACE X-C: d\n^X-P: = PREPEND X-Q: r"}
        )
        inspected = Inspector(checks, Verdict(), QUEUE_ID, CLIENT)
        for given, stored in (
            (b"X-A: b", None),
            (b"X-B: b", b"X-C: d"),
            (b"X-D: b", b"X-D: b"),
            (b"X-P: b", b"X-P: b"),
        ):
            self.assertEqual(inspected.milter_header(given), stored)


class Tables(SynchronousTestCase):
    """Which tables there are, and how often they are asked."""

    def test_nothing(self) -> None:
        """
        Without checks nothing is inspected; without tables only what is strict.
        """
        self.assertFalse(content_checks().looks or content_checks().strict)
        self.assertTrue(content_checks({"body_checks": "a = WARN"}).looks)
        self.assertFalse(content_checks({"milter_header_checks": "a = WARN"}).looks)
        self.assertTrue(content_checks(settings="strict_8bitmime = yes\n").strict)

    def test_no_checks_for_this_message(self) -> None:
        """
        C{no_header_body_checks} turns off the tables.
        """
        checks = content_checks({"header_checks": "Subject = REJECT", "body_checks": "b = REJECT"})
        seen = inspect(checks, [COMPLETE + b"Subject: x\n\nb\n"], looks=False)
        self.assertEqual((seen.reply, seen.log), ("", []))

    def test_defaults(self) -> None:
        """
        header_checks is for MIME headers and attached messages, too, unless they have their own.
        """
        content = COMPLETE + b"MIME-Version: 1.0\nContent-Type: message/rfc822\n\nX: y\n\nb\n"
        table = Patterns("")
        own = Patterns("")
        config = "mime_header_checks =\nnested_header_checks = patterns:own\n"
        opened = {"patterns:a": table, "patterns:own": own}
        for text, keys in (("", 6), (config, 3)):
            table.keys.clear()
            checks = ContentChecks.from_config(
                config_from_text("header_checks = patterns:a\n" + text), lambda name, _: opened[name]
            )
            inspect(checks, [content])
            self.assertEqual(len(table.keys), keys)
        self.assertEqual(own.keys, [b"X: y"])

    def test_a_table_that_has_to_be_waited_for(self) -> None:
        """
        Is refused by name.
        """
        with self.assertRaises(ConfigError) as caught:
            content_checks({"body_checks": Patterns("", immediate=False)})
        self.assertIn("body_checks: patterns:: a table that has to be waited for", str(caught.exception))

    def test_one_pass(self) -> None:
        """
        A table that can say of all lines at once that it has none of them is asked once for the headers and
        once for a chunk of the body, which passes as the same object.
        """
        table = Patterns("viagra = REJECT", filters=True)
        config = content_checks({"header_checks": table, "mime_header_checks": table, "body_checks": table})
        section = b"Subject: x\nMIME-Version: 1.0\n"
        inspect(config, [section + b"\n" + b"line\n" * 100])
        self.assertEqual(table.keys, [])
        self.assertLessEqual(len(table.blocks), 3)
        inspected = Inspector(config, Verdict(), QUEUE_ID, CLIENT)
        inspected.begin_body(False)
        data = b"\n" + b"line\n" * 100
        self.assertIs(inspected.body(data), data)

    def test_one_pass_finds(self) -> None:
        """
        What it may have is looked up, line by line.
        """
        table = Patterns("viagra = REJECT", filters=True)
        config = content_checks({"header_checks": table, "body_checks": table})
        self.assertEqual(inspect(config, [b"Subject: x\n\na\nviagra\n"]).reply[:1], "D")
        self.assertEqual(inspect(config, [b"A: b\nSubject: viagra\n\na\n"]).reply[:1], "D")

    def test_one_pass_and_cut_lines(self) -> None:
        """
        A line that is cut may match where the whole line does not, so it is always looked up.
        """
        for text in (b"viagra\0x\n", b"x" * 2048 + b"viagra\n"):
            table = Patterns("^viagra$ = REJECT", filters=True)
            seen = inspect(content_checks({"body_checks": table}), [b"A: b\n\n" + text])
            self.assertEqual(seen.reply[:1], "D")


class Log(SynchronousTestCase):
    """What the log shows."""

    def test_shown(self) -> None:
        """
        Headers are shown in one line, cut, and without what is not printable.
        """
        seen = header("WARN", b"Subject: 1\n 2\x01\xc3\xa9\xff\n")
        self.assertEqual(seen.log, [f"warning: header Subject: 1? 2?é? {QMQP}"])
        seen = header("WARN", b"Subject: " + b"x" * 500 + b"\n")
        self.assertEqual(seen.log, [f"warning: header Subject: {'x' * 191} {QMQP}"])

    def test_many(self) -> None:
        """
        A message with very many matches does not fill the memory: they are logged before its end.
        """
        count = REMARKS_LIMIT + 5
        seen = body("WARN", b"find\n" * count)
        self.assertEqual(len(seen.log), count)
        self.assertEqual(set(seen.log), {f"warning: body find from {CLIENT.label()}; proto=QMQP"})


class Queued(SynchronousTestCase):
    """What becomes of the message as a whole."""

    def outcome(self, rules: str, content: bytes) -> tuple[Intake, list[QueueID | Failure]]:
        """
        @param rules: a regexp table for header_checks and body_checks.
        """
        path = str(Path(self.mktemp()).absolute())
        Path(path).write_text(rules)
        intake = Intake(f"header_checks = regexp:{path}\nbody_checks = regexp:{path}\n")
        results: list[QueueID | Failure] = []
        finished: Deferred[QueueID] = intake.send([content], b"joe", [b"a@dest.test", b"b"])
        finished.addBoth(results.append)
        return intake, results

    def held(self, intake: Intake) -> int:
        """
        @return: how many messages are on hold.
        """
        found: list[QueuedEntry] = []
        intake.queue.scan(Queue.HOLD).next(10).addCallback(found.extend)
        return len(found)

    def test_held(self) -> None:
        """
        A message on hold is accepted, and the queue manager does not hear of it.
        """
        intake, results = self.outcome("/^Subject: x/ HOLD\n", b"Subject: x\n\nb\n")
        self.assertIsInstance(results[0], str)
        self.assertEqual(intake.arrivals.stored, [])
        self.assertEqual(self.held(intake), 1)

    def test_refused_and_discarded(self) -> None:
        """
        Nothing is stored; the log names sender and last recipient, complete, wherever in the message it was
        decided.
        """
        for content in (b"Subject: x\n\nb\n", b"A: b\n\nSubject: x\n"):
            for action, accepted in (("REJECT", False), ("DISCARD", True)):
                with capturedLogs() as events:
                    intake, results = self.outcome(f"/^Subject: x/ {action}\n", content)
                self.assertEqual(isinstance(results[0], str), accepted)
                self.assertEqual(intake.arrivals.stored, [])
                lines = [TextFormatter().text(event) for event in events]
                found = [line for line in lines if f": {action.lower()}: " in line]
                self.assertEqual(len(found), 1)
                self.assertIn("; from=<joe@relay.test> to=<b@relay.test> proto=QMQP", found[0])

    def test_body_is_what_is_stored(self) -> None:
        """
        The body is looked up once, and without the headers that are added.
        """
        intake, _ = self.outcome("/^(A|b)/ PREPEND X-Y: z\n/^Message-Id/ REJECT\n", b"A: b\n\nb\nb\n")
        (stored,) = intake.arrivals.stored
        self.assertTrue(stored.body.startswith(b"X-Y: z\nA: b\nMessage-Id: "))
        self.assertTrue(stored.body.endswith(b"\n\nX-Y: z\nb\nX-Y: z\nb\n"))
