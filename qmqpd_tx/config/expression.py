"""
C{$name} expressions in parameter values.

Takes a text and a way to look up raw values, gives the text with all references replaced. Forms:
C{$name ${name} $(name) ${name?text} ${name:text} ${name?{a}:{b}} ${{a} == {b} ? {c} : {d}} $$}, with
the operators C{== != < <= > >=}, and each of them with C{level} appended for compatibility levels.
An undefined name is an empty text. Only the branch that is taken is looked into. What follows C{?} or
C{:} is chosen by whether the I{raw} value is empty, as Postfix does it.

Pure. A malformed expression, a value that refers to itself, or one that grows without bound raises
L{ExpressionError}, never anything else, and expansion always ends.

Answers to: postconf(5), "a parameter value may refer to other parameters".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from qmqpd_tx.config.lines import WHITE
from qmqpd_tx.config.main_cf import shown

Lookup = Callable[[str], str | None]
"""Gives the raw value of a name, or L{None} when there is no such name."""

MAXIMUM_NESTING = 50
MAXIMUM_LENGTH = 250_000

_NAME = re.compile(r"[A-Za-z0-9_]+")
_RELATION = re.compile(r"(==|!=|<=|>=|<|>)(level)?")
_NUMBER = re.compile(r"[0-9]+\Z")
_LEVEL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}\Z")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CLOSING = {"{": "}", "(": ")"}


class ExpressionError(ValueError):
    """An expression that cannot be expanded; the text says what is wrong, and where in it."""


def expand(text: str, lookup: Lookup) -> str:
    """
    @param text: a parameter value.
    @param lookup: gives raw values.
    @return: the text with every expression replaced.
    @raise ExpressionError: it cannot be done.
    """
    if "$" not in text:
        return text
    return _Expansion(lookup).text(text)


def references(text: str) -> set[str]:
    """
    @return: the names that a value mentions, taken branch or not, as far as it can be understood; for
        telling which user-defined names are in use.
    """
    return set(re.findall(r"\$(?:[{(]\s*)?([A-Za-z0-9_]+)", text.replace("$$", "")))


class _Expansion:
    """
    One expansion.

    @ivar active: the names being expanded, outermost first, to find a value that refers to itself.
    @ivar budget: how many more characters may be produced; values that double at each of many levels
        end here.
    """

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.active: list[str] = []
        self.nesting = 0
        self.budget = MAXIMUM_LENGTH

    def text(self, text: str) -> str:
        """Replace every expression in a text."""
        at = text.find("$")
        if at < 0:
            return self.spend(text)
        self.nesting += 1
        if self.nesting > MAXIMUM_NESTING:
            raise ExpressionError(f"expressions are nested more than {MAXIMUM_NESTING} deep")
        done: list[str] = []
        position = 0
        while at >= 0:
            done.append(self.spend(text[position:at]))
            after = text[at + 1 : at + 2]
            if after == "$":
                done.append("$")
                position = at + 2
            elif after in _CLOSING:
                end = _balanced(text, at + 1)
                done.append(self.braced(text[at + 2 : end - 1]))
                position = end
            else:
                name = _NAME.match(text, at + 1)
                if name is None:
                    raise ExpressionError(f'no name after "$" in "{shown(text)}": write $$ for a dollar sign')
                done.append(self.named(name.group()))
                position = name.end()
            at = text.find("$", position)
        done.append(self.spend(text[position:]))
        self.nesting -= 1
        return "".join(done)

    def spend(self, text: str) -> str:
        """Count what is produced (and every step, so that empty values end too)."""
        self.budget -= len(text) + 1
        if self.budget < 0:
            raise ExpressionError(f"the expanded value is longer than {MAXIMUM_LENGTH} characters")
        return text

    def named(self, name: str) -> str:
        """The expanded value of a name."""
        value = self.lookup(name)
        if value is None:
            return self.spend("")
        if name in self.active:
            loop = " -> ".join([*self.active[self.active.index(name) :], name])
            raise ExpressionError(f"the value refers to itself: {shown(loop, 200)}")
        self.active.append(name)
        result = self.text(value)
        self.active.pop()
        return result

    def braced(self, inner: str) -> str:
        """The value of what stands between C{${} and C{}}."""
        position = _skip(inner, 0)
        if inner[position : position + 1] == "{":
            truth, position = self.relation(inner, position)
            position = _skip(inner, position)
            if position == len(inner):
                return "true" if truth else ""
            plain = None
        else:
            name = _NAME.match(inner, position)
            if name is None:
                raise ExpressionError(f'no name in "${{{shown(inner)}}}"')
            plain = name.group()
            position = _skip(inner, name.end())
            if position == len(inner):
                return self.named(plain)
            truth = bool(self.lookup(plain))
        return self.choice(inner, position, truth)

    def choice(self, inner: str, position: int, truth: bool) -> str:
        """C{?text}, C{:text} or C{?{a}:{b}}."""
        mark = inner[position]
        if mark == ":":
            other, position = _operand(inner, position + 1)
            chosen = "" if truth else other
        elif mark == "?":
            chosen, position = _operand(inner, position + 1)
            position = _skip(inner, position)
            other = ""
            if position < len(inner):
                if inner[position] != ":":
                    raise ExpressionError(f'":" expected before "{shown(inner[position:])}"')
                other, position = _operand(inner, position + 1)
            chosen = chosen if truth else other
        else:
            raise ExpressionError(
                f'"?" or ":" or "}}" expected before "{shown(inner[position:])}" in "${{{shown(inner)}}}": '
                "a name has letters, digits and _ only"
            )
        if _skip(inner, position) < len(inner):
            raise ExpressionError(f'unexpected text "{shown(inner[position:])}" in "${{{shown(inner)}}}"')
        return self.text(chosen)

    def relation(self, inner: str, position: int) -> tuple[bool, int]:
        """C{{a} == {b}}, and where it ends."""
        left, position = self.side(inner, position)
        relation = _RELATION.match(inner, position)
        if relation is None:
            raise ExpressionError(
                f'"==" or "!=" or "<" or "<=" or ">=" or ">" expected in "${{{shown(inner)}}}"'
            )
        position = _skip(inner, relation.end())
        if inner[position : position + 1] != "{":
            raise ExpressionError(f'"{{value}}" expected after "{relation.group()}" in "${{{shown(inner)}}}"')
        right, position = self.side(inner, position)
        compare = _COMPARE[relation.group(1)]
        if relation.group(2):
            return compare(level(left), level(right)), position
        if _NUMBER.match(left) and _NUMBER.match(right):
            return compare(_digits(left), _digits(right)), position
        return compare(left, right), position

    def side(self, inner: str, position: int) -> tuple[str, int]:
        """One expanded side of a comparison, and where what follows it starts."""
        end = _balanced(inner, position)
        return self.text(inner[position + 1 : end - 1]), _skip(inner, end)


def level(text: str) -> tuple[int, int, int]:
    """
    @param text: a compatibility level, as in C{3.6}.
    @return: its major, minor and patch numbers.
    @raise ExpressionError: it is not one.
    """
    if not _LEVEL.match(text):
        raise ExpressionError(
            f'malformed compatibility level "{shown(text)}": write it as in 2, 3.6 or 3.6.1'
        )
    major, minor, patch, *_ = (*map(int, text.split(".")), 0, 0)
    return major, minor, patch


def _digits(text: str) -> tuple[int, str]:
    """A key that orders texts of digits as numbers; int() refuses very long ones."""
    significant = text.lstrip("0")
    return len(significant), significant


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in WHITE:
        position += 1
    return position


def _balanced(text: str, start: int) -> int:
    """The position after the bracket that closes the one at C{start}."""
    opening = text[start]
    closing = _CLOSING[opening]
    depth = 0
    for bracket in re.compile(f"[{re.escape(opening + closing)}]").finditer(text, start):
        depth += 1 if bracket.group() == opening else -1
        if depth == 0:
            return bracket.end()
    raise ExpressionError(f'"{opening}" is not closed with "{closing}" in "{shown(text[start:])}"')


def _operand(inner: str, position: int) -> tuple[str, int]:
    """What follows C{?} or C{:}, in braces or all the rest, and where it ends."""
    brace = _skip(inner, position)
    if inner[brace : brace + 1] == "{":
        end = _balanced(inner, brace)
        return inner[brace + 1 : end - 1], end
    return inner[position:], len(inner)
