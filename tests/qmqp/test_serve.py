"""The QMQP server, connection by connection: replies, log lines, streaming, refusals."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError, IntakeError, SpoolError
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.netstring import encode
from qmqpd_tx.qmqp.server import QMQPServerFactory
from tests.qmqp.cleanup import MemoryCleanup
from tests.qmqp.packets import CONTENT, RECIPIENT, SENDER, cut, packet
from tests.qmqp.serving import Connection, ServerTestCase

OK = encode(b"KOk: queued as ID1")


class AcceptTests(ServerTestCase):
    def test_one_message(self) -> None:
        client = self.connect()
        client.send(packet())
        self.assertEqual(client.reply, OK)
        self.assertTrue(client.closed)
        client.end()
        [message] = self.cleanup.accepted
        self.assertEqual(message.body, CONTENT)
        self.assertEqual(message.from_address, SENDER)
        self.assertEqual(message.recipients, [RECIPIENT])
        self.assertEqual(message.client, ClientInfo("192.0.2.1", "client.example", 4321))
        self.assertEqual(
            self.lines,
            [
                "connect from client.example[192.0.2.1]",
                "ID1: client=client.example[192.0.2.1]",
                "disconnect from client.example[192.0.2.1]",
            ],
        )
        self.assert_quiet()

    @given(st.lists(st.integers(1, 40), max_size=20), st.sampled_from([False, None]))
    @settings(max_examples=100)
    def test_any_chunking(self, sizes: list[int], slow_store: bool | None) -> None:
        self.cleanup = MemoryCleanup()
        self.cleanup.slow_store = slow_store
        client = self.connect(self.make_factory(""))
        addresses = [b"a@b", b"", b"c@d"]
        client.send(*cut(packet(recipients=addresses), sizes))
        self.assertEqual(client.reply, OK)
        [message] = self.cleanup.accepted
        self.assertEqual((message.body, message.recipients), (CONTENT, addresses))
        client.end()

    @given(
        st.text("0123456789:,ax", max_size=40).map(str.encode),
        st.integers(0, 40),
        st.lists(st.integers(1, 10), max_size=20),
    )
    @settings(max_examples=200)
    def test_any_chunking_of_noise(self, noise: bytes, place: int, sizes: list[int]) -> None:
        """The same reply and the same log, and nothing raised."""
        data = packet()[:place] + noise
        outcomes = []
        for pieces in ([data], cut(data, sizes), cut(data, [1] * len(data))):
            self.cleanup = MemoryCleanup()
            self.lines.clear()
            client = self.connect(self.make_factory("qmqpd_error_delay = 0\n"))
            for piece in pieces:
                if client.transport.reading and piece:
                    client.server.dataReceived(piece)
            client.finish_sending()
            client.end()
            outcomes.append((client.reply, list(self.lines)))
        self.assertEqual(outcomes[1:], outcomes[:1] * 2)

    def test_reply_only_when_the_message_is_safe(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet())
        self.assertEqual(client.reply, b"")
        self.clock.advance(30)
        self.assertEqual(client.reply, b"")
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, OK)
        client.end()
        self.assert_quiet()

    def test_content_is_handed_on_as_it_arrives(self) -> None:
        client = self.connect()
        data = packet(b"x" * 1000)
        client.send(data[:500])
        self.assertEqual(self.cleanup.begun[0].body, b"x" * (500 - data.index(b"x")))
        client.end(clean=False)

    def test_client_that_finishes_sending_first(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet())
        client.finish_sending()
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, OK)
        self.assertTrue(client.closed)

    def test_more_after_the_packet_is_ignored(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet() + b"more", packet())
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, OK)
        self.assertEqual(len(self.cleanup.begun), 1)

    def test_port_logging(self) -> None:
        factory = self.make_factory("qmqpd_client_port_logging = yes\n")
        client = self.connect(factory)
        client.send(packet())
        client.end()
        label = "client.example[192.0.2.1]:4321"
        self.assertEqual(
            self.lines, [f"connect from {label}", f"ID1: client={label}", f"disconnect from {label}"]
        )

    def test_verp_sender(self) -> None:
        client = self.connect()
        client.send(packet(sender=b"list-@example.com-@[]"))
        self.assertEqual(client.reply, OK)
        [message] = self.cleanup.accepted
        self.assertEqual((message.from_address, message.verp_delimiters), (b"list@example.com", b"-="))

    def test_names_of_addresses(self) -> None:
        for address, name in (
            (IPv4Address("TCP", "127.0.0.1", 9), "client.example[127.0.0.1]"),
            (IPv6Address("TCP", "::1", 9), "client.example[::1]"),
            (IPv6Address("TCP", "::ffff:192.0.2.9", 9), "client.example[192.0.2.9]"),
            (UNIXAddress(None), "localhost[127.0.0.1]"),
        ):
            Connection(self.factory, address).end()
            self.assertEqual(self.lines[-1], f"disconnect from {name}")

    def test_slow_name(self) -> None:
        name: Deferred[str] = Deferred()
        self.names.name = name
        client = self.connect()
        self.assertFalse(client.transport.reading)
        self.assertEqual(self.lines, [])
        name.callback("unknown")
        self.assertTrue(client.transport.reading)
        client.send(packet())
        self.assertEqual(client.reply, OK)
        self.assertEqual(self.lines[0], "connect from unknown[192.0.2.1]")
        self.assertEqual(self.clients.asked, [("unknown", "192.0.2.1")])

    def test_clients_that_come_again(self) -> None:
        """The access list is asked once for a client, by name and address, if its answers are stable."""
        for stable, asked in ((False, 3), (True, 2)):
            self.clients.stable = stable
            self.clients.asked.clear()
            factory = self.make_factory("")
            self.names.name = "client.example"
            for answer in (True, False):
                self.clients.answer = answer
                refused = b"not authorized" in self.refusal(factory)
                self.assertEqual(refused, not answer and not stable)
            self.names.name = "other.example"
            self.assertIn(b"not authorized", self.refusal(factory))
            self.assertEqual(len(self.clients.asked), asked)
            factory.reconfigure(config_from_text(""))
            self.refusal(factory)
            self.assertEqual(len(self.clients.asked), asked + 1)

    def refusal(self, factory: QMQPServerFactory) -> bytes:
        client = self.connect(factory)
        self.clock.advance(10)
        client.end()
        return client.reply

    def test_client_gone_while_its_name_is_looked_up(self) -> None:
        name: Deferred[str] = Deferred()
        self.names.name = name
        client = self.connect()
        client.end(clean=False)
        name.callback("late.example")
        self.assertEqual(self.lines, [])
        self.assert_quiet()

    def test_reload_does_not_change_open_connections(self) -> None:
        old = self.connect()
        self.factory.reconfigure(config_from_text("message_size_limit = 10\n"))
        new = self.connect()
        old.send(packet())
        self.assertEqual(old.reply, OK)
        new.send(packet())
        self.clock.advance(1)
        self.assertIn(b"exceeds storage limit", new.reply)


class RefuseTests(ServerTestCase):
    """Each negative reply comes after qmqpd_error_delay, and not before."""

    def check(self, client: Connection, reply: bytes) -> None:
        self.assertEqual(client.reply, b"")
        self.clock.advance(0.9)
        self.assertEqual(client.reply, b"")
        self.clock.advance(0.1)
        self.assertEqual(client.reply, encode(reply))
        self.assertTrue(client.transport.finished_writing)
        self.assertEqual(self.cleanup.accepted, [])
        self.assertTrue(all(message.aborted for message in self.cleanup.begun))
        client.finish_sending()
        self.assertTrue(client.closed)
        client.end()
        self.assertEqual(self.lines[-1], "disconnect from client.example[192.0.2.1]")
        self.assert_quiet()

    def test_format_error(self) -> None:
        client = self.connect()
        client.send(b"50:1:a,x")
        self.check(client, b"Dnetstring format error while receiving sender address")
        self.assertEqual(
            self.lines[2],
            "ID1: client.example[192.0.2.1]: netstring format error while receiving sender address",
        )

    def test_size_error(self) -> None:
        client = self.connect()
        client.send(b"20000000:10240001:")
        self.check(client, b"Dnetstring length exceeds storage limit while receiving message content")

    def test_no_recipients(self) -> None:
        client = self.connect()
        client.send(packet(recipients=[]))
        self.check(client, b"DError: no recipients specified")
        self.assertEqual(
            self.lines[2], "warning: ID1: client.example[192.0.2.1]: Error: no recipients specified"
        )

    def test_verp_delimiters(self) -> None:
        client = self.connect()
        client.send(packet(sender=b"list!@example.com-@[]"))
        self.check(client, b'DError: Invalid VERP delimiters: "!=". Need two characters from "-=+"')

    def test_verp_delimiters_are_reported_before_missing_recipients(self) -> None:
        client = self.connect()
        client.send(packet(sender=b"list\x80@example.com-@[]", recipients=[]))
        self.check(client, b'DError: Invalid VERP delimiters: "?=". Need two characters from "-=+"')

    def test_unauthorized(self) -> None:
        self.clients.answer = False
        client = self.connect()
        self.check(client, b"DError: client.example[192.0.2.1] is not authorized to use this service")
        self.assertEqual(self.cleanup.begun, [])

    def test_unauthorized_and_talking(self) -> None:
        self.clients.answer = False
        client = self.connect()
        client.send(packet())
        self.check(client, b"DError: client.example[192.0.2.1] is not authorized to use this service")
        self.assertEqual(self.cleanup.begun, [])

    def test_broken_client_list(self) -> None:
        for problem in (ConfigError("/etc/clients: cannot be read"), LookupError("table"), OSError("x")):
            self.clients.answer = problem
            client = self.connect()
            self.check(client, b"ZError: server configuration error")
            self.assertIn(f"warning: qmqpd_authorized_clients: {problem}", self.lines)

    def test_refused_by_cleanup(self) -> None:
        for permanent, reply_class in ((True, b"D"), (False, b"Z")):
            # The text may come with or without its first word.
            text = "too many hops" if permanent else "Error: too many hops"
            self.cleanup.finish_error = IntakeError(permanent, "5.4.6", text)
            client = self.connect()
            client.send(packet())
            self.check(client, reply_class + b"Error: too many hops")
            self.assertTrue(self.lines[-2].endswith(": Error: too many hops"))

    def test_refused_at_the_first_byte(self) -> None:
        self.cleanup.begin_error = IntakeError(False, "4.3.1", "insufficient system storage")
        client = self.connect()
        client.send(b"1")
        self.check(client, b"ZError: insufficient system storage")
        self.assertEqual(
            self.lines[1],
            "warning: NOQUEUE: client.example[192.0.2.1]: Error: insufficient system storage",
        )

    def test_defect_in_cleanup(self) -> None:
        self.cleanup.finish_error = SpoolError("disk on fire")
        client = self.connect()
        client.send(packet())
        self.check(client, b"ZError: queue file write error")
        self.assertEqual(len(self.flushLoggedErrors(SpoolError)), 1)

    def test_defect_in_begin(self) -> None:
        self.cleanup.begin_error = RuntimeError("bug")
        client = self.connect()
        client.send(packet())
        self.check(client, b"ZError: queue file write error")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_reply_is_printable_and_bounded(self) -> None:
        self.cleanup.finish_error = IntakeError(True, "5.0.0", "a\r\nb\u20ac" + "x" * 5000)
        client = self.connect()
        client.send(packet())
        self.clock.advance(1)
        self.assertTrue(client.reply.startswith(b"1001:DError: a??b?xxx"))

    def test_client_gone_during_the_delay(self) -> None:
        client = self.connect()
        client.send(b"x")
        client.end(clean=False)
        self.assertEqual(client.reply, b"")
        self.assert_quiet()

    def test_client_that_finishes_sending_during_the_delay(self) -> None:
        client = self.connect()
        client.send(b"x")
        client.finish_sending()
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertIn(b"Dnetstring format error", client.reply)
        self.assertTrue(client.closed)
        client.end()
        self.assert_quiet()


class SoftBounceTests(ServerTestCase):
    config = "soft_bounce = yes\nqmqpd_error_delay = 0\n"

    def test_every_d_becomes_z(self) -> None:
        for data in (b"x", packet(recipients=[]), packet(sender=b"a!@b-@[]"), b"99999999:99999999:"):
            client = self.connect()
            client.send(data)
            self.assertEqual(client.reply.split(b":", 1)[1][:1], b"Z")

    def test_unauthorized(self) -> None:
        self.clients.answer = False
        self.assertEqual(self.connect().reply.split(b":", 1)[1][:1], b"Z")

    def test_without_delay(self) -> None:
        client = self.connect()
        client.send(b"x")
        self.assertEqual(client.reply, encode(b"Znetstring format error while receiving QMQP packet header"))


class DrainTests(ServerTestCase):
    """A client that sends on after it was refused gets its reply all the same."""

    config = "qmqpd_timeout = 20s\n"

    def test_input_is_read_and_thrown_away(self) -> None:
        client = self.connect()
        client.send(b"20000000:19999990:")
        self.clock.advance(1)
        for _ in range(20):
            client.send(b"x" * 65536)
        self.assertFalse(client.closed)
        client.finish_sending()
        self.assertTrue(client.closed)

    def test_not_for_ever(self) -> None:
        client = self.connect()
        client.send(b"x")
        self.clock.advance(1)
        for _ in range(19):
            self.clock.advance(1)
            client.send(b"x")
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        client.end()
        self.assert_quiet()

    def test_a_stranger_is_not_given_much_time(self) -> None:
        """Who may not use the service does not keep a place from those who may."""
        self.clients.answer = False
        for config, seconds in (
            ("", 5),
            ("qmqpd_unauthorized_time_limit = 9s\n", 9),
            ("qmqpd_timeout = 3s\n", 3),
        ):
            client = self.connect(self.make_factory(config))
            self.clock.advance(1)
            self.assertIn(b"not authorized", client.reply)
            for _ in range(seconds):
                self.assertFalse(client.closed)
                client.send(b"x")
                self.clock.advance(1)
            self.assertTrue(client.transport.aborted)
            client.end()
        self.assert_quiet()

    def test_not_without_bounds(self) -> None:
        factory = self.make_factory("", drain_limit=1000)
        client = self.connect(factory)
        client.send(b"x")
        self.clock.advance(1)
        client.send(b"x" * 1000)
        self.assertFalse(client.closed)
        client.send(b"x")
        self.assertTrue(client.closed)
        client.end()

    def test_too_much_before_the_reply(self) -> None:
        factory = self.make_factory("", drain_limit=1000)
        client = self.connect(factory)
        client.send(b"x")
        client.send(b"x" * 1001)
        self.assertFalse(client.transport.reading)
        self.clock.advance(1)
        self.assertIn(b"Dnetstring", client.reply)
        self.assertTrue(client.closed)
        client.end()


class BackPressureTests(ServerTestCase):
    """A slow store pauses the client; everything arrives in order all the same."""

    def setUp(self) -> None:
        super().setUp()
        self.cleanup.slow_store = True

    def test_content(self) -> None:
        client = self.connect()
        data = packet(b"x" * 100)
        client.send(data[:50])
        self.assertFalse(client.transport.reading)
        [message] = self.cleanup.begun
        self.assertEqual(len(message.waiting), 1)
        message.waiting[0].callback(None)
        self.assertTrue(client.transport.reading)
        client.send(data[50:100])
        self.assertFalse(client.transport.reading)

    def test_recipients_wait_their_turn(self) -> None:
        client = self.connect()
        client.send(packet(recipients=[b"a@x", b"b@x", b"c@x"]))
        [message] = self.cleanup.begun
        seen = []
        while message.waiting:
            seen.append(len(message.recipients))
            self.assertFalse(client.transport.reading)
            self.assertEqual(client.reply, b"")
            message.waiting.pop().callback(None)
        self.assertEqual(seen, [0, 1, 2, 3])
        self.assertEqual(client.reply, OK)
        client.end()
        self.assert_quiet()

    def test_failed_write_is_reported_by_finish(self) -> None:
        self.cleanup.finish_error = IntakeError(False, "4.3.0", "queue file write error")
        client = self.connect()
        client.send(packet())
        [message] = self.cleanup.begun
        message.waiting.pop().errback(SpoolError("disk"))
        message.waiting.pop().callback(None)
        self.clock.advance(1)
        self.assertEqual(client.reply, encode(b"ZError: queue file write error"))

    def test_the_error_after_a_pause(self) -> None:
        client = self.connect()
        client.send(b"50:1:a,x")
        [message] = self.cleanup.begun
        message.waiting.pop().callback(None)
        self.assertTrue(client.transport.reading)
        self.clock.advance(1)
        self.assertIn(b"Dnetstring format error while receiving sender address", client.reply)
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_lost_while_paused(self) -> None:
        client = self.connect()
        client.send(packet())
        client.end(clean=False)
        [message] = self.cleanup.begun
        self.assertTrue(message.aborted)
        message.waiting.pop().callback(None)
        self.assertEqual(message.recipients, [])
        self.assert_quiet()


class LostConnectionTests(ServerTestCase):
    """A client that goes away gets no reply, and its message is no more."""

    def test_at_every_stage(self) -> None:
        for data, part, queue_id in (
            (b"", "QMQP packet header", "NOQUEUE"),
            (b"12", "QMQP packet header", "ID1"),
            (b"120:100:abc", "message content", "ID2"),
            (b"120:2:x\n,5:ab", "sender address", "ID3"),
            (b"120:2:x\n,5:a@b.c,5:ab", "recipient address", "ID4"),
            (packet()[:-1], "QMQP packet trailer", "ID5"),
        ):
            client = self.connect()
            if data:
                client.send(data)
            client.finish_sending()
            self.assertTrue(client.closed)
            client.end()
            self.assertEqual(client.reply, b"")
            self.assertEqual(
                self.lines[-2],
                f"{queue_id}: client.example[192.0.2.1]: lost connection while receiving {part}",
            )
        self.assertTrue(all(message.aborted for message in self.cleanup.begun))
        self.assert_quiet()

    def test_reset(self) -> None:
        client = self.connect()
        client.send(b"120:100:abc")
        client.end(clean=False)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertEqual(
            self.lines[2],
            "ID1: client.example[192.0.2.1]: lost connection while receiving message content",
        )
        self.assert_quiet()

    def test_reset_before_the_reply(self) -> None:
        """Nobody can hear the K, and the client will come again: the message must not stay."""
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet())
        client.end(clean=False)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertEqual(self.cleanup.accepted, [])
        self.assertEqual(
            self.lines[2],
            "ID1: client.example[192.0.2.1]: lost connection while sending completion status",
        )
        self.assert_quiet()
