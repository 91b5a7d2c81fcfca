"""
What is noticed without anybody asking for a reload.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.refresh import Refresh
from qmqpd_tx.tables import Tables


class RefreshTests(SynchronousTestCase):
    """Files on disk, time on a clock, and a reload that may be refused."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.main = self.folder / "main.cf"
        self.table = self.folder / "table"
        self.write(self.main, "a = b\n")
        self.write(self.table, "key one\n")
        self.clock = Clock()
        self.tables = Tables()
        self.reloads = 0
        self.refuse = False
        self.value = self.open()
        self.refresh = Refresh(
            self.clock,
            config_from_text("table_check_interval = 5s\n"),
            [str(self.main), str(self.folder / "master.cf")],
            self.tables.changed,
            self.reload,
        )
        self.refresh.startService()

    def write(self, path: Path, text: str) -> None:
        """Each content has its own time, however fast the test is."""
        self.time = getattr(self, "time", 1_000_000_000) + 10
        path.write_text(text)
        os.utime(path, (self.time, self.time))

    def open(self) -> bytes | None:
        """What the table says of the key."""
        value: bytes | None = self.tables.open(f"texthash:{self.table}", "p").lookup(b"key")
        return value

    def reload(self) -> None:
        """As the mail system does it."""
        self.reloads += 1
        self.refresh.loading()
        self.tables.renew()
        try:
            self.value = self.open()
            if self.refuse:
                raise ConfigError("not that")
        except ConfigError:
            self.tables.undo()
            self.value = self.open()
        else:
            self.tables.keep()

    def test_table(self) -> None:
        """A changed table is read within the interval, and nothing is read when nothing has changed."""
        self.clock.pump([5, 5, 5])
        self.assertEqual((self.reloads, self.value), (0, b"one"))
        self.write(self.table, "key two\n")
        self.clock.advance(4.9)
        self.assertEqual(self.value, b"one")
        self.clock.advance(0.1)
        self.assertEqual((self.reloads, self.value), (1, b"two"))
        self.clock.pump([5, 5])
        self.assertEqual(self.reloads, 1)

    def test_refused(self) -> None:
        """A reload that was refused keeps the old table, and waits for the next change."""
        self.refuse = True
        self.write(self.table, "key two\n")
        self.clock.pump([5, 5, 5])
        self.assertEqual((self.reloads, self.value), (1, b"one"))
        self.refuse = False
        self.write(self.table, "key three\n")
        self.clock.advance(5)
        self.assertEqual((self.reloads, self.value), (2, b"three"))

    def test_table_gone(self) -> None:
        """A table whose file goes keeps its content."""
        self.table.unlink()
        self.clock.pump([5, 5])
        self.assertEqual((self.reloads, self.value), (1, b"one"))

    def test_configuration(self) -> None:
        """Configuration files are looked at when somebody says that it is time."""
        self.write(self.main, "a = c\n")
        self.clock.pump([5, 5])
        self.assertEqual(self.reloads, 0)
        self.refresh.look()
        self.assertEqual(self.reloads, 1)
        self.refresh.look()
        self.assertEqual(self.reloads, 1)
        self.write(self.folder / "master.cf", "")
        self.refresh.look()
        self.assertEqual(self.reloads, 2)

    def test_stopped(self) -> None:
        """Nothing is looked at any more, and no timer is left."""
        self.write(self.table, "key two\n")
        self.refresh.stopService()
        self.refresh.look()
        self.assertEqual((self.reloads, self.clock.getDelayedCalls()), (0, []))
