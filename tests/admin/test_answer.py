"""
The control socket: what clients of every manner get.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from qmqpd_tx.admin.client import ServiceDown, request, trigger
from qmqpd_tx.admin.codec import LINE_LIMIT, ControlError, LineDecoder, LineTooLong, decode_object
from qmqpd_tx.admin.control import (
    CLIENTS_LIMIT,
    IDLE_SECONDS,
    ControlFactory,
    ControlProtocol,
    ControlService,
)
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.message import ClientInfo, Queue


class DecoderTests(SynchronousTestCase):
    """Bytes to lines."""

    @given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=5), st.data())
    def test_any_chunking(self, lines: list[bytes], data: st.DataObject) -> None:
        """However the bytes arrive, the lines are the same."""
        stream = b"".join(line + b"\n" for line in lines)
        decoder = LineDecoder()
        found: list[bytes] = []
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            found += decoder.feed(stream[:size])
            stream = stream[size:]
        self.assertEqual(found, lines)

    def test_too_long(self) -> None:
        """A line without end is refused when it passes the limit, not when memory is full."""
        decoder = LineDecoder(limit=10)
        self.assertEqual(decoder.feed(b"0123456789"), [])
        self.assertRaises(LineTooLong, decoder.feed, b"0")

    @given(st.binary())
    def test_no_object(self, line: bytes) -> None:
        """Any bytes give an object or a ControlError."""
        with contextlib.suppress(ControlError):
            self.assertIsInstance(decode_object(line), dict)

    def test_deep(self) -> None:
        """Nesting without end is refused."""
        self.assertRaises(ControlError, decode_object, b"[" * 60000)


class ProtocolTests(SynchronousTestCase):
    """One client, and what it is answered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[Mapping[str, Any]] = []
        self.waiting: list[Deferred[Any]] = []
        self.factory = ControlFactory(
            {
                "echo": self.echo,
                "wait": self.wait,
                "refuse": self.refuse,
                "break": self.break_,
                "odd": lambda _: {1},
            },
            self.clock,
        )
        self.protocol, self.transport = self.connect()

    def connect(self) -> tuple[ControlProtocol, StringTransport]:
        """
        @return: a new client's protocol and transport.
        """
        protocol, transport = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def echo(self, request: Mapping[str, Any]) -> Any:
        """Answer with the request."""
        self.seen.append(request)
        return dict(request)

    def wait(self, request: Mapping[str, Any]) -> Any:
        """Answer later."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def refuse(self, request: Mapping[str, Any]) -> Any:
        """Refuse."""
        raise ControlError("no such message: ABC")

    def break_(self, request: Mapping[str, Any]) -> Any:
        """Be wrong."""
        raise RuntimeError("secret detail")

    def ask(self, *requests: Mapping[str, Any]) -> list[Any]:
        """
        @return: what is answered at once.
        """
        self.protocol.dataReceived(b"".join(json.dumps(one).encode() + b"\n" for one in requests))
        return self.answers()

    def answers(self) -> list[Any]:
        """
        @return: the answers since the last look.
        """
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def test_answer(self) -> None:
        """A command's result is the answer; the members of the request reach it."""
        self.assertEqual(self.ask({"command": "echo", "x": [1]}), [{"ok": True, "result": {"x": [1]}}])

    def test_values(self) -> None:
        """Handlers may answer with the package's own values."""
        self.factory.handlers = {"x": lambda _: [ClientInfo("192.0.2.1"), Queue.HOLD, b"a\xff"]}
        (answer,) = self.ask({"command": "x"})
        self.assertEqual(answer["result"][0]["address"], "192.0.2.1")
        self.assertEqual(answer["result"][1:], ["hold", "a\\xff"])

    def test_order(self) -> None:
        """Requests are answered one after the other, and not begun before their turn."""
        self.assertEqual(self.ask({"command": "wait"}, {"command": "echo", "n": 2}), [])
        self.assertEqual(self.seen, [])
        self.waiting[0].callback("first")
        self.assertEqual([answer["result"] for answer in self.answers()], ["first", {"n": 2}])

    def test_many_at_once(self) -> None:
        """However many requests come in one piece, each is answered."""
        self.assertEqual(len(self.ask(*[{"command": "echo"}] * 3000)), 3000)

    def test_impatient_client_is_not_read(self) -> None:
        """Who pours in requests while one is at work is paused."""
        self.ask({"command": "wait"}, {"command": "echo"})
        self.assertEqual(self.transport.producerState, "paused")
        self.waiting[0].callback(None)
        self.assertEqual(self.transport.producerState, "producing")

    def test_refusals(self) -> None:
        """A refusal is told; an unknown command says what there is; the connection goes on."""
        refused, unknown, missing, fine = self.ask(
            {"command": "refuse"}, {"command": "nosuch"}, {"x": 1}, {"command": "echo"}
        )
        self.assertEqual(refused, {"ok": False, "error": "no such message: ABC"})
        self.assertFalse(unknown["ok"])
        self.assertIn("echo", unknown["error"])
        self.assertFalse(missing["ok"])
        self.assertTrue(fine["ok"])

    def test_bug(self) -> None:
        """A handler's exception is logged, and its text kept from the client."""
        broken, odd, fine = self.ask({"command": "break"}, {"command": "odd"}, {"command": "echo"})
        self.assertEqual(broken["error"], "internal error; see the mail log")
        self.assertEqual(odd["error"], "internal error; see the mail log")
        self.assertTrue(fine["ok"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, TypeError)), 2)

    def test_no_json(self) -> None:
        """A line that is no request is answered so."""
        self.protocol.dataReceived(b"hello\n[]\n")
        self.assertEqual([answer["ok"] for answer in self.answers()], [False, False])

    def test_long_line(self) -> None:
        """A line without end ends the connection, with a reason."""
        self.protocol.dataReceived(b"x" * (LINE_LIMIT + 1))
        self.assertIn(str(LINE_LIMIT), self.answers()[0]["error"])
        self.assertTrue(self.transport.disconnecting)

    def test_silent_client(self) -> None:
        """A silent client is dropped; one that waits for the service is not."""
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(self.transport.disconnected)
        self.ask({"command": "wait"})
        self.clock.advance(10 * IDLE_SECONDS)
        self.assertFalse(self.transport.disconnected)
        self.waiting[0].callback(None)
        self.clock.advance(IDLE_SECONDS + 1)
        self.assertTrue(self.transport.disconnected)

    def test_gone(self) -> None:
        """A client that leaves while its command is at work harms nobody, and leaves no timer."""
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.ask({"command": "wait"}, {"command": "echo"})
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.waiting[0].callback("late")
        self.assertEqual(self.seen, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.clients, set())

    def test_crowd(self) -> None:
        """Too many clients: the last one is told so."""
        for _ in range(CLIENTS_LIMIT - 1):
            self.connect()
        _, transport = self.connect()
        self.assertIn(b"too many", transport.value())
        self.assertTrue(transport.disconnecting)


