"""
A message that mail filters see: what they ask of cleanup.

Takes the writer of a message; gives one that asks the filters first, with what they need for their changes: a
sender or recipient that they give is completed, mapped and expanded like the client's, and a header that they
give is checked. Fails as L{qmqpd_tx.cleanup.milters}. Answers to C{milter_header_checks} and to cleanup(8).
"""

from __future__ import annotations

from collections.abc import Sequence

from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.milters import MilterStage
from qmqpd_tx.cleanup.recipients import Addressee, Addressees
from qmqpd_tx.cleanup.remarks import Remarks
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.interfaces import IMessageWriter
from qmqpd_tx.message import ClientInfo, QueueID
from qmqpd_tx.milter import by_address, by_everything


class Changes:
    """
    What filters' changes to the envelope mean.

    @param maps: what is done to addresses.
    @param queue_id: the message.
    @param copies: whether there are automatic copies; not of mail made here.
    """

    __slots__ = ("_automatic", "_maps", "_queue_id")

    def __init__(self, maps: AddressMaps, queue_id: QueueID, copies: bool) -> None:
        self._maps = maps
        self._queue_id = queue_id
        self._automatic = copies

    async def sender(self, address: bytes) -> bytes:
        """
        @param address: a sender that a filter gives.
        @return: as it is stored.
        """
        return await self._maps.sender(address, self._queue_id)

    async def copies(self, sender: bytes) -> Sequence[Addressee]:
        """
        @param sender: the same, as it is stored.
        @return: who gets a copy because of it.
        """
        return await self._addressees().of_sender(sender)

    async def added(self, address: bytes) -> Sequence[Addressee]:
        """
        @param address: a recipient that a filter adds.
        @return: whom it means.
        """
        return await self._addressees().added(address)

    def _addressees(self) -> Addressees:
        # Not those of the message: a filter may have taken away what these remember.
        return Addressees(self._maps, self._queue_id, self._automatic)


def filtered(
    writer: IMessageWriter,
    settings: Settings,
    maps: AddressMaps,
    queue_id: QueueID,
    client: ClientInfo | None,
) -> tuple[MilterStage, Remarks | None]:
    """
    @param writer: the real writer of the message.
    @param settings: what the configuration says.
    @param maps: what is done to addresses.
    @param queue_id: the message.
    @param client: who brought it; L{None} for mail made here.
    @return: a writer that asks mail filters first, and what there will be to log of their headers.
    """
    # Their headers are checked on their own: what was decided of the message itself stays.
    verdict = Verdict()
    inspector = None
    if settings.checks.milter is not None:
        inspector = Inspector(settings.checks, verdict, queue_id, client)
    changes = Changes(maps, queue_id, copies=client is not None)
    stage = settings.milters.stage(
        writer,
        client=client,
        complete=changes.sender,
        copies=changes.copies,
        expand=changes.added,
        check=None if inspector is None else inspector.milter_header,
        verdict=verdict,
        key=by_everything if maps.keep_original else by_address,
    )
    return stage, None if inspector is None else inspector.remarks
