"""
The recipients of one message: mapped, with those added automatically, without duplicates.

Takes the envelope as the client sends it, sender first; gives recipients to store. What Postfix does,
watched:

  - the original address of a recipient is what the client sent; that of an automatic copy, or of a recipient
    that a mail filter adds, is the address after canonical mapping;
  - the copy for the sender comes before all recipients, that for a recipient right after it, that of
    C{always_bcc} and of BCC actions at the end. Copies are mapped like recipients, but give no copies; nor do
    recipients that a filter adds, while a sender that a filter gives does;
  - duplicates are told by address and original address, in any case; without C{enable_original_recipient}, by
    the address alone. With it, a copy and an ordinary recipient are no duplicates of each other.

Fails with L{TableError<qmqpd_tx.interfaces.TableError>} or L{IntakeError<qmqpd_tx.interfaces.IntakeError>}.
Answers to cleanup(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qmqpd_tx.address.rewrite import CONTROLS
from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.message import QueueID


class Addressee(NamedTuple):
    """
    One recipient to store.

    @ivar address: where to deliver to.
    @ivar original: the address as the client sent it.
    @ivar silent: whether the sender is not to hear of it (an automatic copy).
    """

    address: bytes
    original: bytes
    silent: bool = False


class Addressees:
    """
    Of one message.

    @param maps: what is done to addresses.
    @param queue_id: for the log.
    @param copies: whether there are automatic copies; not of mail made here.
    """

    __slots__ = ("_copies", "_maps", "_queue_id", "_seen")

    def __init__(self, maps: AddressMaps, queue_id: QueueID, copies: bool = True) -> None:
        self._copies = copies
        self._maps = maps
        self._queue_id = queue_id
        self._seen: set[bytes] = set()

    async def of_sender(self, sender: bytes) -> Sequence[Addressee]:
        """
        @param sender: the envelope sender as it is stored.
        @return: who gets a copy because of it.
        """
        table = self._maps.sender_bcc
        if table is None or not sender or not self._copies:
            return ()
        found = await table.value(sender)
        return () if found is None else await self.copy(found.value)

    async def of_recipient(self, address: bytes) -> Sequence[Addressee]:
        """
        @param address: a recipient as the client sent it, in internal form.
        @return: all who get the message because of it, and have not got it yet.
        """
        maps = self._maps
        known = maps.ordinary.get(address)
        if known is not None:
            return self._fresh(known, address, False)
        complete = maps.rewriter.rewrite(address) if address else maps.empty_recipient
        mapped = complete
        quiet = True
        if maps.envelope_recipient:
            mapped = await maps.envelope_recipient.apply(complete, self._queue_id)
            quiet = maps.envelope_recipient.known(complete) is not None
        expanded = await self._expand(mapped)
        found = None
        if maps.recipient_bcc is not None and self._copies:
            found = await maps.recipient_bcc.value(mapped)
        if found is None:
            if self._copies and quiet:
                maps.ordinary.add(address, expanded)
            return self._fresh(expanded, address, False)
        return [*self._fresh(expanded, address, False), *await self.copy(found.value)]

    async def added(self, address: bytes) -> Sequence[Addressee]:
        """
        @param address: a recipient that a mail filter adds, in internal form.
        @return: all who get the message because of it: as for a copy, but the sender hears of them.
        """
        return [one._replace(silent=False) for one in await self.copy(address)]

    async def copies(self, actions: Sequence[bytes] = ()) -> Sequence[Addressee]:
        """
        @param actions: the addresses of BCC actions, as the operator wrote them.
        @return: who gets a copy because of C{always_bcc} and these.
        """
        always = self._maps.always_bcc if self._copies else b""
        if not always and not actions:
            return ()
        return [one for address in (always, *actions) if address for one in await self.copy(address)]

    async def copy(self, address: bytes) -> Sequence[Addressee]:
        """
        @param address: who gets a copy, as the operator wrote it.
        @return: whom that means, but for those who get one already.
        """
        maps = self._maps
        # An action may have taken it from the message.
        complete = maps.rewriter.rewrite(CONTROLS.sub(b" ", address))
        mapped = await maps.envelope_recipient.apply(complete, self._queue_id)
        return self._fresh(await self._expand(mapped), mapped, True)

    async def _expand(self, address: bytes) -> Sequence[bytes]:
        aliases = self._maps.aliases
        return (address,) if aliases is None else await aliases.expand(address, self._queue_id)

    def _fresh(self, addresses: Sequence[bytes], original: bytes, silent: bool) -> Sequence[Addressee]:
        maps = self._maps
        seen = self._seen
        fresh: list[Addressee] = []
        for address in addresses:
            key = address
            if maps.keep_original:
                # No address holds a NUL: the parts cannot be mistaken for each other.
                key += (b"\0silent\0" if silent else b"\0") + original
            key = key.lower()
            if key in seen:
                continue
            if not maps.duplicate_limit or len(seen) < maps.duplicate_limit:
                seen.add(key)
            fresh.append(Addressee(address, original, silent))
        return fresh