class ServiceTests(TestCase):
    """Real sockets, and the client that commands use."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.folder = Path(self.mktemp())
        (self.folder / "public").mkdir(parents=True)
        self.path = self.folder / "public" / "control"
        self.service = ControlService(
            reactor=reactor,  # type: ignore[arg-type]
            clock=reactor,  # type: ignore[arg-type]
            path=self.path,
            handlers={"echo": dict, "refuse": self.refuse},
        )
        self.addCleanup(self.stop)

    def refuse(self, request: Mapping[str, Any]) -> Any:
        """Refuse."""
        raise ControlError("not now")

    def stop(self) -> Deferred[None] | None:
        """Stop what runs."""
        return self.service.stopService() if self.service.running else None

    async def test_request(self) -> None:
        """A command gets its answer over the socket, which only its owner may use."""
        self.service.startService()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        answer = await deferToThread(request, self.folder, "echo", x="é")
        self.assertEqual(answer, {"x": "é"})

    async def test_refusal(self) -> None:
        """A refusal is an exception with the reason."""
        self.service.startService()
        with self.assertRaises(ControlError) as caught:
            await deferToThread(request, self.folder, "refuse")
        self.assertEqual(str(caught.exception), "not now")

    async def test_stale_socket(self) -> None:
        """The socket of a service that was killed is replaced."""
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        self.service.startService()
        self.assertEqual(await deferToThread(request, self.folder, "echo"), {})

    async def test_stop(self) -> None:
        """After the stop the socket is gone, and clients that were connected are not waited for."""
        self.service.startService()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            await deferToThread(request, self.folder, "echo")
            await self.service.stopService()
        self.assertFalse(self.path.exists())
        with self.assertRaises(ServiceDown) as caught:
            await deferToThread(request, self.folder, "echo")
        self.assertEqual(str(caught.exception), "mail system is down")

    def test_cannot_listen(self) -> None:
        """A file in the way is not removed; the error names the path."""
        self.path.write_text("precious")
        with self.assertRaises(ConfigError) as caught:
            self.service.startService()
        self.assertIn(str(self.path), str(caught.exception))
        self.assertEqual(self.path.read_text(), "precious")

    def test_down(self) -> None:
        """Without a service both sockets say that the mail system is down."""
        for call in (lambda: request(self.folder, "echo"), lambda: trigger(self.folder, b"D")):
            with self.assertRaises(ServiceDown) as caught:
                call()
            self.assertEqual(str(caught.exception), "mail system is down")

    def test_hung_service(self) -> None:
        """A service that does not answer costs a bounded time."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen()
            with self.assertRaises(ServiceDown) as caught:
                request(self.folder, "echo", seconds=0.05)
        self.assertIn("no answer", str(caught.exception))

    def test_trigger(self) -> None:
        """Triggers arrive as the bytes they are."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.folder / "public" / "qmgr"))
            listener.listen()
            trigger(self.folder, b"FAD")
            connection, _ = listener.accept()
            with connection:
                self.assertEqual(connection.recv(10), b"FAD")
