"""
Scenarios of MIME structure: what the header, MIME header, nested header and body checks get to see
(header_checks(5)), and the strict_ parameters and limits.
"""

from __future__ import annotations

from tests.cleanup.cases import COMPLETE, Case
from tests.interop.intake_peers import Scenario

UTF8 = "Grüße aus Köln\n".encode()
MIME = b"MIME-Version: 1.0\n"

CHECKS = {
    "header_checks": "regexp:FOLDER/header",
    "mime_header_checks": "regexp:FOLDER/mime",
    "nested_header_checks": "regexp:FOLDER/nested",
    "body_checks": "regexp:FOLDER/body",
}
"""Each check says what it saw, in a line in front of it or in the log."""

FILES = {
    "header": "/^(X-Show|Content)[^:]*: *(.*)/ PREPEND X-Header: $2\n",
    "mime": "/^([^:]+): *(.*)/ PREPEND X-Mime-$1: $2\n",
    "nested": "/^([^:]+): *(.*)/ PREPEND X-Nested-$1: $2\n",
    "body": "/^(.{1,30})/ PREPEND [$1]\n",
}


def mail(name: str, headers: bytes, body: bytes) -> Case:
    """
    @return: a message that lacks nothing, with these headers, too.
    """
    return Case(name, COMPLETE + headers + b"\n" + body)


def multipart(boundary: bytes, kind: bytes = b"mixed") -> bytes:
    """
    @return: the headers of a message in parts.
    """
    return MIME + b'Content-Type: multipart/%b; boundary="%b"\n' % (kind, boundary)


PARTS = (
    b"preamble\n--b\nContent-Type: text/plain\nX-Show: part\n\none\n"
    b"--b\nContent-Type: text/html;\n charset=utf-8\n\ntwo\n--b--\nepilogue\n"
)
NESTED = (
    b"--b\nContent-Type: message/rfc822\n\nSubject: inner\nTo: joe, bob\n"
    b"Content-Type: text/plain\nX-Show: nested\n\ninner body\n--b--\n"
)
DEEP = (
    b'--b\nContent-Type: multipart/alternative; boundary="c"\n\n--c\nX-Show: deep\n\nx\n--c--\nbetween\n'
    b"--b\n\ny\n--b--\n"
)

