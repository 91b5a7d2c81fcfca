"""
A QMQP client that sends prepared messages as fast as the server takes them, with a number of connections at
the same time.

qmqp-source, the other client of these benchmarks, makes up messages of a few headers; where the work of the
server depends on what is in a message, this one sends what it is given. It runs in a process of its own,
so that it takes no time from anybody but the machine, and each request leaves in one piece. Each connection
carries one message, as in ezmlm-idx and qmail. It prints how many seconds it took, and ends with status 1 at
the first message that is not accepted.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def netstring(data: bytes) -> bytes:
    """
    @return: C{data} in its frame.
    """
    return b"%d:%b," % (len(data), data)


def request(content: bytes, sender: bytes, recipients: Sequence[bytes]) -> bytes:
    """
    @return: a whole QMQP request.
    """
    return netstring(b"".join(map(netstring, (content, sender, *recipients))))


def pack(requests: Sequence[bytes], path: Path) -> None:
    """
    Write requests for L{send}.
    """
    path.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in requests))


def _unpack(path: Path) -> list[bytes]:
    requests = []
    with path.open("rb") as file:
        while line := file.readline():
            requests.append(file.read(int(line)))
    return requests


def send(requests: Path, port: int, sessions: int, messages: int) -> float:
    """
    Send messages from a process of its own, and wait for all replies.

    @param requests: what L{pack} wrote; they are sent in turn.
    @return: the seconds from the first connection to the last reply.
    @raise RuntimeError: a message was not accepted.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", str(requests), str(port), str(sessions), str(messages)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"the client ended with status {done.returncode}: {done.stderr.strip()}")
    return float(done.stdout)


def _drive(requests: Sequence[bytes], port: int, sessions: int, messages: int) -> float:
    # As little as possible for each message: what the client takes, the server does not have.
    poll = select.epoll()
    connections: dict[int, socket.socket] = {}
    address = ("127.0.0.1", port)
    begun = ended = 0

    def begin() -> None:
        nonlocal begun
        connection = socket.socket()
        connection.settimeout(60)
        connection.connect(address)
        connection.sendall(requests[begun % len(requests)])
        poll.register(connection, select.EPOLLIN)
        connections[connection.fileno()] = connection
        begun += 1

    start = time.perf_counter()
    for _ in range(min(sessions, messages)):
        begin()
    while ended < messages:
        ready = poll.poll(60)
        if not ready:
            raise SystemExit("no reply within 60 seconds")
        for number, _ in ready:
            connection = connections.pop(number)
            reply = connection.recv(4096)
            if reply.partition(b":")[2][:1] != b"K":
                raise SystemExit(f"not accepted: {reply!r}")
            connection.close()
            ended += 1
            if begun < messages:
                begin()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(_drive(_unpack(Path(sys.argv[1])), *map(int, sys.argv[2:5])))
