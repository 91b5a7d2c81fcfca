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
record of it may repeat a delivery, and must never lose one. With C{--deferring} the sink refuses some
recipients for now.

With C{--operator} an operator is at work as well: all messages are put on hold, released, requeued and
flushed in a random order, by the commands, while the service is under load and dies; some commands are killed
themselves, and some run while there is no service. Before the queue is drained, everything is put on hold,
the service is killed and started once more, and

  - nothing may arrive while it is on hold.

With C{--intake} a header check puts some messages on hold as they come, virtual aliases turn some recipients
into two, and everything is copied to somebody; all of these must get it, and

  - nothing that is to be held may arrive before it is released.

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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.peers import free_port

REPLY_TIME_LIMIT = 20.0
START_TIME_LIMIT = 30.0
DRAIN_TIME_LIMIT = 300.0
COMMAND_TIME_LIMIT = 120.0
QUIET_SECONDS = 3.0
TWISTD = "from twisted.scripts.twistd import run; run()"
ROOT = Path(__file__).resolve().parent.parent.parent
QUEUES = ("incoming", "active", "deferred", "hold", "corrupt")
ALIASES = {b"user1@d1.test": [b"one@d1.test", b"other@d4.test"], b"user2@d2.test": [b"two@d2.test"]}
COPIES_TO = b"log@log.test"
HELD = b"X-Fate: hold\n"
COMMANDS = (
    ("postsuper", "-h", "ALL"),
    ("postsuper", "-H", "ALL"),
    ("postsuper", "-H", "ALL"),
    ("postsuper", "-r", "ALL"),
    ("postqueue", "-f"),
)


def netstring(data: bytes) -> bytes:
    """
    @return: C{data} as a netstring.
    """
    return b"%d:%s," % (len(data), data)


