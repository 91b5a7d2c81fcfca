"""
What a header or body check asks for, and doing it. Pure but for the log.

Takes the result of a table, as in C{REDIRECT user@domain}, and the header or line that was looked up; writes
into the L{Verdict<qmqpd_tx.cleanup.verdict.Verdict>} and says what to store in place of the text. Never
raises: what the operator wrote wrongly is logged and has no effect. Answers to the actions of
header_checks(5), watched in a running Postfix:

  - after REJECT, DISCARD, REDIRECT and PASS nothing more is looked up for this message;
  - only the first HOLD is logged; IGNORE and DUNNO are not logged at all;
  - the text of REPLACE and PREPEND is not looked up again.

A pattern may copy parts of the message into what it asks for. What is to be stored as a header stays one
header, and nothing has a line end or a NUL where none belongs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from attrs import frozen

from qmqpd_tx.address.rewrite import CONTROLS
from qmqpd_tx.cleanup.errors import printable
from qmqpd_tx.cleanup.remarks import Remarks
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import IntakeError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

REPLY_LIMIT = 512
"""The longest text of a REJECT in a reply, in bytes: a pattern may copy parts of the content into it."""

_HEADER_TEXT = re.compile(rb"[!-9;-~]+[ \t]*:")
_NEW_LINE = re.compile(rb"\n(?![ \t])")
_NO_TEXT = bytes.maketrans(b"\r\0", b"  ")
_STATUS = re.compile(rb"([0-9])\.([0-9]{1,3})\.([0-9]{1,3})(?=[ \t]|$)[ \t]*")


@frozen(slots=True)
class Check:
    """
    Which check it is.

    @ivar parameter: C{header_checks} and so on.
    @ivar context: C{header} or C{body}, for the log.
    @ivar prepends: whether PREPEND is possible.
    """

    parameter: str
    context: str
    prepends: bool = True


@frozen(slots=True)
class Edit:
    """
    What is stored instead of a header or a line; both without the line end.

    @ivar before: what comes in front of it; L{None}: nothing.
    @ivar text: the text; L{None}: it is dropped.
    """

    before: bytes | None
    text: bytes | None


_DROP = Edit(None, None)


def _command(value: bytes) -> tuple[str, bytes]:
    """
    @return: the action in upper case, and the rest.
    """
    # A long one has parts of a message in it, and will not come again.
    return _short_command(value) if len(value) <= REPLY_LIMIT else _split(value)


def _split(value: bytes) -> tuple[str, bytes]:
    words = value.split(None, 1) or [b""]
    return words[0].decode("latin-1").upper(), words[1] if len(words) == 2 else b""


_short_command = lru_cache(1000)(_split)


class Actions:
    """
    The actions for one message.

    @ivar active: whether to look further.
    """

    __slots__ = ("_queue_id", "_remarks", "_verdict", "active")

    def __init__(self, verdict: Verdict, queue_id: QueueID, remarks: Remarks) -> None:
        """
        @param verdict: what is decided.
        @param queue_id: the message.
        @param remarks: takes what to log.
        """
        self.active = True
        self._verdict = verdict
        self._queue_id = queue_id
        self._remarks = remarks

    def perform(self, value: bytes, check: Check, text: bytes) -> Edit | None:
        """
        @param value: the result of the table.
        @param check: which check gave it.
        @param text: the header or line that was looked up.
        @return: what to store instead; L{None}: the text stays.
        """
        word, rest = _command(value)
        action = _ACTIONS.get(word)
        if action is None or (word == "PREPEND" and not check.prepends):
            self._warn(
                "unknown command in {parameter} map: {command}", parameter=check.parameter, command=value
            )
            return None
        return action(self, rest, check, text)

    def _warn(self, format: str, **fields: object) -> None:
        # Postfix does not name the message here: it is the table that is wrong.
        log.warn(format, queue_id=self._queue_id, **fields)

    # --- the actions -------------------------------------------------------------------------------

    def _reject(self, rest: bytes, check: Check, text: bytes) -> None:
        status = _STATUS.match(rest)
        rest = rest[:REPLY_LIMIT]
        if status is None:
            reason = b"5.7.1 " + (rest or b"message content rejected")
        elif status.group(1) in b"45":
            reason = status.group()[: status.end(3)] + b" " + rest[status.end() :]
        else:
            self._warn("bad DSN action in {command} -- need 4.x.x or 5.x.x", command=rest)
            reason = b"4.0.0 " + rest[status.end() :]
        dsn = reason.partition(b" ")[0].decode("ascii")
        self._remarks.add("reject", check.context, text, reason)
        self._verdict.reject(IntakeError(dsn.startswith("5"), dsn, "Error: " + printable(reason)))
        self.active = False

    def _discard(self, rest: bytes, check: Check, text: bytes) -> None:
        self._remarks.add("discard", check.context, text, rest)
        self._verdict.throw_away()
        self.active = False

    def _hold(self, rest: bytes, check: Check, text: bytes) -> None:
        if not self._verdict.hold:
            self._remarks.add("hold", check.context, text, rest)
            self._verdict.hold = True

    def _pass(self, rest: bytes, check: Check, text: bytes) -> None:
        self._remarks.add("pass", check.context, text, rest)
        self._verdict.passed = True
        self.active = False

    def _redirect(self, rest: bytes, check: Check, text: bytes) -> None:
        if self._is_address("REDIRECT target", rest, check):
            self._remarks.add("redirect", check.context, text, rest)
            self._verdict.redirect = CONTROLS.sub(b" ", rest)
            self.active = False

    def _bcc(self, rest: bytes, check: Check, text: bytes) -> None:
        if self._is_address("BCC address", rest, check):
            self._remarks.add("bcc", check.context, text, rest)
            self._verdict.bcc[rest] = None

    def _is_address(self, what: str, rest: bytes, check: Check) -> bool:
        if b"@" in rest:
            return True
        self._warn(
            'bad {what} "{target}" in {parameter} map -- need user@domain',
            what=what,
            target=rest,
            parameter=check.parameter,
        )
        return False

    def _filter(self, rest: bytes, check: Check, text: bytes) -> None:
        if not rest:
            self._warn("missing FILTER command argument in {parameter} map", parameter=check.parameter)
        elif b":" not in rest:
            self._warn(
                "bad FILTER command {command} in {parameter} -- need transport:destination",
                command=rest,
                parameter=check.parameter,
            )
        else:
            self._remarks.add("filter", check.context, text, rest)
            self._verdict.content_filter = CONTROLS.sub(b" ", rest)

    def _warning(self, rest: bytes, check: Check, text: bytes) -> None:
        self._remarks.add("warning", check.context, text, rest)

    def _info(self, rest: bytes, check: Check, text: bytes) -> None:
        self._remarks.add("info", check.context, text, rest)

    def _strip(self, rest: bytes, check: Check, text: bytes) -> Edit:
        self._remarks.add("strip", check.context, text, rest)
        return _DROP

    def _ignore(self, rest: bytes, check: Check, text: bytes) -> Edit:
        return _DROP

    def _dunno(self, rest: bytes, check: Check, text: bytes) -> None:
        return None

    def _replace(self, rest: bytes, check: Check, text: bytes) -> Edit | None:
        if not self._usable("REPLACE", rest, check):
            return None
        self._remarks.add("replace", check.context, text, rest)
        return Edit(None, _storable(rest, check))

    def _prepend(self, rest: bytes, check: Check, text: bytes) -> Edit | None:
        if not self._usable("PREPEND", rest, check):
            return None
        self._remarks.add("prepend", check.context, text, rest)
        return Edit(_storable(rest, check), text)

    def _usable(self, action: str, rest: bytes, check: Check) -> bool:
        if not rest:
            self._warn(
                "{action} action without text in {parameter} map", action=action, parameter=check.parameter
            )
            return False
        if check.context == "header" and not _HEADER_TEXT.match(rest):
            self._warn(
                'bad {action} header text "{text}" in {parameter} map -- need "headername: headervalue"',
                action=action,
                text=rest,
                parameter=check.parameter,
            )
            return False
        return True


def _storable(text: bytes, check: Check) -> bytes:
    """
    @param text: of a REPLACE or PREPEND.
    @return: the same as one header, whose further lines are continuations; or as one line of a body.
    """
    text = text.translate(_NO_TEXT)
    if b"\n" not in text:
        return text
    if check.context != "header":
        return text.replace(b"\n", b" ")
    return _NEW_LINE.sub(b"\n\t", text)


_ACTIONS: Mapping[str, Callable[[Actions, bytes, Check, bytes], Edit | None]] = MappingProxyType(
    {
        "REJECT": Actions._reject,
        "DISCARD": Actions._discard,
        "HOLD": Actions._hold,
        "PASS": Actions._pass,
        "REDIRECT": Actions._redirect,
        "BCC": Actions._bcc,
        "FILTER": Actions._filter,
        "WARN": Actions._warning,
        "INFO": Actions._info,
        "STRIP": Actions._strip,
        "IGNORE": Actions._ignore,
        "DUNNO": Actions._dunno,
        "OK": Actions._dunno,
        "REPLACE": Actions._replace,
        "PREPEND": Actions._prepend,
    }
)
