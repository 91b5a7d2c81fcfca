"""
The lines of the control socket. Pure, and free of Twisted, so that commands start quickly.

Takes bytes, gives JSON objects, and back. A line is bounded; what is no JSON object is a
L{ControlError} that says so.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any

import attrs

SOCKET = "public/control"
"""Where the socket is, under C{queue_directory}."""

LINE_LIMIT = 64 * 1024
"""The longest request, in bytes."""

ANSWER_LIMIT = 16 * 1024 * 1024
"""The longest answer, in bytes."""


class ControlError(Exception):
    """A handler's, or the service's, refusal; the text is for the person at the other end."""


class LineTooLong(ControlError):
    """More bytes than the limit without an end of line."""


class LineDecoder:
    """Cuts bytes into lines. Sans-I/O; remembers at most one line."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        """
        @param limit: the longest line, in bytes.
        """
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """
        @return: the lines that are complete now, without their ends.
        @raise LineTooLong: a line has more than the limit; the stream cannot be followed any more.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise LineTooLong(f"a line has more than {self._limit} bytes")
        return lines


def decode_object(line: bytes) -> dict[str, Any]:
    """
    @return: the JSON object in a line.
    @raise ControlError: there is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise ControlError(f"not JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise ControlError("not a JSON object")
    return value


def encode_object(value: Mapping[str, Any]) -> bytes:
    """
    @param value: what JSON can carry; attrs values inside become objects, enums their values, and bytes
        text.
    @return: a line, with its end.
    @raise TypeError: something in it is neither.
    """
    return json.dumps(value, default=_plain).encode("ascii") + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, enum.Enum):
        return value.value
    kind: type = type(value)
    if attrs.has(kind):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    raise TypeError(f"{type(value).__name__} cannot be told in JSON")
