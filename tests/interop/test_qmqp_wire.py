"""
What Postfix's qmqpd answers and logs to right and wrong input, and what we do: side by side.

Each case is sent to both, followed by the end of the client's data. C{SAME} cases must give the same reply
and the same log lines, queue ids apart. C{DIFFERENT} ones are where we mean to differ: the replies of both
sides are written down here.
"""

from __future__ import annotations

import re
import socket

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.verp import split_verp
from tests.interop.qmqp_server import QMQPServerTestCase
from tests.peers import PrivatePostfix
from tests.qmqp.packets import RECIPIENT, SENDER, packet
from tests.service import wait_until

PLAIN = packet()
BODY = PLAIN.split(b":", 1)[1]
LIMIT = 10240000

SAME: dict[str, bytes] = {
    "a message": PLAIN,
    "nothing at all": b"",
    "not a digit": b"x",
    "negative length": b"-5:",
    "signed length": b"+5:",
    "a line end": b"\n",
    "an HTTP request": b"GET / HTTP/1.0\r\n\r\n",
    "comma for the colon": b"5,",
    "space after a length": encode(b"2 :x\n," + encode(SENDER) + encode(RECIPIENT)),
    "leading zero": b"0" + PLAIN,
    "many leading zeros": b"0" * 5000 + PLAIN,
    "largest length": b"9223372036854775807:x",
    "length beyond all": b"9223372036854775808:x",
    "digits without end": b"9" * 40,
    "content too large": b"20000000:%d:" % (LIMIT + 1),
    "content at the limit, cut off": b"20000000:%d:x" % LIMIT,
    "content that is no netstring": encode(b"x"),
    "content without colon": encode(b"5x"),
    "content without comma": encode(b"3:abcX"),
    "content length beyond all": b"50:99999999999999999999:",
    "content length not a digit": b"50:,",
    "sender that is no netstring": encode(b"2:x\n,x"),
    "sender without comma": encode(b"2:x\n,1:ax"),
    "sender at the limit": packet(sender=b"a" * 500 + b"@example.com"),
    "sender too long": packet(sender=b"a" * 501 + b"@example.com"),
    "recipient that is no netstring": encode(b"2:x\n," + encode(SENDER) + b"x"),
    "recipient without comma": encode(b"2:x\n," + encode(SENDER) + b"1:ax"),
    "recipient too long": packet(recipients=[RECIPIENT, b"a" * 513]),
    "second recipient wrong": encode(b"2:x\n," + encode(SENDER) + encode(RECIPIENT) + b"x"),
    "no recipients": packet(recipients=[]),
    "null sender": packet(sender=b""),
    "empty content": packet(content=b""),
    "lengths without digits": encode(b":," + encode(SENDER) + encode(RECIPIENT)),
    "NUL in the sender": packet(sender=b"a\0b@example.com"),
    "8-bit recipient": packet(recipients=[b"\xe9\xe9@example.org"]),
    "VERP": packet(sender=b"list-@example.com-@[]"),
    "VERP delimiter not allowed": packet(sender=b"list!@example.com-@[]"),
    "VERP delimiter not allowed, no recipients": packet(sender=b"list!@example.com-@[]", recipients=[]),
    "VERP delimiter not allowed, then a format error": encode(
        b"2:x\n," + encode(b"list!@example.com-@[]") + b"x"
    ),
    "VERP without origin": packet(sender=b"list-@-@[]"),
    "qmail's double bounce sender": packet(sender=b"#@[]"),
    "end in a length": b"12",
    "end in the content": b"120:100:abc",
    "end after the content": b"120:2:x\n,",
    "end in the sender": b"120:2:x\n,5:ab",
    "end in a recipient": b"120:2:x\n,5:a@b.c,5:ab",
    "data after the packet": PLAIN + b"x",
    "two packets": PLAIN + PLAIN,
    "space before the length": b" 5:",
    "a dot in the length": b"5.0:",
    "NUL for the length": b"\0",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a PROXY header": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PLAIN,
    "sender length beyond all": encode(b"2:x\n,99999999999999999999:"),
    "sender length not a digit": encode(b"2:x\n,-1:a,"),
    "recipient length beyond all": encode(b"2:x\n," + encode(SENDER) + b"99999999999999999999:"),
    "recipient length negative": encode(b"2:x\n," + encode(SENDER) + b"-1:a,"),
    "end in the sender's length": b"120:2:x\n,5",
    "end after the sender": b"120:2:x\n,5:a@b.c,",
    "empty recipient": packet(recipients=[b""]),
    "empty recipient among others": packet(recipients=[RECIPIENT, b"", RECIPIENT]),
    "a hundred recipients": packet(recipients=[b"u%d@example.org" % number for number in range(100)]),
    "the same recipient twice": packet(recipients=[RECIPIENT, RECIPIENT]),
    "content of a line end": packet(content=b"\n"),
    "content with CR LF": packet(content=b"Subject: x\r\n\r\nbody\r\n"),
    "content without header": packet(content=b"\nbody\n"),
    "content with NUL": packet(content=b"Subject: x\n\n\0\n"),
    "8-bit content": packet(content=b"Subject: \xc3\xbc\n\n\xff\n"),
    "8-bit sender": packet(sender=b"\xe9@example.com"),
    "UTF-8 in both": packet(sender="ü@exämple.com".encode(), recipients=["ü@exämple.org".encode()]),
    "sender of spaces": packet(sender=b"   "),
    "VERP with a delimiter from the local part": packet(sender=b"ab@example.com-@[]"),
    "VERP with a quoted at sign": packet(sender=b'"q@r"-@example.com-@[]'),
    "VERP with equal delimiters": packet(sender=b"list=@example.com-@[]"),
    "VERP twice": packet(sender=b"list-@example.com-@[]-@[]"),
    "VERP without prefix": packet(sender=b"-@example.com-@[]"),
    "VERP suffix only": packet(sender=b"-@[]"),
    "VERP suffix cut": packet(sender=b"list-@example.com-@["),
}

