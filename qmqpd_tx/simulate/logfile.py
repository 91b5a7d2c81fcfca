"""
The mail log of a simulation: the lines that the queue manager and the delivery agents would have logged, with
the simulated time.

Takes events, writes lines by the renderer of the real mail log. An L{OSError} while opening is the caller's
to explain.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from qmqpd_tx.maillog.render import NAMESPACE, PostfixRenderer

_LINES: Final = 1000
"""So many lines are written together."""


@implementer(ILogObserver)
class LogFile:
    """
    A context manager; call it with events.
    """

    def __init__(self, path: str) -> None:
        """
        @param path: of the file, which is replaced.
        """
        self._file = open(path, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._renderer = PostfixRenderer("simulated", "postfix", lambda: 1)
        self._waiting: list[tuple[LogEvent, str]] = []

    def __enter__(self) -> LogFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write()
        finally:
            self._file.close()

    def __call__(self, event: LogEvent) -> None:
        """
        Take an event.
        """
        namespace = event.get("log_namespace") or ""
        if not namespace.startswith(NAMESPACE) or event.get("log_level") is LogLevel.debug:
            return
        self._waiting.append((event, str(event.get("program") or namespace[len(NAMESPACE) :])))
        if len(self._waiting) >= _LINES:
            self._write()

    def _write(self) -> None:
        lines, self._waiting = self._renderer.lines(self._waiting), []
        self._file.writelines(lines)