MESSAGES = [
    mail("plain", b"X-Show: yes\nContent-Type: text/plain\n", b"one\ntwo\n"),
    mail("no MIME-Version", b"X-Show: yes\nContent-Transfer-Encoding: 8bit\n", UTF8),
    mail("parts", multipart(b"b"), PARTS),
    mail("parts, no MIME-Version", multipart(b"b").removeprefix(MIME), PARTS),
    mail("a message inside", multipart(b"b"), NESTED),
    mail(
        "a message as the whole", MIME + b"Content-Type: message/rfc822\n", b"Subject: in\nX-Show: x\n\nb\n"
    ),
    mail("a partial message", MIME + b"Content-Type: message/partial\n", b"Subject: in\nX-Show: x\n\nb\n"),
    mail("an external message", MIME + b"Content-Type: message/external-body\n", b"Subject: in\n\nb\n"),
    mail("only headers", MIME + b"Content-Type: text/rfc822-headers\n", b"Subject: in\nX-Show: x\n"),
    mail(
        "a delivery report",
        multipart(b"b", b"report"),
        b"--b\nContent-Type: message/delivery-status\n\nA: b\n\n",
    ),
    mail("parts in parts", multipart(b"b"), DEEP),
    mail("a digest", multipart(b"b", b"digest"), b"--b\n\nSubject: in\nX-Show: d\n\nbody\n--b--\n"),
    mail("no end", multipart(b"b"), PARTS.partition(b"--b--")[0]),
    mail("no end inside", multipart(b"b"), DEEP.replace(b"--c--\n", b"")),
    mail("boundary with blanks after it", multipart(b"b"), PARTS.replace(b"--b\n", b"--b  \t\n")),
    mail("boundary with more after it", multipart(b"b"), PARTS.replace(b"--b\n", b"--bc\n")),
    mail("boundary without quotes", multipart(b"b").replace(b'"', b""), PARTS),
    mail(
        "boundary with a comment", MIME + b"Content-Type: multipart/mixed (x); (y) boundary = b (z)\n", PARTS
    ),
    mail(
        "boundary after other parameters",
        MIME + b'Content-Type: multipart/mixed; x="; boundary=no"; boundary=b\n',
        PARTS,
    ),
    mail("boundary in capitals", MIME + b"CONTENT-TYPE: MULTIPART/MIXED; BOUNDARY=b\n", PARTS),
    mail("boundary folded", MIME + b'Content-Type: multipart/mixed;\n\tboundary="b"\n', PARTS),
    mail("boundary escaped", MIME + b'Content-Type: multipart/mixed; boundary="\\b"\n', PARTS),
    mail("boundary empty", multipart(b""), b"--\nX-Show: x\n\none\n----\n"),
    mail("boundary missing", MIME + b"Content-Type: multipart/mixed\n", PARTS),
    mail("boundary twice", MIME + b"Content-Type: multipart/mixed; boundary=a; boundary=b\n", PARTS),
    mail("two Content-Types", multipart(b"a") + b"Content-Type: multipart/mixed; boundary=b\n", PARTS),
    mail("the second is plain", multipart(b"b") + b"Content-Type: text/plain\n", PARTS),
    mail("Content-Type malformed", MIME + b"Content-Type: /; boundary=b\n", PARTS),
    mail("Content-Type empty", MIME + b"Content-Type:\n", PARTS),
    mail(
        "boundary in the header of a part", multipart(b"b"), b"--b\nX-Show: a\n--b\nX-Show: b\n\nx\n--b--\n"
    ),
    mail("a part without headers", multipart(b"b"), b"--b\n\nx\n--b\nno header\n--b--\n"),
    mail("a part that starts with a blank", multipart(b"b"), b"--b\n x\nX-Show: y\n\nx\n--b--\n"),
    mail("a folded header in a part", multipart(b"b"), b"--b\nX-Show: a\n  b\n\tc\n\nx\n--b--\n"),
    mail("the outer boundary ends the inner", multipart(b"b"), DEEP.replace(b"--c--\nbetween\n", b"")),
    mail("one boundary begins with the other", multipart(b"b"), DEEP.replace(b"c", b"bb")),
    mail(
        "an encoded message inside",
        multipart(b"b"),
        NESTED.replace(b"rfc822\n", b"rfc822\nContent-Transfer-Encoding: base64\n"),
    ),
    mail(
        "addresses in a message inside",
        multipart(b"b"),
        NESTED.replace(b"X-Show", b"Bcc: x\nReceived: y\nX-Show"),
    ),
    mail(
        "a message in a message",
        multipart(b"b"),
        NESTED.replace(b"text/plain", b"message/rfc822").replace(b"inner body", b"To: x\n\nb"),
    ),
    mail("empty body", multipart(b"b"), b""),
    mail("only a boundary", multipart(b"b"), b"--b"),
    mail("a long header in a part", multipart(b"b"), b"--b\nX-Show: " + b"w " * 900 + b"\n\nx\n--b--\n"),
    mail("a header-like line in a body", multipart(b"b"), b"--b\n\nX-Show: no\n--b--\nX-Show: neither\n"),
]

STRUCTURE = Scenario("mime structure", CHECKS, MESSAGES, files=FILES)

DISABLED = Scenario(
    "mime disabled",
    {**CHECKS, "disable_mime_input_processing": "yes", "strict_8bitmime": "no"},
    [
        case
        for case in MESSAGES
        if case.name in ("plain", "parts", "a message inside", "a digest", "empty body")
    ],
    files=FILES,
)

DEFAULTED = Scenario(
    "checks by default",
    {
        "header_checks": "regexp:FOLDER/header",
    },
    [
        case
        for case in MESSAGES
        if case.name
        in ("plain", "parts", "a message inside", "a folded header in a part", "two Content-Types")
    ],
    files={"header": "/^(X-Show|Content-Type): (.*)/ PREPEND X-Seen: $2\n/^Subject: inner/ REJECT inner\n"},
)


