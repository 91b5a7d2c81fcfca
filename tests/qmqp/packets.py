"""QMQP packets, right and wrong, and ways to cut them."""

from __future__ import annotations

from collections.abc import Sequence

from qmqpd_tx.netstring import encode

CONTENT = b"Subject: test\n\nbody\n"
SENDER = b"sender@example.com"
RECIPIENT = b"recipient@example.org"


def packet(
    content: bytes = CONTENT, sender: bytes = SENDER, recipients: Sequence[bytes] = (RECIPIENT,)
) -> bytes:
    """A well-formed packet."""
    return encode(encode(content) + encode(sender) + b"".join(encode(address) for address in recipients))


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]
