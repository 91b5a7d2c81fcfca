"""
Mail that needs SMTPUTF8, and domains that are not ASCII: smtputf8_enable, enable_idna2003_compatibility.
What is said and bounced is what Postfix 3.7 says and bounces.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address.smtputf8 import ADDRESSES, HEADERS
from qmqpd_tx.status import Action
from qmqpd_tx.transports.smtp.addresses import orcpt_parameter
from tests.transports.smtp.support import EHLO, Content, World

OFFERED = b"250-srv.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-SMTPUTF8\r\n250 8BITMIME"
UTF8 = "ü@exämple.test".encode()
OK = b"250 2.0.0 Ok"
HOST = "127.0.0.1[127.0.0.1]"
REFUSED = f"SMTPUTF8 is required, but was not offered by host {HOST}"


class EnvelopeTests(World):
    def setUp(self) -> None:
        super().setUp()
        # The default is no with compatibility_level 0.
        self.configure("smtputf8_enable = yes\n")

    def mail_command(self, ehlo: bytes = OFFERED, **message: object) -> bytes:
        """@return: the first command after the handshake, or nothing."""
        delivery = self.deliver(**message)
        peer = self.accept()
        peer.greet(ehlo)
        command = peer.heard().split(b"\r\n")[0]
        peer.close()
        self.last = self.report(delivery).outcomes
        return command

    def test_where_it_is_said(self) -> None:
        for mark, sender, recipients, said in (
            (None, b"s@from.test", [UTF8], False),
            (None, UTF8, [b"r@to.test"], False),
            (ADDRESSES, b"s@from.test", [b"r@to.test"], False),
            (ADDRESSES, b"s@from.test", [b"r@to.test", UTF8], True),
            (ADDRESSES, b"s@from.test", [b"\xe9@to.test"], True),
            (ADDRESSES, UTF8, [b"r@to.test"], True),
            (HEADERS, b"s@from.test", [b"r@to.test"], True),
            (HEADERS, b"", [b"r@to.test"], True),
        ):
            command = self.mail_command(smtputf8=mark, sender=sender, recipients=recipients)
            self.assertEqual(command.endswith(b" SMTPUTF8"), said, (mark, sender, recipients))

    def test_order_of_parameters(self) -> None:
        command = self.mail_command(
            smtputf8=HEADERS, content=Content(b"Subject: \xc3\xbc\n\n\xc3\xbc\n"), eight_bit=True
        )
        self.assertEqual(command, b"MAIL FROM:<s@from.test> SIZE=19 BODY=8BITMIME SMTPUTF8")

    def test_not_offered(self) -> None:
        for mark, recipients in ((HEADERS, [b"r@to.test"]), (ADDRESSES, [b"r@to.test", UTF8])):
            self.assertEqual(self.mail_command(EHLO, smtputf8=mark, recipients=recipients), b"")
            for outcome in self.last:
                self.check(outcome, Action.BOUNCED, "5.6.7", REFUSED, HOST + ":2525")

    def test_not_offered_and_not_needed(self) -> None:
        """Recipients in ASCII get their mail from any server, when no header stands against it."""
        command = self.mail_command(EHLO, smtputf8=ADDRESSES)
        self.assertEqual(command, b"MAIL FROM:<s@from.test> SIZE=21")

    def test_offer_overlooked(self) -> None:
        self.configure("smtputf8_enable = yes\nsmtp_discard_ehlo_keywords = smtputf8\n")
        self.assertEqual(self.mail_command(smtputf8=HEADERS), b"")
        self.check(self.last[0], Action.BOUNCED, "5.6.7", REFUSED)

    def test_switched_off(self) -> None:
        """smtputf8_enable = no: what is in the queue with a mark goes out as it always did."""
        self.configure("smtputf8_enable = no\n")
        for ehlo in (EHLO, OFFERED):
            command = self.mail_command(ehlo, smtputf8=HEADERS, sender=UTF8)
            self.assertEqual(command, b"MAIL FROM:<" + UTF8 + b"> SIZE=21")

    def test_the_next_host_is_not_asked(self) -> None:
        delivery = self.deliver("[127.0.0.1]:2525, [127.0.0.2]:2525", smtputf8=HEADERS)
        peer = self.accept()
        peer.greet()
        self.assertEqual(self.pending(), 0)
        self.check(self.outcome(delivery), Action.BOUNCED, "5.6.7", REFUSED)

    def test_connection_is_used_again(self) -> None:
        first = self.deliver(smtputf8=HEADERS)
        peer = self.accept()
        peer.greet()
        self.assertEqual(self.outcome(first).dsn, "5.6.7")
        self.deliver()
        self.assertEqual(self.pending(), 0)
        self.assertTrue(peer.heard().startswith(b"MAIL FROM:<s@from.test> SIZE=21\r\n"))


class OriginalRecipientTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for address, said in (
            (UTF8, rb" ORCPT=utf-8;\x{FC}@ex\x{E4}mple.test"),
            ("a+b=\\ü@x".encode(), rb' ORCPT=utf-8;"a\x{2B}b\x{3D}\x{5C}\x{5C}\x{FC}"@x'),
            ("\U0001f4e7@x".encode(), rb" ORCPT=utf-8;\x{1F4E7}@x"),
            (b"a+b@x", b" ORCPT=rfc822;a+2Bb@x"),
            (b"\xe9@x", b""),
            (b"\xc3\xbc\n@x", b""),
        ):
            self.assertEqual(orcpt_parameter(address, True), said)
            if not address.isascii():
                self.assertEqual(orcpt_parameter(address), b"")


class DomainTests(World):
    """The DNS is asked for A-labels."""

    def setUp(self) -> None:
        super().setUp()
        self.zone.records.update(
            {
                "xn--exmple-cua.test": [("MX", 10, "a.test")],
                "xn--fa-hia.test": [("A", "192.0.2.2")],
                "fass.test": [("A", "192.0.2.3")],
                "a.test": [("A", "192.0.2.1")],
            }
        )

    def connects_to(self, nexthop: str) -> str:
        """@return: where to, or why not."""
        delivery = self.deliver(nexthop)
        if self.pending():
            return self.refuse()
        outcome = self.outcome(delivery)
        return f"{outcome.action.name} {outcome.dsn} {outcome.text}"

    def test_labels(self) -> None:
        for nexthop, found in (
            ("exämple.test", "192.0.2.1"),
            ("EXÄMPLE.test", "192.0.2.1"),
            ("xn--exmple-cua.test", "192.0.2.1"),
            ("[faß.test]", "192.0.2.2"),
            ("faß.test", "192.0.2.2"),
            (
                "nö.test",
                "BOUNCED 5.4.4 Host or domain name not found. Name service error for name=xn--n-1ga.test "
                "type=A: Host not found",
            ),
        ):
            self.assertEqual((nexthop, self.connects_to(nexthop)), (nexthop, found))

    def test_idna2003(self) -> None:
        self.configure("enable_idna2003_compatibility = yes\n")
        self.assertEqual(self.connects_to("faß.test"), "192.0.2.3")

    def test_no_such_form(self) -> None:
        """A label that IDNA does not allow is a name that nobody has."""
        for nexthop in ("\u0378.test", "[xn--ü.test]"):
            self.assertIn("BOUNCED 5.4.4 Name service error for ", self.connects_to(nexthop))
        self.assertEqual(self.zone.asked, [])
