"""
The same scripted mail filter behind a running Postfix and behind us: what it is told, and what becomes of
mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import Factory, frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.cleanup.sink import Delivery, Sink
from tests.interop.scripted_milter import (
    Script,
    ScriptedMilter,
    Session,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_recipient,
    insert_header,
    quarantine,
    replace_body,
    reply_code,
)
from tests.peers import PrivatePostfix, free_port
from tests.service import RunningService, qmqp_send

MESSAGE = (
    b"Subject: hello\nTo: x@example.org\nFrom: <author@example.com>\n"
    b"X-Fold: one\n two\nX-Tight:v\n\nbody\nline\n"
)
SENDER = b"sender@example.com"
RECIPIENTS = (b"one@example.org", b"Two")


@frozen
class Case:
    """
    One message, and what the filter does about it.
    """

    name: str
    script: Script = Factory(Script)
    message: bytes = MESSAGE
    sender: bytes = SENDER
    recipients: Sequence[bytes] = RECIPIENTS


def at_end(*steps: bytes, final: bytes = b"c", protocol: int = 0) -> Script:
    """
    @return: a filter that does this at the end of a message.
    """
    return Script(replies={"eom": [*steps, final]}, protocol=protocol)


CASES = (
    Case("plain"),
    Case("null sender, quoted recipient", sender=b"", recipients=(b"a b@example.org",)),
    Case("verp", sender=b"list-@example.com-@[]"),
    Case("no body", message=b"Subject: x\n"),
    Case("no header", message=b"\nbody\n"),
    Case("long body", message=b"Subject: x\n\n" + b"0123456789abcde\n" * 9000),
    Case("header forms", message=b"A:\nB: \nC:  x\nD:\tx\nE:\n x\nF: caf\xc3\xa9\n\nx"),
    Case("leading space", Script(protocol=0x100000)),
    Case("nothing but the end", Script(protocol=0x37F)),
    Case("no replies", Script(protocol=0xFF080)),
    Case("version 2", Script(version=2)),
    Case("skip", Script(protocol=0x400, replies={"body:1": [b"s"]}), b"A: b\n\n" + b"x\n" * 100000),
    Case("reject sender", Script(replies={"mail": [b"r"]})),
    Case("tempfail data", Script(replies={"data": [b"t"]})),
    Case("reject recipient", Script(replies={"rcpt:2": [b"r"]})),
    Case("reply at the end", at_end(final=reply_code(b"550 5.7.2 No, %% thanks"))),
    Case("malformed reply", at_end(final=reply_code(b"250 5.7.2 No"))),
    Case("accept at connect", Script(replies={"connect": [b"a"]})),
    Case("accept at header", Script(replies={"header:1": [b"a"]})),
    Case("discard", Script(replies={"eoh": [b"d"]})),
    Case("discard at helo", Script(replies={"helo": [b"d"]})),
    Case("quarantine", at_end(quarantine(b"why"), add_header(b"X-Held", b"yes"))),
    Case("add headers", at_end(add_header(b"X-1", b"v"), add_header(b"X-2", b" w\n\tx"))),
    Case(
        "insert headers",
        at_end(
            insert_header(0, b"X-0", b"v"), insert_header(1, b"X-1", b"v"), insert_header(3, b"X-3", b"v")
        ),
    ),
    Case(
        "change headers",
        at_end(
            change_header(1, b"Subject", b"other"),
            change_header(1, b"To", b""),
            change_header(2, b"Subject", b"second"),
        ),
    ),
    Case(
        "leading space in changes",
        at_end(add_header(b"X-1", b"v"), add_header(b"X-2", b" v"), protocol=0x100000),
    ),
    Case("replace body", at_end(replace_body(b"new bo"), replace_body(b"dy\r"), replace_body(b"\nlast"))),
    Case(
        "envelope",
        at_end(
            change_sender(b"<new@example.com>"),
            add_recipient(b"<three@example.org>"),
            delete_recipient(b"<one@example.org>"),
        ),
    ),
    Case("garbage", Script(replies={"mail": [b"Z"]})),
    # Last, because a cleanup process of Postfix goes on with these for filters that do not choose.
    Case(
        "own macros",
        Script(symbols={0: b"i v", 2: b"{client_name}", 5: b"j {client_addr}", 6: b"{daemon_name}"}),
    ),
)


def neutral(value: bytes) -> bytes:
    """
    @return: the same without ids, times and version.
    """
    value = re.sub(rb"\d{14}\.[0-9A-Z]+@", b"STAMP@", value)
    date = rb"[A-Z][a-z]{2}, [ \d]\d [A-Z][a-z]{2} \d{4} [\d:]{8} [+-]\d{4}( \([A-Z]+\))?"
    value = re.sub(date, b"DATE", value)
    value = re.sub(rb"\b[0-9A-Z]{10,15}\b", b"ID", value)
    return re.sub(rb"Postfix [0-9.]+", b"Postfix VERSION", value)


def transcript(session: Session) -> list[str]:
    """
    @return: what a filter was sent, for comparison.
    """
    found = []
    for event, arguments, macros in session.events:
        shown = [
            neutral(argument) if len(argument) < 2000 else b"%d bytes" % len(argument)
            for argument in arguments
        ]
        values = {name: neutral(value) for name, value in sorted(macros.items())}
        found.append(f"{event} {shown} {values}")
    return found


class TranscriptTests(SynchronousTestCase):
    """Postfix and us, with the same filter."""

    def collect(self, milter: ScriptedMilter, port: int) -> list[list[str]]:
        """
        @return: for each case the reply, and what the filter was sent.
        """
        found = []
        for case in CASES:
            milter.script = case.script
            before = len(milter.visits)
            reply = qmqp_send(port, case.message, case.sender, list(case.recipients))
            milter.wait_for_sessions(before + 1)
            lines = [f"reply {neutral(reply)!r}".replace("__", "??")]
            for session in milter.visits[before:]:
                lines += transcript(session)
            found.append(lines)
        return found

    def test_side_by_side(self) -> None:
        """The filter sees the same from both, and the client hears the same."""
        settings = {"defer_transports": "smtp relay", "qmqpd_error_delay": "0"}
        with ScriptedMilter() as milter:
            settings["non_smtpd_milters"] = f"inet:127.0.0.1:{milter.port}"
            with PrivatePostfix(settings) as postfix:
                theirs = self.collect(milter, postfix.port)
        with ScriptedMilter() as milter:
            settings["non_smtpd_milters"] = f"inet:127.0.0.1:{milter.port}"
            text = "".join(f"{name} = {value}\n" for name, value in settings.items())
            with RunningService(self.mktemp(), free_port(), text) as service:
                ours = self.collect(milter, service.port)
        self.assertGreater(len(theirs), 12)
        wrong = []
        for case, expected, found in zip(CASES, theirs, ours, strict=True):
            if expected != found:
                lines = [f"  theirs {line}" for line in expected if line not in found]
                lines += [f"  ours   {line}" for line in found if line not in expected]
                wrong.append("\n".join([case.name, *(lines or ["  (another order)", *expected, *found])]))
        self.assertEqual(wrong, [], "\n".join(wrong))


def normal(delivery: Delivery) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """
    @return: sender, recipients and content without what differs between any two messages.
    """
    sender = delivery.sender.split(b" ")[0]
    return sender, tuple(sorted(delivery.recipients)), neutral(delivery.content)


class ContentTests(SynchronousTestCase):
    """What is delivered after a filter's changes, from Postfix and from us."""

    NAMES = (
        "plain",
        "add headers",
        "insert headers",
        "change headers",
        "leading space in changes",
        "replace body",
        "envelope",
    )

    def deliver(self, milter: ScriptedMilter, port: int, sink: Sink) -> list[object]:
        """
        @return: what arrived, for each case.
        """
        found: list[object] = []
        for case in CASES:
            if case.name in self.NAMES:
                milter.script = case.script
                reply = qmqp_send(port, case.message, case.sender, [b"one@example.org", b"two@example.org"])
                self.assertTrue(reply.startswith(b"K"), reply)
                deliveries = sink.wait_for(len(found) + 1, 20)
                self.assertEqual(len(deliveries), len(found) + 1, case.name)
                found.append(normal(deliveries[-1]))
        return found

    def test_side_by_side(self) -> None:
        """The same content, sender and recipients."""
        results = []
        for ours in (False, True):
            with Sink() as sink, ScriptedMilter() as milter:
                settings = {
                    "relayhost": f"[127.0.0.1]:{sink.port}",
                    "non_smtpd_milters": f"inet:127.0.0.1:{milter.port}",
                }
                if ours:
                    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
                    with RunningService(self.mktemp(), free_port(), text) as service:
                        results.append(self.deliver(milter, service.port, sink))
                else:
                    with PrivatePostfix(settings) as postfix:
                        results.append(self.deliver(milter, postfix.port, sink))
        for name, theirs, found in zip(self.NAMES, *results, strict=True):
            self.assertEqual(theirs, found, name)


