"""
Which mail needs SMTPUTF8 (RFC 6531). Pure.

Cleanup marks a message when its origin is one that is looked at (C{smtputf8_autodetect_classes}); the mark is
kept with it as the attribute L{SMTPUTF8<qmqpd_tx.message.SMTPUTF8>}. It says whether a header has something
beyond ASCII; what the envelope has is seen at each delivery, by its sender and its own recipients. Mail
without a mark is delivered as if there were no SMTPUTF8: its 8-bit addresses and headers just pass, as they
always did.

Answers to cleanup(8) and smtp(8), watched: any byte above 127 in a header counts, whether it is UTF-8 or not,
and text in a body does not. Other than there, the headers of MIME parts and of attached messages are body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from attrs import frozen

from qmqpd_tx.address.internationalized import ascii_domain
from qmqpd_tx.interfaces import IConfig

HEADERS: Final = b"headers"
"""The mark of a message that needs SMTPUTF8 whoever it goes to."""

ADDRESSES: Final = b"addresses"
"""The mark of a message that needs it for some senders and recipients."""

QMQPD: Final = "qmqpd"
"""The origin of mail that came by QMQP, as C{smtputf8_autodetect_classes} has it."""

BOUNCE: Final = "bounce"
"""That of notices to senders."""


@frozen(slots=True)
class Detection:
    """
    Where mail comes from that is looked at.

    @ivar origins: some of C{qmqpd}, C{bounce} and so on, or C{all}; empty when SMTPUTF8 is switched off.
    """

    origins: frozenset[str]

    @classmethod
    def from_config(cls, config: IConfig) -> Self:
        """
        @param config: C{smtputf8_enable} and C{smtputf8_autodetect_classes}.
        """
        if not config.boolean("smtputf8_enable"):
            return cls(frozenset())
        return cls(frozenset(config.words("smtputf8_autodetect_classes")))

    def mark(self, origin: str, eight_bit_headers: bool, about: bytes | None = None) -> bytes | None:
        """
        @param origin: where the message comes from.
        @param eight_bit_headers: whether one of its headers has a byte above 127.
        @param about: the mark of the message that it is about, for a notice: then it is looked at, too.
        @return: its mark, or L{None} when it has none.
        """
        origins = self.origins
        if not origins or not (about or origin in origins or "all" in origins):
            return None
        return HEADERS if eight_bit_headers else ADDRESSES


def needs_smtputf8(mark: bytes | None, sender: bytes, recipients: Iterable[bytes]) -> bool:
    """
    @param mark: the message's.
    @param sender: of one delivery.
    @param recipients: of one delivery.
    @return: whether only a server with SMTPUTF8 can take it.
    """
    if not mark:
        return False
    return mark == HEADERS or not sender.isascii() or not all(map(bytes.isascii, recipients))


def bad_encoding(address: bytes, enabled: bool) -> bool:
    """
    Whether an address beyond ASCII cannot be routed (5.1.3, C{bad address syntax}).

    @param address: complete.
    @param enabled: C{smtputf8_enable}: then it has to be UTF-8, and its domain a name that the DNS could
        have; otherwise, and in an address literal, its domain has to be ASCII, and the rest does not matter.
    """
    if address.isascii():
        return False
    domain = address.rpartition(b"@")[2] if b"@" in address else b""
    if not enabled or domain.startswith(b"["):
        return not domain.isascii()
    try:
        address.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return ascii_domain(domain.decode("utf-8")) is None
