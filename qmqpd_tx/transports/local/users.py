"""
Who a local part is.

Takes the local part of a recipient, gives a L{User} or says that there is none. C{passwd} looks in the
system's user database; C{any} takes every local part that is a safe file name for a mailbox of the
service's own user (scratch runs, catch-all stores). A name from the network becomes part of a path
only when it came back from here, and never with a slash or a dot at its front. Look-ups may block
(they run in a thread). Answers to the user database part of local(8).
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable

from attrs import frozen

_SAFE = re.compile(rb"[a-z0-9_][a-z0-9_.+=-]{0,127}")


@frozen(slots=True)
class User:
    """
    A user with a mailbox.

    @ivar name: safe as a file name.
    @ivar uid: whose the mailbox is.
    @ivar gid: the user's group.
    @ivar home: the home directory, or C{""} when there is none.
    """

    name: str
    uid: int
    gid: int
    home: str


UserLookup = Callable[[bytes], User | None]


def passwd_lookup(getpwnam: Callable[[str], pwd.struct_passwd] = pwd.getpwnam) -> UserLookup:
    """
    @param getpwnam: as L{pwd.getpwnam}: raises L{KeyError} for an unknown name.
    @return: a function that gives the system user of a folded local part, or L{None}.
    """

    def look_up(name: bytes) -> User | None:
        if not name or b"/" in name or b"\0" in name or name.startswith(b"."):
            return None
        try:
            entry = getpwnam(os.fsdecode(name))
        except (KeyError, ValueError):
            return None
        if not entry.pw_name or "/" in entry.pw_name or entry.pw_name.startswith("."):
            return None
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)

    return look_up


def any_user(name: bytes) -> User | None:
    """
    @return: a mailbox owner of that name with the rights of the service, when the name is lower case
        letters, digits and C{_.+=-}, begins with a letter, digit or C{_}, and has at most 128 bytes.
    """
    if not _SAFE.fullmatch(name):
        return None
    return User(name.decode("ascii"), os.geteuid(), os.getegid(), "")
