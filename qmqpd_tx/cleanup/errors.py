"""
What a client is told when its message cannot be stored, and the log when a table cannot say. Pure but for the
log.

Takes failures of the queue store and of tables; gives L{IntakeError<qmqpd_tx.interfaces.IntakeError>}s with
Postfix's texts. Answers to cleanup(8)'s completion codes, as qmqpd(8) words them.

Who asks a table does not log that it cannot say: of one message many addresses may be asked for, and the
first failure says enough. It is logged by whoever gives the message up, with L{tell}.
"""

from __future__ import annotations

import re

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import CommitAbandoned, InsufficientSpace, IntakeError, TableError
from qmqpd_tx.message import QueueID

log = Logger(namespace="qmqpd_tx.cleanup")

NO_SPACE = ("4.3.1", "Error: insufficient system storage")
NOT_WRITTEN = ("4.3.0", "Error: queue file write error")
ABANDONED = ("4.3.0", "Error: the message was given up before it was safe on disk")

_UNPRINTABLE = re.compile(rb"[^ -~]")


def printable(text: bytes) -> str:
    """
    @return: what the operator or a mail filter has to say, fit for an L{IntakeError}.
    """
    return _UNPRINTABLE.sub(b"?", text).decode("ascii")


class MapError(TableError):
    """
    The tables of a parameter cannot say what becomes of an address.

    @ivar parameter: its name.
    @ivar address: what was looked up, for the log; C{b""}: that is of no account.
    """

    def __init__(self, reason: str, parameter: str, address: bytes = b"") -> None:
        super().__init__(reason)
        self.parameter = parameter
        self.address = address


def tell(error: TableError, queue_id: QueueID) -> None:
    """
    Log why a message is not taken.
    """
    log.warn("{queue_id}: {reason}", queue_id=queue_id, reason=str(error))
    if isinstance(error, MapError):
        text = "{queue_id}: {parameter} map lookup problem"
        if error.address:
            text += " for {address}"
        log.warn(
            text + " -- message not accepted, try again later",
            queue_id=queue_id,
            parameter=error.parameter,
            address=error.address,
        )


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
