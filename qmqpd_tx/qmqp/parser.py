"""
The QMQP wire format, server side, without I/O.

A packet is one netstring that holds the message content, the sender and the recipients, each a
netstring (U{https://cr.yp.to/proto/qmqp.html}).

Takes bytes in any chunking; gives events. The sequence of events (with adjacent content joined) is the
same for every chunking of the same bytes. Content goes out as it arrives: the parser holds at most one
unfinished address of at most C{address_limit} bytes. Whatever arrives, nothing is raised: a
malformed packet gives one L{Event.ERROR}, whose text is Postfix's ("netstring format error while
receiving sender address"), and everything after it, or after the end of the packet, is ignored.

Answers to Postfix's qmqpd(8), with one difference: the length of the packet must match what it holds.
Postfix reads up to the first comma in the place of a recipient, whatever the length says; so a packet
that was cut or joined on the way may pass there as a smaller one. As in Postfix, leading zeros are
fine, a length without digits is zero, and bytes after the packet are ignored, because whether they
are seen before the reply depends only on timing.
"""

from __future__ import annotations

import enum

from qmqpd_tx.netstring import COMMA, LARGEST_LENGTH, Fault, NetstringError, read_length


class Event(enum.Enum):
    """What the parser found; each comes with bytes."""

    CONTENT = enum.auto()
    """Some of the message content."""
    SENDER = enum.auto()
    """The sender address, complete. The content has ended."""
    RECIPIENT = enum.auto()
    """A recipient address, complete."""
    END = enum.auto()
    """The packet is complete, to its last comma."""
    ERROR = enum.auto()
    """The packet is malformed: the reason, for the client and the log. Nothing follows."""


class Part(enum.Enum):
    """Which part of the packet is expected; the value completes "while receiving ..."."""

    HEADER = "QMQP packet header"
    CONTENT = "message content"
    SENDER = "sender address"
    RECIPIENT = "recipient address"
    TRAILER = "QMQP packet trailer"
    NOTHING = "end of connection"


class _Step(enum.Enum):
    LENGTH = enum.auto()
    BODY = enum.auto()
    COMMA = enum.auto()


BEYOND_PACKET = "netstring exceeds the length in the packet header"
"""The fault that Postfix does not look for: a part reaches beyond the packet that holds it."""

_LONGEST_USUAL_LENGTH = 20

# Looked up once: an attribute of an Enum class costs as much as parsing an address.
_HEADER, _CONTENT, _SENDER, _RECIPIENT = Part.HEADER, Part.CONTENT, Part.SENDER, Part.RECIPIENT
_TRAILER, _NOTHING = Part.TRAILER, Part.NOTHING
_LENGTH, _BODY, _COMMA = _Step.LENGTH, _Step.BODY, _Step.COMMA
_BYTES, _FROM, _TO = Event.CONTENT, Event.SENDER, Event.RECIPIENT
_EVENT = {_CONTENT: _BYTES, _SENDER: _FROM, _RECIPIENT: _TO}
_END = (Event.END, b"")


