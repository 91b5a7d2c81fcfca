"""
How long a single message takes while a large mailing is under way, here and with Postfix, in one run.

For each round and shape of the mailing, each server in turn gets one message with many recipients, each of
which costs its destination some milliseconds. As soon as the first delivery is over, single messages
follow at a steady pace until the mailing is out, by turns to a destination of the mailing and to another one.
I{Latency} is from the reply C{K} to the moment at which the sink has the message whole. Both servers have
their defaults (Postfix has C{in_flow_delay = 0}).
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click
from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table

from benchmarks.bench import Unavailable
from benchmarks.servers import Ours, Postfix, Server
from tests.peers import find, free_port
from tests.service import qmqp_send

SENDER = b"list@source.test"
SINGLE = b"single@source.test"
OTHER = "other.test"
SHAPES = ("one domain", "20 domains")
WAIT_SECONDS = 60.0


class Sink:
    """
    The destinations, in a process of their own, which notes when each single message has come.
    """

    def __init__(self, latency: float) -> None:
        """
        @param latency: seconds that each recipient takes until the end of data is answered.
        """
        self.port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.latency_sink", str(self.port), str(latency)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        if not self._output.readline():
            raise RuntimeError("the sink does not start")
        self.arrived: dict[str, float] = {}
        self.bulk = 0
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._output:
            name, when = line.split()
            with self._news:
                if name == "bulk":
                    self.bulk += int(when)
                else:
                    self.arrived[name] = float(when)
                self._news.notify_all()

    def wait_bulk(self, count: int) -> None:
        """
        Block until so many recipients of the mailing have it.
        """
        with self._news:
            if not self._news.wait_for(lambda: self.bulk >= count, WAIT_SECONDS):
                raise RuntimeError(f"{self.bulk} recipients have the mailing, not {count}")

    def wait_single(self, names: set[str]) -> Mapping[str, float]:
        """
        @return: when each of the messages came.
        """
        with self._news:
            if not self._news.wait_for(lambda: names <= self.arrived.keys(), WAIT_SECONDS):
                missing = names - self.arrived.keys()
                raise RuntimeError(f"{len(missing)} of {len(names)} single messages did not come")
            return {name: self.arrived[name] for name in names}

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@frozen(slots=True)
class Measure:
    """
    One run of one server.

    @ivar server: its name.
    @ivar round: counted from 1.
    @ivar shape: of the mailing.
    @ivar to: C{same} destination as the mailing's, or C{other}.
    @ivar latencies: of the single messages, in seconds, in the order of their sending.
    @ivar seconds: how long the mailing took from its K.
    """

    server: str
    round: int
    shape: str
    to: str
    latencies: tuple[float, ...]
    seconds: float


def mailing(shape: str, recipients: int) -> list[bytes]:
    """
    @return: the recipients of a mailing.
    """
    domains = 1 if shape == SHAPES[0] else 20
    return [b"user%d@d%d.test" % (number, number % domains) for number in range(recipients)]


def run_once(
    server: Server, sink: Sink, round_number: int, shape: str, recipients: int, pause: float
) -> list[Measure]:
    """
    @return: what the single messages took, to the same destination and to another one.
    """
    content = b"Subject: mailing\n\n" + b"Some text for everybody on the list.\n" * 50
    before = sink.bulk
    if not qmqp_send(server.port, content, SENDER, mailing(shape, recipients)).startswith(b"K"):
        raise RuntimeError(f"{server.name} does not take the mailing\n{server.last_words()}")
    began = time.monotonic()
    sink.wait_bulk(before + 1)
    accepted: dict[str, float] = {}
    start = time.monotonic()
    while sink.bulk < before + recipients:
        number = len(accepted)
        name = f"s{number}"
        domain = "d0.test" if number % 2 else OTHER
        _sleep_until(start + number * pause)
        reply = qmqp_send(server.port, b"Subject: single\n\nhello\n", SINGLE, [f"{name}@{domain}".encode()])
        accepted[name] = time.monotonic()
        if not reply.startswith(b"K"):
            raise RuntimeError(f"{server.name} does not take a message: {reply!r}\n{server.last_words()}")
        if accepted[name] > began + WAIT_SECONDS:
            raise RuntimeError(f"{server.name}: the mailing takes too long\n{server.last_words()}")
    seconds = time.monotonic() - began
    arrived = sink.wait_single(set(accepted))
    # What was sent last had the mailing's end for itself.
    names = list(accepted)[: -max(1, len(accepted) // 20)]
    return [
        Measure(
            server=server.name,
            round=round_number,
            shape=shape,
            to=to,
            # What arrives before its K has been read took no time.
            latencies=tuple(max(0.0, arrived[name] - accepted[name]) for name in names[first::2]),
            seconds=seconds,
        )
        for first, to in enumerate(("other", "same"))
    ]


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def quantile(values: list[float], part: float) -> float:
    """
    @return: the value below which a part of the values is.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(measures: list[Measure]) -> Table:
    """
    @return: the comparison for people: all rounds together.
    """
    result = Table(title="latency of single messages, milliseconds")
    for column in ("mailing to", "single"):
        result.add_column(column)
    for what in ("median", "95 %"):
        for column in (f"{what}\n{Ours.name}", f"{what}\n{Postfix.name}"):
            result.add_column(column, justify="right")
        result.add_column("ratio", justify="right", style="bold")
    for shape in SHAPES:
        for to in ("same", "other"):
            own = [one for one in measures if one.shape == shape and one.to == to]
            row = [shape, to]
            by_server = {
                server: [value for one in own if one.server == server for value in one.latencies]
                for server in (Ours.name, Postfix.name)
            }
            for part in (0.5, 0.95):
                figures = [quantile(values, part) for values in by_server.values() if values]
                row += [f"{figure * 1000:.1f}" for figure in figures]
                row += ["-"] * (2 - len(figures))
                row.append(f"{figures[0] / figures[1]:.2f}" if len(figures) == 2 and figures[1] else "-")
            result.add_row(*row)
    return result


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--recipients", default=10_000, show_default=True, type=click.IntRange(100), help="Of the mailing."
)
@click.option(
    "--pause",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0.001),
    help="Seconds between single messages.",
)
@click.option(
    "--latency",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0.0),
    help="Seconds a recipient takes at its destination.",
)
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each, alternating."
)
@click.option("--only", type=click.Choice(["ours", "postfix"]), help="Leave the other out.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all measures."
)
def latency_command(
    recipients: int,
    pause: float,
    latency: float,
    rounds: int,
    only: str | None,
    json_file: Path | None,
) -> None:
    """Compare the latency of single messages during a mailing with Postfix's, on loopback."""
    console = Console()
    if find("postfix") is None or os.geteuid() != 0:
        if only == "postfix":
            raise Unavailable("Postfix is not installed, or this is not run as root, which its start needs")
        console.print("Without an installed Postfix and root no comparison is possible: only ours is run.")
        only = "ours"
    measures: list[Measure] = []
    for round_number in range(1, rounds + 1):
        for shape in SHAPES:
            order = [name for name in ("ours", "postfix") if only in (None, name)]
            for name in order if round_number % 2 else reversed(order):
                found = _run_server(name, round_number, shape, recipients, pause, latency)
                measures += found
                console.print(
                    f"round {round_number}, {shape:>10}, {found[0].server:>8}: "
                    + ", ".join(
                        f"{one.to} {statistics.median(one.latencies) * 1000:7.1f} ms" for one in found
                    )
                    + f", {len(found[0].latencies)} each; the mailing took {found[0].seconds:.1f} s",
                    highlight=False,
                )
    console.print(table(measures))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in measures], indent=1) + "\n")


