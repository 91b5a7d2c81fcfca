"""
The protocol as bytes: whatever comes, in whatever pieces.
"""

from __future__ import annotations

import contextlib
import struct
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.milter import protocol
from qmqpd_tx.milter.headers import HeaderList, make_header
from qmqpd_tx.milter.protocol import Event, MilterError, PacketReader
from qmqpd_tx.milter.replies import (
    AddHeader,
    AddRecipient,
    Answer,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyCode,
    decode_reply,
    reply_text,
)

TEXT = st.binary(max_size=40).filter(lambda text: b"\0" not in text)
NUMBER = st.integers(0, 2**32 - 1)


def encode(reply: Reply) -> bytes:
    """
    @return: a reply as a filter sends it.
    """
    match reply:
        case Answer():
            return reply.value
        case ReplyCode(text):
            return b"y" + text + b"\0"
        case Quarantine(reason):
            return b"q" + reason + b"\0"
        case AddHeader(name, value):
            return b"h" + name + b"\0" + value + b"\0"
        case InsertHeader(index, name, value):
            return b"i" + struct.pack("!I", index) + name + b"\0" + value + b"\0"
        case ChangeHeader(index, name, value):
            return b"m" + struct.pack("!I", index) + name + b"\0" + value + b"\0"
        case ChangeSender(address, arguments):
            return b"e" + b"".join(each + b"\0" for each in (address, *arguments))
        case AddRecipient(address, arguments):
            return b"2" + b"".join(each + b"\0" for each in (address, *arguments))
        case DeleteRecipient(address):
            return b"-" + address + b"\0"
        case ReplaceBody(data):
            return b"b" + data


