"""Which hosts are tried, in which order, and what is said when there are none."""

from __future__ import annotations

from twisted.names import dns, error

from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.status import Action
from tests.transports.smtp.support import EHLO, World

OK = b"250 2.0.0 Ok"
SENT, DEFERRED, BOUNCED = Action.SENT, Action.DEFERRED, Action.BOUNCED
NOT_FOUND = "Host or domain name not found. Name service error for name="


class Hosts(World):
    def setUp(self) -> None:
        super().setUp()
        self.zone.records.update(
            {
                "three.test": [("MX", 30, "c.test"), ("MX", 10, "a.test"), ("MX", 20, "b.test")],
                "two.test": [("MX", 10, "a.test"), ("MX", 20, "b.test")],
                "equal.test": [("MX", 10, "a.test"), ("MX", 10, "b.test"), ("MX", 10, "c.test")],
                "a.test": [("A", "192.0.2.1")],
                "b.test": [("A", "192.0.2.2")],
                "c.test": [("A", "192.0.2.3")],
                "relay.test": [("A", "192.0.2.99")],
                "many.test": [("A", f"192.0.2.{n}") for n in range(10, 20)],
                "nodata.test": [("TXT", "x")],
            }
        )

    def refuse_all(self, nexthop: str) -> list[str]:
        """@return: the addresses that were tried."""
        delivery = self.deliver(nexthop)
        tried = []
        while self.pending():
            tried.append(self.refuse())
        self.last = self.outcome(delivery)
        return tried

    def unresolved(self, nexthop: str, action: Action, dsn: str, text: str) -> None:
        delivery = self.deliver(nexthop)
        self.assertEqual(self.pending(), 0)
        self.check(self.outcome(delivery), action, dsn, text, "none")
        failure = self.report(delivery).destination_failure
        self.assertEqual(failure is not None, action is DEFERRED)


class Bounds(Hosts):
    """A DNS that says too much."""

    def test_many_exchangers(self) -> None:
        """Not every one of thousands of names is looked up; the best are."""
        self.zone.records["crowd.test"] = [("MX", n, f"{n}.crowd.test") for n in range(3000, 0, -1)]
        self.zone.records["2.crowd.test"] = [("A", "192.0.2.1")]
        self.configure("smtp_mx_lookup_limit = 20\n")
        self.assertEqual(self.refuse_all("crowd.test"), ["192.0.2.1"])
        self.assertEqual(len(self.zone.asked), 21)

    def test_without_limit(self) -> None:
        self.zone.records["crowd.test"] = [("MX", n, f"{n}.crowd.test") for n in range(200)]
        self.zone.records["199.crowd.test"] = [("A", "192.0.2.1")]
        self.configure("smtp_mx_lookup_limit = 0\n")
        self.assertEqual(self.refuse_all("crowd.test"), ["192.0.2.1"])


