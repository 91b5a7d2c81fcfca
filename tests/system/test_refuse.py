"""
A start that cannot succeed: one clear line, and a non-zero exit status.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import RunningService, environment, qmqp_send, wait_until
from tests.system.support import require_root, scratch


def run(service: RunningService) -> subprocess.CompletedProcess[str]:
    """
    @return: how a service ended at start-up.
    """
    return subprocess.run(
        service.command,
        env=environment(),
        cwd=service.scratch,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def last_line(service: RunningService) -> int:
    """
    @return: the number of the last line of main.cf.
    """
    return len(service.config.read_text().splitlines())


class ForegroundTests(SynchronousTestCase):
    """With C{-n}."""

    def refused(self, service: RunningService, *texts: str) -> None:
        """
        Assert that a service refuses to start, in one line with these texts.
        """
        ended = run(service)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        self.assertIn("fatal: ", ended.stderr)
        for text in texts:
            self.assertIn(text, ended.stderr)

    def test_no_file(self) -> None:
        """
        main.cf is missing.
        """
        service = RunningService(scratch(self), 0)
        service.config.unlink()
        self.refused(service, f"{service.config}: cannot be read: No such file", "check the name")

    def test_bad_value(self) -> None:
        """
        A value out of bounds is told with file and line.
        """
        service = RunningService(scratch(self), 0, "qmqpd_timeout = soon\n")
        self.refused(service, f"{service.config}, line {last_line(service)}: ", "qmqpd_timeout", "soon")

    def test_bad_transport_map(self) -> None:
        """
        So is a table of an unknown kind.
        """
        self.refused(
            RunningService(scratch(self), 0, "transport_maps = nonesuch:/x\n"), "transport_maps", "nonesuch"
        )

    def test_bad_dns_server(self) -> None:
        """
        So is a DNS server that is no address.
        """
        service = RunningService(scratch(self), 0, "dns_resolver_addresses = ns.example.org\n")
        self.refused(service, "dns_resolver_addresses", "ns.example.org is not a DNS server")

    def test_bad_master(self) -> None:
        """
        A line of master.cf that makes no sense, whatever is wrong with it, is told with file and line.
        """
        for line, text in (
            ("628 inet n - n qmqpd", "columns"),
            ("nonesuch inet n - n - - qmqpd", "nonesuch is not a port"),
            ("99999 inet n - n - - qmqpd", "from 1 to 65535"),
            ("qmqp unix n - n - - qmqpd", "unix:/PATH"),
            ("628 inet n - n - - qmqpd -o qmqpd_timeout=never", "qmqpd_timeout"),
        ):
            service = RunningService(scratch(self), 0, master=f"# a comment\n{line}\n", listen=())
            self.refused(service, "master.cf, line 2", text)

    def test_bad_endpoint(self) -> None:
        """
        C{--listen} with something that is no endpoint.
        """
        service = RunningService(scratch(self), 0, listen=("carrier-pigeon:1",))
        self.refused(service, "cannot listen on carrier-pigeon:1: not a Twisted endpoint")

    def test_port_taken(self) -> None:
        """
        Another program has the port: the second endpoint fails, and nothing is left of the first.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            folder = scratch(self)
            listen = (f"unix:{folder}/first", f"tcp:{port}:interface=127.0.0.1")
            service = RunningService(folder, port, twistd=("--pidfile", "twistd.pid"), listen=listen)
            self.refused(service, f"cannot listen on tcp:{port}", "Address already in use")
            self.assertFalse((folder / "first").exists())
            self.assertFalse((folder / "twistd.pid").exists())
        self.assertIn(f"fatal: cannot listen on tcp:{port}", service.log_text())

    def test_log_on_standard_error(self) -> None:
        """
        Where standard error is the log, the line is there once.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refused(RunningService(scratch(self), port, "maillog_file =\n"), "Address already in use")

    def test_queue_in_use(self) -> None:
        """
        Another service has the queue: its process id is told, and it goes on undisturbed.
        """
        folder = scratch(self)
        with RunningService(folder, free_port()) as first:
            second = RunningService(folder / "second", free_port(), f"queue_directory = {first.queue}\n")
            self.refused(second, "the queue is in use by process", str(first.pid))
            self.assertEqual(qmqp_send(first.port, b"\nx\n", b"", [b"b@relay.test"])[:1], b"K")

    def test_no_queue_directory(self) -> None:
        """
        A queue_directory that cannot be made.
        """
        service = RunningService(scratch(self), 0, "queue_directory = $config_directory/main.cf/queue\n")
        self.refused(service, "queue_directory", "Not a directory")

    def test_long_queue_directory(self) -> None:
        """
        A queue_directory whose sockets would have names that are too long.
        """
        service = RunningService(scratch(self), free_port(), f"queue_directory = /tmp/{'x' * 100}\n")
        self.refused(service, "queue_directory", "too long")

    def test_foreign_queue_directory(self) -> None:
        """
        A queue_directory whose folders belong to somebody else.
        """
        require_root()
        folder = scratch(self)
        (folder / "queue" / "incoming").mkdir(parents=True)
        (folder / "queue" / "pid").mkdir(mode=0o700)
        service = RunningService(folder, free_port(), twistd=("--uid", "nobody", "--gid", "nogroup"))
        self.refused(service, "queue/pid", "Permission denied", "must belong to the user of this service")


class DaemonTests(SynchronousTestCase):
    """Without C{-n}: the parent's status, and the log."""

    def daemon(self, service: RunningService) -> None:
        """
        Make it a daemon with a pid file of its own.
        """
        service.command.remove("-n")
        service.command[service.command.index("--pidfile=")] = f"--pidfile={service.scratch}/twistd.pid"

    def refused(self, service: RunningService, text: str) -> None:
        """
        Assert that a service refuses to start, with a line in the log.
        """
        ended = run(service)
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertIn(text, service.wait_for_log("fatal: ", 5))
        pid_file = service.scratch / "twistd.pid"
        wait_until(lambda: not pid_file.exists(), 5, "the end of the pid file")

    def test_bad_value(self) -> None:
        """
        The configuration is read before twistd becomes a daemon.
        """
        service = RunningService(scratch(self), 0, "qmqpd_timeout = soon\n")
        self.daemon(service)
        ended = run(service)
        self.assertEqual(ended.returncode, 1)
        where = rf"main\.cf, line {last_line(service)}: "
        self.assertRegex(ended.stderr, rf"\Atwistd qmqp: fatal: .*{where}.*qmqpd_timeout.*\n\Z")

    def test_port_taken(self) -> None:
        """
        Another program has the port.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            service = RunningService(scratch(self), taken.getsockname()[1])
            self.daemon(service)
            self.refused(service, "Address already in use")

    def test_queue_in_use(self) -> None:
        """
        Another service has the queue.
        """
        folder = scratch(self)
        with RunningService(folder, free_port()) as first:
            service = RunningService(folder / "2", free_port(), f"queue_directory = {first.queue}\n")
            self.daemon(service)
            self.refused(service, f"in use by process {first.pid}")

    def test_life(self) -> None:
        """
        A daemon detaches, tells its pid, and ends at a signal to that, taking the pid file with it.
        """
        service = RunningService(scratch(self), free_port(), "default_transport = discard\n")
        self.daemon(service)
        ended = run(service)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "", ""))
        pid_file: Path = service.scratch / "twistd.pid"
        pid = int(pid_file.read_text())
        try:
            service.wait_for_log("accepting mail on")
            self.assertNotEqual(os.getsid(pid), os.getsid(0))
            self.assertEqual(qmqp_send(service.port, b"\nx\n", b"a@b", [b"b@c"])[:1], b"K")
            service.wait_for_log(f"qmgr[{pid}]: ")
            service.wait_for_log(": removed")
        finally:
            os.kill(pid, 15)
        service.wait_for_log("daemon stopped")
        wait_until(lambda: not pid_file.exists(), 5, "the end of the pid file")
        self.assertEqual(service.queued(), [])
