"""
What a row of the parameter table is.

A L{Parameter} is a main.cf parameter; a L{TransportParameter} is a family of them, one for each
transport: C{<transport>_<suffix>}. Rows are data: L{Parameter.parse} turns an expanded text into the
typed value, and is the only code about types. The rows themselves are in
L{qmqpd_tx.config.parameters}, a module for each subject.

Pure. A text that does not fit its row raises L{ValueError}, naming the remedy.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from qmqpd_tx.config import values
from qmqpd_tx.config.main_cf import shown

Value = str | int | bool | float | tuple[str, ...]


class Type(enum.Enum):
    """The type of a parameter's value; the value is its name in the documentation."""

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIME = "time"
    LIST = "list"
    ENUM = "one of"
    FEEDBACK = "feedback"
    HOSTNAME = "host name"


@frozen(slots=True, kw_only=True)
class Parameter:
    """
    One row.

    @ivar name: the main.cf name.
    @ivar type: the type of its value.
    @ivar default: the default as it would stand in main.cf; may hold C{$name}.
    @ivar help: one line for people.
    @ivar low: the smallest good value: seconds for a time, the length for a string or a list.
    @ivar high: the largest good value.
    @ivar unit: for a time, the unit of a number without one.
    @ivar fractions: for a time, whether it may have decimals.
    @ivar choices: the good values of an enum, or of the elements of a list; empty: any.
    @ivar effect: whether it does anything in this program.
    @ivar own: whether it is unknown to Postfix.
    """

    name: str
    type: Type
    default: str = ""
    help: str = ""
    low: int | None = None
    high: int | None = None
    unit: str = "s"
    fractions: bool = False
    choices: tuple[str, ...] = ()
    effect: bool = True
    own: bool = False

    def parse(self, text: str) -> Value:
        """
        @param text: the expanded value.
        @return: the typed value: L{str}, L{int}, L{bool}, L{float} seconds or a tuple of L{str}.
        @raise ValueError: it does not fit this row; says what to write.
        """
        match self.type:
            case Type.INTEGER:
                return values.integer(text, self.low, self.high)
            case Type.BOOLEAN:
                return values.boolean(text)
            case Type.TIME:
                return values.seconds(text, self.unit, self.low, self.high, self.fractions)
            case Type.LIST:
                words = values.words(text)
                if self.low is not None and len(words) < self.low:
                    raise ValueError(f"the list must not be empty: use {_alternatives(self.choices)}")
                for word in words:
                    self.check_choice(word)
                return words
            case Type.ENUM:
                self.check_choice(text)
                return text
            case Type.FEEDBACK:
                return values.feedback(text)
            case Type.HOSTNAME:
                return values.hostname(text)
            case Type.STRING:
                if self.low is not None and len(text) < self.low:
                    raise ValueError("the value must not be empty: give one, or remove the line")
                return text

    def check_choice(self, word: str) -> None:
        """
        @raise ValueError: the word is not among the choices.
        """
        if self.choices and word not in self.choices:
            raise ValueError(f'unknown value "{shown(word)}": use {_alternatives(self.choices)}')

    def bounds(self) -> str:
        """
        @return: the good values in words, or an empty text when any will do.
        """
        match self.type:
            case Type.INTEGER:
                return values.bounds(self.low, self.high)
            case Type.TIME:
                return values.bounds(self.low, self.high, "s")
            case Type.ENUM | Type.LIST if self.choices:
                return _alternatives(self.choices)
            case Type.BOOLEAN:
                return "yes or no"
            case Type.STRING if self.low:
                return "not empty"
            case _:
                return ""


@frozen(slots=True, kw_only=True)
class TransportParameter:
    """
    The rows C{<transport>_<suffix>}.

    @ivar suffix: as in C{destination_concurrency_limit}.
    @ivar default: the parameter that counts for a transport without a setting of its own.
    @ivar commands: the delivery agents that have it; empty: all.
    """

    suffix: str
    default: str
    help: str
    commands: tuple[str, ...] = field(default=())


def _alternatives(choices: tuple[str, ...]) -> str:
    names = [choice or "empty" for choice in choices]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def by_name(*groups: tuple[Parameter, ...]) -> Mapping[str, Parameter]:
    """
    @return: all rows by name.
    @raise ValueError: two rows have one name (a mistake in the table).
    """
    table: dict[str, Parameter] = {}
    for group in groups:
        for row in group:
            if row.name in table:
                raise ValueError(f"two rows for {row.name}")
            table[row.name] = row
    return table
