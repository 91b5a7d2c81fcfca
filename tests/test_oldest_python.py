"""
What the oldest Python that is supported gets wrong is not used.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).resolve().parent.parent / "qmqpd_tx"

DEFAULTS = "known.py"
"""A list of Postfix's parameters and their defaults, which are no regular expressions."""

ATOMIC_GROUP = re.compile(r"\(\?>|\)(?:[*+?]|\{[0-9]*,?[0-9]*\})\+")
"""
An atomic group, or a group with a possessive quantifier. Before Python 3.11.5 C{re} goes on from a wrong
place when the group fails in its middle (python/cpython issues 100061 and 106052), as with C{(?:[.]a)*+} and
C{.a.}. A single character or set may be possessive.
"""


def patterns(path: Path) -> Iterator[tuple[int, str]]:
    """
    @return: line number and text of each string of a module that may be a regular expression.
    """
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str):
                yield node.lineno, text


class OldestPythonTests(SynchronousTestCase):
    """Regular expressions."""

    def test_found(self) -> None:
        """The expression that looks for them finds them."""
        for text in ("(?>a|b)", "(?:ab)*+", "(a)++", "(a)?+", "(a){2,3}+"):
            self.assertTrue(ATOMIC_GROUP.search(text), text)
        for text in ("[ab]*+", "a++", "(?:ab)+", "(a)*?", "(a)?b+"):
            self.assertFalse(ATOMIC_GROUP.search(text), text)

    def test_no_atomic_groups(self) -> None:
        """There are none."""
        found = [
            f"{path.relative_to(PACKAGE.parent)}:{line}: {text}"
            for path in sorted(PACKAGE.rglob("*.py"))
            if path.name != DEFAULTS
            for line, text in patterns(path)
            if ATOMIC_GROUP.search(text)
        ]
        self.assertEqual(found, [])
