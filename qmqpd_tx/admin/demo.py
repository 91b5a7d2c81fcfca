"""
C{make run}: the way of one message, to look at.

Takes nothing. Makes a scratch folder with a main.cf, starts C{twistd -n qmqp} on it, hands one message
over by QMQP (C{qmqpd-tx send}), and shows the log lines and the file that was delivered. Then it ends the
service and succeeds; on a terminal, or with C{--stay}, the service goes on until Ctrl-C. Everything is on
loopback and under the scratch folder, which stays behind to be looked at. Exits with a status of
sysexits(3) when a step fails, and says which.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from qmqpd_tx.admin.context import CommandError, Exit

USUAL_PORT = 6628
STEP_SECONDS = 30.0

MAIN_CF = """\
# Made by `make run`; everything is under {scratch}.
myhostname = demo.test
mydestination = $myhostname
inet_interfaces = 127.0.0.1
queue_directory = {scratch}/queue
mail_spool_directory = {scratch}/mail/
local_user_lookup = any
maillog_file = {scratch}/mail.log
maillog_file_prefixes = {scratch}
qmqpd_authorized_clients = 127.0.0.1
"""

MESSAGE = """\
Subject: hello

This message came in by QMQP, was made safe on disk, was queued,
and was delivered to this Maildir.
"""

SENDER = "you@demo.test"
RECIPIENT = "friend@demo.test"


def choose_port() -> int:
    """
    @return: the usual port of this demonstration when it is free, else another.
    """
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise CommandError("no free TCP port on 127.0.0.1", Exit.UNAVAILABLE)


def wait_for(condition: Callable[[], bool], service: subprocess.Popen[bytes], what: str) -> None:
    """
    Wait until something has happened.

    @raise CommandError: it does not, or the service ends.
    """
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        if service.poll() is not None:
            raise CommandError(f"the service ended with status {service.returncode}", Exit.SOFTWARE)
        if time.monotonic() > deadline:
            raise CommandError(f"waited {STEP_SECONDS:g} seconds in vain for {what}", Exit.SOFTWARE)
        time.sleep(0.05)


class LogFollower:
    """Shows the lines of a growing log file."""

    def __init__(self, path: Path) -> None:
        """
        @param path: the log file; may come later.
        """
        self._path = path
        self._shown = 0

    def show(self) -> str:
        """
        Show what is new.

        @return: the whole log.
        """
        try:
            text = self._path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""
        end = text.rfind("\n") + 1
        for line in text[self._shown : end].splitlines():
            click.echo(f"  {line}")
        self._shown = max(self._shown, end)
        return text


def environment() -> dict[str, str]:
    """
    @return: the environment for child processes: the same code, from a checkout too.
    """
    root = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def start_service(scratch: Path, port: int) -> subprocess.Popen[bytes]:
    """
    @return: the running service.
    """
    command = [
        *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
        *("-n", "--pidfile="),
        *("qmqp", "--config", str(scratch / "main.cf")),
        *("--listen", f"tcp:{port}:interface=127.0.0.1"),
    ]
    click.echo(f"$ twistd {' '.join(command[3:])}")
    return subprocess.Popen(command, cwd=scratch, env=environment(), stdin=subprocess.DEVNULL)


def send(port: int) -> None:
    """
    Hand the message over.

    @raise CommandError: it was not accepted.
    """
    arguments = ["send", "-v", "--server", f"127.0.0.1:{port}", "--from", SENDER, RECIPIENT]
    click.echo(f"$ qmqpd-tx {' '.join(arguments)} < message")
    done = subprocess.run(
        [sys.executable, "-m", "qmqpd_tx.admin.main", *arguments],
        env=environment(),
        input=MESSAGE.encode(),
        check=False,
        timeout=2 * STEP_SECONDS,
    )
    if done.returncode:
        raise CommandError(f"qmqpd-tx send ended with status {done.returncode}", Exit.SOFTWARE)


def stop(service: subprocess.Popen[bytes]) -> None:
    """
    End the service as its supervisor would.

    @raise CommandError: it does not end well.
    """
    if service.poll() is None:
        service.terminate()
    try:
        status = service.wait(STEP_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
        raise CommandError(
            f"the service did not stop within {STEP_SECONDS:g} seconds", Exit.SOFTWARE
        ) from None
    # After a clean stop twistd ends by the signal that it was sent.
    if status not in (0, -signal.SIGTERM, -signal.SIGINT):
        raise CommandError(f"the service ended with status {status}", Exit.SOFTWARE)


def show_way(scratch: Path, port: int, stay: bool) -> None:
    """
    Start, send, show, stop.
    """
    maildir = scratch / "mail" / "friend" / "new"
    follower = LogFollower(scratch / "mail.log")
    service = start_service(scratch, port)
    try:
        wait_for(lambda: "accepting mail" in follower.show(), service, "the service to accept mail")
        send(port)
        wait_for(lambda: any(maildir.glob("*")), service, f"a message in {maildir}")
        wait_for(lambda: ": removed" in follower.show(), service, "the end of the message's way")
        for path in maildir.glob("*"):
            click.echo(f"$ cat {path}")
            for line in path.read_text("utf-8", "replace").splitlines():
                click.echo(f"  {line}")
        if stay:
            click.echo(f"The service takes QMQP on 127.0.0.1:{port} until Ctrl-C. Try, in another shell:")
            click.echo(f"  qmqpd-tx send --server 127.0.0.1:{port} --from {SENDER} somebody@demo.test < FILE")
            click.echo(f"  qmqpd-tx -c {scratch} postqueue -p")
            while service.poll() is None:
                follower.show()
                time.sleep(0.2)
    except KeyboardInterrupt:
        click.echo()
    finally:
        # Ctrl-C reaches the service as well; a second signal does no harm.
        stop(service)
        follower.show()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--stay", is_flag=True, help="Keep the service running until Ctrl-C, without a terminal too.")
def demo(stay: bool) -> None:
    """Show a message accepted, queued and delivered, in a scratch folder."""
    scratch = Path(tempfile.mkdtemp(prefix="qmqpd-tx-demo-"))
    # Deliveries may run under another user, who has to get there.
    scratch.chmod(0o755)
    if " " in str(scratch) or "$" in str(scratch):
        shutil.rmtree(scratch)
        raise CommandError(f"cannot write {scratch} in main.cf; set TMPDIR to another folder", Exit.USAGE)
    (scratch / "mail").mkdir()
    (scratch / "mail").chmod(0o1777)
    (scratch / "main.cf").write_text(MAIN_CF.format(scratch=scratch))
    click.echo(f"The scratch folder is {scratch}.")
    show_way(scratch, choose_port(), stay or sys.stdin.isatty())
    click.echo(f"Delivered. Queue, log and mail are still in {scratch}.")


if __name__ == "__main__":
    try:
        sys.exit(demo.main(standalone_mode=False) or 0)
    except CommandError as problem:
        click.echo(f"demo: {problem.format_message()}", err=True)
        sys.exit(int(problem.status))
    except click.ClickException as problem:
        problem.show()
        sys.exit(int(Exit.USAGE))
