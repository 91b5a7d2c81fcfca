"""
A destination under the test's control, and small questions to the operating system.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from unittest import SkipTest, TestCase

from tests.service import RunningService, wait_until


class Destination:
    """
    An SMTP server in a thread; a context manager.

    @ivar port: where it listens on 127.0.0.1.
    @ivar messages: what it has accepted.
    @ivar recipients: for whom, each as often as it was accepted.
    @ivar waiting: how many messages wait for L{release}.
    """

    def __init__(self, hold: bool = False, port: int = 0) -> None:
        """
        @param hold: whether to keep the final answer back until L{release}.
        @param port: where to listen; any by default.
        """
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.messages: list[bytes] = []
        self.recipients: list[str] = []
        self.waiting = 0
        self._released = threading.Event()
        if not hold:
            self._released.set()
        self._open: list[socket.socket] = []

    def release(self) -> None:
        """
        Answer what is kept back, and all that comes.
        """
        self._released.set()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        lines = client.makefile("rb")
        recipients: list[str] = []
        try:
            client.sendall(b"220 destination.test ESMTP\r\n")
            for line in lines:
                verb = line[:4].upper()
                if verb == b"MAIL":
                    recipients = []
                elif verb == b"RCPT":
                    recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
                if verb != b"DATA":
                    client.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                    continue
                client.sendall(b"354 go on\r\n")
                message = b""
                for text in lines:
                    if text == b".\r\n":
                        break
                    message += text
                self.waiting += 1
                self._released.wait(60)
                self.waiting -= 1
                self.messages.append(message)
                self.recipients += recipients
                client.sendall(b"250 taken\r\n")
        except OSError:
            pass

    def __enter__(self) -> Destination:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._open:
            client.close()


def scratch(test: TestCase) -> Path:
    """
    @return: a new folder with a name short enough for sockets, through which other users can walk; removed
        after the test.
    """
    folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-"))
    folder.chmod(0o755)
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def relay(destination: Destination) -> str:
    """
    @return: main.cf lines that send everything there.
    """
    return f"relayhost = [127.0.0.1]:{destination.port}\n"


def require_root() -> None:
    """
    @raise SkipTest: not run as root.
    """
    if os.geteuid() != 0:
        raise SkipTest("only root can change users, folders of root and mounts")


def children(pid: int) -> list[int]:
    """
    @return: the child processes of a process, zombies included.
    """
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError as problem:
        raise SkipTest(f"this system does not tell the children of a process: {problem}") from None
    return [int(child) for child in text.split()]


def disk_process(service: RunningService) -> int:
    """
    @return: the process id of a service's disk process.
    """
    found: list[int] = []

    def there() -> bool:
        found[:] = children(service.pid)
        return len(found) == 1

    wait_until(there, 5, "one disk process")
    return found[0]


def alive(pid: int) -> bool:
    """
    @return: whether a process is there and no zombie.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def user_of(pid: int) -> int:
    """
    @return: the effective user of a process.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nUid:")[2].split()[1])
