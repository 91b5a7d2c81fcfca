"""
CSV files of a run.

Takes what happens, row by row, and writes it; nothing is kept. Times are seconds after the first midnight. An
L{OSError} is the caller's to explain.

  - C{deliveries.csv}: each outcome of each delivery, one row for its recipients with the same outcome; or
    sums over some seconds.
  - C{concurrency.csv}: deliveries under way (mean since the row before) and windows, over time.
  - C{queue.csv}: the queues, over time.
"""

from __future__ import annotations

import csv
import os
from types import TracebackType
from typing import Any, TextIO

from qmqpd_tx.simulate.records import MessageRecord
from qmqpd_tx.simulate.samples import Sample
from qmqpd_tx.simulate.scenario import Scenario


class CSVFiles:
    """
    The files, open for writing. A context manager.
    """

    def __init__(self, folder: str, scenario: Scenario, midnight: float, every: float) -> None:
        """
        @param folder: made when missing.
        @param midnight: of the first day, POSIX seconds.
        @param every: deliveries are added up over so many seconds; 0 for each.
        """
        os.makedirs(folder, exist_ok=True)
        self._midnight = midnight
        self._every = every
        self._sums: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._slot = 0
        self._names = [plan.name for plan in scenario.destinations]
        self._open: list[TextIO] = []
        try:
            columns = ("class", "destination", "status", "recipients", "delay")
            if every:
                self._deliveries = self._file(folder, "deliveries.csv", ("time", *columns))
            else:
                self._deliveries = self._file(folder, "deliveries.csv", ("time", "domain", "run", *columns))
            self._concurrency = self._file(
                folder, "concurrency.csv", ("time", "destination", "busy", "window")
            )
            self._queue = self._file(folder, "queue.csv", ("time", "incoming", "active", "deferred"))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _file(self, folder: str, name: str, heads: tuple[str, ...]) -> Any:
        file = open(os.path.join(folder, name), "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._open.append(file)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        return writer

    def __enter__(self) -> CSVFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write_sums()
        finally:
            for file in self._open:
                file.close()

    def wrote(
        self, now: float, record: MessageRecord, where: str, domain: str, status: str, recipients: int
    ) -> None:
        """See L{IDeliveryLog<qmqpd_tx.simulate.records.IDeliveryLog>}."""
        at = now - self._midnight
        delay = now - record.arrived
        label = record.mail.name
        if not self._every:
            self._deliveries.writerow(
                (f"{at:.3f}", domain, record.runs, label, where, status, recipients, f"{delay:.3f}")
            )
            return
        slot = int(at // self._every)
        if slot != self._slot:
            self._write_sums()
            self._slot = slot
        count, seconds = self._sums.get((label, where, status), (0, 0.0))
        self._sums[label, where, status] = (count + recipients, seconds + delay * recipients)

    def sampled(self, row: Sample) -> None:
        """
        Write a row over time.
        """
        at = f"{row.time - self._midnight:.3f}"
        self._queue.writerow((at, row.incoming, row.active, row.deferred))
        for name, busy, window in zip(self._names, row.busy, row.windows, strict=True):
            self._concurrency.writerow((at, name, f"{busy:.3f}", window))

    def _write_sums(self) -> None:
        """The delay is the mean."""
        for (label, where, status), (count, seconds) in sorted(self._sums.items()):
            self._deliveries.writerow(
                (f"{self._slot * self._every:.3f}", label, where, status, count, f"{seconds / count:.3f}")
            )
        self._sums.clear()
