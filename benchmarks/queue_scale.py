"""
What a long queue costs: scan, flush and start-up, in memory and on disk.

Fills a queue with deferred messages of which none, some or all are due, and prints what it takes to find
those that are due and to move them to C{active}, to begin a flush and to go through with it, and how much
memory each message needs. Then starts a service on a queue on disk: when it can take the first message, when
it knows all deferred mail, and how long a message takes meanwhile; and the same with a queue full of active
messages, as after a crash.

Takes the store alone; what the queue manager adds is measured elsewhere. Files on disk are made directly,
which is faster than intake, and are the same. Run it as C{python -m benchmarks.queue_scale}; on a folder in
memory (C{--folder /dev/shm}) it shows what is not the disk's share.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from twisted.internet import task
from twisted.internet.defer import Deferred

from qmqpd_tx.config import config_from_text
from qmqpd_tx.message import Envelope, Queue, QueueID
from qmqpd_tx.spool import queueid, record
from qmqpd_tx.spool.files import QueuePaths
from qmqpd_tx.spool.memory import MemoryMailQueue
from qmqpd_tx.spool.record import HEADER_SIZE, Layout
from qmqpd_tx.spool.store import FileMailQueue

CONTENT = b"Subject: benchmark\nMessage-Id: <1@example.org>\n\n" + b"0123456789abcde\n" * 8
SLICE = 100
FAR = 1e9


def resident() -> int:
    """
    @return: bytes of memory that this process has.
    """
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def times(count: int, due: int, now: float) -> list[float]:
    """
    @return: when each message is due, as many as asked for in the past, spread all over the queue.
    """
    step = count / due if due else 0.0
    found = [now + 60 + number % 4000 for number in range(count)]
    for number in range(due):
        found[int(number * step)] = now - 1 - number % 300
    return found


class Timer:
    """Measures one thing after the other, and prints it."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def lap(self) -> float:
        """
        @return: seconds since the last time.
        """
        now = time.perf_counter()
        took, self._began = now - self._began, now
        return took


async def look(queue: Any, now: float, due: int) -> None:
    """
    Print what it costs to find what is due, by the index, and to go through all that is left.
    """
    searched, found, timer = 0.0, 0, Timer()
    while True:
        before = time.perf_counter()
        entries = queue.due(now, SLICE)
        searched += time.perf_counter() - before
        if not entries:
            break
        found += len(entries)
        # As the queue manager does, so that the rest comes up.
        moves = [queue.move(entry.queue_id, Queue.DEFERRED, Queue.ACTIVE) for entry in entries]
        for move in moves:
            await move
    scan = timer.lap()
    assert found == due, (found, due)
    walk = queue.waiting()
    found = len(await walk.next(SLICE))
    begun = longest = timer.lap()
    entries = [None]
    while entries:
        before = time.perf_counter()
        entries = await walk.next(SLICE)
        longest = max(longest, time.perf_counter() - before)
        found += len(entries)
    flush = begun + timer.lap()
    print(f"    scan: {due:,} due found in {searched * 1e3:.1f} ms, and moved, {scan * 1e3:.1f} ms")
    print(
        f"    flush: first slice after {begun * 1e3:.1f} ms, {found:,} found in {flush * 1e3:.1f} ms, "
        f"longest slice {longest * 1e3:.1f} ms"
    )


async def in_memory(count: int, dues: Sequence[int]) -> None:
    """
    The twin in memory.
    """
    print(f"in memory, {count:,} deferred messages of one recipient")
    now = time.time()
    for due in dues:
        when = times(count, due, now)
        queue = MemoryMailQueue()
        await queue.start()
        before, timer = resident(), Timer()
        queue.fill(
            count,
            Envelope(b"sender@example.org", now),
            CONTENT,
            lambda number: b"user%d@example.com" % number,
            when.__getitem__,
        )
        took, memory = timer.lap(), resident() - before
        print(
            f"  {due:,} due: filled in {took:.1f} s, {memory / 2**20:.0f} MiB, "
            f"{memory / count:.0f} bytes each"
        )
        await look(queue, now, due)
        await queue.stop()
        del queue, when


class Folder:
    """
    A queue on disk, made without the store.

    @ivar path: where it is.
    """

    def __init__(self, folder: str | None) -> None:
        self.path = tempfile.mkdtemp(prefix="queue_scale-", dir=folder)
        self.config = config_from_text(f"queue_directory = {self.path}\n")
        hashed = self.config.words("hash_queue_names")
        self._paths = QueuePaths(self.path, hashed, self.config.integer("hash_queue_depth"))

    def queue(self, reactor: Any) -> FileMailQueue:
        """
        @return: a store on it.
        """
        return FileMailQueue(self.config, reactor)

    def fill(self, where: Queue, when: Sequence[float]) -> None:
        """
        Make a message file for each of these times.
        """
        envelope = record.encode_envelope(Envelope(b"sender@example.org", time.time()))
        top = HEADER_SIZE + len(CONTENT)
        recipients = top + len(envelope)
        number = int(time.time() * 1e6) - 10**9
        made: set[str] = set()
        for offset, due in enumerate(when):
            queue_id = queueid.encode(number + offset)
            people = record.encode_recipient(b"user%d@example.com" % offset, b"user%d@example.com" % offset)
            body = CONTENT + envelope + people
            layout = Layout(top, top, recipients, recipients + len(people), 1, crc32(body))
            path = self._paths.message(where, queue_id)
            parent = os.path.dirname(path)
            if parent not in made:
                os.makedirs(parent, mode=0o700, exist_ok=True)
                made.add(parent)
            fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o700)
            os.write(fd, record.encode_header(layout, queue_id) + body + record.END)
            os.utime(fd, (due, due))
            os.close(fd)

    def remove(self) -> None:
        """
        Remove all of it.
        """
        shutil.rmtree(self.path)


