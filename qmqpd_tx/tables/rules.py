"""
The text of a table of rules: C{cidr:}, C{regexp:} and C{pcre:} are read alike.

Takes the name of a table, a file or C{{ {rule} {rule} }}, gives its logical lines, and from the lines that a
kind of table has understood a L{Program} that finds the first rule which applies. C{if} and C{endif} nest.
Also the results of rules: C{$1}, C{${1}}, C{$(1)} and C{$$}.

Where Postfix warns and goes on without the rule, here the table is not opened: L{RuleError} becomes a
L{ConfigError} that names table, line and what is wrong. Answers to Postfix's cidr_table(5), regexp_table(5)
and pcre_table(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.tables.interface import TableContext
from qmqpd_tx.tables.wording import printable
from qmqpd_tx.tables.words import encode, logical_lines, read_file, split_words, unbrace

_WORD = re.compile(rb"(if|endif)(?![0-9A-Za-z])", re.IGNORECASE)
_REFERENCE = re.compile(rb"\$(?:(\$)|\{([^}]*)\}|\(([^)]*)\)|([0-9A-Za-z_]+)|)")

Groups = Any
"""What a match gives: C{group(number)} is L{bytes} or L{None}."""


class RuleError(Exception):
    """A line that makes no sense; the text says why."""


@frozen(slots=True)
class Line:
    """
    A logical line.

    @ivar number: where it begins, from 1.
    @ivar keyword: C{if}, C{endif} or nothing.
    @ivar text: the rest, without the surrounding white space.
    """

    number: int
    keyword: str
    text: bytes


@frozen(slots=True)
class RuleText:
    """
    The text of a table.

    @ivar name: C{type:name}, for messages.
    @ivar sources: the file, if it is one.
    @ivar lines: what it consists of.
    """

    name: str
    sources: Sequence[str]
    lines: Sequence[Line]


def read_rules(kind: str, name: str, context: TableContext) -> RuleText:
    """
    @param kind: the type of table, for messages.
    @param name: what comes after the colon.
    @raise ConfigError: it cannot be read, or a line begins with white space where there is nothing to
        continue.
    """
    shown = f"{kind}:{name}"
    if name.startswith("{"):
        data = b"\n".join(_inline_rules(name, shown, context.parameter))
        sources: Sequence[str] = ()
    elif name.startswith("/"):
        context.watch(name)
        data, sources = read_file(name, context.parameter), (name,)
    else:
        raise ConfigError(f"{context.parameter}: {shown}: the file name must be absolute")
    lines = []
    for number, whole in logical_lines(data):
        # What comes after a NUL is not there for Postfix.
        line = whole.partition(b"\0")[0].rstrip()
        if not line and kind != "cidr":
            continue
        if line[:1].isspace():
            raise table_error(
                context,
                shown,
                number,
                f"logical line must not start with whitespace: {shorten(line)}; remove the white space",
            )
        keyword = _WORD.match(line)
        if keyword is None:
            lines.append(Line(number, "", line))
        else:
            lines.append(Line(number, keyword[1].decode("ascii").lower(), line[keyword.end() :].strip()))
    return RuleText(shown, sources, lines)


def _inline_rules(name: str, shown: str, parameter: str) -> Iterator[bytes]:
    for word in split_words(unbrace(name, shown, parameter)):
        if not word.startswith("{"):
            raise ConfigError(
                f"{parameter}: no '{{' at start of text in \"{word}\": {shown}; write {{ {{rule}} {{rule}} }}"
            )
        rule = unbrace(word, shown, parameter)
        if "\n" in rule:
            rule = " ".join(rule.split("\n"))
        yield encode(rule)


def not_marks(text: bytes) -> tuple[bool, bytes]:
    """
    @param text: begins with the C{!} marks of a rule, if it has any.
    @return: whether their number is odd, and what follows them, and white space between and after them.
    """
    bare = text.lstrip(b"! \t\n\r\v\f")
    return text[: len(text) - len(bare)].count(b"!") % 2 == 1, bare


def shorten(line: bytes) -> str:
    """
    @return: text of a line in quotes, for messages: not too long, and printable.
    """
    return f'"{printable(line, 100)}"'


def table_error(context: TableContext, shown: str, number: int, problem: str) -> ConfigError:
    """
    @return: the error that names parameter, table and line.
    """
    return ConfigError(f"{context.parameter}: {shown}, line {number}: {problem}")


Key = TypeVar("Key", contravariant=True)
"""What a kind of table makes of a key."""


@frozen(slots=True)
class Rule(Generic[Key]):
    """
    A rule, or an C{if}, that a kind of table has understood.

    @ivar number: its line.
    @ivar find: takes the key; gives L{None}, or something that is not L{None} where the rule applies, from
        which C{result} makes the result.
    @ivar result: L{None} for an C{if}.
    @ivar block: for tables of patterns: what finds the same in a block of keys, or L{None}: anything may
        match.
    @ivar substitutes: whether the result has parts of the key in it.
    """

    number: int
    find: Callable[[Key], Groups]
    result: Callable[[Groups], bytes | None] | None
    block: Sequence[bytes] | None = None
    substitutes: bool = False


@define(slots=True)
class _Step:
    rule: Rule[Any]
    otherwise: int = field(default=-1)


class Program(Generic[Key]):
    """
    Rules in order, with C{if}.

    @param text: where they stand.
    @param understand: makes a rule of a line; gives L{None} for an C{endif}, and for a line that it has added
        to the rule before.
    @param context: for messages.
    @raise ConfigError: a line makes no sense.
    """

    __slots__ = ("_steps",)

    def __init__(
        self, text: RuleText, understand: Callable[[Line], Rule[Key] | None], context: TableContext
    ) -> None:
        steps: list[_Step] = []
        open_ifs: list[_Step] = []
        for line in text.lines:
            try:
                if line.keyword == "endif":
                    if line.text:
                        raise RuleError(f"garbage after ENDIF: {shorten(line.text)}; remove it")
                    if not open_ifs:
                        raise RuleError("ENDIF without IF; remove it")
                    open_ifs.pop().otherwise = len(steps)
                rule = understand(line)
            except RuleError as error:
                raise table_error(context, text.name, line.number, str(error)) from None
            if rule is None:
                continue
            step = _Step(rule)
            steps.append(step)
            if line.keyword:
                open_ifs.append(step)
        if open_ifs:
            raise table_error(
                context, text.name, open_ifs[-1].rule.number, "IF has no matching ENDIF; add an ENDIF line"
            )
        for index, step in enumerate(steps):
            if step.otherwise < 0:
                step.otherwise = index + 1
        self._steps: Sequence[tuple[Any, Any, int]] = [
            (step.rule.find, step.rule.result, step.otherwise) for step in steps
        ]

    def run(self, key: Key) -> bytes | None:
        """
        @return: the result of the first rule that applies to the key.
        """
        steps = self._steps
        at = 0
        while at < len(steps):
            find, result, otherwise = steps[at]
            found = find(key)
            if found is None:
                at = otherwise
            elif result is None:
                at += 1
            else:
                return result(found)  # type: ignore[no-any-return]
        return None


def blocks(text: RuleText, rules: Sequence[Rule[bytes]]) -> list[bytes] | None:
    """
    @param rules: those of the lines that are no C{endif}, in order.
    @return: what finds in a block of keys all that the rules find in any of the keys, or L{None} when
        anything may match.
    """
    remaining = iter(rules)
    stack: list[tuple[Rule[bytes] | None, list[bytes] | None]] = [(None, [])]
    for line in text.lines:
        if line.keyword == "if":
            stack.append((next(remaining), []))
            continue
        if line.keyword == "endif":
            condition, inner = stack.pop()
            # What is within applies only where the condition does: either of them will do.
            found = inner if inner is not None or condition is None else _listed(condition.block)
        else:
            found = _listed(next(remaining).block)
        outer_condition, outer = stack.pop()
        stack.append((outer_condition, None if outer is None or found is None else outer + found))
    return stack[0][1]


def _listed(texts: Sequence[bytes] | None) -> list[bytes] | None:
    return None if texts is None else list(texts)


def substitutes(template: bytes) -> bool:
    """
    @param template: a result that makes sense (L{make_result}).
    @return: whether it has parts of the key in it.
    """
    return any(not found[1] for found in _REFERENCE.finditer(template))


def make_result(template: bytes, groups: int | None) -> Callable[[Groups], bytes]:
    """
    @param template: the result as it stands in the table.
    @param groups: how many groups the pattern has, or L{None} when it is negated.
    @return: takes a match, gives the result, which may be empty.
    @raise RuleError: the template makes no sense.
    """
    if not template:
        raise RuleError("no replacement text; write what the rule is to give")
    parts: list[bytes | int] = []
    end = 0
    for found in _REFERENCE.finditer(template):
        parts.append(template[end : found.start()])
        end = found.end()
        if found[1]:
            parts.append(b"$")
            continue
        name = found[2] or found[3] or found[4]
        if not name:
            opening = template[found.end() : found.end() + 1]
            problem = (
                "truncated macro reference" if opening in (b"{", b"(") and opening else "empty macro name"
            )
            raise RuleError(f"{problem}: {shorten(template)}; write $$ for a dollar sign")
        if not name.isdigit():
            raise RuleError(f"non-numeric replacement index {shorten(name)}; write ${{1}} before other text")
        number = int(name[:9])
        if groups is None:
            raise RuleError("$number found in negative match replacement text; write $$ for a dollar sign")
        if not 0 < number <= groups:
            raise RuleError(f"out of range replacement index {shorten(name)}: the pattern has {groups} ()")
        parts.append(number)
    parts.append(template[end:])
    if not any(isinstance(part, int) for part in parts):
        constant = b"".join(part for part in parts if isinstance(part, bytes))
        return lambda match: constant

    def substitute(match: Groups) -> bytes:
        return b"".join(part if isinstance(part, bytes) else match.group(part) or b"" for part in parts)

    return substitute
