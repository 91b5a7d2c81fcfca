"""
What a client is told when its message cannot be stored. Pure.

Takes failures of the queue store; gives L{IntakeError<qmqpd_tx.interfaces.IntakeError>}s with Postfix's
texts. Answers to cleanup(8)'s completion codes, as qmqpd(8) words them.
"""

from __future__ import annotations

from qmqpd_tx.interfaces import CommitAbandoned, InsufficientSpace, IntakeError

NO_SPACE = ("4.3.1", "Error: insufficient system storage")
NOT_WRITTEN = ("4.3.0", "Error: queue file write error")
ABANDONED = ("4.3.0", "Error: the message was given up before it was safe on disk")


def intake_error(error: BaseException | None) -> IntakeError:
    """
    @return: what a client is told about a failure of the queue store.
    """
    if isinstance(error, IntakeError):
        return error
    if isinstance(error, InsufficientSpace):
        return IntakeError(False, *NO_SPACE)
    if isinstance(error, CommitAbandoned):
        return IntakeError(False, *ABANDONED)
    return IntakeError(False, *NOT_WRITTEN)