def _run_server(
    name: str, round_number: int, shape: str, recipients: int, pause: float, latency: float
) -> list[Measure]:
    """Each run has a server of its own, because the mailing is not waited for."""
    with ExitStack() as stack:
        sink = Sink(latency)
        stack.callback(sink.stop)
        settings = _settings(sink.port)
        server: Server = Ours("", settings=settings) if name == "ours" else Postfix("", settings)
        stack.callback(server.stop)
        server.start()
        qmqp_send(server.port, b"Subject: first\n\nhello\n", SENDER, [b"warm-up@warm.test"])
        sink.wait_bulk(1)
        return run_once(server, sink, round_number, shape, recipients, pause)


def _settings(port: int) -> dict[str, str]:
    """Each domain is a destination of its own, though all are one server."""
    domains = [*(f"d{number}.test" for number in range(20)), OTHER, "warm.test"]
    # A name for each: a destination is a next hop.
    table = ", ".join(
        f"{{{domain}=smtp:[127.0.0.{number}]:{port}}}" for number, domain in enumerate(domains, 1)
    )
    return {"transport_maps": f"inline:{{{table}}}"}


def reachable() -> bool:
    """
    @return: whether all of 127.0.0.0/8 is this machine, as on Linux.
    """
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.22", 0))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    try:
        if not reachable():
            raise Unavailable("the benchmark needs 127.0.0.2 to 127.0.0.22 on the loopback interface")
        latency_command()
    except Unavailable as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except RuntimeError as problem:
        sys.exit(f"latency: {problem}")