def _nest(levels: int) -> bytes:
    body = b"x\n"
    for level in range(levels, 0, -1):
        body = b'--b%d\nContent-Type: multipart/mixed; boundary="b%d"\n\n%b--b%d--\n' % (
            level,
            level + 1,
            body,
            level,
        )
    return body


LIMITS = Scenario(
    "mime limits",
    {
        **CHECKS,
        "mime_nesting_limit": "4",
        "mime_boundary_length_limit": "10",
        "strict_mime_encoding_domain": "no",
        "body_checks_size_limit": "100",
        "detect_8bit_encoding_header": "no",
    },
    [
        *(mail(f"{levels} levels", multipart(b"b1"), _nest(levels)) for levels in (1, 2, 3, 4, 5)),
        mail("a boundary at the limit", multipart(b"0123456789"), b"--0123456789\nX-Show: x\n\ny\n"),
        mail(
            "a boundary beyond",
            multipart(b"0123456789a"),
            b"--0123456789a\nX-Show: x\n\ny\n--0123456789b\nX-Show: z\n\n",
        ),
        mail("size of each part", multipart(b"b"), (b"--b\n\n" + b"0123456789\n" * 12) * 2 + b"--b--\n"),
        mail(
            "a message with levels",
            MIME + b"Content-Type: message/rfc822\n",
            (MIME + b"Content-Type: message/rfc822\n\n") * 5,
        ),
        mail("8 bit, declared", MIME + b"Content-Transfer-Encoding: 8bit\n", UTF8),
    ],
    files=FILES,
)

STRICT_BODY = [
    mail("7 bit", MIME, b"x\n"),
    mail("8 bit, not declared", MIME, UTF8),
    mail("8 bit, declared", MIME + b"Content-Transfer-Encoding: 8bit\n", UTF8),
    mail("8 bit, binary", MIME + b"Content-Transfer-Encoding: binary\n", UTF8),
    mail("8 bit, 7bit", MIME + b"Content-Transfer-Encoding: 7bit\n", UTF8),
    mail("8 bit, base64", MIME + b"Content-Transfer-Encoding: base64\n", UTF8),
    mail("8 bit, unknown", MIME + b"Content-Transfer-Encoding: x-own\n", UTF8),
    mail("8 bit, declared with a comment", MIME + b"Content-Transfer-Encoding: (x) 8bit (y)\n", UTF8),
    mail("8-bit header", b"Subject: " + UTF8, b"x\n"),
    mail("8-bit header and body, declared", b"Subject: " + UTF8 + b"Content-Transfer-Encoding: 8bit\n", UTF8),
    mail("8 bit in a part, not declared", multipart(b"b"), b"--b\n\n" + UTF8 + b"--b--\n"),
    mail("8 bit in a part, declared", multipart(b"b"), b"--b\nContent-Transfer-Encoding: 8bit\n\n" + UTF8),
    mail(
        "8 bit in a part, declared outside",
        multipart(b"b") + b"Content-Transfer-Encoding: 8bit\n",
        b"--b\n\n" + UTF8,
    ),
    mail("8 bit in the preamble", multipart(b"b"), UTF8 + b"--b\n\nx\n--b--\n"),
    mail("8 bit in the header of a part", multipart(b"b"), b"--b\nSubject: " + UTF8 + b"\nx\n--b--\n"),
    mail("8 bit in a message", MIME + b"Content-Type: message/rfc822\n", b"Subject: " + UTF8 + b"\nx\n"),
    mail("multipart encoded", multipart(b"b") + b"Content-Transfer-Encoding: base64\n", PARTS),
    mail("multipart 7bit", multipart(b"b") + b"Content-Transfer-Encoding: 7bit\n", PARTS),
    mail("multipart 8bit", multipart(b"b") + b"Content-Transfer-Encoding: 8bit\n", PARTS),
    mail(
        "message encoded",
        MIME + b"Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n",
        b"To: a\n\nb\n",
    ),
    mail(
        "partial encoded",
        MIME + b"Content-Type: message/partial\nContent-Transfer-Encoding: base64\n",
        b"To: a\n\nb\n",
    ),
    mail(
        "report encoded",
        MIME + b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n",
        b"YQ==\n",
    ),
]

