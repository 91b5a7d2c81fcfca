"""
Side by side with Postfix: what C{postmap -q} finds in a table, is found here, and where it warns of a
line, the table is refused for that line.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import open_table
from tests.peers import require, scratch

WORDS = [
    "abc",
    "x1y2",
    "Foo",
    "user@dom.test",
    "aab",
    "a+b",
    "ABD",
    "q1",
    "list-outgoing@x",
    "owner-list-outgoing@x",
    "a/b",
    "axbc",
    "$1",
]
ADDRESSES = [
    "1.1.1.1",
    "1.1.1.5",
    "1.2.3.4",
    "2.2.2.2",
    "10.0.0.1",
    "10.1.2.3",
    "10.200.0.9",
    "192.0.2.1",
    "::1",
    "2001:db8::1",
    "2001:DB8:0:0::2",
    "2001:db9::",
    "::ffff:1.1.1.1",
    "010.0.0.1",
    "[10.0.0.1]",
    "foo",
    "1.1.1.1/32",
    "fe80::1%eth0",
]

CIDR: Sequence[str] = (
    "10.0.0.1 a\n10.0.0.0/8 b\n!192.0.2.0/24 c\n",
    "10.0.0.0/8 b\n10.0.0.1 never\n",
    "0.0.0.0/0 v4 $x $$\n::/0 v6\n",
    "[2001:db8::]/32 x\n[::1/128] z\n[1.1.1.1]\ty\n",
    "2001:db8::/32 a b  c  \n  d\n",
    "if 1.1.0.0/16\n1.1.1.1 y\nendif\n1.1.1.5 z\n",
    "IF 1.1.1.1\n1.1.1.1 Y\nENDIF\n",
    "if !1.1.0.0/16\n1.1.1.1 no\n0.0.0.0/0 y\n::/0 six\nendif\n1.1.1.1 yes\n",
    "if 10.0.0.0/8\nif !10.1.0.0/16\n10.0.0.0/8 outer\nendif\n10.1.2.3 inner\nendif\n::/0 six\n",
    "! 1.1.1.1 x\n",
    "! !1.1.1.1 x\n",
    "!\t! !1.1.1.1 x\n",
    "if ! !1.1.0.0/16\n1.1.1.1 y\nendif\n",
    "1.1.1.1 v\0w\n x\n",
    "!!1.1.1.1 x\n",
    "!::/0 x\n",
    "1.1.1.1/32 p\n# comment\n\n q\n2.0.0.0/08 r\n",
    "::ffff:1.1.1.1 mapped\n",
)

BAD_CIDR: Sequence[str] = (
    "10.0.0.1/8 x",
    "2001:db8::1/32 x",
    "1.2.3 x",
    "1.2.3.4/33 x",
    "foo x",
    "1.1.1.1",
    "01.1.1.1 y",
    "1.1.1.1/ y",
    "! !",
    "\0",
    "1.1.1.1/+8 y",
    "1.1.1.0/24/3 y",
    "fe80::1%eth0 x",
    "[1.1.1.1 x",
    "[::2]128 v",
    "[] y",
    "/8 x",
    "if",
    "endif",
    "if 1.1.0.0/16 foo",
    "if 1.1.0.0/16",
)

PATTERNS: Sequence[str] = (
    "/x(.)y(.)/ $1-${2}-$(1)-$$-$2\n",
    "/(a)bc/ $01 $001 $$1\n",
    "/(x)(.)(y)(.)/ $4$3$2$1\n",
    "/(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)/ $10 $11 ${1}0\n",
    "/(q)?abc/ <$1>\n",
    "!/abc/ neg\n",
    "!/(a)bc/ neg$$\n",
    "!!/abc/ n\n",
    "!!!/abc/ n\n",
    "! /abc/ n\n",
    "! !/abc/ n\n",
    "!\t! !/abc/ n\n",
    "if ! !/abc/\n/a/ in\nendif\n/a/ out\n",
    "\0\n\0/x\n/abc/ v\0w\n x\n",
    '"abc" q\n"Foo" r\n',
    "~abc~ x\n#abc# y\n",
    "|a\\|b| p\n",
    "/a\\/b/ x\n",
    "/abc/i x\n/ABC/ y\n",
    "/ABC/ y\n",
    "/abc/iii x\n/./ rest\n",
    "/abc/   spaced   out  \n  more\n",
    '/abc/ "q"\n',
    "// x\n",
    "/a{2}b/ x\n/^.{3}$/ three\n",
    "/^[[:alpha:]]+$/ letters\n/[^[:alnum:]]/ other\n",
    "/[]a]b/ bracket\n/[a-]\\+/ dash\n",
    "/^(a|ab)(c|bcd)?$/ <$1><$2>\n",
    "/^(.*)-outgoing@(.*)$/ 550 Use ${1}@${2} instead\n",
    "if !/^owner-/\n/^(.*)-outgoing@(.*)$/ 550 Use ${1}@${2} instead\nendif\n",
    "if /abc/\n/a/ in\nendif\n/a/ out\n",
    "IF !/abc/\n/a/ in\nENDIF\n/a/ out\n",
    "if/abc/\n/a/ in\nendif\n",
    "if /a/\nif !/abc/\n/a/ in\nendif\n/abc/ mid\nendif\n/a/ out\n",
    "/abc/ ! /abd/ x\n",
    "/^\\$1$/ dollar\n",
)

REGEXP: Sequence[str] = (
    "/a.c/!/abd/ x\n/Foo/ z\n",
    "/a.c/!/abc/ x\n/Foo/ z\n",
    "/a.c/! !/abc/ x\n/Foo/ z\n",
    "/a\\{1\\}\\+b/x x\n/a\\+\\?b/x y\n/a*\\+/x z\n",
    "/((a)|x)\\2/ x\n",
    *(
        f"/^({one})(.*)$/ <$1><$2>\n"
        for one in ("|a", "|x|a", "|a|x", "||a", "a||x", "|a*", "(|a)|b", "()|a")
    ),
    "/(a).(c|d)/!/x(q)bd/ x$1$2\n",
    "!/a.c/!/Foo/ x\n/abc/ z\n",
    "/abc/ix x\n",
    "/a\\(b\\)c/x yes$1\n/a+b/x plus\n",
    "/(a)\\1/ yes$1\n",
    "/\\<user\\>/ word\n/\\w+@\\w+/ address\n",
    "/a**b/ x\n",
    "/\\d/ digit\n/\\D/ letter d\n",
    "/a)|b(c)/ <$1>\n",
)

PCRE: Sequence[str] = (
    "/^(?!owner-)(.*)-outgoing@(.*)/ 550 Use ${1}@${2} instead\n",
    "/(a+)(a*)b/U $1-$2\n",
    "/b/A x\n/a/A y\n",
    "/a b c/x x\n",
    "/\\x61\\x{62}c/ hex\n",
    "/\\d\\w/ digit\n/(?<=x)b/ behind\n",
    "/(?i-s)foo/i x\n",
    "/(.)\\1/ twice $1\n",
    "/a{1,2/ x\n/\\Qa+b\\E/ quoted\n",
    "/(?<name>F)oo/ <$1>\n",
)

BAD_REGEXP: Sequence[str] = (
    "/(a)|\\1b/ x",
    "/((a)|\\2b)/ x",
    "/((a)\\2|(b)\\2)/ x",
    "/a\\{1\\}\\{2\\}/x x",
    "/a*\\{2\\}/x x",
    "/a\\+\\{2\\}/x x",
    "/a\\{2\\}*/x x",
)

BAD_PCRE: Sequence[str] = (
    "/a/!/b/ x",
    "/a**/ x",
    *(
        f"/{pattern}/ x"
        for pattern in ("\\x{,}|a", "\\x{", "\\x{ }", "\\x{41 }", "\\x{0,}", "\\x{}", "[\\x{,}]")
    ),
)

BAD_PATTERNS: Sequence[str] = (
    "/abc/ $0 x",
    "/abc/ ok $1",
    "/(a)bc/ $x",
    "/(a)bc/ a$",
    "/(a)bc/ ${1",
    "/(a)bc/ ${1x}",
    "/(a)bc/ $-1",
    "/(a)bc/ ${}",
    "/(a)bc/ $2z",
    "!/(a)bc/ neg$1",
    "/abc",
    "! !a|b! x",
    "! !",
    "/b\0/a/ x",
    "abc x",
    "/abc/z x",
    "/abc/",
    "/a(bc/ x",
    "/a[bc/ x",
    "/*a/ x",
    "/a\\",
    "if",
    "if abc",
    "if /abc/ foo",
    "if /abc/",
    "endif",
)

COMBINED: Sequence[tuple[str, str]] = (
    ("pipemap:{TABLE,TABLE}", "a b x"),
    ("pipemap:{TABLE TABLE TABLE}", "a"),
    ("pipemap:{TABLE}", "a A q"),
    ("pipemap:{TABLE,fail:x}", "q a"),
    ("pipemap:{ TABLE , inline:{ {b=z z} {c=d}} }", "a A"),
    ("pipemap:{regexp:{ {/^(.*)$/ <$1>} } regexp:{ {/^<(.*)>$/ $1$1} }}", "aB"),
    ("pipemap:{static:aB,regexp:{{/^(.*)$/i $1}}}", "x"),
    ("unionmap:{TABLE,inline:{a=q,x=y}}", "a x q A"),
    ("unionmap:{inline:{x=1},inline:{x=2}}", "x z"),
    ("unionmap:{inline:{ {x=1,2} },inline:{x=2}}", "x z"),
    ("unionmap:{inline:{x=1},fail:x}", "x z"),
    ("unionmap:{static:{a b},static:c}", "a"),
    ("unionmap:{inline:{ab=x},regexp:{{/^(.*)$/ $1}}}", "aB cD"),
    ("unionmap:{regexp:{{/^(.*)$/ $1}},inline:{ab=x}}", "aB cD"),
    ("randmap:{a}", "x"),
    ("randmap:{{a b}}", "x"),
    ("fail:x", "a"),
    ("environ:x", "qmqpd_tx_env QMQPD_TX_ENV nosuch"),
    ("inline:{a=b}", "A a b"),
    ("inline:{ {a = b} {a = c} }", "a"),
    ("inline:{{ a = {b} }}", "a"),
    ("inline:{ {b=} {=d} {a=c} }", "a c"),
    ("inline:{ b= a=c }", "a c"),
    ("inline:{ {a=} {a=c} }", "a"),
    ("inline:{ a=b=c, {d = e, f} }", "a d"),
    ("static:x", "a b"),
    ("static:{ x y }", "a"),
    ("static:{ {x} }", "a"),
    ("static:x}", "a"),
    ("TABLE", 'a b x EMPTYV space Self "k" dup cont'),
    ("regexp:{ {/^a/ x}, {#c} {/^(b)/ $1$$} }", "a b c"),
    ("pcre:{ {/^a/ x} {if /b/} {/(?=c)/ y} {endif} }", "a bc b c"),
    ("cidr:{ {1.2.3.0/24 y} {!::/0 z} }", "1.2.3.4 1.2.4.4 ::1"),
)

BAD_NAMES: Sequence[str] = (
    "pipemap:{}",
    "pipemap:TABLE",
    "pipemap:{TABLE",
    "pipemap:{texthash:/no/such}",
    "pipemap:{foo:bar}",
    "pipemap:{bar}",
    "unionmap:{}",
    "unionmap:{inline:{x=1}, {inline:{x=2}}}",
    "randmap:{}",
    "randmap:a",
    "randmap:{ }",
    "inline:{}",
    "inline:foo",
    "inline: {a=b}",
    "inline:{ a = b }",
    "inline:{ {a b = c} }",
    "inline:{ , }",
    "inline:{ {} {a=b} }",
    "inline:{{a=b}x}",
    "static:",
    "static:{x} y",
    "static:{x",
    "environ:",
    "regexp:/no/such",
    "cidr:/no/such",
    "regexp:{ /a/ x }",
    "regexp:{ {/a/ x",
    "regexp:{ {/a/ x}{/b/ y} }",
    "texthash:{ {a b} }",
)

TEXT = """\
a b
b c
x y,z
EMPTYV
space a  b
self self
dup first
dup second
cont one