K = b"KOk: queued as ID"
NO_RECIPIENTS = b"DError: no recipients specified"
BEYOND = b"Dnetstring exceeds the length in the packet header while receiving "

DIFFERENT: dict[str, tuple[bytes, bytes, bytes]] = {
    # What is sent: what Postfix says, what we say.
    "packet length too small": (b"5:" + BODY, K, BEYOND + b"message content"),
    "packet length one too small": (
        b"%d:" % (len(BODY) - 2) + BODY,
        K,
        BEYOND + b"recipient address",
    ),
    "packet length too large": (
        b"500:" + BODY,
        K,
        b"Dnetstring format error while receiving recipient address",
    ),
    "packet length too large, no recipients": (
        b"500:2:x\n,1:a,,",
        NO_RECIPIENTS,
        b"Dnetstring format error while receiving recipient address",
    ),
    "a colon": (b":", b"", BEYOND + b"message content"),
    "empty packet": (
        b"0:,",
        b"Dnetstring format error while receiving message content",
        BEYOND + b"message content",
    ),
    "VERP with a control character": (
        packet(sender=b"list\x01@example.com-@[]"),
        b'DError: Invalid VERP delimiters: "\x01=". Need two characters from "-=+"',
        b'DError: Invalid VERP delimiters: "?=". Need two characters from "-=+"',
    ),
    # The replies are the same here; the log says "trailer" instead of "recipient address".
    "end before the last comma": (PLAIN[:-1], b"", b""),
    "wrong last comma": (
        PLAIN[:-1] + b"x",
        b"Dnetstring format error while receiving recipient address",
        b"Dnetstring format error while receiving QMQP packet trailer",
    ),
}


