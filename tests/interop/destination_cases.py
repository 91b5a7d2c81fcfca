"""
What a destination can do to a message, and what must become of it: one table for the tests on a clock, for
those with real sockets, and for the comparison with Postfix.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from tests.interop.scripted_smtp import Act, Script

HOST = "127.0.0.1[127.0.0.1]"
SENDER = b"sender@source.test"
SMALL = b"From: sender@source.test\nSubject: small\n\nHello.\n"
LARGE_LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"


@frozen(eq=False)
class Case:
    """
    One way to behave.

    @ivar name: for the domain of its recipients, and for the failure report.
    @ivar script: what the server does.
    @ivar status: sent, deferred or bounced.
    @ivar dsn: the status code.
    @ivar text: what is in parentheses, with C{HOST} for the server and C{PORT} for its port.
    @ivar setup: how long connection set-up takes with Postfix's default time limits, in seconds.
    @ivar transfer: the same for the rest of the delivery.
    @ivar connects: whether there is a connection: C{""}, or how it fails: C{refused} or C{timeout}.
    @ivar pipelining: whether the server offers it.
    @ivar large: whether the message is more than what the network holds on the way.
    @ivar dead: whether the destination counts as dead from then on.
    """

    name: str
    script: Script
    status: str
    dsn: str
    text: str
    setup: float = 0.0
    transfer: float = 0.0
    connects: str = ""
    pipelining: bool = True
    large: bool = False
    dead: bool = False

    @property
    def domain(self) -> str:
        """The domain of its recipients."""
        return self.name.replace(" ", "-") + ".test"

    @property
    def recipient(self) -> bytes:
        """Its recipient."""
        return b"user@" + self.domain.encode()

    def text_for(self, port: int) -> str:
        """
        @return: what is in parentheses in the log.
        """
        return self.text.replace("HOST", HOST).replace("PORT", str(port))

    def relay_for(self, port: int) -> str:
        """
        @return: what is after C{relay=} in the log.
        """
        return "none" if self.connects else f"{HOST}:{port}"


def _lost(stage: str) -> str:
    return f"lost connection with HOST while {stage}"


def _timed_out(stage: str) -> str:
    return f"conversation with HOST timed out while {stage}"


_GREETING = "receiving the initial server greeting"
_REFUSED = "host HOST refused to talk to me: "
_BODY = "sending message body"
_END = "sending end of data -- message may be sent more than once"


def _handshake() -> Sequence[Case]:
    """Failures up to HELO: the destination's, whoever the mail is for."""
    no = b"502 5.5.1 no"
    ehlo, helo = "performing the EHLO handshake", "performing the HELO handshake"

    def dead(name: str, script: Script, dsn: str, text: str, setup: float = 0.0, connects: str = "") -> Case:
        return Case(name, script, "deferred", dsn, text, setup, connects=connects, dead=True)

    return [
        dead("refused", {}, "4.4.1", "connect to HOST:PORT: Connection refused", connects="refused"),
        dead("silent port", {}, "4.4.1", "connect to HOST:PORT: Connection timed out", 30.0, "timeout"),
        dead("greeting 4xx", {"greeting": b"450 4.3.2 busy"}, "4.3.2", _REFUSED + "450 4.3.2 busy"),
        dead("greeting 4xx without code", {"greeting": b"450 busy"}, "4.0.0", _REFUSED + "450 busy"),
        dead(
            "greeting 421",
            {"greeting": (b"421 4.3.2 going", Act.CLOSE)},
            "4.3.2",
            _REFUSED + "421 4.3.2 going",
        ),
        dead("greeting 5xx", {"greeting": b"554 5.3.2 never"}, "4.3.2", _REFUSED + "554 5.3.2 never"),
        dead("greeting hangs", {"greeting": Act.HANG}, "4.4.2", _timed_out(_GREETING), 300.0),
        dead("greeting closes", {"greeting": Act.CLOSE}, "4.4.2", _lost(_GREETING)),
        dead(
            "ehlo and helo 4xx",
            {"ehlo": b"450 4.3.2 busy", "helo": b"451 4.3.2 busy"},
            "4.3.2",
            _REFUSED + "451 4.3.2 busy",
        ),
        dead("ehlo 421", {"ehlo": b"421 4.3.2 busy"}, "4.3.2", _REFUSED + "421 4.3.2 busy"),
        dead("helo 4xx", {"ehlo": no, "helo": b"450 4.3.2 busy"}, "4.3.2", _REFUSED + "450 4.3.2 busy"),
        dead("ehlo hangs", {"ehlo": Act.HANG}, "4.4.2", _timed_out(ehlo), 300.0),
        dead("ehlo closes", {"ehlo": Act.CLOSE}, "4.4.2", _lost(ehlo)),
        dead("helo hangs", {"ehlo": no, "helo": Act.HANG}, "4.4.2", _timed_out(helo), 300.0),
        dead("helo closes", {"ehlo": no, "helo": Act.CLOSE}, "4.4.2", _lost(helo)),
        Case(
            "ehlo and helo 5xx",
            {"ehlo": no, "helo": b"550 5.7.1 no"},
            "bounced",
            "5.7.1",
            _REFUSED + "550 5.7.1 no",
        ),
        Case("ehlo 5xx", {"ehlo": no}, "sent", "2.0.0", "250 2.0.0 Ok: taken"),
        Case("ehlo 4xx", {"ehlo": b"450 4.3.2 no"}, "sent", "2.0.0", "250 2.0.0 Ok: taken"),
    ]


