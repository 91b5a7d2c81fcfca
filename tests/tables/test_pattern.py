"""
C{regexp:} and C{pcre:} tables.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pcre2
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import ILookupTable, IPatternTable, Tables, open_table
from qmqpd_tx.tables.backtrack import Budget
from qmqpd_tx.tables.interface import FOLD, TableContext
from qmqpd_tx.tables.keeper import ROUTES
from qmqpd_tx.tables.linear import Prefilter, TooLarge, compiled, repeated
from qmqpd_tx.tables.patterns import PatternTable
from qmqpd_tx.tables.pcre import PcreType
from qmqpd_tx.tables.perl import Flags, loosened
from qmqpd_tx.tables.posix import PatternError, Syntax, parse

BOTH = ("regexp", "pcre")
ROUTE = "transport_maps"
# fmt: off
POSIX_PARTS = [
    "a", "b", "A", "_", "-", ".", "*", "+", "?", "(", ")", "|", "^", "$", "[ab]", "[^a]", "[a-c]",
    "[[:upper:]]", "{2}", "{1,2}", "{,2}", "\\w", "\\W", "\\<", "\\>", "\\b", "\\.", "\\(", "\\)", "\\|",
    "\\{", "\\}", "[", "]", "\\d", "\\D", "[]-]", "(a", "|b)", "\\+",
]
# fmt: on
"""What expressions of the C library are put together from."""

# fmt: off
PERL_PARTS = [
    "a", "b", ".", "*", "+", "?", "(", ")", "|", "^", "$", "[ab]", "[^a]", "{2}", "{0,2}", "*?", "++",
    "\\w", "\\W", "\\b", "\\B", "\\A", "\\Z", "\\z", "\\1", "(?=", "(?!", "(?<=a)", "(?:", "(?>", "(?i)",
    "(?-i:", "(?-s)", "\\Qa.\\E", "\\x61", "\\n", "\\s", "\\R", "\\N", "\\K", "[^\\n]", "#", "(?x)",
    "(?|(a)|b)", "(?#x)", "\\0", "[[:^alpha:]]", " ",
]
# fmt: on
"""What Perl's expressions are put together from."""


def inline(kind: str, *rules: str) -> ILookupTable:
    """
    @return: a table of these rules.
    """
    return open_table(f"{kind}:{{ " + " ".join(f"{{{rule}}}" for rule in rules) + " }", "p")