def talk(port: int, data: bytes) -> bytes:
    """Send, finish sending, and read until the server closes. The reply, or what came instead of one."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        try:
            while chunk := connection.recv(65536):
                reply += chunk
        except ConnectionResetError:
            # Postfix closes with our data unread.
            pass
    return reply


def normal_reply(reply: bytes) -> bytes:
    """The text in the netstring, its queue id apart."""
    if not reply:
        return b""
    length, _colon, rest = reply.partition(b":")
    assert rest[int(length) :] == b",", reply
    return re.sub(rb"queued as [0-9A-Za-z]+", b"queued as ID", rest[:-1])


def normal_lines(lines: list[str]) -> list[list[str]]:
    """What was logged for each connection; its queue ids apart."""
    sessions: list[list[str]] = []
    for line in lines:
        if line.startswith("connect from"):
            sessions.append([])
        # Postfix opens a message for a connection that never says anything; we do not.
        line = re.sub(r"^(warning: )?([0-9A-F]{6,}|ID\d+|NOQUEUE): ", r"\1ID: ", line)
        sessions[-1].append(line)
    return sessions


VERP_SENDERS = (
    b"list-@example.com-@[]",
    b"a@b-@[]",
    b"-@b.com-@[]",
    b"list-@-@[]",
    b"a-@b.com@c.com-@[]",
    b"list+@x.com-@[]",
    b"list=@x.com-@[]",
    b"LIST-@X.COM-@[]",
    b"list--@x.com-@[]",
    b"list-@x.com@[]",
    b"a b-@x.com-@[]",
    b"@x.com-@[]",
    b"-list-@x.com-@[]",
    b"list-@[192.0.2.1]-@[]",
    b"#@[]",
)
"""What a sender with and without VERP can look like; all are accepted."""


class WireTests(QMQPServerTestCase):
    """One Postfix for all cases: it takes a second to start."""

    config = "qmqpd_error_delay = 0\nline_length_limit = 512\n"

    async def test_side_by_side(self) -> None:
        postfix = PrivatePostfix(
            {"qmqpd_error_delay": "0", "line_length_limit": "512", "default_transport": "discard"}
        )
        # One process, so that its log has one connection after the other.
        master = postfix.config / "master.cf"
        master.write_text(master.read_text().replace("50 qmqpd", "1 qmqpd"))
        cases = {**SAME, **{name: data for name, (data, _theirs, _ours) in DIFFERENT.items()}}
        with postfix:
            theirs = {
                name: normal_reply(await deferToThread(talk, postfix.port, data))
                for name, data in cases.items()
            }
            # The first of its connections only waited for it to start.
            await deferToThread(
                wait_until,
                lambda: postfix.log().count("]: disconnect from") > len(cases),
                20,
                "all of its log",
            )
            log = [
                line.partition("]: ")[2] for line in postfix.log().splitlines() if "postfix/qmqpd[" in line
            ]
        ours = {
            name: normal_reply(await deferToThread(talk, self.port, data)) for name, data in cases.items()
        }
        for name in SAME:
            self.assertEqual((name, ours[name]), (name, theirs[name]))
        for name, (_data, their_reply, our_reply) in DIFFERENT.items():
            self.assertEqual((name, theirs[name], ours[name]), (name, their_reply, our_reply))
        their_log = dict(zip(cases, normal_lines(log)[-len(cases) :], strict=True))
        our_log = dict(zip(cases, normal_lines(self.lines), strict=True))
        for name in SAME:
            expected = their_log[name]
            if name == "nothing at all":
                expected = [line for line in expected if "client=" not in line]
            self.assertEqual((name, our_log[name]), (name, expected))


class SenderTests(SynchronousTestCase):
    """What VERP senders are split into: as Postfix's queue files have it."""

    def test_side_by_side(self) -> None:
        settings = {"qmqpd_error_delay": "0", "defer_transports": "smtp", "default_transport": "smtp"}
        with PrivatePostfix(settings) as postfix:
            theirs = {}
            for sender in VERP_SENDERS:
                reply = talk(postfix.port, packet(sender=sender))
                queue_id = re.search(rb"queued as (\w+)", reply)
                assert queue_id is not None, (sender, reply)
                text = postfix.command("postcat", "-e", "-q", queue_id[1].decode())
                found = dict(re.findall(rb"^(sender|verp_delimiters): (.*)$", text, re.MULTILINE))
                theirs[sender] = (found[b"sender"], found.get(b"verp_delimiters"))
        for sender in VERP_SENDERS:
            split = split_verp(sender)
            # What does not end in a domain has our origin appended; that is cleanup's work.
            ours = (split.sender, split.delimiters)
            self.assertEqual((sender, ours), (sender, theirs[sender]))


class NumberTests(SynchronousTestCase):
    def test_number_of_cases(self) -> None:
        self.assertGreaterEqual(len(SAME) + len(DIFFERENT) + len(VERP_SENDERS), 90)
