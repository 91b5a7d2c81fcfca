"""
What filters (milters) may do to a message.

Takes their requests, gives a changed L{Draft<qmqpd_tx.milter.Draft>}, sender and log lines; header checks may
write a decision into their L{Verdict<qmqpd_tx.cleanup.verdict.Verdict>}. What makes no sense is logged with
the filter's name and has no effect. Fails with L{TableError<qmqpd_tx.interfaces.TableError>} when an address
cannot be looked up, and C{OSError} when the disk fails. Answers to cleanup(8), watched in a running Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from attrs import define

from qmqpd_tx.address.mailboxes import parse_addresses
from qmqpd_tx.cleanup.recipients import Addressee
from qmqpd_tx.eager import ready
from qmqpd_tx.events import Logger
from qmqpd_tx.message import QueueID
from qmqpd_tx.milter import (
    AddHeader,
    AddRecipient,
    Change,
    ChangeHeader,
    ChangeSender,
    Decision,
    DeleteRecipient,
    Draft,
    InsertHeader,
    ReplaceBody,
    Verdict,
    make_header,
)

log = Logger(namespace="qmqpd_tx.cleanup")

CompleteSender = Callable[[bytes], Awaitable[bytes]]
"""From an address in internal form to the complete and mapped one that a message with this sender has."""

Expand = Callable[[bytes], Awaitable[Sequence[Addressee]]]
"""
From an address in internal form to the recipients that it means, whether or not they are there already; from
a complete and mapped sender to those who get a copy because of it.
"""

CheckHeader = Callable[[bytes], "bytes | None"]
"""
C{milter_header_checks}: takes a header that a filter wants, without its last newline; gives what is to be
stored, or L{None}: nothing. What it decides about the message it writes into a verdict of its own.
"""

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


@define(kw_only=True)
class Changes:
    """
    The changes to one message.

    @ivar queue_id: its name.
    @ivar draft: what is changed.
    @ivar complete: for a sender that a filter gives.
    @ivar copies: for that sender, then.
    @ivar expand: for a recipient that a filter adds.
    @ivar check: looks at headers that filters add or change.
    @ivar header_limit: how long the header section may become, bytes.
    @ivar size_limit: how long a body, or a message with its recipients, may become, bytes; 0: any length.
    @ivar sender: the sender that a filter has given, in internal form; L{None}: none has.
    @ivar eight_bit_headers: whether filters brought headers with bytes above 127.
    """

    queue_id: QueueID
    draft: Draft
    complete: CompleteSender
    copies: Expand
    expand: Expand
    check: CheckHeader | None
    header_limit: int
    size_limit: int
    sender: bytes | None = None
    eight_bit_headers: bool = False

    async def apply(self, change: Change, leading_space: bool, filter_name: str) -> Verdict | None:
        """
        Do what a filter wants.

        @param leading_space: whether header values come with the white space before them.
        @return: a decision about the message, when that is one.
        """
        match change:
            case ReplaceBody(data):
                if self.size_limit and self.draft.replacement_size + len(data) > self.size_limit:
                    return self._too_large(filter_name)
                await ready(self.draft.replace_body(data))
            case AddHeader() | InsertHeader() | ChangeHeader():
                self._change_header(change, leading_space, filter_name)
                if self.draft.headers.size > self.header_limit:
                    return self._too_large(filter_name)
            case ChangeSender():
                await self._change_sender(change, filter_name)
            case AddRecipient():
                await self._add_recipient(change, filter_name)
                if self.size_limit and self.draft.size > self.size_limit:
                    return self._too_large(filter_name)
            case DeleteRecipient(text):
                address = only_address(text)
                if address:
                    self.draft.delete_recipient(address)
        return None

    def _too_large(self, filter_name: str) -> Verdict:
        self._warn("{queue_id}: milter {milter}: message too large", filter_name)
        return Verdict(Decision.REJECT, True, b"5.3.4 message too large")

    def _change_header(
        self, change: AddHeader | InsertHeader | ChangeHeader, leading_space: bool, filter_name: str
    ) -> None:
        headers = self.draft.headers
        place = headers.find(change.name, change.index) if isinstance(change, ChangeHeader) else None
        if isinstance(change, ChangeHeader) and not change.value:
            if place is not None:
                headers.replace(place, None)
            return
        header = make_header(change.name, change.value, leading_space)
        if header is None:
            self._warn(
                "{queue_id}: milter {milter}: ignoring a header with the bad name {name}",
                filter_name,
                name=change.name[:100],
            )
            return
        if self.check is not None:
            checked = self.check(header[:-1])
            if checked is None:
                return
            header = checked + b"\n"
        if not header.isascii():
            self.draft.eight_bit = self.eight_bit_headers = True
        if isinstance(change, InsertHeader):
            headers.insert(change.index, header)
        elif place is not None:
            headers.replace(place, header)
        else:
            headers.add(header)

    async def _change_sender(self, change: ChangeSender, filter_name: str) -> None:
        self._no_arguments(change.arguments, filter_name)
        address = only_address(change.address)
        if address is None:
            self._warn(
                "{queue_id}: milter {milter}: ignoring the bad sender address {address}",
                filter_name,
                address=change.address[:200],
            )
        else:
            self.sender = await self.complete(address) if address else b""
            for one in await self.copies(self.sender):
                self.draft.add_recipient(*one)

    async def _add_recipient(self, change: AddRecipient, filter_name: str) -> None:
        self._no_arguments(change.arguments, filter_name)
        address = only_address(change.address)
        if address == b"":
            self._warn("{queue_id}: ignoring attempt from Milter to add null recipient", filter_name)
        elif address is None:
            self._warn(
                "{queue_id}: milter {milter}: ignoring the bad recipient address {address}",
                filter_name,
                address=change.address[:200],
            )
        else:
            for one in await self.expand(address):
                self.draft.add_recipient(*one)

    def _no_arguments(self, arguments: tuple[bytes, ...], filter_name: str) -> None:
        for argument in arguments:
            if argument:
                self._warn(
                    '{queue_id}: ignoring ESMTP argument from Milter {milter}: "{argument}"',
                    filter_name,
                    argument=argument[:200],
                )

    def _warn(self, text: str, filter_name: str, **fields: object) -> None:
        log.warn(text, queue_id=self.queue_id, milter=filter_name, **fields)


def only_address(text: bytes) -> bytes | None:
    """
    @param text: an address as filters give it, with or without angle brackets.
    @return: in internal form, C{b""} for the null address; L{None} when that is none, or it holds control
        characters. Of several it is the first.
    """
    text = text.strip()
    if text in (b"", b"<>"):
        return b""
    if _CONTROLS.search(text):
        return None
    parsed = parse_addresses(text)
    if parsed is None or not parsed.addresses:
        return None
    return parsed.addresses[0]
