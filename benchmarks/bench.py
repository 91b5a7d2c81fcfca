"""
C{make bench}: this server and Postfix, alternately, in one run.

For each round and number of sessions, each server in turn gets the same messages from the same client and
delivers them to its smtp-sink. I{accept} is the client's time from first to last message; I{end to end}
lasts until the server's queue folders are empty. Figures are medians over the rounds. Nothing is
installed; without Postfix's tools it says what is missing and ends with status 69.

There are two kinds of work: I{plain}, messages of qmqp-source with a default configuration, and I{tables}:
mail of a mailing list with content checks and address mapping (L{benchmarks.tables}).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import click
from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table

from benchmarks import load, tables
from benchmarks.servers import Ours, Postfix, Server, cpu_seconds, peak_memory, wait_until_drained
from tests.peers import Peer, find, scratch, smtp_sink

TOOLS = ("qmqp-source", "smtp-sink")
WARM_UP_MESSAGES = 200
DRAIN_SECONDS = 300.0


@frozen(slots=True)
class Work:
    """
    What the servers are to do.

    @ivar name: C{plain} or C{tables}.
    @ivar title: what it is.
    @ivar settings: main.cf parameters for both.
    @ivar send: sends messages (port, sessions, messages) and waits for all replies; gives the seconds that it
        took. L{RuntimeError}: one was not accepted.
    """

    name: str
    title: str
    settings: Mapping[str, str]
    send: Callable[[int, int, int], float]


@frozen(slots=True)
class Measure:
    """
    One run of one server.

    @ivar work: the name of the work.
    @ivar server: its name.
    @ivar round: counted from 1.
    @ivar sessions: parallel clients.
    @ivar messages: how many.
    @ivar accept_seconds: until the last K.
    @ivar total_seconds: until the queue was empty.
    @ivar cpu_seconds: processor time of the server meanwhile (of the processes that are there at its end).
    @ivar peak_memory: bytes, since the server's start.
    """

    work: str
    server: str
    round: int
    sessions: int
    messages: int
    accept_seconds: float
    total_seconds: float
    cpu_seconds: float
    peak_memory: int


def qmqp_source(port: int, sessions: int, messages: int, size: int) -> float:
    """
    Send messages, and wait for all replies.

    @return: the seconds that it took.
    @raise RuntimeError: a message was not accepted.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [
            find("qmqp-source") or "qmqp-source",
            "-s",
            str(sessions),
            "-m",
            str(messages),
            "-l",
            str(size),
            "-f",
            "sender@source.test",
            "-t",
            "recipient@destination.test",
            f"127.0.0.1:{port}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"qmqp-source ended with status {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - start


def plain(size: int) -> Work:
    """
    @param size: bytes a message.
    """
    return Work(
        "plain",
        f"messages of {size} bytes",
        {},
        lambda port, sessions, messages: qmqp_source(port, sessions, messages, size),
    )


def with_tables(size: int, kind: str, stack: ExitStack) -> Work:
    """
    @param size: bytes a message, after its headers.
    @param kind: the type of the address tables.
    @param stack: removes the tables in the end.
    """
    folder = scratch()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    tables.write_tables(folder, kind)
    packed = folder / "requests"
    load.pack(tables.requests(size), packed)
    return Work(
        "tables",
        f"20 header checks, {kind} canonical and virtual maps, bodies of {size} bytes",
        tables.settings(folder, kind),
        lambda port, sessions, messages: load.send(packed, port, sessions, messages),
    )


def run_once(work: Work, server: Server, round_number: int, sessions: int, messages: int) -> Measure:
    """
    @return: the measure of one run.
    """
    before = cpu_seconds(server.processes())
    start = time.perf_counter()
    try:
        accept_seconds = work.send(server.port, sessions, messages)
        wait_until_drained(server, DRAIN_SECONDS)
    except RuntimeError as problem:
        raise RuntimeError(
            f"{server.name}, {work.name}, {sessions} sessions: {problem}\n{server.last_words()}"
        ) from problem
    drained = time.perf_counter()
    pids = server.processes()
    return Measure(
        work=work.name,
        server=server.name,
        round=round_number,
        sessions=sessions,
        messages=messages,
        accept_seconds=accept_seconds,
        total_seconds=drained - start,
        cpu_seconds=max(0.0, cpu_seconds(pids) - before),
        peak_memory=peak_memory(pids),
    )


def rate(measures: list[Measure], server: str, sessions: int, seconds: str) -> float | None:
    """
    @param seconds: the name of the time to divide by.
    @return: the median of messages a second over the rounds, or L{None} without measures.
    """
    rates = [
        one.messages / getattr(one, seconds)
        for one in measures
        if one.server == server and one.sessions == sessions
    ]
    return statistics.median(rates) if rates else None


def table(measures: list[Measure], sessions: list[int], work: Work) -> Table:
    """
    @return: the comparison for people.
    """
    measures = [one for one in measures if one.work == work.name]
    result = Table(title=f"{work.name}: {work.title}; messages a second, medians")
    result.add_column("sessions", justify="right")
    for what in ("accept", "end to end"):
        result.add_column(f"{what}\n{Ours.name}", justify="right")
        result.add_column(f"{what}\n{Postfix.name}", justify="right")
        result.add_column("ratio", justify="right", style="bold")
    for count in sessions:
        row = [str(count)]
        for seconds in ("accept_seconds", "total_seconds"):
            ours = rate(measures, Ours.name, count, seconds)
            theirs = rate(measures, Postfix.name, count, seconds)
            row.append(f"{ours:,.0f}" if ours is not None else "-")
            row.append(f"{theirs:,.0f}" if theirs is not None else "-")
            row.append(f"{ours / theirs:.2f}" if ours is not None and theirs is not None else "-")
        result.add_row(*row)
    return result


def resources(measures: list[Measure]) -> list[str]:
    """
    @return: lines on memory and processor time.
    """
    lines = []
    for name in (Ours.name, Postfix.name):
        own = [one for one in measures if one.server == name]
        if own:
            peak = max(one.peak_memory for one in own) / 2**20
            how = "one process" if name == Ours.name else "sum of all processes' peaks"
            lines.append(f"{name}: peak memory {peak:,.0f} MB ({how})")
    own = [one for one in measures if one.server == Ours.name]
    if own:
        each = sum(one.cpu_seconds for one in own) / sum(one.messages for one in own)
        lines.append(f"{Ours.name}: {each * 1e6:,.0f} µs of processor time a message, in and out")
    return lines


def compare(
    work: Work,
    counts: list[int],
    rounds: int,
    messages: int,
    only: str | None,
    profile: Path | None,
    measures: list[Measure],
    console: Console,
) -> None:
    """
    Let both servers do one kind of work.

    @param counts: numbers of sessions.
    @param measures: gets the results.
    """
    with ExitStack() as stack:
        servers: list[Server] = []
        if only != "postfix":
            servers.append(Ours(_relayhost(_sink(stack)), profile, work.settings))
        if only != "ours":
            servers.append(Postfix(_relayhost(_sink(stack)), work.settings))
        for server in servers:
            stack.callback(server.stop)
            server.start()
            run_once(work, server, 0, min(10, max(counts)), WARM_UP_MESSAGES)
        for round_number in range(1, rounds + 1):
            for count in counts:
                # One client alone is slow everywhere: a fifth of the messages says as much.
                number = max(1, messages // 5) if count == 1 else messages
                # Who goes first changes, so that neither always finds the other's dirty pages.
                for server in servers if round_number % 2 else reversed(servers):
                    measure = run_once(work, server, round_number, count, number)
                    measures.append(measure)
                    console.print(
                        f"{work.name:6}, round {round_number}, {count:3d} sessions, {server.name:>8}: "
                        f"accept {number / measure.accept_seconds:8,.0f}/s, "
                        f"end to end {number / measure.total_seconds:8,.0f}/s",
                        highlight=False,
                    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--sessions", multiple=True, type=click.IntRange(1, 1000), help="Parallel clients; repeatable. [1 10 50]"
)
@click.option("--messages", default=3000, show_default=True, type=click.IntRange(1), help="Messages a run.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each, alternating."
)
@click.option("--size", default=4096, show_default=True, type=click.IntRange(1), help="Bytes a message.")
@click.option(
    "--work", "chosen", multiple=True, type=click.Choice(["plain", "tables"]), help="Repeatable. [both]"
)
@click.option(
    "--table-type",
    default="hash",
    show_default=True,
    type=click.Choice(["hash", "btree", "cdb", "lmdb", "texthash"]),
    help="The type of the address tables.",
)
@click.option("--only", type=click.Choice(["ours", "postfix"]), help="Leave the other out.")
@click.option(
    "--profile", type=click.Path(path_type=Path, dir_okay=False), help="Run ours under cProfile; for pstats."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all measures."
)
def bench(
    sessions: tuple[int, ...],
    messages: int,
    rounds: int,
    size: int,
    chosen: tuple[str, ...],
    table_type: str,
    only: str | None,
    profile: Path | None,
    json_file: Path | None,
) -> None:
    """Compare intake and delivery with Postfix's, on loopback, on this machine."""
    console = Console()
    missing = [tool for tool in TOOLS if find(tool) is None]
    if missing:
        raise Unavailable(
            f"{' and '.join(missing)} not found: the clients of this benchmark come with Postfix "
            f"(Debian: apt-get install postfix); nothing was measured"
        )
    if find("postfix") is None or os.geteuid() != 0:
        if only == "postfix":
            raise Unavailable("Postfix is not installed, or this is not run as root, which its start needs")
        console.print("Without an installed Postfix and root no comparison is possible: only ours is run.")
        only = "ours"
    counts = sorted(set(sessions)) or [1, 10, 50]
    if profile is not None and len(chosen) != 1:
        raise click.UsageError("--profile is for one kind of work: choose it with --work")
    measures: list[Measure] = []
    with ExitStack() as stack:
        works = []
        if "plain" in chosen or not chosen:
            works.append(plain(size))
        if "tables" in chosen or not chosen:
            works.append(with_tables(size, table_type, stack))
        for work in works:
            compare(work, counts, rounds, messages, only, profile, measures, console)
        for work in works:
            console.print(table(measures, counts, work))
            for line in resources([one for one in measures if one.work == work.name]):
                console.print(line, highlight=False)
    if profile is not None:
        console.print(f"profile: {sys.executable} -m pstats {profile}", highlight=False)
    if json_file is not None:
        machine = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        record = {"environment": machine, "size": size, "measures": [asdict(one) for one in measures]}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


class Unavailable(click.ClickException):
    """What the benchmark needs is not there."""

    exit_code = 69


def _sink(stack: ExitStack) -> Peer:
    # No -c: its counter costs the sink a write a message.
    return stack.enter_context(smtp_sink(backlog=500))


def _relayhost(sink: Peer) -> str:
    return f"[127.0.0.1]:{sink.port}"


if __name__ == "__main__":
    try:
        bench()
    except RuntimeError as problem:
        sys.exit(f"bench: {problem}")
