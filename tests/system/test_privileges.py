"""
Root's start for somebody else: C{--uid}, C{--gid}, C{--chroot}, C{--syslog}.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.startup import Invocation, give_log
from tests.peers import find, free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.names import CLIENT, NAME, NameServer
from tests.system.support import Destination, disk_process, relay, require_root, scratch, user_of

USER, GROUP = "nobody", "nogroup"
DROP = ("--uid", USER, "--gid", GROUP)


def small_port(host: str) -> int:
    """
    @return: a port below 1024.
    """
    for port in range(700, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise SkipTest(f"no free port below 1024 on {host}")


def files(folder: Path) -> list[Path]:
    """
    @return: the files in a folder of the queue, whether it is hashed or not.
    """
    return [path for path in folder.rglob("*") if path.is_file()]


class UserTests(SynchronousTestCase):
    """C{--uid} and C{--gid}."""

    def setUp(self) -> None:
        """
        Only root can.
        """
        require_root()
        self.uid = pwd.getpwnam(USER).pw_uid
        self.gid = grp.getgrnam(GROUP).gr_gid

    def test_drop(self) -> None:
        """
        A port below 1024 is bound; then everything belongs to the new user: both processes, and what is made
        in the queue, which others cannot read; the log goes on, also after a rotation.
        """
        host = "127.0.0.11"
        port = small_port(host)
        folder = scratch(self)
        os.chown(folder, self.uid, -1)
        master = (
            f"{host}:{port} inet n - n - - qmqpd\nunix:{folder}/qmqp unix n - n - - qmqpd\n"
            "smtp unix - - n - - smtp\n"
        )
        clients = "qmqpd_authorized_clients = 127.0.0.0/8 localhost\n"
        with Destination() as destination:
            settings = relay(destination) + clients + "defer_transports =\n"
            service = RunningService(folder, port, settings, DROP, master, ())
            service.host = host
            with service:
                service.wait_for_log("accepting mail on")
                self.assertEqual(user_of(service.pid), self.uid)
                self.assertEqual(user_of(disk_process(service)), self.uid)
                status = Path(f"/proc/{service.pid}/status").read_text()
                self.assertIn(f"\nGid:\t{self.gid}\t{self.gid}\t{self.gid}", status)
                with socket.create_connection((host, port)) as client:
                    client.sendall(b"15:2:x\n,1:a,3:b@c,,")
                    self.assertIn(b"KOk", client.recv(100))
                service.wait_for_log(": removed")
                self.assertEqual(len(destination.messages), 1)
                self.check_owners(service.queue)
                self.assertEqual(os.stat(folder / "qmqp").st_uid, self.uid)
                service.log.rename(folder / "mail.log.1")
                service.signal(signal.SIGHUP)
                service.wait_for_log("reload -- configuration")
                self.assertEqual(service.log.stat().st_uid, self.uid)
            self.assertFalse((folder / "qmqp").exists())

    def check_owners(self, queue: Path) -> None:
        """
        All folders and sockets of a queue are the user's, and only his.
        """
        for path in [queue, *queue.rglob("*")]:
            found = path.stat()
            self.assertEqual((found.st_uid, found.st_gid), (self.uid, self.gid), path)
            if not stat.S_ISREG(found.st_mode):
                mode = 0o600 if stat.S_ISSOCK(found.st_mode) else 0o700
                self.assertEqual(stat.S_IMODE(found.st_mode), mode, path)

    def test_queue_files(self) -> None:
        """
        So are queue files, small ones by the disk process and large ones by threads.
        """
        settings = "relayhost = [127.0.0.1]:9\n"
        with RunningService(scratch(self), free_port(), settings, DROP) as service:
            for size in (10, 300_000):
                message = b"\n" + b"x\n" * size
                self.assertEqual(qmqp_send(service.port, message, b"a@b", [b"c@d"])[:1], b"K")
            wait_until(lambda: len(files(service.queue / "defer")) == 2, 10, "two defer logs")
            wait_until(lambda: len(files(service.queue / "deferred")) == 2, 10, "deferred mail")
            for path in files(service.queue / "deferred"):
                found = path.stat()
                self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (self.uid, 0o700))
            for path in files(service.queue / "defer"):
                found = path.stat()
                self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (self.uid, 0o600))

    def test_log_in_foreign_folder(self) -> None:
        """
        A log that root made in a folder of root's becomes the user's, so that it can be opened again.
        """
        with RunningService(scratch(self), free_port(), twistd=DROP) as service:
            self.assertEqual(service.log.stat().st_uid, self.uid)
            service.signal(signal.SIGHUP)
            self.assertNotIn("cannot reopen", service.wait_for_log("reload -- configuration"))

    def test_socket_in_foreign_folder(self) -> None:
        """
        A UNIX socket that root made in a folder of root's cannot be removed by the new user: that is said,
        and does not keep the service from ending, nor the next one from starting.
        """
        folder = scratch(self)
        (folder / "run").mkdir(mode=0o755)
        listen = (f"unix:{folder}/run/qmqp", f"tcp:{free_port()}:interface=127.0.0.1")
        for _ in range(2):
            service = RunningService(folder, int(listen[1].split(":")[1]), twistd=DROP, listen=listen)
            with service:
                service.wait_for_log("accepting mail on")
            self.assertIn("run/qmqp: no right to remove the socket", service.log_text())
            service.log.unlink()

    def test_log_by_another_name(self) -> None:
        """
        What root gives away is a log, and not the file to which its name leads: whoever may write in the
        folder could choose that.
        """
        folder = scratch(self)
        precious = folder / "precious"
        for make in (os.symlink, os.link):
            precious.write_text("root's")
            path = folder / "mail.log"
            make(precious, path)
            invocation = Invocation("", (), False, "", (self.uid, self.gid), False, False, True)
            give_log(invocation, config_from_text(f"maillog_file = {path}\n"))
            self.assertEqual(precious.stat().st_uid, 0)
            path.unlink()

    def test_queue_by_another_name(self) -> None:
        """
        So is the queue's folder a folder, and not a link to one.
        """
        folder = scratch(self)
        (folder / "precious").mkdir(mode=0o755)
        service = RunningService(folder, free_port(), twistd=DROP)
        service.queue.symlink_to(folder / "precious")
        service.start(wait=False)
        assert service.process is not None
        self.addCleanup(service.stop)
        wait_until(lambda: service.process.poll() is not None, 30, "the service to refuse to start")
        self.assertEqual(service.process.returncode, 1)
        self.assertEqual((folder / "precious").stat().st_uid, 0)


class JailTests(SynchronousTestCase):
    """C{--chroot}."""

    def setUp(self) -> None:
        """
        A folder with what Twisted and the local agent need.
        """
        require_root()
        self.folder = scratch(self)
        self.jail = self.folder / "jail"
        for name in ("dev", "etc", "home"):
            (self.jail / name).mkdir(parents=True)
        user = pwd.getpwnam(USER)
        os.chown(self.jail / "home", user.pw_uid, -1)
        (self.jail / "etc/passwd").write_text(f"{USER}:x:{user.pw_uid}:{user.pw_gid}::/home:/bin/sh\n")

    def make_null(self) -> None:
        """
        Make the device.
        """
        try:
            os.mknod(self.jail / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError as problem:
            raise SkipTest(f"no right to make devices: {problem}") from None

    def test_ask_names(self) -> None:
        """
        In a chroot the DNS works: clients have their names.
        """
        self.make_null()
        with NameServer() as server:
            settings = f"queue_directory = /queue\ndns_resolver_addresses = {server.address}\n"
            with RunningService(self.folder, free_port(), settings, ("--chroot", str(self.jail))) as service:
                local = (CLIENT, 0)
                with socket.create_connection(("127.0.0.1", service.port), 10, source_address=local):
                    service.wait_for_log(f"connect from {NAME}[{CLIENT}]")

    def test_deliver(self) -> None:
        """
        In a chroot, as another user: mail is taken, relayed, delivered to a Maildir, and returned.
        """
        self.make_null()
        with Destination() as destination:
            settings = (
                relay(destination) + "queue_directory = /queue\nmydestination = local.test\n"
                "home_mailbox = Maildir/\n"
            )
            twistd = ("--chroot", str(self.jail), *DROP)
            with RunningService(self.folder, free_port(), settings, twistd) as service:
                message = b"Subject: hello\n\nbody\n"
                recipients = [b"c@d.test", b"nobody@local.test", b"nonesuch@local.test"]
                self.assertEqual(qmqp_send(service.port, message, b"a@b.test", recipients)[:1], b"K")
                wait_until(lambda: len(destination.messages) == 2, 10, "the message and its bounce")
                service.wait_for_log("status=bounced")
                self.assertEqual(len(list((self.jail / "home/Maildir/new").iterdir())), 1)
                service.signal(signal.SIGHUP)
                # main.cf is out of reach: the old one stays in force.
                service.wait_for_log("reload refused, the old configuration stays in force")
                self.assertEqual(qmqp_send(service.port, message, b"a@b", recipients[:1])[:1], b"K")
                wait_until(lambda: len(destination.messages) == 3, 10, "another message")
            self.assertEqual(service.output.read_text(), "")
        self.assertTrue((self.jail / "queue/incoming").is_dir())

    def test_no_device(self) -> None:
        """
        What is missing in the folder is named.
        """
        service = RunningService(self.folder, 0, "queue_directory = /queue\n", ("--chroot", str(self.jail)))
        service.start(wait=False)
        assert service.process is not None
        self.assertEqual(service.process.wait(20), 1)
        self.assertRegex(
            service.output.read_text(), r"\Atwistd qmqp: fatal: --chroot: there is no /dev/null.*\n\Z"
        )

    def test_no_user(self) -> None:
        """
        So is a user that is not known there.
        """
        self.make_null()
        (self.jail / "etc/passwd").unlink()
        twistd = ("--chroot", str(self.jail), *DROP)
        service = RunningService(self.folder, 0, "queue_directory = /queue\n", twistd)
        self.refused(service, "--uid: there is no user")

    def refused(self, service: RunningService, text: str) -> None:
        """
        Assert that it does not start, and says so in one line.
        """
        service.start(wait=False)
        assert service.process is not None
        self.assertEqual(service.process.wait(20), 1)
        self.assertRegex(service.output.read_text(), rf"\Atwistd qmqp: fatal: {text}.*\n\Z")


class SyslogTests(SynchronousTestCase):
    """C{--syslog}."""

    def test_lines(self) -> None:
        """
        Postfix's lines go to /dev/log, here in a mount namespace of the service's own, under the facility of
        main.cf; also from within a chroot.
        """
        require_root()
        unshare = find("unshare")
        if unshare is None:
            raise SkipTest("unshare is not installed (Debian package: util-linux)")
        folder = scratch(self)
        devices = folder / "dev"
        devices.mkdir()
        for name, minor in (("null", 3), ("urandom", 9)):
            try:
                os.mknod(devices / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            except PermissionError as problem:
                raise SkipTest(f"no right to make devices: {problem}") from None
        if subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
            raise SkipTest("no right to a mount namespace")
        jail = folder / "jail"
        (jail / "dev").mkdir(parents=True)
        os.mknod(jail / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(str(devices / "log"))
            log.settimeout(5)
            settings = "syslog_facility = local3\nqueue_directory = /queue\ndefault_transport = discard\n"
            service = RunningService(folder, free_port(), settings, ("--syslog", "--chroot", str(jail)))
            script = 'mount --bind "$1" /dev && shift && exec "$@"'
            service.command[:0] = [unshare, "-m", "sh", "-c", script, "sh", str(devices)]
            with service:
                self.assertEqual(qmqp_send(service.port, b"\nx\n", b"a@b", [b"c@d"])[:1], b"K")
                lines = []
                while not lines or b": removed" not in lines[-1]:
                    lines.append(log.recv(2048))
        # local3.info is 19 * 8 + 6.
        self.assertRegex(lines[0], rb"\A<158>.* postfix/master\[\d+\]: daemon started")
        self.assertRegex(lines[-1], rb"\A<158>.* postfix/qmgr\[\d+\]: \w+: removed")
        self.assertFalse(service.log.exists())
