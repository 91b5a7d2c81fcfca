"""Time limits of the QMQP server."""

from __future__ import annotations

from qmqpd_tx.netstring import encode
from tests.qmqp.packets import packet
from tests.qmqp.serving import ServerTestCase

LATE = encode(b"ZError: queue file write error (not done within 60s)")


class ReadTimeoutTests(ServerTestCase):
    config = "qmqpd_timeout = 100s\n"

    def test_silent_client(self) -> None:
        client = self.connect()
        self.clock.pump([1] * 99)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.closed)
        self.assertEqual(client.reply, b"")
        self.assertEqual(self.cleanup.begun, [])
        client.end()
        self.assertEqual(
            self.lines[1:],
            [
                "NOQUEUE: client.example[192.0.2.1]: read/write timeout while receiving QMQP packet header",
                "disconnect from client.example[192.0.2.1]",
            ],
        )
        self.assert_quiet()

    def test_in_one_step(self) -> None:
        """A clock that jumps must not make the server wait another round."""
        client = self.connect()
        client.send(b"120:100:abc")
        self.clock.advance(60)
        self.assertFalse(client.closed)
        self.clock.advance(40)
        self.assertTrue(client.closed)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertTrue(self.lines[-1].endswith("read/write timeout while receiving message content"))

    def test_slow_drip_passes(self) -> None:
        client = self.connect()
        data = packet()
        for position in range(len(data)):
            self.clock.advance(99)
            self.assertFalse(client.closed)
            client.send(data[position : position + 1])
        self.assertEqual(client.reply, encode(b"KOk: queued as ID1"))

    def test_client_that_does_not_take_its_reply(self) -> None:
        client = self.connect()
        client.send(packet())
        self.assertTrue(client.closed)
        self.clock.pump([1] * 99)
        self.assertFalse(client.transport.aborted)
        self.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        client.end()
        self.assert_quiet()

    def test_the_pause_is_not_the_clients(self) -> None:
        """While the store makes it wait, qmqpd_timeout does not run."""
        factory = self.make_factory("qmqpd_timeout = 10s\n")
        self.cleanup.slow_store = True
        client = self.connect(factory)
        client.send(b"120:100:abc")
        self.clock.pump([1] * 30)
        self.assertFalse(client.closed)
        self.cleanup.begun[0].waiting.pop().callback(None)
        self.clock.pump([1] * 9)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.closed)


class AnswerTimeTests(ServerTestCase):
    """qmqpd_answer_time_limit: 60 seconds from the client's last byte."""

    def test_commit_too_slow(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        data = packet()
        self.clock.advance(50)
        client.send(data[:10])
        self.clock.advance(25)
        client.send(data[10:])
        self.clock.pump([1] * 59)
        self.assertEqual(client.reply, b"")
        self.assertFalse(self.cleanup.begun[0].aborted)
        self.clock.advance(1)
        self.assertEqual(client.reply, LATE)
        self.assertTrue(self.cleanup.begun[0].aborted)
        self.assertEqual(self.cleanup.accepted, [])
        self.assertEqual(
            self.lines[2],
            "warning: ID1: client.example[192.0.2.1]: Error: queue file write error (not done within 60s)",
        )
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_other_limit(self) -> None:
        factory = self.make_factory("qmqpd_answer_time_limit = 5s\n")
        self.cleanup.slow_commit = True
        client = self.connect(factory)
        self.clock.advance(3)
        client.send(packet())
        self.clock.pump([1] * 4)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertIn(b"(not done within 5s)", client.reply)

    def test_just_in_time(self) -> None:
        self.cleanup.slow_commit = True
        client = self.connect()
        client.send(packet())
        self.clock.advance(59.9)
        self.cleanup.begun[0].done()
        self.assertEqual(client.reply, encode(b"KOk: queued as ID1"))
        client.end()
        self.assert_quiet()

    def test_store_never_takes_the_content(self) -> None:
        """The client may have sent everything: it must have its answer in time."""
        self.cleanup.slow_store = True
        client = self.connect()
        client.send(packet()[:20])
        self.clock.pump([1] * 59)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertEqual(client.reply, LATE)
        self.assertTrue(client.transport.reading)
        self.cleanup.begun[0].waiting.pop().callback(None)
        client.finish_sending()
        client.end()
        self.assert_quiet()

    def test_bytes_that_waited_for_their_turn(self) -> None:
        """What is read when its turn has come may have been sent when the client connected."""
        for seconds in (50, 70):
            factory = self.make_factory("", max_connections=1)
            self.cleanup.slow_commit = True
            first, second = self.connect(factory), self.connect(factory)
            self.clock.pump([1] * seconds)
            first.end()
            second.send(packet())
            self.clock.pump([1] * max(0, 59 - seconds))
            self.assertEqual(second.reply, b"")
            self.clock.advance(1 if seconds < 60 else 0)
            self.assertEqual(second.reply, LATE)
            self.assertTrue(self.cleanup.begun[-1].aborted)
            second.finish_sending()
            second.end()

    def test_bytes_that_waited_in_the_kernel(self) -> None:
        """What is read after a pause may have been sent when the pause began."""
        self.cleanup.slow_store = True
        self.cleanup.slow_commit = True
        client = self.connect()
        data = packet(b"x" * 100)
        client.send(data[:50])
        [message] = self.cleanup.begun
        self.clock.pump([1] * 40)
        self.cleanup.slow_store = False
        message.waiting.pop().callback(None)
        client.send(data[50:])
        self.clock.pump([1] * 19)
        self.assertEqual(client.reply, b"")
        self.clock.advance(1)
        self.assertEqual(client.reply, LATE)
        self.assertTrue(message.aborted)
