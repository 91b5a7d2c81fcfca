"""
Parts of a message: which check sees what, and what is wrong with their form. Watched in a running Postfix.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.checks import ContentChecks
from qmqpd_tx.cleanup.mime import ContentType, Type, content_type
from tests.cleanup.cases import COMPLETE
from tests.cleanup.inspection import WHERE, Inspected, content_checks, inspect
from tests.cleanup.part_cases import PARTS

LETTERS = {
    "header_checks": "^(Message-Id: <m@x>|Date: d|From: f@x)$ = DUNNO\n^ = WARN H",
    "mime_header_checks": "^ = WARN M",
    "nested_header_checks": "^ = WARN N",
    "body_checks": "^ = WARN B",
}
"""Tables that say which check has seen what."""

MIXED = b"Content-Type: multipart/mixed; boundary=aa\n\n"
EIGHT = b"\xc3\xa9"


def seen(inspected: Inspected) -> list[str]:
    """
    @return: what was looked up, after the letter of its check.
    """
    found = []
    for line in inspected.log:
        text, _, letter = line.partition(f" {WHERE} proto=QMQP: ")
        found.append(f"{letter} {text.removeprefix('warning: ').partition(' ')[2]}")
    return found


def nested(depth: int) -> bytes:
    """
    @return: multiparts within each other.
    """
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%03d\n\n--b%03d\n" % (level, level)
        for level in range(depth)
    )


class Structure(SynchronousTestCase):
    """Where parts begin and end."""

    def test_watched(self) -> None:
        """
        Each check sees what it sees in Postfix, and nothing is changed but the form of headers.
        """
        checks = content_checks(LETTERS)
        for case in PARTS:
            content = case.content.replace(b"\r", b" ")
            self.assertEqual(seen(inspect(checks, [content])), case.seen, case.name)

    def test_one_byte_at_a_time(self) -> None:
        """
        However it comes.
        """
        checks = content_checks(LETTERS)
        for case in PARTS:
            whole = inspect(checks, [case.content])
            bytewise = inspect(checks, [bytes((byte,)) for byte in case.content])
            self.assertEqual(bytewise.content, whole.content, case.name)
            self.assertEqual(bytewise.log, whole.log, case.name)

    def test_unchanged(self) -> None:
        """
        A well-formed message is stored as it came.
        """
        checks = content_checks(dict.fromkeys(LETTERS, "^ = DUNNO"))
        for case in PARTS:
            ours = (b" :", b"\0", b"Bcc", b"Content-Length")
            if any(text in case.content for text in ours) or case.content.startswith(b"From "):
                continue
            stored = inspect(checks, [case.content]).content
            end = b"" if case.content.endswith(b"\n") else b"\n"
            self.assertIn(stored, (case.content, case.content + end), case.name)

    def test_form_of_headers(self) -> None:
        """
        Headers of parts get the form that headers of the message have.
        """
        part = b"--aa\nX  : y\nNul: a\0b\n c\0d\n\nbody\0 : x\n"
        stored = inspect(content_checks({"body_checks": "zzz = WARN"}), [COMPLETE + MIXED + part]).content
        self.assertEqual(stored, COMPLETE + MIXED + b"--aa\nX: y\nNul: a\n c\n\nbody\0 : x\n")

    def test_long_header(self) -> None:
        """
        A header of a part is cut at C{header_size_limit}.
        """
        checks = content_checks({"body_checks": "zzz = WARN"}, "header_size_limit = 100\n")
        for long, kept in (
            (b"X: " + b"y" * 5000, b"X: " + b"y" * 97),
            (b"X: " + b"12345678\n " * 50, b"X: " + b"12345678\n " * 8 + b"12345678"),
        ):
            content = COMPLETE + MIXED + b"--aa\n" + long + b"\nZ: z\n\nb\n"
            want = COMPLETE + MIXED + b"--aa\n" + kept + b"\nZ: z\n\nb\n"
            self.assertEqual(inspect(checks, [content]).content, want)
            self.assertEqual(inspect(checks, [content[:700], content[700:]]).content, want)

    def test_changed_boundary(self) -> None:
        """
        What a check puts in place of a boundary or of a C{Content-Type} does not change where parts begin.
        """
        tables = {
            "header_checks": "^Content-Type: = REPLACE X-Was: multipart\n^X: = REPLACE X: changed",
            "body_checks": "^--aa = IGNORE",
        }
        stored = inspect(content_checks(tables), [COMPLETE + MIXED + b"--aa\nX: y\n\nb\n"]).content
        self.assertEqual(stored, COMPLETE + b"X-Was: multipart\n\nX: changed\n\nb\n")

    def test_changed_part_headers(self) -> None:
        """
        Headers of a part are dropped, replaced, or get others before them.
        """
        tables = {
            "header_checks": "^X-Gone: = IGNORE\n^X-Old: = REPLACE X-New: y\n^X-Late: = PREPEND X-Early: z"
        }
        part = b"--aa\nX-Gone: a\n b\nX-Old: a\nX-Late: a\n\tb\n\nb\n"
        content = COMPLETE + MIXED + part
        want = COMPLETE + MIXED + b"--aa\nX-New: y\nX-Early: z\nX-Late: a\n\tb\n\nb\n"
        for size in (1, 2, 3, 7, 1000):
            chunks = [content[start : start + size] for start in range(0, len(content), size)]
            self.assertEqual(inspect(content_checks(tables), chunks).content, want, size)

    def test_ends_in_a_header(self) -> None:
        """
        The message ends with a header of a part.
        """
        checks = content_checks({"header_checks": "^X: = REPLACE Y: z"})
        for end in (b"", b"\n"):
            stored = inspect(checks, [COMPLETE + MIXED + b"--aa\nX: y" + end]).content
            self.assertEqual(stored, COMPLETE + MIXED + b"--aa\nY: z\n")

    def test_turned_off(self) -> None:
        """
        C{disable_mime_input_processing}: all that follows the header section is body.
        """
        checks = content_checks(LETTERS, "disable_mime_input_processing = yes\n")
        found = seen(inspect(checks, [COMPLETE + b"X: y\n" + MIXED + b"--aa\nContent-Type: x\n\nz\n"]))
        mixed = "M Content-Type: multipart/mixed; boundary=aa"
        self.assertEqual(found, ["H X: y", mixed, "B --aa", "B Content-Type: x", "B z"])

    def test_nesting_limit(self) -> None:
        """
        Past C{mime_nesting_limit} (and two) parts are not followed.
        """
        checks = content_checks(LETTERS, "mime_nesting_limit = 3\n")
        for depth, letter in ((5, "M"), (6, "B")):
            found = seen(inspect(checks, [nested(depth) + b"A: b\n\nx\n"]))
            self.assertEqual(found[-2:], [f"{letter} A: b", "B x"])

    def test_boundary_limit(self) -> None:
        """
        Of a boundary C{mime_boundary_length_limit} bytes count.
        """
        checks = content_checks(LETTERS, "mime_boundary_length_limit = 10\n")
        for length, letter in ((9, "B"), (10, "M"), (12, "M")):
            content = b"Content-Type: multipart/mixed; boundary=%s\n\n--%s\nX: y\n\n" % (
                b"a" * 20,
                b"a" * length,
            )
            self.assertEqual(seen(inspect(checks, [content]))[-1], f"{letter} X: y", length)

    def test_long_boundary(self) -> None:
        """
        A boundary counts within the first piece of a line; the rest of the line is what follows.
        """
        checks = content_checks(LETTERS)
        found = seen(inspect(checks, [COMPLETE + MIXED + b"--aa" + b"x" * 2044 + b"Foo: bar\nX: a\n\n"]))
        self.assertEqual(found[-2:], ["M Foo: bar", "M X: a"])
        found = seen(inspect(checks, [COMPLETE + MIXED + b"x" * 2048 + b"--aa\nX: a\n\n"]))
        self.assertEqual(found[-2:], ["B --aa", "B X: a"])
        for length, letter in ((2046, "M"), (2047, "B")):
            boundary = b"a" * length
            content = b"Content-Type: multipart/mixed; boundary=%s\n\n--%s\nX: y\n\n" % (boundary, boundary)
            self.assertEqual(seen(inspect(checks, [content]))[-1], f"{letter} X: y", length)

    def test_empty_boundary(self) -> None:
        """
        Where the boundary is empty, a line of more than two dashes is one.
        """
        content = b'Content-Type: multipart/mixed; boundary=""\n\n--\nX: a\n\n--x\nX: b\n\nc\n'
        self.assertEqual(
            seen(inspect(content_checks(LETTERS), [content]))[-5:],
            ["B --", "B X: a", "B --x", "M X: b", "B c"],
        )

    def test_content_type(self) -> None:
        """
        What a Content-Type says, with whatever stands in it.
        """
        for value, boundaries in (
            (b" multipart/mixed; boundary=<abc>", [b"<"]),
            (b' multipart/mixed; boundary="a\n\tb\\"c"', [b'a\tb"c']),
            (b" multipart/mixed; boundary=a!b/c", [b"a!b"]),
            (b" multipart/mixed; boundary==ab", [b"="]),
            (b" multipart/mixed; (b(o)u) boundary (x\\)) = (y) abc (", [b"abc"]),
            (b' multipart/mixed; x=";boundary=no"; boundary=a; boundary=b', [b"a", b"b"]),
            (b' multipart/mixed; boundary="abc', [b"abc"]),
            (b' multipart/mixed; boundary=""; boundary', [b""]),
            (b" multipart/mixed; boundary=b\x01c; boundary=b\x7f", [b"b", b"b"]),
            (b" multipart\x01/mixed; boundary=b", [b"b"]),
            (b" multipart/mixed, boundary=abc", []),
        ):
            self.assertEqual(content_type(value, 100), ContentType(Type.MULTIPART, False, boundaries), value)
        self.assertEqual(content_type(b"", 100), ContentType(Type.TEXT, False))


class Form(SynchronousTestCase):
    """What C{strict_8bitmime} and its like refuse."""

    def reply(self, settings: str, content: bytes) -> str:
        """
        @param settings: the name of a parameter that is set to C{yes}, and further main.cf lines.
        """
        return inspect(content_checks(settings=settings.replace("+", " = yes")), [COMPLETE + content]).reply

    def test_headers(self) -> None:
        """
        8-bit bytes in headers, wherever they are.
        """
        wrong = "DError: 5.6.0 improper use of 8-bit data in message header"
        for settings in ("strict_7bit_headers +\n", "strict_8bitmime +\n"):
            for content in (
                b"Subject: " + EIGHT + b"\n\nb\n",
                b"Subject: a\n " + EIGHT + b"\n\nb\n",
                b"Bcc: " + EIGHT + b"\n\nb\n",
                MIXED + b"--aa\nX: " + EIGHT + b"\n\nb\n",
                b"Content-Type: message/rfc822\n\nX: " + EIGHT + b"\n\nb\n",
            ):
                self.assertEqual(self.reply(settings, content), wrong, content)
                self.assertEqual(self.reply("strict_8bitmime_body +\n", content), "", content)
                self.assertEqual(self.reply(settings + "disable_mime_input_processing +\n", content), "")

    def test_body(self) -> None:
        """
        8-bit bytes in what is 7bit by declaration or by default.
        """
        wrong = "DError: 5.6.0 improper use of 8-bit data in message body"
        encoding = b"Content-Transfer-Encoding: "
        for content, refused in (
            (b"\n" + EIGHT, True),
            (b"Subj" + EIGHT + b": x\n\nb\n", True),
            (encoding + b"7bit\n\n" + EIGHT + b"\n", True),
            (encoding + b"x-unknown\n\n" + EIGHT + b"\n", True),
            (encoding + b"8bit\n" + encoding + b"7bit\n\n" + EIGHT + b"\n", True),
            (encoding + b"(x) 8BIT ; y\n\n" + EIGHT + b"\n", False),
            (encoding + b"binary\n\n" + EIGHT + b"\n", False),
            (encoding + b"8bit.\n\n" + EIGHT + b"\n", False),
            (encoding + b"8bit/x\n\n" + EIGHT + b"\n", True),
            (encoding + b"\f8bit\n\n" + EIGHT + b"\n", True),
            (encoding + b"8bit\n" + MIXED + b"\n" + EIGHT + b"\n--aa\n\nb\n", True),
            (encoding + b"base64\n\n" + EIGHT + b"\n", False),
            (MIXED + EIGHT + b"\n--aa\n\nb\n", True),
            (MIXED + b"--aa\n" + encoding + b"8bit\n\n" + EIGHT + b"\n", False),
            (MIXED + b"--aa\n\nb\n--aa--\n" + EIGHT + b"\n", True),
            (encoding + b"8bit\n" + MIXED + b"--aa" + EIGHT + b"\n\nb\n", True),
            (encoding + b"8bit\nContent-Type: message/rfc822\n\nX: y\n\n" + EIGHT + b"\n", True),
            (b"\n" + b"x" * 5000 + EIGHT + b"\n", True),
        ):
            for settings in ("strict_8bitmime_body +\n", "strict_8bitmime +\n"):
                self.assertEqual(self.reply(settings, content), wrong if refused else "", content)

    def test_encodings(self) -> None:
        """
        What must not be encoded, or not in that way.
        """
        wrong = "DError: 5.6.0 invalid message/* or multipart/* encoding domain"
        packed, raw = {"quoted-printable", "base64"}, {"8bit", "binary"}
        for kind, refused in (
            ("multipart/mixed; boundary=aa", packed),
            ("multipart", packed),
            ("message/rfc822", packed),
            ("message/partial", raw),
            ("message/external-body", raw),
            ("message/global", set()),
            ("message/delivery-status", set()),
            ("text/plain", set()),
        ):
            for encoding in ("7bit", "8bit", "binary", "quoted-printable", "base64", "x-unknown"):
                headers = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\nx\n".encode()
                for content in (headers, MIXED + b"--aa\n" + headers):
                    reply = self.reply("strict_mime_encoding_domain +\n", content)
                    self.assertEqual(reply, wrong if encoding in refused else "", (kind, encoding))

    def test_nesting(self) -> None:
        """
        Too deep is refused only where the form matters, or headers of parts are looked up.
        """
        wrong = "DError: 5.6.0 MIME nesting exceeds safety limit"
        for settings in (
            "strict_7bit_headers +\n",
            "strict_8bitmime_body +\n",
            "strict_mime_encoding_domain +\n",
        ):
            for depth, reply in ((5, ""), (6, wrong), (50, wrong)):
                found = self.reply(
                    settings + "mime_nesting_limit = 3\n", b"X: y\n" + nested(depth) + b"\nx\n"
                )
                self.assertEqual(found, reply, depth)
        content = b"X: y\n" + nested(6) + b"\nx\n"
        for table, reply in (
            ("header_checks", wrong),
            ("mime_header_checks", wrong),
            ("nested_header_checks", wrong),
            ("body_checks", ""),
        ):
            checks = content_checks({table: "^Q = WARN"}, "mime_nesting_limit = 3\n")
            self.assertEqual(inspect(checks, [COMPLETE + content]).reply, reply, table)

    def test_unfinished_headers(self) -> None:
        """
        Headers that no empty line ends say as much.
        """
        headers = b"Content-Type: message/partial\nContent-Transfer-Encoding: 8bit\n"
        for content in (headers, *(MIXED + b"--aa\n" + headers + end for end in (b"", b"x\n", b"--aa\n\n"))):
            reply = self.reply("strict_mime_encoding_domain +\n", content)
            self.assertEqual(reply, "DError: 5.6.0 invalid message/* or multipart/* encoding domain", content)

    def test_several(self) -> None:
        """
        Of several flaws the gravest is the reply, whichever comes first.
        """
        settings = "strict_8bitmime +\nstrict_mime_encoding_domain = yes\nmime_nesting_limit = 1\n"
        flaws = {
            "message header": b"--aa\nX: " + EIGHT + b"\n\n",
            "message body": b"--aa\n\n" + EIGHT + b"\n",
            "encoding domain": b"--aa\nContent-Type: message/partial\nContent-Transfer-Encoding: 8bit\n\n",
        }
        deep = b"--aa\n" + b"Content-Type: multipart/mixed; boundary=bb\n" * 4 + b"\n"
        for number, graver in enumerate(flaws):
            for other in list(flaws)[number + 1 :]:
                self.assertIn(graver, self.reply(settings, MIXED + flaws[other] + flaws[graver]))
                self.assertIn(graver, self.reply(settings, MIXED + flaws[graver] + flaws[other]))
            self.assertIn("nesting", self.reply(settings, MIXED + flaws[graver] + deep))

    def test_log(self) -> None:
        """
        Each is logged once, without the protocol, cut, and does not end the checks.
        """
        checks = content_checks({"body_checks": "^last = WARN"}, "strict_8bitmime = yes\n")
        content = b"A: %s\nB: %s\n\n%s\n%s\nlast\n" % (EIGHT + b"x" * 200, EIGHT, EIGHT, EIGHT)
        found = inspect(checks, [COMPLETE + content])
        self.assertEqual(
            found.log,
            [
                f"reject: mime-error improper use of 8-bit data in message header: A: é{'x' * 95} {WHERE}",
                f"reject: mime-error improper use of 8-bit data in message body: é {WHERE}",
                f"warning: body last {WHERE} proto=QMQP",
            ],
        )
        self.assertEqual(found.reply, "DError: 5.6.0 improper use of 8-bit data in message header")

    def test_checks_win(self) -> None:
        """
        A REJECT or DISCARD counts more, before and after.
        """
        for action, reply in (("REJECT no", "DError: 5.7.1 no"), ("DISCARD", "")):
            checks = content_checks({"header_checks": f"^X: = {action}"}, "strict_8bitmime = yes\n")
            for content in (b"X: y\nA: %s\n\nb\n", b"A: %s\nX: y\n\nb\n"):
                self.assertEqual(inspect(checks, [content % EIGHT]).reply, reply)


class Sizes(SynchronousTestCase):
    """C{body_checks_size_limit}."""

    def lines(self, limit: int, content: bytes) -> list[str]:
        """
        @return: the lines that were looked up.
        """
        checks: ContentChecks = content_checks(
            {"body_checks": "^(--|q|line) = WARN B"}, f"body_checks_size_limit = {limit}\n"
        )
        whole = inspect(checks, [COMPLETE + content])
        bytewise = inspect(checks, [bytes((byte,)) for byte in COMPLETE + content])
        self.assertEqual(bytewise.log, whole.log)
        return [line.partition(" ")[2] for line in seen(whole)]

    def test_lines(self) -> None:
        """
        A line is seen when it begins within the limit; the empty line before the body counts.
        """
        text = b"".join(b"line %d\n" % number for number in range(9))
        for limit, count in ((1, 0), (2, 1), (8, 1), (9, 2), (1000, 9)):
            self.assertEqual(len(self.lines(limit, b"\n" + text)), count, limit)

    def test_no_empty_line(self) -> None:
        """
        An empty line that was not there does not count.
        """
        self.assertEqual(self.lines(10, b"qqqq\nq56\nq8\nq9\n"), ["qqqq", "q56", "q8"])
        self.assertEqual(self.lines(10, b"\nqqqq\nq56\nq8\nq9\n"), ["qqqq", "q56"])

    def test_parts(self) -> None:
        """
        Each part has its own. A boundary counts to the part before it, the one at the end to what follows.
        """
        text = b"p" * 20 + b"\n"
        for content, lines in (
            (MIXED + b"p" * 7 + b"\n--aa\n\nx\n", ["--aa"]),
            (MIXED + b"p" * 8 + b"\n--aa\n\nx\n", []),
            (MIXED + text + b"--aa\nA: b\n--aa\nA: b\n\n", ["--aa"]),
            (MIXED + text + b"--aa\n--aa\nA: b\n\nqq\n", ["--aa", "qq"]),
            (MIXED + text + b"--aa\n\n" + text + b"--aa--\nq1\nq2\n", ["--aa--", "q1"]),
            (MIXED + text + b"--aa\nA: b\nqqqq\nq5\nq6\nq9\n", ["qqqq", "q5", "q6"]),
            (MIXED + text + b"--aa\nA: b\n\nqqqq\nq5\nq6\nq9\n", ["qqqq", "q5", "q6"]),
            (b"Content-Type: message/rfc822\n\nA: b\n\nqqqq\nq56\nq8\nq9\n", ["qqqq", "q56"]),
        ):
            self.assertEqual(self.lines(10, content), lines, content)

    def test_pieces(self) -> None:
        """
        Pieces of a long line count, too.
        """
        self.assertEqual(self.lines(2048, b"\n" + b"p" * 2048 + b"q\nq\n"), [])
        self.assertEqual(self.lines(2050, b"\n" + b"p" * 2048 + b"q\nq\n"), ["q"])
        self.assertEqual(self.lines(2052, b"\n" + b"p" * 2048 + b"q\nq\n"), ["q", "q"])
