"""
Addresses in tables: the keys that are tried, and their order.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.address.lookup import AddressLookup, Found
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.tables import ILookupTable, TableList
from tests.cleanup.support import run


class Table:
    """
    A table that remembers what it was asked.

    @ivar asked: the keys.
    """

    name = "test:table"
    stable = True
    sources = ()

    def __init__(self, entries: dict[bytes, bytes], fixed_keys: bool = True, immediate: bool = True) -> None:
        self.entries = entries
        self.fixed_keys = fixed_keys
        self.immediate = immediate
        self.asked: list[bytes] = []

    def lookup(self, key: bytes) -> bytes | Deferred[bytes | None] | None:
        """See L{ILookupTable.lookup}."""
        self.asked.append(key)
        value = self.entries.get(key)
        return value if self.immediate else succeed(value)

    def close(self) -> None:
        """See L{ILookupTable.close}."""


def lookup_in(
    *tables: Table,
    delimiters: bytes = b"+",
    local: Callable[[bytes], bool] = lambda domain: domain == b"home.test",
    special: bool = True,
) -> AddressLookup:
    """
    @return: a lookup in these tables.
    """
    waiting: list[ILookupTable] = [*tables]  # type: ignore[list-item]
    words = " ".join(f"test:{number}" for number in range(len(tables)))
    return AddressLookup(TableList(words, "x", lambda *_: waiting.pop(0)), delimiters, local, special)


class OrderTests(SynchronousTestCase):
    """The search order of canonical(5) and virtual(5)."""

    def asked(self, address: bytes, immediate: bool = True, **options: bytes) -> list[bytes]:
        """
        @return: the keys that are tried for an address that is in no table.
        """
        table = Table({}, immediate=immediate)
        self.assertIsNone(run(lookup_in(table, **options).find(address)))  # type: ignore[arg-type]
        return table.asked

    def test_order(self) -> None:
        """
        From the whole address to its domain; bare names only for local domains.
        """
        everywhere = [b"u+e@x.test", b"u@x.test", b"@x.test"]
        at_home = [b"u+e@home.test", b"u@home.test", b"u+e", b"u", b"@home.test"]
        for immediate in (True, False):
            self.assertEqual(self.asked(b"u+e@x.test", immediate), everywhere)
            self.assertEqual(self.asked(b"u+e@home.test", immediate), at_home)
            self.assertEqual(self.asked(b"u@home.test", immediate), [b"u@home.test", b"u", b"@home.test"])
            self.assertEqual(self.asked(b"bare", immediate), [b"bare"])

    def test_quoted(self) -> None:
        """
        Keys are in external form, each for itself.
        """
        self.assertEqual(self.asked(b"a b+e@x.test"), [b'"a b+e"@x.test', b'"a b"@x.test', b"@x.test"])
        self.assertEqual(self.asked(b"a+b c@x.test"), [b'"a+b c"@x.test', b"a@x.test", b"@x.test"])

    def test_delimiters(self) -> None:
        """
        The first of several delimiters in the address counts.
        """
        self.assertIn(b"a@x.test", self.asked(b"a-b+c@x.test", delimiters=b"+-"))
        self.assertEqual(self.asked(b"a+b@x.test", delimiters=b""), [b"a+b@x.test", b"@x.test"])

    def test_owner_request_special(self) -> None:
        """
        Owners and request addresses are split only where nothing says that they are special.
        """
        table = Table({b"list@x.test": b"found"})
        self.assertIsNone(run(lookup_in(table, delimiters=b"-").find(b"list-request@x.test")))
        found = run(lookup_in(table, delimiters=b"-", special=False).find(b"list-request@x.test"))
        self.assertEqual(found, Found(b"found", b"-request"))

    def test_every_table_before_the_next_key(self) -> None:
        """
        A whole address in the last table comes before a domain in the first.
        """
        first, last = Table({b"@x.test": b"domain"}), Table({b"u@x.test": b"whole"})
        self.assertEqual(run(lookup_in(first, last).find(b"u@x.test")), Found(b"whole"))

    def test_extension(self) -> None:
        """
        What a key leaves out of the user's name is told; a domain leaves out nothing.
        """
        table = Table({b"u@x.test": b"1", b"u": b"2", b"@y.test": b"3", b"u+full@x.test": b"4"})
        lookup = lookup_in(table)
        self.assertEqual(run(lookup.find(b"u+e+f@x.test")), Found(b"1", b"+e+f"))
        self.assertEqual(run(lookup.find(b"u+e@home.test")), Found(b"2", b"+e"))
        self.assertEqual(run(lookup.find(b"u+e@y.test")), Found(b"3"))
        self.assertEqual(run(lookup.find(b"u+full@x.test")), Found(b"4"))

    def test_patterns(self) -> None:
        """
        A table of patterns sees the whole address and nothing else.
        """
        patterns, fixed = Table({}, fixed_keys=False), Table({})
        run(lookup_in(patterns, fixed).find(b"u+e@x.test"))
        self.assertEqual(patterns.asked, [b"u+e@x.test"])
        self.assertEqual(len(fixed.asked), 3)
        alone = Table({}, fixed_keys=False)
        run(lookup_in(alone).find(b"u+e@x.test"))
        self.assertEqual(alone.asked, [b"u+e@x.test"])

    def test_told_whose_domain(self) -> None:
        """
        Who knows whether a domain is local says so.
        """
        table = Table({b"u": b"found"})
        self.assertEqual(run(lookup_in(table).find(b"u@x.test", True)), Found(b"found"))
        self.assertIsNone(run(lookup_in(table).find(b"u@home.test", False)))

    def test_failure(self) -> None:
        """
        A table that cannot say is not one that says no.
        """
        table = Table({})
        table.lookup = lambda key: fail(TableError("away"))  # type: ignore[method-assign, assignment]
        table.immediate = False
        self.assertRaises(TableError, run, lookup_in(table).find(b"u@x.test"))
