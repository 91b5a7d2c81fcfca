"""The QMQP parser: what it finds, what it refuses, and that cutting the bytes changes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.netstring import LARGEST_LENGTH, encode
from qmqpd_tx.qmqp.parser import Event, Part, QMQPParser
from tests.qmqp.packets import CONTENT, RECIPIENT, SENDER, cut, packet

_Events = list[tuple[Event, bytes]]


def parse(
    pieces: Iterable[bytes], content_limit: int | None = 1000, address_limit: int = 64
) -> tuple[_Events, QMQPParser]:
    """All events with adjacent content joined, and the parser afterwards."""
    parser = QMQPParser(content_limit, address_limit)
    events: _Events = []
    for piece in pieces:
        for event, data in parser.feed(piece):
            if event is Event.CONTENT and events and events[-1][0] is Event.CONTENT:
                events[-1] = (event, events[-1][1] + data)
            else:
                events.append((event, data))
    return events, parser


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


class WellFormedTests(SynchronousTestCase):
    def test_one_recipient(self) -> None:
        events, parser = parse([packet()])
        self.assertEqual(
            events,
            [
                (Event.CONTENT, CONTENT),
                (Event.SENDER, SENDER),
                (Event.RECIPIENT, RECIPIENT),
                (Event.END, b""),
            ],
        )
        self.assertTrue(parser.finished)
        self.assertEqual(parser.recipients, 1)

    def test_content_in_one_piece_is_not_copied_when_it_fills_the_piece(self) -> None:
        parser = QMQPParser(None, 64)
        data = packet(b"x" * 100)
        start = data.index(b"x")
        parser.feed(data[:start])
        piece = data[start : start + 50]
        [(event, content)] = parser.feed(piece)
        self.assertIs(event, Event.CONTENT)
        self.assertIs(content, piece)

    def test_content_goes_out_as_it_arrives(self) -> None:
        parser = QMQPParser(None, 64)
        data = packet(b"x" * 100)
        self.assertEqual(parser.feed(data[:50])[0][1], b"x" * (50 - data.index(b"x")))

    def test_everything_may_be_empty(self) -> None:
        for data in (packet(b"", b"", [b""]), encode(b":,:,:,")):
            for pieces in ([data], bytewise(data)):
                events, parser = parse(pieces)
                self.assertEqual(events, [(Event.SENDER, b""), (Event.RECIPIENT, b""), (Event.END, b"")])
                self.assertEqual(parser.recipients, 1)

    def test_no_recipients(self) -> None:
        events, parser = parse([packet(recipients=[])])
        self.assertEqual(events[-1], (Event.END, b""))
        self.assertEqual(parser.recipients, 0)

    def test_many_recipients(self) -> None:
        addresses = [b"user%d@example.org" % number for number in range(5000)]
        events, parser = parse([packet(recipients=addresses)])
        self.assertEqual([data for event, data in events if event is Event.RECIPIENT], addresses)
        self.assertEqual(parser.recipients, 5000)

    def test_leading_zeros(self) -> None:
        for zeros in (1, 30, 6000):
            data = b"0" * zeros + encode(b"0002:x\n," + encode(SENDER) + b"0" * zeros + encode(RECIPIENT))
            for pieces in ([data], bytewise(data)):
                events, _parser = parse(pieces)
                self.assertEqual(events[-2:], [(Event.RECIPIENT, RECIPIENT), (Event.END, b"")])

    def test_what_follows_the_packet_is_ignored(self) -> None:
        for tail in (b"x", packet(), b"\n"):
            for pieces in ([packet() + tail], [packet(), tail], bytewise(packet() + tail)):
                events, parser = parse(pieces)
                self.assertEqual(events, parse([packet()])[0])
                self.assertTrue(parser.finished)

    def test_any_bytes_in_addresses(self) -> None:
        address = bytes(range(64))
        events, _parser = parse([packet(sender=address, recipients=[address])])
        self.assertEqual(events[1:3], [(Event.SENDER, address), (Event.RECIPIENT, address)])


class LimitTests(SynchronousTestCase):
    def test_content_at_the_limit(self) -> None:
        self.assertEqual(parse([packet(b"x" * 1000)])[0][-1][0], Event.END)

    def test_content_is_refused_from_its_announced_length(self) -> None:
        for pieces in ([b"2000:1001:"], bytewise(b"2000:1001:")):
            events, _parser = parse(pieces)
            self.assertEqual(
                events,
                [(Event.ERROR, b"netstring length exceeds storage limit while receiving message content")],
            )

    def test_no_content_limit(self) -> None:
        self.assertEqual(parse([b"2000000:1000000:"], content_limit=None)[0], [])

    def test_addresses_at_the_limit(self) -> None:
        address = b"x" * 64
        self.assertEqual(parse([packet(sender=address, recipients=[address])])[0][-1][0], Event.END)

    def test_long_addresses(self) -> None:
        for part, data in (
            ("sender", packet(sender=b"x" * 65)),
            ("recipient", packet(recipients=[RECIPIENT, b"x" * 65])),
        ):
            text = f"netstring length exceeds storage limit while receiving {part} address".encode()
            for pieces in ([data], bytewise(data)):
                self.assertEqual(parse(pieces)[0][-1], (Event.ERROR, text))

    def test_nothing_is_kept_of_a_stream_that_never_ends_a_number(self) -> None:
        parser = QMQPParser(1000, 64)
        for _ in range(100):
            self.assertEqual(parser.feed(b"0" * 65536), [])
        held = [getattr(parser, name) for name in QMQPParser.__slots__]
        self.assertLess(sum(len(value) for value in held if isinstance(value, bytes)), 65)


class MalformedTests(SynchronousTestCase):
    """Each case: what is sent, and what is said, whole and a byte at a time."""

    def check(self, data: bytes, text: str) -> None:
        for pieces in ([data], bytewise(data)):
            events, parser = parse(pieces)
            self.assertEqual(events[-1], (Event.ERROR, text.encode()), data)
            self.assertTrue(parser.finished)
            self.assertEqual(parser.feed(packet()), [])

    def test_header(self) -> None:
        for data in (b"x", b"-5:", b"\n", b" 5:", b"GET / HTTP/1.0\r\n", b"5,", b"5 :", b"+5:"):
            self.check(data, "netstring format error while receiving QMQP packet header")

    def test_header_too_large(self) -> None:
        for data in (b"%d" % (LARGEST_LENGTH + 1), b"9" * 5000, b"99999999999999999999:x"):
            self.check(data, "netstring length exceeds storage limit while receiving QMQP packet header")

    def test_largest_header(self) -> None:
        self.assertEqual(parse([b"%d:" % LARGEST_LENGTH])[0], [])

    def test_content(self) -> None:
        for data in (b"50:x", b"50:5x", b"50:,", b"50:3:abcX", b"50:-1:"):
            self.check(data, "netstring format error while receiving message content")

    def test_sender(self) -> None:
        for data in (b"50:1:a,x", b"50:1:a,5x", b"50:1:a,1:bX", b"50:1:a,,"):
            self.check(data, "netstring format error while receiving sender address")

    def test_recipient(self) -> None:
        start = b"50:1:a,1:b,"
        for data in (b"x", b"5x", b"1:bX", b"1:c,x"):
            self.check(start + data, "netstring format error while receiving recipient address")

    def test_trailer(self) -> None:
        self.check(packet()[:-1] + b"x", "netstring format error while receiving QMQP packet trailer")

    def test_packet_longer_than_announced(self) -> None:
        text = "netstring exceeds the length in the packet header while receiving "
        self.check(b"0:", text + "message content")
        self.check(b":", text + "message content")
        self.check(b"5:12345", text + "message content")
        self.check(b"1:1", text + "message content")
        self.check(b"4:1:a,", text + "sender address")
        self.check(b"7:1:a,1:b,", text + "sender address")
        self.check(b"9:1:a,1:b,1:c,", text + "recipient address")
        self.check(b"9:1:a,1:b,0", text + "recipient address")
        whole = packet()
        self.check(b"%d:" % (int(whole[:2]) - 1) + whole.split(b":", 1)[1], text + "recipient address")

    def test_packet_shorter_than_announced(self) -> None:
        whole = packet()
        self.check(
            b"500:" + whole.split(b":", 1)[1], "netstring format error while receiving recipient address"
        )

    def test_where_it_stopped(self) -> None:
        for data, part in (
            (b"", Part.HEADER),
            (b"12", Part.HEADER),
            (b"50:", Part.CONTENT),
            (b"50:5:ab", Part.CONTENT),
            (b"50:1:a,", Part.SENDER),
            (b"50:1:a,5:x", Part.SENDER),
            (b"50:1:a,1:b,", Part.RECIPIENT),
            (b"50:1:a,1:b,1:c,5:d", Part.RECIPIENT),
            (packet()[:-1], Part.TRAILER),
        ):
            for pieces in ([data], bytewise(data)):
                self.assertIs(parse(pieces)[1].part, part, data)


_address = st.binary(max_size=70)
_noise = st.one_of(
    st.binary(max_size=60),
    st.text("0123456789:,a", max_size=60).map(str.encode),
    st.builds(packet, st.binary(max_size=60), _address, st.lists(_address, max_size=4)),
)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(_noise) + draw(st.one_of(st.just(b""), _noise)))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            place = draw(st.integers(0, len(data) - 1))
            data[place : place + draw(st.integers(0, 2))] = draw(
                st.sampled_from([b"", b"0", b"9", b":", b","])
            )
    return bytes(data)


class ChunkingTests(SynchronousTestCase):
    @given(_damaged(), st.lists(st.integers(0, 20), max_size=30))
    @settings(max_examples=1000)
    def test_any_chunking_gives_the_same(self, data: bytes, sizes: list[int]) -> None:
        expected, whole = parse([data], content_limit=50)
        for pieces in (cut(data, sizes), bytewise(data)):
            events, parser = parse(pieces, content_limit=50)
            self.assertEqual(events, expected)
            self.assertEqual((parser.part, parser.recipients), (whole.part, whole.recipients))

    @given(st.binary(max_size=1000), _address.filter(lambda a: len(a) < 65), st.lists(st.binary(max_size=64)))
    @settings(max_examples=200)
    def test_what_goes_in_comes_out(self, content: bytes, sender: bytes, recipients: list[bytes]) -> None:
        events, _parser = parse([packet(content, sender, recipients)])
        expected: _Events = [(Event.CONTENT, content)] if content else []
        expected.append((Event.SENDER, sender))
        expected += [(Event.RECIPIENT, recipient) for recipient in recipients]
        self.assertEqual(events, [*expected, (Event.END, b"")])

    def test_ten_million_bytes_of_noise(self) -> None:
        """Nothing is raised, the parser ends after at most one end or error, and keeps next to nothing."""
        chance = random.Random(20021)
        alphabet = bytes(range(256)) + b"0123456789:,0123456789:,,,:::" * 20
        left = 10_000_000
        outcomes = {Event.END: 0, Event.ERROR: 0}
        while left > 0:
            kind = chance.randrange(4)
            if kind == 0:
                data = chance.randbytes(65536)
            elif kind == 1:
                data = b"100000000:" + bytes(chance.choices(alphabet, k=4096))
            else:
                recipients = [chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(200))]
                damaged = bytearray(packet(chance.randbytes(chance.randrange(60000)), b"a@b", recipients))
                for _ in range(chance.randrange(3)):
                    damaged[chance.randrange(len(damaged))] = chance.choice(alphabet)
                if kind == 3:
                    del damaged[: chance.randrange(6)]
                data = bytes(damaged)
            left -= len(data)
            parser = QMQPParser(60000, 64)
            ends = 0
            position = 0
            while position < len(data):
                size = chance.choice((1, 7, 100, 5000, 65536))
                for event, _data in parser.feed(data[position : position + size]):
                    if event is Event.END or event is Event.ERROR:
                        ends += 1
                        outcomes[event] += 1
                position += size
            self.assertLessEqual(ends, 1)
            self.assertEqual(parser.finished, ends == 1)
        self.assertGreater(outcomes[Event.END], 10)
        self.assertGreater(outcomes[Event.ERROR], 10)