STRICT = [
    Scenario("strict 8bitmime", {"strict_8bitmime": "yes"}, STRICT_BODY),
    Scenario("strict body", {"strict_8bitmime_body": "yes", "soft_bounce": "yes"}, STRICT_BODY[:10]),
    Scenario("strict headers", {"strict_7bit_headers": "yes"}, STRICT_BODY[7:16]),
    Scenario(
        "strict encoding",
        {
            "strict_mime_encoding_domain": "yes",
            "mime_nesting_limit": "3",
            "header_checks": "regexp:FOLDER/header",
        },
        [
            *STRICT_BODY[16:],
            *(mail(f"{levels} levels", multipart(b"b1"), _nest(levels)) for levels in (2, 3, 4)),
        ],
        files={"header": "!/^Received:/ INFO\n"},
    ),
]

ENCODINGS = (
    *(b"8bit/", b"8bit/x", b"8bit=", b"8bit=x", b"8bit?", b"\f8bit", b"8bit.", b"8bit\x01", b"8bit\x7f"),
    *(
        b"8bit x",
        b"8bit(x)",
        b"8bit;",
        b"8bit@x",
        b'"8bit"',
        b"8bit[",
        b"<8bit>",
        b"8bit,",
        b"8bit\t",
        b"8BIT ",
    ),
)
PREAMBLES = (b"8bit", b"base64", b"quoted-printable", b"binary", b"7bit")

STRICT_MORE = [
    *(
        mail(f"encoding {encoding!r}", b"Content-Transfer-Encoding: " + encoding + b"\n", UTF8)
        for encoding in ENCODINGS
    ),
    *(
        mail(
            f"8 bit in the preamble, {encoding.decode()}",
            multipart(b"b") + b"Content-Transfer-Encoding: " + encoding + b"\n",
            UTF8,
        )
        for encoding in PREAMBLES
    ),
    mail("no boundary", MIME + b"Content-Type: multipart/mixed\nContent-Transfer-Encoding: 8bit\n", UTF8),
    mail(
        "8 bit in an inner preamble",
        multipart(b"b"),
        b"--b\nContent-Type: multipart/mixed; boundary=c\nContent-Transfer-Encoding: 8bit\n\n" + UTF8,
    ),
    Case(
        "8 bit in a multipart without a preamble",
        COMPLETE + multipart(b"b") + b"Content-Transfer-Encoding: 8bit\n" + UTF8,
    ),
]

_FLAWS = {
    "nesting": (multipart(b"a1") * 3, b""),
    "header": (b"X: " + UTF8, b""),
    "body": (b"", UTF8),
    "encoding": (b"Content-Type: message/partial\nContent-Transfer-Encoding: base64\n", b""),
    "body first": (multipart(b"b"), UTF8 + b"--b\nX: " + UTF8 + b"\n"),
    "body, encoding": (
        multipart(b"b"),
        UTF8 + b"--b\nContent-Type: message/partial\nContent-Transfer-Encoding: 8bit\n\nx\n",
    ),
    "encoding, header": (
        multipart(b"b"),
        b"--b\nContent-Type: message/partial\nContent-Transfer-Encoding: 8bit\n\nx\n--b\nX: " + UTF8,
    ),
    "header, nesting": (multipart(b"b"), b"--b\nX: " + UTF8 + multipart(b"c") * 3),
    "body, nesting": (multipart(b"b"), UTF8 + b"--b\n" + multipart(b"c") * 3),
    "encoding, nesting": (
        multipart(b"b") + b"Content-Transfer-Encoding: base64\n",
        b"--b\n" + multipart(b"c") * 3,
    ),
}

FLAWS = [mail(name, headers, body) for name, (headers, body) in _FLAWS.items()]

_NO_END = (
    b"Content-Type: message/partial\nContent-Transfer-Encoding: 8bit\n",
    b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n",
)

_PART_ENDS = (
    b"",
    b"\n",
    b"--b--\n",
    b"--b\n\nx\n",
    b"no header\n",
)

BOUNDARIES = (*(b'""', b'"', b'"\\', b'"" b', b"b\x01c", b"b\x7f", b"b\x01", b"\x01b", b'"b\x01c"'),)
AFTER = (
    b"\n--x\nX-Show: y\n\nz\n-- \nX-Show: y\n\n--\nX-Show: n\n\n--b\nX-Show: b\n\nw\n--\x01\nX-Show: c\n\n"
)

