"""
Side by side with Postfix: who hears of mail that cannot be delivered, from whom, and what the log says of
addresses that are odd.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.intake_cases import mail
from tests.interop.intake_peers import Scenario, ours, outcomes, postfix

SYSTEM = {
    "mydestination": "home.test",
    "myorigin": "origin.test",
    "local_transport": "smtp:OTHER",
    "transport_maps": "inline:{{bad.test=error:5.1.2 no}}",
}

DOUBLE_BOUNCE = Scenario(
    "double-bounce addresses",
    SYSTEM,
    [
        mail("local", recipients=(b"double-bounce@home.test", b"user@home.test")),
        mail("local, in any case", recipients=(b"Double-Bounce@HOME.test",)),
        mail("of myorigin", recipients=(b"double-bounce", b"double-bounce@origin.test")),
        mail("of others", recipients=(b"double-bounce@x.test", b"double-bounce@relay.test")),
    ],
)

COPIES = Scenario(
    "copies of notices",
    {**SYSTEM, "always_bcc": "copy@bad.test", "notify_classes": "bounce, 2bounce"},
    [
        mail("only the copy fails", recipients=(b"u@y.test",)),
        mail("both fail", recipients=(b"u@bad.test",)),
        mail("null sender", sender=b"", recipients=(b"u@bad.test",)),
        mail("null sender, only the copy fails", sender=b"", recipients=(b"u@y.test",)),
        mail("VERP", sender=b"list-@x.test-@[]", recipients=(b"u@bad.test", b"q u@bad.test")),
        mail(
            "from the double-bounce address", sender=b"double-bounce@relay.test", recipients=(b"u@bad.test",)
        ),
        mail("from one of myorigin", sender=b"double-bounce", recipients=(b"u@bad.test",)),
    ],
)

ADDRESSES = [
    mail("sender", sender="j\u00f6@x.test".encode()),
    mail("recipient", recipients=("j\u00f6 x@y.test".encode(),)),
    mail("alias", recipients=("\u00e4@y.test".encode(),)),
    mail("undeliverable", recipients=("j\u00f6@bad.test".encode(),)),
    mail("warning", "X-Warn: h\u00f6".encode(), sender="j\u00f6@x.test".encode()),
]
LOG = {
    **SYSTEM,
    "virtual_alias_maps": "inline:{{\u00e4@y.test=t@y.test}}",
    "header_checks": "regexp:{{/^X-Warn: / WARN said}}",
}
ASCII_LOG = Scenario("log without UTF-8", {**LOG, "smtputf8_enable": "no"}, ADDRESSES)
UTF8_LOG = Scenario("log with UTF-8", {**LOG, "smtputf8_enable": "yes"}, ADDRESSES)

SENDERS = Scenario(
    "senders with a bad domain",
    {},
    [
        mail(repr(sender), sender=sender)
        for sender in (b"b@x y", b"b@x;y", b"b@x:y", b"b@", b"b@x..y", b"a@[x y]")
    ],
)


class UndeliverableTests(SynchronousTestCase):
    """One scenario a test."""

    def compare(self, scenario: Scenario, *, log: bool = True) -> None:
        """
        @param log: whether cleanup's lines are compared, too.
        @raise FailTest: the two differ.
        """
        with postfix(scenario) as server:
            theirs = outcomes(server, scenario)
        with ours(scenario) as server:
            mine = outcomes(server, scenario)
        for case, their in theirs.items():
            our = mine[case] if log else evolve(mine[case], log=their.log)
            self.assertEqual(their, our, f"{scenario.name}: {case}")

    def test_double_bounce_addresses(self) -> None:
        """
        Mail for the double-bounce address is discarded where it is local, and delivered elsewhere.
        """
        self.compare(DOUBLE_BOUNCE)

    def test_double_bounce_addresses_routed(self) -> None:
        """
        Its address class decides that it is local, and not where it goes.
        """
        for local, table in (("smtp", "{home.test=smtp:OTHER},{x.test=smtp:SINK}"), ("smtp:SINK", "")):
            more = {
                "local_transport": local,
                "transport_maps": f"inline:{{{{bad.test=error:5.1.2 no}},{table}}}",
            }
            self.compare(evolve(DOUBLE_BOUNCE, settings={**SYSTEM, **more}))

    def test_copies(self) -> None:
        """
        Postmasters hear of automatic copies that fail, from C{double-bounce@$myhostname}; senders do not.
        Postfix's log has the Message-Id of a notice to the sender that is then not sent.
        """
        self.compare(COPIES, log=False)

    def test_ascii_log(self) -> None:
        """
        With C{smtputf8_enable = no} the log shows C{?} for each byte beyond ASCII.
        """
        self.compare(ASCII_LOG)

    def test_utf8_log(self) -> None:
        """
        With C{smtputf8_enable = yes} it shows UTF-8.
        """
        self.compare(UTF8_LOG)

    def test_senders(self) -> None:
        """
        A sender whose domain is none goes out as it is.
        """
        self.compare(SENDERS)
