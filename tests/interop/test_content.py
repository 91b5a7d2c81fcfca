"""
The same messages through Postfix and through our cleanup: content, addresses and replies are the same.

Postfix gets them by QMQP and delivers to a sink; of ours, what is stored in the queue counts, since delivery
agents add nothing but CR LF.
"""

from __future__ import annotations

import re
import socket

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import quote_address
from qmqpd_tx.interfaces import IntakeError
from tests.cleanup.cases import ADDRESSES, CONTENT, ENVELOPE, Case
from tests.cleanup.sink import Delivery, Sink
from tests.cleanup.support import Intake
from tests.peers import PrivatePostfix

SETTINGS = {
    "smtp_line_length_limit": "0",
    "qmqpd_error_delay": "0",
    "import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ=UTC POSTLOG_SERVICE POSTLOG_HOSTNAME",
}
_DATE = re.compile(rb"[A-Z][a-z]{2}, [ 0-9]\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000 \(UTC\)")
_STAMP = re.compile(rb"<\d{14}\.")
_ID = re.compile(rb"\bid ([0-9A-Za-z]+)")


def netstring(data: bytes) -> bytes:
    """
    @return: C{data} as a netstring, spelled out here so that the test does not rest on what it tests.
    """
    return b"%d:%s," % (len(data), data)


def qmqp(port: int, case: Case) -> bytes:
    """
    Send a message as a QMQP client.

    @return: the reply without its netstring.
    """
    request = b"".join(map(netstring, (case.content, case.sender, *case.recipients)))
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(netstring(request))
        reply = b""
        while data := connection.recv(65536):
            reply += data
    return reply.partition(b":")[2][:-1]


def neutral(content: bytes) -> bytes:
    """
    @return: a message without what must differ: queue id and times.
    """
    found = _ID.search(content)
    if found:
        content = content.replace(found.group(1), b"QUEUEID")
    return _STAMP.sub(b"<STAMP.", _DATE.sub(b"DATE", content))


@frozen
class Seen:
    """What became of a message."""

    reply: bytes
    sender: bytes = b""
    recipients: frozenset[bytes] = frozenset()
    content: bytes = b""


class ContentComparison(SynchronousTestCase):
    """Postfix and we agree on what a message becomes."""

    def setUp(self) -> None:
        self.sink = Sink()
        self.addCleanup(self.sink.__exit__)
        self.postfix = PrivatePostfix({"relayhost": f"[127.0.0.1]:{self.sink.port}", **SETTINGS})
        self.addCleanup(self.postfix.stop)
        self.postfix.start()

    def postfix_results(self, cases: list[Case]) -> list[Seen]:
        """
        Send all, then collect by queue id.
        """
        replies = [qmqp(self.postfix.port, case) for case in cases]
        accepted = [reply.rpartition(b" ")[2] for reply in replies if reply.startswith(b"K")]
        before: dict[bytes, Delivery] = {}
        for count in range(1, 400):
            for delivery in self.sink.wait_for(len(self.sink.deliveries) + 1, 0.1):
                found = _ID.search(delivery.content)
                if found:
                    before[found.group(1)] = delivery
            if all(queue_id in before for queue_id in accepted):
                break
            if count == 399:
                self.fail(f"Postfix delivered only {len(before)}: {self.postfix.log()[-2000:]}")
        results = []
        for reply in replies:
            if not reply.startswith(b"K"):
                results.append(Seen(reply))
                continue
            delivery = before[reply.rpartition(b" ")[2]]
            results.append(
                Seen(
                    b"K",
                    delivery.sender.partition(b" SIZE=")[0],
                    frozenset(delivery.recipients),
                    neutral(delivery.content.replace(b"\r\n", b"\n")),
                )
            )
        return results

    def our_results(self, cases: list[Case]) -> list[Seen]:
        """
        The same through our cleanup and a queue in memory.
        """
        intake = Intake()
        results = []
        for case in cases:
            finished = intake.send([case.content], case.sender, case.recipients)
            if not intake.arrivals.stored:
                error = self.failureResultOf(finished, IntakeError).value
                results.append(Seen((b"D" if error.permanent else b"Z") + error.text.encode()))
                continue
            stored = intake.arrivals.stored.pop()
            sender = stored.envelope.sender
            results.append(
                Seen(
                    b"K",
                    b"<%s>" % (quote_address(sender) if sender else b""),
                    frozenset(b"<%s>" % quote_address(address) for address, _ in stored.recipients),
                    neutral(stored.content),
                )
            )
        return results

    def compare(self, cases: list[Case]) -> None:
        """
        @raise FailTest: naming all that differ.
        """
        theirs, ours = self.postfix_results(cases), self.our_results(cases)
        different = [
            f"{case.name}:\n  Postfix {_brief(their)}\n  ours    {_brief(our)}"
            for case, their, our in zip(cases, theirs, ours, strict=True)
            if their != our
        ]
        self.assertEqual(different, [], "\n".join(different))

    def test_content(self) -> None:
        """
        Headers, bodies and replies.
        """
        self.compare(CONTENT)

    def test_header_addresses(self) -> None:
        """
        Addresses in headers are completed, and otherwise not touched.
        """
        start = b"Message-Id: <m@x>\nDate: d\nFrom: f@x\n"
        self.compare([Case(repr(header[:60]), start + header + b"\n\nb\n") for header in ADDRESSES])

    def test_senders(self) -> None:
        """
        Envelope senders, and the From header that is made of them.
        """
        self.compare([Case(repr(address), b"Subject: a\n\nb\n", sender=address) for address in ENVELOPE])

    def test_recipients(self) -> None:
        """
        Envelope recipients, and the C{for} clause.
        """
        self.compare(
            [Case(repr(address), b"Subject: a\n\nb\n", recipients=(address,)) for address in ENVELOPE]
        )


def _brief(seen: Seen) -> str:
    content = seen.content
    if len(content) > 700:
        content = content[:300] + b" ... %d bytes ... " % len(content) + content[-300:]
    return f"{seen.reply!r} {seen.sender!r} {sorted(seen.recipients)!r} {content!r}"