class PatternTests(SynchronousTestCase):
    """What both kinds do."""

    def check(self, kind: str, rules: list[str], *cases: tuple[str, str | None]) -> None:
        """
        @param cases: keys and results.
        """
        table = inline(kind, *rules)
        for key, value in cases:
            expected = None if value is None else value.encode("latin-1")
            self.assertEqual(table.lookup(key.encode("latin-1")), expected, (kind, rules, key))

    def test_rules(self) -> None:
        """The first that matches answers; case does not matter unless asked for; any delimiter does."""
        for kind in BOTH:
            self.check(
                kind,
                ["/^abc/ one", "/b/ two", "~X/Y~i  three four ", "#comment", '"q" five', "// all"],
                ("ABCdef", "one"),
                ("xbx", "two"),
                ("X/Y", "three four"),
                ("x/y", "all"),
                ("Q", "five"),
                ("", "all"),
            )
            self.check(
                kind, ["/a\\/b/ slash", "/^ab$/ii line"], ("xa/b", "slash"), ("AB", "line"), ("abc", None)
            )

    def test_negation(self) -> None:
        """C{!} before a pattern."""
        for kind in BOTH:
            self.check(kind, ["!/a/ no", "/b/ b"], ("x", "no"), ("a", None), ("ab", "b"))
            self.check(kind, ["!!/a/ yes", "! /b/ no$$"], ("a", "yes"), ("x", "no$"), ("b", None))
            self.check(kind, ["! !/b/ y"], ("b", "y"), ("c", None))
            self.check(kind, ["! \t!! /b/ y"], ("b", None), ("c", "y"))
            self.check(kind, ["if ! !/b/", "/./ y", "endif"], ("b", "y"), ("c", None))
            self.assertRaises(ConfigError, inline, kind, "! !a|b! y")

    def test_if(self) -> None:
        """C{if} nests, may be negated, and does not end the search."""
        for kind in BOTH:
            rules = ["if /a/", "IF !/abc/", "/a/ in", "endif", "/abc/ mid", "ENDIF", "/./ out"]
            self.check(kind, rules, ("xa", "in"), ("abc", "mid"), ("x", "out"), ("", None))

    def test_substitution(self) -> None:
        """C{$1}, C{${1}}, C{$(1)} and C{$$}; a group that took no part is empty, an empty result is none."""
        for kind in BOTH:
            self.check(kind, ["/x(.)y(.)/ $1-${2}z-$(1)$$$2"], ("x1Y2", "1-2z-1$2"))
            self.check(kind, ["/(q)?abc(.*)/ <$1,$2>"], ("abcD", "<,D>"), ("Qabc", "<Q,>"))
            self.check(kind, ["/(q)?abc/ $1", "/abc/ second"], ("abc", None), ("qabc", "q"))
            self.check(kind, ["/(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)/ $11$10${1}0"], ("abcdefghijk", "kja0"))
            self.check(kind, ["/(\xe9)/ [$1]"], ("\xe9", None))

    def test_empty_result(self) -> None:
        """A result that turns out empty is named in a warning, and none."""
        for kind in BOTH:
            table = inline(kind, "/(q)?abc/ $1", "/abc/ second")
            with capturedLogs() as events:
                self.assertIsNone(table.lookup(b"ab\0c abc"))
                self.assertEqual(table.lookup(b"qabc"), b"q")
            self.assertEqual(
                [formatEvent(event) for event in events],
                [
                    f"table {table.name}: key ab?c abc: empty string result is not allowed; "
                    "it should return NO RESULT in case of NOT FOUND"
                ],
            )

    def test_no_substitution(self) -> None:
        """Where mail goes is not for a part of an address to say: such rules are left out, with a warning."""
        for kind in BOTH:
            path = Path(self.mktemp()).absolute()
            path.write_text("/^(.)x/ a$1\n/^x/ x\nif /y/\n/(y)z/ ${1}\n/yz/ $$yz\nendif\n/./ all\n")
            keys = (b"xx", b"ayz", b"ay")
            for text in (f"{kind}:{path}", f"unionmap:{{proxy:{kind}:{path}}}"):
                for parameter in ROUTES:
                    with capturedLogs() as events:
                        table = open_table(text, parameter)
                    self.assertEqual([table.lookup(key) for key in keys], [b"x", b"$yz", b"all"])
                    self.assertEqual(
                        [formatEvent(event) for event in events],
                        [
                            f"{parameter}: {kind}:{path}, line {line}: regular expression substitution is "
                            "not allowed: skipping this rule"
                            for line in (1, 4)
                        ],
                    )
                with capturedLogs() as events:
                    table = open_table(text, "canonical_maps")
                self.assertEqual([table.lookup(key) for key in keys], [b"ax", b"y", b"all"])
                self.assertEqual(events, [])

    def test_no_substitution_ahead(self) -> None:
        """Rules that were left out are not looked for."""
        for kind in BOTH:
            table = open_table(
                f"{kind}:{{ {{/(abc)/ $1}} {{if /q/}} {{/(x)/ $1}} {{endif}} {{/def/ x}} }}", ROUTE
            )
            assert isinstance(table, PatternTable)
            self.assertEqual([table.may_match(key) for key in (b"abc", b"qx", b"def")], [False, False, True])

    def test_no_substitution_wrong(self) -> None:
        """A rule that would be left out must make sense all the same."""
        for kind in BOTH:
            self.assertRaises(ConfigError, open_table, f"{kind}:{{ {{/(abc)/ $2}} }}", ROUTE)

    def test_bytes(self) -> None:
        """A key is bytes; one that is no UTF-8 is like any other, and a letter beyond ASCII has no case."""
        for kind in BOTH:
            table = inline(kind, "/^\u00e9$/ two", "/^.$/ one", "/^..$/ pair")
            self.assertEqual(table.lookup("\u00e9".encode()), b"two")
            self.assertEqual(table.lookup("\u00c9".encode()), b"pair")
            self.assertEqual(table.lookup(b"\xe9"), b"one")
            self.assertEqual(inline(kind, "/^\\w|[[:alpha:]]/ word").lookup(b"\xe9"), None)

    def test_file(self) -> None:
        """A file has comments, continued lines, and is a source."""
        for kind in BOTH:
            path = Path(self.mktemp()).absolute()
            path.write_text("# x\n/^a/   spaced   out  \n  and more\n\n/b/ b\n")
            table = open_table(f"{kind}:{path}", "p")
            self.assertEqual(table.lookup(b"a"), b"spaced   out    and more")
            self.assertEqual(table.lookup(b"B"), b"b")
            self.assertEqual(list(table.sources), [str(path)])
            self.assertFalse(table.fixed_keys)

    def test_nul(self) -> None:
        """What comes after a NUL is not there."""
        for kind in BOTH:
            path = Path(self.mktemp()).absolute()
            path.write_bytes(b"\0\n\0/a\n/a/ x \0y\n z\n/b/\0\n")
            error = self.assertRaises(ConfigError, open_table, f"{kind}:{path}", "p")
            self.assertIn("line 5: no replacement text", str(error))
            path.write_bytes(b"\0\n\0/a\n/a/ x \0y\n z\n")
            self.assertEqual(open_table(f"{kind}:{path}", "p").lookup(b"a"), b"x")

    def test_lines_of_a_key(self) -> None:
        """A folded header is one key: C{.} goes over newlines, C{^} and C{$} see them with flag m."""
        for kind in BOTH:
            for rule, expected in (
                ("/a.b/ x", b"x"),
                ("/^b/ x", None),
                ("/^b/m x", b"x"),
                ("/a$/ x", None),
                ("/a$/m x", b"x"),
                ("/a[^q]b/ x", b"x"),
            ):
                self.assertEqual(inline(kind, rule).lookup(b"a\nb"), expected, (kind, rule))
        self.assertIsNone(inline("regexp", "/a.b/m x").lookup(b"a\nb"))
        self.assertIsNone(inline("regexp", "/a[^q]b/m x").lookup(b"a\nb"))
        self.assertIsNone(inline("pcre", "/a.b/s x").lookup(b"a\nb"))

    def test_errors(self) -> None:
        """Each error names parameter, table, line and what is wrong."""
        for kind in BOTH:
            path = Path(self.mktemp()).absolute()
            for line, words in (
                ("/a(/ x", "a("),
                ("/a[/ x", "a["),
                ("/*a/ x", "*a"),
                ("/a", 'no closing regexp delimiter "/"'),
                ("/a\\/ x", 'no closing regexp delimiter "/"'),
                ("abc x", 'unrecognized request: "abc x"'),
                ("/a/z x", 'unknown regexp option "z"'),
                ("/a/", "no replacement text"),
                ("!", "no regexp"),
                ("/a/ $1", 'out of range replacement index "1"'),
                ("/(a)/ $0", 'out of range replacement index "0"'),
                ("/(a)/ $x", 'non-numeric replacement index "x"'),
                ("/(a)/ $1x", 'non-numeric replacement index "1x"'),
                ("/(a)/ a$", 'empty macro name: "a$"'),
                ("/(a)/ $ 1", 'empty macro name: "$ 1"'),
                ("/(a)/ ${1", 'truncated macro reference: "${1"'),
                ("!/(a)/ $1", "$number found in negative match replacement text"),
                ("if", "no regexp"),
                ("if /a/ x\nendif", 'extra text after IF statement: "x"'),
                ("if /a/", "IF has no matching ENDIF"),
                ("endif", "ENDIF without IF"),
            ):
                path.write_text(f"/fine/ x\n\n{line}\n")
                error = str(self.assertRaises(ConfigError, open_table, f"{kind}:{path}", "header_checks"))
                self.assertIn(f"header_checks: {kind}:{path}, line 3: ", error)
                self.assertIn(words, error)
        self.assertIn("absolute", str(self.assertRaises(ConfigError, open_table, "regexp:x", "p")))
        self.assertIn(
            'unknown regexp option "!"', str(self.assertRaises(ConfigError, inline, "pcre", "/a/!/b/ x"))
        )


