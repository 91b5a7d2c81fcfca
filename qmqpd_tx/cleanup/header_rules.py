"""
Which headers matter, and how they are treated: one frozen value, made once per (re)load. Pure.

Takes the names of headers to drop and what completes addresses; gives the kind of each header by its name.
Remembers, within bounds, names and headers that were seen: the headers of nearly all mail have the same
names, and the addresses in them come again. Answers to cleanup(8) (message_drop_headers).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from attrs import Factory, frozen
from twisted.internet.defer import Deferred

from qmqpd_tx.address.mailboxes import CLEAN
from qmqpd_tx.cleanup.mime import MIME_HEADERS
from qmqpd_tx.cleanup.remembered import Remembered

ADDRESS_HEADERS = frozenset(
    b"to cc from sender reply-to errors-to return-receipt-to disposition-notification-to apparently-to"
    b" mail-followup-to resent-to resent-cc resent-from resent-sender resent-reply-to"
    b" bcc resent-bcc return-path".split()
)
"""The headers whose addresses are made complete."""

RESENT_HEADERS = frozenset(
    b"resent-to resent-cc resent-bcc resent-from resent-sender resent-reply-to resent-date"
    b" resent-message-id".split()
)
"""The headers that make a message a resent one."""

KNOWN_NAMES = 1000
"""How many names of headers are remembered, as they are written."""

KNOWN_LENGTH = 100
"""Longer ones are not, in bytes."""

_WHOLE_NAME = re.compile(rb"[!-9;-~]+")


class Kind(enum.Flag):
    """What a header is to us."""

    ADDRESSES = enum.auto()
    DROP = enum.auto()
    RECEIVED = enum.auto()
    MESSAGE_ID = enum.auto()
    RESENT_MESSAGE_ID = enum.auto()
    DATE = enum.auto()
    FROM = enum.auto()
    RESENT = enum.auto()
    MIME = enum.auto()


@frozen(slots=True)
class HeaderRules:
    """
    How headers are treated.

    @ivar kinds: by lower-case name; other headers pass.
    @ivar size_limit: C{header_size_limit}, bytes.
    @ivar line_limit: C{line_length_limit}: a name that is longer is no name.
    @ivar complete: gives a header's value with complete addresses, or L{None} if it may stay, or a Deferred
        of one of these; takes name and value.
    @ivar clean: matches values that are known to be complete.
    @ivar received_limit: with so many C{Received} headers a message is refused; ours is not counted.
    @ivar seen: what L{known} has given, by name as it is written.
    @ivar completed: what L{complete} gives for a header, as in L{HeaderSection}; C{b""}: it may stay.
    """

    kinds: dict[bytes, int]
    size_limit: int
    line_limit: int
    complete: Callable[[bytes, bytes], bytes | Deferred[bytes | None] | None]
    clean: re.Pattern[bytes] = CLEAN
    received_limit: int = 49
    completed: Remembered[bytes] = Factory(lambda: Remembered(True, len))
    seen: dict[bytes, tuple[bytes, int]] = Factory(dict)

    def drops(self, name: bytes) -> bool:
        """
        @param name: in lower case.
        @return: whether C{message_drop_headers} has it.
        """
        return bool(self.kinds.get(name, 0) & Kind.DROP.value)

    def known(self, name: bytes) -> tuple[bytes, int] | None:
        """
        @param name: what comes before a colon.
        @return: it in lower case, and its kind, 0 if it passes; L{None}: it is no name of a header.
        """
        if len(name) >= self.line_limit or not _WHOLE_NAME.fullmatch(name):
            return None
        lower = name.lower()
        known = lower, self.kinds.get(lower, 0)
        if len(name) <= KNOWN_LENGTH:
            if len(self.seen) >= KNOWN_NAMES:
                self.seen.clear()
            self.seen[name] = known
        return known


def header_kinds(drop: frozenset[bytes]) -> dict[bytes, int]:
    """
    @param drop: lower-case names of headers to drop.
    @return: the table for L{HeaderRules}. Flags are plain integers there: this is the hot path.
    """
    kinds = {name: Kind.ADDRESSES for name in ADDRESS_HEADERS}
    for name, kind in (
        (b"received", Kind.RECEIVED),
        (b"message-id", Kind.MESSAGE_ID),
        (b"date", Kind.DATE),
        (b"from", Kind.FROM),
        (b"resent-message-id", Kind.RESENT_MESSAGE_ID),
        (b"resent-date", Kind.DATE),
        (b"resent-from", Kind.FROM),
    ):
        kinds[name] = kinds.get(name, Kind(0)) | kind
    for name in RESENT_HEADERS:
        kinds[name] = kinds.get(name, Kind(0)) | Kind.RESENT
    for name in MIME_HEADERS:
        kinds[name] = kinds.get(name, Kind(0)) | Kind.MIME
    for name in drop:
        kinds[name] = kinds.get(name, Kind(0)) | Kind.DROP
    return {name: kind.value for name, kind in kinds.items()}
