"""
Ends a process that is stuck.

A service: as long as the reactor turns, it keeps pushing back an alarm that is C{qmgr_daemon_timeout} away.
When the reactor does not turn for so long (an endless loop, a deadlock, a file system that hangs under a
synchronous call), the alarm goes off without any help from Python: where all threads are is written to the
standard error stream, and the process ends with status 1, as if killed. Nothing is lost by that: the queue
is on disk, and the next start brings back what was active. Whoever supervises the service starts it again,
as master(8) does with Postfix's daemons. Answers to qmgr(8)'s watchdog.

A process that was stopped (SIGSTOP, a sleeping laptop) for longer than that looks the same, and ends as well.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from qmqpd_tx.interfaces import IConfig

_PARTS: Final = 10
"""The alarm is pushed back so often within its time."""

_INTERVAL: Final = 60.0
"""But it is pushed back at least so often, in seconds."""


def arm(seconds: float) -> None:
    """
    Set, or push back, the alarm of this process.
    """
    # Not sys.stderr, which twistd has given to the log; and a process may have been started without any.
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)


class Watchdog(Service):
    """Guards the process as long as it runs."""

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        arm: Callable[[float], None] = arm,
        disarm: Callable[[], None] = faulthandler.cancel_dump_traceback_later,
    ) -> None:
        """
        @param config: where C{qmgr_daemon_timeout} is read.
        @param clock: the reactor that is watched.
        @param arm: sets the alarm, or sets it anew, to so many seconds from now.
        @param disarm: ends it.
        """
        self._clock = clock
        self._arm = arm
        self._disarm = disarm
        self._call: IDelayedCall | None = None
        self.reconfigure(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        Take a new configuration.
        """
        self._limit = config.seconds("qmgr_daemon_timeout")
        if self.running:
            self._push()

    def startService(self) -> None:
        """
        Set the alarm. To be started in the process that is to be watched, after it has become a daemon.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._push()

    def stopService(self) -> None:
        """
        End it.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._disarm()

    def _push(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._arm(self._limit)
        self._call = self._clock.callLater(min(self._limit / _PARTS, _INTERVAL), self._push)
