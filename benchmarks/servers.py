"""
The two servers under test, behind one face.

Each is started once, on loopback, with a scratch queue and a log file, relaying everything to its own
smtp-sink. Both answer C{K} only after fsync. What is measured of them is read from /proc: peak resident
memory (C{VmHWM}) and processor time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from tests.peers import PrivatePostfix, free_port, scratch, wait_for_port

ROOT = Path(__file__).resolve().parent.parent
QUEUES = ("maildrop", "incoming", "active", "deferred")

SETTINGS = {
    "myhostname": "relay.test",
    "mydestination": "",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "qmqpd_authorized_clients": "127.0.0.1",
    "local_recipient_maps": "",
}
"""What both servers are told; all else is at its default (Postfix has C{in_flow_delay = 0} too)."""


class Server(Protocol):
    """A server under test."""

    name: str
    port: int
    spool: Path

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def stop(self) -> None:
        """Stop it, and remove what it left."""

    def processes(self) -> list[int]:
        """
        @return: the process ids that belong to it now.
        """

    def last_words(self) -> str:
        """
        @return: the end of its log, for an error.
        """


class Ours:
    """C{twistd -n qmqp} in one process."""

    name = "qmqpd_tx"

    def __init__(
        self, relayhost: str, profile: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """
        @param relayhost: where all mail goes.
        @param profile: where cProfile's statistics are written when it stops.
        @param settings: further main.cf parameters.
        """
        self.folder = scratch()
        self.spool = self.folder / "spool"
        self.port = free_port()
        self._maillog = self.folder / "mail.log"
        self._errors = self.folder / "twistd.err"
        self._profile = profile
        self._process: subprocess.Popen[bytes] | None = None
        parameters = {
            **SETTINGS,
            "queue_directory": str(self.spool),
            "maillog_file": str(self._maillog),
            "maillog_file_prefixes": str(self.folder),
            "relayhost": relayhost,
            **(settings or {}),
        }
        text = "".join(f"{name} = {value}\n" for name, value in parameters.items())
        (self.folder / "main.cf").write_text(text)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        profiling: list[str] = []
        if self._profile is not None:
            profiling = ["--profile", str(self._profile.absolute()), "--profiler", "cprofile", "--savestats"]
        command = [
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "-n",
            "--pidfile=",
            *profiling,
            "qmqp",
            "--config",
            str(self.folder / "main.cf"),
            "--listen",
            f"tcp:{self.port}:interface=127.0.0.1:backlog=200",
        ]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        try:
            wait_for_port(self.port, process=self._process)
        except AssertionError as problem:
            raise RuntimeError(f"{problem}\n{self.last_words()}") from problem

    def stop(self) -> None:
        """Stop it, and remove what it left."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """
        @return: the one process.
        """
        return [self._process.pid] if self._process is not None else []

    def last_words(self) -> str:
        """
        @return: the end of its log, for an error.
        """
        return _tail(self._errors) + _tail(self._maillog)


class Postfix:
    """A private Postfix."""

    name = "Postfix"

    def __init__(self, relayhost: str, settings: Mapping[str, str] | None = None) -> None:
        """
        @param relayhost: where all mail goes.
        @param settings: further main.cf parameters.
        """
        self._postfix = PrivatePostfix({**SETTINGS, "relayhost": relayhost, **(settings or {})})
        self.spool = self._postfix.spool
        self.port = self._postfix.port

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._postfix.start()

    def stop(self) -> None:
        """Stop it, and remove what it left."""
        self._postfix.stop()

    def processes(self) -> list[int]:
        """
        @return: master and all that it started.
        """
        pid_file = self.spool / "pid" / "master.pid"
        try:
            master = int(pid_file.read_text())
        except (OSError, ValueError):
            return []
        return [master, *_children(master)]

    def last_words(self) -> str:
        """
        @return: the end of its log, for an error.
        """
        return self._postfix.log()[-2000:]


def _tail(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[-2000:]
    except OSError:
        return ""


def _children(parent: int) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and int(fields[1]) == parent:
                yield int(entry.name)


def _stat(pid: int) -> list[str]:
    """
    @return: the fields of /proc/PID/stat from the third on, or nothing when the process is gone.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def peak_memory(pids: list[int]) -> int:
    """
    @return: the sum of the processes' peaks of resident memory, in bytes.
    """
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def cpu_seconds(pids: list[int]) -> float:
    """
    @return: the processor time that the processes have used so far, user and system.
    """
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def queued(spool: Path) -> bool:
    """
    @return: whether any message waits or is under way in a queue.
    """
    return any(_holds_files(spool / queue) for queue in QUEUES)


def _holds_files(folder: Path | str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(
                _holds_files(entry.path) if entry.is_dir(follow_symlinks=False) else True for entry in entries
            )
    except FileNotFoundError:
        return False


def wait_until_drained(server: Server, seconds: float) -> None:
    """
    Block until the server's queue is empty; look every 20 ms.

    @raise RuntimeError: it is not, after that time.
    """
    deadline = time.monotonic() + seconds
    while queued(server.spool):
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{server.name}: mail is left in the queue after {seconds:g} s\n{server.last_words()}"
            )
        time.sleep(0.02)
