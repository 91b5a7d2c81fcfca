"""
What is shipped: the wheel, installed in a fresh environment, gives C{twistd} its C{qmqp}.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "qmqpd_tx", "twisted")


def run(*command: str | Path, cwd: Path) -> str:
    """
    Run a command that knows nothing of this checkout.

    @return: its output.
    @raise AssertionError: it failed.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout}")
    return done.stdout


class WheelTests(SynchronousTestCase):
    """One wheel, built from a copy of what is shipped."""

    def setUp(self) -> None:
        self.scratch = Path(self.mktemp()).absolute()
        source = self.scratch / "source"
        source.mkdir(parents=True)
        for name in SHIPPED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / name, source / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source / name)
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
        run(*pip, "--wheel-dir", self.scratch, source, cwd=self.scratch)
        (self.wheel,) = self.scratch.glob("*.whl")

    def environment(self) -> Path:
        """
        @return: the folder of programs of a fresh environment with the wheel in it. The dependencies are seen
            where they are installed for this test run; not this checkout, though, even if it is installed.
        """
        folder = self.scratch / "fresh"
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=self.scratch)
        programs = folder / "bin"
        run(
            *(sys.executable, "-m", "pip", "--python", programs / "python"),
            *("install", "--quiet", "--no-deps", "--no-index", self.wheel),
            cwd=self.scratch,
        )
        (site,) = folder.glob("lib/python*/site-packages")
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        # Lines of a .pth file are paths; .pth files in those folders are not looked at.
        (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(paths)))
        return programs

    def test_installed(self) -> None:
        """
        In a fresh environment, twistd lists qmqp and shows its options, and the command is there.
        """
        programs = self.environment()
        python = programs / "python"
        place = run(python, "-c", "import qmqpd_tx; print(qmqpd_tx.__file__)", cwd=self.scratch)
        self.assertIn(str(self.scratch / "fresh"), place)
        twistd = (python, "-c", "from twisted.scripts.twistd import run; run()")
        listed = run(*twistd, "--help", cwd=self.scratch)
        self.assertRegex(listed, r"(?m)^\s+qmqp\s+A mail queue for people who send")
        self.assertIn("--listen", run(*twistd, "qmqp", "--help", cwd=self.scratch))
        self.assertIn("postqueue", run(programs / "qmqpd-tx", "--help", cwd=self.scratch))

    def test_content(self) -> None:
        """
        The wheel holds every module, the mark of a typed package, the plugin, and nothing else of twisted's.
        """
        with zipfile.ZipFile(self.wheel) as wheel:
            names = set(wheel.namelist())
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "qmqpd_tx").rglob("*.py")}
        self.assertEqual(modules - names, set())
        self.assertIn("qmqpd_tx/py.typed", names)
        foreign = {name for name in names if name.startswith("twisted/")}
        self.assertEqual(foreign, {"twisted/plugins/qmqpd_tx_plugin.py"})
        self.assertFalse([name for name in names if name.startswith(("tests", "benchmarks", "docs"))])
