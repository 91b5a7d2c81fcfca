"""
One delivery into a Maildir.

Takes the path of a Maildir and the user whose it is; then, each in a thread: L{MaildirDelivery.begin},
L{MaildirDelivery.write} any number of times, and L{MaildirDelivery.commit} or L{MaildirDelivery.abort}.
The message is written to C{tmp}, synced, and linked into C{new} under a name that is made from time,
device, file number and host, so that it is unique and nothing is overwritten; then the directory is
synced. The message is on disk, under its final name, when C{commit} returns. A crash before leaves at
most a file in C{tmp}, which readers remove after 36 hours. Missing directories are made with mode 0700,
files have mode 0600. No locks are needed. All with the user's rights; a Maildir in a mail spool directory
must be a directory of the user's, not a symbolic link.

Answers to Postfix's maildir delivery (local(8)) and to maildir(5).
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
import time
from collections.abc import Callable

from qmqpd_tx.transports.local.durable import sync_directory
from qmqpd_tx.transports.local.failure import MailboxFailure, from_os_error
from qmqpd_tx.transports.local.rights import as_user
from qmqpd_tx.transports.local.users import User

_FOLDERS = ("tmp", "new", "cur")
_serial = itertools.count()


def _host_name() -> str:
    """The host part of file names; maildir(5) says how to write the two characters that cannot be in it."""
    return socket.gethostname().replace("/", "\\057").replace(":", "\\072")


class MaildirDelivery:
    """
    @param path: the Maildir, ending in C{/}.
    @param user: whose it is.
    @param size_limit: C{mailbox_size_limit} in bytes, which for a Maildir limits each file; 0 for none.
    @param spool: whether the Maildir is in C{mail_spool_directory}.
    @param now: the time for file names, POSIX seconds.
    """

    done = "delivered to maildir"

    def __init__(
        self, path: str, user: User, size_limit: int, spool: bool, now: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._user = user
        self._size_limit = size_limit
        self._spool = spool
        self._now = now
        self._temporary = ""
        self._fd = -1
        self._size = 0
        self._last = b"\n"

    def begin(self) -> None:
        """
        Open a file in C{tmp}, making the Maildir when it is missing.

        @raise MailboxFailure: it cannot be had.
        """
        name = f"{int(self._now())}.P{os.getpid()}Q{next(_serial)}.{_host_name()}"
        temporary = f"{self.path}tmp/{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with as_user(self._user.uid, self._user.gid):
                try:
                    self._check()
                    self._fd = os.open(temporary, flags, 0o600)
                except FileNotFoundError:
                    for folder in _FOLDERS:
                        _make(self.path + folder)
                    self._check()
                    self._fd = os.open(temporary, flags, 0o600)
                self._temporary = temporary
        except OSError as error:
            raise _told(from_os_error(error, f"create maildir file {temporary}")) from error

    def _check(self) -> None:
        """In a directory that all may write, somebody may have made the Maildir of somebody else."""
        if not self._spool:
            return
        status = os.stat(self.path.rstrip("/"), follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != self._user.uid:
            raise MailboxFailure(
                "4.2.0", f"maildir delivery failed: {self.path} is not a directory of the recipient's"
            )

    def write(self, data: bytes) -> None:
        """
        @raise MailboxFailure: it cannot be written.
        """
        self._size += len(data)
        if self._size_limit and self._size > self._size_limit:
            raise MailboxFailure(
                "5.2.2", "maildir delivery failed: error writing message: File too large", errno.EFBIG
            )
        if data:
            self._last = data[-1:]
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _told(from_os_error(error, "error writing message")) from error

    def commit(self) -> None:
        """
        Make the message durable in C{new}.

        @raise MailboxFailure: it is not there.
        """
        if self._last != b"\n":
            self.write(b"\n")
        try:
            os.fsync(self._fd)
            status = os.fstat(self._fd)
            now = self._now()
            name = (
                f"{self.path}new/{int(now)}.V{status.st_dev:x}I{status.st_ino:x}"
                f"M{int(now % 1 * 1_000_000)}.{_host_name()}"
            )
            with as_user(self._user.uid, self._user.gid):
                os.link(self._temporary, name)
                sync_directory(f"{self.path}new")
        except OSError as error:
            self.abort()
            raise _told(from_os_error(error, "create maildir file")) from error
        self._release()

    def abort(self) -> None:
        """
        Remove what was written. Does nothing after C{commit}.
        """
        self._release()

    def _release(self) -> None:
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1
        if self._temporary:
            temporary, self._temporary = self._temporary, ""
            try:
                with as_user(self._user.uid, self._user.gid):
                    os.unlink(temporary)
            except OSError:
                pass  # Maildir readers sweep tmp.


def _told(failure: MailboxFailure) -> MailboxFailure:
    return MailboxFailure(failure.dsn, f"maildir delivery failed: {failure.text}", failure.errno)


def _make(path: str) -> None:
    """Make a directory with its parents, all with mode 0700."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    sync_directory(parent)
