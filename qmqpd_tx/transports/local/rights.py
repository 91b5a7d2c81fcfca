"""
The rights of the user whose mailbox is written.

Takes a user and group id, gives a context in which files are opened with that user's rights.

A service without root's rights has only its own, and the context does nothing. A service that runs as root
must not write with root's rights where a user decides what a path leads to (a symbolic link in a home
directory). C{seteuid} would change the rights of all threads at once, and a process for each delivery
is dear. Linux has C{setfsuid(2)}: the rights for file access of one thread only, which also lets go of
root's power over files. Supplementary groups are dropped for the thread by the raw system call, which
(unlike the C library's function) is per thread, too. Where this is not to be had L{RightsUnavailable}
says so, and the mail waits: running the service as the user, or delivering by LMTP, is the remedy.

Answers to Postfix's set_eugid.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "loongarch64": 159, "ppc64le": 81, "s390x": 206}
"""The number of the setgroups system call, by machine."""

_thread = threading.local()
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class RightsUnavailable(Exception):
    """This system cannot lend a user's rights to one thread."""


def _assume(uid: int, gid: int) -> None:
    assert _libc is not None
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))
    nobody = ctypes.c_uint(0xFFFFFFFF)
    if (_libc.setfsuid(nobody), _libc.setfsgid(nobody)) != (uid, gid):
        raise RightsUnavailable(f"cannot take on the file rights of UID/GID={uid}/{gid}")


def _drop_groups() -> None:
    """Let this thread go of supplementary groups, for good: as root it needs none."""
    if getattr(_thread, "groups_dropped", False):
        return
    number = _SETGROUPS.get(platform.machine())
    if _libc is None or number is None:
        raise RightsUnavailable("cannot deliver as root to the files of users on this system")
    if _libc.syscall(number, 0, None) != 0:
        raise RightsUnavailable(f"cannot drop supplementary groups: {os.strerror(ctypes.get_errno())}")
    _thread.groups_dropped = True


def is_root() -> bool:
    """
    @return: whether the service runs with root's rights.
    """
    return os.geteuid() == 0


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """
    Run the body with a user's rights over files. The body must stay in its thread.

    @raise RightsUnavailable: they are not to be had.
    """
    if not is_root() or uid == 0:
        yield
        return
    _drop_groups()
    own_gid = os.getegid()
    try:
        _assume(uid, gid)
        yield
    finally:
        _assume(0, own_gid)
