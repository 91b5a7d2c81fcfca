"""
Filters in memory: they follow a script, as those on sockets do, and a stage of cleanup asks them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import Factory, define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.milter_changes import CheckHeader
from qmqpd_tx.cleanup.milters import Milters, MilterStage
from qmqpd_tx.cleanup.recipients import Addressee
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.interfaces import IStoredMessage
from qmqpd_tx.maillog.render import field_text
from qmqpd_tx.message import ClientInfo, Envelope, Queue
from qmqpd_tx.milter.connection import MilterConnection
from qmqpd_tx.milter.filter import Conversation
from qmqpd_tx.milter.keep import InThread
from qmqpd_tx.milter.settings import FilterSettings, MilterSettings
from qmqpd_tx.spool.memory import MemoryMailQueue
from tests.cleanup.support import CLIENT, NOW, Stored, config, run
from tests.interop.scripted_milter import (
    COMMANDS,
    NO_REPLY,
    SILENT,
    Act,
    Raw,
    Script,
    Session,
    arguments,
    negotiation,
)

TOP = b"Received: from localhost (localhost [127.0.0.1])\n\tby relay.test; today\n"
CONTENT = b"Subject: hello\nX-A: 1\nX-B: b\nX-A: 2\n\nbody\nline 2\n"


class Refused:
    """A filter that is not there."""


class ScriptedTransport(StringTransport):
    """
    The other end of a connection: a filter that answers at once.

    @ivar session: what it was sent.
    """

    def __init__(self, script: Script, session: Session) -> None:
        super().__init__()
        self.connection: MilterConnection | None = None
        self.session = session
        self.over = False
        self._script = script
        self._input = b""
        self._macros: dict[bytes, dict[bytes, bytes]] = {}
        self._counts: dict[str, int] = {}

    def write(self, data: bytes) -> None:
        """Take what comes, and answer."""
        self._input += data
        while len(self._input) >= 4 and not self.over:
            length = struct.unpack("!I", self._input[:4])[0]
            payload, self._input = self._input[4 : 4 + length], self._input[4 + length :]
            self._take(payload[:1], payload[1:])

    def loseConnection(self) -> None:
        """The other side has finished."""
        self._close()

    def abortConnection(self) -> None:
        """The other side has had enough."""
        self.session.events.append(("dropped", (), {}))
        self._close()

    def _close(self) -> None:
        if not self.over:
            self.over = True
            assert self.connection is not None
            self.connection.connectionLost(Failure(ConnectionDone()))

    def _take(self, code: bytes, data: bytes) -> None:
        event = COMMANDS[code]
        if event == "macros":
            parts = data[1:].split(b"\0")[:-1]
            self._macros[data[:1]] = dict(zip(parts[::2], parts[1::2], strict=True))
            return
        self.session.events.append((event, arguments(event, data), self._macros.pop(code, {})))
        if event in SILENT:
            return
        self._counts[event] = self._counts.get(event, 0) + 1
        script = self._script
        steps = script.replies.get(f"{event}:{self._counts[event]}", script.replies.get(event))
        if steps is None:
            if event == "negotiate":
                steps = [negotiation(data, script)]
            else:
                steps = [] if script.protocol & NO_REPLY.get(event, 0) else [b"c"]
        assert self.connection is not None
        for step in steps:
            if step is Act.CLOSE:
                self._close()
            elif isinstance(step, Raw):
                self.connection.dataReceived(step.data)
            elif isinstance(step, bytes):
                self.connection.dataReceived(struct.pack("!I", len(step)) + step)


@frozen
class Outcome:
    """
    What became of a message.

    @ivar stored: the message, if it is in the queue.
    @ivar held: whether it is in C{hold}.
    @ivar sessions: what the filters were sent, by filter, in order.
    """

    stored: Stored | None
    held: bool
    sessions: list[Session]

    @property
    def content(self) -> bytes:
        """What was stored."""
        assert self.stored is not None
        return self.stored.content

    def events(self, number: int = 0) -> list[str]:
        """
        @return: the names of the events that one filter was sent.
        """
        return [event for event, _, _ in self.sessions[number].events]


async def same(address: bytes) -> bytes:
    """
    @return: an address with a domain.
    """
    return address if b"@" in address else address + b"@relay.test"


async def expanded(address: bytes) -> list[Addressee]:
    """
    @return: the members of C{list@}, and what any other address is with a domain.
    """
    if address == b"list@example.org":
        return [Addressee(b"m1@example.org", address), Addressee(b"m2@example.org", address)]
    whole = await same(address)
    return [Addressee(whole, whole)]


async def copies(sender: bytes) -> list[Addressee]:
    """
    @return: who gets a copy of what C{watched@example.com} sends.
    """
    return (
        [Addressee(b"log@example.org", b"log@example.org", True)] if sender == b"watched@example.com" else []
    )


@define
class Lab:
    """
    A queue in memory, and filters that follow scripts.

    @ivar scripts: what the filters do, in order.
    @ivar text: further main.cf lines; the filters are there already.
    @ivar options: settings in the braces of each filter.
    """

    scripts: Sequence[Script | Refused]
    text: str = ""
    options: str = ""
    check: CheckHeader | None = None
    verdict: Verdict = Factory(Verdict)
    in_thread: InThread | None = None
    expand: Callable[[bytes], Any] = expanded
    clock: Clock = Factory(Clock)
    sessions: list[Session] = Factory(list)
    queue: MemoryMailQueue = field(init=False)
    milters: Milters = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(NOW)
        self.queue = MemoryMailQueue()
        self.queue.start()
        names = ", ".join(
            f"{{ inet:127.0.0.1:{number}, {self.options} }}"
            for number, _ in enumerate(self.scripts, start=1001)
        )
        settings = config(f"non_smtpd_milters = {names}\n{self.text}")
        self.milters = Milters.from_config(settings, self.clock, self.in_thread, self.connect)

    def connect(self, filter: FilterSettings) -> Deferred[Conversation]:
        """
        Open a connection to a filter.
        """
        script = self.scripts[filter.address.port - 1001]
        if isinstance(script, Refused):
            return fail(ConnectionRefusedError("Connection refused"))
        session = Session()
        self.sessions.append(session)
        transport = ScriptedTransport(script, session)
        connection = transport.connection = MilterConnection(self.clock, 1048576)
        connection.makeConnection(transport)
        return succeed(connection)

    def queued(self) -> list[Any]:
        """
        @return: the messages in C{incoming} and C{hold}.
        """
        found: list[Any] = []
        for queue in (Queue.INCOMING, Queue.HOLD):
            self.queue.scan(queue).next(100).addCallback(found.extend)
        return found

    def stage(self, client: ClientInfo | None = CLIENT) -> MilterStage:
        """
        @return: a writer of a message.
        """
        return self.milters.stage(
            self.queue.create(NOW),
            client=client,
            complete=same,
            copies=copies,
            expand=self.expand,
            check=self.check,
            verdict=self.verdict,
        )

    def begin(
        self,
        content: bytes = CONTENT,
        sender: bytes = b"s@example.com",
        recipients: Iterable[bytes] = (b"one@example.org", b"two@example.org"),
        client: ClientInfo | None = CLIENT,
        eight_bit: bool = False,
    ) -> tuple[MilterStage, Deferred[IStoredMessage | None]]:
        """
        Write a message and commit it.
        """
        stage = self.stage(client)
        stage.write(content)
        stage.envelope(Envelope(sender, NOW, client, eight_bit=eight_bit), TOP)
        for recipient in recipients:
            stage.recipient(recipient, recipient)
        return stage, stage.commit()

    def send(self, *arguments: Any, **named: Any) -> Outcome:
        """
        As L{begin}, for filters that answer.

        @raise IntakeError: the message was refused.
        """
        _, committed = self.begin(*arguments, **named)
        return self.outcome(committed)

    def outcome(self, committed: Deferred[IStoredMessage | None]) -> Outcome:
        """
        @return: what became of a message.
        """
        results: list[Any] = []
        committed.addBoth(results.append)
        assert results, "the message still waits"
        result = results[0]
        if isinstance(result, Failure):
            result.raiseException()
        if result is None:
            return Outcome(None, False, self.sessions)
        message: IStoredMessage = result
        recipients = run(message.recipients(None, 100000)).recipients
        stored = Stored(
            message.queue_id,
            message.envelope,
            run(message.content.read(0, message.content.size)),
            [(recipient.address, recipient.original) for recipient in recipients],
        )
        held: list[Any] = []
        self.queue.scan(Queue.HOLD).next(10).addCallback(held.extend)
        return Outcome(stored, bool(held), self.sessions)


def log_lines(case: SynchronousTestCase) -> list[str]:
    """
    @return: a list that gets the text of all that is logged until the end of the test.
    """
    lines: list[str] = []

    def note(event: LogEvent) -> None:
        fields = {name: field_text(value) for name, value in event.items()}
        lines.append((event.get("log_format") or "").format(**fields))

    globalLogPublisher.addObserver(note)
    case.addCleanup(globalLogPublisher.removeObserver, note)
    return lines


def settings_of(text: str) -> MilterSettings:
    """
    @param text: main.cf lines.
    """
    return MilterSettings.from_config(config(text))
