"""
Tables made of other tables, and those that are none.
"""

from __future__ import annotations

import os
import random

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import ILookupTable, ILookupTableType, TableContext, Tables, open_table
from qmqpd_tx.tables.combine import RandMapType
from qmqpd_tx.tables.special import imported_environment


@implementer(ILookupTable, ILookupTableType)
class Slow:
    """A kind of table that has to be asked, and its only table."""

    type = "slow"
    name = "slow:x"
    fixed_keys = True
    immediate = False
    stable = False
    sources = ()

    def __init__(self, *answers: Deferred[bytes | None]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return self

    def lookup(self, key: bytes) -> Deferred[bytes | None]:
        self.asked.append(key)
        return self.answers.pop(0)

    def close(self) -> None:
        """Nothing to let go of."""


class PipeTests(SynchronousTestCase):
    """C{pipemap:}."""

    def test_lookup(self) -> None:
        """Each table gets what the one before gave; the first without an answer ends it."""
        for text, key, value in (
            ("pipemap:{inline:{a=b},inline:{b=c}}", b"A", b"c"),
            ("pipemap:{inline:{a=b},inline:{b=c}}", b"b", None),
            ("pipemap:{ inline:{a=B} , regexp:{ {/^(.)/ <$1>} } inline:{ {<b> = x y} } }", b"a", b"x y"),
            ("pipemap:{inline:{a=b}}", b"a", b"b"),
            ("pipemap:{inline:{a=b},fail:x}", b"q", None),
        ):
            self.assertEqual(open_table(text, "p").lookup(key), value, (text, key))

    def test_fails(self) -> None:
        """A table that cannot say is not one that has nothing."""
        for text in ("pipemap:{inline:{a=b},fail:x}", "pipemap:{fail:x,inline:{a=b}}"):
            self.assertRaises(TableError, open_table(text, "p").lookup, b"a")

    def test_waiting(self) -> None:
        """A table that must be waited for makes the whole one such; its failure is the whole one's."""
        first: Deferred[bytes | None] = Deferred()
        slow = Slow(first, succeed(b"y"), fail(TableError("gone")), succeed(None))
        table = open_table("pipemap:{slow:x,inline:{b=c},slow:x}", "p", [slow])
        self.assertEqual((table.immediate, table.stable), (False, False))
        result = table.lookup(b"a")
        self.assertNoResult(result)
        first.callback(b"b")
        self.assertEqual(self.successResultOf(result), b"y")
        self.assertEqual(slow.asked, [b"a", b"c"])
        with self.assertRaises(TableError):
            # It need not wait for what is known.
            table.lookup(b"a")
        self.assertIsNone(table.lookup(b"a"))

    def test_qualities(self) -> None:
        """What can be said of all tables is said of the whole."""
        table = open_table("pipemap:{inline:{a=b},inline:{b=c}}", "p")
        self.assertEqual((table.immediate, table.stable, table.fixed_keys), (True, True, True))
        self.assertFalse(open_table("unionmap:{inline:{a=b},regexp:{{/a/ b}}}", "p").fixed_keys)
        self.assertFalse(open_table("unionmap:{inline:{a=b},randmap:{b}}", "p").stable)

    def test_errors(self) -> None:
        """Syntax, and errors of tables within, name the parameter."""
        for text, words in (
            ("pipemap:{}", 'bad syntax: "pipemap:{}"; need "pipemap:{type:name...}"'),
            ("pipemap:{ }", "bad syntax"),
            ("pipemap:inline:{a=b}", "bad syntax"),
            ("pipemap:{inline:{a=b}", "missing '}'"),
            ("unionmap:{inline}", 'bad syntax: "inline" in "unionmap:{inline}"'),
            ("unionmap:{bogus:x}", "unsupported dictionary type: bogus"),
            ("unionmap:{texthash:/no/such}", "cannot read /no/such"),
            ("unionmap:{regexp:{{/a(/ x}}}", "line 1: Unmatched ("),
            ("randmap:{}", 'need "randmap:{value...}"'),
            ("randmap:x", "bad syntax"),
        ):
            error = str(self.assertRaises(ConfigError, open_table, text, "some_maps"))
            self.assertIn("some_maps: ", error)
            self.assertIn(words, error)


class UnionTests(SynchronousTestCase):
    """C{unionmap:}."""

    def test_lookup(self) -> None:
        """What the tables have, joined with commas."""
        text = "unionmap:{inline:{ {a=1,2}, {b=3} },inline:{a=2},regexp:{ {/^C$/i upper} {/^c$/i lower} }}"
        for key, value in ((b"a", b"1,2,2"), (b"b", b"3"), (b"q", None), (b"C", b"lower")):
            self.assertEqual(open_table(text, "p").lookup(key), value, key)

    def test_fails(self) -> None:
        """One that cannot say fails the lookup, whatever the others have."""
        for text in ("unionmap:{inline:{a=b},fail:x}", "unionmap:{fail:x,inline:{a=b}}"):
            self.assertRaises(TableError, open_table(text, "p").lookup, b"a")
        slow = Slow(succeed(b"s"), fail(TableError("gone")))
        table = open_table("unionmap:{inline:{a=b},slow:x}", "p", [slow])
        self.assertEqual(table.lookup(b"a"), b"b,s")
        self.assertRaises(TableError, table.lookup, b"a")


class RandomTests(SynchronousTestCase):
    """C{randmap:}."""

    def test_lookup(self) -> None:
        """Any key gets one of the values, by the chance that is given; more often where listed twice."""
        kind = RandMapType(random.Random(1))
        context = TableContext("p", lambda text: None, None, lambda call: None, lambda name: "")
        table = kind.open("{a, {b c} a}", context)
        drawn = [table.lookup(b"x") for _ in range(300)]
        self.assertEqual(set(drawn), {b"a", b"{b c}"})
        self.assertGreater(drawn.count(b"a"), 170)
        again = RandMapType(random.Random(1)).open("{a, {b c} a}", context)
        self.assertEqual([again.lookup(b"y") for _ in range(300)], drawn)
        self.assertEqual(open_table("randmap:{one}", "p").lookup(b""), b"one")


class EnvironmentTests(SynchronousTestCase):
    """C{environ:} and C{fail:}."""

    def test_imported(self) -> None:
        """Variables that are named, and those that are given; nothing else."""
        words = "qmqpd_tx_test, other_qmqpd_tx {given = a b} LANG=C qmqpd_tx_unset empty="
        before = os.environ.get("qmqpd_tx_test")  # noqa: SIM112
        os.environ["qmqpd_tx_test"] = "value"  # noqa: SIM112
        try:
            found = imported_environment(words)
            tables = Tables(setting=config_from_text(f"import_environment = {words}").string)
            table = tables.open("environ:x", "p")
            self.assertEqual(open_table("environ:x", "p").lookup(b"QMQPD_TX_test"), b"value")
        finally:
            if before is None:
                del os.environ["qmqpd_tx_test"]  # noqa: SIM112
        self.assertEqual(found, {b"qmqpd_tx_test": b"value", b"given": b"a b", b"LANG": b"C"})
        self.assertEqual([table.lookup(key) for key in (b"Given", b"path", b"empty")], [b"a b", None, None])

    def test_fail(self) -> None:
        """It says which table it was."""
        error = self.assertRaises(TableError, open_table("fail:on purpose", "p").lookup, b"x")
        self.assertIn("table fail:on purpose: query error", str(error))
