"""
Optional libraries that tests need.
"""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {"berkeleydb": "berkeley", "lmdb": "lmdb", "pcre2": "pcre", "psycopg": "pgsql"}
"""The extra of setup.cfg that brings each."""


def missing(*names: str) -> str | None:
    """
    @return: for a module's or class's C{skip}: why its tests cannot run; L{None} if they can.
    """
    for name in names:
        if find_spec(name) is None:
            return f"{name} is not installed: pip install qmqpd_tx[{EXTRAS[name]}]"
    return None
