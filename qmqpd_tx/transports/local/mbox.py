"""
One delivery into a mailbox file (mbox).

Takes a path and the user whose it is; then, each in a thread: L{MboxDelivery.begin},
L{MboxDelivery.write} any number of times, and L{MboxDelivery.commit} or L{MboxDelivery.abort}. The
message is on disk when C{commit} returns. C{abort}, and any failure in C{commit}, truncates the file to
its old length. A crash between may leave part of a message at the end, which the next attempt follows
with the whole one (the queue file is still there).

A mailbox file must be a regular file with one name, not a symbolic link, and belong to the user
(C{strict_mailbox_ownership}). Files are opened with the user's rights; in a mail spool directory that
only root may write, a missing mailbox is made by root and given to the user. Answers to Postfix's
mailbox delivery (local(8)).
"""

from __future__ import annotations

import errno
import os
import stat

from qmqpd_tx.transports.local.durable import sync_directory
from qmqpd_tx.transports.local.failure import MailboxBusy, MailboxFailure, from_os_error
from qmqpd_tx.transports.local.locking import LockMethods
from qmqpd_tx.transports.local.rights import as_user, is_root
from qmqpd_tx.transports.local.users import User

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


class FromQuoter:
    """
    Puts C{>} before each line that begins with C{From }, in any chunking, but for the very first line.
    """

    __slots__ = ("_held", "_last")

    def __init__(self) -> None:
        self._held = b""
        self._last = b"\n"

    def feed(self, data: bytes) -> bytes:
        """
        @return: what can be written now.
        """
        data = (self._held + data).replace(b"\nFrom ", b"\n>From ")
        start = data.rfind(b"\n", -5)
        if start != -1 and b"\nFrom ".startswith(data[start:]):
            self._held = data[start:]
            data = data[:start]
        else:
            self._held = b""
        if data:
            self._last = data[-1:]
        return data

    def finish(self) -> bytes:
        """
        @return: the end of the message: its last line end when it has none, and an empty line.
        """
        held, self._held = self._held, b""
        last = held[-1:] or self._last
        return held + (b"\n" if last == b"\n" else b"\n\n")


class MboxDelivery:
    """
    @param path: the mailbox file.
    @param user: whose it is.
    @param locks: how to lock it.
    @param size_limit: C{mailbox_size_limit} in bytes, 0 for none.
    @param strict: C{strict_mailbox_ownership}.
    @param spool: whether the file is in C{mail_spool_directory}, where root may make it.
    """

    done = "delivered to mailbox"

    def __init__(
        self, path: str, user: User, locks: LockMethods, size_limit: int, strict: bool, spool: bool
    ) -> None:
        self.path = path
        self._user = user
        self._locks = locks
        self._size_limit = size_limit
        self._strict = strict
        self._spool = spool
        self._fd = -1
        self._named = False
        self._old_size = 0
        self._size = 0
        self._join = b""
        self._quoter = FromQuoter()

    def begin(self) -> None:
        """
        Lock and open the mailbox.

        @raise MailboxBusy: it is locked.
        @raise MailboxFailure: it cannot be had.
        """
        self._quoter, self._join = FromQuoter(), b""
        try:
            with as_user(self._user.uid, self._user.gid):
                self._named = self._locks.lock_name(self.path)
            self._fd = self._open_or_make()
            self._check(os.fstat(self._fd))
            self._locks.lock_file(self._fd)
            # Whoever held the lock may have put another file in its place.
            now, named = os.fstat(self._fd), os.stat(self.path, follow_symlinks=False)
            if (now.st_dev, now.st_ino) != (named.st_dev, named.st_ino):
                raise MailboxBusy("4.2.0", "the mailbox was replaced")
            self._old_size = self._size = now.st_size
            if now.st_size and os.pread(self._fd, 1, now.st_size - 1) != b"\n":
                # A crash left part of a message; the next one must begin on a line of its own.
                self._join = b"\n\n"
        except OSError as error:
            self._release()
            raise self._told(from_os_error(error, "cannot open file")) from error
        except MailboxFailure as failure:
            self._release()
            raise self._told(failure) from failure
        except BaseException:
            self._release()
            raise

    def _told(self, failure: MailboxFailure) -> MailboxFailure:
        text = f"cannot update mailbox {self.path} for user {self._user.name}. {failure.text}"
        return type(failure)(failure.dsn, text, failure.errno)

    def _open_or_make(self) -> int:
        try:
            with as_user(self._user.uid, self._user.gid):
                try:
                    return os.open(self.path, _FLAGS)
                except FileNotFoundError:
                    fd = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except PermissionError:
            fd = self._make_as_root()
        # The new name must survive a crash as well as the content.
        sync_directory(os.path.dirname(self.path))
        return fd

    def _make_as_root(self) -> int:
        """
        Make the mailbox in a spool directory that users may not write. O_EXCL makes sure that nothing
        that a user has put there is touched.
        """
        if not (self._spool and is_root() and os.stat(os.path.dirname(self.path)).st_uid == 0):
            raise PermissionError(errno.EACCES, "no right to open or make the mailbox")
        try:
            fd = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise PermissionError(errno.EACCES, "the mailbox is somebody else's") from None
        os.fchown(fd, self._user.uid, self._user.gid)
        return fd

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise MailboxFailure("4.2.0", "destination is not a regular file")
        if status.st_nlink != 1:
            raise MailboxFailure("4.2.0", "destination has more than one name (hard links)")
        if self._strict and status.st_uid != self._user.uid:
            raise MailboxFailure("4.2.0", f"destination {self.path} is not owned by recipient")

    def write(self, data: bytes) -> None:
        """
        @raise MailboxFailure: it cannot be written.
        """
        join, self._join = self._join, b""
        self._append(join + self._quoter.feed(data))

    def _append(self, data: bytes) -> None:
        self._size += len(data)
        if self._size_limit and self._size > self._size_limit:
            raise self._told(MailboxFailure("5.2.2", "error writing message: File too large", errno.EFBIG))
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._told(from_os_error(error, "error writing message")) from error

    def commit(self) -> None:
        """
        Make the message durable and let go of the mailbox.

        @raise MailboxFailure: it is not durable; the mailbox is as it was.
        """
        try:
            self._append(self._quoter.finish())
            os.fsync(self._fd)
        except OSError as error:
            self.abort()
            raise self._told(from_os_error(error, "error writing message")) from error
        except MailboxFailure:
            self.abort()
            raise
        self._release()

    def abort(self) -> None:
        """
        Put the mailbox back as it was and let go of it. Does nothing when it was let go of before.
        """
        if self._fd != -1:
            try:
                os.ftruncate(self._fd, self._old_size)
                os.fsync(self._fd)
            except OSError:
                pass  # The queue file stays, so the worst is a partial message before a whole one.
        self._release()

    def _release(self) -> None:
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1
        if self._named:
            self._named = False
            try:
                with as_user(self._user.uid, self._user.gid):
                    self._locks.unlock_name(self.path)
            except OSError:
                pass  # It counts as left behind after stale_lock_time.
