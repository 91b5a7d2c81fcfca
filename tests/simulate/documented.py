"""
Whether the tables in C{docs/simulate.rst} are what its scenarios print today.

Run it as C{python -m tests.simulate.documented}; it takes a minute, prints what is different, and ends with
status 1 then. With C{--write} it puts today's tables into the manual, whose words are then to be read again.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve

from qmqpd_tx.simulate.read import load_scenario
from qmqpd_tx.simulate.result import figures
from qmqpd_tx.simulate.scenario import Scenario
from qmqpd_tx.simulate.show import grids, headline, plain
from qmqpd_tx.simulate.world import World, quiet
from tests.simulate.published import SCENARIOS

MANUAL = Path(__file__).parents[2] / "docs" / "simulate.rst"

INDENT = "    "


def documented() -> Iterator[Scenario]:
    """
    @return: the scenarios whose tables are in the manual, in its order.
    """
    yield load_scenario(SCENARIOS / "mailing.toml")
    outage = load_scenario(SCENARIOS / "outage.toml")
    yield outage
    yield evolve(outage, parameters={**outage.parameters, "deferred_retry_jitter": "50"})


def tables(scenario: Scenario) -> list[str]:
    """
    @return: the lines that it prints, as they are in the manual.
    """
    world = World(scenario)
    world.run()
    found = figures(world)
    lines = [headline(found)]
    for grid in grids(found, world.sampler.rows, world.midnight):
        lines += ["", *plain(grid)]
    return [(INDENT + line).rstrip() for line in lines]


def with_tables(text: str, scenarios: Iterator[Scenario]) -> str:
    """
    @return: a text with the tables of today in the place of those that are there.
    """
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        found.append(line)
        if line != "::" or found[-2:-1] != [""]:
            continue
        block: list[str] = []
        rest: list[str] = []
        for inner in lines:
            if inner and not inner.startswith(INDENT):
                rest.append(inner)
                break
            block.append(inner)
        if "; from " in "".join(block[:2]):
            block = ["", *tables(next(scenarios)), ""]
        found += [*block, *rest]
    return "\n".join(found) + "\n"


def main() -> int:
    """
    @return: the exit status.
    """
    quiet()
    before = MANUAL.read_text()
    after = with_tables(before, documented())
    if "--write" in sys.argv[1:]:
        MANUAL.write_text(after.rstrip("\n") + "\n")
        return 0
    different = list(
        difflib.unified_diff(before.splitlines(), after.rstrip("\n").splitlines(), "manual", "today")
    )
    print("\n".join(different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
