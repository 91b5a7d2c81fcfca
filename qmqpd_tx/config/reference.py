"""
The parameter reference, out of the table.

Gives reStructuredText for the documentation: all rows in alphabetical order, with type, default,
bounds, help, and whether Postfix has the parameter and whether it has effect. C{python -m
qmqpd_tx.config.reference} prints it. Pure.

Answers to: postconf(5).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.table import Parameter, TransportParameter, Type

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COMPUTED = {
    "myhostname": "the name of the host",
    "mydomain": "myhostname without its first label, or localdomain",
    "mail_version": "the version of this program",
    "process_id": "the process id",
    "process_name": "the name of the program",
    "service_name": "the name of the service",
}


def reference() -> str:
    """
    @return: a page of reStructuredText.
    """
    entries = {name.lower(): lines for name, lines in _entries()}
    blocks = ["Parameters\n==========", _INTRODUCTION]
    blocks.extend("\n".join(entries[name]) for name in sorted(entries))
    return "\n\n".join(blocks) + "\n"


_INTRODUCTION = """\
Names, syntax, defaults and meaning are those of Postfix 3.7. A time is a number and one of s, m, h, d, w;
each entry tells the unit of a number without one. Parameters *without effect* are known and checked, and
named in a warning at start-up when they are set."""


def _entries() -> Iterator[tuple[str, list[str]]]:
    for row in PARAMETERS.values():
        yield row.name, list(_parameter(row))
    for member in TRANSPORT_PARAMETERS.values():
        yield f"transport_{member.suffix}", list(_member(member))


def _parameter(row: Parameter) -> Iterator[str]:
    yield f".. _{_label(row.name)}:"
    yield ""
    yield from _heading(row.name)
    yield ""
    yield _prose(row.help)
    yield ""
    computed = _COMPUTED.get(row.name)
    yield f":Default: {computed or (_literal(row.default) if row.default else '(empty)')}"
    yield f":Type: {_type(row)}"
    if row.bounds():
        yield f":Values: {_prose(row.bounds())}"
    if row.own:
        yield ":Postfix: does not have this parameter"
    if not row.effect:
        yield ":Effect: none"


def _member(row: TransportParameter) -> Iterator[str]:
    default = PARAMETERS[row.default]
    yield f".. _{_label('transport_' + row.suffix)}:"
    yield ""
    yield from _heading(f"<transport>_{row.suffix}")
    yield ""
    yield _prose(row.help)
    yield ""
    yield f":Default: {_literal('$' + row.default)}"
    yield f":Type: {_type(default)}"
    if default.bounds():
        yield f":Values: {_prose(default.bounds())}"
    if row.commands:
        yield f":Transports: those of {' and '.join(row.commands)}"
    if not default.effect:
        yield ":Effect: none"


def _heading(name: str) -> Iterator[str]:
    yield name
    yield "-" * len(name)


def _label(name: str) -> str:
    return "parameter-" + name.replace("_", "-")


def _type(row: Parameter) -> str:
    match row.type:
        case Type.TIME:
            return f"time, in {_UNITS[row.unit]} without a unit"
        case Type.LIST:
            return "list, separated by commas or white space"
        case Type.FEEDBACK:
            return "number, number/number, number/concurrency or number/sqrt_concurrency"
        case Type.ENUM:
            return "one word"
        case _:
            return str(row.type.value)


def _literal(text: str) -> str:
    return f"``{text}``"


def _prose(text: str) -> str:
    """Text in which nothing is markup."""
    for mark in ("\\", "*", "`", "_", "|"):
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    sys.stdout.write(reference())
