"""
C{cidr:} tables.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables import ILookupTable, open_table


def inline(*rules: str) -> ILookupTable:
    """
    @return: a table of these rules.
    """
    return open_table("cidr:{ " + " ".join(f"{{{rule}}}" for rule in rules) + " }", "p")


class LookupTests(SynchronousTestCase):
    """What is found."""

    def check(self, table: ILookupTable, **expected: str | None) -> None:
        """
        @param expected: result by key, whose dots and colons are written as C{_} and C{__}.
        """
        for key, value in expected.items():
            text = key.strip("k").replace("__", ":").replace("_", ".")
            found = table.lookup(text.encode())
            self.assertEqual(found, None if value is None else value.encode(), text)

    def test_order(self) -> None:
        """The first line that holds the address answers, whatever the length of its prefix."""
        self.check(
            inline("10.1.0.0/16 wide", "10.1.2.3 never", "10.2.3.4 exact", "10.0.0.0/8 rest", "[::1] six"),
            k10_1_2_3="wide",
            k10_2_3_4="exact",
            k10_9_9_9="rest",
            k11_0_0_1=None,
            k____1="six",
            k0__0__0__0__0__0__0__1="six",
            kname=None,
        )

    def test_families(self) -> None:
        """Networks of one kind say nothing about addresses of the other kind, negated ones neither."""
        self.check(inline("0.0.0.0/0 four", "::/0 six"), k1_2_3_4="four", k____ffff__1_2_3_4="six")
        self.check(inline("!192.0.2.0/24 other"), k192_0_2_9=None, k192_0_3_1="other", k____1=None)
        self.check(inline("!!192.0.2.0/24 same"), k192_0_2_9="same", k192_0_3_1=None)

    def test_if(self) -> None:
        """C{if} nests, and may be negated; what follows it goes on."""
        table = inline(
            "IF 10.0.0.0/8",
            "if !10.1.0.0/16",
            "10.0.0.0/8 outside",
            "endif",
            "10.1.1.1 one",
            "ENDIF",
            "if !10.0.0.0/8",
            "::/0 six",
            "endif",
            "0.0.0.0/0 rest",
        )
        self.check(
            table, k10_2_0_1="outside", k10_1_1_1="one", k10_1_1_2="rest", k9_9_9_9="rest", k____1=None
        )

    def test_several_marks(self) -> None:
        """White space may stand between several C{!}."""
        for rules, inside in (("{! !10.0.0.0/8 x}", True), ("{!\t! !10.0.0.0/8 x}", False)):
            for text in (rules, "{if " + rules[1:].replace(" x", "") + " {0.0.0.0/0 x} {endif}"):
                table = open_table(f"cidr:{{ {text} }}", "p")
                found = [table.lookup(key) == b"x" for key in (b"10.0.0.1", b"11.0.0.1")]
                self.assertEqual(found, [inside, not inside], text)

    def test_not_an_address(self) -> None:
        """A key that is not an address is not found, whatever its bytes."""
        table = inline("0.0.0.0/0 x", "::/0 y")
        for key in (
            b"",
            b"[10.0.0.1]",
            b"010.0.0.1",
            b"10.0.0.1 ",
            b"fe80::1%eth0",
            b"\xff",
            b"1.2.3",
            b"1.2.3.4/32",
        ):
            self.assertIsNone(table.lookup(key), key)

    def test_many(self) -> None:
        """A file of many networks."""
        path = Path(self.mktemp()).absolute()
        lines = [f"10.{number >> 8}.{number & 255}.0/24\tv{number}" for number in range(20_000)]
        path.write_text("# comment\n" + "\n".join(lines) + "\n")
        table = open_table(f"cidr:{path}", "p")
        self.assertEqual(table.lookup(b"10.78.31.200"), b"v19999")
        self.assertIsNone(table.lookup(b"10.78.32.1"))
        self.assertEqual(list(table.sources), [str(path)])

    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.sampled_from(["10.0.0.0", "10.128.0.0", "10.1.2.0", "2001:db8::", "2001:db8:8000::"]),
                st.integers(1, 40),
            ),
            max_size=8,
        ),
        st.sampled_from(
            ["10.0.0.1", "10.1.2.3", "10.200.1.1", "11.0.0.1", "2001:db8::1", "2001:db9::", "::1"]
        ),
    )
    def test_like_one_after_the_other(self, written: list[tuple[bool, str, int]], key: str) -> None:
        """Looking neighbours up together changes no answer."""
        rules = []
        expected = None
        address = ip_address(key)
        for number, (negated, base, length) in enumerate(written):
            network = ip_network(f"{base}/{min(length, ip_address(base).max_prefixlen)}", strict=False)
            rules.append(f"{'!' if negated else ''}{network} v{number}")
            if (
                expected is None
                and network.version == address.version
                and (address in network) is not negated
            ):
                expected = f"v{number}".encode()
        if rules:
            self.assertEqual(inline(*rules).lookup(key.encode()), expected)


class ErrorTests(SynchronousTestCase):
    """What makes no sense."""

    def test_errors(self) -> None:
        """Each error names parameter, table, line and value."""
        path = Path(self.mktemp()).absolute()
        for line, words in (
            (
                "10.0.0.1/8 x",
                'non-null host address bits in "10.0.0.1/8", perhaps you should use "10.0.0.0/8" instead',
            ),
            ("[2001:db8::1]/32 x", 'perhaps you should use "[2001:db8::]/32" instead'),
            ("[2001:db8::1/32] x", 'perhaps you should use "[2001:db8::/32]" instead'),
            ("1.2.3 x", 'bad address pattern: "1.2.3"'),
            ("01.2.3.4 x", 'bad address pattern: "01.2.3.4"'),
            ("fe80::1%eth0 x", 'bad address pattern: "fe80::1%eth0"'),
            ("1.2.3.4/33 x", 'bad mask length in "1.2.3.4/33"'),
            ("1.2.3.4/ x", 'bad mask value in "1.2.3.4/"'),
            ("1.2.3.4/255.0.0.0 x", 'bad mask value in "1.2.3.4/255.0.0.0"'),
            ("/8 x", 'bad network value in "/8"'),
            ("[::1 x", "missing ']' character after \"[::1\""),
            ("[::1]x y", 'garbage after "[::1]"'),
            ("1.2.3.4", "no lookup result"),
            ("!", "no address pattern"),
            ("if", "no address pattern"),
            ("if 1.2.3.4 x\nendif", 'bad address pattern: "1.2.3.4 x"'),
            ("if 1.2.3.4", "IF has no matching ENDIF"),
            ("endif", "ENDIF without IF"),
            ("if 1.2.3.4\nendif x", "garbage after ENDIF"),
        ):
            path.write_text(f"# first\n1.1.1.1 fine\n{line}\n")
            number = 3 + line.count("\n" if "garbage after E" in words else "\0")
            error = str(self.assertRaises(ConfigError, open_table, f"cidr:{path}", "some_maps"))
            self.assertIn(f"some_maps: cidr:{path}, line {number}: ", error)
            self.assertIn(words, error)

    def test_leading_space(self) -> None:
        """A first line that continues nothing."""
        path = Path(self.mktemp()).absolute()
        path.write_text(" 1.1.1.1 x\n")
        error = self.assertRaises(ConfigError, open_table, f"cidr:{path}", "p")
        self.assertIn("line 1: logical line must not start with whitespace", str(error))

    def test_names(self) -> None:
        """Files that are not there, names that are no files, and braces that do not match."""
        for name, words in (
            ("/no/such", "cannot read /no/such: No such file or directory"),
            ("relative", "the file name must be absolute"),
            ("{ {1.1.1.1 x}", "missing '}'"),
            ("{ 1.1.1.1 x }", "no '{' at start of text in \"1.1.1.1\""),
            ("{ {1.1.1.1 x}} y", "syntax error after '}'"),
        ):
            self.assertIn(words, str(self.assertRaises(ConfigError, open_table, f"cidr:{name}", "p")))
