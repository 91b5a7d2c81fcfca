"""
Makes names durable: a new file survives a power cut only when its directory was synced, too.
"""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """
    Sync a directory. One that may be written but not read (a shared spool with mode 1733) is left to the
    file system's own care.

    @raise OSError: it cannot be synced.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
