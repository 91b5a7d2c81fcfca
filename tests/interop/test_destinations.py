"""
Destinations that refuse, fail, hang or break off, over real sockets: the same table for our whole service and
for Postfix.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from email import message_from_bytes
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.destination_cases import CASES, LARGE_LINE, SENDER, SMALL, Case
from tests.interop.scripted_smtp import Act, Script, ScriptedServer
from tests.peers import PrivatePostfix, free_port, scratch
from tests.service import RunningService, environment, qmqp_send, wait_until

LIMIT = 3
"""The time limit of every stage, in seconds."""

BACKOFF = 1000
"""C{minimal_backoff_time}, in seconds: more than any of these tests takes."""

LIMITS = (
    "connect", "helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "rset", "quit",
)  # fmt: skip

_STATUS = re.compile(
    r"postfix/(\w+)\[\d+\]: (\w+): to=<([^>]*)>, (?:orig_to=<[^>]*>, )?relay=(\S+), (?:conn_use=\d+, )?"
    r"delay=[\d.]+, delays=[\d./]+, dsn=([\d.]+), status=(\w+) \((.*)\)$",
    re.MULTILINE,
)
_OTHER = re.compile(r"postfix/smtp\[\d+\]: (?!\w+: to=<)(?:[0-9A-Za-z]{6,}: )?(.*)$", re.MULTILINE)


@frozen
class Line:
    """A C{status=} line of the mail log, without what must differ."""

    program: str
    to: str
    relay: str
    dsn: str
    status: str
    text: str


def lines(log: str) -> Sequence[Line]:
    """
    @return: the C{status=} lines of a mail log, in order.
    """
    return [Line(program, to, *rest) for program, _, to, *rest in _STATUS.findall(log)]


class SilentPort:
    """
    A port that does not answer to connection requests: its backlog is full. A context manager's C{port}.
    """

    def __init__(self) -> None:
        self._sockets = [socket.socket()]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[0].listen(0)
        self.port: int = self._sockets[0].getsockname()[1]
        for _ in range(20):
            filler = socket.socket()
            self._sockets.append(filler)
            filler.settimeout(0.3)
            try:
                filler.connect(("127.0.0.1", self.port))
            except OSError:
                return
        raise AssertionError("the backlog is never full")

    def stop(self) -> None:
        """Close all."""
        for each in self._sockets:
            each.close()


def start(case: Case) -> ScriptedServer | SilentPort:
    """
    @return: the destination of a case.
    """
    if case.connects == "timeout":
        return SilentPort()
    return ScriptedServer(case.script, listen=not case.connects, pipelining=case.pipelining)


def routes(ports: Mapping[str, int]) -> dict[str, str]:
    """
    @param ports: where each domain's mail goes.
    @return: main.cf settings for that, with what they all need; mail for the sender is discarded.
    """
    table = ", ".join(f"{{{domain}=smtp:[127.0.0.1]:{port}}}" for domain, port in ports.items())
    return {
        "transport_maps": f"inline:{{{{source.test=discard:}}, {table}}}",
        "minimal_backoff_time": f"{BACKOFF}s",
        "initial_destination_concurrency": "1",
        **{f"smtp_{stage}_timeout": f"{LIMIT}s" for stage in LIMITS},
    }


def text(settings: Mapping[str, str]) -> str:
    """
    @return: the settings as lines of main.cf.
    """
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def deferred(service: RunningService) -> int:
    """
    @return: how many messages wait.
    """
    return sum(name.startswith("deferred/") for name in service.queued())


def postqueue(service: RunningService, *arguments: str) -> None:
    """
    Run C{qmqpd-tx postqueue}.
    """
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from qmqpd_tx.admin.main import main; main()",
            "-c",
            str(service.config.parent),
            "postqueue",
            *arguments,
        ],
        env=environment(),
        check=True,
        capture_output=True,
        timeout=60,
    )


class DestinationTestCase(SynchronousTestCase):
    """Has servers, and services that are stopped at the end."""

    def service(self, settings: Mapping[str, str]) -> RunningService:
        """
        @return: our service, running.
        """
        # A short path: it has to hold sockets.
        folder = scratch()
        self.addCleanup(shutil.rmtree, folder)
        service = RunningService(folder, free_port(), text(settings))
        service.start()
        self.addCleanup(service.stop)
        return service

    def server(self, *args: object, **kwargs: object) -> ScriptedServer:
        """
        @return: a scripted server.
        """
        server = ScriptedServer(*args, **kwargs)
        self.addCleanup(server.stop)
        return server


class TableTests(DestinationTestCase):
    """Every case of the table."""

    def setUp(self) -> None:
        self.servers = {}
        for case in CASES:
            server = self.servers[case] = start(case)
            self.addCleanup(server.stop)
        self.settings = routes({case.domain: server.port for case, server in self.servers.items()})

    def expected(self, case: Case) -> Line:
        """
        @return: the line of a case.
        """
        port = self.servers[case].port
        return Line(
            "smtp",
            case.recipient.decode(),
            case.relay_for(port),
            case.dsn,
            case.status,
            case.text_for(port),
        )

    def check(self, port: int, queue: Path, log: Callable[[], str]) -> None:
        """
        Send a message to each destination, and look at the log and at the deferred queue; then a second one
        to the dead ones, and to one that is not.
        """
        began = time.time()
        large = SMALL + LARGE_LINE * 140_000
        for case in CASES:
            reply = qmqp_send(port, large if case.large else SMALL, SENDER, [case.recipient])
            self.assertEqual(reply[:1], b"K", reply)
        wanted = {case.recipient.decode(): self.expected(case) for case in CASES}

        def outcomes() -> dict[str, Line]:
            return {line.to: line for line in lines(log()) if line.to in wanted}

        wait_until(lambda: len(outcomes()) == len(wanted), 45, "an outcome of each message")
        found = outcomes()
        different = [f"{line}\nbut was {found[to]}" for to, line in wanted.items() if found[to] != line]
        self.assertEqual(different, [], "\n".join(different))
        others = sorted(_OTHER.findall(log()))
        refused = [case.text_for(self.servers[case].port) for case in CASES if case.connects]
        self.assertEqual(others, sorted(refused))
        self.check_queue(queue, began, [case for case in CASES if case.status == "deferred"])
        self.check_second(port, log)

    def check_queue(self, queue: Path, began: float, waiting: Sequence[Case]) -> None:
        """
        What is to be tried again is in deferred, until its time; nothing else is left.
        """
        waits = queue / "deferred"

        def files(folder: Path) -> list[Path]:
            return [path for path in folder.rglob("*") if path.is_file()]

        wait_until(lambda: len(files(waits)) == len(waiting), 20, f"{len(waiting)} deferred messages")
        wait_until(lambda: not files(queue / "active") + files(queue / "incoming"), 20, "the rest to be gone")
        now = time.time()
        for path in files(waits):
            due = path.stat().st_mtime
            self.assertTrue(began - 1 + BACKOFF <= due <= now + 1 + BACKOFF, f"{path}: {due - now}")

    def check_second(self, port: int, log: Callable[[], str]) -> None:
        """
        Mail for a dead destination is not tried; mail for one where only the recipient was deferred is.
        """
        before = len(lines(log()))
        again = [case for case in CASES if case.dead or case.name == "rcpt 4xx"]
        for case in again:
            qmqp_send(port, SMALL, SENDER, [case.recipient])

        def second() -> Sequence[Line]:
            return [line for line in lines(log())[before:] if line.to != SENDER.decode()]

        wait_until(lambda: len(second()) == len(again), 20, "the outcomes of the second messages")
        wanted = {}
        for case in again:
            line = self.expected(case)
            if case.dead:
                reason = f"delivery temporarily suspended: {line.text}"
                line = Line("error", line.to, "none", line.dsn, "deferred", reason)
            wanted[line.to] = line
        self.assertEqual({line.to: line for line in second()}, wanted)

    def test_ours(self) -> None:
        """
        Our service does what the table says.
        """
        service = self.service(self.settings)
        self.check(service.port, service.queue, service.log_text)

    def test_postfix(self) -> None:
        """
        So does Postfix, word for word: the table is right.
        """
        with PrivatePostfix(self.settings) as postfix:
            self.check(postfix.port, postfix.spool, postfix.log)


class RecoveryTests(DestinationTestCase):
    """A destination comes back, or does not."""

    def test_flush(self) -> None:
        """
        C{qmqpd-tx postqueue -f} delivers what waits, long before its time, once the destination is back.
        """
        away = self.server(listen=False)
        busy = self.server({"rcpt": b"450 4.2.1 later"})
        service = self.service(routes({"away.test": away.port, "busy.test": busy.port}))
        for domain in (b"away.test", b"away.test", b"busy.test"):
            qmqp_send(service.port, SMALL, SENDER, [b"user@" + domain])
        wait_until(lambda: service.log_text().count("status=deferred") == 3, 20, "three deferred messages")
        wait_until(lambda: deferred(service) == 3, 20, "three messages in deferred")
        postqueue(service, "-f")
        wait_until(lambda: service.log_text().count("status=deferred") == 6, 20, "a second attempt at all")
        wait_until(lambda: deferred(service) == 3, 20, "three messages in deferred again")
        away.listen()
        busy.script = {}
        postqueue(service, "-f")
        taken = [*away.wait_for(2), *busy.wait_for(1)]
        self.assertEqual(
            [each.recipients for each in taken],
            [(b"user@away.test",), (b"user@away.test",), (b"user@busy.test",)],
        )
        wait_until(lambda: service.log_text().count(": removed") == 3, 10, "the end of all messages")
        self.assertEqual(service.queued(), [])
        self.assertEqual([line.status for line in lines(service.log_text())[6:]], ["sent"] * 3)

    def test_one_message(self) -> None:
        """
        C{postqueue -i} tries that message, and no other.
        """
        server = self.server({"rcpt": b"450 4.2.1 later"})
        service = self.service(routes({"busy.test": server.port}))
        replies = [qmqp_send(service.port, SMALL, SENDER, [b"%d@busy.test" % n]) for n in range(3)]
        wait_until(lambda: service.log_text().count("status=deferred") == 3, 20, "three deferred messages")
        wait_until(lambda: deferred(service) == 3, 20, "three messages in deferred")
        server.script = {}
        postqueue(service, "-i", replies[1].split()[-1].decode())
        self.assertEqual([each.recipients for each in server.wait_for(1)], [(b"1@busy.test",)])
        wait_until(lambda: service.log_text().count(": removed") == 1, 10, "the end of one message")
        self.assertEqual(deferred(service), 2)
        self.assertEqual(len(lines(service.log_text())), 4)

    def expire(self, port: int, sink: ScriptedServer, log: Callable[[], str]) -> Mapping[str, list[Line]]:
        """
        Wait until the notices about two messages, one to each of the destinations, have come.

        @return: their lines in the log.
        """
        for domain in (b"away.test", b"busy.test"):
            qmqp_send(port, SMALL, SENDER, [b"user@" + domain])
        wait_until(lambda: "status=deferred" in log(), 10, "a deferred message")
        statuses = {}
        for each in sink.wait_for(2, 30):
            notice = message_from_bytes(each.content.removesuffix(b".\r\n"))
            self.assertEqual((each.sender, each.recipients), (b"", (SENDER,)))
            block = notice.get_payload()[1].get_payload()[1]
            statuses[block["Final-Recipient"].partition("; ")[2]] = (block["Action"], block["Status"])
        self.assertEqual(
            statuses, {"user@away.test": ("failed", "4.4.1"), "user@busy.test": ("failed", "4.2.2")}
        )
        wait_until(lambda: log().count(": removed") == 4, 10, "four messages to be removed")
        self.assertEqual(log().count("from=<sender@source.test>, status=expired, returned to sender"), 2)
        return {
            name: [line for line in lines(log()) if line.to == f"user@{name}.test"]
            for name in ("away", "busy")
        }

    def test_expiry(self) -> None:
        """
        A message that has waited too long is returned with the last reason; Postfix does the same.
        """
        away = self.server(listen=False)
        busy = self.server({"rcpt": b"452 4.2.2 full"})
        sink = self.server()
        settings = {
            **routes({"away.test": away.port, "busy.test": busy.port}),
            "relayhost": f"[127.0.0.1]:{sink.port}",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
            "maximal_queue_lifetime": "3s",
        }
        settings["transport_maps"] = settings["transport_maps"].replace("{source.test=discard:}, ", "")
        service = self.service(settings)
        ours = self.expire(service.port, sink, service.log_text)
        self.assertEqual(service.queued(), [])
        for name, text in (
            ("away", f"connect to 127.0.0.1[127.0.0.1]:{away.port}: Connection refused"),
            ("busy", "host 127.0.0.1[127.0.0.1] said: 452 4.2.2 full (in reply to RCPT TO command)"),
        ):
            self.assertGreater(len(ours[name]), 1)
            self.assertEqual({(line.status, line.text) for line in ours[name]}, {("deferred", text)})
        sink.taken.clear()
        with PrivatePostfix(settings) as postfix:
            theirs = self.expire(postfix.port, sink, postfix.log)
        self.assertEqual(
            {name: set(found) for name, found in ours.items()}, {n: set(f) for n, f in theirs.items()}
        )


MIXED_RECIPIENTS = ("good", "later", "never", "full", "fine")
MIXED: Mapping[str, Script] = {
    "mixed": {},
    "nodata": {"data": b"451 4.3.0 not now"},
    "nodata5": {"data": b"554 5.7.1 not ever"},
    "noend": {"end": b"452 4.3.1 no room"},
    "noend5": {"end": b"554 5.6.0 bad words"},
    "hangs": {"end": Act.HANG},
    "breaks": {"body": Act.RESET},
    "closes": {"rcpt:full": Act.CLOSE},
    "goes": {"rcpt:full": (b"421 4.3.2 going", Act.CLOSE)},
    "nobody": {"rcpt:good": b"550 5.1.1 gone", "rcpt:fine": b"550 5.1.1 gone too"},
}
"""What goes wrong besides, by the first label of the domain."""


class MixedTests(DestinationTestCase):
    """Recipients of one message that fare differently."""

    def outcomes(self, port: int, log: Callable[[], str], domains: Sequence[str]) -> Sequence[Line]:
        """
        @return: the lines of a message to all recipients at each domain, sorted.
        """
        for domain in domains:
            qmqp_send(port, SMALL, SENDER, [f"{local}@{domain}".encode() for local in MIXED_RECIPIENTS])
        count = len(domains) * len(MIXED_RECIPIENTS)

        def found() -> Sequence[Line]:
            return [line for line in lines(log()) if line.to != SENDER.decode()]

        wait_until(lambda: len(found()) >= count, 30, f"{count} outcomes")
        return sorted(found(), key=lambda line: line.to)

    def test_same_as_postfix(self) -> None:
        """
        Each recipient has its own outcome, in Postfix's words; a server that breaks off decides only for
        those whom it has not refused before.
        """
        refusals: Script = {
            "rcpt:later": b"450 4.2.1 later",
            "rcpt:never": b"550 5.1.1 never",
            "rcpt:full": b"452 4.2.2 full",
        }
        ports = {}
        for name, script in MIXED.items():
            for kind, pipelining in (("plain", False), ("pipelined", True)):
                server = self.server({**refusals, **script}, pipelining=pipelining)
                ports[f"{name}.{kind}.test"] = server.port
        service = self.service(routes(ports))
        ours = self.outcomes(service.port, service.log_text, list(ports))
        with PrivatePostfix(routes(ports)) as postfix:
            theirs = self.outcomes(postfix.port, postfix.log, list(ports))
        self.maxDiff = None
        self.assertEqual(ours, theirs)
        mixed = {line.to: line.status for line in ours if line.to.endswith("@mixed.plain.test")}
        self.assertEqual(
            [mixed[f"{local}@mixed.plain.test"] for local in MIXED_RECIPIENTS],
            ["sent", "deferred", "bounced", "deferred", "sent"],
        )
