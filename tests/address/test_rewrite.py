"""
Addresses made complete; tests/interop/test_addresses compares it with Postfix at length.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address.rewrite import AddressRewriter


class RewriteTests(SynchronousTestCase):
    """Envelope addresses, in internal form."""

    def check(self, rewriter: AddressRewriter, *cases: tuple[bytes, bytes]) -> None:
        for address, complete in cases:
            self.assertEqual((address, rewriter.rewrite(address)), (address, complete))

    def test_sites(self) -> None:
        """C{site!user} and C{user%site} name a site, of which any part may be empty."""
        self.check(
            AddressRewriter(b"origin.test"),
            (b"a!b", b"b@a"),
            (b"a!b!c", b"b!c@a"),
            (b"a%b", b"a@b"),
            (b"a!b%c", b"b%c@a"),
            (b"a%", b"a@"),
            (b"a!", b"@a"),
            (b"!", b"@"),
            (b"a", b"a@origin.test"),
        )

    def test_quoted(self) -> None:
        """A local part that needs quotes is a name, whatever is in it."""
        for local in (b"a b!c", b"a,b!c", b"c%[192.0.2.1]", b"c!a..b", b".a!c", b"a%b.", b"a\\!b"):
            self.check(AddressRewriter(b"origin.test"), (local, local + b"@origin.test"))
            self.check(AddressRewriter(b"origin.test", append_origin=False), (local, local))

    def test_empty_domain(self) -> None:
        """It stays, and what is before it too."""
        self.check(
            AddressRewriter(b"origin.test"),
            (b"a@", b"a@"),
            (b"a@b@", b"a@b@"),
            (b"a@@", b"a@@"),
            (b"@", b"@"),
        )

    def test_parent(self) -> None:
        """With append_dot_mydomain a domain without a dot gets mydomain, and the origin is such a domain."""
        self.check(
            AddressRewriter(b"h", b"my.test", append_domain=True),
            (b"a", b"a@h.my.test"),
            (b"a b!c", b"a b!c@h.my.test"),
            (b"a@k", b"a@k.my.test"),
            (b"a@k.", b"a@k"),
            (b"k!a", b"a@k.my.test"),
            (b"a@[192.0.2.1]", b"a@[192.0.2.1]"),
        )
