"""
Real peers for the interop tests: find them, start them on loopback, stop them by their pid.

A test asks with L{require}; a peer that is missing skips the test with a reason, and fails it where
C{QMQPD_TX_REQUIRE_PEERS=1} says that all peers must be there (continuous integration). Everything that
is started here listens on 127.0.0.1 only and lives in a scratch folder of its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import SkipTest

SYSTEM_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/lib/postfix/sbin:/usr/libexec/postfix"
"""Where peers live that are not on everybody's C{PATH}."""

PACKAGES = {
    "dovecot": "dovecot-lmtpd",
    "nullmailer-qmqp": "nullmailer (apt-get download, dpkg -x; set NULLMAILER_QMQP to its qmqp program)",
    "pflogsumm": "pflogsumm",
}
"""Which Debian package brings a program; C{postfix} for the others."""

PORTS = random.SystemRandom()

LISTENING = range(12000, 32000)
"""Ports below those that Linux gives to outgoing connections (ip_local_port_range)."""

START_SECONDS = 30.0
"""How long a peer may take until it answers on its port."""


def peers_required() -> bool:
    """
    @return: whether a missing peer fails a test instead of skipping it.
    """
    return os.environ.get("QMQPD_TX_REQUIRE_PEERS") == "1"


def find(program: str) -> str | None:
    """
    @param program: a program name, as in C{qmqp-source}; C{nullmailer-qmqp} is nullmailer's QMQP client,
        whose path the environment variable C{NULLMAILER_QMQP} names.
    @return: its path, or L{None}.
    """
    if program == "nullmailer-qmqp":
        named = os.environ.get("NULLMAILER_QMQP", "/usr/lib/nullmailer/qmqp")
        return named if os.access(named, os.X_OK) else None
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH)


def unavailable(reason: str) -> Exception:
    """
    @return: what to raise when a test cannot meet its peer: a skip, or a failure where peers are required.
    """
    if peers_required():
        return AssertionError(f"QMQPD_TX_REQUIRE_PEERS=1, but {reason}")
    return SkipTest(reason)


def require(program: str) -> str:
    """
    @return: the path of a peer program.
    @raise SkipTest: it is not installed.
    """
    path = find(program)
    if path is None:
        package = PACKAGES.get(program, "postfix")
        raise unavailable(f"{program} is not installed (Debian package: {package})")
    return path


def require_root() -> None:
    """
    @raise SkipTest: not run as root, which the peer needs (to switch to its own user).
    """
    if os.geteuid() != 0:
        raise unavailable("this peer can only be started by root")


