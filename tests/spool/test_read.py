"""The queue file format: any message comes back, and any damage is noticed."""

from __future__ import annotations

import contextlib
import string
from zlib import crc32

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import MessageDamaged, MessageUnfinished
from qmqpd_tx.message import ClientInfo, Envelope, RecipientState
from qmqpd_tx.spool import record
from qmqpd_tx.spool.operations import blob_reader
from qmqpd_tx.spool.record import HEADER_SIZE, Layout
from tests.spool.values import ENVELOPE, NOW, TOP

texts = st.text(string.printable + "é", max_size=30)
addresses = st.binary(max_size=60)
envelopes = st.builds(
    Envelope,
    sender=addresses,
    arrival_time=st.integers(0, 10**16)
    .map(lambda number: number / 10**6)
    .map(lambda when: float(f"{when:.6f}")),
    client=st.none() | st.builds(ClientInfo, texts, texts, st.none() | st.integers(0, 65535), texts),
    message_id=addresses,
    eight_bit=st.booleans(),
    verp_delimiters=st.none() | addresses,
    attributes=st.dictionaries(texts, addresses, max_size=3),
)


def build(
    data: bytes, top: bytes, envelope: Envelope, recipients: list[tuple[bytes, bytes]]
) -> tuple[bytes, Layout]:
    """
    @return: a whole queue file.
    """
    encoded = record.encode_envelope(envelope)
    people = b"".join(record.encode_recipient(*recipient) for recipient in recipients)
    body = data + top + encoded + people
    top_at = HEADER_SIZE + len(data)
    at = top_at + len(top) + len(encoded)
    layout = Layout(top_at, top_at + len(top), at, at + len(people), len(recipients), crc32(body))
    return record.encode_header(layout) + body + record.END, layout


def parse(blob: bytes) -> tuple[Layout, Envelope, list[tuple[bytes, bytes]]]:
    """
    @return: what a queue file says.
    """
    read = blob_reader(blob)
    layout, envelope = record.read_message(read, len(blob))
    record.verify(read, layout)
    found = record.read_recipients(read, layout, None, layout.recipient_count + 1)
    assert found.next_position is None
    return layout, envelope, [(one.address, one.original) for one in found.recipients]


SMALL = build(b"Subject: x\n\nbody\n", TOP, ENVELOPE, [(b"a@b", b"a@b"), (b"c@d", b"e@f"), (b"", b"g")])[0]
LONG = build(b"x" * 70000, TOP, ENVELOPE, [(b"%d" % n + b"a" * 50, b"o") for n in range(2500)])[0]


class RoundTripTests(SynchronousTestCase):
    """What goes in comes out."""

    @given(
        st.binary(max_size=200), addresses, envelopes, st.lists(st.tuples(addresses, addresses), max_size=8)
    )
    def test_message(
        self, data: bytes, top: bytes, envelope: Envelope, recipients: list[tuple[bytes, bytes]]
    ) -> None:
        """Any message."""
        blob, layout = build(data, top, envelope, recipients)
        self.assertEqual(parse(blob), (layout, envelope, recipients))
        self.assertEqual(len(blob), layout.size)

    @given(st.lists(st.tuples(addresses, addresses), max_size=20), st.integers(1, 5))
    def test_slices(self, recipients: list[tuple[bytes, bytes]], limit: int) -> None:
        """Slices of any size give each unfinished recipient once, in order."""
        blob, layout = build(b"", b"", ENVELOPE, recipients)
        data = bytearray(blob)
        everyone = record.read_recipients(blob_reader(data), layout, None, 100).recipients
        left = []
        for number, one in enumerate(everyone):
            state = [RecipientState.TODO, RecipientState.DELIVERED, RecipientState.BOUNCED][number * 7 % 3]
            data[one.position : one.position + 1] = state.value
            if state is RecipientState.TODO:
                left.append(one)
        found = []
        position = None
        while True:
            piece = record.read_recipients(blob_reader(data), layout, position, limit)
            found += piece.recipients
            position = piece.next_position
            if position is None:
                break
            self.assertEqual(len(piece.recipients), limit)
        self.assertEqual(found, left)
        record.verify(blob_reader(data), layout)

    def test_huge_recipients(self) -> None:
        """Records larger than what is read at a time."""
        recipients = [(b"a" * size, b"b" * size) for size in (10, 70000, 65520, 65530, 200000, 1)]
        blob, layout = build(b"x", b"", ENVELOPE, recipients)
        self.assertEqual(parse(blob), (layout, ENVELOPE, recipients))

    def test_piece_boundaries(self) -> None:
        """Records that end anywhere around the end of a piece."""
        for size in range(65490, 65550, 3):
            recipients = [(b"a" * size, b"a" * size), (b"second", b"second"), (b"third", b"x")]
            blob, _ = build(b"", b"", ENVELOPE, recipients)
            self.assertEqual(parse(blob)[2], recipients)


