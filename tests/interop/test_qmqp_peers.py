"""Real QMQP clients with our server, and our client with real QMQP servers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.qmqp_server import QMQPServerTestCase
from tests.peers import Peer, PrivatePostfix, free_port, require
from tests.qmqp import packets
from tests.qmqp.packets import packet

ROOT = Path(__file__).parents[2]
CONTENT = b"Subject: test\n\n" + bytes(range(256)) + b"\r\n.\r\nno final line end"


def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program."""
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def nullmailer(message: Path, port: int) -> subprocess.CompletedProcess[bytes]:
    """Run nullmailer's QMQP client, which finds envelope and message on descriptor 3."""
    client = require("nullmailer-qmqp")
    script = 'exec "$@" 3<"$0"'
    return run("/bin/sh", "-c", script, str(message), client, "--host=127.0.0.1", f"--port={port}")


def send(*arguments: str, message: bytes = CONTENT) -> subprocess.CompletedProcess[bytes]:
    """Run C{qmqpd-tx send}."""
    return run(sys.executable, "-m", "qmqpd_tx.admin.main", "send", *arguments, stdin=message)


class ServerTests(QMQPServerTestCase):
    """Their clients."""

    max_connections = 20

    async def test_qmqp_source(self) -> None:
        """More sessions than we serve at a time: the others wait."""
        source = require("qmqp-source")
        done = await deferToThread(
            run,
            source,
            *("-s", "30", "-m", "500", "-l", "4096", "-r", "3"),
            *("-f", "a@example.com", "-t", "b@example.org", f"127.0.0.1:{self.port}"),
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.assertEqual(len(self.cleanup.accepted), 500)
        for message in self.cleanup.accepted:
            self.assertEqual(len(message.body), 4096)
            self.assertEqual(message.from_address, b"a@example.com")
            self.assertEqual(len(message.recipients), 3)
            assert message.client is not None
            self.assertEqual((message.client.name, message.client.address), ("localhost", "127.0.0.1"))

    async def test_large_message(self) -> None:
        source = require("qmqp-source")
        done = await deferToThread(run, source, "-l", "9000000", f"127.0.0.1:{self.port}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.cleanup.accepted[0].body), 9000000)
        self.assertLess(max(map(len, self.cleanup.accepted[0].chunks)), 1_000_000)

    async def test_nullmailer(self) -> None:
        require("nullmailer-qmqp")
        path = Path(self.mktemp())
        path.write_bytes(b"a@example.com\nb@example.org\nc@example.org\n\n" + CONTENT)
        done = await deferToThread(nullmailer, path, self.port)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        [message] = self.cleanup.accepted
        self.assertEqual(message.from_address, b"a@example.com")
        self.assertEqual(message.recipients, [b"b@example.org", b"c@example.org"])
        self.assertEqual(message.body, CONTENT)

    async def test_our_own_client(self) -> None:
        done = await deferToThread(
            send, f"--server=127.0.0.1:{self.port}", "--from=a@example.com", "b@example.org", "c@example.org"
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        [message] = self.cleanup.accepted
        self.assertEqual(message.body, CONTENT)
        self.assertEqual(message.from_address, b"a@example.com")
        self.assertEqual(message.recipients, [b"b@example.org", b"c@example.org"])

    async def test_our_own_client_with_files(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        large = CONTENT * 20000
        (folder / "message").write_bytes(large)
        (folder / "servers").write_text(f"# nobody there\n127.0.0.1:{free_port()}\n127.0.0.1:{self.port}\n")
        recipients = b"".join(b"user%d@example.org\n" % number for number in range(1000))
        done = await deferToThread(
            send,
            *(f"--servers={folder / 'servers'}", "--from=<>", "-v"),
            *(f"--message={folder / 'message'}", "--recipients-file=-", "first@example.org"),
            message=recipients,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"qmqpd-tx: 127.0.0.1:%d: Ok: queued as ID1\n" % self.port)
        [message] = self.cleanup.accepted
        self.assertEqual(message.body, large)
        self.assertEqual(message.from_address, b"")
        self.assertEqual(message.recipients, [b"first@example.org", *recipients.split()])


class TooLargeTests(QMQPServerTestCase):
    """A client that sends everything before it reads the reply must find the reply."""

    config = "message_size_limit = 100000\nqmqpd_error_delay = 0\n"

    async def test_our_own_client(self) -> None:
        done = await deferToThread(
            send, f"--server=127.0.0.1:{self.port}", "--from=a", "b", message=b"x" * 20_000_000
        )
        self.assertEqual(done.returncode, 31)
        self.assertIn(b"netstring length exceeds storage limit while receiving message content", done.stderr)

    async def test_nullmailer(self) -> None:
        require("nullmailer-qmqp")
        path = Path(self.mktemp())
        path.write_bytes(b"a@example.com\nb@example.org\n\n" + b"x\n" * 10_000_000)
        done = await deferToThread(nullmailer, path, self.port)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"exceeds storage limit", done.stdout + done.stderr)


class ClientTests(SynchronousTestCase):
    """Their servers."""

    def test_qmqp_sink(self) -> None:
        port = free_port()
        with Peer([require("qmqp-sink"), f"127.0.0.1:{port}", "10"], port):
            done = send(f"--server=127.0.0.1:{port}", "--from=a@example.com", "b@example.org")
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            done = send(
                f"--server=127.0.0.1:{port}", "--from=a@example.com", "b@example.org", message=CONTENT * 30000
            )
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_postfix(self) -> None:
        settings = {"default_transport": "discard", "qmqpd_error_delay": "0"}
        with PrivatePostfix(settings) as postfix:
            server = f"--server=127.0.0.1:{postfix.port}"
            done = send(server, "-v", "--from=list-@example.com-@[]", "b@example.org", "c@example.org")
            self.assertEqual(done.returncode, 0, done.stderr)
            queue_id = re.search(rb"Ok: queued as (\w+)\n", done.stderr)
            assert queue_id is not None
            deadline = time.monotonic() + 10
            wanted = f"{queue_id[1].decode()}: from=<list@example.com>"
            while wanted not in postfix.log() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertIn(wanted, postfix.log())
            done = send(server, "--from=list!@example.com-@[]", "b@example.org")
            self.assertEqual(done.returncode, 31)
            self.assertIn(b"Invalid VERP delimiters", done.stderr)


class CommandTests(SynchronousTestCase):
    """C{qmqpd-tx send} without a server."""

    def test_nobody_listens(self) -> None:
        done = send(f"--server=127.0.0.1:{free_port()}", "--from=a", "b")
        self.assertEqual(done.returncode, 73)
        self.assertIn(b"cannot connect", done.stderr)

    def test_envelope(self) -> None:
        self.assertEqual(send("--from=a").returncode, 91)
        self.assertEqual(send("--from=a", "x" * 1001).returncode, 11)

    def test_files(self) -> None:
        self.assertEqual(send("--servers=/nonexistent", "--from=a", "b").returncode, 55)
        self.assertEqual(send("--servers=/dev/null", "--from=a", "b").returncode, 55)
        self.assertEqual(send("--recipients-file=/nonexistent", "--from=a").returncode, 55)
        self.assertEqual(send("--message=/nonexistent", "--from=a", "b").returncode, 54)

    def test_usage(self) -> None:
        for arguments in (("b",), ("--from=a", "--server=:", "b"), ("--from=a", "--recipients-file=-")):
            done = send(*arguments)
            self.assertEqual(done.returncode, 64)
            self.assertIn(b"Error: ", done.stderr)

    def test_help(self) -> None:
        done = send("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"74 connection broke", b" ".join(done.stdout.split()))


class ProxyTests(QMQPServerTestCase):
    """A proxy in front, over real sockets."""

    config = "qmqpd_upstream_proxy_protocol = haproxy\nqmqpd_error_delay = 0\n"
    header = b"PROXY TCP4 127.0.0.1 127.0.0.1 4321 628\r\n"

    def talk(self, *pieces: bytes, finish: bool = False) -> bytes:
        """Send, piece by piece, and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                if len(pieces) > 1:
                    time.sleep(0.02)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            reply = b""
            while chunk := connection.recv(65536):
                reply += chunk
        return reply

    async def test_small_message(self) -> None:
        for pieces in (
            (self.header + packet(),),
            (self.header, packet()),
            (self.header[:3], self.header[3:20], self.header[20:] + packet()[:10], packet()[10:]),
        ):
            for finish in (False, True):
                reply = await deferToThread(self.talk, *pieces, finish=finish)
                self.assertIn(b"KOk: queued as", reply)
        for message in self.cleanup.accepted:
            self.assertEqual(message.body, packets.CONTENT)
            assert message.client is not None
            self.assertEqual((message.client.name, message.client.port), ("localhost", 4321))

    async def test_large_message_and_back_pressure(self) -> None:
        """The queue pauses the connection again and again; nothing is lost or moved."""
        body = bytes(range(256)) * 20000
        self.cleanup.slow_store = None
        reply = await deferToThread(self.talk, self.header + packet(body))
        self.assertIn(b"KOk: queued as", reply)
        self.assertEqual(self.cleanup.accepted[0].body, body)

    async def test_reply_to_a_client_that_sends_too_much(self) -> None:
        data = packet(b"x" * 12_000_000)
        reply = await deferToThread(self.talk, self.header + data)
        self.assertIn(b"exceeds storage limit", reply)

    async def test_no_header(self) -> None:
        try:
            reply = await deferToThread(self.talk, packet())
        except ConnectionResetError:
            reply = b""
        self.assertEqual(reply, b"")
        self.assertEqual(self.cleanup.begun, [])
        self.assertIn("haproxy read: short protocol header", "".join(self.lines))
