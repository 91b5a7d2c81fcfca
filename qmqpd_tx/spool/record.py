"""
The queue file: bytes to values and back. Pure; C{docs/queue-file.rst} shows it byte by byte.

Takes and gives bytes, never touches a file: what has to be read is asked of a C{read(offset, length)}
function. Promises that any bytes at all give a value, L{MessageUnfinished} or L{MessageDamaged} with
the offset, in time linear in the size of the file.

The order of the regions is the order in which QMQP sends them, so a message of any size is written as
it arrives:

  1. the first record, of fixed size, in ASCII: where each region begins, how many bytes the file has, a
     checksum of what follows and one of itself. While a message streams in it says "unfinished"; it is
     overwritten last.
  2. the content that arrived, byte for byte;
  3. the top of the content, which cleanup(8) can make only when it has seen the recipients (the Received
     header); readers see 3 and 2 as one content;
  4. the envelope: a letter and a netstring for each attribute;
  5. the recipients: a letter and a netstring for each. The letter is the status, and is overwritten in
     place when a recipient is done; its offset is the recipient's C{position}. The checksum counts it as
     C{R}, so that marking leaves the checksum right;
  6. the end record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from zlib import crc32

from attrs import frozen

from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished
from qmqpd_tx.message import ClientInfo, Envelope, Recipient, RecipientSlice, RecipientState
from qmqpd_tx.spool.errors import RecycledFile

HEADER_SIZE = 128
"""Bytes of the first record."""

END = b"E0:,"
"""The end record."""

CHUNK = 65536
"""How much is read at a time."""

Read = Callable[[int, int], bytes]
"""Gives up to so many bytes from an offset of the file; fewer only at its end."""

_MAGIC = b"qmqpd_tx/1 "
_UNFINISHED = _MAGIC + b"U"
UNFINISHED_HEADER = _UNFINISHED.ljust(HEADER_SIZE - 1) + b"\n"
"""The first record of a message that is still streaming in."""

_HEADER = re.compile(
    rb"qmqpd_tx/1 C (\d{13}) (\d{13}) (\d{13}) (\d{13}) (\d{10}) (\d{15}) ([0-9a-f]{8}) "
    rb"([0-9A-Z]{11}| {11}) {3}([0-9a-f]{8})\n"
)
_CRC_OFFSET = HEADER_SIZE - 9
_PREFIX = re.compile(rb"([A-Z0-9])(0|[1-9]\d{0,11}):")
_PREFIX_LIMIT = 14
_TIME = re.compile(rb"-?\d{1,15}\.\d{6}")
_PORT = re.compile(rb"\d{1,5}")

_TODO = RecipientState.TODO.value
_STATES = frozenset(state.value for state in RecipientState)
_COMMA = ord(",")


@frozen(slots=True)
class Layout:
    """
    Where things are in a queue file, in bytes from its start. The content that arrived begins at
    L{HEADER_SIZE}; each region ends where the next begins.

    @ivar top: the top of the content.
    @ivar envelope: the attributes.
    @ivar recipients: the first recipient.
    @ivar end: the end record.
    @ivar recipient_count: how many recipients, done or not.
    @ivar checksum: CRC-32 of everything between the first record and the end record.
    """

    top: int
    envelope: int
    recipients: int
    end: int
    recipient_count: int
    checksum: int

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.end + len(END)

    @property
    def content_size(self) -> int:
        """The bytes of the content, the top included."""
        return self.envelope - HEADER_SIZE


# --- writing ----------------------------------------------------------------------------------------


def encode_header(layout: Layout, queue_id: str = "") -> bytes:
    """
    @param queue_id: whose file this is.
    @return: the first record of a finished file.
    """
    text = b"qmqpd_tx/1 C %013d %013d %013d %013d %010d %015d %08x %-11b   " % (
        layout.top,
        layout.envelope,
        layout.recipients,
        layout.end,
        layout.recipient_count,
        layout.end + len(END),
        layout.checksum,
        queue_id.encode("ascii"),
    )
    return b"%b%08x\n" % (text, crc32(text))


def encode_envelope(envelope: Envelope) -> bytes:
    """
    @return: the envelope region.
    """
    sender = envelope.sender
    time = b"%.6f" % envelope.arrival_time
    parts = [b"T%d:%b,S%d:%b," % (len(time), time, len(sender), sender)]
    client = envelope.client
    if client is not None:
        port = b"" if client.port is None else b"%d" % client.port
        value = _encode_client(client.address, client.name, client.protocol) + port
        parts.append(b"C%d:%b," % (len(value), value))
    if envelope.message_id:
        parts.append(b"I%d:%b," % (len(envelope.message_id), envelope.message_id))
    if envelope.eight_bit:
        parts.append(b"80:,")
    if envelope.verp_delimiters is not None:
        parts.append(b"V%d:%b," % (len(envelope.verp_delimiters), envelope.verp_delimiters))
    for key, attribute in envelope.attributes.items():
        encoded = key.encode("utf-8", "replace")
        value = b"%d:%b,%b" % (len(encoded), encoded, attribute)
        parts.append(b"A%d:%b," % (len(value), value))
    return b"".join(parts)


@lru_cache(1000)
def _encode_client(*texts: str) -> bytes:
    """
    @return: what an envelope says of a client, but for the port, which is another each time.
    """
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(b"%d:%b," % (len(each), each) for each in encoded)


def encode_recipient(address: bytes, original: bytes, silent: bool = False) -> bytes:
    """
    @param silent: whether the sender is not to hear of it.
    @return: the record of a recipient that is still to do.
    """
    if silent:
        value = b"-%d:%b,%b" % (len(address), address, original)
        return b"R%d:%b," % (len(value), value)
    if address == original:
        return b"R%d:=%b," % (len(address) + 1, address)
    value = b"+%d:%b,%b" % (len(address), address, original)
    return b"R%d:%b," % (len(value), value)


# --- reading ----------------------------------------------------------------------------------------


def decode_header(data: bytes, file_size: int, queue_id: str | None = None) -> Layout:
    """
    @param data: the first L{HEADER_SIZE} bytes of the file, or all that there are.
    @param file_size: how many bytes the file really has.
    @param queue_id: whose file it should be, by its name; L{None} for anybody's.
    @raise RecycledFile: it holds another message: see L{qmqpd_tx.spool.spares}.
    @raise MessageUnfinished: it is a start only.
    @raise MessageDamaged: it is no queue file, or says what cannot be.
    """
    data = data[:HEADER_SIZE]
    if len(data) < HEADER_SIZE:
        raise MessageUnfinished(f"the file ends in its first record, after {len(data)} bytes")
    # A file whose blocks never reached the disk reads as zeros: unfinished, not damaged.
    if data.startswith(_UNFINISHED) or not data.strip(b"\0"):
        raise MessageUnfinished("the first record was never completed")
    match = _HEADER.fullmatch(data)
    if match is None:
        raise MessageDamaged("no first record at offset 0", 0)
    if crc32(data[:_CRC_OFFSET]) != int(match[9], 16):
        raise MessageDamaged(f"wrong checksum of the first record at offset {_CRC_OFFSET}", _CRC_OFFSET)
    top, envelope, recipients, end, count, size = (int(match[field]) for field in range(1, 7))
    layout = Layout(top, envelope, recipients, end, count, int(match[7], 16))
    if not HEADER_SIZE <= top <= envelope <= recipients <= end or size != layout.size:
        raise MessageDamaged("regions out of order in the first record at offset 12", 12)
    if file_size < size:
        raise MessageUnfinished(f"the file has {file_size} of {size} bytes")
    if queue_id is not None and match[8] != queue_id.encode("ascii", "replace"):
        raise RecycledFile(f"the file holds message {match[8].decode('ascii')}")
    if file_size > size:
        raise MessageDamaged(f"data after the end record at offset {size}", size)
    return layout


def check_end(data: bytes, layout: Layout) -> None:
    """
    @param data: what is at C{layout.end}.
    @raise MessageDamaged: it is not the end record.
    """
    if data != END:
        raise MessageDamaged(f"no end record at offset {layout.end}", layout.end)


def _records(data: bytes, base: int) -> Iterator[tuple[bytes, bytes, int]]:
    """
    Split a region that must hold whole records only.

    @param base: the offset of C{data} in the file.
    @return: letter, value and offset of the value, for each record.
    """
    at, size = 0, len(data)
    while at < size:
        match = _PREFIX.match(data, at)
        if match is None:
            raise MessageDamaged(f"no record at offset {base + at}", base + at)
        start = match.end()
        stop = start + int(match[2])
        if stop >= size or data[stop] != _COMMA:
            raise MessageDamaged(f"record without end at offset {base + at}", base + at)
        yield match[1], data[start:stop], base + start
        at = stop + 1


def _strings(value: bytes, count: int, offset: int) -> tuple[list[bytes], bytes]:
    """
    @return: the C{count} netstrings at the start of C{value}, and the rest.
    """
    found, at = [], 0
    for _ in range(count):
        colon = value.find(b":", at, at + 13)
        digits = value[at:colon] if colon > at else b""
        stop = colon + 1 + int(digits) if digits.isdigit() else len(value)
        if stop >= len(value) or value[stop] != _COMMA:
            raise MessageDamaged(f"bad netstring at offset {offset + at}", offset + at)
        found.append(value[colon + 1 : stop])
        at = stop + 1
    return found, value[at:]


def decode_envelope(data: bytes, base: int) -> Envelope:
    """
    @param data: the envelope region.
    @param base: its offset in the file.
    @raise MessageDamaged: naming the offset.
    """
    sender: bytes | None = None
    arrival_time: float | None = None
    client: ClientInfo | None = None
    message_id = b""
    eight_bit = False
    verp_delimiters: bytes | None = None
    attributes: dict[str, bytes] = {}
    for letter, value, offset in _records(data, base):
        if letter == b"S":
            sender = value
        elif letter == b"T" and _TIME.fullmatch(value):
            arrival_time = float(value)
        elif letter == b"C":
            texts, port = _strings(value, 3, offset)
            if port and not _PORT.fullmatch(port):
                raise MessageDamaged(f"bad port at offset {offset}", offset)
            address, name, protocol = (text.decode("utf-8", "replace") for text in texts)
            client = ClientInfo(address, name, int(port) if port else None, protocol)
        elif letter == b"I":
            message_id = value
        elif letter == b"8":
            eight_bit = True
        elif letter == b"V":
            verp_delimiters = value
        elif letter == b"A":
            (key,), value = _strings(value, 1, offset)
            attributes[key.decode("utf-8", "replace")] = value
        else:
            raise MessageDamaged(f"unknown envelope record before offset {offset}", offset)
    if sender is None or arrival_time is None:
        raise MessageDamaged(f"envelope without sender or time at offset {base}", base)
    return Envelope(sender, arrival_time, client, message_id, eight_bit, verp_delimiters, attributes)


def _decode_recipient(value: bytes, position: int) -> Recipient:
    if value[:1] == b"=":
        return Recipient(value[1:], value[1:], position)
    if value[:1] in (b"+", b"-"):
        (address,), original = _strings(value[1:], 1, position)
        return Recipient(address, original, position, value[:1] == b"-")
    raise MessageDamaged(f"bad recipient at offset {position}", position)


def _recipient_records(read: Read, position: int, end: int) -> Iterator[tuple[int, bytes, bytes, int, int]]:
    """
    Walk the recipient records from an offset, reading a piece at a time.

    @return: position, status letter, the piece that holds the record whole, and where in the piece its
        value starts and stops.
    """
    wanted = CHUNK
    while position < end:
        size = min(wanted, end - position)
        data = read(position, size)
        if len(data) < size:
            raise MessageDamaged(f"the file ends in the recipients at offset {position}", position)
        last = position + size == end
        wanted = CHUNK
        at = 0
        while at < size:
            match = _PREFIX.match(data, at)
            if match is None and not last and size - at < _PREFIX_LIMIT:
                break
            if match is None or match[1] not in _STATES:
                raise MessageDamaged(f"no recipient at offset {position + at}", position + at)
            start = match.end()
            stop = start + int(match[2])
            if stop >= size and not last and position + stop < end:
                # The rest of this record is in the next piece, which must be large enough for it.
                wanted = max(CHUNK, stop + 1 - at)
                break
            if stop >= size or data[stop] != _COMMA:
                raise MessageDamaged(f"recipient without end at offset {position + at}", position + at)
            yield position + at, match[1], data, start, stop
            at = stop + 1
        position += at


def read_recipients(read: Read, layout: Layout, position: int | None, limit: int) -> RecipientSlice:
    """
    @param position: L{None} to start, else the C{next_position} of the slice before.
    @param limit: how many to give at most.
    @return: recipients that are still to do.
    @raise MessageDamaged: naming the offset.
    """
    at = layout.recipients if position is None else position
    if not layout.recipients <= at <= layout.end:
        raise MessageDamaged(f"no recipient at offset {at}", at)
    found: list[Recipient] = []
    for where, status, data, start, stop in _recipient_records(read, at, layout.end):
        if len(found) >= limit:
            return RecipientSlice(found, where)
        if status == _TODO:
            found.append(_decode_recipient(data[start:stop], where))
    return RecipientSlice(found, None)


def verify(read: Read, layout: Layout) -> None:
    """
    Read a whole file and compare it with its checksum.

    @raise MessageDamaged: they differ, or the recipients make no sense.
    """
    checksum = 0
    at = HEADER_SIZE
    while at < layout.recipients:
        data = read(at, min(CHUNK, layout.recipients - at))
        if not data:
            raise MessageDamaged(f"the file ends at offset {at}", at)
        checksum = crc32(data, checksum)
        at += len(data)
    count = 0
    for where, _, data, start, stop in _recipient_records(read, layout.recipients, layout.end):
        _decode_recipient(data[start:stop], where)
        checksum = crc32(b"%b%d:" % (_TODO, stop - start), checksum)
        checksum = crc32(data[start : stop + 1], checksum)
        count += 1
    if count != layout.recipient_count:
        text = f"{count} recipients instead of {layout.recipient_count} at offset {layout.recipients}"
        raise MessageDamaged(text, layout.recipients)
    if checksum != layout.checksum:
        raise MessageDamaged(f"wrong checksum of the data from offset {HEADER_SIZE}", HEADER_SIZE)


def read_message(read: Read, file_size: int, queue_id: str | None = None) -> tuple[Layout, Envelope]:
    """
    Read what a message says about itself. A file of at most L{CHUNK} bytes is also L{verify}-ed.

    @param file_size: how many bytes the file has.
    @param queue_id: as for L{decode_header}.
    @raise RecycledFile: as L{decode_header}.
    @raise MessageUnfinished: it is a start only.
    @raise MessageDamaged: naming the offset.
    """
    layout = decode_header(read(0, HEADER_SIZE), file_size, queue_id)
    check_end(read(layout.end, len(END)), layout)
    envelope = decode_envelope(read(layout.envelope, layout.recipients - layout.envelope), layout.envelope)
    if file_size <= CHUNK:
        verify(read, layout)
    return layout, envelope
