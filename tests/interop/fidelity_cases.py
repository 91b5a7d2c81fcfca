"""
Messages whose bytes are easily spoiled on the way: body and header cases for the comparison with Postfix.
"""

from __future__ import annotations

from tests.cleanup.cases import COMPLETE
from tests.cleanup.cases import CONTENT as CLEANUP_CASES

MIME = b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
MULTIPART = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n'
UTF8 = "Grüße aus Köln — ñ\n".encode()


def _body(body: bytes, headers: bytes = b"Subject: x\n") -> bytes:
    return COMPLETE + headers + b"\n" + body


def _lines() -> dict[str, bytes]:
    """Long lines: at, around and far above the limit, alone and among others, ended and not."""
    found = {}
    for length in (990, 997, 998, 999, 1000, 1995, 1996, 2048, 5000, 100_000):
        found[f"{length} bytes in a line"] = _body(b"before\n" + b"x" * length + b"\nafter\n")
        found[f"{length} bytes in the last line, no newline"] = _body(b"x" * length)
        # Every byte of a continuation line is a dot: those at the fold are doubled, or not.
        found[f"{length} dots in a line"] = _body(b"." * length + b"\n")
    for position in (996, 997, 998, 999):
        found[f"dot at {position}"] = _body(b"x" * position + b".y\n" + b".\n")
        found[f"space at {position}"] = _body(b"x" * position + b" y\n")
        found[f"CR at {position}"] = _body(b"x" * position + b"\ry\n")
        found[f"CR LF at {position}"] = _body(b"x" * position + b"\r\nnext\r\n")
    found["many long lines"] = _body(b"".join(b"%04d" % n + b"y" * (980 + n) + b"\n" for n in range(40)))
    return found


FIDELITY: dict[str, bytes] = {
    "8-bit without MIME": _body(UTF8),
    "8-bit with MIME": _body(UTF8, MIME),
    "every byte": _body(bytes(range(256))),
    "every byte with MIME": _body(bytes(range(256)), MIME),
    "8-bit, CTE 7bit": _body(UTF8, MIME.replace(b"8bit", b"7bit")),
    "8-bit, CTE binary": _body(UTF8 + b"x\0y\n", MIME.replace(b"8bit", b"binary")),
    "8-bit, CTE base64": _body(UTF8, MIME.replace(b"8bit", b"base64")),
    "8-bit, CTE quoted-printable": _body(UTF8, MIME.replace(b"8bit", b"quoted-printable")),
    "8-bit in a multipart": _body(
        b"--b\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\n"
        + UTF8
        + b"--b\nContent-Type: text/plain\n\nplain = .\n.\n--b--\nepilogue "
        + UTF8,
        MULTIPART + b"Content-Transfer-Encoding: 8bit\n",
    ),
    "8-bit in a message in a multipart": _body(
        b"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n"
        + b"Subject: "
        + UTF8
        + MIME
        + b"\n"
        + UTF8
        + b"--b--\n",
        MULTIPART + b"Content-Transfer-Encoding: 8bit\n",
    ),
    "8-bit header": _body(b"plain\n", b"Subject: " + UTF8),
    "8-bit header with MIME": _body(UTF8, b"Subject: " + UTF8 + b"X-Folded: a\n " + UTF8 + MIME),
    "quoted-printable traps": _body(b"= =3D\ntrailing \ntrailing\t\n.\n..\nFrom here\n" + UTF8 * 40, MIME),
    "long 8-bit line": _body(b"\xc3\xa9" * 3000 + b"\n", MIME),
    "long 8-bit line without MIME": _body(b"\xc3\xa9" * 3000 + b"\n"),
    "NUL": _body(b"a\0b\n\0\n\0"),
    "lines that begin with dots": _body(b".\n..\n...\n.x\n..x\nx.\n"),
    "only a dot": _body(b"."),
    "only a dot in a line": _body(b".\n"),
    "dot, blank, dot": _body(b".\n\n.\n\n.\n"),
    "CR in the body": _body(b"a\rb\n\rc\nd\r\n\r\r\ne\r"),
    "CR dot CR LF": _body(b"a\r\n.\r\nb\n\r.\r\n.\n"),
    "CR LF line ends": _body(b"one\r\ntwo\r\n").replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"),
    "no final newline": _body(b"last"),
    "no final newline after a dot": _body(b"x\n."),
    "ends in CR": _body(b"x\r"),
    "empty body": _body(b""),
    "no body": COMPLETE + b"Subject: x\n",
    "empty": b"",
    "only newlines": b"\n\n\n",
    "body of newlines": _body(b"\n\n\n\n"),
    "body of blanks": _body(b" \n\t\n  \n"),
    "leading From line": b"From joe Mon Jan  1 00:00:00 2024\n" + _body(b"x\n"),
    "From in the body": _body(b"From joe\n>From joe\nfrom joe\n"),
    "many headers": _body(b"x\n", b"".join(b"X-%d: %s\n" % (n, b"v" * (n % 70)) for n in range(1500))),
    "long header": _body(b"x\n", b"X-Long: " + b"word " * 600 + b"\n"),
    "long header without blanks": _body(b"x\n", b"X-Long: " + b"w" * 3000 + b"\n"),
    "long folded header": _body(b"x\n", b"X-Long: a\n" + b" word word word\n" * 300),
    "100000 bytes of header": _body(b"x\n", b"X-Long: " + b"w" * 100_000 + b"\n"),
    "large": _body(b"0123456789 .\n.\r\n" * 30_000 + b"x" * 3000),
    "large 8-bit": _body((UTF8 + b".\n") * 10_000 + b"\xc3\xa9" * 2000, MIME),
    "large 8-bit without MIME": _body((UTF8 + b".\n") * 10_000),
    **_lines(),
    **{f"cleanup: {case.name}": case.content for case in CLEANUP_CASES if case.recipients},
}
"""Messages by name."""
