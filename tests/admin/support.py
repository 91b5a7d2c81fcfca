"""
A queue on disk with a message in each of its queues, and the command in this process.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from qmqpd_tx.admin.main import run
from qmqpd_tx.bounce.records import encode_outcome
from qmqpd_tx.config import config_from_text
from qmqpd_tx.message import Envelope, LogKind, Queue, QueueID, Recipient
from qmqpd_tx.spool.store import FileMailQueue
from qmqpd_tx.status import Action, Outcome

ARRIVAL = 1795325003.0


def command(*arguments: str) -> tuple[int, str, str]:
    """
    @return: exit status, standard output and standard error of C{qmqpd-tx}.
    """
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = run(arguments)
    return status, output.getvalue(), errors.getvalue()


class Case(TestCase):
    """A queue on disk, and a configuration that names it."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        # Not mktemp(): the name of a socket has at most 107 bytes, wherever this checkout is.
        self.folder = Path(tempfile.mkdtemp(prefix="qmqpd-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.spool = self.folder / "spool"
        self.spool.mkdir(parents=True)
        self.log = self.folder / "mail.log"
        (self.folder / "main.cf").write_text(
            f"queue_directory = {self.spool}\n"
            f"maillog_file = {self.log}\n"
            f"maillog_file_prefixes = {self.folder}\n"
        )

    async def fill(self) -> dict[str, QueueID]:
        """
        Put a message into each queue.

        @return: their ids, by queue name.
        """
        config = config_from_text(f"queue_directory = {self.spool}\n")
        store = FileMailQueue(config, self.reactor)
        await store.start()
        ids: dict[str, QueueID] = {}
        try:
            for queue in (Queue.DEFERRED, Queue.HOLD, Queue.ACTIVE, Queue.INCOMING):
                writer = store.create(ARRIVAL)
                writer.write(b"Subject: x\n\nhello\n")
                sender = b"" if queue is Queue.DEFERRED else b"s@source.test"
                writer.envelope(Envelope(sender=sender, arrival_time=ARRIVAL), b"Received: us\n")
                for address in (b"new@dst.test", b"b b@dst.test", b"c@dst.test"):
                    writer.recipient(address, address)
                message = await writer.commit()
                message.close()
                ids[queue.value] = message.queue_id
                if queue is not Queue.INCOMING:
                    await store.move(message.queue_id, Queue.INCOMING, queue, ARRIVAL)
            outcomes = [
                Outcome(Recipient(address, address, 0), Action.DEFERRED, "4.4.1", text)
                for address, text in (
                    (b"gone@dst.test", "was delivered since"),
                    (b"c@dst.test", "before"),
                    (b"b b@dst.test", "host x said: 450\nno"),
                    (b"c@dst.test", "connect to x[192.0.2.1]:25: refused"),
                )
            ]
            records = [encode_outcome(outcome) for outcome in outcomes]
            await store.append_log(LogKind.DEFER, ids["deferred"], records, False)
        finally:
            await store.stop()
        return ids
