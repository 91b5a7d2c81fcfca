"""Client names: PTR and its confirmation, the hosts file, the cache, a dead DNS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmqp.hostnames import ClientNames, valid_hostname
from qmqpd_tx.qmqp.hosts import HostsFile


class Zone(ResolverBase):
    """A resolver with a zone of its own; names that it does not know do not exist."""

    def __init__(self, *records: tuple[str, Any], ttl: int = 100) -> None:
        super().__init__()
        self.records = records
        self.ttl = ttl
        self.asked: list[tuple[str, int]] = []
        self.pending: list[Deferred[Any]] | None = None

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Any]:
        self.asked.append((name.decode(), type))
        if self.pending is not None:
            self.pending.append(Deferred())
            return self.pending[-1]
        found = [
            dns.RRHeader(owner, record.TYPE, dns.IN, self.ttl, record)
            for owner, record in self.records
            if owner == name.decode() and record.TYPE in (type, dns.CNAME)
        ]
        for header in list(found):
            if header.type == dns.CNAME:
                target = header.payload.name.name.decode()
                found += [
                    dns.RRHeader(owner, record.TYPE, dns.IN, self.ttl, record)
                    for owner, record in self.records
                    if owner == target and type == record.TYPE
                ]
        return succeed((found, [], [])) if found else fail(DNSNameError(name))


MAIL = (
    ("1.2.0.192.in-addr.arpa", dns.Record_PTR("mail.example.org")),
    ("mail.example.org", dns.Record_A("192.0.2.9")),
    ("mail.example.org", dns.Record_A("192.0.2.1")),
)


class NameTestCase(SynchronousTestCase):
    def names(self, resolver: Any, hosts: str = "", **more: Any) -> ClientNames:
        self.clock = Clock()
        return ClientNames(self.clock, resolver, HostsFile(self.clock, None, hosts), **more)


class LookupTests(NameTestCase):
    def test_confirmed(self) -> None:
        self.assertEqual(self.names(Zone(*MAIL)).lookup("192.0.2.1"), "mail.example.org")

    def test_ipv6(self) -> None:
        pointer = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"
        zone = Zone(
            (pointer, dns.Record_PTR("six.example.org")),
            ("six.example.org", dns.Record_AAAA("2001:db8::1")),
        )
        self.assertEqual(self.names(zone).lookup("2001:db8::1"), "six.example.org")

    def test_classless_delegation(self) -> None:
        zone = Zone(
            ("1.2.0.192.in-addr.arpa", dns.Record_CNAME("1.0-25.2.0.192.in-addr.arpa")),
            ("1.0-25.2.0.192.in-addr.arpa", dns.Record_PTR("mail.example.org")),
            ("mail.example.org", dns.Record_A("192.0.2.1")),
        )
        self.assertEqual(self.names(zone).lookup("192.0.2.1"), "mail.example.org")

    def test_unknown(self) -> None:
        for records in (
            (),
            MAIL[:1],
            MAIL[:2],
            ((MAIL[0][0], dns.Record_PTR("192.0.2.1")), ("192.0.2.1", dns.Record_A("192.0.2.1"))),
            ((MAIL[0][0], dns.Record_PTR("bad name.example")),),
            ((MAIL[0][0], dns.Record_PTR("x\n.example")), ("x\n.example", dns.Record_A("192.0.2.1"))),
        ):
            self.assertEqual(self.names(Zone(*records)).lookup("192.0.2.1"), "unknown")

    def test_only_the_first_pointer_counts(self) -> None:
        zone = Zone((MAIL[0][0], dns.Record_PTR("other.example.org")), *MAIL)
        self.assertEqual(self.names(zone).lookup("192.0.2.1"), "unknown")

    def test_not_an_address(self) -> None:
        self.assertEqual(self.names(Zone()).lookup("nonsense"), "unknown")

    def test_later(self) -> None:
        zone = Zone(*MAIL)
        zone.pending = []
        result = self.names(zone).lookup("192.0.2.1")
        assert isinstance(result, Deferred)
        self.assertNoResult(result)
        pending, zone.pending = zone.pending, None
        zone.lookupPointer(MAIL[0][0]).chainDeferred(pending[0])
        self.assertEqual(self.successResultOf(result), "mail.example.org")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared(self) -> None:
        zone = Zone(*MAIL)
        zone.pending = []
        names = self.names(zone)
        results = [names.lookup("192.0.2.1") for _ in range(3)]
        self.assertEqual(len(zone.pending), 1)
        pending, zone.pending = zone.pending, None
        zone.lookupPointer(MAIL[0][0]).chainDeferred(pending[0])
        for result in results:
            assert isinstance(result, Deferred)
            self.assertEqual(self.successResultOf(result), "mail.example.org")

    def test_dead_dns(self) -> None:
        zone = Zone()
        zone.pending = []
        names = self.names(zone, time_limit=5.0)
        result = names.lookup("192.0.2.1")
        assert isinstance(result, Deferred)
        self.clock.advance(4.9)
        self.assertNoResult(result)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(result), "unknown")
        self.assertEqual(names.lookup("192.0.2.1"), "unknown")

    def test_resolver_that_raises(self) -> None:
        zone = Zone()
        zone.lookupPointer = lambda *_arguments: 1 / 0  # type: ignore[assignment,method-assign]
        self.assertEqual(self.names(zone).lookup("192.0.2.1"), "unknown")

    def test_stop(self) -> None:
        zone = Zone()
        zone.pending = []
        names = self.names(zone)
        result = names.lookup("192.0.2.1")
        names.stop()
        assert isinstance(result, Deferred)
        self.assertEqual(self.successResultOf(result), "unknown")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CacheTests(NameTestCase):
    def test_for_the_time_to_live(self) -> None:
        zone = Zone(*MAIL, ttl=100)
        names = self.names(zone)
        for seconds, questions in ((0, 2), (99, 2), (1, 4)):
            self.clock.advance(seconds)
            self.assertEqual(names.lookup("192.0.2.1"), "mail.example.org")
            self.assertEqual(len(zone.asked), questions)

    def test_not_longer_than_the_cache_time(self) -> None:
        zone = Zone(*MAIL, ttl=100_000)
        names = self.names(zone, cache_time=300.0)
        names.lookup("192.0.2.1")
        self.clock.advance(300)
        names.lookup("192.0.2.1")
        self.assertEqual(len(zone.asked), 4)

    def test_unknown_is_remembered(self) -> None:
        zone = Zone()
        names = self.names(zone, unknown_time=30.0)
        for seconds, questions in ((0, 1), (29, 1), (1, 2)):
            self.clock.advance(seconds)
            self.assertEqual(names.lookup("192.0.2.1"), "unknown")
            self.assertEqual(len(zone.asked), questions)

    def test_no_time_to_live(self) -> None:
        zone = Zone(*MAIL, ttl=0)
        names = self.names(zone)
        self.assertEqual(names.lookup("192.0.2.1"), "mail.example.org")
        self.assertEqual(names.lookup("192.0.2.1"), "mail.example.org")
        self.assertEqual(len(zone.asked), 4)

    def test_size(self) -> None:
        zone = Zone()
        names = self.names(zone, cache_size=10)
        for number in range(20):
            names.lookup(f"192.0.2.{number}")
        zone.asked.clear()
        for number in range(10, 20):
            names.lookup(f"192.0.2.{number}")
        self.assertEqual(zone.asked, [])
        names.lookup("192.0.2.0")
        self.assertEqual(len(zone.asked), 1)


class HostsTests(NameTestCase):
    def test_without_dns(self) -> None:
        zone = Zone()
        names = self.names(
            zone, "127.0.0.1\tlocalhost loopback # comment\n::1 localhost6\nnonsense\n\n1.2.3.4\n"
        )
        self.assertEqual(names.lookup("127.0.0.1"), "localhost")
        self.assertEqual(names.lookup("::1"), "localhost6")
        self.assertEqual(zone.asked, [])
        self.assertEqual(names.lookup("1.2.3.4"), "unknown")

    def test_confirms_a_pointer(self) -> None:
        names = self.names(Zone(MAIL[0]), "192.0.2.1 other\n192.0.2.1 MAIL.example.org\n")
        self.assertTrue(
            HostsFile(self.clock, None, "192.0.2.1 MAIL.example.org").has("mail.example.org", "192.0.2.1")
        )
        self.assertEqual(names.lookup("192.0.2.1"), "other")

    def test_file_that_changes(self) -> None:
        path = Path(self.mktemp())
        clock = Clock()
        hosts = HostsFile(clock, path, check_interval=5.0)
        self.assertIsNone(hosts.name("192.0.2.1"))
        path.write_text("192.0.2.1 one\n")
        clock.advance(4.9)
        self.assertIsNone(hosts.name("192.0.2.1"))
        clock.advance(0.1)
        self.assertEqual(hosts.name("192.0.2.1"), "one")
        path.write_text("192.0.2.1 two\n")
        os.utime(path, (1, 1))
        clock.advance(5)
        self.assertEqual(hosts.name("192.0.2.1"), "two")
        path.unlink()
        clock.advance(5)
        self.assertIsNone(hosts.name("192.0.2.1"))

    def test_binary_rubbish(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"\xff\xfe\x00 x\n192.0.2.1 good\n")
        self.assertEqual(HostsFile(Clock(), path).name("192.0.2.1"), "good")

    def test_localhost_on_this_machine(self) -> None:
        """From /etc/hosts, unless told otherwise."""
        self.assertEqual(ClientNames(Clock(), Zone()).lookup("127.0.0.1"), "localhost")


class HostnameTests(SynchronousTestCase):
    def test_valid(self) -> None:
        for name in ("a", "mail.example.org", "a_b-c.example", "1.example", "x" * 63 + ".example"):
            self.assertTrue(valid_hostname(name), name)

    def test_invalid(self) -> None:
        long = ".".join(["x" * 50] * 6)
        for name in (
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "1.2.3.4",
            "a b",
            "a\n",
            "x" * 64,
            long,
            "é",
        ):
            self.assertFalse(valid_hostname(name), name)
