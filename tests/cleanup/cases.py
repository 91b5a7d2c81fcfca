"""
Messages that are hard to get right, for the unit tests and for the comparison with Postfix.
"""

from __future__ import annotations

from attrs import frozen

COMPLETE = b"Message-Id: <m@x>\nDate: d\nFrom: f@x\n"
"""Headers to which nothing is added."""


@frozen
class Case:
    """
    One message.

    @ivar name: for the failure report.
    """

    name: str
    content: bytes
    sender: bytes = b"s@ex.test"
    recipients: tuple[bytes, ...] = (b"r@dest.test",)


def _with(headers: bytes, body: bytes = b"\nb\n") -> bytes:
    return COMPLETE + headers + body


CONTENT = [
    Case("plain", b"Subject: x\n\nbody\n"),
    Case("empty", b""),
    Case("only a newline", b"\n"),
    Case("only body", b"hello\nworld\n"),
    Case("body after an empty line", b"\nFrom foo bar\nX: y\n\nb\n"),
    Case("no final newline", b"Subject: a\n\nlast"),
    Case("header without final newline", b"Subject: a"),
    Case("two recipients", b"Subject: a\n\nb\n", recipients=(b"a@dest.test", b"b@dest.test")),
    Case("the same recipient twice", b"Subject: a\n\nb\n", recipients=(b"a@dest.test", b"A@dest.test")),
    Case("no recipient", b"Subject: a\n\nb\n", recipients=()),
    Case("null sender", b"Subject: a\n\nb\n", sender=b""),
    Case("bare addresses", b"Subject: a\n\nb\n", sender=b"joe", recipients=(b"bob",)),
    Case("quoted addresses", b"Subject: a\n\nb\n", b"joe doe@x.test", (b"bob x@y.test",)),
    Case("From line", b"From joe Mon\nSubject: a\n\nb\n"),
    Case("From lines", b"From joe Mon\n>From joe Mon\n>>From x\nSubject: a\n\nFrom b\n"),
    Case("From line, continued", b"From foo\n \tbar\n>From X\nX: y\n\nb\n"),
    Case("From line with colon", b"From  foo: bar\nX: y\n\nb\n"),
    Case("From line with CR", b"From joe\r\nX: y\r\n\r\nb\n"),
    Case("From line with NUL", b"From joe\0e\nX: y\n\nb\n"),
    Case("nothing but From", b"From "),
    Case("From line among headers", b"Subject: a\nFrom joe Mon\nX: y\n\nb\n"),
    Case(">From line among headers", b"Subject: a\n>From joe Mon\nX: y\n\nb\n"),
    Case("from line in lower case", b"from foo\nX: y\n\nb\n"),
    Case("no blank after the colon", b"Subject:a\nX:\nY:  two\n\nb\n"),
    Case("blank before the colon", b"Subject : a\nX\t: b\nTo : joe@x\n\nb\n"),
    Case("colon on the next line", _with(b"Foo\n : bar\n")),
    Case("blank before the colon, folded", _with(b"Foo :\n bar\nX: y\n")),
    Case("a line that is no header", b"Subject: a\nbroken line\nX: y\n\nb\n"),
    Case("folded", b"Subject: a\n  b\n\tc\nX: y\n\nb\n"),
    Case("starts with a blank", b"  cont\nSubject: a\n  b\n\tc\nX: y\n\nb\n"),
    Case("starts with a tab", b"\tcont: x\nSubject: a\n\nb\n"),
    Case("a line of blanks", b"Subject: a\n \nX: y\n\nb\n"),
    Case("a line of blanks first", b" \nX: y\n\nb\n"),
    Case("CR LF", b"Subject: a\r\nX: y\r\n\r\nbody\r\n.\r\n..\r\nend\r\n"),
    Case("CR LF and a colon", _with(b"", b"\r\nhello: b\r\nX\n")),
    Case("CR anywhere", b"Subject: a\rb\nX: y\r\n\nbo\rdy\nx\r\r\ny\n"),
    Case("CR in a name", _with(b"Sub\rject: a\nX: y\n")),
    Case("CR first", _with(b"X: y\n\rSubject: a\n")),
    Case("CR at the end", _with(b"", b"\nx\r")),
    Case("NUL", b"Subject: a\0b\nX: y\n\nbo\0dy\n"),
    Case("NUL in a name", _with(b"Sub\0ject: a\nX: y\n")),
    Case("NUL, folded", _with(b"Subject: a\0b\n cd\0e\nX: y\n")),
    Case("8 bit", b"Subject: \xe9\nX: y\n\nb\xe9\xff\n"),
    Case("8 bit in a name", _with(b"S\xe9: foo\nend: x\n")),
    Case("controls in a name", _with(b"S\x01: foo\nend: x\n")),
    Case("blank in a name", _with(b"S b: foo\nend: x\n")),
    Case("odd name", _with(b'S(){}<>@,;/[]?="\\b: foo\nend: x\n')),
    Case("empty name", _with(b": foo\nend: x\n")),
    Case("vertical tab", _with(b"X: a\x0bb\x0cc\n\x0bfoo\n")),
    Case("dots", b"Subject: a\n\n.\n..\n.a\n.\n"),
    Case("many newlines", _with(b"", b"\nx\n\n\n")),
    Case(
        "dropped headers",
        b"Return-Path: <a@b>\nBcc: x@y, \n z@y\nContent-Length: 9\nreturn-path: a\nX: y\nBCC: q\n\nb\n",
    ),
    Case("dropped Resent-Bcc", b"Resent-Bcc: foo\nX: y\n\nb\n"),
    Case("Resent-To", b"Resent-To: a@b\nX: y\n\nb\n"),
    Case("Resent-From", b"Resent-From: a@b\nSubject: y\n\nb\n"),
    Case("Resent-Sender", b"Resent-Sender: a@b\n" + _with(b"Subject: y\n")),
    Case("Resent, complete", b"Resent-Date: a\nResent-Message-Id: <x@y>\nResent-From: a@b\n\nb\n"),
    Case("empty headers", b"To:\nCc: \nDate:\nFrom:\nMessage-Id:\n\nb\n"),
    Case("odd Message-Id", b"Message-Id: foo bar\n\nb\n"),
    Case("folded Message-Id", b"MESSAGE-ID:   <foo\n @bar>  (c)\n\nb\n"),
    Case("long line in the body", _with(b"", b"\n" + b"q" * 3000 + b"\n" + b"r" * 60000 + b"\nend")),
    Case("long header line", _with(b"X: " + b"a" * 3000 + b"\nY: z\n")),
    Case("long first line of the body", _with(b"", b"q" * 3000 + b"\nend")),
    Case("long line with a late colon", _with(b"q" * 3000 + b": foo\nend: x\n")),
    Case("long name", _with(b"q" * 2000 + b": foo\nend: x\n")),
    Case("header over the limit", _with(b"X: " + b"a" * 110000 + b"\nY: z\n")),
    Case("header over the limit, folded", _with(b"X: " + b"a" * 110000 + b"\n xxx\nY: z\n")),
    Case("folded header over the limit", _with(b"X: a\n" + (b" " + b"b" * 98 + b"\n") * 1100 + b"Y: z\n")),
    Case(
        "folded header over the limit, long lines",
        _with(b"X: " + (b"b" * 30000 + b"\n ") * 4 + b"c\nY: z\n"),
    ),
    Case("hop count", b"Received: x\n" * 48 + _with(b"")),
    Case("too many hops", b"Received: x\n" * 49 + _with(b"")),
    Case("Received in the body", _with(b"", b"\n" + b"Received: x\n" * 60)),
    Case("many headers, no From", b"".join(b"X-%d: %s\n" % (i, b"y" * 60) for i in range(500)) + b"\nb\n"),
    Case(
        "addresses everywhere",
        b"From: me\nReply-To: z (comment)\nSender: q\nErrors-To: e\nSubject: joe\nX-To: joe\n"
        b"Return-Receipt-To: rr\nDisposition-Notification-To: dd\nApparently-To: at\nMail-Followup-To: mft\n"
        b"Mail-Reply-To: mrt\nDelivered-To: a\nAbuse-Reports-To: a\nOriginal-Recipient: a\n"
        b"to: a\nTO : a\n\nb\n",
    ),
]

