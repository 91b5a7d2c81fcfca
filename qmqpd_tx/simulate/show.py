"""
Figures as text: tables for a terminal, or plain ones for a file or a pipe.

Takes L{Figures<qmqpd_tx.simulate.result.Figures>} and the rows over time, gives lines. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from qmqpd_tx.simulate.result import ClassFigures, DestinationFigures, Figures, clock_text, span_text
from qmqpd_tx.simulate.samples import Sample

_ROWS: Final = 12
"""How many rows the queue over time has."""


@frozen(slots=True)
class Grid:
    """
    A table.

    @ivar title: over it.
    @ivar heads: of its columns; the first column is of names, the others are of figures.
    @ivar rows: its cells.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def grids(found: Figures, rows: Sequence[Sample], midnight: float) -> Sequence[Grid]:
    """
    @param rows: the queue over time.
    @param midnight: of the first day, POSIX seconds.
    @return: all tables.
    """
    tables = [
        Grid(
            "Mail",
            (
                "class",
                "messages",
                "recipients",
                "delivered",
                "bounced",
                "expired",
                "waiting",
                "put off",
                "untried",
            ),
            [_mail(one) for one in found.classes],
        ),
        Grid(
            "Delivered at, and after",
            ("class", "first", "median", "95 %", "last", "median", "95 %", "longest"),
            [_times(one) for one in found.classes],
        ),
        Grid(
            "Destinations",
            (
                "destination",
                "domains",
                "attempts",
                "retries a minute",
                "connections",
                "put off, 1st run",
                "put off",
                "dead",
                "for",
            ),
            [_destination(one) for one in found.destinations],
        ),
        Grid(
            "Concurrency",
            ("destination", "under way", "std. dev.", "most", "window", "std. dev.", "most"),
            [_concurrency(one) for one in found.destinations],
        ),
        Grid(
            "Messages in the queue", ("time", "incoming", "active", "deferred"), list(_queue(rows, midnight))
        ),
    ]
    if failures := list(_failures(found.destinations)):
        tables.insert(
            4, Grid("Failures of destinations, in recipients", ("what", "1st run", "all"), failures)
        )
    if found.answers:
        answers = [
            (one.question, "yes" if one.yes else "no", f"{one.share * 100:.2f} %") for one in found.answers
        ]
        tables.append(Grid("Questions", ("question", "answer", "out in time"), answers))
    return tables


def headline(found: Figures) -> str:
    """
    @return: what was simulated, in a line.
    """
    title = found.title or found.scenario
    ends = {"drained": "the queue was empty", "first-runs": "all was tried once", "limit": "the time was up"}
    span = span_text(found.end - found.start)
    return (
        f"{title}: {found.scheduler}, seed {found.seed}; from {clock_text(found.start)} to "
        f"{clock_text(found.end)} ({span}), when {ends[found.ended]}"
    )


def plain(grid: Grid) -> Iterator[str]:
    """
    @return: the lines of a table.
    """
    widths = [max(len(row[column]) for row in (grid.heads, *grid.rows)) for column in range(len(grid.heads))]
    yield grid.title
    for row in (grid.heads, ["-" * width for width in widths], *grid.rows):
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _mail(one: ClassFigures) -> Sequence[str]:
    counts = (one.messages, one.recipients, one.delivered, one.bounced, one.expired, one.waiting)
    return [one.name, *(str(count) for count in (*counts, one.deferrals, one.untried))]


def _times(one: ClassFigures) -> Sequence[str]:
    return [
        one.name,
        *(clock_text(when) for when in (one.first, one.median, one.most, one.last)),
        *(span_text(seconds) for seconds in (one.delay_median, one.delay_most, one.delay_longest)),
    ]


def _destination(one: DestinationFigures) -> Sequence[str]:
    return [
        one.name,
        str(one.domains),
        str(one.attempts),
        str(one.busiest),
        str(one.connections),
        f"{one.first_deferred:.2f} %",
        f"{one.deferred:.2f} %",
        str(one.deaths),
        span_text(one.dead_seconds) if one.deaths else "-",
    ]


def _concurrency(one: DestinationFigures) -> Sequence[str]:
    return [
        one.name,
        f"{one.busy:.2f}",
        f"{one.busy_deviation:.2f}",
        str(one.busy_most),
        f"{one.window:.2f}",
        f"{one.window_deviation:.2f}",
        str(one.window_most),
    ]


def _failures(destinations: Sequence[DestinationFigures]) -> Iterator[Sequence[str]]:
    for one in destinations:
        for name, count in one.failures.items():
            yield [f"{one.name}: {name}", str(one.first_failures.get(name, 0)), str(count)]


def _queue(rows: Sequence[Sample], midnight: float) -> Iterator[Sequence[str]]:
    """Some rows, at even distances, the last among them."""
    step = max(1, -(-len(rows) // _ROWS))
    for row in list(reversed(rows[::-1][::step])):
        yield [clock_text(row.time - midnight), str(row.incoming), str(row.active), str(row.deferred)]
