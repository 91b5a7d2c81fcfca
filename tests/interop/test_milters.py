"""
Real mail filters: opendkim signs what we deliver, rspamd looks at it.

Each filter is an unprivileged process on 127.0.0.1, ended by its own pid.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cleanup.sink import Sink
from tests.peers import find, free_port, unavailable
from tests.service import RunningService, qmqp_send, wait_until


def as_nobody() -> Callable[[], None] | None:
    """
    @return: what makes a child process an unprivileged one.
    """
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")

    def drop() -> None:
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    return drop


class FilterCase(SynchronousTestCase):
    """A filter that runs as an unprivileged process."""

    def program(self, name: str) -> str:
        """
        @return: the path of a program.
        """
        path = find(name)
        if path is None:
            raise unavailable(f"{name} is not installed (Debian package: {name})")
        return path

    def folder(self) -> Path:
        """
        @return: a scratch folder for a filter.
        """
        folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-filter-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o777)
        return folder

    def start(self, args: Sequence[str], folder: Path, port: int) -> None:
        """
        Run it until the end of the test.
        """
        output = folder / "output"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                list(args),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                preexec_fn=as_nobody(),
                start_new_session=True,
            )
        self.addCleanup(_stop, process)

        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{args[0]} ended: {output.read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(answers, 30, f"{args[0]} to listen (its output: {output})")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """
    End a filter and its children, which are a session of their own; they have nothing to save.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


class OpenDKIMTests(FilterCase):
    """opendkim signs."""

    MESSAGE = (
        b"From: Author <author@example.com>\nTo: reader@example.org\nSubject: signed\n  and folded\n"
        b"X-Tight:value\n\nHello,\n\n.a line with a dot\n  trailing space \n\n\n"
    )

    def test_signature(self) -> None:
        """The signature verifies after delivery, with simple and with relaxed canonicalization."""
        try:
            import dkim  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            raise unavailable("dkimpy is not installed (the extra 'test')") from None
        program = self.program("opendkim")
        openssl = self.program("openssl")
        folder = self.folder()
        key = folder / "test.private"
        subprocess.run([openssl, "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        public = subprocess.run(
            [openssl, "rsa", "-in", str(key), "-pubout"], check=True, capture_output=True
        ).stdout
        key.chmod(0o644)
        record = b"v=DKIM1; k=rsa; p=" + b"".join(public.split(b"\n")[1:-2])
        asked = []

        def lookup(name: bytes, timeout: int = 5) -> bytes | None:
            asked.append(name)
            return record if name.rstrip(b".") == b"test._domainkey.example.com" else None

        for canonicalization in ("simple/simple", "relaxed/relaxed"):
            port = free_port()
            settings = folder / "opendkim.conf"
            settings.write_text(
                f"Socket inet:{port}@127.0.0.1\nMode s\nDomain example.com\nSelector test\nKeyFile {key}\n"
                f"Canonicalization {canonicalization}\nBackground no\nRequireSafeKeys no\nSyslog no\n"
                "InternalHosts 127.0.0.1\nNameservers 127.0.0.1\n"
            )
            self.start([program, "-f", "-x", str(settings)], folder, port)
            with Sink() as sink:
                text = f"relayhost = [127.0.0.1]:{sink.port}\nnon_smtpd_milters = inet:127.0.0.1:{port}\n"
                with RunningService(self.mktemp(), free_port(), text) as service:
                    reply = qmqp_send(service.port, self.MESSAGE, b"author@example.com", [b"r@example.org"])
                    self.assertTrue(reply.startswith(b"K"), reply + service.log_text().encode())
                    (delivery,) = sink.wait_for(1, 20)
            signature = b"DKIM-Signature: v=1; a=rsa-sha256; c=" + canonicalization.encode()
            self.assertIn(signature, delivery.content)
            self.assertTrue(dkim.verify(delivery.content, dnsfunc=lookup), canonicalization)
            changed = delivery.content.replace(b"Hello", b"Hallo")
            self.assertFalse(dkim.verify(changed, dnsfunc=lookup))
        self.assertTrue(asked)


RSPAMD = """\
options {{
    pidfile = "{folder}/rspamd.pid";
    tempdir = "{folder}";
    filters = "";
    dns {{ nameserver = ["127.0.0.1:{nowhere}"]; timeout = 0.1s; retransmits = 1; }}
    control_socket = "{folder}/rspamd.sock mode=0600";
    cache_file = "{folder}/symbols.cache";
    hs_cache_dir = "{folder}";
    url_tld = "{folder}/suffixes";
}}
logging {{ type = "console"; level = "info"; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{ use = ["x-rspamd-queue-id", "x-rspamd-server", "x-spamd-bar"]; skip_local = false; }}
metric {{ name = "default"; actions {{ reject = 15; add_header = 6; }} }}
worker "rspamd_proxy" {{
    bind_socket = "127.0.0.1:{port}";
    count = 1;
    milter = true;
    timeout = 10s;
    upstream "local" {{ default = true; self_scan = true; }}
}}
"""

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""What every spam filter takes for spam."""


class RspamdTests(FilterCase):
    """rspamd looks at mail."""

    def test_header_and_reject(self) -> None:
        """It adds its headers to good mail, and has bad mail refused."""
        program = self.program("rspamd")
        folder = self.folder()
        port = free_port()
        settings = folder / "rspamd.conf"
        # The full list of domain suffixes takes a quarter of a minute to compile.
        (folder / "suffixes").write_text("com\norg\n")
        settings.write_text(RSPAMD.format(folder=folder, port=port, nowhere=free_port()))
        self.start([program, "-f", "-c", str(settings)], folder, port)
        with Sink() as sink:
            text = f"relayhost = [127.0.0.1]:{sink.port}\nnon_smtpd_milters = inet:127.0.0.1:{port}\n"
            with RunningService(self.mktemp(), free_port(), text) as service:
                message = b"From: author@example.com\nTo: reader@example.org\nSubject: hi\n\nHello\n"
                reply = qmqp_send(service.port, message, b"author@example.com", [b"reader@example.org"])
                self.assertTrue(reply.startswith(b"K"), reply + service.log_text().encode())
                (delivery,) = sink.wait_for(1, 20)
                queue_id = reply.rpartition(b" ")[2]
                self.assertIn(b"X-Rspamd-Queue-Id: " + queue_id, delivery.content)
                self.assertIn(b"\r\nX-Rspamd-Server: ", delivery.content)
                message += GTUBE + b"\n"
                reply = qmqp_send(service.port, message, b"author@example.com", [b"reader@example.org"])
                self.assertTrue(reply.startswith(b"D"), reply)
                self.assertIn(b"Gtube pattern", reply)
                self.assertIn("milter-reject: END-OF-MESSAGE from ", service.log_text())
