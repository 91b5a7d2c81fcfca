"""
A scripted SMTP destination that writes down who came when, and holds deliveries open.

L{Sink} is for looking at a queue manager from the side of the destination: it holds all connections, lets one
go, and sees how many new ones come; so the concurrency window is seen step by step. It also refuses above a
limit, is slow, or does what a script of L{tests.interop.scripted_smtp} says. It is on
127.0.0.1 only, with a thread for each connection.
"""

from __future__ import annotations

import enum
import re
import socket
import time
from collections.abc import Callable, Sequence

from attrs import define, frozen

from tests.interop.scripted_smtp import Act, Script, Session
from tests.interop.threaded_server import ThreadedServer

QUIET = 0.25
"""How long nothing new must come until a sink counts as settled, in seconds."""


class Stage(enum.Enum):
    """Where a sink holds a connection; the value is the stage's name in a script."""

    GREETING = "greeting"
    """Before its greeting: what is let go may still become a connection or handshake failure."""
    END = "end"
    """At the end of data: a delivery is open."""


@frozen
class Event:
    """
    Something that happened on a connection.

    @ivar at: seconds of the monotonic clock.
    @ivar kind: C{connect}, C{mail}, C{rcpt}, C{taken} (the end of data was answered 2xx), C{refused} (the
        greeting was not 2xx) or C{close}.
    @ivar visit: the number of the connection, from 1.
    @ivar address: of MAIL or RCPT.
    """

    at: float
    kind: str
    visit: int
    address: bytes = b""


@define(eq=False)
class Delivery:
    """
    A message that came to the end of data.

    @ivar visit: the number of its connection.
    @ivar sender: the envelope sender.
    @ivar recipients: the envelope recipients, in order.
    @ivar content: as on the wire.
    @ivar began: when its MAIL came, seconds of the monotonic clock.
    @ivar ended: when the end of data was answered; 0 as long as it is open.
    """

    visit: int
    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    began: float
    ended: float = 0.0

    @property
    def subject(self) -> str:
        """The Subject of the message."""
        found = re.search(rb"^subject: (.*?)\r?$", self.content, re.IGNORECASE | re.MULTILINE)
        return found[1].decode() if found else ""


@define(eq=False)
class Held:
    """
    A connection that waits to be let go.

    @ivar visit: its number.
    @ivar delivery: what it wants to deliver; L{None} at the greeting.
    @ivar go: whether it was let go.
    @ivar reply: what to answer instead of the script's reply; an answer other than 2xx to the greeting is
        also the end of the connection.
    """

    visit: int
    delivery: Delivery | None
    go: bool = False
    reply: bytes | None = None


class _RecordingSession(Session):
    """A session that tells its sink about MAIL and RCPT."""

    def __init__(self, script: Script, record: Callable[[str, bytes], None]) -> None:
        super().__init__(script)
        self._record = record
        self.began = 0.0

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].lower()
        if verb in (b"mail", b"rcpt"):
            self._record(verb.decode(), line.partition(b"<")[2].partition(b">")[0])
            if verb == b"mail":
                self.began = time.monotonic()
        return super()._command(line)


