"""
Why a mailbox was not written.

Values only. Whatever the file system says is temporary here: a wrong permission is the operator's
mistake, not the sender's, so the mail waits (Postfix bounces most of these with 5.2.0). Only a mailbox
that is too large is for good, as in Postfix.
"""

from __future__ import annotations

import errno
import os

_CODES = {errno.ENOSPC: "4.3.1", errno.EDQUOT: "4.2.2", errno.EFBIG: "5.2.2"}


class MailboxFailure(Exception):
    """
    A delivery that did not happen; nothing of it is left in the mailbox.

    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    @ivar errno: the system's error number, or 0.
    """

    def __init__(self, dsn: str, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.dsn = dsn
        self.text = text
        self.errno = errno


class MailboxBusy(MailboxFailure):
    """Somebody else has the mailbox locked; try again shortly."""


def from_os_error(error: OSError, doing: str) -> MailboxFailure:
    """
    @param doing: what was being done, as in C{cannot open file}.
    """
    number = error.errno or 0
    return MailboxFailure(_CODES.get(number, "4.2.0"), f"{doing}: {os.strerror(number)}", number)
