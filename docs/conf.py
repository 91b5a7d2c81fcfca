"""
Sphinx's configuration. The page of parameters is generated from the parameter table at each build.
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

reference = subprocess.run(
    [sys.executable, "-m", "qmqpd_tx.config.reference"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
)
if reference.returncode:
    raise RuntimeError(f"the page of parameters cannot be made: {reference.stderr}")
target = HERE / "parameters.rst"
if not target.exists() or target.read_text("utf-8") != reference.stdout:
    target.write_text(reference.stdout, "utf-8")
