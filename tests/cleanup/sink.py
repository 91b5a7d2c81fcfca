"""
An SMTP server on loopback that takes everything, or refuses who it is told to, and remembers raw bytes.
"""

from __future__ import annotations

import socketserver
import threading
from types import TracebackType

from attrs import frozen


@frozen
class Delivery:
    """
    One message that arrived.

    @ivar sender: the argument of MAIL FROM, with its brackets and parameters.
    @ivar recipients: the arguments of RCPT TO.
    @ivar content: lines end in CR LF.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes


class _Session(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        self.wfile.write(b"220 sink ESMTP\r\n")
        sender = b""
        recipients: list[bytes] = []
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.wfile.write(b"250-sink\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SIZE 0\r\n")
            elif verb == b"MAIL":
                sender, recipients = line[10:].strip(), []
                self.wfile.write(b"250 2.1.0 Ok\r\n")
            elif verb == b"RCPT":
                reply = self.server.refusal(line)
                if reply is None:
                    recipients.append(line[8:].strip())
                self.wfile.write(reply or b"250 2.1.5 Ok\r\n")
            elif verb == b"DATA" and recipients:
                self.wfile.write(b"354 Go on\r\n")
                self.server.add(Delivery(sender, tuple(recipients), self._content()))
                self.wfile.write(b"250 2.0.0 Ok\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"554 5.5.1 No recipients\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 Bye\r\n")
                return
            else:
                self.wfile.write(b"250 Ok\r\n")

    def _content(self) -> bytes:
        lines: list[bytes] = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


class Sink(socketserver.ThreadingTCPServer):
    """
    A context manager.

    @ivar port: where it listens on 127.0.0.1.
    @ivar refuse: replies to RCPT for addresses that contain the key.
    @ivar deliveries: what has arrived.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.port: int = self.server_address[1]
        self.refuse: dict[bytes, bytes] = {}
        self.deliveries: list[Delivery] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def refusal(self, line: bytes) -> bytes | None:
        """
        @return: the reply to a RCPT command, if it is refused.
        """
        return next((reply for key, reply in self.refuse.items() if key in line), None)

    def add(self, delivery: Delivery) -> None:
        """Remember a message."""
        with self._news:
            self.deliveries.append(delivery)
            self._news.notify_all()

    def wait_for(self, count: int, seconds: float) -> list[Delivery]:
        """
        @return: the deliveries, when there are so many, or when the time is up.
        """
        with self._news:
            self._news.wait_for(lambda: len(self.deliveries) >= count, seconds)
            return list(self.deliveries)

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
