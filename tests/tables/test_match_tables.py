"""
Lists with tables: what is asked, in which order, and what happens when one cannot say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.eager import now_or_later
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables import (
    DomainMatchList,
    HostMatchList,
    ILookupTable,
    ILookupTableType,
    StringMatchList,
    TableContext,
    open_table,
)


@implementer(ILookupTable, ILookupTableType)
class Server:
    """A kind of table that has to be asked, and its only table."""

    type = "server"
    name = "server:x"
    fixed_keys = True
    immediate = False
    stable = False
    sources = ()

    def __init__(self, *known: bytes) -> None:
        self.known = known
        self.asked: list[bytes] = []
        self.waiting: Deferred[bytes | None] | None = None

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return self

    def lookup(self, key: bytes) -> Deferred[bytes | None]:
        self.asked.append(key)
        if self.waiting is not None:
            return self.waiting
        return succeed(b"x" if key in self.known else None)

    def close(self) -> None:
        """Nothing to let go of."""

    def opener(self, text: str, parameter: str) -> ILookupTable:
        """
        Opens this table, and all others.
        """
        return open_table(text, parameter, [self])


class ErrorTests(SynchronousTestCase):
    """A table that cannot say whether it has a name."""

    def test_order(self) -> None:
        """What stands to the left of it decides first; else its failure is the list's, never an answer."""
        for patterns, name, expected in (
            (["a.test", "fail:x"], "a.test", True),
            (["!a.test", "fail:x"], "a.test", False),
            (["a.test", "fail:x"], "b.test", None),
            (["fail:x", "a.test"], "a.test", None),
            (["!fail:x", "a.test"], "a.test", None),
            (["pipemap:{inline:{a.test=b},fail:x}", "a.test"], "b.test", False),
            (["pipemap:{inline:{a.test=b},fail:x}", "a.test"], "a.test", None),
        ):
            for matcher in (DomainMatchList(patterns, "p"), StringMatchList(patterns, "p")):
                if expected is None:
                    self.assertRaises(TableError, matcher.matches, name)
                else:
                    self.assertEqual(matcher.matches(name), expected, (patterns, name))
            hosts = HostMatchList([*patterns, "192.0.2.1"], "p")
            if expected is None:
                self.assertRaises(TableError, hosts.matches, name, "192.0.2.1")

    def test_address_before(self) -> None:
        """A host whose address is to the left of the table is decided."""
        hosts = HostMatchList(["192.0.2.0/24", "!198.51.100.1", "fail:x"], "p")
        self.assertTrue(hosts.matches("unknown", "192.0.2.77"))
        self.assertFalse(hosts.matches("unknown", "198.51.100.1"))
        self.assertRaises(TableError, hosts.matches, "unknown", "198.51.100.2")


class WaitingTests(SynchronousTestCase):
    """Lists with tables that must be waited for."""

    def found(self, coroutine: Any) -> Any:
        """
        @return: what it gives at once.
        """
        result = now_or_later(coroutine)
        return self.successResultOf(result) if isinstance(result, Deferred) else result

    def test_find(self) -> None:
        """Name, parents and address are asked for, each after the other."""
        server = Server(b"192.0.2.1", b".sub.test")
        hosts = HostMatchList(["!10.0.0.1", "server:x"], "p", open_table=server.opener)
        self.assertEqual((hosts.immediate, hosts.stable), (False, False))
        self.assertTrue(self.found(hosts.find("A.sub.test", "192.0.2.9")))
        self.assertEqual(server.asked, [b"a.sub.test", b".sub.test"])
        self.assertTrue(self.found(hosts.find("unknown", "192.0.2.1")))
        self.assertFalse(self.found(hosts.find("unknown", "192.0.2.2")))
        server.asked.clear()
        self.assertFalse(self.found(hosts.find("a.sub.test", "10.0.0.1")))
        self.assertEqual(server.asked, [])
        domains = DomainMatchList(["server:x"], "p", open_table=server.opener)
        self.assertTrue(self.found(domains.find("b.sub.test")))
        self.assertFalse(self.found(domains.find("")))

    def test_later(self) -> None:
        """The answer comes when the table's does."""
        server = Server()
        server.waiting = Deferred()
        texts = StringMatchList(["root", "server:x"], "p", server.opener)
        self.assertTrue(self.found(texts.find("ROOT")))
        result = now_or_later(texts.find("other"))
        assert isinstance(result, Deferred)
        self.assertNoResult(result)
        server.waiting.callback(b"x")
        self.assertTrue(self.successResultOf(result))

    def test_not_to_be_waited_for(self) -> None:
        """Where nobody can wait, an answer that is not there is a failure, not an answer."""
        server = Server()
        server.waiting = Deferred()
        domains = DomainMatchList(["a.test", "server:x"], "relay_domains", open_table=server.opener)
        self.assertTrue(domains.matches("a.test"))
        error = self.assertRaises(TableError, domains.matches, "b.test")
        self.assertIn("relay_domains: ", str(error))

    def test_immediate(self) -> None:
        """Lists without such tables are, and give the same by both ways."""
        for matcher in (DomainMatchList(["a.test"], "p"), DomainMatchList(["inline:{a.test=x}"], "p")):
            self.assertEqual((matcher.immediate, matcher.stable), (True, True))
            self.assertTrue(matcher.matches("A.test"))
            self.assertTrue(self.found(matcher.find("A.test")))
        self.assertFalse(DomainMatchList(["randmap:{x}"], "p").stable)


class StringTests(SynchronousTestCase):
    """C{masquerade_exceptions} and its like."""

    def test_strings(self) -> None:
        """Whole names in any case; no parents, in tables neither; files and exclusion as everywhere."""
        path = Path(self.mktemp()).absolute()
        path.write_text("!postmaster\ninline:{ {.test = x} {whole.test = x} }\n")
        matcher = StringMatchList(["root", str(path), "static:all"], "masquerade_exceptions")
        for text, expected in (
            ("Root", True),
            ("POSTMASTER", False),
            ("whole.test", True),
            ("anybody", True),
            ("", False),
        ):
            self.assertEqual(matcher.matches(text), expected, text)
        matcher = StringMatchList([".test", "inline:{ {.tld = x} }"], "p")
        for text, expected in ((".TEST", True), ("a.test", False), ("a.tld", False), (".tld", True)):
            self.assertEqual(matcher.matches(text), expected, text)
        self.assertFalse(StringMatchList([], "p"))
        self.assertTrue(matcher)


class ManyTests(SynchronousTestCase):
    """Lists of a hundred thousand entries."""

    def test_networks(self) -> None:
        """Networks of one file; each is found, what lies between them is not."""
        path = Path(self.mktemp()).absolute()
        lines = (f"10.{number >> 9}.{number >> 1 & 255}.{(number & 1) * 128}/26" for number in range(100_000))
        path.write_text("\n".join(lines) + "\n[2001:db8::]/32\n")
        hosts = HostMatchList(["!10.195.79.1", str(path)], "p")
        for address, expected in (
            ("10.0.0.63", True),
            ("10.0.0.64", False),
            ("10.195.79.191", True),
            ("10.195.79.1", False),
            ("10.195.80.1", False),
            ("2001:db8:ffff::1", True),
        ):
            self.assertEqual(hosts.matches("unknown", address), expected, address)
