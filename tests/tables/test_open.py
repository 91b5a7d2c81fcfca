"""
Lookup tables: what opens, what it answers, and what is said about the rest.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables import (
    ILookupTable,
    ILookupTableType,
    TableContext,
    TableList,
    open_table,
    supported_types,
)
from qmqpd_tx.tables.registry import BUILT_IN
from qmqpd_tx.tables.texthash import parse_texthash

TEXT = b"""\
# a comment
foo   bar
FOO second
  # an indented comment
"key with space"\tv1
"q\\"uo" v2
"a b"@x.test  v3
noval
cont one
  two
# between

   three
k:   v
"unbalanced v
plain   value  with   "quotes"  \r
ba\\"ck v5
sl\\ ash v6
ba\\"d" v7
\xc3\x89a@x.test  v4
"""


class TextHashTests(SynchronousTestCase):
    """C{texthash:}, as C{postmap -q} answers."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.write_bytes(TEXT)
        self.table = open_table(f"texthash:{self.path}", "transport_maps")

    def test_lookup(self) -> None:
        """Keys are folded, quotes belong to the key, lines continue, the first duplicate wins."""
        for key, value in (
            (b"foo", b"bar"),
            (b"FoO", b"bar"),
            (b'"key with space"', b"v1"),
            (b"key with space", None),
            (b'"q\\"uo"', b"v2"),
            (b'"A B"@x.test', b"v3"),
            (b"noval", None),
            (b"cont", b"one  two   three"),
            (b"k:", b"v"),
            (b"k", None),
            (b'"unbalanced', None),
            (b"unbalanced", None),
            (b"plain", b'value  with   "quotes"'),
            (b'ba\\"ck', b"v5"),
            (b"sl\\ ash", b"v6"),
            (b'ba\\"d"', None),
            ("\u00e9a@x.test".encode(), b"v4"),
            (b"\xff", None),
            (b"", None),
        ):
            self.assertEqual(self.table.lookup(key), value, key)

    def test_warnings(self) -> None:
        """Each line that makes no sense is named, with its text as it can be printed."""
        self.path.write_bytes(
            b"foo a\nFOO b\n\xc3\x89 a\n\xc3\xa9 b\nk: v\nnoval\n\0\n"
            b'"unb\x01 v\0\n c\nfoo caf\xe9\nnul v\0\xe9\n\tcont\n'
        )
        with capturedLogs() as events:
            table = open_table(f"texthash:{self.path}", "p")
        self.assertEqual(
            [formatEvent(event).removeprefix(f"{self.path}, line ") for event in events],
            [
                '2: duplicate entry: "FOO"',
                '4: duplicate entry: "\u00e9"',
                '5: record is in "key: value" format; is this an alias file?',
                "6: expected format: key whitespace value -- ignoring this line",
                "7: expected format: key whitespace value -- ignoring this line",
                "8: unbalanced '\"' in '\"unb? v' -- ignoring this line",
                '10: non-UTF-8 input "foo caf?" -- ignoring this line',
            ],
        )
        self.assertEqual(
            [table.lookup(key) for key in (b"foo", b"k:", b"nul")],
            [b"a", b"v", b"v"],
        )
        self.path.write_bytes(b"  " + b"x" * 40 + b"\nfoo a\n")
        with capturedLogs() as events:
            open_table(f"texthash:{self.path}", "p")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f'{self.path}: logical line must not start with whitespace: "  {"x" * 28}..."'],
        )

    def test_reopened(self) -> None:
        """Opening it again reads the file again."""
        self.path.write_bytes(b"foo changed\n")
        self.assertEqual(self.table.lookup(b"foo"), b"bar")
        self.assertEqual(open_table(f"texthash:{self.path}", "x").lookup(b"foo"), b"changed")

    def test_unreadable(self) -> None:
        """The error names parameter and file."""
        error = self.assertRaises(ConfigError, open_table, "texthash:/no/such", "transport_maps")
        self.assertIn("transport_maps: cannot read /no/such: No such file or directory", str(error))
        self.assertIn("absolute", str(self.assertRaises(ConfigError, open_table, "texthash:x", "p")))

    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        """No file content raises; no value is empty."""
        for key, value in parse_texthash(data, "/x").items():
            self.assertTrue(key)
            self.assertTrue(value)


