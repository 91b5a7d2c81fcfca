"""
Addresses in the headers of one message, looked up where that takes more than making them complete.

Takes the name and value of a header; gives the value with the mapped addresses, at once or later. When a
look-up has to wait, the further headers go through a gate, L{AT_ONCE} of them at a time: a message of
thousands of headers must not keep a server of tables to itself. Fails with
L{TableError<qmqpd_tx.interfaces.TableError>}. Answers to canonical(5), masquerade and header rewriting in
cleanup(8).
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred, DeferredSemaphore, fail

from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.eager import now_or_later
from qmqpd_tx.message import QueueID

AT_ONCE = 20
"""For how many headers of one message addresses are looked up at a time, where that takes time."""


class HeaderMapper:
    """
    For one message.

    @param maps: what is done to addresses.
    @param verdict: whether the message is still taken.
    @param queue_id: the message.
    """

    __slots__ = ("_gate", "_maps", "_queue_id", "_verdict")

    def __init__(self, maps: AddressMaps, verdict: Verdict, queue_id: QueueID) -> None:
        self._maps = maps
        self._verdict = verdict
        self._queue_id = queue_id
        # Through which further headers go, once one had to wait.
        self._gate: DeferredSemaphore | None = None

    def map(self, name: bytes, value: bytes) -> bytes | Deferred[bytes | None] | None:
        """
        @param name: of the header.
        @param value: what follows the colon.
        @return: the value with mapped addresses; L{None} if it may stay.
        """
        gate = self._gate
        if gate is not None:
            return gate.run(self._look_up, name, value)
        try:
            mapped = now_or_later(self._maps.header(name, value, self._queue_id))
        except Exception:
            # For whoever waits for this header: others before it may be waited for, too.
            return fail()
        if isinstance(mapped, Deferred):
            self._gate = DeferredSemaphore(AT_ONCE)
        return mapped

    async def _look_up(self, name: bytes, value: bytes) -> bytes | None:
        """
        A header whose turn has come. That of a message that is not taken any more is of no interest.
        """
        return None if self._verdict.over else await self._maps.header(name, value, self._queue_id)


async def joined(pieces: list[bytes | Deferred[bytes]]) -> bytes:
    """
    @param pieces: parts of a header section, some of which may have to be waited for.
    @return: all of them.
    @raise TableError: a part cannot be made.
    """
    try:
        # Nearly always there is nothing to wait for.
        return b"".join(cast(list[bytes], pieces))
    except TypeError:
        pass
    whole: list[bytes] = []
    for index, piece in enumerate(pieces):
        if isinstance(piece, Deferred):
            try:
                piece = await piece
            except BaseException:
                # The first failure says enough.
                for other in pieces[index + 1 :]:
                    if isinstance(other, Deferred):
                        other.addErrback(lambda _: b"")
                raise
        whole.append(piece)
    return b"".join(whole)
