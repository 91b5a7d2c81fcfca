"""
VERP: one sender address for each recipient, so that a bounce names whom it is about.

Takes addresses, gives an address. Pure. Answers to Postfix's VERP_README, seen on the wire: sender
C{list@relay.test} with delimiters C{-=} and recipient C{u@dst.test} give C{list-u=dst.test@relay.test}. The
recipient is the one that the client named, also when an alias took the mail elsewhere: the list knows him.
"""

from __future__ import annotations


def verp_sender(sender: bytes, delimiters: bytes, recipient: bytes) -> bytes:
    """
    @param sender: the envelope sender without delimiters.
    @param delimiters: two characters: before the recipient's local part, and in place of its C{@}.
    @param recipient: the recipient's original address; one without a domain gets no second delimiter.
    @return: the envelope sender for the delivery to that recipient. The null sender has no VERP form
        and stays.
    """
    if not sender or len(delimiters) < 2:
        return sender
    local, at, origin = sender.rpartition(b"@")
    if not at:
        local, origin = sender, b""
    user, _, domain = recipient.rpartition(b"@")
    if not user:
        user, domain = recipient, b""
    extension = user + (delimiters[1:2] + domain if domain else b"")
    return local + delimiters[:1] + extension + at + origin