def _transaction(pipelining: bool) -> Sequence[Case]:
    """Failures from MAIL to the end of the content."""
    suffix = " pipelined" if pipelining else ""
    cases = []

    def add(name: str, script: Script, status: str, dsn: str, text: str, transfer: float = 0.0) -> None:
        cases.append(Case(name + suffix, script, status, dsn, text, transfer=transfer, pipelining=pipelining))

    for stage, command, doing, limit in (
        ("mail", "MAIL FROM", "sending MAIL FROM", 300.0),
        ("rcpt", "RCPT TO", "sending RCPT TO", 300.0),
        ("data", "DATA", "sending DATA command", 120.0),
        ("end", "end of DATA", _END, 600.0),
    ):
        reply = f"(in reply to {command} command)"
        said = "host HOST said: "
        add(
            f"{stage} 4xx", {stage: b"450 4.2.1 later"}, "deferred", "4.2.1", f"{said}450 4.2.1 later {reply}"
        )
        add(f"{stage} 5xx", {stage: b"550 5.7.1 never"}, "bounced", "5.7.1", f"{said}550 5.7.1 never {reply}")
        add(
            f"{stage} 5xx without code", {stage: b"550 never"}, "bounced", "5.0.0", f"{said}550 never {reply}"
        )
        add(
            f"{stage} 421",
            {stage: (b"421 4.3.2 going", Act.CLOSE)},
            "deferred",
            "4.3.2",
            f"{said}421 4.3.2 going {reply}",
        )
        add(f"{stage} hangs", {stage: Act.HANG}, "deferred", "4.4.2", _timed_out(doing), limit)
        add(f"{stage} closes", {stage: Act.CLOSE}, "deferred", "4.4.2", _lost(doing))
    add(
        "two lines", {"rcpt": b"550-5.7.1 one\r\n550 5.7.1 two"}, "bounced", "5.7.1",
        "host HOST said: 550-5.7.1 one 550 5.7.1 two (in reply to RCPT TO command)",
    )  # fmt: skip
    add("all well", {}, "sent", "2.0.0", "250 2.0.0 Ok: taken")
    return cases


CASES: Sequence[Case] = [
    *_handshake(),
    *_transaction(False),
    *_transaction(True),
    Case("body resets", {"body": Act.RESET}, "deferred", "4.4.2", _lost(_END)),
    Case("body closes", {"body": Act.CLOSE}, "deferred", "4.4.2", _lost(_END)),
    Case("large body resets", {"body": Act.RESET}, "deferred", "4.4.2", _lost(_BODY), large=True),
    Case(
        "large body hangs", {"body": Act.HANG}, "deferred", "4.4.2", _timed_out(_BODY), 0.0, 180.0, large=True
    ),
]
