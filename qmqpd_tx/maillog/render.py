"""
From an event to the text of a line. Pure.

Takes the events of L{twisted.logger}. Gives what Postfix would have logged, or one JSON object. No
field, wherever it came from, can break a line, forge another or move a terminal's cursor: whatever
is not printable becomes C{?}, as in Postfix; the JSON form escapes instead. Texts are bounded. Nothing
here raises: an event that cannot be formatted says so in its own line.

Mail addresses are logged in internal form, as bytes, in fields of their own (L{ADDRESSES}); how they are
shown is decided here (C{info_log_address_format}). JSON has them in internal form, but for the text of the
line.

Answers to: the C{msg} and C{printable} conventions of all Postfix programs, seen in maillog_file(5).
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from twisted.logger import LogLevel, formatEvent

from qmqpd_tx.address.syntax import quote_address, strip_source_route

NAMESPACE = "qmqpd_tx."
"""Where our own programs log: C{qmqpd_tx.smtp} is C{postfix/smtp}."""

FOREIGN = "twistd"
"""The program under which events of Twisted and of other packages are shown."""

ADDRESSES = frozenset({"orig_to", "recipient", "sender", "to"})
"""The fields that hold an address."""

TEXT_LIMIT = 8192
"""The longest text of a line, in characters. Longer ones are cut."""

TRACE_LIMIT = 4096
"""The longest traceback, in characters: its beginning and, mostly, its end are kept."""

_FORMATS_LIMIT = 2000
"""How many compiled formats are kept; only a caller that builds formats at run time gets there."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_PREFIXES: dict[Any, str] = {
    LogLevel.warn: "warning: ",
    LogLevel.error: "error: ",
    LogLevel.critical: "fatal: ",
}

_LEVEL_NAMES: dict[Any, str] = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "fatal",
}

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_ROUTE = re.compile(rb"@[A-Za-z0-9.,@-]+:")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def printable(text: str) -> str:
    """
    @return: C{text} with each character that is not printable (controls, line separators, text direction
        marks, what was no UTF-8) replaced by C{?}. Printable UTF-8 stays, as in Postfix.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def ascii_printable(text: str) -> str:
    """
    @return: as L{printable}, with a C{?} for each byte beyond ASCII too: Postfix's log with
        C{smtputf8_enable = no}.
    """
    return _BEYOND_ASCII.sub(b"?", printable(text).encode("utf-8")).decode("ascii")


def field_text(value: object) -> str:
    """
    @return: a field's value as text: bytes as UTF-8, an undecodable byte as C{?}; a float as Postfix
        writes delays.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        # One '?' for each undecodable byte, which is what surrogateescape leads to in printable().
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        return delay_text(value)
    return str(value)


def external(address: bytes) -> bytes:
    """
    @param address: in internal form, as a client sent it.
    @return: in external form; a source route stays in front, as in Postfix.
    """
    if address.startswith(b"@"):
        direct = strip_source_route(address)
        route = address[: len(address) - len(direct)]
        if _ROUTE.fullmatch(route):
            return route + quote_address(direct)
    return quote_address(address)


def delay_text(seconds: float) -> str:
    """
    @return: a time as Postfix logs delays: about two significant digits, at most two decimals
        (C{delay_logging_resolution_limit}), no trailing zeros: C{0.02}, C{2.6}, C{12}, C{345}.
    """
    if seconds != seconds or seconds in (float("inf"), float("-inf")):
        return str(seconds)
    if abs(seconds) < 0.995:
        text = f"{seconds:.2f}"
    elif abs(seconds) < 9.95:
        text = f"{seconds:.1f}"
    else:
        return f"{seconds:.0f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def failure_text(failure: Any) -> str:
    """
    @param failure: a L{twisted.python.failure.Failure}.
    @return: its exception and its bounded traceback, in one line: C{ | } between the lines.
    """
    try:
        lines = [line.strip() for line in failure.getTraceback().splitlines() if line.strip()]
        text = " | ".join(lines)
    except Exception as problem:
        # A traceback shows foreign objects, which may refuse to be shown.
        return f"unprintable failure ({type(problem).__name__})"
    if len(text) > TRACE_LIMIT:
        half = TRACE_LIMIT // 2
        text = text[:half] + " ... " + text[-half:]
    return text


