"""
C{qmqpd-tx simulate}, as a user sees it.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent

SCENARIO = """\
title = "A small day"
[main]
minimal_backoff_time = "5m"
[[destination]]
name = "sink"
refusal = [{ probability = 0.2, code = 450 }]
[[arrival]]
class = "news"
at = "09:00"
messages = 30
recipients = 2
[[question]]
by = "10:00"
"""


class CommandTests(SynchronousTestCase):
    """The command in a process of its own."""

    def setUp(self) -> None:
        """A folder with a scenario."""
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.scenario = self.folder / "day.toml"
        self.scenario.write_text(SCENARIO)

    def run_command(self, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """
        @return: what it wrote.
        """
        done = subprocess.run(
            [sys.executable, "-m", "qmqpd_tx.admin.main", "simulate", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def test_tables(self) -> None:
        """Tables by default, the same each time."""
        done = self.run_command(str(self.scenario))
        for words in ("A small day: qmgr, seed 1", "Delivered at, and after", "news: all out by 10:00:00"):
            self.assertIn(words, done.stdout)
        self.assertEqual(done.stdout, self.run_command(str(self.scenario)).stdout)

    def test_json_and_seed(self) -> None:
        """One object, with the seed of the command line."""
        found = json.loads(self.run_command(str(self.scenario), "--json", "--seed", "7").stdout)
        self.assertEqual(found["seed"], 7)
        self.assertEqual(found["classes"][0]["delivered"], 60)
        self.assertTrue(found["answers"][0]["yes"])

    def test_csv(self) -> None:
        """Three files that agree with the figures."""
        for every in ("0", "60"):
            folder = self.folder / every
            self.run_command(str(self.scenario), "--csv", str(folder), "--every", every)
            with open(folder / "deliveries.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            sent = sum(int(row["recipients"]) for row in rows if row["status"] == "sent")
            self.assertEqual(sent, 60)
            self.assertEqual({row["class"] for row in rows}, {"news"})
            with open(folder / "queue.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            self.assertGreater(max(int(row["deferred"]) for row in rows), 0)
            self.assertEqual(rows[-1]["deferred"], "0")
            with open(folder / "concurrency.csv", newline="") as file:
                self.assertEqual(next(csv.reader(file)), ["time", "destination", "busy", "window"])

    def test_log(self) -> None:
        """The log has Postfix's lines, at the simulated time."""
        log = self.folder / "mail.log"
        self.run_command(str(self.scenario), "--log", str(log))
        lines = log.read_text().splitlines()
        self.assertEqual(sum("status=sent" in line for line in lines), 60)
        self.assertTrue(lines[0].startswith("Jan  5 09:00:00 simulated postfix/qmgr[1]: "), lines[0])
        self.assertIn("postfix/smtp[1]: ", "".join(lines))

    def test_picture(self) -> None:
        """A picture in both formats, the same each time."""
        if importlib.util.find_spec("matplotlib") is None:
            raise SkipTest("matplotlib is not installed")
        first, second = self.folder / "a.svg", self.folder / "b.svg"
        for path in (first, second):
            self.run_command(str(self.scenario), "--plot", str(path))
        self.assertEqual(first.read_bytes(), second.read_bytes())
        self.assertIn(b"<svg", first.read_bytes())
        self.run_command(str(self.scenario), "--plot", str(self.folder / "c.png"))
        self.assertTrue((self.folder / "c.png").read_bytes().startswith(b"\x89PNG"))

    def test_no_matplotlib(self) -> None:
        """Without it, the message says how to get it, before anything is simulated."""
        code = (
            "import sys; sys.modules['matplotlib'] = None; sys.argv[0] = 'qmqpd-tx'; "
            "from qmqpd_tx.admin.main import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "simulate", str(self.scenario), "--plot", "x.png"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual(done.returncode, 69)
        self.assertIn("pip install 'qmqpd_tx[plot]'", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_mistakes(self) -> None:
        """One line on standard error, and a status that says whose fault it is."""
        self.scenario.write_text(SCENARIO.replace("messages = 30", "messages = -30"))
        done = self.run_command(str(self.scenario), status=78)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("messages = -30", done.stderr)
        self.assertIn("no.toml", self.run_command(str(self.folder / "no.toml"), status=78).stderr)
        self.assertIn(".png", self.run_command(str(self.scenario), "--plot", "x.gif", status=64).stderr)
        self.scenario.write_text(SCENARIO)
        done = self.run_command(str(self.scenario), "--csv", str(self.scenario), status=73)
        self.assertIn(str(self.scenario), done.stderr)
