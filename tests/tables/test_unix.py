"""
The system's users and groups as tables.
"""

from __future__ import annotations

import grp
import pwd
import shutil
import subprocess
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables import ILookupTable, Tables, open_table


class UnixTests(SynchronousTestCase):
    """unix:passwd.byname, unix:group.byname."""

    def look_up(self, name: str, key: bytes) -> bytes | None:
        """
        @return: what a table has.
        """
        found = open_table(name, "test", ()).lookup(key)
        return self.successResultOf(found) if isinstance(found, Deferred) else found  # type: ignore[no-any-return]

    def test_interface(self) -> None:
        """It is a table, whose answers have to be waited for and may change."""
        table = open_table("unix:passwd.byname", "test", ())
        verifyObject(ILookupTable, table)
        self.assertEqual((table.immediate, table.stable, table.fixed_keys), (False, False, True))
        table.close()

    def test_lines(self) -> None:
        """The line of passwd(5) or group(5), in any case; nothing for others, or for addresses."""
        root = pwd.getpwuid(0)
        line = f"root:{root.pw_passwd}:0:{root.pw_gid}:{root.pw_gecos}:{root.pw_dir}:{root.pw_shell}".encode()
        self.assertEqual(self.look_up("unix:passwd.byname", b"root"), line)
        self.assertEqual(self.look_up("unix:passwd.byname", b"ROOT"), line)
        group = grp.getgrgid(0)
        line = f"{group.gr_name}:{group.gr_passwd}:0:{','.join(group.gr_mem)}".encode()
        self.assertEqual(self.look_up("unix:group.byname", group.gr_name.encode()), line)
        for key in (b"no-such-user-here", b"root@example.org", b"root\0", b"", b"\xff\xfe", b"root:x"):
            self.assertIs(self.look_up("unix:passwd.byname", key), None, key)

    def test_as_postmap(self) -> None:
        """Postfix's postmap says the same."""
        if shutil.which("postmap") is None:
            raise SkipTest("postmap is not installed")
        for table, keys in (
            ("unix:passwd.byname", [entry.pw_name for entry in pwd.getpwall()]),
            ("unix:group.byname", [entry.gr_name for entry in grp.getgrall()]),
        ):
            for key in [*keys, "no-such-name"]:
                run = subprocess.run(["postmap", "-q", key, table], capture_output=True, check=False)
                self.assertEqual(self.look_up(table, key.encode()), run.stdout.rstrip(b"\n") or None, key)

    def test_trouble(self) -> None:
        """A system that cannot say is not one that has no such user."""

        def broken(*arguments: Any) -> Deferred[Any]:
            return fail(OSError(5, "Input/output error"))

        table = Tables(in_thread=broken, extra=()).open("unix:passwd.byname", "test")
        error = self.failureResultOf(table.lookup(b"root"), TableError)
        self.assertIn("unix:passwd.byname", error.getErrorMessage())

    def test_unknown(self) -> None:
        """There are no others."""
        error = self.assertRaises(ConfigError, open_table, "unix:shadow", "local_recipient_maps", ())
        self.assertIn("local_recipient_maps: unknown table: unix:shadow", str(error))