# between
  two
"k" quoted
"""


ODD_TEXTS: Sequence[str] = (
    "foo a\nfoo b\n",
    "foo a\nFOO b\n",
    "x\u00e9 a\nx\u00e9 b\nfoo c\n",
    '"unb x\nfoo b\n',
    'fo\x01"o x\nfoo b\n',
    " x cont\nfoo b\n",
    f"  {'x' * 28}\nfoo b\n",
    f"  {'x' * 29}\nfoo b\n",
    "noval\nfoo b\n",
    "k: v\nk:x\nk: \nfoo b\n",
    "foo caf\udce9\nx\udce9 z\n",
    "foo v\0z\n cont\n",
    "foo v\0\udce9\n",
    "\0\nfoo v\nbar\0 v\n",
    '"u\0" x\nfoo v\n',
    "foo v\n \0bar\n",
)
"""Texts with lines that make no sense."""


def write(path: Path, content: str) -> None:
    """
    Write a file that looks old: Postfix sleeps for a while when it reads one that is new.
    """
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    os.utime(path, (1, 1))


class Postmap:
    """Postfix's command, with a configuration of its own."""

    def __init__(self) -> None:
        self.program = require("postmap")
        self.folder = scratch()
        write(self.folder / "main.cf", "compatibility_level = 3.6\nmyhostname = mx.example.org\n")
        for name in ("dynamicmaps.cf", "dynamicmaps.cf.d"):
            source = Path("/etc/postfix") / name
            if source.exists():
                (self.folder / name).symlink_to(source)

    def query(self, table: str, keys: Sequence[str]) -> tuple[dict[str, str], str]:
        """
        @return: the values by key, and what it complained of.
        """
        done = subprocess.run(
            [self.program, "-c", str(self.folder), "-q", "-", table],
            input="".join(key + "\n" for key in keys),
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "qmqpd_tx_env": "here", "QMQPD_TX_ENV": "there"},
        )
        return dict(line.split("\t", 1) for line in done.stdout.splitlines()), done.stderr

    def one(self, table: str, key: str) -> str | None:
        """
        @return: the value of a key that may have newlines.
        """
        command = [self.program, "-c", str(self.folder), "-q", key, table]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout[:-1] if done.returncode == 0 else None