class RegexpTests(SynchronousTestCase):
    """What C{regexp:} has for itself."""

    def test_and_not(self) -> None:
        """C{/one/!/other/}: the one, and not the other."""
        table = inline("regexp", "/(a).c/!/abc/ x$1", "!/a/!/f/ neither", "/a/i!/./i never")
        for key, value in ((b"adc", b"xa"), (b"abc", None), (b"f", None), (b"q", b"neither")):
            self.assertEqual(table.lookup(key), value, key)

    def test_basic(self) -> None:
        """Flag x: basic regular expressions."""
        table = inline("regexp", "/a\\(b\\)+$/x <$1>")
        self.assertEqual(table.lookup(b"ab+"), b"<b>")
        self.assertIsNone(table.lookup(b"abb"))

    def test_basic_repetitions(self) -> None:
        """In basic syntax C{*} and an interval repeat no repetition; C{\\+} and C{\\?} do."""
        for pattern in (
            "a\\{1\\}\\{2\\}",
            "a*\\{2\\}",
            "a\\+\\{2\\}",
            "a\\?\\{2\\}",
            "a\\{2\\}*",
            "a**",
        ):
            error = self.assertRaises(ConfigError, inline, "regexp", f"/{pattern}/x y")
            self.assertIn("Invalid preceding regular expression", str(error))
        for pattern in ("a\\{2\\}\\+", "a\\+\\+", "a*\\?"):
            self.assertEqual(inline("regexp", f"/{pattern}/x y").lookup(b"aa"), b"y", pattern)

    def test_empty_first_branch(self) -> None:
        """Where an empty first branch would do as well as the second one, the second one counts."""
        for pattern, key, value in (
            ("(|b)(.*)$", "bb", b"<b>"),
            ("(|a|b)(.*)$", "ax", b"<a>"),
            ("(|a|b)(.*)$", "bx", b"<>"),
            ("(||a)(.*)$", "ax", b"<>"),
            ("(()|a)(.*)$", "ax", b"<>"),
            ("(|a*)(.*)$", "aax", b"<aa>"),
        ):
            table = inline("regexp", f"/{pattern}/ <$1>")
            self.assertEqual(table.lookup(key.encode()), value, pattern)

    def test_reference_to_another_branch(self) -> None:
        """A back-reference is to a group that is complete where it stands."""
        for pattern in ("(a)|\\1b", "((a)|\\2b)", "((a)\\2|(b)\\2)", "(a\\1)"):
            error = self.assertRaises(ConfigError, inline, "regexp", f"/{pattern}/ y")
            self.assertIn("Invalid back reference", str(error))
        for pattern in ("(a)(b|\\1)", "((a)|b)\\2", "((a)|(b)|c)\\2", "(c)|(b)|(a)\\3"):
            self.assertEqual(inline("regexp", f"/{pattern}/ y").lookup(b"aa"), b"y", pattern)

    def test_extensions(self) -> None:
        """Those of the C library: edges of words, and back-references, which PCRE2 matches."""
        table = inline("regexp", "/\\<one\\>/ word", "/^(..)\\1$/ twice $1", "/\\<-|x\\>/ edge")
        for key, value in (
            (b"a one b", b"word"),
            (b"ones", None),
            (b"abab", b"twice ab"),
            (b"abac", None),
            (b"abx", b"edge"),
        ):
            self.assertEqual(table.lookup(key), value, key)

    def test_backtracking(self) -> None:
        """Patterns that take other engines for ever."""
        key = b"a" * 50_000 + b"b"
        table = inline("regexp", "/^(a+)+$/ x", "/^(a|aa)+$/ y", "/(.*)(.*)(.*)(.*)(.*)[0-9]/ $1")
        self.assertIsNone(table.lookup(key))

    def test_too_large(self) -> None:
        """A repetition that RE2 does not take is refused; a long one is taken."""
        error = self.assertRaises(ConfigError, inline, "regexp", "/(a{200}){200}/ x")
        self.assertIn("invalid repetition size", str(error))
        table = inline("regexp", "/^.{1500}$/ exactly", "/^.{2001,}/ more", "/^.{1700,1800}$/ between")
        for length, value in (
            (1500, b"exactly"),
            (2000, None),
            (2001, b"more"),
            (1699, None),
            (1750, b"between"),
        ):
            self.assertEqual(table.lookup(b"x" * length), value, length)
        self.assertRaises(TooLarge, repeated, b"(a)", 2000, None)

    @given(
        st.lists(
            st.sampled_from(POSIX_PARTS),
            max_size=7,
        ),
        st.text("aabbAB_-. \n1d+D\xe9", max_size=8),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    )
    @example(["a", "b"], "xaB", True, True, False)
    def test_like_the_c_library(
        self, parts: list[str], key: str, extended: bool, fold: bool, newline: bool
    ) -> None:
        """Where regcomp(3) takes an expression, so do we, and find the same, and in a block as well."""
        pattern, text = "".join(parts).encode(), key.encode("latin-1")
        # The C library lets ^ and $ match at newlines that are in the midst of a match.
        assume(newline or b"\n" not in text or not set(pattern) & set(b"^$"))
        expected = regexec(pattern, text, extended, fold, newline)
        try:
            expression = parse(pattern, Syntax(extended, fold, newline))
        except PatternError:
            # After an edge of a word a basic expression means something that nobody knows.
            self.assertTrue(expected == "error" or not extended, pattern)
            return
        self.assertNotEqual(expected, "error", pattern)
        if not expression.beyond:
            found = compiled(expression.text).search(text)
            self.assertEqual(found and found.span(), expected, pattern)
        if expected is not None:
            prefilter = Prefilter([expression.block])
            self.assertTrue(prefilter.may_match_key(text), pattern)
            # No block has a key that ends in a newline.
            block = b"before\n" + text.rstrip(b"\n").replace(b"\n", FOLD) + b"\nafter"
            self.assertTrue(prefilter.may_match(block) or text.endswith(b"\n"), pattern)


