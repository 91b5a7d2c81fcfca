"""
Hands a message over again, as if it had just come: C{postsuper -r}.

Takes an open message; gives what is left of it to cleanup, under a new queue id and with a new time of
arrival: the recipients that are not done, by the addresses that the client sent, so that they are rewritten
by today's rules; automatic copies as such, and no new ones but for BCC actions; sender and VERP delimiters as
they are. The caller removes the old message when the new one is safe. A crash in between leaves both:
recipients may get it twice, and nobody goes without. Answers to postsuper(1) and pickup(8).

A failure is an L{IntakeError<qmqpd_tx.interfaces.IntakeError>} or a
L{SpoolError<qmqpd_tx.interfaces.SpoolError>}, and then nothing new is in the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmqpd_tx.eager import ready
from qmqpd_tx.interfaces import ICleanup, IIncomingMessage, IStoredMessage, SpoolError, Treatment
from qmqpd_tx.message import SMTPUTF8, QueueID, RecipientSlice
from qmqpd_tx.qmgr.job import ActiveQueue

_READ_SIZE: Final = 65536
"""How much content is copied at a time, in bytes."""

_RECIPIENTS: Final = 1000
"""How many recipients are copied at a time."""


class Requeuer:
    """The way back to the beginning."""

    def __init__(
        self, cleanup: ICleanup | None, active: ActiveQueue, content_filter: Callable[[], str]
    ) -> None:
        """
        @param cleanup: takes messages; without it nothing can be requeued.
        @param active: knows who is done although the file does not say so.
        @param content_filter: gives the C{content_filter} of new mail.
        """
        self._content_filter = content_filter
        self._cleanup = cleanup
        self._active = active

    async def requeue(self, message: IStoredMessage) -> QueueID | None:
        """
        @return: the new queue id, or L{None} when there is nobody left to deliver to.
        """
        queue_id: QueueID = message.queue_id
        if self._cleanup is None:
            raise SpoolError(f"{queue_id}: requeue: there is no cleanup service")
        # Mail filters saw it as it came; what they would be told of the client now would not be true.
        treatment = Treatment(
            milters=False,
            content_filter=self._content_filter(),
            about=message.envelope.attributes.get(SMTPUTF8),
        )
        incoming: IIncomingMessage = self._cleanup.begin(None, treatment=treatment)
        try:
            offset = 0
            while data := await message.content.read(offset, _READ_SIZE):
                offset += len(data)
                await ready(incoming.content(data))
            envelope = message.envelope
            await ready(incoming.sender(envelope.sender, envelope.verp_delimiters))
            anybody = False
            position: int | None = None
            while True:
                found: RecipientSlice = await message.recipients(position, _RECIPIENTS)
                # A mark under way may fail meanwhile, and is then remembered there.
                done = self._active.done.get(queue_id, ())
                for recipient in found.recipients:
                    if recipient.position not in done:
                        anybody = True
                        address = recipient.original or recipient.address
                        await ready(incoming.recipient(address, recipient.silent))
                position = found.next_position
                if position is None:
                    break
            if not anybody:
                incoming.abort()
                return None
        except BaseException:
            incoming.abort()
            raise
        new: QueueID = await incoming.finish()
        return new