class Sink:
    """An SMTP server that records the token of each message it accepted, and whether it was whole."""

    def __init__(self, chance: random.Random, deferring: float) -> None:
        """
        @param deferring: the share of recipients that are to be tried again.
        """
        self.chance = chance
        self.deferring = deferring
        self.tokens: dict[str, Counter[bytes]] = {}
        self.broken: list[str] = []

    def copies(self) -> int:
        """
        @return: how many copies came, one for each recipient.
        """
        return sum(copies.total() for copies in self.tokens.values())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """
        Speak to one client until it leaves.
        """
        recipients: list[bytes] = []
        try:
            writer.write(b"220 sink.test ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"MAIL":
                    recipients = []
                    writer.write(b"250 2.1.0 Ok\r\n")
                elif verb == b"RCPT":
                    if self.chance.random() < self.deferring:
                        writer.write(b"450 4.2.0 later\r\n")
                        continue
                    recipients.append(line.partition(b"<")[2].partition(b">")[0])
                    writer.write(b"250 2.1.5 Ok\r\n")
                elif verb == b"DATA":
                    if not recipients:
                        writer.write(b"554 5.5.1 no valid recipients\r\n")
                        continue
                    writer.write(b"354 go ahead\r\n")
                    body = await self._data(reader)
                    self._record(body, recipients)
                    recipients = []
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
        lines: list[bytes] = []
        while True:
            line = await reader.readline()
            if not line.endswith(b"\r\n"):
                raise asyncio.IncompleteReadError(line, None)
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def _record(self, message: bytes, recipients: list[bytes]) -> None:
        head, _, body = message.partition(b"\r\n\r\n")
        found = re.search(rb"X-Token: (\S+) (\S+)\r\n", head + b"\r\n")
        if found is None:
            self.broken.append("a message without a token")
            return
        token, checksum = found[1].decode(), found[2].decode()
        digest = hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest()
        if digest != checksum:
            self.broken.append(f"{token}: body of {len(body)} bytes does not match its checksum")
        # One delivery may carry some of the recipients; count each recipient's copy.
        self.tokens.setdefault(token, Counter()).update(recipients)


class Client:
    """Hands over messages one after another until told to stop."""

    def __init__(self, port: int, chance: random.Random, name: str, intake: bool) -> None:
        """
        @param intake: whether there are aliases, copies and a check that holds.
        """
        self.port = port
        self.chance = chance
        self.name = name
        self.intake = intake
        self.sent = 0
        self.held: set[str] = set()
        self.acknowledged: dict[str, list[bytes]] = {}
        self.unanswered = 0

    def message(self) -> tuple[str, list[bytes], bytes]:
        """
        @return: a fresh token, who is to get it, and the whole QMQP request.
        """
        self.sent += 1
        token = f"{self.name}-{self.sent}"
        large = self.chance.random() < 0.05
        size = self.chance.randrange(100_000, 400_000) if large else self.chance.randrange(10, 6000)
        body = (token.encode() + b" 0123456789abcdef\n") * (size // 32 + 1)
        count = self.chance.choice((1, 1, 1, 2, 7))
        fate = b""
        if self.intake and self.chance.random() < 0.2:
            self.held.add(token)
            fate = HELD
        head = b"From: sender@source.test\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n"
        content = b"%s%sX-Token: %s %s\n\n%s" % (
            head,
            fate,
            token.encode(),
            hashlib.sha256(body).hexdigest().encode(),
            body,
        )
        recipients = [b"user%d@d%d.test" % (n, n % 3) for n in range(count)]
        addresses = b"".join(map(netstring, recipients))
        request = netstring(netstring(content) + netstring(b"sender@source.test") + addresses)
        if self.intake:
            recipients = [one for address in recipients for one in ALIASES.get(address, [address])]
            recipients.append(COPIES_TO)
        return token, recipients, request

    async def run(self) -> None:
        """
        Send until cancelled or the server is gone.
        """
        while True:
            token, recipients, request = self.message()
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
                self.acknowledged[token] = recipients
            else:
                self.unanswered += 1


class Service:
    """The service under test: one child process at a time on one scratch folder."""

    def __init__(self, scratch: Path, qmqp_port: int, sink_port: int, intake: bool) -> None:
        """
        @param intake: as in L{Client}.
        """
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
        if intake:
            lines = [b"%s %s\n" % (name, b", ".join(members)) for name, members in ALIASES.items()]
            (scratch / "aliases").write_bytes(b"".join(lines))
            (scratch / "checks").write_text(f"/^{HELD.decode().strip()}/ HOLD\n")
            with (scratch / "main.cf").open("a") as config:
                config.write(
                    f"virtual_alias_maps = texthash:{scratch}/aliases\n"
                    f"header_checks = regexp:{scratch}/checks\n"
                    f"always_bcc = {COPIES_TO.decode()}\n"
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

    def queued(self, queues: Sequence[str] = QUEUES) -> list[str]:
        """
        @return: the queue files there are, with their queue.
        """
        found = []
        for queue in queues:
            for path in (self.queue / queue).rglob("*"):
                # Files come and go meanwhile.
                with suppress(FileNotFoundError):
                    if path.is_file() and (path.stat().st_mode & 0o100 or queue == "corrupt"):
                        found.append(f"{queue}/{path.name}")
        return found

    async def command(self, *arguments: str, killed_after: float | None = None) -> int:
        """
        Run one of the commands.

        @param killed_after: seconds until it is killed.
        @return: its exit status.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "qmqpd_tx.admin.main", "-c", str(self.scratch), *arguments),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=open(self.scratch / "commands.out", "ab"),  # noqa: SIM115 - the child keeps it
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            return await asyncio.wait_for(process.wait(), killed_after or COMMAND_TIME_LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()
            if killed_after is None:
                raise SystemExit(f"{arguments}: not done in time") from None
            return -signal.SIGKILL


class Operator:
    """Puts on hold, releases, requeues and flushes, as it comes."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self.service = service
        self.chance = chance
        self.done: Counter[str] = Counter()
        self.stopping = False

    async def one(self) -> None:
        """
        Run one command; now and then it is killed.
        """
        arguments = self.chance.choice(COMMANDS)
        killed_after = self.chance.uniform(0.2, 1.5) if self.chance.random() < 0.25 else None
        status = await self.service.command(*arguments, killed_after=killed_after)
        self.done[f"{' '.join(arguments[:2])}{'' if status == 0 else ' (cut off)'}"] += 1

    async def run(self) -> None:
        """
        Run commands until told to stop.
        """
        self.stopping = False
        while not self.stopping:
            await self.one()

    async def freeze(self, sink: Sink) -> list[str]:
        """
        Hold everything, kill the service, start it again, and see that it stays so.

        @return: what is wrong.
        """
        end = time.monotonic() + COMMAND_TIME_LIMIT
        while self.service.queued(("incoming", "active", "deferred")):
            if time.monotonic() > end:
                return ["not everything could be put on hold"]
            await self.service.command("postsuper", "-h", "ALL")
        # A delivery that was under way when its message was put on hold goes on, and counts.
        await asyncio.sleep(QUIET_SECONDS)
        held, copies = set(self.service.queued(("hold",))), sink.copies()
        await self.service.command("postqueue", "-f")
        await asyncio.sleep(QUIET_SECONDS)
        await self.service.kill()
        await self.service.start()
        await self.service.command("postqueue", "-f")
        await asyncio.sleep(QUIET_SECONDS)
        print(f"{len(held)} messages on hold", flush=True)
        problems = []
        if sink.copies() != copies:
            problems.append(f"{sink.copies() - copies} copies arrived of what was on hold")
        if held != set(self.service.queued()):
            problems.append("what is on hold is not what was put there")
        return problems

    async def release(self) -> None:
        """
        Nothing is to stay on hold.
        """
        end = time.monotonic() + COMMAND_TIME_LIMIT
        while self.service.queued(("hold",)) and time.monotonic() < end:
            await self.service.command("postsuper", "-H", "ALL")


async def rounds(options: argparse.Namespace, scratch: Path) -> int:
    """
    Do all of it.

    @return: the exit status.
    """
    # That a peer which was killed does not read any more is what this is about.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    chance = random.Random(options.seed)
    sink = Sink(chance, options.deferring)
    sink_port, qmqp_port = free_port(), free_port()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", sink_port, limit=1 << 20)
    service = Service(scratch, qmqp_port, sink_port, options.intake)
    operator = Operator(service, chance)
    acknowledged: dict[str, list[bytes]] = {}
    held: set[str] = set()
    problems: list[str] = []
    unanswered = 0
    for number in range(options.rounds):
        await service.start()
        clients = [Client(qmqp_port, chance, f"{number}-{n}", options.intake) for n in range(options.clients)]
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        hands = [asyncio.ensure_future(operator.run()) for _ in range(options.operator)]
        await asyncio.sleep(chance.uniform(0.02, options.longest))
        await service.kill()
        await asyncio.wait(tasks, timeout=REPLY_TIME_LIMIT)
        # The command that is under way finds no service any more, and may do it to the files.
        operator.stopping = True
        await asyncio.gather(*hands)
        for client in clients:
            acknowledged.update(client.acknowledged)
            held |= client.held
            unanswered += client.unanswered
        if (number + 1) % 20 == 0:
            print(
                f"round {number + 1}: {len(acknowledged)} acknowledged, {len(sink.tokens)} arrived",
                flush=True,
            )
    await service.start()
    if options.operator:
        problems += await operator.freeze(sink)
    elif options.intake:
        end = time.monotonic() + DRAIN_TIME_LIMIT
        while time.monotonic() < end and service.queued(("incoming", "active", "deferred")):
            await asyncio.sleep(0.2)
        problems += [f"{token}: arrived although it is on hold" for token in held & sink.tokens.keys()]
        print(f"{len(service.queued(('hold',)))} messages on hold", flush=True)
    if options.operator or options.intake:
        await operator.release()
    end = time.monotonic() + DRAIN_TIME_LIMIT
    while time.monotonic() < end and service.queued():
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    left = service.queued()
    status = await service.kill(signal.SIGTERM)
    server.close()
    for token, recipients in acknowledged.items():
        arrived = sink.tokens.get(token, Counter())
        missing = [recipient for recipient in recipients if not arrived[recipient]]
        if missing:
            problems.append(f"{token}: missing: {missing}")
    repeated = sum(1 for copies in sink.tokens.values() if copies.total() > len(copies))
    print(
        f"{options.rounds} rounds, seed {options.seed}: {len(acknowledged)} messages acknowledged, "
        f"{unanswered} unanswered, {len(sink.tokens)} arrived, {repeated} with a recipient delivered twice; "
        f"problems {len(problems)}, broken {len(sink.broken)}, left in the queue {len(left)}, "
        f"exit status after SIGTERM {status}"
    )
    for what, number in sorted(operator.done.items()):
        print(f"  {what}: {number}")
    for problem in [*problems[:20], *sink.broken[:10], *left[:10]]:
        print("  problem:", problem)
    # twistd ends itself with the signal that it was told to stop with.
    return 1 if problems or sink.broken or left or status not in (0, -signal.SIGTERM) else 0


def main(arguments: list[str] | None = None) -> int:
    """
    Run from the command line.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="kill -9 under load, restart, account for every message")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--longest", type=float, default=0.8, help="longest time under load, seconds")
    parser.add_argument("--operator", type=int, default=0, help="commands that run at a time beside it")
    parser.add_argument("--deferring", type=float, default=0.0, help="share of recipients the sink defers")
    parser.add_argument("--intake", action="store_true", help="with holds, aliases and copies")
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
