"""
From the kernel's errors to the store's.

Takes an L{OSError} and what was being done, gives the L{SpoolError} that names the message.
"""

from __future__ import annotations

import errno

from qmqpd_tx.interfaces import (
    InsufficientSpace,
    MessageDamaged,
    MessageNotFound,
    MessageUnfinished,
    SpoolError,
)
from qmqpd_tx.message import QueueID

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ABSENT = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR})


def translated(error: Exception, doing: str, queue_id: QueueID | None) -> SpoolError:
    """
    @param doing: what failed, as in C{move from active to deferred}.
    @param queue_id: the message, or L{None} when it is about the whole queue.
    @return: the error for the caller; a L{SpoolError} is passed on, with the message named.
    """
    subject = doing if queue_id is None else f"{queue_id}: {doing}"
    if isinstance(error, MessageDamaged):
        return MessageDamaged(f"{subject}: {error}", error.offset)
    if isinstance(error, SpoolError):
        return type(error)(f"{subject}: {error}")
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            return InsufficientSpace(f"{subject}: {reason}")
        if error.errno in _ABSENT and queue_id is not None:
            return MessageNotFound(f"{subject}: {reason}")
        return SpoolError(f"{subject}: {reason}")
    return SpoolError(f"{subject}: internal error: {error!r}")


class RecycledFile(MessageUnfinished):
    """
    A queue file that holds another message than its name says: what a power cut can leave of a file that was
    used again. The message of that name was removed already, or was never acknowledged.
    """
