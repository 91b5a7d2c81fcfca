"""The verbose log of some clients: debug_peer_list, debug_peer_level."""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.qmqp.clients import read_client_lists
from qmqpd_tx.tables import HostMatchList, open_table
from tests.qmqp.packets import packet
from tests.qmqp.serving import Clients, Connection, ServerTestCase

VERBOSE = ("match_list", "netstring_", "vstream_")


class TraceTests(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.debug = Clients()

    def talk(self, data: bytes, level: int = 1) -> list[str]:
        """@return: what was logged beyond the usual, reply included."""
        factory = self.make_factory(
            f"debug_peer_level = {level}\nqmqpd_error_delay = 0\n", lists={"debug": self.debug}
        )
        client = self.connect(factory)
        if client.transport.reading and data:
            client.send(data)
        client.finish_sending()
        client.end()
        return [line for line in self.lines if line.startswith(VERBOSE)]

    def test_netstrings_and_reply(self) -> None:
        self.assertEqual(
            self.talk(packet(sender=b"list-@example.com-@[]")),
            [
                "match_list: qmqpd_authorized_clients: client.example 192.0.2.1: match",
                "netstring_get_data: read netstring data Subject: test??body? (20 bytes of message content)",
                "netstring_get_length: read netstring length 21",
                "netstring_get_data: read netstring data list-@example.com-@[]",
                "netstring_get_length: read netstring length 21",
                "netstring_get_data: read netstring data recipient@example.org",
                "netstring_get_terminator: end of the packet",
                "netstring_put: write netstring len 18 data KOk: queued as ID1",
            ],
        )

    def test_level_2_shows_reads(self) -> None:
        data = packet()
        lines = self.talk(data, 2)
        self.assertEqual(lines[1], f"vstream_buf_get_ready: got {len(data)}")
        self.assertEqual(len(lines), 9)

    def test_refusals(self) -> None:
        self.assertEqual(
            self.talk(b"50:1:a,x")[-2:],
            [
                "netstring_except: netstring format error while r",
                "netstring_put: write netstring len 54 data Dnetstring format error while ",
            ],
        )
        self.clients.answer = False
        self.lines.clear()
        self.assertEqual(
            self.talk(b""),
            [
                "match_list: qmqpd_authorized_clients: client.example 192.0.2.1: no match",
                "netstring_put: write netstring len 71 data DError: client.example[192.0.2",
            ],
        )

    def test_nothing_unprintable(self) -> None:
        for line in self.talk(packet(b"\x1b[31m\xc3\xbc\r\n\0" * 9, b"\x9b@x", [b"\n"])):
            self.assertTrue(line.isascii() and line.isprintable(), line)

    def test_others_are_logged_as_usual(self) -> None:
        self.debug.answer = False
        self.assertEqual(self.talk(packet()), [])
        self.assertEqual(self.debug.asked, [("client.example", "192.0.2.1")])

    def test_table_that_cannot_say(self) -> None:
        """The mail is taken: only the log is less verbose."""
        self.debug.answer = TableError("fail:x: table lookup problem")
        self.assertEqual(self.talk(packet()), [])
        self.assertIn("warning: debug_peer_list: fail:x: table lookup problem", self.lines)
        self.assertEqual(len(self.cleanup.accepted), 1)


class ListTests(ServerTestCase):
    """debug_peer_list, as it stands in main.cf."""

    def verbose(self, text: str, name: str, address: str = "192.0.2.1") -> bool:
        config = config_from_text(f"qmqpd_authorized_clients = 0.0.0.0/0\n{text}")
        lists = read_client_lists(
            config,
            lambda words, parameter, parents: HostMatchList(words, parameter, parents),
            open_table,
            is_local_address,
        )
        self.names.name = name
        self.lines.clear()
        factory = self.make_factory(text, lists={"debug": lists.debug})
        Connection(factory, IPv4Address("TCP", address, 1)).end()
        return any(line.startswith(VERBOSE) for line in self.lines)

    def test_patterns(self) -> None:
        for text, name, verbose in (
            ("", "a.example", False),
            ("debug_peer_list = a.example\n", "a.example", True),
            ("debug_peer_list = a.example\n", "b.example", False),
            ("debug_peer_list = 192.0.2.0/24\n", "unknown", True),
            ("debug_peer_list = !192.0.2.1, 192.0.2.0/24\n", "unknown", False),
            ("debug_peer_list = inline:{ {192.0.2.1 = x} }\n", "unknown", True),
            # parent_domain_matches_subdomains has debug_peer_list in it by default.
            ("debug_peer_list = example\n", "a.example", True),
            ("debug_peer_list = example\nparent_domain_matches_subdomains =\n", "a.example", False),
            ("debug_peer_list = .example\nparent_domain_matches_subdomains =\n", "a.example", True),
        ):
            self.assertEqual((text, self.verbose(text, name)), (text, verbose))