ADDRESSES = [
    b"To:  joe@host ,  x@y.test",
    b"To: joe, Bob <bob>,  x@y.test",
    b"To: a@b,c",
    b"To:a,b",
    b"To: a b <c>, d",
    b"To: a.b <c>, d",
    b'To: "x,y" <c>,d',
    b"To: (foo) a (bar), b (baz)",
    b"To: list: a, b;, c",
    b"To: list:a@b,c@d;",
    b"To: list: a@b;, c",
    b"To: undisclosed-recipients:;",
    b"To: undisclosed-recipients:;, a",
    b"To: <a>",
    b"To: <>",
    b"To: <>, a",
    b"To: a!b",
    b"To: a%b@c",
    b"To: a%b",
    b"To: a@b.",
    b"To: <@a,@b:c@d>",
    b"To: a@",
    b"To: @b",
    b"To: a@b@c",
    b'To: "a b"@c',
    b'To: "a b"',
    b'To: "ab"@c',
    b'To: "ab"@c, d',
    b'To: "a.b"@c, <"x y"@z>',
    b"To: <a@b> (c), J <a@b>",
    b"To: a@b (c)",
    b'To: "J \\"D\\"" <a@b>, c',
    b"To: a@b\n",
    b"To: a@B.TEST, <A@b.test>",
    b"To: =?utf-8?q?a=2C_b?= <a@b>",
    b"To: a@b; c@d",
    b"To: a b",
    b"To: a b@c",
    b"To: a@b c",
    b"To: a\\b",
    b'To: \\"a',
    b"To: (a",
    b"To: a,,b",
    b"To: ,a",
    b"To: a,",
    b"To: a@b,",
    b"To:   a  ,  b  ",
    b"To:\ta",
    b"To: a\n b,\n c",
    b"To: a@b,\n c@d,\n e",
    b"To:\n a",
    b"To: joe blow <joe@x>, =?utf-8?q?J=C3=B6?= <joe>",
    b"To: \xe9 <joe>",
    b"To: \xe9",
    b"To: J. Doe <joe>",
    b'To: J. Doe <joe@x.test>, "J. Doe" <joe@x.test>',
    b"To: J (c1) D (c2) <joe> (c3)",
    b'To: "J\\"D" <joe>',
    b"To: root@localhost",
    b"To: a@[1.2.3.4], b",
    b"To: a . b @ c",
    b"To: a . b @ c, d",
    b"To: a@b (x\n y), c",
    b"To: a@b (x\\)y), c",
    b"To: a, " + b", ".join(b"user%d@example.test" % number for number in range(12)),
    b"To: " + b", ".join(b"J D <a" + b"b" * number + b"@b>" for number in range(20)) + b", x",
    b"To: " + b" ".join([b"J"] * 80) + b" <x>, y",
    b"Cc: list: " + b", ".join(b"a" * number + b"@b" for number in range(1, 20)) + b", x;, zz",
]
"""Headers with addresses; those that Postfix changes and those that it does not touch."""

ENVELOPE = [
    b"@a,@b:c@d.test",
    b"a!b",
    b"a%b@relay.test",
    b"a%b",
    b"joe@x.test.",
    b"a b",
    b'"a b"@x.test',
    b"a\\b@x.test",
    b"a@b@c.test",
    b"a,b@x.test",
    b"a;b@x",
    b"(c)joe@x.test",
    b"joe@[1.2.3.4]",
    b" joe@x.test ",
    b"a..b@x.test",
    b".a@x.test",
    b"postmaster",
    b"JOE@X.TEST",
    b"a" * 300 + b"@x.test",
    b"joe@host",
    b"joe@ x.test",
    b"joe @x.test",
    b"joe@x .test",
    b"joe@@x.test",
    b"joe@x.test\\",
    b'"joe',
    b"a!b@c.test",
    b"user%x.test@relay.test",
    b"@x.test",
    b"",
    b"MAILER-DAEMON",
    b"mailer-daemon@relay.test",
    b"MAILER-DAEMON@x.test",
    b"double-bounce",
]
"""Envelope addresses in internal form that Postfix delivers to."""
