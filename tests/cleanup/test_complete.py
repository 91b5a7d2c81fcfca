"""
Completing addresses, in the envelope and in headers. Expectations were watched in a running Postfix.
"""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import quote_address
from qmqpd_tx.address.mailboxes import CLEAN, complete_addresses
from qmqpd_tx.address.rewrite import AddressRewriter
from tests.cleanup.cases import ADDRESSES

REWRITER = AddressRewriter(origin=b"relay.test", domain=b"test")


def header(line: bytes) -> bytes | None:
    """
    @return: a header line with complete addresses, or L{None} if it stays.
    """
    name, _, value = line.partition(b":")
    changed = complete_addresses(name, value, REWRITER, quote_address)
    return None if changed is None else name + b":" + changed


class EnvelopeAddresses(SynchronousTestCase):
    """Addresses in internal form."""

    def test_completed(self) -> None:
        """
        What Postfix makes of them.
        """
        for address, expected in {
            b"joe": b"joe@relay.test",
            b"a b": b"a b@relay.test",
            b"joe@x.test.": b"joe@x.test",
            b"@a,@b:c@d.test": b"c@d.test",
            b"a!b": b"b@a",
            b"a!b!c": b"b!c@a",
            b"a%b": b"a@b",
            b"joe@ x .test": b"joe@x.test",
            b"joe@x@": b"joe@x@",
            b"a b!c": b"a b!c@relay.test",
        }.items():
            self.assertEqual(REWRITER.rewrite(address), expected)

    def test_hostile(self) -> None:
        """
        However much there is to take off, it is taken off, in time.
        """
        for address, expected in {
            b"@" * 100_000: b"@" * 100_000,
            b"a@b" + b"@" * 100_000: b"a@b" + b"@" * 100_000,
            b"@a" * 50_000 + b":x@y": b"x@y",
            b"@[" * 50_000 + b":x@y": b"@[" * 50_000 + b":x@y",
            b"@a:" * 30_000 + b"x@y" + b"@" * 10_000: b"x@y" + b"@" * 10_000,
            b"@a:" * 30_000 + b"@@@": b"@@@",
        }.items():
            self.assertEqual(REWRITER.rewrite(address), expected)

    def test_blanks_in_literals(self) -> None:
        """
        Nor does it take long to look for dots in a domain that is all blanks.
        """
        begun = time.monotonic()
        REWRITER.rewrite(b"a@[" + b" " * 100_000 + b"]")
        self.assertLess(time.monotonic() - begun, 5)

    def test_kept(self) -> None:
        """
        What is complete, or beyond help.
        """
        for address in (
            b"",
            b"a@b",
            b"a!b@c.test",
            b"a%b@relay.test",
            b"joe@",
            b"@x.test",
            b"a@b@c",
            b"a@[1.2.3.4]",
        ):
            self.assertEqual(REWRITER.rewrite(address), address)

    def test_parameters(self) -> None:
        """
        Each kind of rewriting can be turned off; domains can be completed.
        """
        off = AddressRewriter(b"o.test", b"d", False, True, False, False)
        self.assertEqual(off.rewrite(b"joe"), b"joe")
        self.assertEqual(off.rewrite(b"a!b"), b"a!b")
        self.assertEqual(off.rewrite(b"a%b"), b"a%b")
        self.assertEqual(off.rewrite(b"a@b"), b"a@b.d")
        self.assertEqual(off.rewrite(b"a@b.c"), b"a@b.c")

    @given(st.binary(max_size=40))
    def test_settles(self, address: bytes) -> None:
        """
        Whatever it is, it ends, and once more with feeling changes nothing for an ordinary result.
        """
        once = REWRITER.rewrite(address)
        if b" " not in once and not once.endswith((b".", b"\\", b"@")) and not once.startswith(b"@"):
            self.assertEqual(REWRITER.rewrite(once), once)


