"""C{$name} expressions."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config.expression import ExpressionError, expand, references

VALUES: Mapping[str, str] = {
    "a": "1",
    "b": "two words",
    "nested": "<$a>",
    "blank": "$nope",
    "empty": "",
    "dollar": "$$x",
    "compatibility_level": "3.6",
}


class ExpandTests(SynchronousTestCase):
    """L{expand}."""

    def assertExpands(self, cases: Mapping[str, str]) -> None:
        """
        Each text expands to what is beside it.
        """
        for text, expected in cases.items():
            self.assertEqual(expand(text, VALUES.get), expected, text)

    def test_names(self) -> None:
        """
        The three ways to refer to a name, and the dollar sign itself.
        """
        self.assertExpands(
            {
                "no reference": "no reference",
                "$a ${a} $(a) ${ a }": "1 1 1 1",
                "$a.$b,$a/$a-": "1.two words,1/1-",
                "$nested$nested": "<1><1>",
                "$nope|": "|",
                "$$a $$$a": "$a $1",
                "$dollar": "$x",
            }
        )

    def test_conditions(self) -> None:
        """
        C{?} and C{:} look at the raw value; braces group, and white space around them does not count.
        """
        self.assertExpands(
            {
                "${a?yes}|${nope?yes}|${empty?yes}": "yes||",
                "${a:no}|${nope:no}|${empty:no}": "|no|no",
                "${blank?set}|$blank|": "set||",
                "${a?{yes}:{no}} ${nope?{yes}:{no}}": "yes no",
                "${nope ? {yes} : {no} }": "no",
                "${nope?{x}:y z}": "y z",
                "${a?$a:$a}": "1:1",
                "${a? x }|${a?{ x }}|": " x | x |",
                "${a?{${nope:{$$x}}}}": "$x",
                "${a?{x{y}z}}": "x{y}z",
                "$(a?yes)": "yes",
                "${a?}|${nope:}": "|",
            }
        )

    def test_comparisons(self) -> None:
        """
        Numbers compare as numbers, anything else as text.
        """
        self.assertExpands(
            {
                "${{10} > {9} ? {number} : {text}}": "number",
                "${{a10} > {a9} ? {number} : {text}}": "text",
                "${{010} == {10} ? {same} : {other}}": "same",
                "${{5} < {4a} ? {less} : {more}}": "more",
                "${{a}==  {a}}|${{a} == {b}}|": "true||",
                "${{a}!={b}?{c}}|${{a}!={b}:{c}}": "c|",
                "${{2} <= {2} ? {y}}${{2} >= {2} ? {y}}${{2} < {2} ? {y}}${{3} > {2} ? {y}}": "yyy",
                "${{$a} == {1} ? {$b} : {n}}": "two words",
                "${{ a } == {a} ? {same} : {other}}": "other",
                "${{" + "9" * 5000 + "} > {1} ? {y} : {n}}": "y",
            }
        )

    def test_levels(self) -> None:
        """
        Compatibility levels compare part by part.
        """
        self.assertExpands(
            {
                "${{3.10} >level {3.9} ? {y} : {n}}": "y",
                "${{3.10} > {3.9} ? {y} : {n}}": "n",
                "${{$compatibility_level} <level {1} ? {y} : {n}}": "n",
                "${{1} <=level {1.0.0} ? {y} : {n}}": "y",
            }
        )

    def test_malformed(self) -> None:
        """
        What makes no sense is refused, with the reason.
        """
        for text, reason in {
            "$": "no name",
            "a $-x": "no name",
            "${}": "no name",
            "${a": "not closed",
            "$(a}": "not closed",
            "${a.b}": "letters, digits and _",
            "${a b}": "expected",
            "${{a}}": "expected",
            "${{a} = {b} ? {c}}": "expected",
            "${{a} == b ? {c}}": "expected after",
            "${a?{b} {c}}": '":" expected',
            "${a?{b}:{c} d}": "unexpected",
            "${{x} <level {1} ? {y}}": "compatibility level",
        }.items():
            error = self.assertRaises(ExpressionError, expand, text, VALUES.get)
            self.assertIn(reason, str(error), text)

    def test_untakenBranch(self) -> None:
        """
        A branch that is not taken is not looked into.
        """
        loop = {"x": "$x", "a": "1"}
        self.assertEqual(expand("${a:$x}${nope?$x}${{1} == {2} ? {$x}}", loop.get), "")

    def test_selfReference(self) -> None:
        """
        A value that refers to itself is refused, and the loop is told.
        """
        error = self.assertRaises(ExpressionError, expand, "$x", {"x": "$y", "y": "a${x}"}.get)
        self.assertIn("x -> y -> x", str(error))

    def test_explosion(self) -> None:
        """
        Values that double at each level end with an error, in bounded time.
        """
        for seed in ("x", ""):
            values = {f"v{n}": f"$v{n - 1}$v{n - 1}" for n in range(1, 45)}
            values["v0"] = seed
            error = self.assertRaises(ExpressionError, expand, "$v44", values.get)
            self.assertIn("longer", str(error))

    def test_references(self) -> None:
        """
        Names are found in every branch, but not behind a doubled dollar sign.
        """
        self.assertEqual(
            references("$a ${b?$c:{$d}} $(e) ${{$f} == {1}} $$g $${h}"), {"a", "b", "c", "d", "e", "f"}
        )

    @settings(max_examples=300)
    @given(
        text=st.text(st.sampled_from("$${}(){}ab?:=<>! 1.\nlevel"), max_size=60),
        a=st.text(st.sampled_from("$${}()ab?:= 1"), max_size=30),
        b=st.text(st.sampled_from("$${}()ab?:= 1"), max_size=30),
    )
    def test_ends(self, text: str, a: str, b: str) -> None:
        """
        Whatever the text, expansion ends with a text or an L{ExpressionError}.
        """
        try:
            self.assertIsInstance(expand(text, {"a": a, "b": b}.get), str)
        except ExpressionError as error:
            self.assertNotEqual(str(error), "")
