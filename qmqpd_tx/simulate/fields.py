"""
Reads the values of a TOML table, and says what is wrong with one.

Takes tables as C{tomllib} gives them; gives numbers within bounds, times, words. Everything that is wrong
raises L{ConfigError} with file, table, key, value, and what to write instead; so does a key that nobody asked
for. Pure.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qmqpd_tx.interfaces import ConfigError

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd]?)")
_TIME: Final = re.compile(r"(?:\+(\d{1,2})\s+)?(\d{1,2}):(\d\d)(?::(\d\d))?")
_SHOWN: Final = 60

NEEDED: Final[Any] = object()
"""The default of a key that has none."""


class Fields:
    """
    One table.

    @ivar where: file and table, for messages.
    @ivar values: what it has.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self.values = values
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def bad(self, key: str, problem: str, remedy: str) -> ConfigError:
        """
        @return: the error to raise about a value.
        """
        value = self.values.get(key)
        shown = "" if value is None else f" = {short(value)}"
        return ConfigError(f"{self.where}: {_printable(key)}{shown}: {problem}: {remedy}")

    def get(self, key: str, default: Any = NEEDED) -> Any:
        """
        @return: a value as it is.
        @raise ConfigError: it is missing and has no default.
        """
        self._known.add(key)
        if key in self.values:
            return self.values[key]
        if default is NEEDED:
            raise self.bad(key, "is missing", "add it")
        return default

    def text(self, key: str, default: Any = NEEDED, choices: Sequence[str] = ()) -> Any:
        """
        @param choices: the words that it may be.
        @return: a text that is not empty and can be printed; or the default.
        """
        value = self.get(key, default)
        if value is default and key not in self.values:
            return value
        if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 1000:
            raise self.bad(key, "is no text", 'write it in quotation marks, as in "name"')
        if choices and value not in choices:
            raise self.bad(key, "is none of its values", "use " + " or ".join(f'"{one}"' for one in choices))
        return value

    def flag(self, key: str, default: bool) -> bool:
        """
        @return: true or false.
        """
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, "is neither true nor false", "write true or false, without quotation marks")
        return value

    def number(self, key: str, default: Any, low: float, high: float) -> float:
        """
        @return: a number between two bounds.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(_float(value)):
            raise self.bad(key, "is no number", f"write a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self.bad(key, "is out of bounds", f"write a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, default: Any, low: int, high: int) -> int:
        """
        @return: a whole number between two bounds.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, "cannot be", f"write a whole number from {low} to {high}")
        return value

    def span(self, key: str, default: Any, low: float, high: float) -> float:
        """
        @return: a length of time in seconds: a number, or a text as in C{"90s"}, C{"5m"}, C{"2h"}, C{"1d"}.
        """
        value = self.get(key, default)
        bounds = f"{low:g} to {high:g} seconds"
        if isinstance(value, str) and (found := _SPAN.fullmatch(value)):
            value = float(found[1]) * _UNITS[found[2] or "s"]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.bad(key, "is no length of time", f'write {bounds}, as in 30, "5m" or "2h"')
        return float(value)

    def time(self, key: str, default: Any = NEEDED) -> float:
        """
        @return: a time of day in seconds after the first day's midnight: C{"09:00"}, C{"09:00:30"}, and
            C{"+1 09:00"} for the day after.
        """
        value = self.get(key, default)
        if isinstance(value, str) and (found := _TIME.fullmatch(value)):
            day, hour, minute, second = (int(part or 0) for part in found.groups())
            if hour <= 24 and minute < 60 and second < 60 and (hour < 24 or not minute + second):
                return day * 86400.0 + hour * 3600.0 + minute * 60.0 + second
        if value is default and key not in self.values:
            return float(value)
        raise self.bad(key, "is no time of day", 'write it as "09:00", or "+1 09:00" for the next day')

    def table(self, key: str) -> Fields:
        """
        @return: a table within this one, empty when it is missing.
        """
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.bad(key, "is no table", "write { name = value, ... }")
        return Fields(f"{self.where}: {key}", value)

    def tables(self, key: str, label: str, limit: int) -> list[Fields]:
        """
        @param label: as in C{[[destination]]}.
        @param limit: how many there may be.
        @return: the tables of an array of tables.
        """
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.bad(key, "is no list of tables", f"begin each with a line {label}")
        if len(value) > limit:
            raise ConfigError(f"{self.where}: {len(value)} tables {label}: at most {limit} are possible")
        found = []
        for number, one in enumerate(value, 1):
            name = one.get("name", one.get("class"))
            suffix = f' ("{name}")' if isinstance(name, str) and name.isprintable() else ""
            found.append(Fields(f"{self.where}: {label} number {number}{suffix}", one))
        return found

    def end(self) -> None:
        """
        All has been read.

        @raise ConfigError: there is more.
        """
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key[:_SHOWN], self._known, 1)
                hint = f"did you mean {near[0]}?" if near else f"use {', '.join(sorted(self._known))}"
                raise self.bad(key, "there is no such key", hint)


def _float(value: float) -> float:
    """
    @return: the same, infinity for a whole number that is too large to be anything else.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf


def short(value: object) -> str:
    """
    @return: a value for a message: printable, and not long.
    """
    try:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):
        # More digits than Python writes, or tables in tables without end: TOML has both.
        return "..."
    return _printable(text)


def _printable(text: str) -> str:
    cut = "".join(character if character.isprintable() else "?" for character in text[: _SHOWN + 1])
    return cut if len(cut) <= _SHOWN else cut[:_SHOWN] + "..."