class Sink(ThreadedServer):
    """
    A scripted destination on 127.0.0.1 that writes everything down; a context manager.

    @ivar script: what it does, as in L{tests.interop.scripted_smtp}; may be replaced.
    @ivar limit: the most connections at a time (see C{most}), others are greeted with 421; L{None} for any
        number.
    @ivar latency: seconds that each end of data takes to be answered.
    @ivar hold: where connections wait for L{release}, or L{None}; may be replaced, see L{release_all}.
    @ivar events: all that happened, in order.
    @ivar deliveries: the messages that came to the end of data, in order.
    @ivar most: how many connections there were at most at a time, without those that were over the limit; one
        that has had the answer to its message is not counted any more.
    """

    BACKLOG = 500

    def __init__(
        self,
        script: Script | None = None,
        *,
        listen: bool = True,
        hold: Stage | None = None,
        limit: int | None = None,
        latency: float = 0.0,
    ) -> None:
        super().__init__()
        self.script: Script = script or {}
        self.limit = limit
        self.latency = latency
        self.hold = hold
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.most = 0
        self._busy: set[int] = set()
        self._held: list[Held] = []
        if listen:
            self.listen()

    # --- what came --------------------------------------------------------------------------------------

    def held(self) -> Sequence[Held]:
        """
        @return: the connections that wait to be let go, in the order of their coming.
        """
        with self._news:
            return list(self._held)

    def taken(self) -> Sequence[Delivery]:
        """
        @return: the deliveries that are over, in the order of their coming.
        """
        with self._news:
            return [delivery for delivery in self.deliveries if delivery.ended]

    def count(self, kind: str) -> int:
        """
        @return: how many events of a kind there were.
        """
        with self._news:
            return self._count(kind)

    def release(self, count: int = 1, reply: bytes | None = None, skip: int = 0) -> Sequence[Held]:
        """
        Let those go that have waited longest.

        @param reply: what they get instead of the script's reply.
        @param skip: how many of those that have waited longest stay.
        @return: who they were.
        @raise AssertionError: there are not so many.
        """
        with self._news:
            assert len(self._held) >= skip + count, f"{len(self._held)} are held, not {skip + count}"
            gone = self._held[skip : skip + count]
            del self._held[skip : skip + count]
            for each in gone:
                each.reply = reply
                each.go = True
            self._news.notify_all()
            return gone

    def release_all(self) -> None:
        """Hold nobody any more."""
        with self._news:
            self.hold = None
            for each in self._held:
                each.go = True
            self._held.clear()
            self._news.notify_all()

    def settled(
        self,
        held: int | None = None,
        refused: int | None = None,
        *,
        quiet: float = QUIET,
        seconds: float = 20.0,
    ) -> int:
        """
        Wait until nothing has happened for a while.

        @param held: how many should be held then. What is slow to come is waited for: too many are seen in
            the quiet time, and too few when C{seconds} are over.
        @param refused: how many should have been refused.
        @return: how many are held.
        """
        end = time.monotonic() + seconds
        with self._news:
            self._news.wait_for(
                lambda: held in (None, len(self._held)) and refused in (None, self._count("refused")), seconds
            )
            end = max(end, time.monotonic() + 10 * quiet)
            while True:
                before = len(self.events), len(self._held)
                self._news.wait(quiet)
                if (len(self.events), len(self._held)) == before:
                    return len(self._held)
                assert time.monotonic() < end, f"port {self.port} is never quiet"

    def wait_held(self, count: int, seconds: float = 20.0, quiet: float = QUIET) -> Sequence[Held]:
        """
        Wait until so many are held, and see that no more come.

        @return: the held ones.
        @raise AssertionError: fewer come in that time, or more.
        """
        now = self.settled(count, quiet=quiet, seconds=seconds)
        assert now == count, f"{now} are held at port {self.port}, not {count}"
        return self.held()

    def wait_taken(self, count: int, seconds: float = 30.0) -> Sequence[Delivery]:
        """
        @return: the deliveries that are over, when there are so many.
        """
        with self._news:
            self._news.wait_for(lambda: sum(bool(each.ended) for each in self.deliveries) >= count, seconds)
        taken = self.taken()
        assert len(taken) >= count, f"{len(taken)} deliveries to port {self.port}, not {count}"
        return taken

    # --- the connections --------------------------------------------------------------------------------

    def _came(self, visit: int) -> None:
        self._record("connect", visit)
        if self.limit is None or len(self._busy) < self.limit:
            self._busy.add(visit)
            self.most = max(self.most, len(self._busy))

    def _left(self, visit: int) -> None:
        self._busy.discard(visit)
        self._record("close", visit)

    def _refuse(self, connection: socket.socket, visit: int, reply: bytes) -> None:
        with self._news:
            self._record("refused", visit)
        connection.sendall(reply + b"\r\n")
        self._finish(connection)

    def _talk(self, connection: socket.socket, visit: int) -> None:
        with self._news:
            over = visit not in self._busy
        if over:
            self._refuse(connection, visit, b"421 4.7.0 srv.test too many connections")
            return
        if self.hold is Stage.GREETING:
            held = self._wait(visit, None)
            if held.reply is not None and not held.reply.startswith(b"2"):
                self._refuse(connection, visit, held.reply)
                return

        def record(kind: str, address: bytes) -> None:
            with self._news:
                self._record(kind, visit, address)

        session = _RecordingSession(self.script, record)
        answer = session.begin()
        if not answer.startswith(b"2") and session.over is not Act.HANG:
            with self._news:
                self._record("refused", visit)
        while True:
            if session.finished:
                answer = self._take(session, visit, answer)
            if answer:
                connection.sendall(answer)
            if session.over is not None:
                break
            data = connection.recv(65536)
            if not data:
                return
            session.script = self.script
            answer = session.feed(data)
        if session.over is Act.CLOSE:
            self._finish(connection)
        elif session.over is Act.HANG:
            self._hang()

    def _take(self, session: _RecordingSession, visit: int, answer: bytes) -> bytes:
        """A message is there: hold it, or wait, and answer."""
        [message] = session.finished
        session.finished.clear()
        delivery = Delivery(visit, message.sender, message.recipients, message.content, session.began)
        with self._news:
            self.deliveries.append(delivery)
        if self.hold is Stage.END:
            held = self._wait(visit, delivery)
            if held.reply is not None:
                answer = held.reply + b"\r\n"
        elif self.latency:
            time.sleep(self.latency)
        with self._news:
            # What is left is a QUIT, which may come after the next connection.
            self._busy.discard(visit)
            delivery.ended = time.monotonic()
            self._record("taken" if answer.startswith(b"2") else "answered", visit)
        return answer

    def _wait(self, visit: int, delivery: Delivery | None) -> Held:
        held = Held(visit, delivery)
        with self._news:
            self._held.append(held)
            self._news.notify_all()
            self._news.wait_for(lambda: held.go or self._closing)
        if self._closing:
            raise OSError("the sink stops")
        return held

    def _count(self, kind: str) -> int:
        """Needs the lock."""
        return sum(event.kind == kind for event in self.events)

    def _record(self, kind: str, visit: int, address: bytes = b"") -> None:
        """Needs the lock."""
        self.events.append(Event(time.monotonic(), kind, visit, address))
        self._news.notify_all()
