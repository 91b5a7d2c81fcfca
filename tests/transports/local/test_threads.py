"""
Local delivery in the reactor's real threads, and against another process's lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.status import Action
from qmqpd_tx.transports.local import LocalAgent, LocalTransport
from qmqpd_tx.transports.local.users import User
from tests.transports.fakes import Content, context, recipients, request

HOLD = """
import fcntl, sys
with open(sys.argv[1], "ab") as mailbox:
    fcntl.lockf(mailbox, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
    mailbox.write(b"From other\\n\\nother\\n\\n")
"""


class ThreadTests(TestCase):
    """One mailbox, many writers."""

    timeout = 30

    def setUp(self) -> None:
        self.spool = Path(self.mktemp()).absolute()
        self.spool.mkdir()

    def transport(self, settings: str) -> LocalTransport:
        user = User("anna", os.geteuid(), os.getegid(), "")
        config = config_from_text(f"{settings}\ndeliver_lock_delay = 1s\n")
        return LocalAgent(lambda _: user).transport(context("local", config, reactor))

    async def test_many(self) -> None:
        """Deliveries at the same time follow each other in an mbox, and are files in a Maildir."""
        for directory in (self.spool, f"{self.spool}/maildirs/"):
            transport = self.transport(f"mail_spool_directory = {directory}")
            reports = await gatherResults(
                [
                    transport.deliver(request(recipients(b"anna@h.test"), Content(b"S: %d\n\nx\n" % n)))
                    for n in range(20)
                ]
            )
            self.assertEqual({report.outcomes[0].action for report in reports}, {Action.SENT})
        copies = (self.spool / "anna").read_bytes().split(b"From sender@a.test  ")[1:]
        numbers = sorted(int(copy.split(b"S: ")[1].split(b"\n")[0]) for copy in copies)
        self.assertEqual(numbers, list(range(20)))
        self.assertEqual(len(list((self.spool / "maildirs" / "anna" / "new").iterdir())), 20)

    async def test_other_process(self) -> None:
        """An fcntl lock of another process is waited for, and what it writes stays."""
        mailbox = self.spool / "anna"
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(mailbox)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None and holder.stdout is not None
        with holder:
            holder.stdout.readline()
            transport = self.transport(f"mail_spool_directory = {self.spool}\nmailbox_delivery_lock = fcntl")
            delivery = transport.deliver(request(recipients(b"anna@h.test")))
            reactor.callLater(0.3, holder.stdin.close)  # type: ignore[attr-defined]
            report = await delivery
        self.assertEqual(report.outcomes[0].action, Action.SENT)
        self.assertRegex(
            mailbox.read_bytes(), rb"(?s)^From other\n\nother\n\nFrom sender@a\.test  .*body\n\n$"
        )
