"""
Two queue managers side by side: the same main.cf, the same mail, the same scripted destination.

The destination is a L{Sink<tests.interop.qmgr_sink.Sink>}. L{PostfixSide} and L{OurSide} are a private
Postfix and our whole service behind one face, L{Side}. What a scenario finds on both is a sequence (who, how
many at once, in which order, with which status), never a wall-clock time.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from signal import SIGHUP
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.qmgr_sink import Delivery as Delivery
from tests.interop.qmgr_sink import Sink as Sink
from tests.interop.qmgr_sink import Stage as Stage
from tests.interop.scripted_smtp import Script
from tests.peers import MASTER_CF, PrivatePostfix, free_port, scratch
from tests.service import RunningService, environment, qmqp_send, wait_until

SENDER = b"sender@source.test"
MESSAGE = b"Subject: side by side\n\nhello\n"


OURS = ("qmgr_intake_share",)
"""Parameters of L{routes} that Postfix does not have."""

_STATUS = re.compile(
    r"postfix/(\S+?)\[\d+\]: (\w+): to=<([^>]*)>, (?:orig_to=<[^>]*>, )?relay=(\S+), (?:conn_use=\d+, )?"
    r"delay=([\d.]+), delays=[\d./]+, dsn=([\d.]+), status=(\w+) \((.*)\)$",
    re.MULTILINE,
)
_LINE = re.compile(r"postfix/(\S+?)\[\d+\]: (.*)$", re.MULTILINE)


@frozen
class Status:
    """A C{status=} line of the mail log."""

    program: str
    queue_id: str
    to: str
    relay: str
    delay: float
    dsn: str
    status: str
    text: str


class Side(ABC):
    """
    A running queue manager.

    @ivar name: for messages of tests.
    @ivar port: its QMQP port.
    @ivar queue: its C{queue_directory}.
    @ivar maillog: its log file.
    """

    name: str
    port: int
    queue: Path
    maillog: Path

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = 0
        self._log = ""

    def log(self) -> str:
        """
        @return: its mail log so far, in whole lines.
        """
        with self._lock, contextlib.suppress(FileNotFoundError), self.maillog.open("rb") as file:
            # Tests ask often: only what is new is read.
            file.seek(self._read)
            new = file.read()
            new = new[: new.rfind(b"\n") + 1]
            self._read += len(new)
            self._log += new.decode("utf-8", "replace")
        return self._log

    def send(
        self, *recipients: bytes, sender: bytes = SENDER, message: bytes = MESSAGE, subject: str | None = None
    ) -> str:
        """
        Hand it one message by QMQP, and wait until it has been active: a queue manager that finds several new
        messages takes them in the order of its directory, not in that of their arrival.

        @param subject: instead of C{message}: a message with this subject.
        @return: its queue id.
        """
        if subject is not None:
            message = b"Subject: %s\n\nhello\n" % subject.encode()
        reply = qmqp_send(self.port, message, sender, list(recipients))
        assert reply.startswith(b"K"), reply
        queue_id = reply.split()[-1].decode()
        wait_until(
            lambda: f"{queue_id}: from=<" in self.log(),
            20,
            f"{queue_id} to become active on {self.name}",
            0.002,
        )
        return queue_id

    def trigger(self, letters: bytes) -> None:
        """
        Write trigger bytes to C{public/qmgr}, as they are.
        """
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.settimeout(10)
            client.connect(str(self.queue / "public" / "qmgr"))
            client.sendall(letters)

    def statuses(self, domain: str = "") -> Sequence[Status]:
        """
        @param domain: only for recipients whose address ends so.
        @return: the C{status=} lines of its log, in order.
        """
        return [
            Status(program, queue_id, to, relay, float(delay), dsn, status, text)
            for program, queue_id, to, relay, delay, dsn, status, text in _STATUS.findall(self.log())
            if to.endswith(domain)
        ]

    def wait_statuses(self, count: int, domain: str = "", seconds: float = 30.0) -> Sequence[Status]:
        """
        @return: the C{status=} lines, when there are so many.
        """
        wait_until(
            lambda: len(self.statuses(domain)) >= count, seconds, f"{count} status lines on {self.name}"
        )
        return self.statuses(domain)

    def lines(self, program: str = "qmgr") -> Sequence[str]:
        """
        @param program: C{qmgr} stands for Postfix's C{oqmgr} too.
        @return: what a program has logged, in order, without time and process id.
        """
        names = (program, "oqmgr") if program == "qmgr" else (program,)
        return [text for name, text in _LINE.findall(self.log()) if name.rpartition("/")[2] in names]

    def files(self, *queues: str) -> Sequence[Path]:
        """
        @param queues: by default those whose mail is still to be delivered.
        @return: the queue files there.
        """
        return [
            path
            for queue in queues or ("maildrop", "incoming", "active", "deferred", "hold")
            for path in (self.queue / queue).rglob("*")
            if path.is_file()
        ]

    def find(self, queue_id: str) -> tuple[str, float] | None:
        """
        @return: the queue in which a message is and the modification time of its file, or L{None}.
        """
        for path in self.files():
            if path.name == queue_id:
                with contextlib.suppress(FileNotFoundError):
                    return path.relative_to(self.queue).parts[0], path.stat().st_mtime
        return None

    def wait_queue(self, queue_id: str, queue: str | None, seconds: float = 20.0) -> float:
        """
        Wait until a message is in a queue; L{None} for in none.

        @return: the modification time of its file; 0 when it is gone.
        """

        def there() -> bool:
            found = self.find(queue_id)
            return (found[0] if found else None) == queue

        wait_until(there, seconds, f"{queue_id} to be in {queue} on {self.name}")
        found = self.find(queue_id)
        self.catch_up()
        return found[1] if found else 0.0

    def wait_idle(self, seconds: float = 20.0) -> None:
        """Wait until nothing is being delivered."""
        wait_until(
            lambda: not self.files("active", "incoming"), seconds, f"an empty active queue on {self.name}"
        )
        self.catch_up()

    def wait_empty(self, seconds: float = 30.0) -> None:
        """Wait until there is nothing to deliver."""
        wait_until(lambda: not self.files(), seconds, f"an empty queue on {self.name}")
        self.catch_up()

    @abstractmethod
    def catch_up(self) -> None:
        """
        Wait until the log names all deliveries that were over before: it may lag behind the queue.
        """

    @abstractmethod
    def postqueue(self, *arguments: str) -> None:
        """Run its postqueue command."""

    @abstractmethod
    def postsuper(self, *arguments: str) -> None:
        """Run its postsuper command."""

    @abstractmethod
    def reload(self, settings: Mapping[str, str] | None = None) -> None:
        """
        Change parameters of main.cf, and reload.
        """

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it."""


