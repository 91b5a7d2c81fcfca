"""
The mail log: an observer of events that writes lines.

Takes L{twisted.logger} events from any thread. Gives Postfix's lines or JSON, in C{maillog_file}, on
a standard stream or in syslog. The lines of one reactor turn are written together, at its end; an
error is written at once, with all that waited before it. C{kill -9} can lose the lines of the current
turn, never mail. It does not raise, whatever the event.

Answers to: postlogd(8), and C{maillog_file}, C{maillog_file_prefixes}, C{syslog_name},
C{syslog_facility} of postconf(5). Our own C{maillog_format} chooses C{postfix} or C{json}.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogLevel
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.maillog.render import (
    FOREIGN,
    NAMESPACE,
    JSONRenderer,
    PostfixRenderer,
    TextFormatter,
    printable,
    short_hostname,
)
from qmqpd_tx.maillog.sinks import (
    FACILITIES,
    DescriptorSink,
    FileSink,
    SyslogSender,
    SyslogSender3,
    SyslogSink,
)

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}

_URGENT = frozenset({LogLevel.error, LogLevel.critical})


_process_ids = [os.getpid()]


def _forked() -> None:
    _process_ids[0] = os.getpid()


os.register_at_fork(after_in_child=_forked)


def process_id() -> int:
    """
    @return: our process id, without a system call for every line.
    """
    return _process_ids[0]


@implementer(ILogObserver)
class MailLog:
    """
    The mail log of one service. Call it with events, or pass it where an L{ILogObserver} is wanted.
    """

    def __init__(
        self,
        config: IConfig,
        clock: IReactorTime,
        *,
        foreground: bool = False,
        verbose: bool = False,
        to_syslog: bool = False,
        hostname: str | None = None,
        pid: Callable[[], int] = process_id,
        sink: DescriptorSink | None = None,
        syslog_sender: SyslogSender | None = None,
    ) -> None:
        """
        Open the log.

        @param config: C{maillog_file}, C{maillog_file_prefixes}, C{maillog_format}, C{syslog_name},
            C{syslog_facility}, C{info_log_address_format}, C{smtputf8_enable}, C{myhostname}.
        @param clock: runs the flush at the end of a turn.
        @param foreground: whether an empty C{maillog_file} means standard error instead of syslog.
        @param verbose: whether debug events, and what Twisted has to say, are logged too.
        @param to_syslog: log to syslog whatever C{maillog_file} says (C{twistd --syslog}).
        @param hostname: for the host column; by default the first label of C{myhostname}.
        @param pid: gives the process id.
        @param sink: where lines go, instead of what the configuration says.
        @param syslog_sender: who sends to syslog, instead of syslog(3).
        @raise ConfigError: a parameter is wrong, or the file cannot be opened.
        """
        self._clock = clock
        self._foreground = foreground
        self._to_syslog = to_syslog
        self._hostname = hostname
        self._pid = pid
        self._fixed_sink = sink
        self._sender = syslog_sender
        self._verbose = verbose
        self._programs: dict[object, str | None] = {}
        self._waiting: list[tuple[Mapping[str, Any], str]] = []
        self._flush_call: IDelayedCall | None = None
        self._lock = threading.RLock()
        self._thread = threading.get_ident()
        self._closed = False
        self._target = ""
        self._sink: DescriptorSink | None = None
        self._syslog: SyslogSink | None = None
        self._formatter: TextFormatter
        self._syslog_name = ""
        self._renderer: PostfixRenderer | JSONRenderer
        self.reconfigure(config)

    @property
    def observer(self) -> MailLog:
        """What to give to a log publisher."""
        return self

    # --- events -----------------------------------------------------------------------------------

    def __call__(self, event: Mapping[str, Any]) -> None:
        """
        Log one event.
        """
        level = event.get("log_level")
        if level is LogLevel.debug and not self._verbose:
            return
        namespace = event.get("log_namespace")
        try:
            program = self._programs[namespace]
        except KeyError:
            program = self._program(namespace)
        if program is None:
            if level is LogLevel.info and not self._verbose:
                return
            program = FOREIGN
        program = event.get("program") or program
        if type(program) is not str:
            program = str(program)
        if self._syslog is not None:
            with self._lock:
                ident = f"{self._syslog_name}/{printable(program)}"
                self._syslog.send(ident, level, self._formatter.text(event))
            return
        if threading.get_ident() == self._thread:
            # Rendered at the end of the turn, all in one go.
            self._waiting.append((event, program))
            if level in _URGENT or self._closed:
                self.flush()
            elif self._flush_call is None:
                self._flush_call = self._clock.callLater(0, self._flush_turn)
        else:
            # The clock and the waiting lines belong to the reactor's thread.
            line = self._renderer.line(event, program)
            with self._lock:
                if self._sink is not None:
                    self._sink.write([line])

    def _program(self, namespace: object) -> str | None:
        program = None
        if isinstance(namespace, str) and namespace.startswith(NAMESPACE):
            program = namespace[len(NAMESPACE) :]
        if len(self._programs) > 1000:
            self._programs.clear()
        self._programs[namespace] = program
        return program

    def _flush_turn(self) -> None:
        self._flush_call = None
        self.flush()

    # --- control ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            events, self._waiting = self._waiting, []
            lines = self._renderer.lines(events) if events else []
            if self._sink is None or not (lines or self._sink.dropped):
                return
            lost = self._sink.write(lines)
            if lost is not None:
                self._own(LogLevel.warn, lost)

    def _own(self, level: Any, text: str) -> None:
        event = {
            "log_level": level,
            "log_format": "{text}",
            "log_time": self._clock.seconds(),
            "text": text,
        }
        if self._sink is not None:
            self._sink.write([self._renderer.line(event, "postlogd")])
        elif self._syslog is not None:
            self._syslog.send(f"{self._syslog_name}/postlogd", level, self._formatter.text(event))

    def reconfigure(self, config: IConfig) -> None:
        """
        Go on with another configuration: other file, other format.

        @raise ConfigError: it cannot be used; the log goes on as it was.
        """
        syslog_name = config.string("syslog_name")
        format = config.string("maillog_format")
        if format not in ("postfix", "json"):
            raise ConfigError(f"maillog_format = {format}: must be postfix or json")
        facility = FACILITIES.get(config.string("syslog_facility").lower())
        if facility is None:
            raise ConfigError(
                f"syslog_facility = {config.string('syslog_facility')}: no such facility; "
                f"use one of {', '.join(FACILITIES)}"
            )
        target = self._choose(config)
        if self._fixed_sink is not None:
            sink: DescriptorSink | None = self._fixed_sink
        elif target == self._target:
            sink = self._sink
        else:
            sink = _open_target(target)
        self.flush()
        if self._sink is not None and self._sink is not sink:
            self._sink.close()
        hostname = self._hostname or short_hostname(config.string("myhostname"))
        renderer = JSONRenderer if format == "json" else PostfixRenderer
        self._target = target
        self._sink = sink
        self._syslog_name = printable(syslog_name)
        quote = config.string("info_log_address_format") == "external"
        self._formatter = TextFormatter(quote, config.boolean("smtputf8_enable"))
        self._renderer = renderer(hostname, syslog_name, self._pid, self._formatter)
        self._syslog = None
        if sink is None:
            self._sender = self._sender or SyslogSender3()
            self._syslog = SyslogSink(facility, self._sender)

    def _choose(self, config: IConfig) -> str:
        """
        @return: a file name, or C{""} for syslog.
        """
        if self._to_syslog:
            return ""
        path = config.string("maillog_file")
        if not path:
            return "/dev/stderr" if self._foreground else ""
        prefixes = config.words("maillog_file_prefixes")
        if path not in _STREAMS and not any(path.startswith(prefix) for prefix in prefixes):
            raise ConfigError(
                f"maillog_file = {path}: does not start with one of maillog_file_prefixes "
                f"({', '.join(prefixes)}); choose another file or add its folder there"
            )
        return path

    def reopen(self) -> None:
        """Go on in a new file of the same name, after rotation (SIGHUP)."""
        self.flush()
        if isinstance(self._sink, FileSink):
            problem = self._sink.reopen()
            if problem is not None:
                self._own(LogLevel.warn, problem)

    def close(self) -> None:
        """
        Write what waits and stop delaying lines: an event after this is written at once.
        """
        self.flush()
        self._closed = True
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None


def _open_target(target: str) -> DescriptorSink | None:
    """
    @return: a sink, or L{None} for syslog.
    """
    if not target:
        return None
    try:
        if target in _STREAMS:
            # A copy: twistd redirects the standard streams when it becomes a daemon.
            return DescriptorSink(os.dup(_STREAMS[target]))
        return FileSink(target)
    except OSError as problem:
        raise ConfigError(
            f"maillog_file = {target}: {problem.strerror}; give the user of this service the right to "
            f"append to it, or choose another file"
        ) from problem
