"""
Logical lines: what main.cf and master.cf have in common.

Takes the text of a file, gives its logical lines with the number of the line on which each starts.
A line that starts with white space continues the logical line above it, even when comments or blank
lines stand between. Pure; never fails.

Answers to: the "general format" sections of postconf(5) and master(5).
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

WHITE = " \t\n\r\f\v"
"""White space in configuration files, as C's C{isspace} has it: no Unicode spaces."""


@frozen(slots=True)
class LogicalLine:
    """
    One logical line.

    @ivar number: the number of its first line in the file, from 1.
    @ivar text: the lines put together; the white space that led a continuation line is kept.
    @ivar orphan: whether it starts with white space with no line above it to continue.
    """

    number: int
    text: str
    orphan: bool = False


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """
    @param text: a whole file.
    @return: its logical lines, in order.
    """
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip(WHITE)
        content = line.lstrip(WHITE)
        if not content or content[0] == "#":
            continue
        if line[0] not in WHITE:
            if parts:
                yield _joined(start, parts)
            start, parts = number, [line]
        elif parts:
            parts.append(line)
        else:
            yield LogicalLine(number, content, orphan=True)
    if parts:
        yield _joined(start, parts)


def _joined(start: int, parts: list[str]) -> LogicalLine:
    return LogicalLine(start, "".join(parts))
