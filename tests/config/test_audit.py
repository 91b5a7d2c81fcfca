"""
Nothing that the manual pages of intake list is passed over in silence.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.config.manual import PAGES, entries, page

MANUAL = Path("/usr/share/man/man8")


class AuditTests(SynchronousTestCase):
    """The parameters of qmqpd(8), cleanup(8) and trivial-rewrite(8)."""

    def test_effect(self) -> None:
        """
        Each is in effect, or docs/differences.rst says what is different.
        """
        missing = [entry.name for entry in entries() if not entry.effect and not entry.different]
        self.assertEqual(missing, [], f"neither in effect nor in docs/differences.rst: {' '.join(missing)}")

    def test_tests(self) -> None:
        """
        Each that is in effect is named in a test.
        """
        missing = [entry.name for entry in entries() if entry.effect and not entry.tests]
        self.assertEqual(missing, [], f"in effect, but in no test: {' '.join(missing)}")

    def test_installed(self) -> None:
        """
        The names are those of the installed pages, where they are installed; Debian's small images leave them
        out.
        """
        for name, names in PAGES.items():
            for path in MANUAL.glob(f"{name}.8*.gz"):
                text = gzip.decompress(path.read_bytes()).decode()
                section = text.partition('SH "CONFIGURATION PARAMETERS"')[2].partition('SH "SEE ALSO"')[0]
                found = re.findall(r'^\.IP "\\fB(\w+) ', section, re.MULTILINE)
                self.assertGreater(len(found), 20)
                self.assertEqual(set(names), set(found), name)

    def test_page(self) -> None:
        """
        The page of the manual has an entry for each.
        """
        text = page()
        for entry in entries():
            self.assertIn(f"* - ``{entry.name}``\n", text)