class PostfixSide(Side):
    """
    A private Postfix.
    """

    name = "Postfix"

    def __init__(self, settings: Mapping[str, str], master: str = "") -> None:
        """
        @param settings: main.cf parameters.
        @param master: further lines of master.cf.
        """
        super().__init__()
        theirs = {name: value for name, value in settings.items() if name not in OURS}
        self._postfix = PrivatePostfix(theirs, master)
        self.port = self._postfix.port
        self.queue = self._postfix.spool
        self.maillog = self._postfix.maillog

    def catch_up(self) -> None:
        self._postfix.catch_up()

    def postqueue(self, *arguments: str) -> None:
        self._postfix.command("postqueue", *arguments)

    def postsuper(self, *arguments: str) -> None:
        self._postfix.command("postsuper", *arguments)

    def reload(self, settings: Mapping[str, str] | None = None) -> None:
        if settings:
            self._postfix.command("postconf", *(f"{name}={value}" for name, value in settings.items()))
        before = self.log().count("reload -- ")
        self._postfix.command("postfix", "reload")
        wait_until(lambda: self.log().count("reload -- ") > before, 20, "the reload")

    def start(self) -> None:
        self._postfix.start()

    def stop(self) -> None:
        self._postfix.stop()


class OurSide(Side):
    """
    Our service as a child process.
    """

    name = "qmqpd_tx"

    def __init__(self, settings: Mapping[str, str], master: str = "") -> None:
        """
        @param settings: main.cf parameters.
        @param master: further lines of master.cf; one for a service named here replaces the usual one.
        """
        super().__init__()
        self.port = free_port()
        self._settings = dict(settings)
        # A short path: it has to hold sockets.
        self._folder = scratch()
        self._service = RunningService(self._folder, self.port, master=master_cf(master))
        self._common = self._service.config.read_text()
        self.queue = self._service.queue
        self.maillog = self._service.log
        self._write()

    def catch_up(self) -> None:
        self._service.catch_up()

    def postqueue(self, *arguments: str) -> None:
        self._command("postqueue", *arguments)

    def postsuper(self, *arguments: str) -> None:
        self._command("postsuper", *arguments)

    def reload(self, settings: Mapping[str, str] | None = None) -> None:
        before = self.log().count("reload -- ")
        self._settings.update(settings or {})
        self._write()
        self._service.signal(SIGHUP)
        wait_until(lambda: self.log().count("reload -- ") > before, 20, "the reload")

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        if self._service.process is not None:
            self._service.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self) -> None:
        self._service.config.write_text(self._common + main_cf(self._settings))

    def _command(self, *arguments: str) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from qmqpd_tx.admin.main import main; main()",
                "-c",
                str(self._service.config.parent),
                *arguments,
            ],
            env=environment(),
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{arguments}: status {done.returncode}: {done.stderr!r}"


