"""
Locks on a mailbox file: fcntl, flock, dotlock.

Takes the words of C{mailbox_delivery_lock}, gives an object that tries once to get all of the locks, without
waiting; the caller tries again after C{deliver_lock_delay}. Methods block only for the file system and
run in a thread. A lock file older than C{stale_lock_time} is removed. fcntl locks belong to the process:
the caller makes sure that it does not open one mailbox twice at a time. Answers to Postfix's mbox_open
and dot_lockfile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import frozen

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.transports.local.failure import MailboxBusy, from_os_error

METHODS = ("fcntl", "flock", "dotlock")


@frozen(slots=True)
class LockMethods:
    """
    Which locks to use.

    @ivar methods: out of L{METHODS}.
    @ivar stale_seconds: C{stale_lock_time}: the age at which a lock file counts as left behind.
    @ivar now: the time by the clock of the file system, POSIX seconds.
    """

    methods: Sequence[str]
    stale_seconds: float
    now: Callable[[], float] = time.time

    def lock_name(self, path: str) -> bool:
        """
        Make C{path.lock}, if dotlock is among the methods.

        @return: whether there is a lock file to remove now. Without the right to make one, locks on the
            open file have to do.
        @raise MailboxBusy: there is a lock file that is not stale.
        @raise MailboxFailure: it cannot be made for another reason.
        """
        if "dotlock" not in self.methods:
            return False
        name = path + ".lock"
        for attempt in range(2):
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
                return True
            except FileExistsError:
                if attempt or not self._remove_stale(name):
                    break
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EROFS) and len(self.methods) > 1:
                    return False
                raise from_os_error(error, f"unable to create lock file {name}") from error
        raise MailboxBusy("4.2.0", f"unable to create lock file {name}: File exists", errno.EEXIST)

    def _remove_stale(self, name: str) -> bool:
        try:
            if self.now() - os.lstat(name).st_mtime < self.stale_seconds:
                return False
            os.unlink(name)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    def unlock_name(self, path: str) -> None:
        """
        Remove C{path.lock}, which L{lock_name} made.
        """
        with suppress(FileNotFoundError):
            os.unlink(path + ".lock")

    def lock_file(self, fd: int) -> None:
        """
        Lock an open file; closing it unlocks.

        @raise MailboxBusy: somebody else has it locked.
        """
        for method in self.methods:
            if method == "dotlock":
                continue
            take = fcntl.lockf if method == "fcntl" else fcntl.flock
            try:
                take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                    raise MailboxBusy(
                        "4.2.0", "unable to lock for exclusive access: " + os.strerror(errno.EAGAIN)
                    ) from None
                raise from_os_error(error, "unable to lock for exclusive access") from error


def lock_methods(words: Sequence[str], stale_seconds: float) -> LockMethods:
    """
    @param words: of C{mailbox_delivery_lock}.
    @raise ConfigError: there is an unknown one, or none.
    """
    if not words:
        raise ConfigError(f"mailbox_delivery_lock: empty; name one or more of {', '.join(METHODS)}")
    for word in words:
        if word not in METHODS:
            raise ConfigError(
                f'mailbox_delivery_lock: unknown locking method "{word}"; known are: {", ".join(METHODS)}'
            )
    return LockMethods(tuple(words), stale_seconds)
