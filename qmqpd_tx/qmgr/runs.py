"""
Queue runs: both queues are scanned at the start, and then every C{queue_run_delay}.

Takes the scans; asks for them when it is time. Whoever does not want to wait asks them directly: triggers,
and whoever flushes. Answers to qmgr(8)'s C{queue_run_delay}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.qmgr.scan import QueueScan


class QueueRuns:
    """
    The queue runs.

    @ivar delay: C{queue_run_delay}, seconds; another one holds from the next run on.
    """

    def __init__(self, clock: IReactorTime, delay: float, scans: Sequence[QueueScan]) -> None:
        """
        @param clock: for the timer.
        @param scans: what is asked for at each run.
        """
        self._clock = clock
        self.delay = delay
        self._scans = scans
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """
        Begin with a run.
        """
        self._run()

    def stop(self) -> None:
        """
        No more runs.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def next_run(self, when: float) -> float:
        """
        @param when: POSIX seconds.
        @return: when the first queue run at or after that time is, likewise.
        """
        call = self._call
        if call is None or not call.active():
            return when
        first = call.getTime()
        return first + max(0, math.ceil((when - first) / self.delay)) * self.delay

    def _run(self) -> None:
        self._call = self._clock.callLater(self.delay, self._run)
        for scan in self._scans:
            scan.request()