def ours(table: str, keys: Sequence[str]) -> tuple[dict[str, str], bool]:
    """
    @return: what is found here, up to the first failure, and whether there was one.
    """
    opened = open_table(table, "p")
    found = {}
    for key in keys:
        try:
            value = opened.lookup(key.encode())
        except TableError:
            return found, True
        if value is not None:
            found[key] = value.decode()
    return found, False


class PostmapTests(SynchronousTestCase):
    """The same tables, the same keys."""

    def setUp(self) -> None:
        self.postmap = Postmap()
        self.count = 0

    def file(self, content: str) -> Path:
        """
        @return: a file with this content.
        """
        self.count += 1
        path = self.postmap.folder / f"table{self.count}"
        write(path, content)
        return path

    def query(self, tables: Sequence[str], keys: Sequence[Sequence[str]]) -> list[tuple[dict[str, str], str]]:
        """
        @return: what Postfix says. Its programs sleep for a second before they give up: many at a time.
        """
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.postmap.query, tables, keys))

    def agree(self, tables: Sequence[str], keys: Sequence[Sequence[str]]) -> None:
        """
        Both find the same.
        """
        for table, asked, (expected, complaints) in zip(tables, keys, self.query(tables, keys), strict=True):
            found, failed = ours(table, asked)
            self.assertEqual(found, expected, f"{shown(table)}: {complaints}")
            self.assertEqual(failed, "query error" in complaints, f"{table}: {complaints}")

    def all_agree(self, kind: str, contents: Sequence[str], keys: Sequence[str]) -> None:
        """
        Both find the same in tables of such content.
        """
        self.agree([f"{kind}:{self.file(content)}" for content in contents], [keys] * len(contents))

    def both_complain(self, kind: str, lines: Sequence[str]) -> list[tuple[str, str]]:
        """
        Where Postfix warns of a line and leaves it out, we refuse the table, and name that line.

        @return: what Postfix says, and what we say.
        """
        tables = [f"{kind}:{self.file(f'# a comment{chr(10)}{chr(10)}{line}{chr(10)}')}" for line in lines]
        said = []
        for table, (_, complaints) in zip(tables, self.query(tables, [["x"]] * len(tables)), strict=True):
            self.assertRegex(complaints, r", line [34]: |macro", shown(table))
            error = str(self.assertRaises(ConfigError, open_table, table, "p"))
            self.assertIn(f"{table}, line 3: ", error)
            said.append((complaints, error))
        return said

    def test_cidr(self) -> None:
        """Networks."""
        self.all_agree("cidr", CIDR, ADDRESSES)

    def test_bad_cidr(self) -> None:
        """Lines that are no networks; host bits in the very words."""
        for complaints, error in self.both_complain("cidr", BAD_CIDR)[:2]:
            words = re.search(r"non-null.*instead", complaints)
            assert words is not None
            self.assertIn(words[0], error)

    def test_regexp(self) -> None:
        """Expressions of the C library."""
        self.all_agree("regexp", (*PATTERNS, *REGEXP), WORDS)

    def test_pcre(self) -> None:
        """Perl's expressions."""
        self.all_agree("pcre", (*PATTERNS, *PCRE), WORDS)

    def test_bad_patterns(self) -> None:
        """Lines that make no sense."""
        self.both_complain("regexp", (*BAD_PATTERNS, *BAD_REGEXP))
        self.both_complain("pcre", (*BAD_PATTERNS, *BAD_PCRE))

    def test_folded_headers(self) -> None:
        """A key of several lines."""
        for kind in ("regexp", "pcre"):
            for pattern in ("^b$", "a$", "a.b", "a[^x]b", "^a", "a\\nb"):
                for flag in ("", "m"):
                    table = f"{kind}:{self.file(f'/{pattern}/{flag} yes')}"
                    expected = self.postmap.one(table, "a\nb")
                    found = open_table(table, "p").lookup(b"a\nb")
                    self.assertEqual(found, expected and expected.encode(), shown(table))

    def test_combined(self) -> None:
        """Tables of tables, and those that stand in the parameter."""
        os.environ["qmqpd_tx_env"] = "here"  # noqa: SIM112
        self.addCleanup(os.environ.pop, "qmqpd_tx_env")
        text = f"texthash:{self.file(TEXT)}"
        asked = [(table.replace("TABLE", text), [key]) for table, keys in COMBINED for key in keys.split()]
        self.agree([table for table, _ in asked], [keys for _, keys in asked])

    def test_odd_texts(self) -> None:
        """Lines of C{texthash:} that make no sense are left out by both, with the same words."""
        tables = [f"texthash:{self.file(content)}" for content in ODD_TEXTS]
        keys = ("foo", "k:", "k", "x\u00e9", "bar")
        for table, (expected, complaints) in zip(
            tables, self.query(tables, [keys] * len(tables)), strict=True
        ):
            with capturedLogs() as events:
                found, _ = ours(table, keys)
            self.assertEqual(found, expected, shown(table))
            self.assertEqual(
                [f"postmap: warning: {formatEvent(event)}" for event in events], complaints.splitlines()
            )

    def test_bad_names(self) -> None:
        """Names of tables that make no sense end both."""
        text = f"texthash:{self.file(TEXT)}"
        tables = [name.replace("TABLE", text) for name in BAD_NAMES]
        for table, (_, complaints) in zip(tables, self.query(tables, [["x"]] * len(tables)), strict=True):
            self.assertIn("fatal: ", complaints, table)
            self.assertRaises(ConfigError, open_table, table, "p")


def shown(table: str) -> str:
    """
    @return: a table with its content, for messages.
    """
    path = Path(table.partition(":")[2])
    return f"{table}: {path.read_bytes()!r}" if path.is_absolute() else table
