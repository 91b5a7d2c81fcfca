"""
The header section of a message, as filters may edit it. Pure.

Takes the section as it is stored, in front of it what filters do not see (our own Received header); gives it
with the changes. Positions are those of Postfix, watched: what is hidden counts when headers are inserted,
and does not when they are named. Never raises.
"""

from __future__ import annotations

import re

_HEADER = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")
_NAME = re.compile(rb"[!-9;-~]+")
_LINE_ENDS = re.compile(rb"(?:\r\n|\r|\n)+")


class HeaderList:
    """
    The headers.

    @ivar size: how long all of them are, in bytes.
    """

    __slots__ = ("_headers", "size")

    def __init__(self, hidden: bytes, shown: bytes) -> None:
        """
        @param hidden: the headers that filters do not see, each ending with a newline.
        @param shown: the others.
        """
        own: list[bytes] = _HEADER.findall(hidden)
        others: list[bytes] = _HEADER.findall(shown)
        self._headers: list[tuple[bool, bytes]] = [
            *((True, header) for header in own),
            *((False, header) for header in others),
        ]
        self.size = sum(len(header) for _, header in self._headers)

    def shown(self) -> list[tuple[bytes, bytes]]:
        """
        @return: name and value of each header that filters see: what comes after the colon, without the last
            newline.
        """
        found = []
        for own, header in self._headers:
            if not own:
                name, _, value = header[:-1].partition(b":")
                found.append((name, value))
        return found

    def add(self, header: bytes) -> None:
        """
        @param header: as L{make_header} gives it; goes to the end.
        """
        self._headers.append((False, header))
        self.size += len(header)

    def insert(self, index: int, header: bytes) -> None:
        """
        @param index: behind how many headers it goes, our own ones included.
        """
        self._headers.insert(index, (False, header))
        self.size += len(header)

    def find(self, name: bytes, index: int) -> int | None:
        """
        @param name: of a header, in any case.
        @param index: the how manieth of that name that filters see, from 1; 0 means the same as 1.
        @return: its place, for L{replace}.
        """
        wanted = name.lower() + b":"
        left = max(index, 1)
        for place, (own, header) in enumerate(self._headers):
            if not own and header[: len(wanted)].lower() == wanted:
                left -= 1
                if not left:
                    return place
        return None

    def replace(self, place: int, header: bytes | None) -> None:
        """
        @param header: what comes there; L{None}: nothing.
        """
        self.size += len(header or b"") - len(self._headers[place][1])
        if header is None:
            del self._headers[place]
        else:
            self._headers[place] = (False, header)

    def joined(self) -> bytes:
        """
        @return: the whole section.
        """
        return b"".join(header for _, header in self._headers)


def make_header(name: bytes, value: bytes, leading_space: bool) -> bytes | None:
    """
    @param name: of a header, as a filter gives it.
    @param value: likewise: lines may end in CR LF or LF, and what follows one is a continuation.
    @param leading_space: whether the value brings the white space that is to follow the colon.
    @return: the header with its newline; L{None} when that is no header name.
    """
    if not _NAME.fullmatch(name):
        return None
    value = value.partition(b"\0")[0]
    lines = [line for line in _LINE_ENDS.split(value) if line.strip(b" \t")]
    folded = _LINE_ENDS.match(value) is not None
    parts = [name, b":" if leading_space else b": "]
    for number, line in enumerate(lines):
        if number or folded:
            parts.append(b"\n" if line[:1] in b" \t" else b"\n\t")
        parts.append(line)
    parts.append(b"\n")
    return b"".join(parts)