class Order(Hosts):
    def test_by_preference(self) -> None:
        self.assertEqual(self.refuse_all("three.test"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        text = "connect to c.test[192.0.2.3]:25: Connection refused"
        self.check(self.last, DEFERRED, "4.4.1", text, "none")

    def test_equals_in_random_order(self) -> None:
        orders = set()
        for seed in range(40):
            self.configure("", seed)
            orders.add(tuple(self.refuse_all("equal.test")))
        self.assertEqual(len(orders), 6)

    def test_equals_in_dns_order_when_told_so(self) -> None:
        self.configure("smtp_randomize_addresses = no\n")
        self.assertEqual(self.refuse_all("many.test"), [f"192.0.2.{n}" for n in range(10, 15)])

    def test_address_limit(self) -> None:
        self.assertEqual(len(self.refuse_all("many.test")), 5)
        self.configure("smtp_mx_address_limit = 0\n")
        self.assertEqual(len(self.refuse_all("many.test")), 10)

    def test_both_address_families(self) -> None:
        self.zone.records["dual.test"] = [("A", f"192.0.2.{n}") for n in range(8)] + [("AAAA", "2001:db8::1")]
        for preference, place in (("ipv6", 0), ("ipv4", 4)):
            self.configure(
                f"inet_protocols = all\nsmtp_address_preference = {preference}\n"
                "smtp_randomize_addresses = no\n"
            )
            tried = self.refuse_all("[dual.test]")
            self.assertEqual((len(tried), tried[place]), (5, "2001:db8::1"))
        self.configure("inet_protocols = ipv6\n")
        self.assertEqual(self.refuse_all("[dual.test]"), ["2001:db8::1"])

    def test_brackets_ask_for_addresses_only(self) -> None:
        self.assertEqual(self.refuse_all("[a.test]:2525"), ["192.0.2.1"])
        self.assertEqual(self.zone.asked, [("a.test", "A")])
        self.assertEqual(self.reactor.tcpClients[-1][1], 2525)

    def test_addresses_never_go_to_the_dns(self) -> None:
        for nexthop in ("[192.0.2.7]", "192.0.2.7:25", "[192.0.2.7]:smtp"):
            self.assertEqual(self.refuse_all(nexthop), ["192.0.2.7"])
        self.configure("inet_protocols = all\n")
        self.assertEqual(self.refuse_all("[ipv6:2001:DB8:0::1]:2525"), ["2001:db8::1"])
        self.assertEqual(self.last.text, "connect to 2001:db8::1[2001:db8::1]:2525: Connection refused")
        self.assertEqual(self.zone.asked, [])

    def test_no_mx_means_the_domain_itself(self) -> None:
        self.assertEqual(self.refuse_all("a.test"), ["192.0.2.1"])
        self.assertEqual(self.zone.asked, [("a.test", "MX"), ("a.test", "A")])

    def test_aliases_are_followed(self) -> None:
        self.zone.records["alias.test"] = [("CNAME", "two.test")]
        self.assertEqual(self.refuse_all("alias.test"), ["192.0.2.1", "192.0.2.2"])
        self.zone.records["round.test"] = [("CNAME", "round.test")]
        self.unresolved("round.test", BOUNCED, "5.4.4", f"{NOT_FOUND}round.test type=MX: too many aliases")

    def test_mx_that_names_an_address(self) -> None:
        self.zone.records["numeric.test"] = [("MX", 10, "192.0.2.8")]
        self.assertEqual(self.refuse_all("numeric.test"), ["192.0.2.8"])

    def test_several_nexthops_in_order(self) -> None:
        self.assertEqual(
            self.refuse_all("none.test, two.test [192.0.2.9]:26"), ["192.0.2.1", "192.0.2.2", "192.0.2.9"]
        )

    def test_fallback_relay_comes_last(self) -> None:
        self.configure("smtp_fallback_relay = [192.0.2.50]:2525\n")
        self.assertEqual(self.refuse_all("a.test"), ["192.0.2.1", "192.0.2.50"])
        for nexthop in ("none.test", "null.test"):
            self.zone.records["null.test"] = [("MX", 0, "")]
            self.assertEqual(self.refuse_all(nexthop), ["192.0.2.50"])

    def test_native_lookup_asks_the_system(self) -> None:
        asked: list[str] = []

        class Pool:
            def callInThreadWithCallback(self, done, function, *args):
                asked.append(args[0])
                done(True, [(2, 1, 6, "", ("192.0.2.70", 0))])

        self.reactor.getThreadPool = Pool
        self.reactor.callFromThread = lambda function, *args: function(*args)
        for text, nexthop in (
            ("smtp_host_lookup = native\n", "[host.test]"),
            ("smtp_dns_support_level = disabled\n", "host.test"),
            ("disable_dns_lookups = yes\n", "host.test"),
        ):
            self.configure(text)
            self.assertEqual(self.refuse_all(nexthop), ["192.0.2.70"])
        self.assertEqual((asked, self.zone.asked), (["host.test"] * 3, []))

    def test_bind_address(self) -> None:
        self.configure("smtp_bind_address = 192.0.2.200\n")
        self.refuse_all("a.test")
        self.assertEqual(self.reactor.tcpClients[-1][4], ("192.0.2.200", 0))


class None_(Hosts):
    def test_no_such_domain(self) -> None:
        self.unresolved("none.test", BOUNCED, "5.4.4", f"{NOT_FOUND}none.test type=A: Host not found")

    def test_no_data(self) -> None:
        text = f"{NOT_FOUND}nodata.test type=A: Host found but no data record of requested type"
        self.unresolved("nodata.test", BOUNCED, "5.4.4", text)

    def test_dns_trouble_waits(self) -> None:
        for problem in (
            error.DNSServerError(dns.Message()),
            error.DNSQueryTimeoutError([]),
            error.DNSQueryRefusedError(dns.Message()),
            error.ResolverError("x"),
            OSError("network"),
        ):
            self.zone.records["bad.test"] = problem
            text = f"{NOT_FOUND}bad.test type=MX: Host not found, try again"
            self.unresolved("bad.test", DEFERRED, "4.4.3", text)
            text = f"{NOT_FOUND}bad.test type=A: Host not found, try again"
            self.unresolved("[bad.test]", DEFERRED, "4.4.3", text)

    def test_mx_trouble_can_be_overlooked(self) -> None:
        self.configure("ignore_mx_lookup_error = yes\n")
        self.zone.records["bad.test"] = error.DNSServerError(dns.Message())
        text = f"{NOT_FOUND}bad.test type=A: Host not found, try again"
        self.unresolved("bad.test", DEFERRED, "4.4.3", text)

    def test_null_mx(self) -> None:
        for records in ([("MX", 0, "")], [("MX", 0, ""), ("MX", 10, "a.test")]):
            self.zone.records["null.test"] = records
            text = "Domain null.test does not accept mail (nullMX)"
            self.unresolved("null.test", BOUNCED, "5.1.0", text)

    def test_mx_hosts_without_addresses(self) -> None:
        self.zone.records["hollow.test"] = [("MX", 10, "gone.test")]
        text = f"{NOT_FOUND}gone.test type=A: Host not found"
        self.unresolved("hollow.test", BOUNCED, "5.4.4", text)
        self.zone.records["hollow.test"] = [("MX", 10, "gone.test"), ("MX", 20, "bad.test")]
        self.zone.records["bad.test"] = error.DNSServerError(dns.Message())
        self.unresolved(
            "hollow.test", DEFERRED, "4.4.3", f"{NOT_FOUND}bad.test type=A: Host not found, try again"
        )
        self.zone.records["hollow.test"] = [("MX", 10, "gone.test"), ("MX", 20, "a.test")]
        self.assertEqual(self.refuse_all("hollow.test"), ["192.0.2.1"])

    def test_mx_hosts_without_addresses_can_be_made_to_wait(self) -> None:
        self.configure("smtp_defer_if_no_mx_address_found = yes\n")
        self.zone.records["hollow.test"] = [("MX", 10, "gone.test")]
        text = f"{NOT_FOUND}gone.test type=A: Host not found"
        self.unresolved("hollow.test", DEFERRED, "4.4.4", text)

    def test_ipv6_when_disabled(self) -> None:
        delivery = self.deliver("[ipv6:::1]")
        self.assertEqual((self.outcome(delivery).action, self.outcome(delivery).dsn), (BOUNCED, "5.4.4"))

    def test_bad_nexthop_waits_for_its_repair(self) -> None:
        for nexthop, text in [
            ("[a.test", 'missing "]" in server description: [a.test'),
            ("[127.0.0.1]x", 'garbage after "]" in server description: [127.0.0.1]x'),
            ("[]:25", "valid hostname or network address required in server description: []:25"),
            ("a..b", "valid hostname or network address required in server description: a..b"),
            (
                "[127.0.0.300]",
                "valid hostname or network address required in server description: [127.0.0.300]",
            ),
            ("a.test:bogusport", "unknown service: bogusport/tcp in server description: a.test:bogusport"),
            ("a.test:0", "unknown service: 0/tcp in server description: a.test:0"),
            (" , ", "empty SMTP destination: name a domain, [host] or [address]"),
        ]:
            delivery = self.deliver(nexthop)
            self.check(self.outcome(delivery), DEFERRED, "4.3.5", text, "none")
            self.assertIsNone(self.report(delivery).destination_failure)


class Loop(Hosts):
    def test_we_and_everything_worse_are_left_out(self) -> None:
        self.zone.records["loop.test"] = [
            ("MX", 10, "a.test"),
            ("MX", 20, "relay.test"),
            ("MX", 20, "b.test"),
            ("MX", 30, "c.test"),
        ]
        self.assertEqual(self.refuse_all("loop.test"), ["192.0.2.1"])

    def test_being_the_best_is_a_loop(self) -> None:
        self.zone.records["loop.test"] = [("MX", 10, "relay.test"), ("MX", 20, "a.test")]
        self.unresolved("loop.test", BOUNCED, "5.4.6", "mail for loop.test loops back to myself")

    def test_known_by_address(self) -> None:
        self.zone.records["other.test"] = [("A", "192.0.2.77")]
        self.zone.records["loop.test"] = [("MX", 10, "other.test")]
        for text in ("inet_interfaces = 192.0.2.77\n", "proxy_interfaces = 192.0.2.77\n"):
            self.configure(text)
            self.unresolved("loop.test", BOUNCED, "5.4.6", "mail for loop.test loops back to myself")
            self.unresolved("other.test", BOUNCED, "5.4.6", "mail for other.test loops back to myself")
        self.configure("")
        self.assertEqual(self.refuse_all("loop.test"), ["192.0.2.77"])
        self.zone.records["other.test"] = [("A", "127.0.0.1")]
        self.unresolved("loop.test", BOUNCED, "5.4.6", "mail for loop.test loops back to myself")

    def test_addresses_of_this_machine(self) -> None:
        self.assertTrue(is_local_address("127.0.0.1"))
        self.assertFalse(is_local_address("203.0.113.77"))
        self.configure("inet_interfaces = all\n")
        self.zone.records["loop.test"] = [("A", "127.0.0.1")]
        self.unresolved("loop.test", BOUNCED, "5.4.6", "mail for loop.test loops back to myself")

    def test_a_host_that_was_asked_for_by_name_is_another_mail_system(self) -> None:
        self.assertEqual(self.refuse_all("[127.0.0.1]"), ["127.0.0.1"])
        self.assertEqual(self.refuse_all("[relay.test]"), ["192.0.2.99"])

    def test_on_another_port_it_is_not_us(self) -> None:
        self.zone.records["loop.test"] = [("MX", 10, "relay.test"), ("MX", 20, "a.test")]
        self.assertEqual(self.refuse_all("loop.test:2525"), ["192.0.2.99", "192.0.2.1"])


class NextHost(Hosts):
    """What a host leaves undone is tried with the next, up to smtp_mx_session_limit sessions."""

    def test_greeting_and_connection_failures_use_up_no_sessions(self) -> None:
        delivery = self.deliver("three.test")
        self.accept().say(b"421 4.3.2 busy")
        self.refuse()
        peer = self.accept()
        peer.greet()
        peer.say(OK, OK, b"354 go", OK)
        self.check(self.outcome(delivery), SENT, "2.0.0", "250 2.0.0 Ok", "c.test[192.0.2.3]:25")

    def test_4xx_and_losses_at_any_stage(self) -> None:
        for said in ([], [OK], [OK, OK], [OK, OK, b"354 go"]):
            for reply in (b"451 4.7.1 later", None):
                delivery = self.deliver("two.test")
                peer = self.accept()
                peer.greet(b"250-x\r\n250 8BITMIME")
                for line in said:
                    peer.say(line)
                if reply is None:
                    peer.close()
                else:
                    peer.say(reply)
                second = self.accept()
                second.greet(EHLO)
                second.say(OK, OK, b"354 go", OK)
                self.check(self.outcome(delivery), SENT, "2.0.0", "250 2.0.0 Ok", "b.test[192.0.2.2]:25")
                for each in (peer, second):
                    each.close()

    def test_5xx_is_final(self) -> None:
        delivery = self.deliver("two.test")
        peer = self.accept()
        peer.greet()
        peer.say(OK, b"550 5.1.1 no", b"554 none")
        self.assertEqual(self.outcome(delivery).action, BOUNCED)
        delivery = self.deliver("[a.test], [b.test]")
        peer = self.accept()
        peer.greet(b"550 no")
        peer.say(b"550 no helo")
        self.assertEqual(self.outcome(delivery).action, BOUNCED)

    def test_only_what_is_left_goes_to_the_next(self) -> None:
        delivery = self.deliver("two.test", recipients=[b"a@x.test", b"b@x.test", b"c@x.test"])
        peer = self.accept()
        peer.greet()
        peer.say(OK, b"450 4.2.0 later", OK, b"550 5.1.1 no", b"354 go", OK)
        second = self.accept()
        second.greet(b"250-x\r\n250 PIPELINING")
        self.assertIn(b"RCPT TO:<a@x.test>\r\nDATA\r\n", second.heard())
        second.say(OK, OK, b"354 go", OK)
        outcomes = {o.recipient.address[:1]: (o.action, o.relay[:1]) for o in self.report(delivery).outcomes}
        self.assertEqual(outcomes, {b"a": (SENT, "b"), b"b": (SENT, "a"), b"c": (BOUNCED, "a")})

    def test_session_limit(self) -> None:
        delivery = self.deliver("three.test")
        for _ in range(2):
            peer = self.accept()
            peer.greet()
            peer.say(b"450 4.2.0 later", b"503 x", b"503 x")
        self.assertEqual(self.pending(), 0)
        text = "host b.test[192.0.2.2] said: 450 4.2.0 later (in reply to MAIL FROM command)"
        self.check(self.outcome(delivery), DEFERRED, "4.2.0", text, "b.test[192.0.2.2]:25")
        self.assertIsNone(self.report(delivery).destination_failure)

    def test_after_the_session_limit_comes_the_fallback_relay(self) -> None:
        self.configure("smtp_mx_session_limit = 1\nsmtp_fallback_relay = [192.0.2.50]\n")
        delivery = self.deliver("three.test")
        peer = self.accept()
        peer.greet()
        peer.say(b"450 4.2.0 later", b"503 x", b"503 x")
        fallback = self.accept()
        self.assertEqual(fallback.host, "192.0.2.50")
        fallback.greet()
        fallback.say(OK, OK, b"354 go", OK)
        self.assertEqual(self.outcome(delivery).action, SENT)

    def test_a_reused_connection_leaves_the_rest_to_other_hosts(self) -> None:
        delivery = self.deliver("two.test")
        peer = self.accept()
        peer.greet()
        peer.say(OK, OK, b"354 go", OK)
        self.assertEqual(self.outcome(delivery).action, SENT)
        delivery = self.deliver("two.test")
        peer.say(b"450 4.2.0 later", b"503 x", b"503 x")
        second = self.accept()
        self.assertEqual(second.host, "192.0.2.2")
        second.greet()
        second.say(b"450 4.2.0 later", b"503 x", b"503 x")
        self.assertEqual(self.outcome(delivery).relay, "b.test[192.0.2.2]:25")
        self.assertEqual(self.pending(), 0)
