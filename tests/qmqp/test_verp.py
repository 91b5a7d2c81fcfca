"""VERP senders."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmqp.verp import split_verp, verp_fault


class SplitTests(SynchronousTestCase):
    def test_verp(self) -> None:
        """What Postfix's queue manager logged for these."""
        for sender, plain, delimiters in (
            (b"pre-@origin.com-@[]", b"pre@origin.com", b"-="),
            (b"pre+@origin.com-@[]", b"pre@origin.com", b"+="),
            (b"pre=@origin.com-@[]", b"pre@origin.com", b"=="),
            (b"pre!@origin.com-@[]", b"pre@origin.com", b"!="),
            (b"pre-@a@b-@[]", b"pre@a@b", b"-="),
            (b"e-@o-@[]", b"e@o", b"-="),
            (b'"q@x"-@origin.com-@[]', b'"@x"-@origin.com', b"q="),
        ):
            verp = split_verp(sender)
            self.assertEqual((verp.sender, verp.delimiters), (plain, delimiters))

    def test_no_verp(self) -> None:
        for sender in (
            b"",
            b"a@example.com",
            b"-@[]",
            b"@[]",
            b"#@[]",
            b"a-@[]",
            b"noat-@[]",
            b"@-@[]",
            b"pre-@-@[]",
            b"-@origin.com-@[]",
            b"pre=@a.com=@[]",
            b"pre-@origin.com-@[].",
        ):
            verp = split_verp(sender)
            self.assertEqual((verp.sender, verp.delimiters), (sender, None))


class FilterTests(SynchronousTestCase):
    def test_allowed(self) -> None:
        for delimiters in (b"-=", b"+=", b"=="):
            self.assertIsNone(verp_fault(delimiters, b"-=+"))

    def test_not_allowed(self) -> None:
        self.assertEqual(
            verp_fault(b"!=", b"-=+"), 'Invalid VERP delimiters: "!=". Need two characters from "-=+"'
        )
        self.assertIsNotNone(verp_fault(b"-=", b"-+"))
