"""
A mail filter that does what a test says, on a TCP port of 127.0.0.1 or a socket in the file system.

It speaks the milter protocol by hand, shares no code with the package, and writes down what it was sent.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Mapping, Sequence

from attrs import Factory, define, frozen

from tests.interop.threaded_server import ThreadedServer

COMMANDS = {
    b"O": "negotiate",
    b"C": "connect",
    b"H": "helo",
    b"M": "mail",
    b"R": "rcpt",
    b"T": "data",
    b"L": "header",
    b"N": "eoh",
    b"B": "body",
    b"E": "eom",
    b"A": "abort",
    b"U": "unknown",
    b"Q": "quit",
    b"K": "quit_nc",
    b"D": "macros",
}
"""What the events are called here, by the command byte."""

SILENT = {"abort", "quit", "quit_nc", "macros"}
"""Events that have no reply."""

NO_REPLY = {
    "connect": 0x1000,
    "helo": 0x2000,
    "mail": 0x4000,
    "rcpt": 0x8000,
    "data": 0x10000,
    "unknown": 0x20000,
    "header": 0x80,
    "eoh": 0x40000,
    "body": 0x80000,
}
"""Which protocol flag says that the filter does not reply to an event."""

ALL_ACTIONS = 0x1FF


class Act(enum.Enum):
    """What a filter may do instead of a reply."""

    CLOSE = "close"
    HANG = "hang"


@frozen(slots=True)
class Raw:
    """
    Bytes to send just as they are.
    """

    data: bytes


Step = bytes | Raw | Act


def add_header(name: bytes, value: bytes) -> bytes:
    """
    @return: a reply that adds a header.
    """
    return b"h" + name + b"\0" + value + b"\0"


def insert_header(index: int, name: bytes, value: bytes) -> bytes:
    """
    @return: a reply that inserts a header.
    """
    return b"i" + struct.pack("!I", index) + name + b"\0" + value + b"\0"


def change_header(index: int, name: bytes, value: bytes) -> bytes:
    """
    @return: a reply that changes a header, or removes it.
    """
    return b"m" + struct.pack("!I", index) + name + b"\0" + value + b"\0"


def add_recipient(address: bytes, *arguments: bytes) -> bytes:
    """
    @return: a reply that adds a recipient.
    """
    if not arguments:
        return b"+" + address + b"\0"
    return b"2" + b"\0".join((address, *arguments)) + b"\0"


def delete_recipient(address: bytes) -> bytes:
    """
    @return: a reply that takes a recipient away.
    """
    return b"-" + address + b"\0"


def change_sender(address: bytes, *arguments: bytes) -> bytes:
    """
    @return: a reply that changes the sender.
    """
    return b"e" + b"\0".join((address, *arguments)) + b"\0"


def replace_body(data: bytes) -> bytes:
    """
    @return: a reply with the next piece of another body.
    """
    return b"b" + data


def reply_code(text: bytes) -> bytes:
    """
    @return: a reply with an SMTP reply in it.
    """
    return b"y" + text + b"\0"


def quarantine(reason: bytes) -> bytes:
    """
    @return: a reply that holds the message.
    """
    return b"q" + reason + b"\0"


@frozen(slots=True)
class Script:
    """
    What a filter does.

    @ivar replies: by event, or C{event:number} for one of several, what to send; C{c} is sent where there is
        nothing, and at the end of the message after modifications.
    @ivar version: the protocol version to answer with; C{None}: that which was offered.
    @ivar actions: what it wants to do; C{None}: all that was offered.
    @ivar protocol: protocol flags that it asks for.
    @ivar symbols: the macros that it wants, by stage number.
    """

    replies: Mapping[str, Sequence[Step]] = Factory(dict)
    version: int | None = None
    actions: int | None = None
    protocol: int = 0
    symbols: Mapping[int, bytes] = Factory(dict)


@define(slots=True)
class Session:
    """
    What one connection brought.

    @ivar events: each a list of the event's name, its arguments, and the macros that came for it.
    """

    events: list[tuple[str, tuple[bytes, ...], dict[bytes, bytes]]] = Factory(list)

    def named(self, name: str) -> list[tuple[bytes, ...]]:
        """
        @return: the arguments of all events of that name.
        """
        return [arguments for event, arguments, _ in self.events if event == name]


class ScriptedMilter(ThreadedServer):
    """
    A filter; a context manager that listens.

    @ivar script: what it does; may be changed between messages.
    @ivar visits: what came, by connection, in the order in which they came.
    """

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script = script or Script()
        self.visits: list[Session] = []

    def __enter__(self) -> ScriptedMilter:
        self.listen()
        return self

    def last(self) -> Session:
        """
        @return: the last connection's.
        """
        with self._news:
            return self.visits[-1]

    def wait_for_sessions(self, count: int, seconds: float = 10.0) -> list[Session]:
        """
        @return: the sessions, when so many have come and all of them are over.
        """
        with self._news:
            self._news.wait_for(lambda: len(self.visits) >= count and not self._connections, seconds)
            return list(self.visits)

    def _came(self, visit: int) -> None:
        self.visits.append(Session())

    def _left(self, visit: int) -> None:
        self._news.notify_all()

    def _talk(self, connection: socket.socket, visit: int) -> None:
        session = self.visits[visit - 1]
        script = self.script
        macros: dict[bytes, dict[bytes, bytes]] = {}
        counts: dict[str, int] = {}
        stream = connection.makefile("rb")
        protocol = script.protocol
        while head := stream.read(4):
            payload = stream.read(struct.unpack("!I", head)[0])
            code, data = payload[:1], payload[1:]
            event = COMMANDS.get(code, repr(code))
            if event == "macros":
                parts = data[1:].split(b"\0")[:-1]
                macros[data[:1]] = dict(zip(parts[::2], parts[1::2], strict=True))
                continue
            session.events.append((event, arguments(event, data), macros.pop(code, {})))
            if event in ("quit", "quit_nc"):
                return
            if event in SILENT:
                continue
            counts[event] = counts.get(event, 0) + 1
            steps = script.replies.get(f"{event}:{counts[event]}", script.replies.get(event))
            if steps is None:
                if event == "negotiate":
                    steps = [negotiation(data, script)]
                elif protocol & NO_REPLY.get(event, 0):
                    steps = []
                else:
                    steps = [b"c"]
            for step in steps:
                if step is Act.CLOSE:
                    return
                if step is Act.HANG:
                    self._hang()
                elif isinstance(step, Raw):
                    connection.sendall(step.data)
                elif isinstance(step, bytes):
                    connection.sendall(struct.pack("!I", len(step)) + step)


def negotiation(data: bytes, script: Script) -> bytes:
    """
    @return: the answer to an offer.
    """
    version, actions, _ = struct.unpack("!III", data[:12])
    reply = b"O" + struct.pack(
        "!III",
        version if script.version is None else script.version,
        actions if script.actions is None else script.actions,
        script.protocol,
    )
    for stage, names in script.symbols.items():
        reply += struct.pack("!I", stage) + names + b"\0"
    return reply


def arguments(event: str, data: bytes) -> tuple[bytes, ...]:
    """
    @return: the arguments of an event, for people.
    """
    if event == "negotiate":
        return tuple(b"%#x" % int(number) for number in struct.unpack("!III", data))
    if event == "connect":
        name, _, rest = data.partition(b"\0")
        family = rest[:1]
        if family == b"U":
            return (name, family, rest[1:])
        return (name, family, b"%d" % struct.unpack("!H", rest[1:3]), *rest[3:].split(b"\0"))
    if event in ("helo", "mail", "rcpt", "header", "unknown"):
        return tuple(data.split(b"\0"))
    return (data,) if data else ()
