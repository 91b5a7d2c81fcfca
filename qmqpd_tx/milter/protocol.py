"""
The milter protocol, versions 2 to 6, as bytes. Sans-I/O.

Takes events with their arguments, gives packets; takes bytes in any chunking, gives packets. A packet is its
length (four bytes, big end first), a command byte, and data; strings end with a NUL. Holds at most one packet
of L{PacketReader}'s limit and what came with it. What makes no sense raises L{MilterError}, whose text is
what Postfix logs about it. What filters answer is in L{qmqpd_tx.milter.replies}. Answers to the public
descriptions of what Sendmail's libmilter speaks.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping

from attrs import frozen

BODY_CHUNK = 65535
"""The longest piece of a body in one packet, in bytes."""


class MilterError(Exception):
    """A filter did what the protocol does not allow, or is not there; the text says what."""


class Event(enum.Enum):
    """What a filter is told; the value is the command byte."""

    ABORT = b"A"
    BODY = b"B"
    CONNECT = b"C"
    DATA = b"T"
    END_OF_HEADERS = b"N"
    END_OF_MESSAGE = b"E"
    HEADER = b"L"
    HELO = b"H"
    MACROS = b"D"
    MAIL = b"M"
    NEGOTIATE = b"O"
    QUIT = b"Q"
    RCPT = b"R"
    UNKNOWN = b"U"


SYMBOLS: Mapping[Event, str] = {
    Event.ABORT: "SMFIC_ABORT",
    Event.BODY: "SMFIC_BODY",
    Event.CONNECT: "SMFIC_CONNECT",
    Event.DATA: "SMFIC_DATA",
    Event.END_OF_HEADERS: "SMFIC_EOH",
    Event.END_OF_MESSAGE: "SMFIC_BODYEOB",
    Event.HEADER: "SMFIC_HEADER",
    Event.HELO: "SMFIC_HELO",
    Event.MACROS: "SMFIC_MACRO",
    Event.MAIL: "SMFIC_MAIL",
    Event.NEGOTIATE: "SMFIC_OPTNEG",
    Event.QUIT: "SMFIC_QUIT",
    Event.RCPT: "SMFIC_RCPT",
    Event.UNKNOWN: "SMFIC_UNKNOWN",
}
"""What libmilter's documentation calls the events, for the log."""


class Stage(enum.Enum):
    """Where macros go with; the value is the number with which a filter asks for them."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADERS = 6


STAGES: Mapping[Event, Stage] = {
    Event.CONNECT: Stage.CONNECT,
    Event.HELO: Stage.HELO,
    Event.MAIL: Stage.MAIL,
    Event.RCPT: Stage.RCPT,
    Event.DATA: Stage.DATA,
    Event.HEADER: Stage.END_OF_HEADERS,
    Event.END_OF_HEADERS: Stage.END_OF_HEADERS,
    Event.BODY: Stage.END_OF_MESSAGE,
    Event.END_OF_MESSAGE: Stage.END_OF_MESSAGE,
}
"""Which macros go with which event. Those of a header are those of the end of the headers."""


class Action(enum.IntFlag):
    """What a filter may ask for."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENT = 0x4
    DELETE_RECIPIENT = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENT_ARGUMENTS = 0x80
    SET_MACROS = 0x100


ALL_ACTIONS = 0x1FF
"""All of L{Action}: what every filter is offered."""


