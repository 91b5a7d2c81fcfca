"""
How many messages a second the queue store makes durable.

Commits 4 KB messages with a number of them under way at the same time, for both values of
C{queue_commit_sync}, on the file system of the given folder, and then their whole life (commit, move, mark,
remove). Run it as C{python benchmarks/spool.py [folder]}; it prints messages a second, the processor time
and the wall-clock latency of each.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from qmqpd_tx.config import config_from_text
from qmqpd_tx.message import Envelope, Queue, RecipientState
from qmqpd_tx.spool.store import FileMailQueue

BODY = b"Subject: benchmark\n\n" + b"0123456789abcdef" * 255
TOP = b"Received: from localhost (localhost [127.0.0.1]) by localhost (Postfix) with QMQP id 0;\n"


async def run(
    reactor: Any, folder: str, sync: str, threads: int, sessions: int, count: int, life: bool
) -> str:
    """
    @return: a line of the report.
    """
    directory = tempfile.mkdtemp(dir=folder)
    settings = {
        "queue_directory": directory,
        "queue_commit_sync": sync,
        "queue_commit_threads": str(threads),
    }
    queue = FileMailQueue(
        config_from_text("".join(f"{name} = {value}\n" for name, value in settings.items())), reactor
    )
    await queue.start()
    left = count
    latencies = []

    async def session() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            now = time.time()
            writer = queue.create(now)
            writer.write(BODY)
            writer.envelope(Envelope(b"sender@example.org", now), TOP)
            writer.recipient(b"user@example.com", b"user@example.com")
            message = await writer.commit()
            latencies.append(time.perf_counter() - began)
            if life:
                queue.move(message.queue_id, Queue.INCOMING, Queue.ACTIVE)
                found = await message.recipients(None, 10)
                # A delivery takes a while: everything else gets its turn.
                await task.deferLater(reactor, 0, lambda: None)
                queue.mark(message, found.recipients, RecipientState.DELIVERED)
                await queue.remove(message.queue_id, Queue.ACTIVE)
            message.close()

    wall, cpu = time.perf_counter(), time.process_time()
    await gatherResults([ensureDeferred(session()) for _ in range(sessions)])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await queue.stop()
    shutil.rmtree(directory)
    latencies.sort()
    median, worst = (latencies[count * share // 100] * 1e3 for share in (50, 99))
    return (
        f"{sync:7} threads={threads} sessions={sessions:3} {'life' if life else 'commit':6}"
        f" {count / wall:7.0f}/s  cpu {cpu / count * 1e6:5.0f} us each"
        f"  latency {median:6.2f} ms median {worst:6.2f} ms 99%"
    )


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """
    Print the report.
    """
    for life in (False, True):
        for sync, threads in (("fsync", 1), ("fsync", 2), ("fsync", 4), ("syncfs", 1), ("syncfs", 2)):
            for sessions in (1, 10, 50):
                count = options.count if sessions > 1 else options.count // 3
                print(await run(reactor, options.folder, sync, threads, sessions, count, life), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the queue store.")
    parser.add_argument("folder", nargs="?", help="where to put the queue (default: the temporary folder)")
    parser.add_argument("--count", type=int, default=6000, help="messages in each run (default: %(default)s)")
    arguments = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments)), [])
    sys.exit(0)
