"""
8-bit mail for a server that does not offer 8BITMIME.

L{Downgrader} takes content with LF line ends in any chunking and gives content in which every MIME part
that is declared C{8bit} or C{binary} is quoted-printable; its Content-Transfer-Encoding header moves to
the end of that part's header. Nested multiparts and message/rfc822 are followed; everything that is
declared otherwise, or not at all, passes untouched, even when it has 8-bit bytes: this is what smtp(8)
does (C{disable_mime_output_conversion}; limits C{mime_nesting_limit}). Never fails. Memory is bounded:
body lines longer than 16 KiB are converted in slices, and a header larger than 100 KiB is a body.
"""

from __future__ import annotations

import enum
import re

_SLICE = 16384
_HEADER_LIMIT = 102400
_NESTING_LIMIT = 100
_BOUNDARY_LIMIT = 2048
_SOFT_BREAK_AFTER = 72

_NEEDS_CODE = re.compile(rb"[^\t -<>-~]")
_QUOTED = re.compile(rb"\"[^\"\\]*+(?:\\.[^\"\\]*+)*(?:(\")|\\?\Z)", re.DOTALL)
_COMMENT_PART = re.compile(rb"[()]|\\.|[^()\\]+|\\", re.DOTALL)
_HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:")
_TOKEN = re.compile(rb"[ \t\n]*([^ \t\n;/\"=,:<>@()]+)")
_TYPE = re.compile(rb"[ \t\n]*([^ \t\n;/\"=]+)[ \t\n]*/[ \t\n]*([^ \t\n;/\"=]+)")
_BOUNDARY = re.compile(
    rb";[ \t\n]*boundary[ \t\n]*=[ \t\n]*(?:\"((?:[^\"\\]|\\.)*)\"|([^ \t\n;\"]+))", re.IGNORECASE | re.DOTALL
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


class _Where(enum.Enum):
    HEADER = "header"
    BODY = "body"


def _without_comments(value: bytes) -> bytes:
    # Nested comments go as well; outside quoted strings only. Each byte is looked at once: anybody can
    # write a header that is tens of thousands of parentheses deep.
    if b"(" not in value:
        return value
    parts: list[bytes] = []
    position = 0
    for match in _QUOTED.finditer(value):
        # Without an end it is no quoted string, and then there is none behind it either.
        if match[1]:
            parts += (_without_comments_unquoted(value[position : match.start()]), match.group())
            position = match.end()
    return b"".join(parts) + _without_comments_unquoted(value[position:])


def _without_comments_unquoted(text: bytes) -> bytes:
    kept: list[bytes] = []
    begun: list[int] = []
    position = 0
    while match := _COMMENT_PART.match(text, position):
        part = match.group()
        if part[:1] == b"\\" and not begun:
            part = b"\\"
        position += len(part)
        if part == b")" and begun:
            del kept[begun.pop() :]
            part = b" "
        elif part == b"(":
            begun.append(len(kept))
        kept.append(part)
    return b"".join(kept)


def quoted_printable(line: bytes, more: bool = False) -> bytes:
    """
    @param line: a body line without line end.
    @param more: the line goes on: end it with a soft break.
    @return: its encoding, with soft breaks where smtp(8) puts them (after the character that passes
        column 72), without line end.
    """
    encoded = _NEEDS_CODE.sub(lambda match: b"=%02X" % match[0][0], line)
    if encoded[-1:] in (b" ", b"\t"):
        encoded = encoded[:-1] + b"=%02X" % encoded[-1]
    pieces: list[bytes] = []
    start, size = 0, len(encoded)
    while size - start > _SOFT_BREAK_AFTER + 1:
        cut = start + _SOFT_BREAK_AFTER + 1
        if encoded[cut - 1] == 61:
            cut += 2
        elif encoded[cut - 2] == 61:
            cut += 1
        if cut >= size:
            break
        pieces.append(encoded[start:cut])
        start = cut
    pieces.append(encoded[start:])
    if more:
        pieces.append(b"")
    return b"=\n".join(pieces)


class Downgrader:
    """Converts one message."""

    def __init__(self) -> None:
        self._pending = b""
        self._where = _Where.HEADER
        self._header: list[bytes] = []
        self._header_size = 0
        self._boundaries: list[tuple[bytes, bytes]] = []
        self._continued = False
        self._begin_part(b"text")

    def _begin_part(self, default_type: bytes) -> None:
        self._where = _Where.HEADER
        self._type = default_type
        self._subtype = b"rfc822" if default_type == b"message" else b"plain"
        self._boundary = b""
        self._encode = False
        self._header_size = 0

    def feed(self, data: bytes) -> bytes:
        """
        @return: what is converted so far.
        """
        lines = (self._pending + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        for line in lines:
            self._line(line, out)
        while len(rest) > _SLICE and self._where is _Where.BODY:
            self._slice(rest[:_SLICE], out)
            rest = rest[_SLICE:]
        if len(rest) > _HEADER_LIMIT:
            self._end_header(out)
        self._pending = rest
        return b"".join(out)

    def finish(self) -> bytes:
        """
        @return: the rest.
        """
        out: list[bytes] = []
        if self._pending:
            self._line(self._pending, out)
            self._pending = b""
        if self._where is _Where.HEADER:
            self._end_header(out)
        return b"".join(out)

    # --- lines ------------------------------------------------------------------------------------

    def _line(self, line: bytes, out: list[bytes]) -> None:
        while len(line) > _SLICE and self._where is _Where.BODY:
            self._slice(line[:_SLICE], out)
            line = line[_SLICE:]
        if not self._continued and line.startswith(b"--") and self._at_boundary(line, out):
            return
        if self._where is _Where.BODY:
            out.append(quoted_printable(line) if self._encode else line)
            out.append(b"\n")
            self._continued = False
        else:
            self._header_line(line, out)

    def _slice(self, text: bytes, out: list[bytes]) -> None:
        """A part of a body line that is too long to be kept; always cut at the same places."""
        out.append(quoted_printable(text, more=True) if self._encode else text)
        self._continued = True

    def _at_boundary(self, line: bytes, out: list[bytes]) -> bool:
        for depth in range(len(self._boundaries) - 1, -1, -1):
            boundary, default_type = self._boundaries[depth]
            if not line.startswith(boundary, 2):
                continue
            if self._where is _Where.HEADER:
                self._end_header(out)
            del self._boundaries[depth + 1 :]
            out.append(line + b"\n")
            if line.startswith(b"--", 2 + len(boundary)):
                del self._boundaries[depth]
                self._where = _Where.BODY
                self._encode = False
            else:
                self._begin_part(default_type)
            return True
        return False

    def _header_line(self, line: bytes, out: list[bytes]) -> None:
        self._header_size += len(line) + 1
        fits = self._header_size <= _HEADER_LIMIT
        if fits and line[:1] in (b" ", b"\t") and self._header:
            self._header.append(line)
        elif fits and _HEADER.match(line):
            self._flush_header(out)
            self._header.append(line)
        else:
            self._end_header(out)
            if line:
                self._line(line, out)
            else:
                out.append(b"\n")

    # --- headers ----------------------------------------------------------------------------------

    def _flush_header(self, out: list[bytes]) -> None:
        if not self._header:
            return
        text = b"\n".join(self._header)
        self._header.clear()
        name, _, value = text.partition(b":")
        name = name.rstrip().lower()
        if name == b"content-transfer-encoding":
            match = _TOKEN.match(_without_comments(value))
            self._encode = match is not None and match[1].lower() in (b"8bit", b"binary")
            if self._encode:
                return
        elif name == b"content-type":
            self._content_type(value)
        out.append(text + b"\n")

    def _content_type(self, value: bytes) -> None:
        value = _without_comments(value)
        match = _TYPE.match(value)
        if match is None:
            return
        self._type, self._subtype = match[1].lower(), match[2].lower()
        found = _BOUNDARY.search(value)
        if self._type == b"multipart" and found is not None:
            boundary = found[2] if found[1] is None else _QUOTED_PAIR.sub(rb"\1", found[1])
            self._boundary = boundary[:_BOUNDARY_LIMIT]

    def _end_header(self, out: list[bytes]) -> None:
        """The header of this part is over: say how its body is encoded, and know what the body is."""
        self._flush_header(out)
        multipart = self._type == b"multipart"
        composite = multipart or (
            self._type == b"message" and self._subtype in (b"rfc822", b"partial", b"external-body")
        )
        if self._encode:
            out.append(
                b"Content-Transfer-Encoding: " + (b"7bit" if composite else b"quoted-printable") + b"\n"
            )
        nested = len(self._boundaries) < _NESTING_LIMIT
        if multipart:
            self._encode = False
            if self._boundary and nested:
                digest = self._subtype == b"digest"
                self._boundaries.append((self._boundary, b"message" if digest else b"text"))
        if self._type == b"message" and self._subtype == b"rfc822" and nested:
            self._begin_part(b"text")
        else:
            self._where = _Where.BODY
