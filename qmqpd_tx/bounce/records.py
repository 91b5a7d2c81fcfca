"""
The records of bounce, defer and trace logs: one recipient and what became of it. Pure.

A record is a sequence of netstrings, each a tag byte and a value::

    R  the recipient's address            O  the address as the client sent it
    S  the RFC 3463 status code           T  the reason, UTF-8
    L  the relay                          M  the remote MTA, when there is one
    D  the remote host's reply, when there is one
    N  the sender was told: what the log has of this recipient so far is no news

A trace log has the recipients that were delivered after the first attempt, and one record of another kind::

    W  when the sender was warned of the delay: nobody before it is news

Unknown tags are skipped, so that a later version may add some. A damaged record gives what can still be
read: a report with less in it is better than none. Only a record without a recipient gives nothing.
Never raises. Answers to bounce(5)'s logs.
"""

from __future__ import annotations

import re

from attrs import frozen

from qmqpd_tx.message import Recipient
from qmqpd_tx.netstring import encode
from qmqpd_tx.status import Outcome

_LENGTH = re.compile(rb"([0-9]{1,9}):")


@frozen(slots=True)
class FailedRecipient:
    """
    A recipient of a bounce or defer log; in a trace log, one that did not fail in the end.

    @ivar address: where it was to be delivered to.
    @ivar original: as the client sent it.
    @ivar dsn: the RFC 3463 code.
    @ivar text: the reason.
    @ivar relay: C{host[address]:port}, C{local} or C{none}.
    @ivar remote_mta: who gave C{diagnostic}, or L{None}.
    @ivar diagnostic: the remote host's reply, or L{None}.
    @ivar silent: whether the sender is not to hear of it.
    """

    address: bytes
    original: bytes
    dsn: str = "5.0.0"
    text: str = "unknown error"
    relay: str = "none"
    remote_mta: str | None = None
    diagnostic: str | None = None
    silent: bool = False


def encode_outcome(outcome: Outcome) -> bytes:
    """
    @return: the record for one recipient's outcome.
    """
    fields = [
        (b"R", outcome.recipient.address),
        (b"O", outcome.recipient.original),
        (b"S", _bytes(outcome.dsn)),
        (b"T", _bytes(outcome.text)),
        (b"L", _bytes(outcome.relay)),
    ]
    if outcome.remote_mta is not None:
        fields.append((b"M", _bytes(outcome.remote_mta)))
    if outcome.diagnostic is not None:
        fields.append((b"D", _bytes(outcome.diagnostic)))
    if outcome.recipient.silent:
        fields.append((b"Q", b""))
    return b"".join(encode(tag + value) for tag, value in fields)


def encode_told(recipient: FailedRecipient | Recipient) -> bytes:
    """
    @return: the record that the sender was told of a recipient, or is not to be told of what is before.
    """
    fields = [(b"R", recipient.address), (b"O", recipient.original), (b"N", b"")]
    return b"".join(encode(tag + value) for tag, value in fields)


def encode_warning(now: float) -> bytes:
    """
    @return: the record that the sender was warned of the delay.
    """
    return encode(b"W%d" % now)


def _fields(record: bytes) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    position = 0
    while match := _LENGTH.match(record, position):
        start, end = match.end(), match.end() + int(match.group(1))
        if record[end : end + 1] != b"," or end == start:
            break
        fields[record[start : start + 1]] = record[start + 1 : end]
        position = end + 1
    return fields


def decode_record(record: bytes) -> FailedRecipient | None:
    """
    @param record: as L{encode_outcome} gave it, possibly damaged.
    @return: what it says, or L{None} if it names no recipient.
    """
    return _recipient(_fields(record))


def _recipient(fields: dict[bytes, bytes]) -> FailedRecipient | None:
    address = fields.get(b"R")
    if address is None:
        return None
    optional = {tag: _text(fields[tag]) if tag in fields else None for tag in (b"M", b"D")}
    return FailedRecipient(
        address=address,
        original=fields.get(b"O", address),
        dsn=_text(fields.get(b"S", b"5.0.0")),
        text=_text(fields.get(b"T", b"unknown error")),
        relay=_text(fields.get(b"L", b"none")),
        remote_mta=optional[b"M"],
        diagnostic=optional[b"D"],
        silent=b"Q" in fields,
    )


def decode_log(records: list[bytes]) -> list[FailedRecipient]:
    """
    @param records: a log, oldest first.
    @return: each recipient of which the sender was not told yet, once, with what was logged last, in the
        order of the first mention.
    """
    return decode_trace(records)[1]


def decode_trace(records: list[bytes]) -> tuple[bool, list[FailedRecipient]]:
    """
    @param records: a log, oldest first.
    @return: whether the sender was warned of the delay; and as L{decode_log}, those after the warning.
    """
    warned = False
    found: dict[tuple[bytes, bytes], FailedRecipient] = {}
    for record in records:
        fields = _fields(record)
        recipient = _recipient(fields)
        if recipient is None:
            if b"W" in fields:
                warned = True
                found.clear()
        elif b"N" in fields:
            found.pop((recipient.address, recipient.original), None)
        else:
            found[(recipient.address, recipient.original)] = recipient
    return warned, list(found.values())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
