"""
VERP senders as QMQP clients write them. Pure.

qmail's mailing lists give C{prefix-@origin-@[]} as the sender and expect each recipient to get the message
from an address of its own. Takes the sender as it came; gives the plain sender and the two delimiters, or
the sender as it is when it does not have that form.

Answers to Postfix's qmqpd(8), watched: the sender must end in C{-@[]}; it is split at its first C{@}, the
character before which is the first delimiter, and the second is C{=}. Without a prefix, a delimiter or an
origin it is no VERP sender. Delimiters outside C{verp_delimiter_filter} make the message fail for good.
"""

from __future__ import annotations

from attrs import frozen

SUFFIX = b"-@[]"
SECOND_DELIMITER = b"="


@frozen(slots=True)
class VerpSender:
    """
    A sender, taken apart.

    @ivar sender: the envelope sender without its VERP form.
    @ivar delimiters: the two delimiter characters, or L{None} for a sender that has no VERP form.
    """

    sender: bytes
    delimiters: bytes | None


def split_verp(sender: bytes) -> VerpSender:
    """
    @param sender: as the client sent it.
    @return: its parts.
    """
    if sender.endswith(SUFFIX):
        at = sender.find(b"@")
        # prefix, delimiter, "@", origin: none may be empty.
        if 2 <= at < len(sender) - len(SUFFIX) - 1:
            plain = sender[: at - 1] + sender[at : -len(SUFFIX)]
            return VerpSender(plain, sender[at - 1 : at] + SECOND_DELIMITER)
    return VerpSender(sender, None)


def verp_fault(delimiters: bytes, allowed: bytes) -> str | None:
    """
    @param delimiters: as in L{VerpSender}.
    @param allowed: C{verp_delimiter_filter}.
    @return: what is wrong with them, in Postfix's words, or L{None}.
    """
    if len(delimiters) == 2 and all(character in allowed for character in delimiters):
        return None
    wrong, right = (text.decode("latin-1") for text in (delimiters, allowed))
    return f'Invalid VERP delimiters: "{wrong}". Need two characters from "{right}"'
