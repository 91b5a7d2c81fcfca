"""
The whole service as a child process, for tests that look at it from outside.

Everything is on loopback and in a scratch folder; the child is ended by its own pid.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from signal import SIG_DFL, SIGINT, SIGTERM, signal
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
TWISTD = "from twisted.scripts.twistd import run; run()"
CLEAN = (0, -SIGTERM)
"""The exit status after SIGTERM: twistd ends itself with the signal, so that its parent knows why."""

QUEUES = ("incoming", "active", "deferred", "hold", "corrupt")


def environment() -> dict[str, str]:
    """
    @return: the environment for child processes: the code under test comes first on the path.
    """
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def run_twistd(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """
    Run twistd to its end.
    """
    return subprocess.run(
        [sys.executable, "-c", TWISTD, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_until(condition: object, seconds: float, what: str, pause: float = 0.02) -> None:
    """
    Wait for a callable to become true; a failure names what was waited for.

    @param pause: seconds between two looks.
    """
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause)


def _short(folder: Path) -> Path:
    """
    @return: the folder, or, where its name is too long for the sockets in a queue, another one that goes when
        the tests are over.
    """
    if len(os.fsencode(folder)) < 80:
        return folder
    other = tempfile.mkdtemp(prefix="qmqpd-tx-")
    atexit.register(shutil.rmtree, other, ignore_errors=True)
    return Path(other)


def _heed_interrupts() -> None:
    """Runs in the child."""
    signal(SIGINT, SIG_DFL)


class RunningService:
    """
    C{twistd -n qmqp} on a scratch folder; a context manager.

    @ivar host: where it listens for QMQP, 127.0.0.1 unless somebody says otherwise.
    @ivar port: its port there.
    @ivar queue: its C{queue_directory}.
    @ivar log: its C{maillog_file}.
    @ivar config: its main.cf, which lacks only what C{settings} adds.
    @ivar output: what it says on its standard streams.
    @ivar command: how it is started.
    @ivar own_group: whether it is to lead a process group of its own. SIGINT ends it then, also when a shell
        has told us, a background job, to ignore it.
    """

    def __init__(
        self,
        scratch: str | Path,
        port: int,
        settings: str = "",
        twistd: tuple[str, ...] = (),
        master: str | None = None,
        listen: tuple[str, ...] | None = None,
    ) -> None:
        """
        @param scratch: a folder for all of it; made when missing.
        @param settings: lines of main.cf, after the common ones.
        @param twistd: more options for twistd itself.
        @param master: a master.cf beside it.
        @param listen: C{--listen}, each; by default C{port} on 127.0.0.1.
        """
        self.scratch = Path(scratch).resolve()
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = port
        self.queue = _short(self.scratch) / "queue"
        self.log = self.scratch / "mail.log"
        self.config = self.scratch / "main.cf"
        self.twistd = twistd
        self.config.write_text(
            f"queue_directory = {self.queue}\n"
            f"maillog_file = {self.log}\n"
            f"maillog_file_prefixes = {self.scratch}\n"
            "myhostname = relay.test\n"
            "mydestination =\n"
            "qmqpd_authorized_clients = 127.0.0.1\n"
            f"{settings}"
        )
        if master is not None:
            (self.scratch / "master.cf").write_text(master)
        if listen is None:
            listen = (f"tcp:{port}:interface=127.0.0.1",)
        self.output = self.scratch / "twistd.out"
        self.command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", *self.twistd]
        self.command += ["qmqp", "--config", str(self.config)]
        for endpoint in listen:
            self.command += ["--listen", endpoint]
        self.own_group = False
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def start(self, wait: bool = True) -> None:
        """
        Start it and wait until it takes connections.
        """
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.scratch,
                process_group=0 if self.own_group else None,
                preexec_fn=_heed_interrupts if self.own_group else None,
            )
        if wait:
            wait_until(self._answers, 30, f"the service to listen (its output: {self.output})")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended at start-up: {self.output.read_text()}")
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        """
        Send it a signal.
        """
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, how: int = SIGTERM) -> int:
        """
        End it.

        @return: its exit status.
        """
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    def queued(self) -> list[str]:
        """
        @return: the queue files there are, as C{queue/ID}.
        """
        return sorted(
            f"{queue}/{path.name}"
            for queue in QUEUES
            for path in (self.queue / queue).rglob("*")
            if path.is_file()
        )

    def catch_up(self) -> None:
        """
        Wait until the log has all that was logged before: it is written before the service turns to what its
        clients say next.
        """
        with socket.create_connection((self.host, self.port), 20) as client:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b"", "an answer to nothing"

    def wait_for_log(self, text: str, seconds: float = 20.0) -> str:
        """
        @return: the log, once it contains C{text}.
        """
        wait_until(lambda: text in self.log_text(), seconds, f"{text!r} in {self.log}")
        return self.log_text()

    def log_text(self) -> str:
        """
        @return: the mail log so far.
        """
        return self.log.read_text() if self.log.exists() else ""

    def peak_memory(self) -> int:
        """
        @return: the peak resident set of the service so far, in bytes.
        """
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def __enter__(self) -> RunningService:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def qmqp_send(
    port: int, message: bytes, sender: bytes, recipients: list[bytes], timeout: float = 60.0
) -> bytes:
    """
    Hand over one message by QMQP, written out by hand: the tests' own client.

    @return: the server's reply without its netstring frame; C{b""} when it gave none.
    """

    def netstring(data: bytes) -> bytes:
        return b"%d:%s," % (len(data), data)

    request = netstring(netstring(message) + netstring(sender) + b"".join(map(netstring, recipients)))
    with socket.create_connection(("127.0.0.1", port), timeout) as client:
        client.sendall(request)
        reply = b""
        while data := client.recv(65536):
            reply += data
    return reply.partition(b":")[2][:-1]