def free_port() -> int:
    """
    @return: a TCP port on 127.0.0.1 that was free a moment ago, and that no outgoing connection is given.
    """
    while True:
        port = PORTS.choice(LISTENING)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_port(
    port: int, seconds: float = START_SECONDS, process: subprocess.Popen[bytes] | None = None
) -> None:
    """
    Block until something on 127.0.0.1 accepts connections.

    @param process: who should be listening: when it ends, there is no point in waiting.
    @raise AssertionError: nobody does, in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError as reason:
            if process is not None and process.poll() is not None:
                raise AssertionError(f"{process.args!r} ended with status {process.returncode}") from reason
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"nothing listens on port {port} after {seconds} s: {reason}"
                ) from reason
        time.sleep(0.02)


def scratch() -> Path:
    """
    @return: a new folder that daemons under other users can walk through (unlike C{mkdtemp}'s own).
    """
    folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-peer-"))
    folder.chmod(0o755)
    return folder


class Peer:
    """
    A foreground program, stopped by its pid.

    @ivar port: where it listens.
    @ivar process: the child process.
    """

    def __init__(self, args: Sequence[str], port: int, cwd: Path | None = None) -> None:
        """
        Start it and wait until it listens.

        @param args: the command line.
        @param port: where it is going to listen.
        """
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed in stop)
        self.process = subprocess.Popen(
            list(args), cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        try:
            wait_for_port(port, process=self.process)
        except BaseException:
            self.stop()
            raise

    def output(self) -> bytes:
        """
        @return: what it has written so far to standard output and error.
        """
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0)

    def stop(self) -> None:
        """Terminate it, and wait. Safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._output.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def smtp_sink(*options: str, port: int | None = None, backlog: int = 128, cwd: Path | None = None) -> Peer:
    """
    Start Postfix's test destination on 127.0.0.1.

    @param options: as in C{"-w", "1"}.
    @param port: where; by default a free port.
    @param cwd: where it runs, with C{-d} and C{-D}; must be writable by the user C{postfix} under root.
    @raise SkipTest: it is not installed.
    """
    program = require("smtp-sink")
    where = free_port() if port is None else port
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    return Peer([program, *user, *options, f"127.0.0.1:{where}", str(backlog)], where, cwd)


MASTER_CF = """\
{port} inet n - n - 50 qmqpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
    -o syslog_name=postfix/$service_name
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Instance:
    """
    Something that is started and stopped, as a context manager.
    """

    def start(self) -> None:
        """Start it, and wait until it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it, however far it has come, and remove what it has left. Safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class PrivatePostfix(Instance):
    """
    A Postfix of our own: a scratch configuration, queue and log, QMQP on a free loopback port.

    The defaults are Postfix's own, but for what keeps it private (loopback, no local delivery, no
    aliases) and C{in_flow_delay = 0}. Use it as a context manager, or with L{start} and L{stop}.

    @ivar folder: the scratch folder.
    @ivar config: the folder of main.cf and master.cf, for C{-c}.
    @ivar spool: its C{queue_directory}.
    @ivar maillog: its log file.
    @ivar port: its QMQP port.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, master: str = "") -> None:
        """
        Write the configuration.

        @param settings: main.cf parameters over the defaults; C{relayhost} is the usual one.
        @param master: further master.cf lines. A service named here replaces the usual one.
        @raise SkipTest: Postfix is not installed, or we are not root.
        """
        self._postfix = require("postfix")
        require_root()
        self.folder = scratch()
        self.config = self.folder / "etc"
        self.spool = self.folder / "spool"
        self.maillog = self.folder / "mail.log"
        self.port = free_port()
        self._running = False
        self._marks = 0
        shutil.copytree("/etc/postfix", self.config, symlinks=True)
        data = self.folder / "data"
        data.mkdir()
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        self.spool.mkdir()
        parameters = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.spool),
            "data_directory": str(data),
            "config_directory": str(self.config),
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "relay.test",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "maillog_file": str(self.maillog),
            "maillog_file_prefixes": str(self.folder),
            "qmqpd_authorized_clients": "127.0.0.1",
            "in_flow_delay": "0",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            **(settings or {}),
        }
        text = "".join(f"{name} = {value}\n" for name, value in parameters.items())
        (self.config / "main.cf").write_text(text)
        replaced = {line.split()[0] for line in master.splitlines() if line[:1].strip()}
        usual: list[str] = []
        keep = True
        for line in MASTER_CF.format(port=self.port).splitlines(keepends=True):
            if line[:1].strip():
                keep = line.split()[0] not in replaced
            if keep:
                usual.append(line)
        (self.config / "master.cf").write_text("".join(usual) + master)

    def start(self) -> None:
        """Start it, and wait until its QMQP port answers."""
        self.command("postfix", "start")
        self._running = True
        wait_for_port(self.port)

    def stop(self) -> None:
        """Stop it and remove its folder. Safe to call twice."""
        if self._running:
            self._running = False
            self.command("postfix", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, program: str, *args: str, input: bytes | None = None, check: bool = True) -> bytes:
        """
        Run a Postfix command on this instance: C{PROGRAM -c CONFIG ARGS...}.

        @return: its standard output.
        @raise AssertionError: it failed, and C{check} is set.
        """
        done = subprocess.run(
            [require(program), "-c", str(self.config), *args],
            input=input,
            capture_output=True,
            check=False,
            timeout=60,
        )
        if check and done.returncode:
            log = self.log()[-2000:]
            raise AssertionError(f"{done.args!r}: status {done.returncode}: {done.stderr!r}, log: {log}")
        return done.stdout

    def log(self) -> str:
        """
        @return: its mail log so far.
        """
        try:
            return self.maillog.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def catch_up(self) -> None:
        """
        Wait until the log has all that was logged before: a process of its own writes it, in that order, and
        may lag behind replies and the queue.
        """
        self._marks += 1
        mark = f"mark {self._marks} of the test"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(START_SECONDS)
            client.connect(str(self.spool / "public" / "postlog"))
            client.send(mark.encode())
        deadline = time.monotonic() + START_SECONDS
        while mark not in self.log():
            if time.monotonic() > deadline:
                raise AssertionError(f"the log of Postfix stays behind: {self.log()[-2000:]}")
            time.sleep(0.002)

    def queue_files(self, *queues: str) -> Iterator[Path]:
        """
        @param queues: queue names; by default those whose mail is still to be delivered.
        @return: the queue files there.
        """
        for queue in queues or ("maildrop", "incoming", "active", "deferred", "hold"):
            yield from (path for path in (self.spool / queue).rglob("*") if path.is_file())

    def wait_until_drained(self, seconds: float = 60.0) -> None:
        """
        Block until no message is left in its queue.

        @raise AssertionError: some are, after that time.
        """
        deadline = time.monotonic() + seconds
        while any(self.queue_files()):
            if time.monotonic() > deadline:
                raise AssertionError(f"messages are left in {self.spool}; log: {self.log()[-2000:]}")
            time.sleep(0.02)
