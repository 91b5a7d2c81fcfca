"""
Addresses: parts, quotes, extensions, validity.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import (
    quote_address,
    quote_local_part,
    split_address,
    split_extension,
    unquote_local_part,
    valid_address,
    valid_hostname,
    valid_literal,
)
from qmqpd_tx.address.syntax import literal_address, strip_source_route


class SyntaxTests(SynchronousTestCase):
    """The functions, by example and by property."""

    def test_split(self) -> None:
        """The domain follows the last at sign."""
        self.assertEqual(split_address(b"a@b@c.test"), (b"a@b", b"c.test"))
        self.assertEqual(split_address(b"user"), (b"user", None))
        self.assertEqual(split_address(b"user@"), (b"user", b""))

    def test_quote(self) -> None:
        """As Postfix logs addresses."""
        for internal, external in (
            (b"user@x.test", b"user@x.test"),
            (b"us er@x.test", b'"us er"@x.test'),
            (b'"we ird"@a.test', b'"\\"we ird\\""@a.test'),
            (b"a\\b@x", b'"a\\\\b"@x'),
            (b".user@x", b'".user"@x'),
            (b"us..er@x", b'"us..er"@x'),
            (b"@x", b'""@x'),
            (b"user+x=y/z@x", b"user+x=y/z@x"),
            (b"a@b@x", b'"a@b"@x'),
            (b"bare", b"bare"),
            (b"bare word", b'"bare word"'),
            (b"", b""),
            ("\u00e9@x".encode(), "\u00e9@x".encode()),
        ):
            self.assertEqual(quote_address(internal), external)

    def test_source_route(self) -> None:
        """The sites before the colon go; one that is an IPv6 literal has colons of its own."""
        for address, direct in (
            (b"@a.test:u@b.test", b"u@b.test"),
            (b"@a.test,@b.test:u@c.test", b"u@c.test"),
            (b"@[IPv6:::1]:u@b.test", b"u@b.test"),
            (b"@[IPv6:::1],@a.test:u:v@b.test", b"u:v@b.test"),
            (b"@a:@b:u@c.test", b"@b:u@c.test"),
            (b"@a.test:", b"@a.test:"),
            (b"@a.test", b"@a.test"),
            (b'@"a:b"@c.test', b'@"a:b"@c.test'),
            (b"u:v@a.test", b"u:v@a.test"),
        ):
            self.assertEqual(strip_source_route(address), direct)

    @given(st.binary(max_size=30))
    def test_quote_round_trip(self, local: bytes) -> None:
        """Quoting loses nothing."""
        self.assertEqual(unquote_local_part(quote_local_part(local)), local)

    def test_extension(self) -> None:
        """Split at the first delimiter, but never at the front, nor a name of the mail system's."""
        for local, delimiters, expected in (
            (b"user+ext", b"+", (b"user", b"ext")),
            (b"user+a+b", b"+", (b"user", b"a+b")),
            (b"user-a+b", b"+-", (b"user", b"a+b")),
            (b"+ext", b"+", (b"+ext", None)),
            (b"user", b"+", (b"user", None)),
            (b"user+ext", b"", (b"user+ext", None)),
            (b"MAILER-DAEMON", b"-", (b"MAILER-DAEMON", None)),
            (b"double-bounce", b"-", (b"double-bounce", None)),
            (b"owner-list", b"-", (b"owner-list", None)),
            (b"list-request", b"-", (b"list-request", None)),
            (b"owner+list", b"+", (b"owner", b"list")),
        ):
            self.assertEqual(split_extension(local, delimiters), expected)

    def test_hostname(self) -> None:
        """What Postfix routes and what it refuses."""
        for name in (
            b"a",
            b"a.test",
            b"a-b.test",
            b"bad_host.test",
            "ex\u00e4mple.com".encode(),
            b"a" * 63,
            b"1a.2",
        ):
            self.assertTrue(valid_hostname(name), name)
        for name in (
            b"", b".", b".a", b"a.", b"a..b", b"-a.test", b"a-.test", b"a b", b"10.9.9.8", b"a" * 64,
            b"a.\xff", b"a\n", b"a@b", b".".join([b"a" * 60] * 5),
        ):  # fmt: skip
            self.assertFalse(valid_hostname(name), name)

    def test_literal(self) -> None:
        """Address literals are in brackets, and IPv6 ones say so."""
        for good in (
            b"[192.0.2.1]", b"[0.0.0.0]", b"[IPv6:::1]", b"[IPv6:::]", b"[ipv6:2001:db8::1]",
            b"[IPv6:1:2:3:4:5:6::]", b"[IPv6:1:2:3::5:6:7:8]", b"[IPv6:1:2:3:4:5::192.0.2.1]",
        ):  # fmt: skip
            self.assertTrue(valid_literal(good), good)
        for bad in (
            b"[::1]", b"[1.2.3]", b"192.0.2.1", b"[192.0.2.1", b"[]", b"[IPv6:1]", b"[\xff]",
            b"[0.1.1.1]", b"[192.0.2.01]", b"[IPv6:fe80::1%lo]", b"[IPv6:1:2:3:4:5:6:7::]",
            b"[IPv6:::2:3:4:5:6:7:8]", b"[IPv6:::2:3:4:5:6:192.0.2.1]",
        ):  # fmt: skip
            self.assertFalse(valid_literal(bad), bad)

    def test_mapped(self) -> None:
        """An IPv4 address in IPv6 form is the IPv4 address."""
        for domain in (b"[192.0.2.1]", b"[IPv6:::ffff:192.0.2.1]", b"[IPv6:0:0:0:0:0:ffff:c000:201]"):
            self.assertEqual(literal_address(domain), IPv4Address("192.0.2.1"))

    def test_address(self) -> None:
        """A whole address: domain, length, control characters."""
        self.assertTrue(valid_address(b"us er@x.test"))
        for bad in (
            b"user",
            b"user@",
            b"u\ns@x.test",
            b"u\0@x.test",
            b"x@\xff.test",
            b"a@b@",
            b"u" * 3000 + b"@x",
        ):
            self.assertFalse(valid_address(bad), bad)
        self.assertFalse(valid_address(b"user@x.test", maximal_length=10))
