"""
The header section, as it streams by. Sans-I/O.

Takes content in any chunking, as L{Opening<qmqpd_tx.cleanup.opening.Opening>} gives it, lines ending in LF
and CR already replaced; gives the header section as it
is to be stored, in pieces, and where the body starts. Holds at most the header that is being assembled,
cut at C{header_size_limit}. Promises that any chunking gives the same bytes. Never raises: what is no
header starts the body. Answers to cleanup(8).

The rules, watched in a running Postfix:

  - a header is a name of printable ASCII, then blanks (which are dropped), then a colon; lines that start
    with a blank continue it, a line of nothing but blanks too; before the first header they stay what
    they are (a CR, or a character that is stripped, came first there);
  - a line that is no header starts the body, and an empty line is put before it;
  - each line of a header ends at its first NUL;
  - a header over the limit is cut there, and then at its last line end if that is in the last tenth;
  - headers in C{message_drop_headers} are dropped, but a dropped C{Resent-Bcc} makes a message resent. MIME
    headers, and what a check puts in their place, are never dropped and otherwise treated;
  - what comes after the last C{Received} header that is too many does not matter;
  - a rewritten header is cut at the limit again;
  - a header is checked first (L{HeaderInspector}). What a check puts in its place is then treated as if it
    had come, but does not count as C{Received}; what it puts before it is not treated at all.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from qmqpd_tx.cleanup.actions import Edit
from qmqpd_tx.cleanup.checks import keys_of
from qmqpd_tx.cleanup.header_rules import HeaderRules, Kind
from qmqpd_tx.tables.interface import FOLD

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINE_END = re.compile(rb"\n(?![ \t])")

MESSAGE_IDS = 100
"""How many Message-ID headers of one message are remembered, and logged."""


class Part(enum.Enum):
    """Where in the message we are."""

    START = "start"
    HEADER = "header"
    BODY = "body"


class HeaderInspector(Protocol):
    """
    Who checks headers; see L{Inspector<qmqpd_tx.cleanup.inspector.Inspector>}.
    """

    def is_quiet(self, keys: bytes) -> bool:
        """Whether no header of a section, as L{keys_of} gives it, needs to be looked at one by one."""

    def note(self, name: bytes, header: bytes) -> None:
        """A header of L{MIME_HEADERS} in a quiet section."""

    def primary(self, name: bytes, header: bytes) -> Edit | None:
        """A header."""

    def begin_body(self, gap: bool) -> None:
        """The headers have ended, (gap) without an empty line."""


# In Python 3.11 a member of an enumeration takes ten times as long to look up as a global.
_START, _BODY = Part.START, Part.BODY
_ADDRESSES, _DROP, _RECEIVED = Kind.ADDRESSES.value, Kind.DROP.value, Kind.RECEIVED.value
_MESSAGE_ID, _RESENT_MESSAGE_ID = Kind.MESSAGE_ID.value, Kind.RESENT_MESSAGE_ID.value
_RESENT, _MIME = Kind.RESENT.value, Kind.MIME.value
_REMARKABLE = _RECEIVED | _MESSAGE_ID | _RESENT_MESSAGE_ID | _RESENT


class HeaderSection:
    """
    One message's headers.

    @ivar part: where we are; at L{Part.BODY} everything else passes.
    @ivar received: how many C{Received:} headers there were.
    @ivar names: the lower-case names of the headers of some L{Kind} but C{MIME} that were there, with the
        dropped ones.
    @ivar message_ids: (resent, value) of each Message-ID header, in order; of the first L{MESSAGE_IDS}.
    @ivar resent: whether there were C{Resent-} headers.
    """

    __slots__ = (
        "_buffer",
        "_inspector",
        "_known",
        "_leading",
        "_mapped",
        "_rules",
        "_searched",
        "message_ids",
        "names",
        "part",
        "received",
        "resent",
    )

    def __init__(
        self,
        rules: HeaderRules,
        inspector: HeaderInspector | None = None,
        mapped: Callable[[bytes, bytes], bytes | Deferred[bytes | None] | None] | None = None,
        known: Callable[[bytes], bytes | None] = lambda header: None,
    ) -> None:
        """
        @param rules: how headers are treated.
        @param inspector: checks them first; L{None}: nobody does.
        @param mapped: as C{rules.complete}, and used instead, for addresses that are not only made complete.
        @param known: takes a header without its last line end; gives what C{mapped} would give now,
            C{b""} where that is L{None}; L{None} where it is not known.
        """
        self.part = _START
        self.received = 0
        self.names: set[bytes] = set()
        self.message_ids: list[tuple[bool, bytes]] = []
        self.resent = False
        self._rules = rules
        self._inspector = inspector
        self._mapped = mapped
        self._known = rules.completed.get if mapped is None else known
        self._buffer = bytearray()
        # Whether a line of those that begin with a blank, before any header, goes on.
        self._leading = False
        self._searched = 0

    def section(self, block: bytes) -> list[bytes | Deferred[bytes]] | None:
        """
        The fast way: a whole header section at once, when all of it is in the first chunk.

        @param block: from the start of the message, ending with the newline of the last header line.
        @return: what to store; or L{None} when it needs L{feed}.
        """
        rules = self._rules
        # With a vertical tab in it, the keys could not be told from what they stand for.
        if len(block) > rules.size_limit or b"\0" in block or FOLD in block:
            return None
        # One line is one header there, as long as the header.
        keys = keys_of(block)
        headers = keys[:-1].split(b"\n")
        inspector = self._inspector
        matters = ~_MIME if inspector is None else ~0
        seen = rules.seen
        found: list[tuple[int, bytes, bytes, int]] = []
        for index, header in enumerate(headers):
            name, colon, _ = header.partition(b":")
            known = seen.get(name) or rules.known(name)
            if known is None or not colon:
                return None
            lower, kind = known
            if kind & matters:
                found.append((index, name, lower, kind))
        output: list[bytes | Deferred[bytes]] = []
        if inspector is not None and not inspector.is_quiet(keys):
            for header in headers:
                self._treat(header.partition(b":")[0], header.replace(FOLD, b"\n"), output)
            return self._end(output, b"")[0]
        # Up to where the block is done, and where in it the header begins that is known to begin there.
        done = start = at = 0
        for index, name, lower, kind in found:
            header = headers[index].replace(FOLD, b"\n")
            if kind & _MIME and inspector is not None:
                inspector.note(lower, header)
            if kind & _MIME:
                continue
            changed = self._remark(name, lower, kind, header)
            if changed is not None:
                start += sum(map(len, headers[at:index])) + index - at
                at = index
                output += (block[done:start], changed)
                done = start + len(header) + 1
        output.append(block[done:] if done else block)
        return self._end(output, b"")[0]

    def feed(self, data: bytes) -> tuple[list[bytes | Deferred[bytes]], bytes | None]:
        """
        @param data: the next bytes.
        @return: header bytes to store now; and once the header section has ended what is known of the
            body, with the empty line before it, else L{None}.
        """
        buffer = self._buffer
        buffer += data
        output: list[bytes | Deferred[bytes]] = []
        while buffer:
            if buffer[:1] == b"\n" and not self._leading:
                return self._end(output, b"")
            if self._leading or (self.part is _START and buffer.startswith((b" ", b"\t"))):
                length = buffer.find(b"\n") + 1
                self._leading = not length
                output.append(bytes(buffer[: length or len(buffer)]))
                del buffer[: length or len(buffer)]
                continue
            match = _LINE_END.search(buffer, self._searched)
            # A header is complete when the first byte of the line after it is known.
            if match is None or match.end() == len(buffer):
                if len(buffer) > self._rules.line_limit and not self._name(buffer):
                    return self._end(output, b"\n")
                break
            length = match.end()
            if not self._header(bytes(buffer[:length]), output):
                return self._end(output, b"\n")
            del buffer[:length]
            self._searched = 0
        # Of a header that grows too long the middle cannot show: it is cut at the limit anyway.
        keep = max(self._rules.size_limit, self._rules.line_limit) + 2
        if len(buffer) > 2 * keep:
            del buffer[keep : len(buffer) - 1]
        self._searched = max(0, len(buffer) - 1)
        return output, None

    def close(self) -> tuple[list[bytes | Deferred[bytes]], bytes]:
        """
        The content ended inside the header section.

        @return: the last header bytes to store, and the body (which may be empty).
        """
        # As if an empty line came, which is then taken away from the body again.
        unfinished = self._leading or (self._buffer and not self._buffer.endswith(b"\n"))
        output, body = self.feed(b"\n\n" if unfinished else b"\n")
        return output, (body or b"\n")[:-1]

    def _end(
        self, output: list[bytes | Deferred[bytes]], gap: bytes
    ) -> tuple[list[bytes | Deferred[bytes]], bytes]:
        body = gap + bytes(self._buffer)
        self._buffer.clear()
        self.part = _BODY
        if self._inspector is not None:
            self._inspector.begin_body(bool(gap))
        return output, body

    def _name(self, raw: bytes | bytearray) -> re.Match[bytes] | None:
        return _NAME.match(raw, 0, self._rules.line_limit)

    def _header(self, raw: bytes, output: list[bytes | Deferred[bytes]]) -> bool:
        """
        @param raw: what may be a header, with its continuation lines and all line ends.
        @return: whether it is one.
        """
        match = self._name(raw)
        if match is None:
            return False
        self.part = Part.HEADER
        name = match.group(1)
        header = cut_header(name + b":" + raw[match.end() : -1], self._rules.size_limit)
        self._treat(name, header, output)
        return True

    def _treat(self, name: bytes, header: bytes, output: list[bytes | Deferred[bytes]]) -> None:
        """
        One header, checked and rewritten.

        @param header: all of it without its last line end.
        @param output: takes what to store.
        """
        if self.received >= self._rules.received_limit:
            # The message is refused: what comes now does not matter.
            return
        lower = name.lower()
        # A MIME header is stored as it is, and so is what a check puts in its place.
        passes = bool(self._rules.kinds.get(lower, 0) & _MIME)
        counts = True
        original = None
        if self._inspector is not None:
            edit = self._inspector.primary(lower, header)
            if edit is not None:
                if edit.text is None:
                    return
                if edit.before is not None:
                    output.append(edit.before + b"\n")
                else:
                    original = header = edit.text
                    match = self._name(header)
                    if match is not None:
                        name = match.group(1)
                        lower = name.lower()
                        header = name + header[match.end() - 1 :]
                    counts = False
        kind = 0 if passes else self._rules.kinds.get(lower, 0) & ~_MIME
        if kind:
            changed = self._remark(name, lower, kind, header, counts)
            output.append(header + b"\n" if changed is None else changed)
        else:
            output.append((header if original is None else original) + b"\n")

    def _remark(
        self, name: bytes, lower: bytes, kind: int, header: bytes, counts: bool = True
    ) -> bytes | Deferred[bytes] | None:
        """
        Take note of a header that matters.

        @param header: all of it without its last line end.
        @param counts: whether it counts as a hop, if it is a C{Received} header.
        @return: what to store in its place, or L{None} if it stays.
        """
        self.names.add(lower)
        if kind & _REMARKABLE:
            if kind & _RECEIVED and counts:
                self.received += 1
            if kind & _RESENT:
                self.resent = True
            if kind & (_MESSAGE_ID | _RESENT_MESSAGE_ID) and len(self.message_ids) < MESSAGE_IDS:
                value = header[len(name) + 1 :].lstrip(b" \t\n")
                self.message_ids.append((bool(kind & _RESENT_MESSAGE_ID), value))
        if kind & _DROP:
            return b""
        if kind & _ADDRESSES:
            complete: bytes | Deferred[bytes | None] | None = self._known(header)
            if complete is None:
                complete = self._complete(name, header)
            if isinstance(complete, Deferred):
                return complete.addCallback(
                    lambda later: self._rewritten(name, later) if later else header + b"\n"
                )
            if complete:
                return self._rewritten(name, complete)
        return None

    def _rewritten(self, name: bytes, value: bytes) -> bytes:
        header = name + b":" + value
        limit = self._rules.size_limit
        # The limit counts a line end with the tab after it as one.
        return cut_header(header, limit + header.count(b"\n\t", 0, limit)) + b"\n"

    def _complete(self, name: bytes, header: bytes) -> bytes | Deferred[bytes | None] | None:
        """
        @return: the header's value with complete addresses, or L{None} or C{b""} if it may stay.
        """
        value = header[len(name) + 1 :]
        if self._mapped is not None:
            return self._mapped(name, value)
        rules = self._rules
        complete = None if rules.clean.fullmatch(value) else rules.complete(name, value)
        if not isinstance(complete, Deferred):
            rules.completed.add(header, complete or b"")
        return complete


def cut_header(header: bytes, limit: int) -> bytes:
    """
    @return: a header with each line cut at its first NUL, and all of it at the limit.
    """
    if b"\0" in header:
        header = b"\n".join(line.partition(b"\0")[0] for line in header.split(b"\n"))
    if len(header) <= limit:
        return header
    header = header[:limit]
    line_end = header.rfind(b"\n")
    return header[:line_end] if line_end >= 0 and limit - line_end <= limit // 10 else header