async def commit(queue: Any) -> QueueID:
    """
    Take one message, as intake does.

    @return: its id.
    """
    now = time.time()
    writer = queue.create(now)
    writer.write(CONTENT)
    writer.envelope(Envelope(b"sender@example.org", now), b"Received: from localhost\n")
    writer.recipient(b"user@example.com", b"user@example.com")
    message = await writer.commit()
    message.close()
    return QueueID(message.queue_id)


async def begin(reactor: Any, folder: Folder, label: str) -> FileMailQueue:
    """
    Start a service, and print what that takes.

    @return: its queue, recovered.
    """
    queue = folder.queue(reactor)
    timer = Timer()
    await queue.start()
    started = timer.lap()
    began = time.perf_counter()
    recovered = queue.recovered()
    await commit(queue)
    first = timer.lap()
    latencies = [first]
    while not recovered.called:
        before = time.perf_counter()
        await commit(queue)
        latencies.append(time.perf_counter() - before)
        await task.deferLater(reactor, 0.005, lambda: None)
    whole = time.perf_counter() - began
    found = await recovered
    latencies.sort()
    print(
        f"    {label}: started after {started * 1e3:.1f} ms, first message taken after "
        f"{(started + first) * 1e3:.1f} ms, recovered after {started + whole:.2f} s "
        f"({found.reactivated:,} active again)"
    )
    middle, last = latencies[len(latencies) // 2], latencies[-1]
    print(
        f"      {len(latencies):,} messages taken meanwhile: median {middle * 1e3:.2f} ms, "
        f"longest {last * 1e3:.2f} ms"
    )
    return queue


async def quiet(queue: FileMailQueue) -> str:
    """
    @return: how long a message takes when nothing else is done.
    """
    latencies = []
    for _ in range(200):
        before = time.perf_counter()
        await commit(queue)
        latencies.append(time.perf_counter() - before)
    latencies.sort()
    return f"{latencies[100] * 1e3:.2f} ms median, {latencies[-1] * 1e3:.2f} ms longest"


async def on_disk(reactor: Any, base: str | None, count: int, dues: Sequence[int]) -> None:
    """
    Deferred mail in files.
    """
    print(f"on disk, {count:,} deferred files")
    for due in dues:
        folder = Folder(base)
        try:
            now = time.time()
            timer = Timer()
            folder.fill(Queue.DEFERRED, times(count, due, now))
            print(f"  {due:,} due: files made in {timer.lap():.1f} s")
            queue = await begin(reactor, folder, "first start, without pid/floor")
            await queue.stop()
            queue = await begin(reactor, folder, "next start")
            await look(queue, now, due)
            await queue.stop()
        finally:
            folder.remove()


async def crashed(reactor: Any, base: str | None, count: int) -> None:
    """
    A start after a crash with many active messages.
    """
    print(f"after a crash, {count:,} active files")
    folder = Folder(base)
    try:
        queue = folder.queue(reactor)
        await queue.start()
        print(f"    quiet queue: {await quiet(queue)}")
        await queue.stop()
        folder.fill(Queue.ACTIVE, [time.time()] * count)
        queue = await begin(reactor, folder, "start")
        await queue.stop()
    finally:
        folder.remove()


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """
    Print all of it.
    """
    if options.messages:
        await in_memory(options.messages, [min(due, options.messages) for due in options.due])
    if options.files:
        await on_disk(
            reactor, options.folder, options.files, [min(due, options.files) for due in options.due]
        )
    if options.active:
        await crashed(reactor, options.folder, options.active)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a long queue costs.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="in memory (default: %(default)s)")
    parser.add_argument("--files", type=int, default=200_000, help="deferred, on disk (default: %(default)s)")
    parser.add_argument("--active", type=int, default=100_000, help="active, on disk (default: %(default)s)")
    parser.add_argument(
        "--due",
        type=int,
        action="append",
        help="how many are due; may be given again (default: 0, 1000, 10000 and all)",
    )
    parser.add_argument("--folder", help="where to put queues (default: the temporary folder)")
    arguments = parser.parse_args()
    if arguments.due is None:
        arguments.due = [0, 1000, 10_000, int(FAR)]
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments)), [])
