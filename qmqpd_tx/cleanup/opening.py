"""
The very start of a message, before anything else is done to it. Sans-I/O.

Takes content as the client sent it, in any chunking; gives it with C{From } lines (with any number of C{>})
as C{X-Mailbox-Line:} headers, and with an empty line before a first line that begins with a blank. Holds at
most one line of C{line_length_limit}; a longer C{From } line is the last one that counts. Never fails.
Answers to qmqpd(8), which looks at the bytes of the client: a CR is no blank yet, and no character stripped.
"""

from __future__ import annotations

import re

_FROM_LINE = re.compile(rb">*From ")
_UNDECIDED = re.compile(rb">*(?:F(?:r(?:om?)?)?)?")
_FIRST = (b">", b"F", b" ", b"\t")
_NAME = b"X-Mailbox-Line: "


class Opening:
    """
    Of one message.

    @ivar is_over: whether everything else passes.
    """

    __slots__ = ("_held", "_limit", "is_over")

    def __init__(self, limit: int) -> None:
        """
        @param limit: C{line_length_limit}.
        """
        self._limit = limit
        self._held = b""
        self.is_over = False

    def feed(self, data: bytes) -> bytes:
        """
        @param data: the next bytes.
        @return: what is known of what they become.
        """
        if self._held:
            data, self._held = self._held + data, b""
        elif not data.startswith(_FIRST):
            # Nearly all messages.
            self.is_over = bool(data)
            return data
        output: list[bytes] = []
        position = 0
        while position < len(data):
            if data.startswith((b" ", b"\t"), position):
                output.append(b"\n")
                break
            stop = position + self._limit
            end = data.find(b"\n", position, stop + 1)
            is_whole = end >= 0 or len(data) > stop
            is_from_line = _FROM_LINE.match(data, position, stop) is not None
            if not is_whole and (is_from_line or _UNDECIDED.fullmatch(data, position)):
                self._held = data[position:]
                return b"".join(output)
            if not is_from_line:
                break
            if end < 0:
                output.append(_NAME)
                break
            output.append(_mailbox_line(data[position:end]) + b"\n")
            position = end + 1
        else:
            return b"".join(output)
        self.is_over = True
        return b"".join((*output, data[position:])) if position or output else data

    def close(self) -> bytes:
        """
        @return: what an incomplete last line becomes.
        """
        return _mailbox_line(self._held) if _FROM_LINE.match(self._held) else self._held


def _mailbox_line(line: bytes) -> bytes:
    return _NAME + line.partition(b"\0")[0]