REPLY = st.one_of(
    st.sampled_from(Answer),
    st.builds(ReplyCode, TEXT),
    st.builds(Quarantine, TEXT),
    st.builds(AddHeader, TEXT, TEXT),
    st.builds(InsertHeader, NUMBER, TEXT, TEXT),
    st.builds(ChangeHeader, NUMBER, TEXT, TEXT),
    st.builds(ChangeSender, TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(AddRecipient, TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(DeleteRecipient, TEXT),
    st.builds(ReplaceBody, st.binary(max_size=100)),
)


class PacketTests(SynchronousTestCase):
    """Packets."""

    @given(st.lists(REPLY, max_size=8), st.lists(st.integers(0, 400), max_size=8))
    def test_any_pieces(self, replies: list[Reply], cuts: list[int]) -> None:
        """Replies come through in any chunking."""
        stream = b"".join(struct.pack("!I", len(encode(reply))) + encode(reply) for reply in replies)
        reader = PacketReader(1000)
        found: list[bytes] = []
        last = 0
        for cut in sorted(cuts):
            found += reader.feed(stream[last:cut])
            last = max(last, min(cut, len(stream)))
        found += reader.feed(stream[last:])
        self.assertEqual([decode_reply(packet) for packet in found], replies)

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Whatever a filter sends is a reply, an unknown one, or an error; nothing else."""
        with contextlib.suppress(MilterError):
            for packet in PacketReader(100).feed(data):
                decode_reply(packet)
        with contextlib.suppress(MilterError):
            decode_reply(data)
        with contextlib.suppress(MilterError):
            protocol.decode_negotiation(b"O" + data, 6, protocol.OFFERED[6])

    def test_limit(self) -> None:
        """A packet over the limit is refused when it is announced, one at the limit is taken."""
        reader = PacketReader(10)
        self.assertEqual(reader.feed(b"\0\0\0\x0a0123456789"), [b"0123456789"])
        self.assertRaises(MilterError, reader.feed, b"\0\0\0\x0b")

    def test_sent(self) -> None:
        """What goes over the wire."""
        self.assertEqual(protocol.packet(Event.QUIT), b"\0\0\0\x01Q")
        self.assertEqual(protocol.packet(Event.HELO, protocol.strings(b"a")), b"\0\0\0\x03Ha\0")
        self.assertEqual(protocol.macros(Event.MAIL, []), b"")
        self.assertEqual(protocol.macros(Event.MAIL, [(b"i", b"x")]), b"\0\0\0\x06DMi\0x\0")
        self.assertEqual(protocol.offer(6, 0x1FFFFF), b"\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\x1f\xff\xff")
        self.assertEqual(protocol.connect_data(b"h", b"::1"), b"h\x006\0\0::1\0")
        self.assertEqual(protocol.connect_data(b"h", b"1.2.3.4"), b"h\x004\0\x001.2.3.4\0")

    @given(TEXT)
    def test_nul(self, text: bytes) -> None:
        """A NUL cannot bring a second argument."""
        self.assertEqual(protocol.strings(text + b"\0more"), text + b"\0")


class ReplyTextTests(SynchronousTestCase):
    """SMTP replies of filters."""

    @given(st.binary(max_size=60))
    def test_never_raises(self, text: bytes) -> None:
        """A text is a refusal or it is not."""
        found = reply_text(text)
        self.assertEqual(found is not None and found[0], found is not None and text.startswith(b"5"))

    def test_class_and_code(self) -> None:
        """The enhanced code must be of the class of the reply."""
        self.assertEqual(reply_text(b"550 5.1.1 x"), (True, b"5.1.1 x"))
        self.assertIsNone(reply_text(b"550 4.1.1 x"))
        self.assertIsNone(reply_text(b"450 2.1.1 x"))
        self.assertEqual(reply_text(b"450 2 x"), (False, b"2 x"))
        self.assertIsNone(reply_text(b"354 go on"))


NAMES = st.sampled_from([b"A", b"B", b"Subject"])
HEADERS = st.lists(st.tuples(NAMES, st.sampled_from([b" 1", b"", b" x\n\ty"])), max_size=6)
EDITS = st.lists(
    st.tuples(st.sampled_from(["add", "insert", "change", "delete"]), st.integers(0, 8), NAMES), max_size=8
)


class HeaderTests(SynchronousTestCase):
    """Editing headers."""

    @given(HEADERS, EDITS)
    def test_like_a_list(
        self, headers: list[tuple[bytes, bytes]], edits: list[tuple[str, int, bytes]]
    ) -> None:
        """The section is a list of headers in which only those with the name are counted."""
        section = HeaderList(b"Received: x\n", b"".join(b"%b:%b\n" % header for header in headers))
        model: list[bytes] = [b"Received: x\n", *(b"%b:%b\n" % header for header in headers)]
        for what, index, name in edits:
            new = make_header(name, b"new%d" % index, False)
            assert new is not None
            places = [place for place, header in enumerate(model) if header.startswith(name + b":")]
            place = places[max(index, 1) - 1] if max(index, 1) <= len(places) else None
            if what == "add":
                section.add(new)
                model.append(new)
            elif what == "insert":
                section.insert(index, new)
                model.insert(index, new)
            else:
                self.assertEqual(section.find(name, index), place)
                if place is not None:
                    section.replace(place, new if what == "change" else None)
                    model[place : place + 1] = [new] if what == "change" else []
        self.assertEqual(section.joined(), b"".join(model))

    @given(TEXT, st.binary(max_size=60), st.booleans())
    def test_always_one_header(self, name: bytes, value: bytes, leading: bool) -> None:
        """Whatever a filter gives as name and value, what is stored is one header."""
        header = make_header(name, value, leading)
        if header is None:
            return
        self.assertTrue(header.startswith(name + b":"))
        self.assertTrue(header.endswith(b"\n"))
        self.assertNotIn(b"\0", header)
        self.assertNotIn(b"\r", header)
        for line in header[:-1].split(b"\n")[1:]:
            self.assertIn(line[:1], (b" ", b"\t"))
            self.assertTrue(line.strip(b" \t"))
        self.assertEqual(len(HeaderList(b"", header).shown()), 1)

    def test_many_lines_take_linear_time(self) -> None:
        """A filter may give a header of as many lines as a packet holds."""
        start = time.process_time()
        header = make_header(b"X", b"a\n" * 500_000, True)
        self.assertLess(time.process_time() - start, 5.0)
        self.assertEqual(header, b"X:a\n" + b"\ta\n" * 499_999)
