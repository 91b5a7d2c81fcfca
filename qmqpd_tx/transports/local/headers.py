"""
What a mailbox copy has on top, and what the loop check reads.

Takes envelope addresses, gives the lines that local(8) puts before a message: C{From_} (mbox only),
C{Return-Path}, C{X-Original-To}, C{Delivered-To}, as watched in a running Postfix. Takes the content,
gives the recipients that its C{Delivered-To} lines name. Addresses are quoted as headers want them, and a
control character becomes C{?}: nobody writes a header by way of an address. Pure but for reading content.
"""

from __future__ import annotations

import re
import time

from qmqpd_tx.address import quote_address
from qmqpd_tx.interfaces import IMessageContent
from qmqpd_tx.message import Recipient

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_DELIVERED_TO = re.compile(rb"^delivered-to[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_SLICE = 65536
_MEMO = "local delivered-to"


def shown(address: bytes) -> bytes:
    """
    @return: an address fit for a header line.
    """
    return _CONTROLS.sub(b"?", quote_address(address))


def mailbox_headers(sender: bytes, recipient: Recipient, delivered_to: bool) -> bytes:
    """
    @param delivered_to: whether C{Delivered-To} is wanted (C{prepend_delivered_header}).
    @return: the lines before the message.
    """
    lines = [b"Return-Path: <%s>\nX-Original-To: %s\n" % (shown(sender), shown(recipient.original))]
    if delivered_to:
        lines.append(b"Delivered-To: %s\n" % shown(recipient.address))
    return b"".join(lines)


def from_line(sender: bytes, now: float) -> bytes:
    """
    @param now: POSIX seconds.
    @return: the line that separates messages in an mbox, in local time.
    """
    return b"From %s  %s\n" % (shown(sender) or b"MAILER-DAEMON", time.ctime(now).encode("ascii"))


async def delivered_to(content: IMessageContent) -> frozenset[bytes]:
    """
    @return: the addresses in C{Delivered-To} headers, in lower case. Remembered with the content.
    """
    known = content.memo.get(_MEMO)
    if known is not None:
        return known  # type: ignore[no-any-return]
    found: set[bytes] = set()
    offset = 0
    rest = b""
    while True:
        data = await content.read(offset, _SLICE)
        if offset == 0 and data.startswith(b"\n"):
            break  # No header at all.
        offset += len(data)
        window = rest + data
        end = window.find(b"\n\n")
        if end != -1 or not data:
            found.update(_DELIVERED_TO.findall(window[:end] if end != -1 else window))
            break
        # The last line end is kept: the empty line may begin with it. A line longer than a slice is
        # no address; its beginning is enough.
        complete = window.rfind(b"\n")
        if complete > 0:
            found.update(_DELIVERED_TO.findall(window[:complete]))
            rest = window[complete:]
        else:
            rest = window[:_SLICE]
    result = frozenset(address.lower() for address in found)
    content.memo[_MEMO] = result
    return result
