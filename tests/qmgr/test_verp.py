"""VERP senders."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.verp import verp_sender


class VerpSenderTests(SynchronousTestCase):
    """Compared with what Postfix 3.7 was seen to send."""

    def test_seen(self) -> None:
        """As seen on the wire."""
        self.assertEqual(verp_sender(b"list@relay.test", b"-=", b"u@dst.test"), b"list-u=dst.test@relay.test")

    def test_last_at(self) -> None:
        """A quoted local part may hold an C{@}."""
        self.assertEqual(verp_sender(b'"a@b"@c', b"+=", b'"x@y"@z'), b'"a@b"+"x@y"=z@c')

    def test_no_domain(self) -> None:
        """Addresses without a domain."""
        self.assertEqual(verp_sender(b"list", b"-=", b"u@d"), b"list-u=d")
        self.assertEqual(verp_sender(b"list@o", b"-=", b"u"), b"list-u@o")

    def test_null_sender(self) -> None:
        """Nobody to return to stays nobody."""
        self.assertEqual(verp_sender(b"", b"-=", b"u@d"), b"")
