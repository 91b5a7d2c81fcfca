"""
Real mail filters: the same transcript from us as from a running Postfix, opendkim signing, rspamd looking.

Each filter is a process or thread of this test on 127.0.0.1, stopped by its own pid.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import Factory, frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.cleanup.sink import Delivery, Sink
from tests.interop.scripted_milter import (
    Script,
    ScriptedMilter,
    Session,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_recipient,
    insert_header,
    quarantine,
    replace_body,
    reply_code,
)
from tests.peers import PrivatePostfix, find, free_port, unavailable
from tests.service import RunningService, qmqp_send, wait_until

MESSAGE = (
    b"Subject: hello\nTo: x@example.org\nFrom: <author@example.com>\n"
    b"X-Fold: one\n two\nX-Tight:v\n\nbody\nline\n"
)
SENDER = b"sender@example.com"
RECIPIENTS = (b"one@example.org", b"Two")


@frozen
class Case:
    """
    One message, and what the filter does about it.
    """

    name: str
    script: Script = Factory(Script)
    message: bytes = MESSAGE
    sender: bytes = SENDER
    recipients: Sequence[bytes] = RECIPIENTS


def at_end(*steps: bytes, final: bytes = b"c", protocol: int = 0) -> Script:
    """
    @return: a filter that does this at the end of a message.
    """
    return Script(replies={"eom": [*steps, final]}, protocol=protocol)


CASES = (
    Case("plain"),
    Case("null sender, quoted recipient", sender=b"", recipients=(b"a b@example.org",)),
    Case("verp", sender=b"list-@example.com-@[]"),
    Case("no body", message=b"Subject: x\n"),
    Case("no header", message=b"\nbody\n"),
    Case("long body", message=b"Subject: x\n\n" + b"0123456789abcde\n" * 9000),
    Case("header forms", message=b"A:\nB: \nC:  x\nD:\tx\nE:\n x\nF: caf\xc3\xa9\n\nx"),
    Case("leading space", Script(protocol=0x100000)),
    Case("nothing but the end", Script(protocol=0x37F)),
    Case("no replies", Script(protocol=0xFF080)),
    Case("version 2", Script(version=2)),
    Case("skip", Script(protocol=0x400, replies={"body:1": [b"s"]}), b"A: b\n\n" + b"x\n" * 100000),
    Case("reject sender", Script(replies={"mail": [b"r"]})),
    Case("tempfail data", Script(replies={"data": [b"t"]})),
    Case("reject recipient", Script(replies={"rcpt:2": [b"r"]})),
    Case("reply at the end", at_end(final=reply_code(b"550 5.7.2 No, %% thanks"))),
    Case("malformed reply", at_end(final=reply_code(b"250 5.7.2 No"))),
    Case("accept at connect", Script(replies={"connect": [b"a"]})),
    Case("accept at header", Script(replies={"header:1": [b"a"]})),
    Case("discard", Script(replies={"eoh": [b"d"]})),
    Case("discard at helo", Script(replies={"helo": [b"d"]})),
    Case("quarantine", at_end(quarantine(b"why"), add_header(b"X-Held", b"yes"))),
    Case("add headers", at_end(add_header(b"X-1", b"v"), add_header(b"X-2", b" w\n\tx"))),
    Case(
        "insert headers",
        at_end(
            insert_header(0, b"X-0", b"v"), insert_header(1, b"X-1", b"v"), insert_header(3, b"X-3", b"v")
        ),
    ),
    Case(
        "change headers",
        at_end(
            change_header(1, b"Subject", b"other"),
            change_header(1, b"To", b""),
            change_header(2, b"Subject", b"second"),
        ),
    ),
    Case(
        "leading space in changes",
        at_end(add_header(b"X-1", b"v"), add_header(b"X-2", b" v"), protocol=0x100000),
    ),
    Case("replace body", at_end(replace_body(b"new bo"), replace_body(b"dy\r"), replace_body(b"\nlast"))),
    Case(
        "envelope",
        at_end(
            change_sender(b"<new@example.com>"),
            add_recipient(b"<three@example.org>"),
            delete_recipient(b"<one@example.org>"),
        ),
    ),
    Case("garbage", Script(replies={"mail": [b"Z"]})),
    # Last, because a cleanup process of Postfix goes on with these for filters that do not choose.
    Case(
        "own macros",
        Script(symbols={0: b"i v", 2: b"{client_name}", 5: b"j {client_addr}", 6: b"{daemon_name}"}),
    ),
)


def neutral(value: bytes) -> bytes:
    """
    @return: the same without ids, times and version.
    """
    value = re.sub(rb"\d{14}\.[0-9A-Z]+@", b"STAMP@", value)
    date = rb"[A-Z][a-z]{2}, [ \d]\d [A-Z][a-z]{2} \d{4} [\d:]{8} [+-]\d{4}( \([A-Z]+\))?"
    value = re.sub(date, b"DATE", value)
    value = re.sub(rb"\b[0-9A-Z]{10,15}\b", b"ID", value)
    return re.sub(rb"Postfix [0-9.]+", b"Postfix VERSION", value)


def transcript(session: Session) -> list[str]:
    """
    @return: what a filter was sent, for comparison.
    """
    found = []
    for event, arguments, macros in session.events:
        shown = [
            neutral(argument) if len(argument) < 2000 else b"%d bytes" % len(argument)
            for argument in arguments
        ]
        values = {name: neutral(value) for name, value in sorted(macros.items())}
        found.append(f"{event} {shown} {values}")
    return found


class TranscriptTests(SynchronousTestCase):
    """Postfix and us, with the same filter."""

    def collect(self, milter: ScriptedMilter, port: int) -> list[list[str]]:
        """
        @return: for each case the reply, and what the filter was sent.
        """
        found = []
        for case in CASES:
            milter.script = case.script
            before = len(milter.visits)
            reply = qmqp_send(port, case.message, case.sender, list(case.recipients))
            milter.wait_for_sessions(before + 1)
            lines = [f"reply {neutral(reply)!r}".replace("__", "??")]
            for session in milter.visits[before:]:
                lines += transcript(session)
            found.append(lines)
        return found

    def test_side_by_side(self) -> None:
        """The filter sees the same from both, and the client hears the same."""
        settings = {"defer_transports": "smtp relay", "qmqpd_error_delay": "0"}
        with ScriptedMilter() as milter:
            settings["non_smtpd_milters"] = f"inet:127.0.0.1:{milter.port}"
            with PrivatePostfix(settings) as postfix:
                theirs = self.collect(milter, postfix.port)
        with ScriptedMilter() as milter:
            settings["non_smtpd_milters"] = f"inet:127.0.0.1:{milter.port}"
            text = "".join(f"{name} = {value}\n" for name, value in settings.items())
            with RunningService(self.mktemp(), free_port(), text) as service:
                ours = self.collect(milter, service.port)
        self.assertGreater(len(theirs), 12)
        wrong = []
        for case, expected, found in zip(CASES, theirs, ours, strict=True):
            if expected != found:
                lines = [f"  theirs {line}" for line in expected if line not in found]
                lines += [f"  ours   {line}" for line in found if line not in expected]
                wrong.append("\n".join([case.name, *(lines or ["  (another order)", *expected, *found])]))
        self.assertEqual(wrong, [], "\n".join(wrong))


def normal(delivery: Delivery) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """
    @return: sender, recipients and content without what differs between any two messages.
    """
    sender = delivery.sender.split(b" ")[0]
    return sender, tuple(sorted(delivery.recipients)), neutral(delivery.content)


class ContentTests(SynchronousTestCase):
    """What is delivered after a filter's changes, from Postfix and from us."""

    NAMES = (
        "plain",
        "add headers",
        "insert headers",
        "change headers",
        "leading space in changes",
        "replace body",
        "envelope",
    )

    def deliver(self, milter: ScriptedMilter, port: int, sink: Sink) -> list[object]:
        """
        @return: what arrived, for each case.
        """
        found: list[object] = []
        for case in CASES:
            if case.name in self.NAMES:
                milter.script = case.script
                reply = qmqp_send(port, case.message, case.sender, [b"one@example.org", b"two@example.org"])
                self.assertTrue(reply.startswith(b"K"), reply)
                deliveries = sink.wait_for(len(found) + 1, 20)
                self.assertEqual(len(deliveries), len(found) + 1, case.name)
                found.append(normal(deliveries[-1]))
        return found

    def test_side_by_side(self) -> None:
        """The same content, sender and recipients."""
        results = []
        for ours in (False, True):
            with Sink() as sink, ScriptedMilter() as milter:
                settings = {
                    "relayhost": f"[127.0.0.1]:{sink.port}",
                    "non_smtpd_milters": f"inet:127.0.0.1:{milter.port}",
                }
                if ours:
                    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
                    with RunningService(self.mktemp(), free_port(), text) as service:
                        results.append(self.deliver(milter, service.port, sink))
                else:
                    with PrivatePostfix(settings) as postfix:
                        results.append(self.deliver(milter, postfix.port, sink))
        for name, theirs, found in zip(self.NAMES, *results, strict=True):
            self.assertEqual(theirs, found, name)


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
