"""
A picture of a run: deliveries, concurrency and queues over time.

Takes a L{World<qmqpd_tx.simulate.world.World>} at its end, writes PNG or SVG by the name of the file. Needs
matplotlib, which is an extra: raises L{PlotUnavailable} without it, which says how to get it. An L{OSError}
is the caller's to explain.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from qmqpd_tx.simulate.result import clock_text
from qmqpd_tx.simulate.world import World

FORMATS: Final = (".png", ".svg")
"""How the name of a picture may end."""

_STEPS: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
"""Distances between two labels of the time, seconds."""


class PlotUnavailable(Exception):
    """There is no matplotlib; the text says how to get it."""


def check_matplotlib() -> None:
    """
    @raise PlotUnavailable: there is none.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        raise PlotUnavailable(
            "--plot needs matplotlib, which is not installed: pip install 'qmqpd_tx[plot]'"
        ) from None


def plot(world: World, path: str) -> None:
    """
    @param path: of the picture, ending in one of L{FORMATS}.
    @raise PlotUnavailable: there is no matplotlib.
    """
    check_matplotlib()
    matplotlib: Any = importlib.import_module("matplotlib")
    # Without a date and with fixed ids, so that the same run gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "qmqpd_tx"
    figure_module: Any = importlib.import_module("matplotlib.figure")
    ticker: Any = importlib.import_module("matplotlib.ticker")
    figure = figure_module.Figure(figsize=(10, 9), layout="constrained")
    out, busy, queue = figure.subplots(3, 1, sharex=True)
    figure.suptitle(world.scenario.title or world.scenario.file)
    midnight = world.midnight
    for mail in world.classes.values():
        series = mail.delivered.series()
        if series and mail.planned:
            # Nothing was delivered before the first arrival.
            points = [(int(mail.arrived.first or 0), 0), *series]
            out.plot(
                [second - midnight for second, _ in points],
                [100 * count / mail.planned for _, count in points],
                label=mail.name,
                drawstyle="steps-post",
            )
    out.set_ylabel("delivered, %")
    rows = world.sampler.rows
    times = [row.time - midnight for row in rows]
    for number, record in enumerate(world.destinations):
        busy.plot(times, [row.busy[number] for row in rows], label=record.name)
    busy.set_ylabel("deliveries under way")
    for name in ("incoming", "active", "deferred"):
        queue.plot(times, [getattr(row, name) for row in rows], label=name)
    queue.set_ylabel("messages in the queue")
    queue.set_xlabel("time of day")
    span = max(times, default=1.0) - world.scenario.start
    queue.xaxis.set_major_locator(ticker.MultipleLocator(next(step for step in _STEPS if span <= 9 * step)))
    queue.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: clock_text(max(0.0, value))))
    queue.set_xlim(left=world.scenario.start, right=max(times, default=1.0))
    for axes in (out, busy, queue):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="best", fontsize="small")
    metadata = {"Date": None} if path.endswith(".svg") else None
    figure.savefig(path, dpi=120, metadata=metadata)
