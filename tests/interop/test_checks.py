"""
Side by side with Postfix: header and body checks. What the client is told, what goes to whom, what is held,
and what cleanup says of it in the log are the same.

Postfix delivers to sinks; of ours, what is stored in the queue counts. Ours logs what checks have found when
the envelope is known; so the order of lines is not compared.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import quote_address
from qmqpd_tx.interfaces import IntakeError, QueuedEntry
from qmqpd_tx.maillog.render import TextFormatter
from qmqpd_tx.message import CONTENT_FILTER, Queue, QueueID
from tests.cleanup.cases import COMPLETE, Case
from tests.cleanup.part_cases import PARTS
from tests.cleanup.support import Intake
from tests.interop.intake_peers import Outcome, Scenario, neutral, outcomes, postfix
from tests.peers import scratch

EIGHT = b"\xc3\xa9"
LOGGED = COMPLETE + b"X-Long: a\n\nb\n"
MIXED = b"Content-Type: multipart/mixed; boundary=aa\n\n"


def case(name: str, content: bytes) -> Case:
    """
    @return: a message to which no headers are added.
    """
    return Case(name, COMPLETE + content)


def table(rules: dict[str, str]) -> str:
    """
    @param rules: from the text of a header or line, all of it, to its action.
    """
    return "".join(f"/^{text}$/ {action}\n" for text, action in rules.items())


ACTIONS = {
    "reject": "REJECT",
    "reject text": "REJECT no, thanks",
    "reject later": "REJECT 4.7.5 try later",
    "reject code": "REJECT 5.9.9 coded",
    "reject only code": "REJECT 5.9.9",
    "reject wrong code": "REJECT 2.0.0 fine",
    "discard": "DISCARD",
    "discard text": "DISCARD bye",
    "hold": "HOLD",
    "hold text": "HOLD look at it",
    "warn": "WARN",
    "warn text": "WARN careful",
    "info": "INFO",
    "info text": "INFO told",
    "strip": "STRIP gone",
    "ignore": "IGNORE",
    "pass": "PASS friend",
    "dunno": "DUNNO",
    "ok": "OK",
    "delay": "DELAY 1h",
    "unknown": "FROBNICATE me",
    "redirect": "REDIRECT bob@other.test",
    "redirect incomplete": "REDIRECT bob",
    "redirect two words": "REDIRECT bob@other.test carl@x.test",
    "filter": "FILTER smtp:OTHER",
    "filter discard": "FILTER discard:",
    "filter wrong": "FILTER foo",
    "filter nothing": "FILTER",
    "bcc": "BCC bob@other.test",
    "bcc recipient": "BCC r@dest.test",
    "bcc incomplete": "BCC bob",
    "prepend": "PREPEND X-New: a",
    "prepend nothing": "PREPEND",
    "prepend address": "PREPEND To: joe",
    "replace": "REPLACE Subject: new",
    "replace nothing": "REPLACE",
    "replace address": "REPLACE To: joe",
    "replace dropped": "REPLACE Bcc: joe",
    "replace received": "REPLACE Received: foo",
    "lower": "reJect Lower",
}
HEADER_ACTIONS = ACTIONS | {
    "prepend wrong": "PREPEND no header",
    "replace wrong": "REPLACE no header",
    "replace id": "REPLACE Message-Id: <new@x>",
    "replace type": "REPLACE Content-Type: multipart/mixed; boundary=aa",
    "replace spaces": "REPLACE   X-Other:   y",
}


def pairs() -> Iterable[Case]:
    """
    Two actions in one message.
    """
    for first, second in (
        ("hold", "hold text"),
        ("hold", "reject"),
        ("hold", "redirect"),
        ("redirect", "reject"),
        ("redirect", "redirect two words"),
        ("bcc", "redirect"),
        ("bcc", "bcc"),
        ("filter discard", "filter"),
        ("filter", "redirect"),
        ("pass", "reject"),
        ("discard", "reject"),
        ("reject text", "reject"),
        ("warn", "warn text"),
    ):
        headers = f"Subject: {first}\nSubject: {second}\n\nb\n".encode()
        yield case(f"{first}, {second}", headers)
        yield case(f"{first}, {second} in the body", f"Subject: {first}\n\n{second}\n".encode())


SCENARIOS = [
    Scenario(
        name="headers",
        settings={"header_checks": "regexp:FOLDER/headers"},
        files={
            "headers": table({f"Subject: {name}": action for name, action in HEADER_ACTIONS.items()})
            + "/^X-Mid/ REPLACE Message-Id: <new@x>\n/^Message-Id: <old/ IGNORE\n/^Received: gone/ IGNORE\n"
            "/^X-From/ REPLACE From: joe\n/^X-Resent/ REPLACE Resent-From: joe\n/^X-Long/ WARN\n"
        },
        cases=[
            *(case(name, f"Subject: {name}\nX-Last: y\n\nb\n".encode()) for name in HEADER_ACTIONS),
            Case("id replaced", b"From: f@x\nDate: d\nX-Mid: 1\n\nb\n"),
            Case("id ignored", b"From: f@x\nDate: d\nMessage-Id: <old@x>\n\nb\n"),
            Case("From replaced", b"Message-Id: <m@x>\nDate: d\nX-From: 1\n\nb\n"),
            case("resent", b"X-Resent: a\n\nb\n"),
            case("hops that do not count", b"Received: gone\n" * 60 + b"\nb\n"),
            case("long", b"X-Long: " + b"0123456789" * 50 + b"\n\nb\n"),
            case("folded", b"X-Long: a\n b\n\tc\x01\xff\xc3\xa9\n\nb\n"),
            case("form", b"x-LONG  : a\n\nb\n"),
            Case("two recipients", LOGGED, recipients=(b"a@dest.test", b"b@dest.test")),
            Case("addresses", LOGGED, b"joe", (b"@x:c d@dest.test",)),
            Case("null sender", LOGGED, b""),
            Case("no recipient", LOGGED, recipients=()),
        ],
    ),
    Scenario(
        name="body",
        settings={"body_checks": "regexp:FOLDER/body"},
        files={"body": table(ACTIONS) + "/^y+$/ IGNORE\n/^z+$/ REPLACE short\n"},
        cases=[
            *(case(name, f"\nline\n{name}\nlast\n".encode()) for name in ACTIONS),
            case("last", b"\nline\nreplace"),
            case("all", b"\nignore\nignore\n"),
            case("first of no empty line", b"replace\nx\n"),
            case("a NUL", b"\nreplace\0 more\nx\n"),
            *(
                case(f"{size} of {letter}", b"\na\n" + letter.encode() * size + b"\nb\n")
                for size in (2047, 2048, 2049, 4096)
                for letter in "yz"
            ),
        ],
    ),
    Scenario(
        name="pairs",
        settings={"header_checks": "regexp:FOLDER/headers", "body_checks": "regexp:FOLDER/body"},
        files={
            "headers": table({f"Subject: {name}": action for name, action in ACTIONS.items()}),
            "body": table(ACTIONS),
        },
        cases=list(pairs()),
    ),
    Scenario(
        name="parts",
        settings={
            "header_checks": "regexp:FOLDER/headers",
            "mime_header_checks": "regexp:FOLDER/mime",
            "nested_header_checks": "regexp:FOLDER/nested",
            "body_checks": "regexp:FOLDER/body",
        },
        files={
            "headers": "/^(Message-Id: <m@x>|Date: d|From: f@x)$/ DUNNO\n/^/ WARN H\n",
            "mime": "/^/ WARN M\n",
            "nested": "/^/ WARN N\n",
            "body": "/^/ WARN B\n",
        },
        # Each third: what each of them shows is in the unit tests.
        cases=[Case(each.name, each.content) for each in PARTS[::3]],
    ),
    Scenario(
        name="changed parts",
        settings={"header_checks": "regexp:FOLDER/headers", "body_checks": "regexp:FOLDER/body"},
        files={
            "headers": "/^X-Gone/ IGNORE\n/^X-Old/ REPLACE X-New: y\n/^X-Late/ PREPEND X-Early: z\n"
            "/^X-To/ REPLACE To: joe\n/^Content-Type: .*strip/ IGNORE\n"
            "/^X-Type/ REPLACE Content-Type: message/rfc822\n",
            "body": "/^--aa del/ IGNORE\n/^--aa rep/ REPLACE text\n/^--aa pre/ PREPEND --aa before\n",
        },
        cases=[
            case("headers", MIXED + b"--aa\nX-Gone: a\n b\nX-Old: a\nX-Late: a\n b\nX-To: y\n\nb\n"),
            case("all gone", MIXED + b"--aa\nX-Gone: a\n\nb\n"),
            case("boundary gone", MIXED + b"--aa del\nX-Old: a\n\nb\n"),
            case("boundary replaced", MIXED + b"--aa rep\nX-Old: a\n\nb\n"),
            case("boundary before", MIXED + b"--aa pre\nX-Old: a\n\nb\n"),
            case(
                "type gone", b"Content-Type: multipart/mixed; boundary=aa; strip=1\n\n--aa\nX-Old: a\n\nb\n"
            ),
            case("type replaced", MIXED + b"--aa\nX-Type: a\n\nX-Old: y\n\nb\n"),
            case("attached", b"Content-Type: message/rfc822\n\nX-To: y\nX-Late: z\nBcc: a\n\nb\n"),
            case("form", MIXED + b"--aa\nX-A  : b\nX-B: c\0d\n\nb\n"),
        ],
    ),
    Scenario(
        name="strict",
        settings={"strict_8bitmime": "yes", "strict_mime_encoding_domain": "yes", "mime_nesting_limit": "3"},
        cases=[
            case("header", b"Subject: " + EIGHT + b"\n\nb\n"),
            case("body", b"\n" + EIGHT + b"\n"),
            case("both", b"A: %s%s\nB: %s\n\n%s\n%s\n" % (EIGHT, b"x" * 200, EIGHT, EIGHT, EIGHT)),
            case("header of a part", MIXED + b"--aa\nX: " + EIGHT + b"\n\nb\n"),
            case("preamble", MIXED + EIGHT + b"\n--aa\nX: y\n\nb\n"),
            case("declared", b"Content-Transfer-Encoding: 8bit\n\n" + EIGHT + b"\n"),
            case("encoding", b"Content-Transfer-Encoding: base64\n" + MIXED + b"--aa\n\nx\n"),
            case("fragment", b"Content-Transfer-Encoding: 8bit\nContent-Type: message/partial\n\nx\n"),
            *(
                case(
                    f"depth {depth}",
                    b"X: y\n"
                    + b"".join(
                        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level)
                        for level in range(depth)
                    ),
                )
                for depth in (5, 6)
            ),
        ],
    ),
    Scenario(
        name="sizes",
        settings={"body_checks": "regexp:FOLDER/body", "body_checks_size_limit": "10"},
        files={"body": "/^(--|q)/ WARN\n"},
        cases=[
            case("lines", b"\nqqqq\nq56\nq8\nq9\n"),
            case("no empty line", b"qqqq\nq56\nq8\nq9\n"),
            case("preamble", MIXED + b"p" * 7 + b"\n--aa\n\nx\n"),
            case("long preamble", MIXED + b"p" * 8 + b"\n--aa\n\nx\n"),
            case("boundaries", MIXED + b"p" * 20 + b"\n--aa\n--aa\nA: b\n\nqq\n"),
            case("end", MIXED + b"--aa\n\n" + b"p" * 20 + b"\n--aa--\nq1\nq2\n"),
        ],
    ),
]


def ours(scenario: Scenario) -> Iterator[Outcome]:
    """
    @return: what our cleanup makes of each message.
    """
    folder = scratch()
    try:
        for name, text in scenario.files.items():
            (folder / name).write_text(text)
        settings = "".join(f"{name} = {value}\n" for name, value in scenario.settings.items())
        intake = Intake(settings.replace("FOLDER", str(folder)))
        for case in scenario.cases:
            yield our_outcome(intake, case)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def our_outcome(intake: Intake, case: Case) -> Outcome:
    """
    One message.
    """
    results: list[QueueID | Failure] = []
    with capturedLogs() as events:
        finished: Deferred[QueueID] = intake.send([case.content], case.sender, case.recipients)
        finished.addBoth(results.append)
    (result,) = results
    show = TextFormatter()
    lines = [show.text(event) for event in events if event.get("log_namespace") == "qmqpd_tx.cleanup"]
    if isinstance(result, Failure):
        error = result.value
        assert isinstance(error, IntakeError)
        reply = ("D" if error.permanent else "Z") + error.text
        return Outcome(reply.encode(), log=neutral_lines(lines))
    lines = [line.replace(result, "ID") for line in lines]
    on_hold: list[QueuedEntry] = []
    intake.queue.scan(Queue.HOLD).next(1000).addCallback(on_hold.extend)
    held = [entry for entry in on_hold if entry.queue_id == result]
    stored = [message for message in intake.arrivals.stored if message.queue_id == result]
    intake.arrivals.stored.clear()
    deliveries = []
    for message in [] if held else stored:
        filtered = message.envelope.attributes.get(CONTENT_FILTER, b"")
        if filtered.startswith(b"discard:"):
            continue
        sender = message.envelope.sender
        deliveries.append(
            (
                "other" if filtered else "sink",
                b"<%s>" % (quote_address(sender) if sender else b""),
                tuple(sorted(b"<%s>" % quote_address(address) for address, _ in message.recipients)),
                neutral(message.content, result.encode()),
            )
        )
    return Outcome(b"K", deliveries, len(held), neutral_lines(lines))


def neutral_lines(lines: Iterable[str]) -> list[str]:
    """
    @return: log lines without what must differ, in a fixed order.
    """
    texts = (
        re.sub(r"smtp:(\[127\.0\.0\.1\]:\d+|OTHER)", "smtp:other", neutral(line.encode(), b"").decode())
        for line in lines
    )
    found = sorted(re.sub(r"^(warning: )?[0-9A-Za-z]{9,}: ", r"\1ID: ", text) for text in texts)
    if any(text.startswith(("ID: reject: ", "ID: discard: ")) for text in found):
        # Of a message that ends in its headers we do not log the id.
        found = [text for text in found if "message-id=" not in text]
    return found


class ChecksTests(SynchronousTestCase):
    """One scenario a test."""

    def compare(self, name: str) -> None:
        """
        @raise FailTest: naming all messages that differ.
        """
        scenario = next(each for each in SCENARIOS if each.name == name)
        with postfix(scenario) as server:
            theirs = outcomes(server, scenario)
        different: list[str] = []
        for each, our in zip(scenario.cases, ours(scenario), strict=True):
            their = theirs[each.name]
            log = [line.removeprefix("cleanup: ") for line in their.log if line.startswith("cleanup: ")]
            their = evolve(their, log=neutral_lines(log), deliveries=list(their.deliveries))
            our = evolve(our, deliveries=list(our.deliveries))
            if not their.deliveries and not their.held:
                # Whether the header section was read so far as to know the id does not matter then.
                our = evolve(our, log=[line for line in our.log if "message-id=" not in line])
            for field in ("reply", "deliveries", "held", "log"):
                one, other = getattr(their, field), getattr(our, field)
                if one != other:
                    different.append(f"{each.name}: {field}:\n  Postfix {one!r}\n  ours    {other!r}")
        self.assertEqual(different, [], "\n".join(different))

    def test_headers(self) -> None:
        """
        Each action for a header of the message.
        """
        self.compare("headers")

    def test_body(self) -> None:
        """
        Each action for a line of the body.
        """
        self.compare("body")

    def test_pairs(self) -> None:
        """
        Two actions in one message.
        """
        self.compare("pairs")

    def test_parts(self) -> None:
        """
        Which check sees which header and line of a message with parts.
        """
        self.compare("parts")

    def test_changed_parts(self) -> None:
        """
        Headers and boundaries of parts, changed.
        """
        self.compare("changed parts")

    def test_strict(self) -> None:
        """
        What is wrong with the form of a message.
        """
        self.compare("strict")

    def test_sizes(self) -> None:
        """
        How much of each part is seen.
        """
        self.compare("sizes")
