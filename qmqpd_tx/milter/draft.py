"""
A message that waits for the filters: its headers, its body, its recipients, and what becomes of them.

Takes content and recipients as they come; gives them back with the changes. What is large is in
L{ContentKeeper}s, so that memory is bounded: the header section (up to a limit of its own, above which
filters cannot be asked), a buffer of the body, a buffer of the recipients, and what filters add. Nothing is
durable. Fails with C{OSError} when the disk does.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable

from twisted.internet.defer import Deferred

from qmqpd_tx.milter.headers import HeaderList
from qmqpd_tx.milter.keep import ContentKeeper
from qmqpd_tx.netstring import NetstringReader, encode, encoded_size

_LINE_END = re.compile(rb"\r\n?|\n")
_MAXIMAL_ADDRESS = 2**31
_HEARD, _UNHEARD, _RECIPIENT, _SILENT = b"A", b"-", b"R", b"S"

Key = Callable[[bytes, bytes, bool], bytes]
"""Takes address, original address and whether it is silent; gives what recipients are told apart by."""


def by_everything(address: bytes, original: bytes, silent: bool) -> bytes:
    """
    @return: what tells apart recipients of which anything differs, in any case.
    """
    return b"%b\0%b\0%d" % (address.lower(), original.lower(), silent)


def by_address(address: bytes, original: bytes, silent: bool) -> bytes:
    """
    @return: what tells apart recipients with different addresses only (C{enable_original_recipient = no}).
    """
    return address.lower()


class Draft:
    """
    @ivar headers: the header section; before L{seal}, and of an L{oversized} message, an empty one.
    @ivar oversized: whether the header section is longer than the limit.
    @ivar eight_bit: whether filters brought bytes above 127.
    @ivar size: how many bytes of content and recipients there are, more or less as a queue file counts them.
    """

    __slots__ = (
        "_added",
        "_body",
        "_deleted",
        "_front",
        "_head",
        "_header_limit",
        "_keeper",
        "_key",
        "_last",
        "_recipients",
        "_replaced",
        "eight_bit",
        "headers",
        "oversized",
        "size",
    )

    def __init__(
        self, keeper: Callable[[], ContentKeeper], header_limit: int, key: Key = by_everything
    ) -> None:
        """
        @param keeper: makes a place for content.
        @param header_limit: the longest header section that filters are shown, in bytes.
        @param key: tells recipients apart: one that is there already is not added.
        """
        self.headers = HeaderList(b"", b"")
        self.oversized = False
        self.eight_bit = False
        self.size = 0
        self._keeper = keeper
        self._key = key
        self._header_limit = header_limit
        self._head: bytearray | None = bytearray()
        self._body = keeper()
        self._recipients = keeper()
        self._replaced: ContentKeeper | None = None
        self._front = b""
        self._last = b""
        self._deleted: set[bytes] = set()
        self._added: dict[bytes, tuple[bytes, bytes, bool]] = {}

    # --- as it comes ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> Deferred[None] | None:
        """
        Take content.

        @return: L{None}, or a Deferred that fires when there is room for more.
        """
        self.size += len(data)
        head = self._head
        if head is None:
            return self._body.append(data)
        start = max(0, len(head) - 1)
        head += data
        if not head.startswith(b"\n"):
            end = head.find(b"\n\n", start)
            if end < 0:
                if len(head) > self._header_limit:
                    self.oversized = True
                    return self._split(0)
                return None
            return self._split(end + 1)
        return self._split(0)

    def _split(self, end: int) -> Deferred[None] | None:
        head = self._head
        assert head is not None
        self._head = None
        if end:
            self.headers = HeaderList(b"", bytes(head[:end]))
        return self._body.append(bytes(head[end:]))

    def seal(self, top: bytes, hidden: int) -> None:
        """
        The content has ended.

        @param top: what comes before it.
        @param hidden: how many bytes of that filters do not see.
        """
        self.size += len(top)
        if self._head is not None:
            # There is no body at all.
            self._split(len(self._head) if not self._head.startswith(b"\n") else 0)
        section = self.headers.joined()
        if self.oversized or len(top) + len(section) > self._header_limit:
            self.oversized = True
            self._front = top + section
        else:
            self.headers = HeaderList(top[:hidden], top[hidden:] + section)

    def section(self) -> bytes:
        """
        @return: the header section as it is now, ending with a newline; L{rest} follows.
        """
        return self._front if self.oversized else self.headers.joined()

    def announce(self, address: bytes | None) -> Deferred[None] | None:
        """
        @param address: what filters hear of the recipients that follow; L{None}: nothing.
        """
        return self._recipients.append(encode(_UNHEARD if address is None else _HEARD + address))

    def recipient(self, address: bytes, original: bytes, silent: bool = False) -> Deferred[None] | None:
        """
        @param address: where to deliver to.
        @param original: as it was given.
        @param silent: whether the sender is not to hear of it.
        """
        self.size += encoded_size(len(address)) + encoded_size(len(original)) + 4
        return self._recipients.append(
            encode((_SILENT if silent else _RECIPIENT) + address) + encode(original)
        )

    def close(self) -> None:
        """
        Forget it all. Safe to call twice.
        """
        self._body.close()
        self._recipients.close()
        if self._replaced is not None:
            self._replaced.close()

    # --- as filters see it ----------------------------------------------------------------------------

    async def heard(self) -> AsyncIterator[bytes]:
        """
        @return: the recipients that filters hear of: those that were announced; without any announcement,
            all.
        """
        announced = False
        async for kind, address, _ in self._records():
            if kind == _HEARD:
                announced = True
                yield address
            elif kind == _UNHEARD:
                announced = True
            elif not announced:
                yield address

    async def body(self) -> AsyncIterator[bytes]:
        """
        @return: the body without the empty line before it, in pieces.
        """
        async for piece in self._body.pieces(1):
            yield piece

    # --- changing it ----------------------------------------------------------------------------------

    def replace_body(self, data: bytes) -> Deferred[None] | None:
        """
        Take the next piece of another body, which becomes the body with L{replaced}.

        @param data: its lines end in CR LF, CR or LF.
        @return: L{None}, or a Deferred that fires when there is room for more.
        """
        if self._replaced is None:
            self._replaced = self._keeper()
            self._last = b"\n"
            self._replaced.append(b"\n")
        if not data:
            return None
        if not self.eight_bit and not data.isascii():
            self.eight_bit = True
        if self._last == b"\r" and data.startswith(b"\n"):
            # The CR has become a line end already.
            data = data[1:]
            self._last = b"\n"
        if not data:
            return None
        self._last = data[-1:]
        return self._replaced.append(_LINE_END.sub(b"\n", data))

    def replaced(self, properly: bool) -> None:
        """
        A filter is done: what it gave by L{replace_body}, if anything, is the body now.

        @param properly: whether that is all of it; if not, the body stays what it was.
        """
        replacement, self._replaced = self._replaced, None
        if replacement is None:
            return
        if not properly:
            replacement.close()
            return
        if self._last not in (b"\n", b"\r"):
            replacement.append(b"\n")
        self.size += replacement.size - self._body.size
        self._body.close()
        self._body = replacement

    @property
    def replacement_size(self) -> int:
        """How long the other body is, in bytes, so far."""
        return 0 if self._replaced is None else self._replaced.size

    def add_recipient(self, address: bytes, original: bytes, silent: bool = False) -> None:
        """
        @param address: where to deliver to, too.
        @param original: as the filter gave it.
        @param silent: whether the sender is not to hear of it.
        """
        key = self._key(address, original, silent)
        if key not in self._added:
            self._added[key] = address, original, silent
            self.size += encoded_size(len(address)) + encoded_size(len(original)) + 4

    def delete_recipient(self, address: bytes) -> None:
        """
        Take one away that is there; it may be added again.

        @param address: as it was given at first, or as filters heard of it.
        """
        self._deleted.add(address)
        for key in [key for key, one in self._added.items() if one[1] == address]:
            del self._added[key]

    def redirect(self, recipients: Iterable[tuple[bytes, bytes]]) -> None:
        """
        @param recipients: who gets it instead of everybody else.
        """
        self._recipients.close()
        self._recipients = self._keeper()
        self._added = {}
        for address, original in recipients:
            self.add_recipient(address, original)

    # --- as it is stored ------------------------------------------------------------------------------

    async def rest(self) -> AsyncIterator[bytes]:
        """
        @return: what follows the header section, in pieces.
        """
        async for piece in self._body.pieces():
            yield piece

    async def recipients(self) -> AsyncIterator[tuple[bytes, bytes, bool]]:
        """
        @return: address and original of each recipient, and whether the sender is not to hear of it.
        """
        deleted = self._deleted
        added = dict(self._added)
        heard = b""
        async for kind, address, original in self._records():
            if kind == _HEARD:
                heard = address
            elif kind == _UNHEARD:
                heard = b""
            else:
                silent = kind == _SILENT
                # The copy that somebody gets because of a recipient stays, unless it is named itself.
                if original in deleted or (not silent and (heard or address) in deleted):
                    continue
                if added:
                    added.pop(self._key(address, original, silent), None)
                yield address, original, silent
        for one in added.values():
            yield one

    async def _records(self) -> AsyncIterator[tuple[bytes, bytes, bytes]]:
        reader = NetstringReader(_MAXIMAL_ADDRESS)
        pending: bytes | None = None
        kind = _RECIPIENT
        async for piece in self._recipients.pieces():
            for record in reader.feed(piece):
                if pending is not None:
                    yield kind, pending, record
                    pending = None
                elif record[:1] in (_RECIPIENT, _SILENT):
                    kind, pending = record[:1], record[1:]
                else:
                    yield record[:1], record[1:], b""
