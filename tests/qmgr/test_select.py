"""Which scheduler master.cf asks for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.selection import select_scheduler


class Line:
    """A line of master.cf."""

    def __init__(self, name: str, command: str, line: int = 1) -> None:
        self.name = name
        self.command = command
        self.line = line

    def where(self) -> str:
        """Where it is."""
        return f"master.cf, line {self.line}"


class SelectTests(SynchronousTestCase):
    """The command column of the qmgr line."""

    def test_default(self) -> None:
        """The preemptive one: with the built-in master.cf, and without a line."""
        self.assertIs(select_scheduler(config_from_text("").services), PreemptiveScheduler)
        self.assertIs(select_scheduler([]), PreemptiveScheduler)

    def test_commands(self) -> None:
        """Both have their name."""
        self.assertIs(select_scheduler([Line("smtp", "smtp"), Line("qmgr", "qmgr")]), PreemptiveScheduler)
        self.assertIs(select_scheduler([Line("qmgr", "oqmgr")]), RoundRobinScheduler)

    def test_other_lines_do_not_count(self) -> None:
        """Only the service qmgr is asked."""
        self.assertIs(select_scheduler([Line("other", "oqmgr")]), PreemptiveScheduler)

    def test_unknown(self) -> None:
        """Anything else is refused, with place and remedy."""
        problem = self.assertRaises(ConfigError, select_scheduler, [Line("qmgr", "nqmgr", 12)])
        self.assertEqual(
            str(problem),
            "master.cf, line 12: qmgr: there is no queue manager nqmgr: write qmgr or oqmgr in the command"
            " column",
        )

    def test_contradiction(self) -> None:
        """Two lines that do not agree are refused."""
        lines = [Line("qmgr", "qmgr", 2), Line("qmgr", "oqmgr", 3)]
        problem = str(self.assertRaises(ConfigError, select_scheduler, lines))
        self.assertIn("line 3", problem)
        self.assertIn("line 2", problem)