class Step(enum.IntFlag):
    """How the protocol may be shortened or changed; the names with C{SILENT} mean: there is no reply."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADERS = 0x40
    SILENT_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RECIPIENTS = 0x800
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_END_OF_HEADERS = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000


OFFERED: Mapping[int, int] = {2: 0x7F, 3: 0x17F, 4: 0x37F, 6: 0x1FFFFF}
"""The steps that are offered, by protocol version."""

LEFT_OUT: Mapping[Event, Step] = {
    Event.CONNECT: Step.NO_CONNECT,
    Event.HELO: Step.NO_HELO,
    Event.MAIL: Step.NO_MAIL,
    Event.RCPT: Step.NO_RCPT,
    Event.DATA: Step.NO_DATA,
    Event.HEADER: Step.NO_HEADERS,
    Event.END_OF_HEADERS: Step.NO_END_OF_HEADERS,
    Event.BODY: Step.NO_BODY,
}
"""By which step a filter does without an event."""

SILENT: Mapping[Event, Step] = {
    Event.CONNECT: Step.SILENT_CONNECT,
    Event.HELO: Step.SILENT_HELO,
    Event.MAIL: Step.SILENT_MAIL,
    Event.RCPT: Step.SILENT_RCPT,
    Event.DATA: Step.SILENT_DATA,
    Event.HEADER: Step.SILENT_HEADER,
    Event.END_OF_HEADERS: Step.SILENT_END_OF_HEADERS,
    Event.BODY: Step.SILENT_BODY,
}
"""By which step an event has no reply."""


# --- what a filter is sent ----------------------------------------------------------------------------


def packet(event: Event, data: bytes = b"") -> bytes:
    """
    @return: a packet as it goes over the wire.
    """
    return struct.pack("!Ic", len(data) + 1, event.value) + data


def strings(*values: bytes) -> bytes:
    """
    @return: strings with their NULs; a NUL in one of them ends it.
    """
    return b"".join(value.partition(b"\0")[0] + b"\0" for value in values)


def macros(event: Event, values: Iterable[tuple[bytes, bytes]]) -> bytes:
    """
    @return: the packet of macros that goes before an event; C{b""} when there are none.
    """
    data = b"".join(strings(name, value) for name, value in values)
    return packet(Event.MACROS, event.value + data) if data else b""


def connect_data(name: bytes, address: bytes) -> bytes:
    """
    @param name: the client's host name.
    @param address: its address, as text; C{b""}: not known.
    @return: the arguments of L{Event.CONNECT}. The port is always zero: it is not told to filters of mail
        that did not come by SMTP.
    """
    if not address:
        return strings(name) + b"U"
    family = b"6" if b":" in address else b"4"
    return strings(name) + family + b"\0\0" + strings(address)


@frozen(slots=True)
class Negotiated:
    """
    What was agreed with a filter.

    @ivar version: of the protocol.
    @ivar actions: see L{Action}.
    @ivar steps: see L{Step}.
    @ivar macros: the names of the macros that it wants, by stage; for other stages the usual ones.
    """

    version: int
    actions: int
    steps: int
    macros: Mapping[Stage, tuple[bytes, ...]]


def offer(version: int, steps: int) -> bytes:
    """
    @param version: one of L{OFFERED}.
    @param steps: which steps a filter may choose.
    @return: the packet that begins a conversation.
    """
    return packet(Event.NEGOTIATE, struct.pack("!III", version, ALL_ACTIONS, steps))


def decode_negotiation(received: bytes, version: int, offered: int) -> Negotiated:
    """
    @param received: the filter's first packet.
    @param version: what was offered.
    @param offered: the steps that were offered.
    @raise MilterError: it is no answer, or it asks for what was not offered.
    """
    code, data = received[:1], received[1:]
    if code != Event.NEGOTIATE.value:
        shown = ascii(code.decode("latin-1"))[1:-1]
        raise MilterError(f'unexpected reply "{shown}" in initial handshake')
    if len(data) < 12:
        raise MilterError("input packet too short for network long")
    theirs, actions, steps = struct.unpack("!III", data[:12])
    if theirs > version:
        raise MilterError(f"protocol version {theirs} conflict with MTA protocol version {version}")
    if theirs < 2:
        raise MilterError(f"unexpected protocol version {theirs}")
    if actions & ~ALL_ACTIONS:
        raise MilterError(f"request mask {actions:#x} conflict with MTA request mask {ALL_ACTIONS:#x}")
    # The bits for larger packets are the library's own business.
    wanted = steps & 0x0FFFFFFF
    if wanted & ~offered:
        raise MilterError(f"event mask {steps:#x} conflict with MTA event mask {offered:#x}")
    if theirs < 4:
        wanted |= Step.NO_DATA
    return Negotiated(theirs, actions, wanted, _wanted_macros(data[12:]))


def take_number(data: bytes) -> tuple[int, bytes]:
    """
    @return: the number at the start, and what follows it.
    @raise MilterError: there is none.
    """
    if len(data) < 4:
        raise MilterError("input packet too short for network long")
    return int.from_bytes(data[:4], "big"), data[4:]


def _wanted_macros(data: bytes) -> dict[Stage, tuple[bytes, ...]]:
    wanted: dict[Stage, tuple[bytes, ...]] = {}
    known = {stage.value: stage for stage in Stage}
    while data:
        number, rest = take_number(data)
        names, found, data = rest.partition(b"\0")
        if not found:
            raise MilterError("missing string null terminator")
        stage = known.get(number)
        if stage is not None:
            wanted[stage] = tuple(macro_name(name) for name in names.replace(b",", b" ").split())
    return wanted


def macro_name(name: bytes) -> bytes:
    """
    @return: a macro's name in its usual form: in braces, unless it is a single letter.
    """
    bare = name[1:-1] if name[:1] == b"{" and name[-1:] == b"}" else name
    return bare if len(bare) < 2 else b"{%b}" % bare


class PacketReader:
    """
    Cuts a stream into packets.

    @param limit: the longest packet that is taken, in bytes.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """
        @return: the packets that are complete now, without their length.
        @raise MilterError: a packet is empty, or longer than the limit.
        """
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        start = 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if not 0 < length <= self._limit:
                raise MilterError(f"unreasonable packet length: {length} > {self._limit}")
            if len(buffer) - start < 4 + length:
                break
            found.append(bytes(buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        del buffer[:start]
        return found
