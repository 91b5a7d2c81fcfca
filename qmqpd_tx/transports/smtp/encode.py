"""
Message content as SMTP carries it.

Takes content with LF line ends, gives the bytes that follow the 354 reply: CRLF line ends, leading dots
doubled, a missing last line end added, stray CR as a space (as Postfix's cleanup leaves it), lines longer
than C{smtp_line_length_limit} broken by C{CRLF SPACE} (a doubled dot does not count), NUL as it is.
L{encode} does a whole message; L{ContentEncoder} one in any chunking, with bounded memory and the same
result. Pure; never fails. Answers to smtp(8); RFC 5321 sections 4.5.2 and 4.5.3.1.6.

Ordinary mail costs two C{replace} calls and a hop for each kilobyte: no work for each line.
"""

from __future__ import annotations

END = b".\r\n"
"""What ends a message after its last line end."""


def _has_long_line(data: bytes, limit: int) -> bool:
    # From a line start the last LF within limit+1 bytes is the next known line start: every line that
    # ends before it fits. So the text is crossed in hops of nearly limit bytes.
    position, size = 0, len(data)
    while size - position > limit:
        newline = data.rfind(b"\n", position, position + limit + 1)
        if newline < 0:
            return True
        position = newline + 1
    return False


def _fold(line: bytes, column: int, limit: int) -> bytes:
    """Break what comes at C{column} of a line that must not pass C{limit}."""
    room = limit - column
    pieces = [line[:room]]
    pieces.extend(line[start : start + limit - 1] for start in range(room, len(line), limit - 1))
    return b"\n ".join(pieces)


def _fold_lines(data: bytes, limit: int) -> bytes:
    return b"\n".join(_fold(line, 0, limit) if len(line) > limit else line for line in data.split(b"\n"))


def _stuff(data: bytes) -> bytes:
    """Dots and CRLF for text that starts at the start of a line."""
    if b"\n." in data:
        data = data.replace(b"\n.", b"\n..")
    if data[:1] == b".":
        data = b"." + data
    return data.replace(b"\n", b"\r\n")


def encode(data: bytes, limit: int) -> bytes:
    """
    @param data: the whole content.
    @param limit: the most bytes of a line without CRLF, or 0 for no limit.
    @return: the whole content on the wire, with the final C{CRLF . CRLF}.
    """
    if b"\r" in data:
        data = data.replace(b"\r", b" ")
    if limit and _has_long_line(data, limit):
        data = _fold_lines(data, limit)
    if b"\n." in data:
        data = data.replace(b"\n.", b"\n..")
    if data[:1] == b".":
        data = b"." + data
    data = data.replace(b"\n", b"\r\n")
    return data + END if data[-2:] == b"\r\n" or not data else data + b"\r\n" + END


class ContentEncoder:
    """Encodes content that comes in pieces."""

    __slots__ = ("_column", "_limit")

    def __init__(self, limit: int) -> None:
        """
        @param limit: as for L{encode}.
        """
        self._limit = limit
        self._column = 0

    def feed(self, data: bytes) -> bytes:
        """
        @param data: the next piece of the content, in any chunking.
        @return: its encoding.
        """
        if not data:
            return b""
        if b"\r" in data:
            data = data.replace(b"\r", b" ")
        start = b""
        if self._column:
            newline = data.find(b"\n")
            head = data if newline < 0 else data[:newline]
            start = self._tail(head)
            if newline < 0:
                return start
            start += b"\r\n"
            data = data[newline + 1 :]
            self._column = 0
            if not data:
                return start
        last = data.rfind(b"\n") + 1
        lines, rest = (data, b"") if last == len(data) else (data[:last], data[last:])
        if self._limit and _has_long_line(lines, self._limit):
            lines = _fold_lines(lines, self._limit)
        encoded = start + _stuff(lines)
        if rest:
            if rest[:1] == b".":
                encoded += b"."
            encoded += self._tail(rest)
        return encoded

    def _tail(self, text: bytes) -> bytes:
        """Text without LF at the current column, which is remembered."""
        limit = self._limit
        if not limit:
            self._column += len(text)
            return text
        folded = _fold(text, self._column, limit) if self._column + len(text) > limit else text
        fold = folded.rfind(b"\n")
        self._column = self._column + len(folded) if fold < 0 else len(folded) - fold - 1
        return folded.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """
        @return: what ends the message.
        """
        return b"\r\n" + END if self._column else END
