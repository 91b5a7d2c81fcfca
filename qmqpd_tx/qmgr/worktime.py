"""
How long a thread has worked, or would have if it had been given a processor.

Gives seconds, for the thread that asks first. What it waits for a processor that others have is no idle time:
where Linux tells (schedstat), it counts as work. Elsewhere, and in a chroot without /proc, only the processor
time is known.
"""

from __future__ import annotations

import os
import time

SCHEDSTAT = "/proc/thread-self/schedstat"
"""Nanoseconds on a processor, nanoseconds of waiting for one, and a count."""


class WorkTime:
    """
    Ask it, in one thread only.

    @param path: where Linux tells.
    """

    __slots__ = ("_file", "_path")

    def __init__(self, path: str = SCHEDSTAT) -> None:
        self._path = path
        # Opened in the thread that it is about, and after the service has become a daemon.
        self._file: int | None = None

    def __call__(self) -> float:
        """
        @return: seconds.
        """
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            # The first figure is as old as the last tick of the scheduler: the clock of the thread is exact.
            _, waiting, _ = os.pread(self._file, 100, 0).split()
            return time.thread_time() + int(waiting) / 1e9
        except (OSError, ValueError):
            return time.thread_time()

    def close(self) -> None:
        """
        Ask no more.
        """
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