class QMQPParser:
    """
    Parses one packet.

    @ivar part: which part of the packet is expected next, for "lost connection while receiving ...".
    @ivar recipients: how many recipients were found.
    """

    __slots__ = (
        "_address",
        "_address_limit",
        "_consumed",
        "_content_limit",
        "_length",
        "_packet_end",
        "_step",
        "part",
        "recipients",
    )

    def __init__(self, content_limit: int | None, address_limit: int) -> None:
        """
        @param content_limit: the largest acceptable content, in bytes; L{None} for any. Larger
            content is refused when its length is announced.
        @param address_limit: the longest acceptable address, in bytes.
        """
        self._content_limit = LARGEST_LENGTH if content_limit is None else content_limit
        self._address_limit = address_limit
        self.part = _HEADER
        self.recipients = 0
        self._step = _LENGTH
        self._length = 0  # of the netstring at hand: digits so far, then bytes still to come
        self._address = b""  # what has come of an unfinished address
        self._consumed = 0  # bytes before the current data, from the start of the stream
        self._packet_end = LARGEST_LENGTH  # where the packet's last comma is, from the start of the stream

    @property
    def finished(self) -> bool:
        """
        Whether nothing more is expected: the packet was complete, or malformed.
        """
        return self.part is _NOTHING

    def feed(self, data: bytes) -> list[tuple[Event, bytes]]:
        """
        @param data: the next bytes of the stream.
        @return: what they complete, in order.
        """
        events: list[tuple[Event, bytes]] = []
        position = 0
        end = len(data)
        base = self._consumed
        part = self.part
        while position < end and part is not _NOTHING:
            if self._step is _LENGTH and part is not _TRAILER:
                # The usual case: a whole netstring is here. Anything unusual is left to _step_on,
                # which sees the same bytes and decides alone.
                colon = data.find(b":", position, position + _LONGEST_USUAL_LENGTH)
                digits = data[position:colon] if colon > position else b""
                if digits.isdigit() and self._length == 0:
                    length = int(digits)
                    start = colon + 1
                    stop = start + length
                    if part is _HEADER:
                        if 0 < length <= LARGEST_LENGTH:
                            self._packet_end = base + stop
                            self.part = part = _CONTENT
                            position = start
                            continue
                    elif (
                        stop < end
                        and data[stop] == COMMA
                        and length <= (self._content_limit if part is _CONTENT else self._address_limit)
                        and base + stop < self._packet_end
                    ):
                        if part is _RECIPIENT:
                            self.recipients += 1
                            events.append((_TO, data[start:stop]))
                        elif part is _CONTENT:
                            if length:
                                events.append((_BYTES, data[start:stop]))
                            self.part = part = _SENDER
                        else:
                            events.append((_FROM, data[start:stop]))
                            self.part = part = _RECIPIENT
                        position = stop + 1
                        if base + position == self._packet_end:
                            part = self._at_packet_end(events, between=True)
                        continue
            position = self._step_on(data, position, end, events)
            part = self.part
        self._consumed = base + end
        return events

    def _step_on(self, data: bytes, position: int, end: int, events: list[tuple[Event, bytes]]) -> int:
        """
        Take the next step with whatever bytes there are.

        @return: the new position.
        """
        part = self.part
        if part is _TRAILER:
            if data[position] == COMMA:
                self.part = _NOTHING
                events.append(_END)
            else:
                self._fail(events, Fault.FORMAT.value)
            return position + 1
        step = self._step
        base = self._consumed
        if step is _LENGTH:
            stop = min(end, self._packet_end - base)
            try:
                progress = read_length(data, position, stop, self._length)
            except NetstringError as error:
                self._fail(events, error.fault.value)
                return end
            self._length = progress.value
            position = progress.position
            if progress.complete:
                self._announced(progress.value, base + position, events)
        elif step is _BODY:
            stop = min(end, position + self._length)
            taken = data if stop - position == len(data) else data[position:stop]
            self._length -= stop - position
            if part is _CONTENT:
                events.append((_BYTES, taken))
            else:
                self._address += taken
            position = stop
            if self._length == 0:
                self._step = _COMMA
        else:
            if data[position] != COMMA:
                self._fail(events, Fault.FORMAT.value)
                return end
            position += 1
            if part is _CONTENT:
                self.part = _SENDER
            else:
                events.append((_EVENT[part], self._address))
                self._address = b""
                if part is _RECIPIENT:
                    self.recipients += 1
                self.part = _RECIPIENT
            self._step = _LENGTH
        if base + position == self._packet_end:
            self._at_packet_end(events, between=step is _COMMA)
        return position

    def _announced(self, length: int, start: int, events: list[tuple[Event, bytes]]) -> None:
        """
        The length of a netstring is known; its bytes begin at C{start} of the stream.
        """
        part = self.part
        if part is _HEADER:
            self._packet_end = start + length
            self.part = _CONTENT
            self._length = 0
            return
        if length > (self._content_limit if part is _CONTENT else self._address_limit):
            self._fail(events, Fault.TOO_LONG.value)
        elif start + length >= self._packet_end:
            self._fail(events, BEYOND_PACKET)
        else:
            self._step = _BODY if length else _COMMA

    def _at_packet_end(self, events: list[tuple[Event, bytes]], between: bool) -> Part:
        """
        All the bytes that the packet announced are consumed: right only after the sender or a
        recipient, and then the packet's own comma must follow.

        @param between: whether the last byte ended a netstring.
        @return: the part that is expected now.
        """
        if between and self.part is _RECIPIENT:
            self.part = _TRAILER
        elif self.part is not _NOTHING:
            self._fail(events, BEYOND_PACKET)
        return self.part

    def _fail(self, events: list[tuple[Event, bytes]], fault: str) -> None:
        events.append((Event.ERROR, f"{fault} while receiving {self.part.value}".encode()))
        self.part = _NOTHING
        self._address = b""
