"""
C{make run}: the demonstration shows a message's whole way.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent


class DemonstrationTests(SynchronousTestCase):
    """The command, as make runs it."""

    def test_way(self) -> None:
        """
        It succeeds, and shows acceptance, the log lines and the delivered file, which is where it says.
        """
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        done = subprocess.run(
            [sys.executable, "-m", "qmqpd_tx.admin.demo"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        output = done.stdout
        self.assertEqual(done.returncode, 0, output)
        self.assertIn("Ok: queued as", output)
        self.assertRegex(output, r"postfix/local\[\d+\]: \w+: to=<friend@demo.test>, .*status=sent")
        self.assertIn("  Subject: hello", output)
        self.assertRegex(output, r"postfix/qmgr\[\d+\]: \w+: removed")
        named = re.search(rf"\$ cat ({re.escape(folder)}/\S+)", output)
        assert named is not None, output
        self.assertIn("This message came in by QMQP", Path(named[1]).read_text())