class DamageTests(SynchronousTestCase):
    """What is not whole is refused, in the right words."""

    def refused(self, blob: bytes) -> None:
        """A file is refused with an error of ours, and one with an offset inside it."""
        try:
            parse(blob)
        except MessageDamaged as error:
            self.assertTrue(0 <= error.offset <= max(len(blob), HEADER_SIZE))
            self.assertIn("offset", str(error))
        except MessageUnfinished:
            pass
        else:
            self.fail("accepted")

    def test_every_truncation(self) -> None:
        """A file cut anywhere is unfinished."""
        for size in range(len(SMALL)):
            self.assertRaises(MessageUnfinished, parse, SMALL[:size])

    @given(st.integers(0, len(LONG) - 1))
    def test_truncation_of_a_long_file(self, size: int) -> None:
        """Also a large one."""
        self.assertRaises(MessageUnfinished, parse, LONG[:size])

    def test_every_truncation_with_zeros(self) -> None:
        """A file that has its size but lost its end to a power cut is never accepted."""
        for size in range(len(SMALL)):
            self.refused(SMALL[:size] + bytes(len(SMALL) - size))

    def test_every_flip(self) -> None:
        """A changed byte is refused, unless it makes one status of another."""
        states = [state.value for state in RecipientState]
        positions = [
            one.position
            for one in record.read_recipients(blob_reader(SMALL), parse(SMALL)[0], None, 9).recipients
        ]
        for at in range(len(SMALL)):
            for flip in (1, 2, 16, 32, 128, 255):
                blob = bytearray(SMALL)
                blob[at] ^= flip
                if at in positions and bytes(blob[at : at + 1]) in states:
                    parse(bytes(blob))
                else:
                    self.refused(bytes(blob))

    @settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
    @given(st.integers(0, len(LONG) - 1), st.integers(1, 255))
    def test_flip_in_a_long_file(self, at: int, flip: int) -> None:
        """Also in a large one."""
        blob = bytearray(LONG)
        blob[at] ^= flip
        with contextlib.suppress(MessageDamaged, MessageUnfinished):
            self.assertIn(len(parse(bytes(blob))[2]), (2499, 2500))

    @given(st.binary(max_size=600))
    def test_noise(self, noise: bytes) -> None:
        """Any bytes at all give an answer, with and without a credible first record."""
        self.refused(noise)
        if len(noise) >= 4:
            parts = sorted(HEADER_SIZE + byte * len(noise) // 256 for byte in noise[:4])
            layout = Layout(*parts, noise[0], crc32(noise))
            self.refused(record.encode_header(layout) + noise[: layout.end - HEADER_SIZE] + record.END)

    def test_trailing_data(self) -> None:
        """Something after the end is not ours."""
        error = self.assertRaises(MessageDamaged, parse, SMALL + b"x")
        self.assertEqual(error.offset, len(SMALL))

    def test_unfinished(self) -> None:
        """The first record of a message that streams in, and one that never reached the disk."""
        for header in (record.UNFINISHED_HEADER, bytes(HEADER_SIZE)):
            self.assertEqual(len(header), HEADER_SIZE)
            self.assertRaises(MessageUnfinished, parse, header + SMALL[HEADER_SIZE:])

    def test_wrong_position(self) -> None:
        """A position outside the recipients, or inside one, is refused."""
        layout = parse(SMALL)[0]
        for position in (0, layout.recipients - 1, layout.recipients + 1, layout.end + 1):
            self.assertRaises(
                MessageDamaged, record.read_recipients, blob_reader(SMALL), layout, position, 10
            )

    def test_time(self) -> None:
        """Times keep their microseconds."""
        envelope = Envelope(b"", NOW + 0.123456)
        self.assertEqual(record.decode_envelope(record.encode_envelope(envelope), 0), envelope)
