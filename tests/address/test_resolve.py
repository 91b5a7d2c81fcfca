"""
The router by itself; tests/interop/test_routing compares it with Postfix at length.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.address import Router, own_addresses
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, IConfig, IRouter
from qmqpd_tx.message import Route

BASE = "compatibility_level = 3.6\nmyhostname = relay.test\ninet_interfaces = 127.0.0.1\n"


def own(config: IConfig) -> set[object]:
    """
    @return: fixed addresses.
    """
    return {ip_address("127.0.0.1"), ip_address("2001:db8::1")}


def router(settings: str = "", cache_size: int = 100) -> Router:
    """
    @return: a router for main.cf lines.
    """
    return Router(config_from_text(BASE + settings), own, cache_size)  # type: ignore[arg-type]


class RouterTests(SynchronousTestCase):
    """Transport, nexthop and recipient."""

    def check(self, subject: Router, *cases: tuple[bytes, str, str]) -> None:
        for recipient, transport, nexthop in cases:
            for _ in range(2):  # once for the cache
                self.assertEqual(subject.resolve(b"", recipient), Route(transport, nexthop, recipient))

    def test_classes(self) -> None:
        """Each address class has its transport."""
        settings = (
            "mydestination = relay.test\nrelay_domains = rel.test\n"
            "virtual_mailbox_domains = vmb.test\nvirtual_alias_domains = va.test\n"
        )
        self.check(
            router(settings),
            (b"u@relay.test", "local", "relay.test"),
            (b"u@[127.0.0.1]", "local", "relay.test"),
            (b"u@[IPv6:2001:DB8:0::1]", "local", "relay.test"),
            (b"u@rel.test", "relay", "rel.test"),
            (b"u@x.rel.test", "relay", "x.rel.test"),
            (b"u@vmb.test", "virtual", "vmb.test"),
            (b"u@va.test", "error", "5.1.1 User unknown in virtual alias table"),
            (b"u@Else.TEST", "smtp", "else.test"),
        )

    def test_relayhost(self) -> None:
        """It takes what is not ours; a transport that names its own nexthop keeps it."""
        self.check(
            router("relayhost = [gw.test]:2525\nrelay_domains = rel.test\nmydestination = relay.test\n"),
            (b"u@a.test", "smtp", "[gw.test]:2525"),
            (b"u@rel.test", "relay", "[gw.test]:2525"),
            (b"u@relay.test", "local", "relay.test"),
        )
        self.check(
            router("relayhost = gw.test\ndefault_transport = smtp:own.test\n"),
            (b"u@a.test", "smtp", "own.test"),
        )

    def test_transport_maps(self) -> None:
        """An address's own entry beats its domain's, and starts from the class, not from that entry."""
        settings = (
            "transport_maps = inline:{ {a.test = slow:dom}, {u@a.test = :own}, {v@a.test = fast:}, "
            "{.b.test = :sub} {* = star:} }\nrecipient_delimiter = +\n"
        )
        self.check(
            router(settings),
            (b"x@a.test", "slow", "dom"),
            (b"u@a.test", "smtp", "own"),
            (b"U+ext@a.test", "smtp", "own"),
            (b"v@a.test", "fast", "a.test"),
            (b"x@b.test", "star", "b.test"),
            (b"x@y.b.test", "smtp", "sub"),
        )

    def test_either_form(self) -> None:
        """A key may have the quotes that its address needs, or not; with them comes first."""
        path = Path(self.mktemp()).absolute()
        path.write_text('"a,b"@a.test one:\na,b@a.test two:\nc,d@a.test three:\n')
        settings = f"transport_maps = texthash:{path}\nrecipient_delimiter = +\n"
        self.check(
            router(settings),
            (b"a,b@a.test", "one", "a.test"),
            (b"c,d@a.test", "three", "a.test"),
            (b"c,d+x@a.test", "three", "a.test"),
        )

    def test_moved(self) -> None:
        """Who has moved is not delivered to, whatever the route would be, and whatever the class."""
        settings = (
            "relocated_maps = inline:{ {u@a.test = v@b.test}, {joe = Room 5}, {@gone.test = the beach} }\n"
            "mydestination = relay.test\ntransport_maps = inline:{ {a.test = slow:} }\n"
        )
        text = "5.1.6 User has moved to "
        self.check(
            router(settings),
            (b"u@a.test", "error", text + "v@b.test"),
            (b"w@a.test", "slow", "a.test"),
            (b"joe@relay.test", "error", text + "Room 5"),
            (b"joe@b.test", "smtp", "b.test"),
            (b"any@gone.test", "error", text + "the beach"),
        )

    def test_alias_domain(self) -> None:
        """Nobody but its aliases is known in a virtual alias domain, whatever transport_maps say."""
        settings = (
            "virtual_alias_domains = va.test\nrelocated_maps = {}\n"
            "transport_maps = inline:{{ {{u@va.test = slow:}}, {{va.test = slow:}}, {{* = smtp:[hub]}} }}\n"
        )
        unknown = "5.1.1 User unknown in virtual alias table"
        for maps in ("", "inline:{m@va.test=there}"):
            self.check(
                router(settings.format(maps)),
                (b"u@va.test", "error", unknown),
                (b"v@va.test", "error", unknown),
                (b"u@b.test", "smtp", "[hub]"),
            )
        self.check(
            router("virtual_alias_domains = va.test\ntransport_maps = fail:x\n"),
            (b"u@va.test", "error", unknown),
        )

    def test_other_letters(self) -> None:
        """Upper and lower case beyond ASCII stay, so that a name does not become another one."""
        for domain in ("straße.test", "ΒΌΛΟΣ.test", "Jö.test"):
            expected = domain.replace("J", "j")
            self.check(router(), (f"u@{domain}".encode(), "smtp", expected))

    def test_error_by_class(self) -> None:
        """An error by class without a text says the domain; one by transport_maps has a sentence."""
        settings = (
            "mydestination = relay.test\nlocal_transport = error\ndefault_transport = retry:\n"
            "transport_maps = inline:{ {e.test = error:}, {k.test = :} }\n"
        )
        self.check(
            router(settings),
            (b"u@relay.test", "error", "relay.test"),
            (b"u@a.test", "retry", "a.test"),
            (b"u@k.test", "retry", "k.test"),
            (b"u@e.test", "error", "Address is undeliverable"),
        )

    def test_dot_protects(self) -> None:
        """mydomain is appended to what is taken out of a local part, but not after a final dot."""
        subject = router("mydestination = relay.test\nappend_dot_mydomain = yes\nmydomain = my.test\n")
        for given_, recipient in (
            (b"u@h", b"u@h"),
            (b"u%h@relay.test", b"u@h.my.test"),
            (b"u%h.@relay.test", b"u@h"),
            (b"h.!u@relay.test", b"u@h"),
            (b"u@h.@relay.test", b"u@h"),
        ):
            domain = recipient.partition(b"@")[2].decode()
            self.assertEqual(subject.resolve(b"", given_), Route("smtp", domain, recipient))

    def test_empty_parts(self) -> None:
        """An empty domain around an address is ours, and an empty local part at home is the mail system."""
        subject = router("mydestination = relay.test, home.test\nempty_address_recipient = nobody\n")
        for given_, route in (
            (b"@home.test", Route("local", "relay.test", b"nobody@home.test")),
            (b"@a.test", Route("smtp", "a.test", b"@a.test")),
            (b"u@a.test@", Route("smtp", "a.test", b"u@a.test")),
            (b"u%a.test@", Route("smtp", "a.test", b"u@a.test")),
            (b"u@", Route("error", "5.1.3 bad address syntax", b"u@")),
        ):
            self.assertEqual(subject.resolve(b"", given_), route)
        subject = router("mydestination = relay.test\nresolve_null_domain = yes\n")
        for given_, recipient in ((b"u@", b"u@relay.test"), (b"@", b"MAILER-DAEMON@relay.test")):
            self.assertEqual(subject.resolve(b"", given_), Route("local", "relay.test", recipient))

    def test_numeric_domain(self) -> None:
        """An address without brackets gets them, and what stands before it is left alone."""
        subject = router("mydestination = relay.test\nresolve_numeric_domain = yes\n")
        for given_, route in (
            (b"u%a@127.0.0.1", Route("local", "relay.test", b"u%a@[127.0.0.1]")),
            (b"u@192.0.2.1", Route("smtp", "[192.0.2.1]", b"u@[192.0.2.1]")),
            (b"u@2001:db8::1", Route("local", "relay.test", b"u@[IPv6:2001:db8::1]")),
        ):
            self.assertEqual(subject.resolve(b"", given_), route)

    def test_before_a_literal(self) -> None:
        """There a local part may be any bytes."""
        self.check(router(), (b"\xff@[192.0.2.1]", "smtp", "[192.0.2.1]"))

    def test_patterns_are_for_text(self) -> None:
        """With SMTPUTF8 a pattern is not asked for an address that is not UTF-8."""
        path = Path(self.mktemp()).absolute()
        path.write_text("/./ hub\n")
        for settings, sender, nexthop in (
            (f"regexp:{path}", b"\xff@b.test", "a.test"),
            (f"unionmap:{{regexp:{path}}}", b"\xff@b.test", "a.test"),
            (f"regexp:{path}", b"\xc3\xb6@b.test", "hub"),
            (f"regexp:{path}\nsmtputf8_enable = no", b"\xff@b.test", "hub"),
            ("static:hub", b"\xff@b.test", "hub"),
        ):
            subject = router(f"sender_dependent_relayhost_maps = {settings}\n")
            self.assertEqual(subject.resolve(sender, b"u@a.test"), Route("smtp", nexthop, b"u@a.test"))

    def test_unknown_alias(self) -> None:
        """The table's name is told or not."""
        settings = "virtual_alias_domains = va.test\nshow_user_unknown_table_name = no\n"
        self.check(router(settings), (b"u@va.test", "error", "5.1.1 User unknown"))

    def test_two_lists(self) -> None:
        """A domain in two lists is warned of, as Postfix does, unless nobody wants help."""
        settings = "mydestination = both.test\nvirtual_alias_domains = both.test\n"
        text = "do not list domain both.test in BOTH mydestination and virtual_alias_domains"
        for helpful, expected in (("yes", [text]), ("no", [])):
            events: list[LogEvent] = []
            globalLogPublisher.addObserver(events.append)
            self.addCleanup(globalLogPublisher.removeObserver, events.append)
            subject = router(settings + f"helpful_warnings = {helpful}\n")
            self.check(subject, (b"u@both.test", "local", "relay.test"))
            self.assertEqual([formatEvent(event) for event in events], expected)

    def test_bad_addresses(self) -> None:
        """What is no address bounces with Postfix's text."""
        for bad in (
            b"u@",
            b"u@b..test",
            b"u@[bad",
            b"-u@a.test",
            b"u\n@a.test",
            b"\xff@a.test",
            b"u@10.0.0.1",
            b"@@",
        ):
            route = router("mydestination = relay.test").resolve(b"", bad)
            self.assertEqual((route.transport, route.nexthop), ("error", "5.1.3 bad address syntax"), bad)

    def test_completed(self) -> None:
        """Null address, bare user, source route, and our own domain around another address."""
        subject = router("mydestination = relay.test\nmyorigin = origin.test\n")
        for given_, route in (
            (b"", Route("local", "relay.test", b"MAILER-DAEMON@relay.test")),
            (b"user", Route("smtp", "origin.test", b"user@origin.test")),
            (b"@x.test:u@a.test", Route("smtp", "a.test", b"u@a.test")),
            (b"u%a.test@relay.test", Route("smtp", "a.test", b"u@a.test")),
            (b"a.test!u@relay.test", Route("smtp", "a.test", b"u@a.test")),
            (b"u@a.test@relay.test", Route("smtp", "a.test", b"u@a.test")),
            (b"u%a.test@b.test", Route("smtp", "b.test", b"u%a.test@b.test")),
            (b"u@a.test.", Route("smtp", "a.test", b"u@a.test")),
        ):
            self.assertEqual(subject.resolve(b"", given_), route)

    def test_reconfigure(self) -> None:
        """A new configuration counts at once, tables included; a bad one changes nothing."""
        path = Path(self.mktemp()).absolute()
        path.write_text("a.test one:\n")
        settings = f"transport_maps = texthash:{path}\n"
        subject = router(settings)
        self.check(subject, (b"u@a.test", "one", "a.test"))
        path.write_text("a.test two:\n")
        self.check(subject, (b"u@a.test", "one", "a.test"))
        subject.reconfigure(config_from_text(BASE + settings))
        self.check(subject, (b"u@a.test", "two", "a.test"))
        bad = config_from_text(BASE + "transport_maps = nosuch:/x\n")
        error = self.assertRaises(ConfigError, subject.reconfigure, bad)
        self.assertIn("transport_maps: unsupported dictionary type: nosuch", str(error))
        self.check(subject, (b"u@a.test", "two", "a.test"))

    def test_bounded(self) -> None:
        """The memory for domains does not grow with the domains seen; answers stay right."""
        subject = router(cache_size=10)
        self.check(subject, *((b"u@d%d.test" % n, "smtp", f"d{n}.test") for n in range(100)))
        self.assertLessEqual(len(subject._settings.domains), 10)

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"@",
                    b"%",
                    b"!",
                    b":",
                    b".",
                    b"a",
                    b"relay.test",
                    b"[127.0.0.1]",
                    b'"',
                    b"\\",
                    b"-",
                    b"\xff",
                ]
            ),
            max_size=12,
        ).map(b"".join)
    )
    def test_any_address(self, address: bytes) -> None:
        """Every address gets a route, with a domain or to error; asking again gives the same."""
        subject = router("mydestination = relay.test\nresolve_null_domain = yes\n")
        route = subject.resolve(b"", address)
        self.assertEqual(subject.resolve(b"", address), route)
        self.assertTrue(route.transport == "error" or b"@" in route.recipient)

    def test_interface(self) -> None:
        """It is an IRouter."""
        verifyObject(IRouter, router())


class OwnTests(SynchronousTestCase):
    """The addresses of this system."""

    def find(self, settings: str) -> set[str]:
        return {
            str(address)
            for address in own_addresses(config_from_text("myhostname = relay.test\n" + settings))
        }

    def test_listed(self) -> None:
        """Addresses, with and without brackets, of both parameters."""
        self.assertEqual(
            self.find("inet_interfaces = 127.0.0.1, [::1]\nproxy_interfaces = 192.0.2.1\n"),
            {"127.0.0.1", "::1", "192.0.2.1"},
        )

    def test_words(self) -> None:
        """C{loopback-only} and C{all} have the loopback addresses at least; a name is looked up."""
        self.assertEqual(self.find("inet_interfaces = loopback-only\n"), {"127.0.0.1", "::1"})
        self.assertLessEqual({"127.0.0.1", "::1"}, self.find("inet_interfaces = all\n"))
        self.assertIn("127.0.0.1", self.find("inet_interfaces = localhost\n"))

    def test_unknown_host(self) -> None:
        """The error names parameter and host."""
        error = self.assertRaises(ConfigError, self.find, "inet_interfaces = no-such-host.invalid\n")
        self.assertIn("inet_interfaces: host not found: no-such-host.invalid", str(error))