def regexec(pattern: bytes, text: bytes, extended: bool, fold: bool, newline: bool) -> object:
    """
    @return: what the C library finds: a span, L{None}, or C{"error"}.
    """
    library = ctypes.CDLL(None)
    compiled_pattern = ctypes.create_string_buffer(512)
    flags = extended * 1 | fold * 2 | newline * 4
    library.setlocale.restype = ctypes.c_char_p
    before = library.setlocale(6, None)
    library.setlocale(6, b"C")
    try:
        if library.regcomp(compiled_pattern, pattern, flags):
            return "error"
        match = (ctypes.c_int * 2)()
        missed = library.regexec(compiled_pattern, text, 1, match, 0)
        library.regfree(compiled_pattern)
        return None if missed else (match[0], match[1])
    finally:
        library.setlocale(6, before)


class PcreTests(SynchronousTestCase):
    """What C{pcre:} has for itself."""

    def test_perl(self) -> None:
        """What only Perl's expressions have."""
        for rule, key, value in (
            (
                "/^(?!owner-)(.*)-outgoing@(.*)/ 550 Use $(1)@$(2) instead",
                b"l-outgoing@x",
                b"550 Use l@x instead",
            ),
            ("/^(?!owner-)(.*)-outgoing@(.*)/ 550", b"owner-l-outgoing@x", None),
            ("/(a+?)(a*)/ $1", b"aaa", b"a"),
            ("/(?<=x)y/ x", b"xy", b"x"),
            ("/(a)\\1/ x", b"aa", b"x"),
            ("/\\d+\\x41\\x2/ x", b"12a\x02", b"x"),
            ("/\\Q$1.\\E/ x", b"$1.", b"x"),
            ("/(?<n>b)/ $1", b"b", b"b"),
            ("/^(?>a+)ab/ x", b"aaab", None),
        ):
            self.assertEqual(inline("pcre", rule).lookup(key), value, rule)
        path = Path(self.mktemp()).absolute()
        path.write_text("/^\\x{41}{2}$/i x\n")
        self.assertEqual(open_table(f"pcre:{path}", "p").lookup(b"AA"), b"x")

    def test_flags(self) -> None:
        """Each flag changes what is found."""
        for rule, key, value in (
            ("/a b #c/x x", b"ab", b"x"),
            ("/b/ x", b"ab", b"x"),
            ("/b/A x", b"ab", None),
            ("/a$/ x", b"a\n", b"x"),
            ("/a$/E x", b"a\n", None),
            ("/(a+)/ $1", b"aaa", b"aaa"),
            ("/(a+)/U $1", b"aaa", b"a"),
            ("/a/i x", b"A", None),
            ("/a.b/s x", b"a\nb", None),
            ("/a/X x", b"a", b"x"),
        ):
            self.assertEqual(inline("pcre", rule).lookup(key), value, rule)

    def test_escapes_that_mean_nothing(self) -> None:
        """They are refused, as by PCRE2 itself."""
        for rule in ("/a\\u0041/ x", "/a\\Ub/ x", "/\\x{100}/ x", "/a\\q/ x"):
            self.assertRaises(ConfigError, inline, "pcre", rule)

    def test_hexadecimal(self) -> None:
        """What is in the braces of C{\\x{}} is a number; elsewhere C{\\x} takes the digits that there are."""
        for pattern in (
            "\\x{,}|a",
            "\\x{",
            "\\x{ }",
            "\\x{41 }",
            "\\x{ 41}",
            "\\x{0,}",
            "\\x{}",
            "[\\x{,}a]",
            "\\x{41",
        ):
            path = Path(self.mktemp()).absolute()
            path.write_text(f"/{pattern}/ y\n")
            error = str(self.assertRaises(ConfigError, open_table, f"pcre:{path}", "p"))
            self.assertIn("\\x{}", error)
            self.assertIsNone(loosened(pattern.encode(), Flags()))
        for pattern, key in (
            ("\\x{041}", "A"),
            ("\\x{00000041}", "a"),
            ("\\x4", "\x04"),
            ("\\xg", "\0G"),
            ("\\x", "\0"),
        ):
            table = inline("pcre", f"/{pattern}/ y")
            self.assertEqual([table.lookup(each.encode()) for each in (key, "x")], [b"y", None], pattern)

    def test_limit(self) -> None:
        """A search that takes too long fails, and names table, line and parameter; the limit can be set."""
        rules = ["/fine/ x", "/^(a+)+(?=c)/ y"]
        table = inline("pcre", *rules)
        error = str(self.assertRaises(TableError, table.lookup, b"a" * 40 + b"b"))
        self.assertIn("line 2: match limit exceeded", error)
        self.assertIn("pattern_match_limit", error)
        self.assertEqual(table.lookup(b"aac"), b"y")
        text = "pcre:{ " + " ".join(f"{{{rule}}}" for rule in rules) + " }"
        tables = Tables(setting=config_from_text("pattern_match_limit = 1000").string)
        self.assertRaises(TableError, tables.open(text, "p").lookup, b"a" * 10 + b"b")
        self.assertIsNone(table.lookup(b"a" * 10 + b"b"))

    def test_limit_of_a_long_key(self) -> None:
        """The limit is one for the whole key: not for each place where the pattern might begin."""
        table = inline("pcre", "/(a+)+(?=c)/ y")
        self.assertIsNone(table.lookup(b"c" + b"a" * 12 + b"b"))
        error = str(self.assertRaises(TableError, table.lookup, b"c" + (b"a" * 12 + b"b") * 5000))
        self.assertIn("match limit exceeded", error)

    def test_whatever_is_in_it(self) -> None:
        """What looks like a verb, verbs that mean the same anywhere, and comments do not matter."""
        key = b"To: " + b", ".join([b"someone@bad.example.org"] * 500)
        for rule in (
            "/^To:.*[(*]?@bad\\.example(?!\\.org)/",
            "/^To:(?:^|,\\s*)\\(*.*@bad\\.example(?!\\.org)/",
            "/(*ANYCRLF)(*NO_AUTO_POSSESS)^To:.*@bad\\.example(?!\\.org)/",
            "/(?x) ^To: .* @bad\\.example (?!\\.org) # ours/",
            "/^To:.*\\Q@bad.example\\E(?!\\.org)\\Q(*/",
        ):
            table = inline("pcre", rule + " y")
            self.assertIsNone(table.lookup(key), rule)
        self.assertEqual(inline("pcre", "/(*CRLF)^a.b[(*]/ y").lookup(b"a\nb*"), b"y")

    def test_verbs(self) -> None:
        """A verb that is about the whole pattern still is; the log does not advise what would not help."""
        self.assertIsNone(inline("pcre", "/a+(*COMMIT)b/ y").lookup(b"aac aab"))
        table = inline("pcre", "/(*PRUNE)^(a+)+(?=c)/ y")
        error = str(self.assertRaises(TableError, table.lookup, b"a" * 40 + b"b"))
        self.assertIn("without verbs", error)

    def test_extended_no_more(self) -> None:
        """A pattern that turns its own flag off has no white space at its end."""
        for rule in ("/(?-x)foo/x y", "/(?^)foo/x y"):
            self.assertEqual(inline("pcre", rule).lookup(b"a foo"), b"y", rule)

    def test_time_limit(self) -> None:
        """
        Keys that each stay below the limit, and together take too much time, fail; other keys do not. Later
        there is time again.
        """
        moments = iter(range(1_000_000))
        ahead = [0.0]

        def now() -> float:
            # Any two readings are 0.3 seconds apart.
            return ahead[0] + 0.3 * next(moments)

        setting = config_from_text("pattern_time_limit = 2s").string
        context = TableContext("header_checks", lambda text: None, None, lambda call: None, setting, now=now)
        table = PcreType().open("{ {/fine/ x} {/^(a+)+(?=c)/ y} }", context)
        hostile = b"a" * 16 + b"bc"
        done = 0
        with self.assertRaises(TableError) as caught:
            for _ in range(10_000):
                self.assertIsNone(table.lookup(hostile))
                done += 1
        self.assertTrue(5 <= done <= 10, done)
        error = str(caught.exception)
        self.assertIn("pcre:{ {/fine/ x} {/^(a+)+(?=c)/ y} }, line 2: ", error)
        self.assertIn("more than 2 seconds", error)
        self.assertIn("raise pattern_time_limit", error)
        self.assertEqual(table.lookup(b"fine"), b"x")
        self.assertEqual(table.lookup(b"aac"), b"y")
        self.assertIsNone(table.lookup(b"other"))
        ahead[0] += 20
        self.assertIsNone(table.lookup(hostile))

    def test_time_limit_after_a_pause(self) -> None:
        """A search that the machine has slept in is not held against others for long."""
        clock = Clock()
        budget = Budget(1.0, clock.seconds)
        self.assertTrue(budget.begin())
        clock.advance(3600)
        budget.end()
        self.assertFalse(budget.begin())
        clock.advance(11)
        self.assertTrue(budget.begin())

    def test_time_of_quick_searches(self) -> None:
        """They are not counted, and do not look at the clock."""
        clock = iter([0.0])
        context = TableContext(
            "p",
            lambda text: None,
            None,
            lambda call: None,
            config_from_text("").string,
            now=lambda: next(clock),
        )
        table = PcreType().open("{ {/^(\\w+) \\1$/ $1} }", context)
        for _ in range(100):
            self.assertEqual(table.lookup(b"hello hello"), b"hello")
            self.assertIsNone(table.lookup(b"hello you"))

    @given(
        st.lists(st.sampled_from(PERL_PARTS), max_size=8),
        st.text("aAb.\n_ ", max_size=6),
        st.sets(st.sampled_from("ismxAEU")),
    )
    @example(["\\Q", "a"], "ba", set())
    @example(["a", "#", "b"], "ba", {"x"})
    @example(["(?x)", "a", "#", "b"], "ba", set())
    @example([".*", "(a)", "|", "(b)"], "b", set())
    @example([".*", "(a)"], "\na\na", {"s"})
    @example(["(a)", "(?R)?"], "aa", set())
    @example(["(*COMMIT)", "(a)"], "ba", set())
    @example(["(b)", "(*PRUNE)", "a|(a)"], "ba", set())
    @example(["(.+)", "\\1"], "aab", {"U"})
    @example(["^", "(.)"], "a\nb", {"m"})
    def test_as_pcre2(self, parts: list[str], key: str, flags: set[str]) -> None:
        """A table finds what PCRE2 finds, at the same place."""
        pattern, text = "".join(parts), key.encode("latin-1")
        bits = {"i": 0x8, "m": 0x400, "s": 0x20, "x": 0x80, "E": 0x10, "U": 0x40000}
        options = sum(bit for flag, bit in bits.items() if (flag in flags) != (flag in "is"))
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            raw = pcre2.compile(pattern.encode("latin-1"), options)
        except pcre2.PatternError:
            return
        found = (raw.match if "A" in flags else raw.search)(text)
        groups = range(1, raw.groups + 1)
        result = "=" + "".join(f"<${{{number}}}>" for number in groups)
        path.write_text(f"~{pattern}~{''.join(sorted(flags))} {result}\n")
        try:
            table = open_table(f"pcre:{path}", "p")
        except ConfigError:
            assume(False)
        expected = None
        if found is not None:
            expected = b"=" + b"".join(b"<%s>" % (found.group(number) or b"") for number in groups)
        self.assertEqual(table.lookup(text), expected, pattern)

    def test_not_installed(self) -> None:
        """Without PCRE2, the error names the extra; C{regexp:} tables open as ever."""
        program = (
            "import sys; sys.modules['pcre2'] = None\n"
            "from qmqpd_tx.tables import open_table\n"
            "print(open_table('regexp:{ {/a/ x} }', 'p').lookup(b'a'))\n"
            "open_table('pcre:{ {/a/ x} }', 'body_checks')\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=root
        )
        self.assertEqual(done.stdout, "b'x'\n")
        self.assertIn("ConfigError: body_checks: pcre:{ {/a/ x} }, line 1: ", done.stderr)
        self.assertIn("pip install 'qmqpd_tx[pcre]'", done.stderr)

    def test_limit_is_not_reached(self) -> None:
        """Where RE2 can tell that nothing matches, it takes no time."""
        self.assertIsNone(inline("pcre", "/^(a+)+$/ y", "/b/i b").lookup(b"a" * 40 + b"c"))
        self.assertEqual(inline("pcre", "/^(a+)+$/ y", "/b/i b").lookup(b"a" * 40 + b"b"), b"b")

    def test_long_key(self) -> None:
        """A key for which the fast engine has no room is searched by the slow one."""
        table = inline("pcre", "/^(?:a|(b))*c/ ${1}x")
        self.assertEqual(table.lookup(b"a" * 20_000 + b"bc"), b"bx")