class CopyTests(SynchronousTestCase):
    """Who gets a message when filters change its envelope, with automatic copies and maps around it."""

    MAPS: Mapping[str, Mapping[str, str]] = {
        "sender_bcc_maps": {"s@x.test": "old@x.test", "n@x.test": "new@x.test", "m@x.test": "new@x.test"},
        "recipient_bcc_maps": {"r@x.test": "rcopy@x.test", "a@x.test": "no@x.test", "q@x.test": "no@x.test"},
        "virtual_alias_maps": {"v@x.test": "v1@x.test v2@x.test", "new@x.test": "final@x.test"},
        "canonical_maps": {"c@x.test": "q@x.test"},
    }
    STEPS: Sequence[Sequence[bytes]] = (
        (),
        (add_recipient(b"<a@x.test>"),),
        (add_recipient(b"<v@x.test>"),),
        (add_recipient(b"<c@x.test>"),),
        (delete_recipient(b"<r@x.test>"),),
        (delete_recipient(b"<rcopy@x.test>"),),
        (delete_recipient(b"<r@x.test>"), add_recipient(b"<r@x.test>")),
        (change_sender(b"<n@x.test>"),),
        (change_sender(b"<n@x.test>"), change_sender(b"<m@x.test>")),
        (change_sender(b"<n@x.test>"), change_sender(b"<>")),
        (change_sender(b"<s@x.test>"),),
    )

    def settings(self, milter: ScriptedMilter, sink: Sink) -> dict[str, str]:
        """
        @return: those of both programs.
        """
        maps = {
            name: "inline:{" + ", ".join(f"{{{key} = {value}}}" for key, value in entries.items()) + "}"
            for name, entries in self.MAPS.items()
        }
        return {
            "compatibility_level": "3.6",
            "relayhost": f"[127.0.0.1]:{sink.port}",
            "non_smtpd_milters": f"inet:127.0.0.1:{milter.port}",
            "always_bcc": "all@x.test",
            **maps,
        }

    def deliver(self, milter: ScriptedMilter, port: int, sink: Sink) -> list[object]:
        """
        @return: sender and recipients, for each case.
        """
        found: list[object] = []
        for steps in self.STEPS:
            milter.script = at_end(*steps)
            reply = qmqp_send(port, b"Subject: x\n\nx\n", b"s@x.test", [b"r@x.test", b"o@x.test"])
            self.assertTrue(reply.startswith(b"K"), reply)
            deliveries = sink.wait_for(len(found) + 1, 20)
            self.assertEqual(len(deliveries), len(found) + 1, steps)
            found.append(normal(deliveries[-1])[:2])
        return found

    def test_side_by_side(self) -> None:
        """The same people."""
        with (
            Sink() as sink,
            ScriptedMilter() as milter,
            PrivatePostfix(self.settings(milter, sink)) as postfix,
        ):
            theirs = self.deliver(milter, postfix.port, sink)
        with Sink() as sink, ScriptedMilter() as milter:
            text = "".join(f"{name} = {value}\n" for name, value in self.settings(milter, sink).items())
            with RunningService(self.mktemp(), free_port(), text) as service:
                ours = self.deliver(milter, service.port, sink)
        for steps, their, our in zip(self.STEPS, theirs, ours, strict=True):
            self.assertEqual(our, their, steps)
