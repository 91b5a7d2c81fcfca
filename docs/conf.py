"""
Sphinx's configuration. The pages of parameters are generated at each build, from the parameter table and
from the tests.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

project = "qmqpd_tx"
author = "The qmqpd_tx maintainers"
copyright = "2026, The qmqpd_tx maintainers"
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A mail queue for people who send", "fixed_sidebar": True}
highlight_language = "text"
nitpicky = True


def generate(module: str, page: str) -> None:
    """Write what a module prints to a page, if that has changed."""
    printed = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if printed.returncode:
        raise RuntimeError(f"{page} cannot be made: {printed.stderr}")
    target = HERE / page
    if not target.exists() or target.read_text("utf-8") != printed.stdout:
        target.write_text(printed.stdout, "utf-8")


generate("qmqpd_tx.config.reference", "parameters.rst")
generate("tests.config.manual", "intake-parameters.rst")
