"""
Kill the service with SIGKILL at random moments under load, start it again, and account for every message.

A program of its own, on asyncio and the standard library alone, so that nothing of the code under
test takes part in the judgement::

    python -m tests.crash.kill_rounds --rounds 200

Each round: clients hand over messages by QMQP; each message carries a unique token and the checksum
of its body. At a random moment the service is killed. What was answered with C{K} is noted at once.
After the last round the queue is drained into a recording SMTP sink, and then

  - every acknowledged token must have arrived at the sink,
  - nothing may have arrived whose body does not match its checksum,
  - the queue must be empty, C{corrupt} included.

Messages delivered more than once are counted and printed: a crash between the sink's answer and the
record of it may repeat a delivery, and must never lose one.

Exits 0 when all of that holds, 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

REPLY_TIME_LIMIT = 20.0
START_TIME_LIMIT = 30.0
DRAIN_TIME_LIMIT = 300.0
TWISTD = "from twisted.scripts.twistd import run; run()"
ROOT = Path(__file__).resolve().parent.parent.parent
QUEUES = ("incoming", "active", "deferred", "hold", "corrupt")


def free_port() -> int:
    """
    @return: a TCP port on loopback that is free now.
    """
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def netstring(data: bytes) -> bytes:
    """
    @return: C{data} as a netstring.
    """
    return b"%d:%s," % (len(data), data)


class Sink:
    """An SMTP server that records the token of each message it accepted, and whether it was whole."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()
        self.wanted: dict[str, int] = {}
        self.broken: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """
        Speak to one client until it leaves.
        """
        recipients = 0
        try:
            writer.write(b"220 sink.test ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"RCPT":
                    recipients += 1
                    writer.write(b"250 2.1.5 Ok\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go ahead\r\n")
                    body = await self._data(reader)
                    self._record(body, recipients)
                    recipients = 0
                    writer.write(b"250 2.0.0 Ok\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 2.0.0 Ok\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _data(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while True:
            line = await reader.readline()
            if not line.endswith(b"\r\n"):
                raise asyncio.IncompleteReadError(line, None)
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def _record(self, message: bytes, recipients: int) -> None:
        head, _, body = message.partition(b"\r\n\r\n")
        found = re.search(rb"X-Token: (\S+) (\S+) (\d+)\r\n", head + b"\r\n")
        if found is None:
            self.broken.append("a message without a token")
            return
        token, checksum, count = found[1].decode(), found[2].decode(), int(found[3])
        digest = hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest()
        if digest != checksum:
            self.broken.append(f"{token}: body of {len(body)} bytes does not match its checksum")
        # One delivery may carry some of the recipients; count each recipient's copy.
        self.tokens[token] += recipients
        self.wanted[token] = count


class Client:
    """Hands over messages one after another until told to stop."""

    def __init__(self, port: int, chance: random.Random, name: str) -> None:
        self.port = port
        self.chance = chance
        self.name = name
        self.sent = 0
        self.acknowledged: dict[str, int] = {}
        self.unanswered = 0

    def message(self) -> tuple[str, int, bytes]:
        """
        @return: a fresh token, its number of recipients, and the whole QMQP request.
        """
        self.sent += 1
        token = f"{self.name}-{self.sent}"
        large = self.chance.random() < 0.05
        size = self.chance.randrange(100_000, 400_000) if large else self.chance.randrange(10, 6000)
        body = (token.encode() + b" 0123456789abcdef\n") * (size // 32 + 1)
        count = self.chance.choice((1, 1, 1, 2, 7))
        content = (
            b"From: sender@source.test\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nX-Token: %s %s %d\n\n%s"
            % (token.encode(), hashlib.sha256(body).hexdigest().encode(), count, body)
        )
        addresses = b"".join(netstring(b"user%d@d%d.test" % (n, n % 3)) for n in range(count))
        request = netstring(netstring(content) + netstring(b"sender@source.test") + addresses)
        return token, count, request

    async def run(self) -> None:
        """
        Send until cancelled or the server is gone.
        """
        while True:
            token, count, request = self.message()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return
            try:
                writer.write(request)
                reply = await asyncio.wait_for(reader.read(), REPLY_TIME_LIMIT)
            except (TimeoutError, OSError):
                reply = b""
            finally:
                writer.close()
            if re.match(rb"\d+:K", reply):
                self.acknowledged[token] = count
            else:
                self.unanswered += 1


class Service:
    """The service under test: one child process at a time on one scratch folder."""

    def __init__(self, scratch: Path, qmqp_port: int, sink_port: int) -> None:
        self.scratch = scratch
        self.port = qmqp_port
        self.queue = scratch / "queue"
        self.log = scratch / "mail.log"
        (scratch / "main.cf").write_text(
            f"queue_directory = {self.queue}\n"
            f"maillog_file = {self.log}\n"
            f"maillog_file_prefixes = {scratch}\n"
            "myhostname = relay.test\n"
            "mydestination =\n"
            "qmqpd_authorized_clients = 127.0.0.1\n"
            f"relayhost = [127.0.0.1]:{sink_port}\n"
            "minimal_backoff_time = 1s\n"
            "maximal_backoff_time = 2s\n"
            "queue_run_delay = 1s\n"
        )
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """
        Start it and wait until it takes connections.
        """
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            TWISTD,
            "-n",
            "--pidfile=",
            "qmqp",
            "--config",
            str(self.scratch / "main.cf"),
            "--listen",
            f"tcp:{self.port}:interface=127.0.0.1",
            stdout=open(self.scratch / "twistd.out", "ab"),  # noqa: SIM115 - the child keeps it
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        end = time.monotonic() + START_TIME_LIMIT
        while time.monotonic() < end:
            if self.process.returncode is not None:
                raise SystemExit(f"the service ended at start-up; see {self.scratch}/twistd.out")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        raise SystemExit("the service did not start in time")

    async def kill(self, how: int = signal.SIGKILL) -> int:
        """
        Send it a signal and wait for its end.
        """
        assert self.process is not None
        self.process.send_signal(how)
        return await self.process.wait()

    def queued(self) -> list[str]:
        """
        @return: the queue files there are, with their queue.
        """
        return [
            f"{queue}/{path.name}"
            for queue in QUEUES
            for path in (self.queue / queue).rglob("*")
            if path.is_file() and (os.stat(path).st_mode & 0o100 or queue == "corrupt")
        ]


async def rounds(options: argparse.Namespace, scratch: Path) -> int:
    """
    Do all of it.

    @return: the exit status.
    """
    # That a peer which was killed does not read any more is what this is about.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    chance = random.Random(options.seed)
    sink = Sink()
    sink_port, qmqp_port = free_port(), free_port()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", sink_port, limit=1 << 20)
    service = Service(scratch, qmqp_port, sink_port)
    acknowledged: dict[str, int] = {}
    unanswered = 0
    for number in range(options.rounds):
        await service.start()
        clients = [Client(qmqp_port, chance, f"{number}-{n}") for n in range(options.clients)]
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        await asyncio.sleep(chance.uniform(0.02, options.longest))
        await service.kill()
        await asyncio.wait(tasks, timeout=REPLY_TIME_LIMIT)
        for client in clients:
            acknowledged.update(client.acknowledged)
            unanswered += client.unanswered
        if (number + 1) % 20 == 0:
            print(
                f"round {number + 1}: {len(acknowledged)} acknowledged, {len(sink.tokens)} arrived",
                flush=True,
            )
    await service.start()
    end = time.monotonic() + DRAIN_TIME_LIMIT
    while time.monotonic() < end and service.queued():
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    left = service.queued()
    status = await service.kill(signal.SIGTERM)
    server.close()
    missing = [token for token, count in acknowledged.items() if sink.tokens[token] < count]
    repeated = sum(1 for token, copies in sink.tokens.items() if copies > sink.wanted[token])
    print(
        f"{options.rounds} rounds, seed {options.seed}: {len(acknowledged)} messages acknowledged, "
        f"{unanswered} unanswered, {len(sink.tokens)} arrived, {repeated} with a recipient delivered twice; "
        f"missing {len(missing)}, broken {len(sink.broken)}, left in the queue {len(left)}, "
        f"exit status after SIGTERM {status}"
    )
    for problem in [*missing[:10], *sink.broken[:10], *left[:10]]:
        print("  problem:", problem)
    # twistd ends itself with the signal that it was told to stop with.
    return 1 if missing or sink.broken or left or status not in (0, -signal.SIGTERM) else 0


def main(arguments: list[str] | None = None) -> int:
    """
    Run from the command line.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="kill -9 under load, restart, account for every message")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--longest", type=float, default=0.8, help="longest time under load, seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="scratch folder to use and keep")
    options = parser.parse_args(arguments)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        return asyncio.run(rounds(options, options.keep))
    with tempfile.TemporaryDirectory(prefix="qmqpd_tx-crash-") as scratch:
        return asyncio.run(rounds(options, Path(scratch)))


if __name__ == "__main__":
    sys.exit(main())