CONTROLS = [
    *(
        mail(
            f"boundary {boundary!r}",
            MIME + b"Content-Type: multipart/mixed; boundary=" + boundary + b"\n",
            AFTER,
        )
        for boundary in BOUNDARIES
    ),
    mail("control in the type", MIME + b"Content-Type: multipart\x01/mixed; boundary=b\n", AFTER),
    mail("control before the type", MIME + b"Content-Type: \x01multipart/mixed; boundary=b\n", AFTER),
    mail("control in the name", MIME + b"Content-Type: multipart/mixed; bou\x01ndary=b\n", AFTER),
]

DEEP_MESSAGES = [
    mail("three levels", multipart(b"b1"), _nest(3)),
    mail("one level", multipart(b"b1"), PARTS),
    mail("five headers", multipart(b"b") * 5, b"x\n"),
]


def _deep(name: str, **settings: str) -> Scenario:
    return Scenario(
        name, {"mime_nesting_limit": "1", **settings}, DEEP_MESSAGES, files={"quiet": "/^Q/ WARN\n"}
    )


STRICT += [
    Scenario("strict body, odd encodings", {"strict_8bitmime_body": "yes"}, STRICT_MORE),
    Scenario(
        "several flaws",
        {"strict_8bitmime": "yes", "strict_mime_encoding_domain": "yes", "mime_nesting_limit": "1"},
        FLAWS,
    ),
    Scenario(
        "no empty line",
        {"strict_mime_encoding_domain": "yes"},
        [
            *(Case(f"ends in its headers {number}", COMPLETE + text) for number, text in enumerate(_NO_END)),
            *(
                mail(f"part, then {end!r}", multipart(b"b"), b"--b\n" + _NO_END[0] + end)
                for end in _PART_ENDS
            ),
            *(
                mail(
                    f"message, then {end!r}",
                    multipart(b"b"),
                    b"--b\nContent-Type: message/rfc822\n\n" + _NO_END[0] + end,
                )
                for end in _PART_ENDS
            ),
        ],
    ),
    Scenario("odd boundaries", CHECKS, CONTROLS, files=FILES),
    _deep("nesting, header checks", header_checks="regexp:FOLDER/quiet"),
    _deep("nesting, mime checks", mime_header_checks="regexp:FOLDER/quiet"),
    _deep("nesting, nested checks", nested_header_checks="regexp:FOLDER/quiet"),
    _deep("nesting, body checks", body_checks="regexp:FOLDER/quiet"),
    _deep("nesting, no checks"),
    Scenario(
        "own headers",
        {"header_checks": "regexp:FOLDER/own"},
        [
            mail("nothing", b"X-T: x\n", b"b\n"),
            mail("PASS", b"X-T: pass\n", b"b\n"),
            mail("REDIRECT", b"X-T: redirect\n", b"b\n"),
            mail("DISCARD", b"X-T: discard\n", b"b\n"),
            mail("REJECT", b"X-T: reject\n", b"b\n"),
            mail("HOLD", b"X-T: hold\n", b"b\n"),
        ],
        files={
            "own": "/^Received: .*QMQP id/ IGNORE\n/^X-T: pass/ PASS\n/^X-T: redirect/ REDIRECT q@re.test\n"
            "/^X-T: discard/ DISCARD\n/^X-T: reject/ REJECT\n/^X-T: hold/ HOLD\n"
        },
    ),
    Scenario(
        "size of the body",
        {"body_checks": "regexp:FOLDER/x", "body_checks_size_limit": "1"},
        [
            Case("blank first", b" x \n"),
            Case("blank first, and more", b" x \nx\n"),
            Case("no header", b"x\nx\n"),
            Case("empty first", b"\nx\nx\n"),
            mail("header", b"", b"x\nx\n"),
        ],
        files={"x": "/x/ REPLACE y\n"},
    ),
]

MIME_SCENARIOS = [STRUCTURE, DISABLED, DEFAULTED, LIMITS, *STRICT]
