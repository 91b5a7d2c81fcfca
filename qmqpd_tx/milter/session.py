"""
A message goes through all filters: which event comes when, and to whom.

Takes a message, as L{FilteredMessage}; gives a L{Verdict<qmqpd_tx.milter.filter.Verdict>}, or L{None} when
the message is to be taken as it is now. Filters are asked one after the other about each event of the
envelope; then each gets the whole content, as those before it have left it. The first that decides about the
message ends it. Holds one piece of the body at a time. Never raises for what filters do. Answers to
cleanup(8) and its milter client, watched: mail that did not come by SMTP looks as if it came by SMTP, without
a port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol as TypingProtocol

from attrs import evolve, frozen

from qmqpd_tx.message import QueueID
from qmqpd_tx.milter import protocol
from qmqpd_tx.milter.filter import Connect, Filter, State, Verdict
from qmqpd_tx.milter.protocol import BODY_CHUNK, Event
from qmqpd_tx.milter.replies import Change
from qmqpd_tx.milter.settings import MilterSettings


@frozen(slots=True)
class Visitor:
    """
    Who brought the message, as filters are told.

    @ivar name: the host name, C{unknown} if it is not known.
    @ivar address: the network address as text.
    """

    name: bytes = b"localhost"
    address: bytes = b"127.0.0.1"


class FilteredMessage(TypingProtocol):
    """
    A message that filters may look at and change.

    @ivar queue_id: its name.
    """

    queue_id: QueueID

    def shown_sender(self) -> bytes:
        """
        @return: the sender in external form, without angle brackets.
        """

    def shown_recipients(self) -> AsyncIterator[bytes]:
        """
        @return: the recipients, likewise.
        """

    def shown_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """
        @return: name and value of each header; the value with all white space, but without the last line end.
        """

    def body(self) -> AsyncIterator[bytes]:
        """
        @return: the body in pieces of any size; lines end in LF.
        """

    async def apply(self, change: Change, leading_space: bool, filter_name: str) -> Verdict | None:
        """
        Change the message.

        @param leading_space: whether header values come with the white space before them.
        @return: a verdict when that decides about the message.
        """

    def finished(self, properly: bool) -> None:
        """
        One filter is done with the message.

        @param properly: whether it came to its end; what it has begun to give otherwise is worth nothing.
        """


class MilterSession:
    """
    One message's way through the filters.

    @param settings: which filters, and what they are told.
    @param connect: opens a connection to a filter.
    @param visitor: who brought the message.
    @param message: the message.
    """

    __slots__ = ("_filters", "_macros", "_message", "_over", "_visitor")

    def __init__(
        self, settings: MilterSettings, connect: Connect, visitor: Visitor, message: FilteredMessage
    ) -> None:
        self._message = message
        self._over = False
        self._visitor = visitor
        self._filters = [Filter(own, settings, connect, message.queue_id) for own in settings.filters]
        self._macros = {
            **settings.values,
            b"_": b"%b [%b]" % (visitor.name, visitor.address),
            b"i": message.queue_id.encode(),
            b"{client_addr}": visitor.address,
            b"{client_name}": visitor.name,
            b"{client_ptr}": visitor.name,
        }

    async def run(self) -> Verdict | None:
        """
        Ask all filters about everything.

        @return: what the first of them that decides has decided.
        """
        try:
            verdict = await self._envelope()
            for each in self._filters:
                if verdict is None and each.state is State.TALKING and not self._over:
                    verdict = await self._content(each)
            return verdict
        finally:
            self.end()

    def end(self) -> None:
        """
        Leave all filters. Safe to call twice, and at any time: L{run} then comes to an end.
        """
        # The one that is waited for may fail at once, and then the others are not to be asked.
        self._over = True
        for each in self._filters:
            each.end()

    # --- events ---------------------------------------------------------------------------------------

    async def _envelope(self) -> Verdict | None:
        visitor, message = self._visitor, self._message
        where = protocol.connect_data(visitor.name, visitor.address)
        for each in self._filters:
            if self._over:
                return None
            verdict = await each.open()
            if verdict is None:
                verdict = await self._one(each, Event.CONNECT, where)
            if verdict is not None:
                return evolve(verdict, event=Event.CONNECT)
        verdict = await self._all(Event.HELO, protocol.strings(visitor.name))
        if verdict is not None:
            return verdict
        sender = message.shown_sender()
        self._macros[b"{mail_addr}"] = sender
        verdict = await self._all(Event.MAIL, protocol.strings(sender))
        if verdict is not None:
            return verdict
        async for recipient in message.shown_recipients():
            self._macros[b"{rcpt_addr}"] = recipient
            verdict = await self._all(Event.RCPT, protocol.strings(recipient))
            if verdict is not None:
                return verdict
        return await self._all(Event.DATA, b"")

    async def _all(self, event: Event, data: bytes) -> Verdict | None:
        for each in self._filters:
            verdict = await self._one(each, event, data)
            if verdict is not None:
                return verdict
        return None

    async def _one(self, each: Filter, event: Event, data: bytes) -> Verdict | None:
        if self._over or not each.wants(event):
            return None
        verdict = await each.tell(event, data, self._macros)
        return None if verdict is None else evolve(verdict, event=event)

    async def _content(self, each: Filter) -> Verdict | None:
        message = self._message
        if each.wants(Event.HEADER):
            spaced = each.leading_space
            for name, value in message.shown_headers():
                if not spaced and value.startswith(b" "):
                    value = value[1:]
                verdict = await self._one(each, Event.HEADER, protocol.strings(name, value))
                if verdict is not None or each.state is not State.TALKING:
                    return verdict
                if each.skipping:
                    break
        verdict = await self._one(each, Event.END_OF_HEADERS, b"")
        each.skipping = False
        if verdict is None and each.wants(Event.BODY):
            verdict = await self._body(each)
        if verdict is None and each.wants(Event.END_OF_MESSAGE) and not self._over:

            async def apply(change: Change) -> Verdict | None:
                return await message.apply(change, each.leading_space, each.name)

            verdict = await each.tell(Event.END_OF_MESSAGE, b"", self._macros, apply)
            message.finished(each.state is not State.OVER)
        return None if verdict is None else evolve(verdict, event=Event.END_OF_MESSAGE)

    async def _body(self, each: Filter) -> Verdict | None:
        waiting = bytearray()
        async for piece in self._message.body():
            waiting += piece.replace(b"\n", b"\r\n")
            while len(waiting) >= BODY_CHUNK:
                chunk = bytes(waiting[:BODY_CHUNK])
                del waiting[:BODY_CHUNK]
                verdict = await self._one(each, Event.BODY, chunk)
                if verdict is not None or each.skipping or each.state is not State.TALKING:
                    return verdict
        return await self._one(each, Event.BODY, bytes(waiting)) if waiting else None
