"""
Characters that no message may have: C{message_reject_characters} and C{message_strip_characters}. Pure.

Takes the text of such a parameter, gives the bytes that it names. Never fails: a backslash before anything
that is no escape is left out, as in Postfix. Answers to cleanup(8).
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.?)", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _unescape(match: re.Match[bytes]) -> bytes:
    name = match.group(1)
    if name[:1].isdigit() and name < b"8":
        return bytes([int(name, 8) & 0xFF])
    return _LETTERS.get(name, name)


def characters(text: bytes) -> bytes:
    """
    @param text: as written, with escapes as in C: C{\\a \\b \\f \\n \\r \\t \\v \\ddd \\\\}.
    @return: the bytes, each once. A newline is not among them: it ends lines, and is in none.
    """
    return bytes(sorted(set(_ESCAPE.sub(_unescape, text)) - {0x0A}))


def pattern(found: bytes) -> re.Pattern[bytes] | None:
    """
    @param found: from L{characters}.
    @return: what finds one of them; L{None} if there are none.
    """
    return re.compile(b"[" + re.escape(found) + b"]") if found else None


def line_around(data: bytes, position: int) -> bytes:
    """
    @return: the line of C{data} that has this position, for the log.
    """
    start = data.rfind(b"\n", 0, position) + 1
    end = data.find(b"\n", position)
    return data[start : len(data) if end < 0 else end]