def main_cf(settings: Mapping[str, str]) -> str:
    """
    @return: the settings as lines of main.cf.
    """
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def master_cf(lines: str) -> str:
    """
    @param lines: further lines of master.cf.
    @return: a master.cf for our service: what the usual one has, without the QMQP port (the service gets
        it on its command line), with these lines over it.
    """
    replaced = {line.split()[0] for line in lines.splitlines() if line[:1].strip()}
    usual: list[str] = []
    keep = False
    for line in MASTER_CF.splitlines(keepends=True):
        if line[:1].strip():
            keep = line.split()[0] not in {"{port}", *replaced} and line.split()[7] in (
                "qmgr", "smtp", "error", "discard", "local",
            )  # fmt: skip
        if keep:
            usual.append(line)
    return "".join(usual) + lines


def routes(sinks: Mapping[str, Sink | int | str]) -> dict[str, str]:
    """
    @param sinks: by domain: a destination for the transport C{smtp}, its port, or a transport and next hop.
        A domain may say which transport it wants, as in C{slow:domain.test}.
    @return: main.cf settings that lead there, with what all scenarios need: each delivery has a connection of
        its own, and mail for L{SENDER} is discarded.
    """
    table = ["{source.test=discard:}"]
    for name, where in sinks.items():
        transport, _, domain = name.rpartition(":")
        if not isinstance(where, str):
            port = where if isinstance(where, int) else where.port
            where = f"{transport or 'smtp'}:[127.0.0.1]:{port}"
        table.append(f"{{{domain}={where}}}")
    return {
        "transport_maps": f"inline:{{{', '.join(table)}}}",
        "smtp_connection_cache_on_demand": "no",
        "qmgr_intake_share": "100",
    }


class SideBySideTestCase(SynchronousTestCase):
    """Starts both sides and sinks, and stops them at the end."""

    def sink(self, script: Script | None = None, **options: Any) -> Sink:
        """
        @return: a destination; the arguments are L{Sink}'s.
        """
        sink = Sink(script, **options)
        self.addCleanup(sink.stop)
        return sink

    def sinks(self, names: Iterable[str], **options: Any) -> dict[str, Sink]:
        """
        @return: a destination for each name.
        """
        return {name: self.sink(**options) for name in names}

    def postfix(self, settings: Mapping[str, str], master: str = "") -> Side:
        """
        @return: a private Postfix, running.
        """
        return self._launch(PostfixSide(settings, master))

    def ours(self, settings: Mapping[str, str], master: str = "") -> Side:
        """
        @return: our service, running.
        """
        return self._launch(OurSide(settings, master))

    def _launch(self, side: Side) -> Side:
        self.addCleanup(side.stop)
        side.start()
        return side
