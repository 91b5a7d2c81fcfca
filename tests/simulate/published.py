"""
The experiments of Postfix's SCHEDULER_README with concurrency-limited servers, run again by the simulator.

L{PUBLISHED} has the figures of that document; L{measure} runs one of its rows some times, with different
seeds. C{python -m tests.simulate.published} prints the tables for docs/simulate.rst.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from attrs import frozen

from qmqpd_tx.simulate.read import scenario_from_text
from qmqpd_tx.simulate.records import Failure
from qmqpd_tx.simulate.world import World

SCENARIOS = Path(__file__).resolve().parent.parent.parent / "docs" / "scenarios"


@frozen(slots=True)
class Row:
    """
    One row of a table.

    @ivar deferred: percentage of recipients, in first runs.
    @ivar average: of the client's concurrency.
    @ivar deviation: of the client's concurrency.
    @ivar connect: recipients put off by a time-out of the connection.
    @ivar greeting: recipients put off by a time-out of the greeting.
    """

    deferred: float
    average: float
    deviation: float
    connect: float = 0
    greeting: float = 0


STYLES = {"1/N": "1/concurrency", "1/sqrt(N)": "1/sqrt_concurrency", "1": "1"}
"""The feedback styles, as that document and as main.cf has them."""

PUBLISHED = {
    ("connect", "1/N", False): Row(9.9, 19.4, 0.49, 198),
    ("connect", "1/N", True): Row(10.3, 19.4, 0.49, 206),
    ("connect", "1/sqrt(N)", False): Row(10.4, 19.6, 0.59, 208),
    ("connect", "1/sqrt(N)", True): Row(10.6, 19.6, 0.61, 212),
    ("connect", "1", False): Row(10.1, 19.5, 1.29, 202),
    ("connect", "1", True): Row(10.8, 19.3, 1.57, 216),
    ("greeting", "1/N", False): Row(1.16, 19.8, 0.37, 0, 230),
    ("greeting", "1/N", True): Row(1.36, 19.8, 0.36, 0, 272),
    ("greeting", "1/sqrt(N)", False): Row(1.21, 19.9, 0.23, 4, 238),
    ("greeting", "1/sqrt(N)", True): Row(1.36, 20.0, 0.23, 0, 272),
    ("greeting", "1", False): Row(1.18, 20.0, 0.16, 0, 236),
    ("greeting", "1", True): Row(1.39, 20.0, 0.16, 0, 278),
    ("421", "1/N", False): Row(16.5, 5.17, 0.38),
    ("421", "1/N", True): Row(16.5, 5.17, 0.38),
    ("421", "1/sqrt(N)", False): Row(24.5, 5.28, 0.45),
    ("421", "1/sqrt(N)", True): Row(24.3, 5.28, 0.46),
    ("421", "1", False): Row(49.7, 5.63, 0.67),
    ("421", "1", True): Row(49.7, 5.68, 0.70),
}
"""By table (the scenario's name), feedback style, and connection caching."""


def run(table: str, style: str, caching: bool, seed: int) -> World:
    """
    @return: one run of one row, at its end.
    """
    text = (SCENARIOS / f"limited-server-{table}.toml").read_text()
    text = text.replace('"1/concurrency"', f'"{STYLES[style]}"')
    if caching:
        text = text.replace('name = "server"\n', 'name = "server"\ncache = {}\n')
    world = World(scenario_from_text(text, table, seed))
    world.run()
    return world


def measure(table: str, style: str, caching: bool, seeds: Sequence[int]) -> Row:
    """
    @return: the means over some runs.
    """
    rows = []
    for seed in seeds:
        tries = run(table, style, caching, seed).destinations[0].first
        rows.append(
            Row(
                100 * tries.deferred / tries.recipients,
                tries.window.mean(),
                tries.window.deviation(),
                tries.failures[Failure.CONNECT],
                tries.failures[Failure.GREETING],
            )
        )
    return Row(
        mean(row.deferred for row in rows),
        mean(row.average for row in rows),
        mean(row.deviation for row in rows),
        mean(row.connect for row in rows),
        mean(row.greeting for row in rows),
    )


def table(name: str, seeds: Sequence[int]) -> Iterator[str]:
    """
    @return: one table of the documentation, in reStructuredText.
    """
    timed_out = name != "421"
    digits = 2 if name == "greeting" else 1
    places = 2 if name == "421" else 1
    heads = [
        "feedback",
        "caching",
        "deferred %, published",
        "simulated",
        "concurrency, published",
        "simulated",
    ]
    if timed_out:
        heads += ["timed out, published", "simulated"]
    rows = [heads]
    for (which, style, caching), row in PUBLISHED.items():
        if which != name:
            continue
        found = measure(which, style, caching, seeds)
        cells = [style, "yes" if caching else "no"]
        for one in (row, found):
            cells.append(f"{one.deferred:.{digits}f}")
        for one in (row, found):
            cells.append(f"{one.average:.{places}f} / {one.deviation:.2f}")
        if timed_out:
            for one in (row, found):
                cells.append(f"{one.connect:.0f} / {one.greeting:.0f}")
        rows.append(cells)
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield ""
    for row_cells in rows:
        for number, cell in enumerate(row_cells):
            yield f"   {'*' if not number else ' '} - {cell}"


def main() -> None:
    """
    Print the tables.
    """
    seeds = range(1, 1 + int(sys.argv[1]) if len(sys.argv) > 1 else 6)
    for name in ("connect", "greeting", "421"):
        sys.stdout.write("\n".join(table(name, seeds)) + "\n\n")


if __name__ == "__main__":
    main()
