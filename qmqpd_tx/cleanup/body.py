"""
The walk through a body: lines, parts and their headers. Sans-I/O.

Takes what follows the header section, in any chunking; gives what is to be stored. Holds at most one header
of a part, cut at C{header_size_limit}, and one piece of a line, of C{line_length_limit}. Promises that any
chunking gives the same bytes, and that what no check changes stays what it is, but for the form of parts'
headers (below). Never raises. Answers to the MIME processor of cleanup(8), watched in a running Postfix:

  - a line over C{line_length_limit} is seen in pieces of that length; its line end belongs to the last one. A
    line or piece ends, for a check, at its first NUL;
  - of each part, body checks see the lines that begin within C{body_checks_size_limit}; an empty line that
    ends headers counts there, the boundary before a part counts to the part before it;
  - headers of parts are treated as those of the message: blanks before the colon are dropped, each line ends
    at its first NUL, and what is over C{header_size_limit} is cut;
  - what is stored instead of a header or a boundary does not change where parts begin.
"""

from __future__ import annotations

import enum
import re
from typing import Protocol

from qmqpd_tx.cleanup.actions import Actions, Edit
from qmqpd_tx.cleanup.checks import ContentChecks
from qmqpd_tx.cleanup.headers import cut_header
from qmqpd_tx.cleanup.mime import Encoding, Flaw, Structure

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_DASHES = re.compile(rb"^--", re.MULTILINE)


class Watcher(Protocol):
    """
    Who is asked about what is found.

    @ivar actions: whether anything is still looked up.
    @ivar structure: the MIME structure; L{None} when it does not matter.
    """

    actions: Actions
    structure: Structure | None

    def line(self, line: bytes) -> Edit | None:
        """A line or piece, not empty."""

    def part_header(self, name: bytes, header: bytes, nested: bool) -> Edit | None:
        """A header of a part, or (nested) of an attached message."""

    def end_part_headers(self) -> None:
        """The headers of a part have ended."""

    def object_to(self, flaw: Flaw, text: bytes) -> None:
        """The form is wrong."""


class Place(enum.Enum):
    """Where in the body we are."""

    HEADERS = "headers"
    NESTED = "nested headers"
    TEXT = "text"


