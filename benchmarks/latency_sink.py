"""
The destination of L{benchmarks.latency}: an SMTP server that takes some time for each recipient.

It listens on 127.0.0.1 to 127.0.0.22, each of which is a destination. It prints C{ready}, then one line for
each message that came whole: C{bulk COUNT} with the number of recipients when one of a mailing is answered,
and C{LOCAL-PART TIME} when a single message is there; the time is that of the monotonic clock, which all
processes share. A delivery takes from a tenth to nineteen tenths of the average, by chance, as with real
destinations; if all took the same, those that were begun together would end together, and a single message
would wait for that moment. It only does what a benchmark needs: it takes everything, and does not check the
order of commands.
"""

from __future__ import annotations

import asyncio
import sys
import time
from random import Random


class SinkProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, latency: float, chance: Random) -> None:
        self._latency = latency
        self._chance = chance
        self._buffer = b""
        self._in_content = False
        self._single = False
        self._recipient = b""
        self._recipients = 0
        self._unanswered = 0
        self._delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer what has come."""
        self._buffer += data
        answer = b""
        while True:
            if self._in_content:
                _, end, rest = self._buffer.partition(b"\r\n.\r\n")
                if not end:
                    # What may be the beginning of the end stays.
                    self._buffer = self._buffer[-4:]
                    break
                self._buffer = rest
                self._in_content = False
                if self._single:
                    _say(self._recipient.decode(), f"{time.monotonic():.6f}")
                self._unanswered += 1
                self._delay = self._latency * self._recipients * self._chance.uniform(0.1, 1.9)
                asyncio.get_running_loop().call_later(self._delay, self._taken)
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                break
            self._buffer = rest
            answer += self._command(line)
        if answer:
            self._transport.write(answer)

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
        if verb == b"MAIL":
            self._single = b"<single@" in line
            self._recipients = 0
        elif verb == b"RCPT":
            self._recipient = line.partition(b"<")[2].partition(b"@")[0]
            self._recipients += 1
        elif verb == b"DATA":
            self._in_content = True
            # The line end before the content is part of the end of no content.
            self._buffer = b"\r\n" + self._buffer
            return b"354 Go on\r\n"
        elif verb == b"QUIT":
            # The reply to a message that was pipelined before it comes first.
            asyncio.get_running_loop().call_later(self._delay if self._unanswered else 0.0, self._quit)
            return b""
        return b"250 2.0.0 Ok\r\n"

    def _taken(self) -> None:
        self._unanswered -= 1
        if not self._single:
            _say("bulk", str(self._recipients))
        self._write(b"250 2.0.0 Ok\r\n")

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _quit(self) -> None:
        self._write(b"221 2.0.0 Bye\r\n")
        self._transport.close()


def _say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def serve(port: int, latency: float) -> None:
    """
    Listen, and never end.
    """
    loop = asyncio.get_running_loop()
    chance = Random(1)
    hosts = [f"127.0.0.{number}" for number in range(1, 23)]
    server = await loop.create_server(lambda: SinkProtocol(latency, chance), hosts, port, backlog=500)
    _say("ready")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