class HeaderAddresses(SynchronousTestCase):
    """Addresses in headers."""

    def test_completed(self) -> None:
        """
        Bare addresses get the origin; the whole header gets Postfix's layout.
        """
        for line, expected in {
            b"To: joe, Bob <bob>,  x@y.test": b"To: joe@relay.test, Bob <bob@relay.test>, x@y.test",
            b"To: (foo) a (bar), b (baz)": b"To: a@relay.test (foo) (bar), b@relay.test (baz)",
            b"To: list: a, b;, c": b"To: list: a@relay.test, b@relay.test;, c@relay.test",
            b"To: undisclosed-recipients:;, a": b"To: undisclosed-recipients: ;, a@relay.test",
            b'To: "x,y" <c>,d': b'To: "x,y" <c@relay.test>, d@relay.test',
            b"To: J. Doe <joe>": b"To: J.Doe <joe@relay.test>",
            b"To: a b@c": b"To: a@relay.test, b@c",
            b'To: "",a': b'To: "", a@relay.test',
        }.items():
            self.assertEqual(header(line), expected)

    def test_folded(self) -> None:
        """
        Lines break after commas and stay within 70 characters.
        """
        line = b"To: a, " + b", ".join(b"user%d@example.test" % number for number in range(12))
        changed = header(line) or b""
        self.assertTrue(
            changed.startswith(b"To: a@relay.test, user0@example.test, user1@example.test,\n\tuser2@")
        )
        self.assertLessEqual(max(map(len, changed.split(b"\n"))), 70)

    def test_kept(self) -> None:
        """
        Complete headers keep their exact spacing, odd ones too; what cannot be read stays.
        """
        for line in (
            b"To:  joe@host ,  x@y.test",
            b'To: "J. Doe" <a@b>,J <c@d>',
            b"To: list:a@b,c@d;",
            b"To: a . b @ c",
            b"To: <>",
            b'To: ""',
            b'To: X <"">, a@b',
            b"To: (a",
            b'To: "a',
            b"To: <a",
            b"To: a>b",
            b"To: ) a",
            b"To: a]b[",
        ):
            self.assertIsNone(header(line))

    def test_clean_ones_change_nothing(self) -> None:
        """
        What the short cut takes for complete is complete to the long way too.
        """
        lines = [*ADDRESSES, b'To: "J. Doe" <a@b>, c@d,', b"To: a@b\n c@d", b"From: J <a@b>"]
        clean = [line for line in lines if CLEAN.fullmatch(line.partition(b":")[2])]
        self.assertGreater(len(clean), 3)
        for line in clean:
            self.assertIsNone(header(line))

    def test_quoted_without_a_domain(self) -> None:
        """
        In quotes, or after a backslash, C{@}, C{!} and C{%} are letters.
        """
        for value, expected in (
            (b'"a!b"', b"a!b@relay.test"),
            (b'"a%b", c', b"a%b@relay.test, c@relay.test"),
            (b'"a@b"', b'"a@b"@relay.test'),
            (b"a\\@b, c", b'"a@b"@relay.test, c@relay.test'),
            (b'"a@b".c', b'"a@b.c"@relay.test'),
            (b'"a@b"@c.test, d', b'"a@b"@c.test, d@relay.test'),
            (b"a!b", b"b@a"),
        ):
            self.assertEqual(header(b"To: " + value), b"To: " + expected, value)

    def test_dots(self) -> None:
        """
        A local part whose dots make no words is quoted.
        """
        for value in (b"a..b@x.test", b".a@x.test", b"a.@x.test", b"J <a..b@x.test>"):
            local, _, _domain = value.rpartition(b" <")[2].partition(b"@")
            quoted = value.replace(local + b"@", b'"%b"@' % local)
            self.assertEqual(header(b"To: " + value), b"To: " + quoted)
        self.assertIsNone(header(b"To: a.b.c@x.test"))

    def test_first_line(self) -> None:
        """
        The line with the name has at most 69 bytes, those after it 70.
        """
        for length, lines in ((44, 1), (45, 2)):
            value = header(b"To: a, " + b"b" * length + b"@x.test")
            assert value is not None
            self.assertEqual(value.count(b"\n") + 1, lines, length)

    def test_line_ends(self) -> None:
        """
        A line end inside an address, escaped or quoted, never becomes one that ends the header.
        """
        for line in (
            b"To: \\\n .Bcc: a",
            b"To: \\\n a",
            b'To: "b\n !u"',
            b'To: "b\\\n !u"',
            b'To: "a%\n b"',
            b"To: a@[1\n ], b",
        ):
            for part in (header(line) or b"").split(b"\n")[1:]:
                self.assertTrue(part.startswith((b"\t", b" ")) and part.strip(), line)
        self.assertEqual(header(b'To: "b\n !u"'), b'To: "b  !u"@relay.test')

    @given(st.text(alphabet='ab@.,:;<>()"[]\\ \n\t!%é', max_size=40))
    def test_anything(self, value: str) -> None:
        """
        Nothing raises or hangs, and lines of a result are headers still.
        """
        changed = header(b"To:" + value.replace("\n", "\n ").encode())
        if changed is not None:
            for line in changed.split(b"\n")[1:]:
                self.assertTrue(line.startswith((b"\t", b" ")))

    def test_hostile_values_take_linear_time(self) -> None:
        """
        Values made to confuse a regular expression.
        """
        start = time.process_time()
        for value in (
            b"a" * 100000,
            b" " * 100000,
            b'"' * 99999,
            b"(" * 100000,
            b"a@" * 50000,
            b"<" * 100000,
            b"\\" * 99999,
            b"a," * 50000,
            b"a@b " * 25000,
            b"a.b" * 33000,
            b"[" * 100000,
        ):
            CLEAN.fullmatch(value)
            header(b"To: " + value)
        self.assertLess(time.process_time() - start, 5.0)