class Timestamps:
    """C{Nov  2 05:00:52} in local time, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, now: float) -> str:
        """
        @param now: POSIX seconds.
        """
        second = int(now)
        if second != self._second:
            local = time.localtime(second)
            # Not strftime: Postfix's month names do not follow the locale.
            self._text = (
                f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} "
                f"{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
            )
            self._second = second
        return self._text


class TextFormatter:
    """
    Makes the text of an event, level prefix included.

    A format is compiled once to a C{%} template and its field names: a fourth of the price of
    L{formatEvent}, which remains for formats that are more than plain C{{name}} fields.

    @param quote: whether addresses are shown in external form.
    @param utf8: whether UTF-8 is shown; otherwise C{?} for each of its bytes.
    """

    def __init__(self, quote: bool = True, utf8: bool = True) -> None:
        self._quote = quote
        self._utf8 = utf8
        self._compiled: dict[str, Compiled | None] = {}

    def text(self, event: Mapping[str, Any]) -> str:
        """
        @return: one printable line without its end.
        """
        format = event.get("log_format")
        compiled: Compiled | None
        try:
            compiled = self._compiled[format]  # type: ignore[index]
        except (KeyError, TypeError):
            compiled = self._compile(format)
        text = None
        if compiled is not None:
            template, names, addresses = compiled
            try:
                values = [
                    value
                    if (kind := type(value := event[name])) is str
                    # The commonest conversions without a call: addresses and counts.
                    else value.decode("ascii")
                    if kind is bytes and value.isascii()
                    else str(value)
                    if kind is int
                    else field_text(value)
                    for name in names
                ]
                if addresses and self._quote:
                    for index, name in addresses:
                        address = event[name]
                        if type(address) is bytes and (quoted := external(address)) is not address:
                            values[index] = field_text(quoted)
                text = template % tuple(values)
            except Exception:
                # A missing field, or a value that refuses to be shown: formatEvent says so in its text.
                text = None
        if text is None:
            text = formatEvent(dict(event))
        failure = event.get("log_failure")
        level = event.get("log_level")
        if failure is not None:
            trace = failure_text(failure)
            text = f"{text}: {trace}" if text else trace
            # Logger.failure says critical, which is Postfix's word for a program that ends; ours goes on.
            text = ("warning: " if level is LogLevel.warn else "error: ") + text
        elif level is not LogLevel.info:
            text = _PREFIXES.get(level, "") + text
        if len(text) > TEXT_LIMIT:
            text = text[:TEXT_LIMIT] + "..."
        if not self._utf8 and not text.isascii():
            return ascii_printable(text)
        return text if text.isprintable() else printable(text)

    def _compile(self, format: object) -> Compiled | None:
        compiled = compile_format(format) if isinstance(format, str) else None
        if isinstance(format, str):
            if len(self._compiled) >= _FORMATS_LIMIT:
                self._compiled.clear()
            self._compiled[format] = compiled
        return compiled


Compiled = tuple[str, tuple[str, ...], Sequence[tuple[int, str]]]
"""A C{%} template, the names of its fields, and those with addresses, each with its place."""


def compile_format(format: str) -> Compiled | None:
    """
    @return: L{None} when the format has more than plain C{{name}} fields.
    """
    template: list[str] = []
    names: list[str] = []
    try:
        for literal, name, spec, conversion in Formatter().parse(format):
            template.append(literal.replace("%", "%%"))
            if name is None:
                continue
            if spec or conversion or not _PLAIN_NAME.match(name):
                return None
            template.append("%s")
            names.append(name)
    except ValueError:
        return None
    addresses = [(index, name) for index, name in enumerate(names) if name in ADDRESSES]
    return "".join(template), tuple(names), addresses


class PostfixRenderer:
    """
    Events to Postfix's lines: C{Nov 22 05:00:52 relay postfix/smtp[123]: text}.
    """

    def __init__(
        self, hostname: str, syslog_name: str, pid: Callable[[], int], formatter: TextFormatter | None = None
    ) -> None:
        """
        @param hostname: for the second column; Postfix shows the first label of C{myhostname}.
        @param syslog_name: what comes before the program name.
        @param pid: gives the process id (it changes when the service becomes a daemon).
        @param formatter: makes the text.
        """
        self._hostname = printable(hostname)
        self._syslog_name = printable(syslog_name)
        self._pid = pid
        self._formatter = formatter or TextFormatter()
        self._timestamps = Timestamps()
        self._heads: dict[str, str] = {}
        self._heads_pid = -1

    def lines(self, events: Iterable[tuple[Mapping[str, Any], str]]) -> list[str]:
        """
        Render the events of a turn; what they have in common is looked up once.

        @param events: events with their programs.
        @return: the lines, with their ends.
        """
        lines = []
        text = self._formatter.text
        second, head_of, stamp, head = -1, "", "", ""
        for event, program in events:
            now = int(event.get("log_time") or 0.0)
            if now != second or program != head_of:
                second, head_of = now, program
                stamp, head = self._timestamps.text(now), self._head(program)
            lines.append(f"{stamp}{head}{text(event)}\n")
        return lines

    def line(self, event: Mapping[str, Any], program: str) -> str:
        """
        @return: the line, with its end.
        """
        stamp = self._timestamps.text(event.get("log_time") or 0.0)
        return f"{stamp}{self._head(program)}{self._formatter.text(event)}\n"

    def _head(self, program: str) -> str:
        pid = self._pid()
        if pid != self._heads_pid or len(self._heads) > _FORMATS_LIMIT:
            self._heads.clear()
            self._heads_pid = pid
        head = self._heads.get(program)
        if head is None:
            head = self._heads[program] = (
                f" {self._hostname} {self._syslog_name}/{printable(program)}[{pid}]: "
            )
        return head


class JSONRenderer:
    """
    Events to one JSON object a line: C{time} (POSIX seconds), C{host}, C{program}, C{pid}, C{level},
    C{queue_id} (when there is one), C{message} (the text of the line) and every field of the event.
    """

    def __init__(
        self, hostname: str, syslog_name: str, pid: Callable[[], int], formatter: TextFormatter | None = None
    ) -> None:
        """As L{PostfixRenderer}."""
        self._hostname = hostname
        self._syslog_name = syslog_name
        self._pid = pid
        self._formatter = formatter or TextFormatter()

    def lines(self, events: Iterable[tuple[Mapping[str, Any], str]]) -> list[str]:
        """As L{PostfixRenderer.lines}."""
        return [self.line(event, program) for event, program in events]

    def line(self, event: Mapping[str, Any], program: str) -> str:
        """As L{PostfixRenderer.line}."""
        level = event.get("log_level")
        if event.get("log_failure") is not None and level is LogLevel.critical:
            level = LogLevel.error
        record: dict[str, object] = {
            "time": round(float(event.get("log_time") or 0.0), 6),
            "host": self._hostname,
            "program": f"{self._syslog_name}/{program}",
            "pid": self._pid(),
            "level": _LEVEL_NAMES.get(level, "info"),
            "queue_id": None,
            "message": self._formatter.text(event),
        }
        for name, value in event.items():
            if not name.startswith("log_") and name not in _RESERVED:
                record[name] = json_value(value)
        if record["queue_id"] is None:
            del record["queue_id"]
        return json.dumps(record, ensure_ascii=True) + "\n"


_RESERVED = frozenset({"time", "host", "program", "pid", "level", "message"})
"""What a field cannot replace: the log's own columns."""


def json_value(value: object) -> object:
    """
    @return: a field's value as JSON can carry it: bytes as text (an undecodable byte as C{\\udcXX} would
        be no Unicode, so it is C{?}), other objects by their C{str}.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    try:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception as problem:
        text = f"unprintable {type(value).__name__} ({type(problem).__name__})"
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "..."


def short_hostname(myhostname: str) -> str:
    """
    @return: the host column: the first label of C{myhostname}, or this machine's name.
    """
    return (myhostname or socket.gethostname()).partition(".")[0]
