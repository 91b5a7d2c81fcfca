"""
C{qmqpd-tx simulate}: what a day of mail would be like.

Takes a scenario in TOML; runs the real queue manager on a simulated clock, against scripted destinations and
arrivals; prints tables, or JSON, and writes CSV files, a picture and a log where asked to. Touches no queue
and no network. The same scenario and seed give the same output.

Exit status: 0 done, whatever the answers to the scenario's questions; 64 wrong usage; 69 there is no
matplotlib for C{--plot}; 70 the simulation found a defect of the queue manager; 73 a file cannot be written;
78 the scenario is wrong.

Answers to nothing in Postfix.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from qmqpd_tx.admin.context import CommandError, Exit
from qmqpd_tx.interfaces import ConfigError

if TYPE_CHECKING:
    from qmqpd_tx.simulate.show import Grid

_CANNOT_CREATE = 73
"""EX_CANTCREAT of sysexits(3)."""


@click.command("simulate")
@click.argument("scenario", type=click.Path(dir_okay=False))
@click.option("--seed", type=click.IntRange(0, 1 << 62), help="Use this seed, not the scenario's.")
@click.option("--json", "in_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--csv", "folder", metavar="DIR", help="Write deliveries.csv, concurrency.csv and queue.csv.")
@click.option(
    "--every",
    type=click.FloatRange(0, 86400),
    default=0,
    metavar="SECONDS",
    help="Add deliveries.csv up over so many seconds. [default: a row for each]",
)
@click.option("--plot", "picture", metavar="FILE", help="Draw a picture: FILE.png or FILE.svg.")
@click.option("--log", "log_file", metavar="FILE", help="Write the mail log, with the simulated time.")
def simulate_command(
    scenario: str,
    seed: int | None,
    in_json: bool,
    folder: str | None,
    every: float,
    picture: str | None,
    log_file: str | None,
) -> int:
    """Run SCENARIO, a TOML file, and print when its mail is delivered."""
    # Imported here: a simulation needs much that --help does not.
    from qmqpd_tx.simulate.files import CSVFiles
    from qmqpd_tx.simulate.logfile import LogFile
    from qmqpd_tx.simulate.plot import FORMATS, PlotUnavailable, check_matplotlib, plot
    from qmqpd_tx.simulate.read import load_scenario
    from qmqpd_tx.simulate.result import figures
    from qmqpd_tx.simulate.show import grids, headline
    from qmqpd_tx.simulate.world import World, quiet, simulated_midnight

    if picture is not None and not picture.endswith(FORMATS):
        raise click.UsageError(f"--plot {picture}: the name must end in {' or '.join(FORMATS)}")
    try:
        if picture is not None:
            # Before the run, not after it.
            check_matplotlib()
        plan = load_scenario(scenario, seed)
        with ExitStack() as stack:
            files = None
            if folder is not None:
                files = stack.enter_context(CSVFiles(folder, plan, simulated_midnight(), every))
            log = stack.enter_context(LogFile(log_file)) if log_file is not None else None
            quiet()
            world = World(plan, files, files.sampled if files is not None else None)
            world.run(log)
        if picture is not None:
            plot(world, picture)
    except ConfigError as problem:
        raise CommandError(str(problem), Exit.CONFIG) from problem
    except PlotUnavailable as problem:
        raise CommandError(str(problem), Exit.UNAVAILABLE) from problem
    except OSError as problem:
        name = problem.filename or folder or log_file or picture or scenario
        click.echo(f"qmqpd-tx: {name}: cannot be written: {problem.strerror}", err=True)
        return _CANNOT_CREATE
    found = figures(world)
    if in_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        click.echo(headline(found))
        for grid in grids(found, world.sampler.rows, world.midnight):
            _show(grid)
    for text in found.problems:
        click.echo(f"qmqpd-tx: error in the simulated queue manager: {text}", err=True)
    return int(Exit.SOFTWARE if found.problems else Exit.OK)


def _show(grid: Grid) -> None:
    """
    Print a table, for people or for programs.
    """
    from qmqpd_tx.simulate.show import plain

    click.echo()
    if not sys.stdout.isatty():
        for line in plain(grid):
            click.echo(line)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(grid.heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    # Rather a line that the terminal breaks than figures that are cut.
    needed = max(len(line) for line in plain(grid)) + 2 * len(grid.heads)
    Console(width=max(needed, Console().width)).print(table)