class BodyWalk:
    """One message's body."""

    __slots__ = (
        "_carried",
        "_checks",
        "_edits",
        "_gap",
        "_header",
        "_header_at",
        "_limit",
        "_lines_are_short",
        "_middle",
        "_name",
        "_offset",
        "_opening",
        "_place",
        "_structure",
        "_tail",
        "_watcher",
    )

    def __init__(self, checks: ContentChecks, watcher: Watcher, gap: bool) -> None:
        """
        @param checks: tables and limits.
        @param watcher: is asked.
        @param gap: whether the empty line at the start was not in the message.
        """
        self._checks = checks
        self._watcher = watcher
        self._structure = watcher.structure
        self._limit = checks.line_limit
        self._lines_are_short = checks.lines_are_short
        self._gap = gap
        self._opening = True
        self._place = Place.TEXT
        self._offset = 0
        # What is not yet walked through: an incomplete line.
        self._tail = b""
        # Whether the next piece is not the first one of its line.
        self._middle = False
        # The header of a part that may still go on: its text, its name, where it begins in this chunk, and
        # whether it began in an earlier one.
        self._header: bytearray | None = None
        self._name = b""
        self._header_at = 0
        self._carried = False
        self._edits: list[tuple[int, int, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        """
        @param data: the next bytes.
        @return: what to store now; the same object if nothing is changed or held back.
        """
        if self._tail:
            data = self._tail + data
            self._tail = b""
        position = 0
        if self._opening and data:
            position = 1
            self._open()
        end = len(data)
        while position < end:
            if self._place is not Place.TEXT:
                after = self._header_line(data, position)
            elif self._is_through():
                after = end
            else:
                after = self._text(data, position)
            if after == position:
                break
            position = after
        if self._header is not None:
            self._edits.append((self._header_at, position, b""))
            self._header_at = 0
            self._carried = True
        self._tail = data[position:]
        return self._edited(data, position)

    def close(self) -> bytes:
        """
        The content has ended.

        @return: what is left to store. A last line without a line end has one now.
        """
        rest = self.feed(b"\n") if self._tail else b""
        self._end_header(b"", 0)
        if self._opening or self._place is not Place.TEXT:
            self._watcher.end_part_headers()
        return rest + self._edited(b"", 0)

    def _open(self) -> None:
        self._opening = False
        self._watcher.end_part_headers()
        if not self._gap:
            self._separate()

    def _separate(self) -> None:
        """
        An empty line after headers.
        """
        structure = self._structure
        nested = structure is not None and structure.end_headers()
        self._place = Place.NESTED if nested else Place.TEXT
        self._offset = 0 if nested else 1

    def _is_through(self) -> bool:
        """
        @return: whether nothing that follows can matter.
        """
        structure, checks = self._structure, self._checks
        if structure is not None and (structure.delimiters or self._minds_8bit(structure)):
            return False
        return checks.body is None or not self._watcher.actions.active or self._offset >= checks.body_limit

    def _minds_8bit(self, structure: Structure) -> bool:
        return self._checks.strict_body and structure.encoding is Encoding.SEVEN

    def _edited(self, data: bytes, position: int) -> bytes:
        edits = self._edits
        if not edits:
            return data if position == len(data) else data[:position]
        pieces: list[bytes] = []
        done = 0
        for start, end, text in edits:
            pieces += (data[done:start], text)
            done = end
        pieces.append(data[done:position])
        edits.clear()
        return b"".join(pieces)

    # --- text --------------------------------------------------------------------------------------

    def _text(self, data: bytes, position: int) -> int:
        """
        @return: how far it went.
        """
        if self._middle:
            return self._piece(data, position)
        delimiters = self._structure.delimiters if self._structure is not None else ()
        stop = max(data.rfind(b"\n", position) + 1, position)
        boundary = False
        if delimiters:
            for match in _DASHES.finditer(data, position, stop):
                if self._delimits(data, match.start(), delimiters):
                    boundary = True
                    stop = match.start()
                    break
        if stop > position:
            self._lines(data, position, stop)
            return stop
        if not boundary and len(data) - position > self._limit:
            if not self._delimits(data, position, delimiters):
                return self._piece(data, position)
            boundary = True
        return self._boundary(data, position) if boundary else position

    def _delimits(self, data: bytes, at: int, delimiters: tuple[bytes, ...]) -> bool:
        """
        @return: whether a boundary begins there; only the first piece of a line counts.
        """
        if not data.startswith(delimiters, at) or data.startswith(b"\n", at + 2):
            return False
        return data[at : at + self._limit].startswith(delimiters)

    def _piece(self, data: bytes, position: int) -> int:
        """
        A piece of a line that is too long, or that may be.
        """
        end = self._end_of_piece(data, position)
        if end:
            self._middle = data[end - 1] != 0x0A
            self._record(data, position, end, self._offset)
            self._offset += end - position
            return end
        return position

    def _end_of_piece(self, data: bytes, position: int) -> int:
        """
        @return: where the piece of a line ends that begins there, after its line end if it has one; 0 when
            that cannot be told yet.
        """
        newline = data.find(b"\n", position, position + self._limit + 1)
        if newline >= 0:
            return newline + 1
        return position + self._limit if len(data) - position > self._limit else 0

    def _lines(self, data: bytes, start: int, stop: int) -> None:
        """
        Whole lines without a boundary.
        """
        offset = self._offset
        self._offset += stop - start
        structure = self._structure
        block = data[start:stop] if stop - start < len(data) else data
        if structure is not None and self._minds_8bit(structure) and not block.isascii():
            self._find_8bit(data, start, stop)
        table = self._checks.body
        room = self._checks.body_limit - offset
        if table is None or room <= 0 or not self._watcher.actions.active:
            return
        if stop - start > room:
            stop = data.index(b"\n", start + room - 1) + 1
            block = data[start:stop]
        if not table.may_match(block) and b"\0" not in block and self._lines_are_short(block):
            return
        begin = start
        while start < stop and self._watcher.actions.active:
            end = self._end_of_piece(data, start)
            self._record(data, start, end, offset + start - begin)
            start = end

    def _find_8bit(self, data: bytes, start: int, stop: int) -> None:
        while start < stop:
            end = self._end_of_piece(data, start)
            piece = data[start:end]
            if not piece.isascii():
                self._watcher.object_to(Flaw.BODY_8BIT, piece.rstrip(b"\n"))
                return
            start = end

    def _record(self, data: bytes, start: int, end: int, offset: int) -> None:
        """
        One line or piece, looked up if it is not empty.

        @param offset: where in the part it begins.
        """
        line = data[start:end]
        line_end = b""
        if line.endswith(b"\n"):
            line_end = b"\n"
            line = line[:-1]
        structure = self._structure
        if structure is not None and not line.isascii() and self._minds_8bit(structure):
            self._watcher.object_to(Flaw.BODY_8BIT, line)
        if offset >= self._checks.body_limit:
            return
        if b"\0" in line:
            line = line[: line.index(b"\0")]
        edit = self._watcher.line(line) if line else None
        if edit is None:
            return
        if edit.text is None:
            stored = b""
        elif edit.before is None:
            stored = edit.text + line_end
        else:
            stored = edit.before + b"\n" + data[start:end]
        self._edits.append((start, end, stored))

    def _boundary(self, data: bytes, position: int) -> int:
        """
        A line that is a boundary. Of one that is too long the rest belongs to what follows.
        """
        assert self._structure is not None
        end = self._end_of_piece(data, position)
        begins = self._structure.boundary(data[position:end])
        if not begins:
            self._offset = 0
        self._record(data, position, end, self._offset)
        self._offset = 0 if begins else self._offset + end - position
        self._place = Place.HEADERS if begins else Place.TEXT
        self._middle = data[end - 1] != 0x0A
        return end

    # --- headers of parts --------------------------------------------------------------------------

    def _header_line(self, data: bytes, position: int) -> int:
        """
        @return: how far it went.
        """
        end = self._end_of_piece(data, position)
        if not end:
            return position
        line = data[position:end].removesuffix(b"\n")
        first = not self._middle
        if self._header is not None and (not first or line.startswith((b" ", b"\t"))):
            self._middle = data[end - 1] != 0x0A
            self._extend(line, first)
            return end
        structure = self._structure
        if first and structure is not None and self._delimits(data, position, structure.delimiters):
            self._end_header(data, position)
            self._watcher.end_part_headers()
            return self._boundary(data, position)
        if first and not line:
            self._end_header(data, position)
            self._watcher.end_part_headers()
            self._separate()
            return end
        match = _NAME.match(line)
        self._end_header(data, position)
        if match is None:
            self._watcher.end_part_headers()
            self._place = Place.TEXT
            self._offset = 0
            return self._text(data, position)
        self._middle = data[end - 1] != 0x0A
        self._name = match.group(1).lower()
        self._header = bytearray(match.group(1) + b":" + line[match.end() :].partition(b"\0")[0])
        self._header_at = position
        self._carried = False
        return end

    def _extend(self, line: bytes, first: bool) -> None:
        """
        The header goes on.
        """
        header = self._header
        assert header is not None
        if len(header) <= self._checks.header_limit:
            if first:
                header += b"\n"
            header += line.partition(b"\0")[0]

    def _end_header(self, data: bytes, position: int) -> None:
        """
        The header that was being read, if any, is complete.
        """
        if self._header is None:
            return
        header = cut_header(bytes(self._header), self._checks.header_limit)
        self._header = None
        edit = self._watcher.part_header(self._name, header, self._place is Place.NESTED)
        at = self._header_at
        if edit is None:
            stored = header + b"\n"
            if not self._carried and data[at:position] == stored:
                return
        else:
            before = b"" if edit.before is None else edit.before + b"\n"
            stored = before + (b"" if edit.text is None else edit.text + b"\n")
        self._edits.append((at, position, stored))
