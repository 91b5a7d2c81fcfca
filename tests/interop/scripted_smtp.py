"""
An SMTP server that misbehaves as its script says.

L{Session} is the server's side of one connection without I/O, for tests on a clock; L{ScriptedServer} puts
it behind a real port on 127.0.0.1, for tests with real sockets. A script names stages (C{greeting}, C{ehlo},
C{helo}, C{mail}, C{rcpt}, C{data}, C{body}, C{end}, C{rset}) and what the server does there: a reply without
its line end, an L{Act}, or a reply and then an act. C{rcpt:NAME} is for one recipient's local part. C{body}
is when the first byte of content has come. What the script does not name goes well.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Mapping, Sequence

from attrs import frozen

from tests.interop.threaded_server import ThreadedServer


class Act(enum.Enum):
    """What a server can do instead of going on."""

    HANG = "reads and says nothing more, and keeps the connection"
    CLOSE = "ends the connection in order"
    RESET = "breaks the connection off"


Step = bytes | Act | tuple[bytes, Act]
Script = Mapping[str, Step]

_DEFAULTS: Mapping[str, bytes] = {
    "greeting": b"220 srv.test ESMTP",
    "helo": b"250 srv.test",
    "mail": b"250 2.1.0 Ok",
    "rcpt": b"250 2.1.5 Ok",
    "data": b"354 Go on",
    "body": b"",
    "end": b"250 2.0.0 Ok: taken",
    "rset": b"250 2.0.0 Ok",
    "quit": b"221 2.0.0 Bye",
}


@frozen
class Transaction:
    """
    A message that a scripted server took.

    @ivar mail: the MAIL command.
    @ivar recipients: the addresses of the RCPT commands that it took.
    @ivar content: what followed, byte for byte as on the wire, with the final C{.} line.
    """

    mail: bytes
    recipients: tuple[bytes, ...]
    content: bytes

    @property
    def sender(self) -> bytes:
        """The address in the MAIL command."""
        return self.mail.partition(b"<")[2].partition(b">")[0]


class Session:
    """
    One connection to a scripted server.

    @ivar script: what the server does; may be replaced.
    @ivar over: what ended it, or L{None} while it lives.
    @ivar finished: the messages that the server took and nobody has fetched.
    """

    def __init__(self, script: Script, *, pipelining: bool = True, eight_bit_mime: bool = True) -> None:
        self.script = script
        words = [b"srv.test", *[b"PIPELINING"] * pipelining, *[b"8BITMIME"] * eight_bit_mime]
        self._ehlo = b"\r\n".join(b"250-" + word for word in words[:-1]) + b"\r\n250 " + words[-1]
        self._buffer = bytearray()
        self._content: bytearray | None = None
        self._mail = b""
        self._sender_ok = False
        self._recipients: list[bytes] = []
        self.over: Act | None = None
        self.finished: list[Transaction] = []

    def begin(self) -> bytes:
        """
        @return: the greeting.
        """
        return self._step("greeting")

    def feed(self, data: bytes) -> bytes:
        """
        @return: what the server answers to what came.
        """
        answer = b""
        self._buffer += data
        while self.over is None and self._buffer:
            if self._content is not None:
                answer += self._take_content(self._content)
                continue
            line, newline, rest = self._buffer.partition(b"\r\n")
            if not newline:
                break
            self._buffer = rest
            answer += self._command(bytes(line))
        return answer

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].lower().decode()
        if verb == "mail":
            self._mail = line
            self._recipients = []
            reply = self._step(verb)
            self._sender_ok = reply.startswith(b"2")
            return reply
        if verb == "rcpt":
            address = line.partition(b"<")[2].partition(b">")[0]
            local = "rcpt:" + address.partition(b"@")[0].decode()
            reply = self._step(local if local in self.script else "rcpt")
            if reply.startswith(b"2") and self._sender_ok:
                self._recipients.append(address)
            return reply
        reply = self._step(verb)
        if verb == "data" and reply.startswith(b"3"):
            self._content = bytearray()
        elif verb == "quit":
            self.over = Act.CLOSE
        return reply

    def _take_content(self, content: bytearray) -> bytes:
        if not content:
            self._step("body")
            if self.over is not None:
                return b""
        searched = max(len(content) - 4, 0)
        content += self._buffer
        self._buffer.clear()
        if content[:3] == b".\r\n":
            end = 3
        else:
            found = content.find(b"\r\n.\r\n", searched)
            if found < 0:
                return b""
            end = found + 5
        self._buffer += content[end:]
        self._content = None
        reply = self._step("end")
        # Pipelined behind refused recipients comes a lone dot.
        if reply.startswith(b"2") and self._recipients:
            self.finished.append(Transaction(self._mail, tuple(self._recipients), bytes(content[:end])))
        return reply

    def _step(self, stage: str) -> bytes:
        default = self._ehlo if stage == "ehlo" else _DEFAULTS.get(stage.partition(":")[0], b"250 Ok")
        step = self.script.get(stage, default)
        reply, act = (
            step if isinstance(step, tuple) else (step, None) if isinstance(step, bytes) else (b"", step)
        )
        self.over = act
        return reply + b"\r\n" if reply else b""


class ScriptedServer(ThreadedServer):
    """
    A scripted server on 127.0.0.1; a context manager.

    @ivar script: what it does from now on, on open connections too; may be replaced.
    @ivar taken: the messages that it took.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        listen: bool = True,
        pipelining: bool = True,
        eight_bit_mime: bool = True,
    ) -> None:
        """
        @param listen: L{False}: connections are refused until L{listen} is called.
        """
        super().__init__()
        self.script: Script = script or {}
        self.taken: list[Transaction] = []
        self._options = {"pipelining": pipelining, "eight_bit_mime": eight_bit_mime}
        # Little room, so that a server that stops reading is noticed after a few hundred kilobytes.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        if listen:
            self.listen()

    def wait_for(self, count: int, seconds: float = 20.0) -> Sequence[Transaction]:
        """
        @return: the messages it took, when there are so many.
        @raise AssertionError: there are not, in that time.
        """
        with self._news:
            self._news.wait_for(lambda: len(self.taken) >= count, seconds)
            assert len(self.taken) >= count, (
                f"{len(self.taken)} messages came to port {self.port}, not {count}"
            )
            return list(self.taken)

    def _talk(self, connection: socket.socket, visit: int) -> None:
        session = Session(self.script, **self._options)
        answer = session.begin()
        while True:
            if session.finished:
                with self._news:
                    self.taken += session.finished
                    session.finished.clear()
                    self._news.notify_all()
            if answer:
                connection.sendall(answer)
            if session.over is not None:
                break
            data = connection.recv(65536)
            if not data:
                return
            session.script = self.script
            answer = session.feed(data)
        if session.over is Act.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif session.over is Act.CLOSE:
            self._finish(connection)
        else:
            self._hang()
