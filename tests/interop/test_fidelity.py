"""
The same messages through Postfix and through our whole service reach the destination as the same bytes.

Compared is what was on the wire after DATA, dots and line ends included, for a server with 8BITMIME and for
one without. Where we mean to differ, the message is named here with what differs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.fidelity_cases import FIDELITY
from tests.interop.scripted_smtp import ScriptedServer, Transaction
from tests.peers import PrivatePostfix, free_port, scratch
from tests.service import RunningService, qmqp_send

SETTINGS = {
    "compatibility_level": "3.6",
    "qmqpd_error_delay": "0",
    "transport_maps": "inline:{{eight.test=smtp:[127.0.0.1]:%d}, {seven.test=smtp:[127.0.0.1]:%d}}",
}

EXTRA_LINE = frozenset({"998 bytes in the last line, no newline", "1995 bytes in the last line, no newline"})
"""
A last line that fills the last line of its folding and has no line end: Postfix sends a further line with a
blank, which was in no message.
"""

DECLARED = frozenset(
    {
        "8-bit without MIME",
        "every byte",
        "8-bit, CTE 7bit",
        "8-bit, CTE base64",
        "8-bit, CTE quoted-printable",
        "8-bit header",
        "long 8-bit line without MIME",
        "large 8-bit without MIME",
        "cleanup: 8 bit",
        "cleanup: 8 bit in a name",
    }
)
"""
Content with 8-bit bytes that no MIME header announces: we say C{BODY=8BITMIME} all the same, because that is
what follows; Postfix does not.
"""

_DATE = re.compile(rb"[A-Z][a-z]{2}, [ 0-9]\d [A-Z][a-z]{2} \d{4} [\d:]{8} [-+]\d{4} \(\w+\)")
_ID = re.compile(rb"\r\n\tby relay\.test \(Postfix\) with QMQP id (\w+)\r\n")
_STAMP = re.compile(rb"<\d{14}\.ID@")


def neutral(content: bytes) -> bytes:
    """
    @return: content as on the wire, without queue id and times.
    """
    found = _ID.search(content)
    assert found is not None, content[:500]
    return _STAMP.sub(b"<STAMP.ID@", _DATE.sub(b"DATE", content.replace(found.group(1), b"ID")))


class FidelityTests(SynchronousTestCase):
    """Byte for byte."""

    def collect(self, port: int, eight: ScriptedServer, seven: ScriptedServer) -> Mapping[str, Transaction]:
        """
        Send all messages to both servers.

        @return: what they got, by server and message.
        """
        accepted = []
        for number, (name, content) in enumerate(FIDELITY.items()):
            for domain in ("eight", "seven"):
                recipient = f"c{number}@{domain}.test"
                reply = qmqp_send(port, content, b"sender@source.test", [recipient.encode()])
                if reply.startswith(b"K"):
                    accepted.append((f"{domain}: {name}", recipient.encode()))
                else:
                    self.assertEqual((name, reply), ("cleanup: too many hops", b"DError: too many hops"))
        taken = [*eight.wait_for(len(accepted) // 2, 60), *seven.wait_for(len(accepted) // 2, 60)]
        self.assertEqual(len(taken), len(accepted))
        found = {each.recipients[0]: each for each in taken}
        return {name: found[recipient] for name, recipient in accepted}

    def through_postfix(self) -> Mapping[str, Transaction]:
        """
        @return: what Postfix delivers.
        """
        with ScriptedServer() as eight, ScriptedServer(eight_bit_mime=False) as seven:
            settings = {**SETTINGS, "transport_maps": SETTINGS["transport_maps"] % (eight.port, seven.port)}
            with PrivatePostfix(settings) as postfix:
                return self.collect(postfix.port, eight, seven)

    def through_us(self) -> Mapping[str, Transaction]:
        """
        @return: what we deliver.
        """
        folder = scratch()
        self.addCleanup(shutil.rmtree, folder)
        with ScriptedServer() as eight, ScriptedServer(eight_bit_mime=False) as seven:
            settings = {**SETTINGS, "transport_maps": SETTINGS["transport_maps"] % (eight.port, seven.port)}
            lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
            with RunningService(folder, free_port(), lines) as service:
                return self.collect(service.port, eight, seven)

    def test_same_bytes(self) -> None:
        """
        All messages but the named ones are the same, and those differ in what is said of them.
        """
        theirs, ours = self.through_postfix(), self.through_us()
        self.assertEqual(ours.keys(), theirs.keys())
        for name, mine in ours.items():
            other = theirs[name]
            expected = neutral(other.content)
            if name.partition(": ")[2] in EXTRA_LINE:
                self.assertTrue(expected.endswith(b"x\r\n \r\n.\r\n"), expected[-20:])
                expected = expected.removesuffix(b" \r\n.\r\n") + b".\r\n"
            self.assertEqual(neutral(mine.content), expected, name)
            command = other.mail
            if name.partition(": ")[2] in DECLARED and name.startswith("eight"):
                self.assertNotIn(b"BODY=", command)
                command += b" BODY=8BITMIME"
            self.assertEqual(mine.mail, command, name)

    def test_untouched(self) -> None:
        """
        What SMTP can carry as it is arrives as it was sent: our Received header apart, nothing is added to a
        complete message, and nothing is taken away.
        """
        sent = {
            name: content
            for name, content in FIDELITY.items()
            if b"\r" not in content
            and content.endswith(b"\n")
            and content.startswith(b"Message-Id: <m@x>\nDate: d\nFrom: f@x\n")
            and b"\n\n" in content
            and max(map(len, content.split(b"\n"))) <= 998
            and not name.startswith("cleanup: ")
        }
        self.assertGreater(len(sent), 25)
        ours = self.through_us()
        for name, content in sent.items():
            wire = ours[f"eight: {name}"].content.removesuffix(b".\r\n")
            lines = [line.removeprefix(b".") for line in wire.split(b"\r\n")]
            self.assertEqual(b"\n".join(lines[3:]), content, name)
