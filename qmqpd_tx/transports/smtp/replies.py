"""
SMTP replies: bytes from the server in, complete replies out.

L{ReplyParser} takes bytes in any chunking and gives L{Reply} values; its memory is bounded by
C{line_length_limit} whatever the server sends: longer lines and longer multi-line replies lose their
middle, never their meaning (the last line of a reply decides). Lines that are no SMTP reply are counted
in C{garbage} and skipped, as smtp(8) does. It never raises. Answers to smtp(8), RFC 5321 section 4.2
and RFC 2034.
"""

from __future__ import annotations

import re

_ENHANCED = re.compile(rb"\d{3}[ \-]([245])\.(\d{1,3})\.(\d{1,3})(?:\s|$)")


class Reply:
    """
    One complete reply.

    @ivar code: the three digits of its last line.
    @ivar lines: its lines, with code, without line end.
    """

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: list[bytes]) -> None:
        self.code = code
        self.lines = lines

    def __repr__(self) -> str:
        return f"Reply({self.code}, {self.lines!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and (self.code, self.lines) == (other.code, other.lines)

    __hash__ = None  # type: ignore[assignment]

    @property
    def ok(self) -> bool:
        """Whether the command was taken (2xx)."""
        return 200 <= self.code <= 299

    @property
    def text(self) -> str:
        """The reply as Postfix logs it: all lines with their codes, joined by a space."""
        lines = self.lines
        return (lines[0] if len(lines) == 1 else b" ".join(lines)).decode("utf-8", "backslashreplace")

    @property
    def dsn(self) -> str:
        """
        The RFC 3463 code: the one that the last line gives if its class agrees with the reply's, else
        C{X.0.0}; C{5.5.0} for a reply whose class makes no sense here.
        """
        line = self.lines[-1]
        digit = self.code // 100
        if digit not in (2, 4, 5):
            return "5.5.0"
        match = _ENHANCED.match(line)
        if match is not None and match[1][0] - 48 == digit:
            return f"{digit}.{int(match[2])}.{int(match[3])}"
        return f"{digit}.0.0"


class ReplyParser:
    """
    Cuts a byte stream into replies.

    @ivar garbage: lines that were no reply, so far.
    @ivar last_garbage: the newest of them.
    """

    __slots__ = ("_limit", "_lines", "_pending", "_size", "garbage", "last_garbage")

    def __init__(self, limit: int) -> None:
        """
        @param limit: the most bytes kept of one line, and of all lines of one reply but its last.
        """
        self._limit = limit
        self._pending = b""
        self._lines: list[bytes] = []
        self._size = 0
        self.garbage = 0
        self.last_garbage = b""

    def feed(self, data: bytes) -> list[Reply]:
        """
        @return: the replies that are complete now, in order.
        """
        if self._pending:
            data = self._pending + data
        lines = data.split(b"\n")
        # Of a line without an end only the beginning is kept: the rest of it cannot change the reply.
        self._pending = lines.pop()[: self._limit]
        replies: list[Reply] = []
        for line in lines:
            line = line[: self._limit].rstrip(b"\r ")
            digits = line[:3]
            more = line[3:4]
            if len(digits) < 3 or not digits.isdigit() or (more and more not in b" -"):
                self.garbage += 1
                self.last_garbage = line
            elif more == b"-":
                if self._size <= self._limit:
                    self._lines.append(line)
                    self._size += len(line)
            elif self._lines:
                self._lines.append(line)
                replies.append(Reply(int(digits), self._lines))
                self._lines = []
                self._size = 0
            else:
                replies.append(Reply(int(digits), [line]))
        return replies
