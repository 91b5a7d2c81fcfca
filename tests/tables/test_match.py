"""
Lists of domains and hosts.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables import DomainMatchList, HostMatchList


def hosts(*patterns: str, parent_style: bool = False) -> HostMatchList:
    """
    @return: a host list.
    """
    return HostMatchList(patterns, "qmqpd_authorized_clients", parent_style)


class HostTests(SynchronousTestCase):
    """C{qmqpd_authorized_clients} and its like."""

    def check(self, matcher: HostMatchList, *cases: tuple[str, str, bool]) -> None:
        for name, address, expected in cases:
            self.assertEqual(matcher.matches(name, address), expected, (name, address))

    def test_addresses(self) -> None:
        """Single addresses and networks, both kinds; IPv6 in any spelling."""
        self.check(
            hosts("192.0.2.1", "10.0.0.0/8", "[::1]", "[2001:db8::]/32", "127.0.0.1/32"),
            ("unknown", "192.0.2.1", True),
            ("unknown", "192.0.2.2", False),
            ("unknown", "10.255.0.1", True),
            ("unknown", "11.0.0.1", False),
            ("unknown", "0:0:0:0:0:0:0:1", True),
            ("unknown", "2001:DB8:1::5", True),
            ("unknown", "2001:db9::", False),
            ("unknown", "::ffff:10.1.1.1", True),
            ("unknown", "127.0.0.1", True),
            ("unknown", "fe80::1%eth0", False),
            ("unknown", "no address", False),
        )

    def test_names(self) -> None:
        """Host names, C{.domain}, and plain domains where the parameter says so; case does not matter."""
        cases = [
            ("Host.Example.COM", "192.0.2.9"),
            ("a.b.example.org", "192.0.2.9"),
            ("example.org", "192.0.2.9"),
            ("badexample.org", "192.0.2.9"),
            ("x.host.example.com", "192.0.2.9"),
            ("unknown", "192.0.2.9"),
        ]
        plain = hosts("host.example.com", ".EXAMPLE.org")
        self.assertEqual([plain.matches(*case) for case in cases], [True, True, False, False, False, False])
        parents = hosts("host.example.com", "Example.org", parent_style=True)
        self.assertEqual([parents.matches(*case) for case in cases], [True, True, True, False, True, False])

    def test_first_match_decides(self) -> None:
        """C{!pattern} excludes; the order counts."""
        self.check(
            hosts("!10.1.2.3", "10.0.0.0/8", "!.example.com", "static:all"),
            ("unknown", "10.1.2.3", False),
            ("x.example.com", "10.1.2.4", True),
            ("x.example.com", "192.0.2.1", False),
            ("unknown", "192.0.2.1", True),
        )
        self.check(hosts("10.0.0.0/8", "!10.1.2.3"), ("unknown", "10.1.2.3", True))
        self.check(hosts("!10.1.2.3"), ("unknown", "10.1.2.4", False))
        self.check(hosts(), ("localhost", "127.0.0.1", False))

    def test_file(self) -> None:
        """A file stands for its patterns, with comments, negation inside and outside."""
        path = Path(self.mktemp()).absolute()
        path.write_text("# ours\n10.0.0.0/8, !192.0.2.1\n 192.0.2.0/24\n\n[::1]\n")
        for sign, expected in (
            ("", [True, False, True, True, False]),
            ("!", [False, True, False, False, False]),
        ):
            matcher = hosts(f"{sign}{path}", *(["static:all"] if sign else []))
            addresses = ("10.1.1.1", "192.0.2.1", "192.0.2.2", "::1", "198.51.100.1")
            found = [matcher.matches("unknown", address) for address in addresses]
            self.assertEqual(found[:4], expected[:4])
        self.assertFalse(hosts(str(path)).matches("unknown", "198.51.100.1"))

    def test_table(self) -> None:
        """Tables are asked for name, parent domains and address."""
        matcher = hosts("inline:{ {host.test = x}, {.sub.test = x}, {192.0.2.1 = x} }")
        self.check(
            matcher,
            ("HOST.test", "10.0.0.1", True),
            ("a.b.sub.test", "10.0.0.1", True),
            ("sub.test", "10.0.0.1", False),
            ("unknown", "192.0.2.1", True),
            ("unknown", "192.0.2.2", False),
        )
        self.assertTrue(hosts("inline:{sub.test=x}", parent_style=True).matches("a.sub.test", "10.0.0.1"))

    def test_errors(self) -> None:
        """Each error names the parameter and the element."""
        for pattern, words in (
            ("10.0.0.1/8", 'non-null host address bits in "10.0.0.1/8", perhaps you should use "10.0.0.0/8"'),
            ("[2001:db8::1]/32", '"[2001:db8::]/32"'),
            ("10.0.0.0/33", "bad net/mask pattern"),
            ("10/8", "bad net/mask pattern"),
            ("10.0.0.0/255.0.0.0", "bad net/mask pattern"),
            ("10.0.0.0/", "bad net/mask pattern"),
            ("300.1.1.1", "bad address pattern"),
            ("10.1.1", "bad address pattern"),
            ("[::1", "bad address pattern"),
            ("::1", 'expecting "type:name"'),
            ("bogus:/x", "unsupported dictionary type: bogus"),
            ("!", "no pattern after"),
            ("/no/such/file", "cannot read /no/such/file"),
        ):
            error = self.assertRaises(ConfigError, hosts, "192.0.2.1", pattern)
            self.assertIn("qmqpd_authorized_clients: ", str(error))
            self.assertIn(words, str(error))
            self.assertIn(pattern, str(error))

    def test_error_in_file(self) -> None:
        """An element of a file is named with file and line; a file that names itself ends in an error."""
        path = Path(self.mktemp()).absolute()
        path.write_text("# x\n10.0.0.0/8\n10.0.0.1/8\n")
        self.assertIn(f"{path}, line 3: ", str(self.assertRaises(ConfigError, hosts, str(path))))
        path.write_text(f"{path}\n")
        self.assertIn("nest too deep", str(self.assertRaises(ConfigError, hosts, str(path))))

    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1), st.integers(20, 32)), max_size=8),
        st.data(),
    )
    def test_like_one_after_the_other(self, nets: list[tuple[bool, int, int]], data: st.DataObject) -> None:
        """Merging neighbours changes no answer."""
        networks = [(include, IPv4Network((net, mask), strict=False)) for include, net, mask in nets]
        matcher = hosts(*(f"{'' if include else '!'}{network}" for include, network in networks))
        for _, network in networks:
            offset = data.draw(st.integers(-2, 300))
            address = IPv4Address(max(int(network.network_address) + offset, 0) % 2**32)
            expected = next((include for include, other in networks if address in other), False)
            self.assertEqual(matcher.matches("unknown", str(address)), expected)


class DomainTests(SynchronousTestCase):
    """C{relay_domains}, C{mydestination}."""

    def test_styles(self) -> None:
        """Exact lists, C{.domain} lists, and parent style."""
        names = (
            "example.com",
            "A.Example.COM",
            "dot.test",
            "a.b.dot.test",
            "intable.test",
            "x.intable.test",
            "",
        )
        patterns = ["example.com", ".dot.test", "inline:{ {intable.test = x}, {.intable.test = x} }"]
        for options, expected in (
            ({}, [True, False, False, True, True, True, False]),
            ({"parent_style": True}, [True, True, False, False, True, True, False]),
            ({"exact": True}, [True, False, False, False, True, False, False]),
        ):
            matcher = DomainMatchList(patterns, "p", **options)
            self.assertEqual([matcher.matches(name) for name in names], expected, options)

    def test_negation(self) -> None:
        """An excluded subdomain of an included domain."""
        matcher = DomainMatchList(["!not.example.com", ".example.com", "example.com"], "p")
        self.assertFalse(matcher.matches("not.example.com"))
        self.assertTrue(matcher.matches("x.not.example.com"))
        self.assertTrue(matcher.matches("example.com"))

    def test_many(self) -> None:
        """A large file is one set: a look-up costs the labels of the name, not the size of the list."""
        path = Path(self.mktemp()).absolute()
        path.write_text("".join(f"d{number}.test\n" for number in range(50_000)))
        matcher = DomainMatchList([str(path)], "relay_domains", parent_style=True)
        self.assertTrue(matcher.matches("x.d49999.test"))
        self.assertFalse(matcher.matches("d50000.test"))
