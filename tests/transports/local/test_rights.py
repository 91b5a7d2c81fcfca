"""
Delivery as root: files are the user's, and the user's rights decide. Skipped elsewhere.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.status import Action
from qmqpd_tx.transports.local import LocalAgent
from qmqpd_tx.transports.local.rights import as_user
from qmqpd_tx.transports.local.users import User
from tests.transports.fakes import context, recipients, request

UID, GID = 54321, 54322


class RightsTests(SynchronousTestCase):
    """A user that is not root, and a service that is."""

    if os.geteuid() != 0 or sys.platform != "linux":
        skip = "only root on Linux can take on another user's rights"

    def setUp(self) -> None:
        # Trial's own folder may be closed to other users.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir()
        os.chown(self.home, UID, GID)
        self.spool = self.folder / "spool"
        self.spool.mkdir()

    def deliver(self, settings: str) -> tuple[Action, str, str]:
        user = User("anna", UID, GID, str(self.home))
        config = config_from_text(f"mail_spool_directory = {self.spool}\n{settings}\n")
        transport = LocalAgent(lambda _: user).transport(context("local", config))
        results = []

        # In a thread of its own: the thread keeps fewer groups afterwards.
        def work() -> None:
            report = self.successResultOf(transport.deliver(request(recipients(b"anna@h.test"))))
            results.extend(report.outcomes)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        (outcome,) = results
        return outcome.action, outcome.dsn, outcome.text

    def test_maildir(self) -> None:
        """All of a new Maildir belongs to the user."""
        self.assertEqual(self.deliver("home_mailbox = Maildir/")[0], Action.SENT)
        paths = [self.home / "Maildir", *(self.home / "Maildir").rglob("*")]
        self.assertEqual(len(paths), 5)
        for path in paths:
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (UID, GID), path)

    def test_new_mailbox_in_roots_spool(self) -> None:
        """Root makes a missing mailbox in a spool directory that users may not write."""
        self.assertEqual(self.deliver("")[0], Action.SENT)
        status = (self.spool / "anna").stat()
        self.assertEqual((status.st_uid, status.st_gid, status.st_mode & 0o777), (UID, GID, 0o600))
        self.assertEqual(self.deliver("")[0], Action.SENT)
        self.assertEqual((self.spool / "anna").read_bytes().count(b"From sender@"), 2)

    def test_home_leads_elsewhere(self) -> None:
        """A link from the home directory into root's files gives no right to write there."""
        target = self.folder / "root"
        target.mkdir(mode=0o700)
        for name in ("tmp", "new", "cur"):
            (target / name).mkdir()
        (self.home / "Maildir").symlink_to(target)
        action, dsn, text = self.deliver("home_mailbox = Maildir/")
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.2.0"))
        self.assertIn("Permission denied", text)
        self.assertEqual(list((target / "tmp").iterdir()), [])

    def test_mailbox_of_somebody_else(self) -> None:
        """A mailbox file that is not the user's is not written to."""
        (self.spool / "anna").write_bytes(b"root's")
        (self.spool / "anna").chmod(0o666)
        action, dsn, text = self.deliver("")
        self.assertEqual((action, dsn), (Action.DEFERRED, "4.2.0"))
        self.assertIn("is not owned by recipient", text)
        self.assertEqual((self.spool / "anna").read_bytes(), b"root's")

    def test_rights_are_given_back(self) -> None:
        """After the body the thread is root again; other threads never were anybody else."""
        secret = self.folder / "secret"
        secret.write_text("x")
        secret.chmod(0o600)
        seen: list[object] = []

        def work() -> None:
            with as_user(UID, GID):
                try:
                    secret.read_text()
                except PermissionError:
                    seen.append("refused")
                inside.set()
                outside.wait(10)
            seen.append(secret.read_text())

        inside, outside = threading.Event(), threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(10)
        self.assertEqual(secret.read_text(), "x")
        outside.set()
        thread.join()
        self.assertEqual(seen, ["refused", "x"])
