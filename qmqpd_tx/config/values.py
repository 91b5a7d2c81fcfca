"""
From expanded text to typed values.

Takes the expanded text of one parameter, gives an L{int}, L{bool}, seconds or words. Pure. A text that
is not of the type raises L{ValueError} whose text says what is wrong and what to write; the caller
puts file, line and name in front.

Answers to: postconf(5); stricter than Postfix where Postfix overlooks what follows a time unit.
"""

from __future__ import annotations

import re

from qmqpd_tx.config.lines import WHITE
from qmqpd_tx.config.main_cf import shown

TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MAXIMUM_INTEGER = 2**31 - 1
MAXIMUM_LONG = 2**63 - 1

_TIME = re.compile(r"\+?([0-9]{1,20})([smhdw]?)\Z")
_EXACT_TIME = re.compile(r"\+?([0-9]{1,20}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([smhdw]?)\Z")
_INTEGER = re.compile(r"([+-]?)([0-9]{1,30})\Z")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_WORD = re.compile(r"[^, \t\r\n\f\v]+")
_FEEDBACK = re.compile(
    r"([0-9]{1,10}(\.[0-9]{0,10})?|\.[0-9]{1,10})([eE][-+]?[0-9]{1,3})?\s*(/\s*([0-9]{1,10}(\.[0-9]{0,10})?|concurrency|sqrt_concurrency))?\Z"
)


def boolean(text: str) -> bool:
    """
    @param text: C{yes} or C{no}, in any case.
    @raise ValueError: it is neither.
    """
    lowered = text.lower()
    if lowered == "yes":
        return True
    if lowered == "no":
        return False
    raise ValueError(f'bad boolean value "{shown(text)}": use yes or no')


def integer(text: str, low: int | None, high: int | None) -> int:
    """
    @param low: the smallest good value.
    @param high: the largest good value.
    @raise ValueError: not a number, or out of bounds.
    """
    match = _INTEGER.match(text)
    if match is None:
        raise ValueError(
            f'bad numerical value "{shown(text)}": use a whole number {bounds(low, high)}'.rstrip()
        )
    value = int(text)
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"value {value} is out of bounds: use a whole number {bounds(low, high)}")
    return value


def bounds(low: int | None, high: int | None, unit: str = "") -> str:
    """
    @return: words for a range.
    """
    if high is not None and high >= MAXIMUM_INTEGER:
        high = None
    if low is not None and high is not None:
        return f"from {low}{unit} to {high}{unit}"
    if low is not None:
        return f"of at least {low}{unit}"
    if high is not None:
        return f"of at most {high}{unit}"
    return ""


def seconds(text: str, unit: str, low: int | None, high: int | None, fractions: bool = False) -> float:
    """
    @param text: a number and an optional unit.
    @param unit: the unit when there is none.
    @param low: the smallest good value, in seconds.
    @param high: the largest good value, in seconds.
    @param fractions: whether the number may have decimals, as in C{0.25s}.
    @return: seconds.
    @raise ValueError: not a time, or out of bounds.
    """
    match = (_EXACT_TIME if fractions else _TIME).match(text)
    if match is None:
        raise ValueError(f'bad time value "{shown(text)}": use a number and one of s, m, h, d, w')
    number = match.group(1)
    value = (float(number) if "." in number else int(number)) * TIME_UNITS[match.group(2) or unit]
    if value > MAXIMUM_INTEGER:
        raise ValueError(f'time value "{shown(text)}" is too large: use at most {MAXIMUM_INTEGER}s')
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f'time value "{shown(text)}" is out of bounds: use a time {bounds(low, high, "s")}')
    return float(value)


def words(text: str) -> tuple[str, ...]:
    """
    @return: the elements of a list: split at commas and white space outside C{{ }}.
    @raise ValueError: the braces do not match.
    """
    if "{" not in text and "}" not in text:
        return tuple(_WORD.findall(text))
    found: list[str] = []
    current: list[str] = []
    depth = 0
    for character in text:
        if depth == 0 and (character == "," or character in WHITE):
            if current:
                found.append("".join(current))
                current = []
            continue
        depth += (character == "{") - (character == "}")
        if depth < 0:
            raise ValueError(f'"}}" without "{{" in "{shown(text)}"')
        current.append(character)
    if depth:
        raise ValueError(f'"{{" is not closed with "}}" in "{shown(text)}"')
    if current:
        found.append("".join(current))
    return tuple(found)


def feedback(text: str) -> str:
    """
    @param text: a concurrency feedback: C{number}, C{number/number}, C{number/concurrency} or
        C{number/sqrt_concurrency}.
    @return: the same, without white space.
    @raise ValueError: it is none of these.
    """
    if not _FEEDBACK.match(text):
        raise ValueError(
            f'bad feedback value "{shown(text)}": use number, number/number, number/concurrency '
            "or number/sqrt_concurrency"
        )
    return "".join(text.split())


def hostname(text: str) -> str:
    """
    @param text: a host or domain name.
    @return: the same.
    @raise ValueError: it is not one, by RFC 1035 (with underscores, which are seen in practice).
    """
    if not text:
        raise ValueError("the value must not be empty: give a host name, or remove the line")
    if len(text) > 255 or not all(_LABEL.match(label) for label in text.split(".")):
        raise ValueError(
            f'bad host name "{shown(text)}": use letters, digits and hyphens, in labels with dots between'
        )
    return text
