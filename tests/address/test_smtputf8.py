"""Which mail needs SMTPUTF8, and which addresses beyond ASCII make sense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address import Router
from qmqpd_tx.address.internationalized import ascii_domain
from qmqpd_tx.address.smtputf8 import (
    ADDRESSES,
    BOUNCE,
    HEADERS,
    QMQPD,
    Detection,
    bad_encoding,
    needs_smtputf8,
)
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError


class DetectionTests(SynchronousTestCase):
    """smtputf8_autodetect_classes"""

    def mark(self, text: str, origin: str = QMQPD, headers: bool = False) -> bytes | None:
        return Detection.from_config(config_from_text(f"smtputf8_enable = yes\n{text}")).mark(origin, headers)

    def test_classes(self) -> None:
        for text, mark in (
            # By default, as with Postfix, mail by QMQP is not looked at.
            ("", None),
            ("smtputf8_autodetect_classes = qmqpd\n", ADDRESSES),
            ("smtputf8_autodetect_classes = sendmail, qmqpd\n", ADDRESSES),
            ("smtputf8_autodetect_classes = all\n", ADDRESSES),
            ("smtputf8_autodetect_classes =\n", None),
            ("smtputf8_autodetect_classes = all\nsmtputf8_enable = no\n", None),
            ("smtputf8_autodetect_classes = bounce\n", None),
        ):
            self.assertEqual((text, self.mark(text)), (text, mark))
        self.assertEqual(self.mark("smtputf8_autodetect_classes = all\n", headers=True), HEADERS)
        self.assertEqual(self.mark("smtputf8_autodetect_classes = bounce\n", BOUNCE), ADDRESSES)

    def test_notice_about_marked_mail(self) -> None:
        detection = Detection.from_config(config_from_text("smtputf8_enable = yes\n"))
        self.assertEqual(detection.mark(BOUNCE, False, about=HEADERS), ADDRESSES)
        self.assertIsNone(detection.mark(BOUNCE, False, about=None))
        off = Detection.from_config(config_from_text("smtputf8_enable = no\n"))
        self.assertIsNone(off.mark(BOUNCE, True, about=HEADERS))

    def test_unknown_class(self) -> None:
        error = self.assertRaises(ConfigError, config_from_text, "smtputf8_autodetect_classes = qmqp\n")
        self.assertIn('unknown value "qmqp"', str(error))


class NeedTests(SynchronousTestCase):
    def test_need(self) -> None:
        for mark, sender, recipients, needs in (
            (None, b"\xc3\xbc@x", [b"\xc3\xbc@x"], False),
            (b"", b"\xc3\xbc@x", [], False),
            (HEADERS, b"", [b"a@x"], True),
            (ADDRESSES, b"", [b"a@x"], False),
            (ADDRESSES, b"\xc3\xbc@x", [b"a@x"], True),
            (ADDRESSES, b"", [b"a@x", b"a@\xc3\xbc"], True),
        ):
            self.assertEqual(needs_smtputf8(mark, sender, recipients), needs)


class EncodingTests(SynchronousTestCase):
    """What cannot be routed: 5.1.3, bad address syntax."""

    def test_enabled(self) -> None:
        for address, bad in (
            (b"a@example.org", False),
            ("ü@exämple.org".encode(), False),
            ("ü".encode(), False),
            ("faß@faß.de".encode(), False),
            (b"\xe9@example.org", True),
            (b"a@ex\xe9mple.org", True),
            ("a@-ä.org".encode(), True),
            ("a@ex\u2028mple.org".encode(), True),
            ("a@[exämple.org]".encode(), True),
            (("a@" + "ä" * 70 + ".org").encode(), True),
        ):
            self.assertEqual((address, bad_encoding(address, True)), (address, bad))

    def test_disabled(self) -> None:
        self.assertFalse(bad_encoding(b"\xe9@example.org", False))
        self.assertTrue(bad_encoding("a@exämple.org".encode(), False))


class DomainTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for name, found in (
            ("example.org", "example.org"),
            ("_dmarc.exämple.org", "_dmarc.xn--exmple-cua.org"),
            ("exämple。org", "xn--exmple-cua.org"),
            ("xn--exmple-cua.exämple.org.", "xn--exmple-cua.xn--exmple-cua.org."),
            ("faß.de", "xn--fa-hia.de"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("xn--ü.org", None),
            ("\u0378.org", None),
        ):
            self.assertEqual((name, ascii_domain(name)), (name, found))
        self.assertEqual(ascii_domain("faß.de", True), "fass.de")
        self.assertEqual(ascii_domain("βόλος.com", True), "xn--nxasmq6b.com")
        self.assertEqual(ascii_domain("βόλος.com"), "xn--nxasmm1c.com")

    @given(st.text(max_size=40))
    def test_any_text(self, name: str) -> None:
        found = ascii_domain(name)
        self.assertTrue(found is None or found.isascii())


class RouteTests(SynchronousTestCase):
    """What trivial-rewrite makes of addresses beyond ASCII, with smtputf8_enable and without."""

    def route(self, address: bytes, enabled: str) -> str:
        text = f"smtputf8_enable = {enabled}\nmydestination =\nmyhostname = relay.test\n"
        route = Router(config_from_text(text)).resolve(b"", address)
        return f"{route.transport}:{route.nexthop}"

    def test_routes(self) -> None:
        bad = "error:5.1.3 bad address syntax"
        for address, enabled, disabled in (
            ("ü@exämple.test".encode(), "smtp:exämple.test", bad),
            ("ü@example.test".encode(), "smtp:example.test", "smtp:example.test"),
            (b"\xe9@example.test", bad, "smtp:example.test"),
            ("a@-ä.test".encode(), bad, bad),
        ):
            self.assertEqual((address, self.route(address, "yes")), (address, enabled))
            self.assertEqual((address, self.route(address, "no")), (address, disabled))
