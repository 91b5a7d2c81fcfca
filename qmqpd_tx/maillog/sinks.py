"""
Where log lines go: a file, a standard stream, or syslog.

Takes rendered lines. Promises to log what can be logged and never to raise or to hold up mail because
of the log: when a file system is full or a pipe has no reader the lines are counted and dropped, and
the count is logged when writing works again. Lines are written whole, with one write a batch, so
several processes may append to one file. Not fsynced: a log line is not a promise.

Answers to: postlogd(8) (C{maillog_file}) and syslog(3).
"""

from __future__ import annotations

import os
import syslog
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import LogLevel

PENDING_LIMIT = 1 << 20
"""How many bytes wait for a stream that cannot take them now; the rest is dropped and counted."""

FACILITIES: dict[str, int] = {
    "ftp": 11 << 3,  # RFC 5424; the syslog module has no name for it
    "security": syslog.LOG_AUTH,
    **{
        name: getattr(syslog, f"LOG_{name.upper()}")
        for name in (
            "auth", "cron", "daemon", "kern", "lpr", "mail", "news", "syslog", "user", "uucp",
            "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        )
    },
    # Not on every Unix.
    "authpriv": getattr(syslog, "LOG_AUTHPRIV", syslog.LOG_AUTH),
}  # fmt: skip
"""The values of C{syslog_facility}."""

_PRIORITIES: dict[Any, int] = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


class DescriptorSink:
    """
    Lines to an open file descriptor.

    @ivar dropped: lines dropped since the last that could be written.
    """

    def __init__(self, descriptor: int) -> None:
        """
        @param descriptor: open for writing; closed by L{close}.
        """
        self.dropped = 0
        self._descriptor = descriptor
        self._rest = b""
        self._reason = ""

    def write(self, lines: Sequence[str]) -> str | None:
        """
        Write lines that end in a newline.

        @return: what to say about lines that were lost before and are lost no more, or L{None}.
        """
        data = self._rest + "".join(lines).encode("utf-8", "replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            # A non-blocking pipe is full: keep a bounded rest for the next turn.
            if len(data) > PENDING_LIMIT:
                kept = data.rfind(b"\n", 0, PENDING_LIMIT) + 1
                self.dropped += data.count(b"\n", kept)
                self._reason = "the reader is too slow"
                data = data[:kept]
            self._rest = data
            return None
        except OSError as problem:
            # No space, no reader. What was cut in mid-line stays so; a newline would fail as well.
            self._rest = b""
            self.dropped += len(lines)
            self._reason = problem.strerror or type(problem).__name__
            return None
        self._rest = b""
        if self.dropped:
            said = f"{self.dropped} log lines were lost: {self._reason}"
            self.dropped = 0
            return said
        return None

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class FileSink(DescriptorSink):
    """
    Lines to the end of a file, which may be renamed away for rotation: see L{reopen}.
    """

    def __init__(self, path: str) -> None:
        """
        @param path: made when missing, with mode 0644 as Postfix does it.
        @raise OSError: it cannot be opened.
        """
        self._path = path
        super().__init__(self._open())

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def reopen(self) -> str | None:
        """
        Go on in the file that has the name now.

        @return: L{None}, or why the old file stays in use (after C{--uid} or C{--chroot} the new one may
            be out of reach).
        """
        try:
            descriptor = self._open()
        except OSError as problem:
            return f"cannot reopen maillog_file {self._path}: {problem.strerror}; the old file stays in use"
        os.close(self._descriptor)
        self._descriptor = descriptor
        return None


SyslogSender = Callable[[str, int, str], None]
"""Takes the name of the program, facility and priority in one number, and the text."""


class SyslogSender3:
    """syslog(3) of the C library, which knows one program name at a time."""

    def __init__(self) -> None:
        self._ident: str | None = None
        # Connect to /dev/log now: after a chroot it is out of reach, but stays connected.
        syslog.openlog("postfix", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_MAIL)

    def __call__(self, ident: str, priority: int, text: str) -> None:
        """
        Send one line.
        """
        if ident != self._ident:
            syslog.openlog(ident, syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_MAIL)
            self._ident = ident
        syslog.syslog(priority, text)


class SyslogSink:
    """Texts to syslog, each under the name of its program."""

    def __init__(self, facility: int, sender: SyslogSender) -> None:
        """
        @param facility: one of L{FACILITIES}.
        @param sender: who sends; L{SyslogSender3} in service.
        """
        self._facility = facility
        self._sender = sender

    def send(self, ident: str, level: Any, text: str) -> None:
        """
        Send one line.

        @param ident: as in C{postfix/smtp}.
        @param level: a L{LogLevel}.
        """
        try:
            self._sender(ident, self._facility | _PRIORITIES.get(level, syslog.LOG_INFO), text)
        except OSError:
            # Nobody listens; syslog(3) has no way to say so either.
            return