BLOCK = b"Received: by x\nSubject: hello\v there\nTo: you\n"
"""As of a header section in which the second of three headers is folded."""


class MayMatchTests(SynchronousTestCase):
    """One pass over many lines."""

    def test_interface(self) -> None:
        """Tables of patterns provide it, others do not."""
        for kind in BOTH:
            verifyObject(IPatternTable, inline(kind, "/x/ y"))
        self.assertFalse(IPatternTable.providedBy(open_table("static:x", "p")))

    def test_block(self) -> None:
        """Each key counts as it would alone, and nothing that goes from one into the next."""
        for kind in BOTH:
            for pattern, expected in (
                ("/^Subject:/", True),
                ("/^subject: hello\n there$/".replace("\n", "."), True),
                ("/there$/", True),
                ("/^To: you$/", True),
                ("/^hello/", False),
                ("/x$/", True),
                ("/^Cc:/", False),
                ("/hello$/", False),
                ("/hello..there$/", True),
                ("/hello[^a-z]+there/", True),
                ("/hello[[:space:]]there/", False),
                ("/hello[[:space:]]{2}there/", True),
                ("/^there/", False),
                ("/^.there/", False),
                ("/x.Subject/", False),
                ("/x[^a-z]Subject/", False),
                ("/^Received:.*you/", False),
                ("/^Received:.*there/", False),
                ("/nothing/", False),
            ):
                for rules in (
                    [f"{pattern} x"],
                    ["/q{5}/ x", f"{pattern} x"],
                    [f"if {pattern}", "/e/ x", "endif"],
                ):
                    found = inline(kind, *rules).may_match(BLOCK)
                    self.assertEqual(found, expected or len(rules) == 3, (kind, rules))

    def test_unsure(self) -> None:
        """A negated pattern may match anything, unless it is under a condition."""
        for kind in BOTH:
            self.assertTrue(inline(kind, "/q{5}/ x", "!/y/ z").may_match(BLOCK))
            self.assertTrue(inline(kind, "if !/q/", "!/y/ z", "endif").may_match(BLOCK))
            self.assertFalse(inline(kind, "if !/q/", "/qq/ z", "endif").may_match(BLOCK))
            self.assertFalse(inline(kind, "if /qq/", "!/y/ z", "endif").may_match(BLOCK))
            self.assertTrue(inline(kind, "if /you/", "!/y/ z", "endif").may_match(BLOCK))
        self.assertTrue(inline("pcre", "/q(?R)?x/ y").may_match(BLOCK))
        self.assertTrue(inline("pcre", "/\\p'L'/ y".replace("'L'", "L")).may_match(BLOCK))

    def test_perl(self) -> None:
        """What is looked ahead for is passed over; the rest still tells."""
        table = inline("pcre", "/^Subject:(?!.*ok).*win/ REJECT", "/^(?i)X-\\QSpam.\\E/i y")
        self.assertFalse(table.may_match(b"To: x\nFrom: y\n"))
        self.assertTrue(table.may_match(b"To: x\nSubject: ok, you win\n"))
        self.assertTrue(table.may_match(b"x-spam."))

    @given(
        st.lists(
            st.sampled_from(PERL_PARTS),
            max_size=8,
        ),
        st.text("aabbAB. \n\v\xe9\r#", max_size=8),
        st.sets(st.sampled_from("ismx")),
    )
    @example(["^", "a", "$"], "b\na\nb", {"m"})
    @example(["a", "\\n", "b"], "a\nb", set())
    def test_never_misses(self, parts: list[str], key: str, flags: set[str]) -> None:
        """Whatever a table finds in a key, the pass over a block that has this key finds."""
        pattern, text = "".join(parts), key.encode("latin-1")
        rule = f"~{pattern}~{''.join(sorted(flags))} found\n"
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rule)
        try:
            table = open_table(f"pcre:{path}", "p")
        except ConfigError:
            return
        # A negated pattern may match anything, so nothing is passed over.
        path.write_text(rule + "!/zzzz/ missed\n")
        found = open_table(f"pcre:{path}", "p").lookup(text) == b"found"
        self.assertEqual(table.lookup(text), b"found" if found else None, pattern)
        if found and not text.endswith(b"\n"):
            folded = text.replace(b"\n", FOLD)
            self.assertTrue(table.may_match(b"one\n" + folded + b"\ntwo\n"), pattern)
            self.assertTrue(table.may_match(folded), pattern)

    def test_many_rules(self) -> None:
        """A thousand rules."""
        table = inline("regexp", *(f"/^X-Spam-{number}: .*bad.*word/ v{number}" for number in range(1000)))
        self.assertFalse(table.may_match(BLOCK * 100))
        self.assertTrue(table.may_match(BLOCK * 100 + b"X-Spam-777: bad word"))
        self.assertEqual(table.lookup(b"X-SPAM-999: very bad, this word"), b"v999")
        self.assertIsNone(table.lookup(b"X-SPAM-1000: very bad, this word"))

    def test_loosened(self) -> None:
        """What is not known is not guessed."""
        for pattern in (
            b"(?R)",
            b"(?(1)a|b)",
            b"(*UTF)a",
            b"\\p{L}",
            b"\\12",
            b"[[.a.]]",
            b"a{,3}",
            b"(",
            b"[",
        ):
            self.assertIsNone(loosened(pattern, Flags()), pattern)