class InlineTests(SynchronousTestCase):
    """C{inline:} and C{static:}."""

    def test_inline(self) -> None:
        """Entries with and without braces; the last duplicate wins."""
        for text, value in (
            ("{ {key = value}, {Foo = a b } }", b"a b"),
            ("{ key=value, foo=b }", b"b"),
            ("{ key=value foo=b }", b"b"),
            ("{ {key = value} foo=b }", b"b"),
            ("{foo=1,foo=2}", b"2"),
            ("{{foo = {a b}}}", b"{a b}"),
            ("{ { foo = x, y } }", b"x, y"),
            ("{ foo=a=b }", b"a=b"),
            ("{ other=b }", None),
            ("{ {=b} foo=a }", b"a"),
            ("{ {b=} {foo=a} }", b"a"),
            ("{ {foo=} {foo=a} }", b"a"),
        ):
            self.assertEqual(open_table("inline:" + text, "p").lookup(b"FOO"), value, text)
        table = open_table('inline:{ {"r s"@x = a}, {"b=c" = d}, {e\\ f = g} }', "p")
        for key, value in (('"r s"@x', b"a"), ('"b=c"', b"d"), ("e\\ f", b"g")):
            self.assertEqual(table.lookup(key.encode()), value)

    def test_empty_value(self) -> None:
        """An entry without a value is taken, named in a warning when it is found, and no answer."""
        with capturedLogs() as events:
            table = open_table("inline:{ {foo=a} {foo = } }", "p")
            self.assertEqual(events, [])
            self.assertIsNone(table.lookup(b"FOO"))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "table inline:{ {foo=a} {foo = } }: key FOO: empty string result is not allowed; "
                "it should return NO RESULT in case of NOT FOUND"
            ],
        )

    def test_bad_inline(self) -> None:
        """Each error shows the table."""
        for text in (
            "inline:{}",
            "inline:foo",
            "inline:{foo}",
            "inline:{ {foo} }",
            "inline:{ , }",
            "inline:{ {} {a=b} }",
            "inline:{ {a b = c} }",
            "inline:{x=y",
        ):
            error = self.assertRaises(ConfigError, open_table, text, "some_maps")
            self.assertIn("some_maps: ", str(error))
            self.assertIn(text, str(error))

    def test_static(self) -> None:
        """Every key has the same value."""
        for text, value in (("foo bar", b"foo bar"), ("{ foo bar }", b"foo bar"), ("x:y", b"x:y")):
            self.assertEqual(open_table("static:" + text, "p").lookup(b"anything"), value)
        for text in ("static:{foo", "static:", "static:{}"):
            self.assertRaises(ConfigError, open_table, text, "p")


@implementer(ILookupTable)
class Echo:
    """Answers every key with itself; its keys are patterns."""

    fixed_keys = False
    immediate = True
    stable = True
    sources = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def lookup(self, key: bytes) -> bytes | None:
        return key

    def close(self) -> None:
        """Nothing to let go of."""


@implementer(ILookupTableType)
class EchoType:
    """What a plugin would bring."""

    type = "echo"

    def open(self, name: str, context: TableContext) -> Echo:
        return Echo(name)


class RegistryTests(SynchronousTestCase):
    """Finding tables by type."""

    def test_unknown(self) -> None:
        """An unknown type is named, with those that there are."""
        error = self.assertRaises(ConfigError, open_table, "bogus:x", "transport_maps", extra=[EchoType()])
        self.assertIn("transport_maps: unsupported dictionary type: bogus", str(error))
        self.assertIn("echo, environ, ", str(error))
        self.assertIn('expecting "type:name"', str(self.assertRaises(ConfigError, open_table, "foo", "p")))

    def test_postfix_types(self) -> None:
        """One that Postfix has, and we have not, can be brought by a plugin."""
        for kind in ("ldap", "mysql", "nis", "memcache"):
            text = f"unionmap:{{inline:{{a=b}}, {kind}:x}}"
            error = str(self.assertRaises(ConfigError, open_table, text, "relocated_maps", extra=[]))
            self.assertIn(
                f"relocated_maps: unsupported dictionary type: {kind} (in {kind}:x); a plugin", error
            )
            self.assertIn("supported are: btree, cdb, ", error)
        error = str(self.assertRaises(ConfigError, open_table, "ldpa:x", "relocated_maps", extra=[]))
        self.assertNotIn("plugin", error)

    def test_plugin(self) -> None:
        """A further type is found."""
        self.assertEqual(open_table("echo:x", "p", extra=[EchoType()]).lookup(b"Key"), b"Key")
        self.assertIn("echo", supported_types([EchoType()]))

    def test_interfaces(self) -> None:
        """Types and tables provide their interfaces."""
        for kind in BUILT_IN:
            verifyObject(ILookupTableType, kind)
        verifyObject(ILookupTable, open_table("static:x", "p"))
        verifyObject(ILookupTable, open_table("inline:{a=b}", "p"))

    def test_list(self) -> None:
        """Tables are asked in order; pattern tables are not asked for parts of an address."""
        tables = TableList("inline:{ {a = 1}, {b = 2} }, inline:{b=3,c=4}", "p")
        self.assertEqual(
            [tables.lookup_now(key) for key in (b"a", b"b", b"c", b"d")], [b"1", b"2", b"4", None]
        )
        self.assertFalse(TableList("", "p"))
        patterns = TableList("echo:x static:y", "p", lambda text, p: open_table(text, p, [EchoType()]))
        self.assertEqual(patterns.lookup_now(b"whole"), b"whole")
        self.assertEqual(patterns.lookup_now(b"part", partial=True), b"y")
