"""
How a client's mail is treated: receive_override_options, content_filter, cleanup_service_name,
qmqpd_local_header_rewrite_clients, remote_header_rewrite_domain.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from qmqpd_tx.address.own import is_local_address
from qmqpd_tx.config import config_from_text
from qmqpd_tx.intake import Intake, Listeners, intakes
from qmqpd_tx.interfaces import ConfigError, ICleanup, TableError, Treatment
from qmqpd_tx.qmqp.admission import ClientLists
from qmqpd_tx.qmqp.clients import OwnAddresses, read_client_lists
from qmqpd_tx.tables import HostMatchList, ILookupTable, open_table
from tests.qmqp.cleanup import MemoryCleanup
from tests.qmqp.packets import packet
from tests.qmqp.serving import Connection, ServerTestCase


@implementer(ILookupTable)
class Table:
    """A table that answers when the test wants."""

    name = "tcp:test"
    fixed_keys = True
    immediate = False
    stable = False
    sources = ()

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer: Deferred[bytes | None] = Deferred()

    def lookup(self, key: bytes) -> Any:
        self.asked.append(key)
        return self.answer

    def close(self) -> None:
        pass


class TreatmentTests(ServerTestCase):
    def treatment(self, text: str) -> Treatment:
        self.cleanup = MemoryCleanup()
        client = self.connect(self.make_factory(text))
        client.send(packet())
        self.assertIn(b"KOk", client.reply)
        client.end()
        return self.cleanup.begun[0].treatment

    def test_options(self) -> None:
        for text, treatment in (
            ("", Treatment()),
            ("receive_override_options = no_address_mappings\n", Treatment(mappings=False)),
            ("receive_override_options = no_header_body_checks\n", Treatment(checks=False)),
            ("receive_override_options = no_milters\n", Treatment(milters=False)),
            ("receive_override_options = no_unknown_recipient_checks\n", Treatment()),
            (
                "receive_override_options = no_milters, no_address_mappings no_header_body_checks\n",
                Treatment(False, False, False),
            ),
            ("content_filter = scan:[127.0.0.1]:10025\n", Treatment(content_filter="scan:[127.0.0.1]:10025")),
        ):
            self.assertEqual((text, self.treatment(text)), (text, treatment))

    def test_delimiters(self) -> None:
        """
        C{default_verp_delimiters} must be two characters that are allowed, as for Postfix's qmqpd.
        """
        for text in (
            "default_verp_delimiters = +",
            "default_verp_delimiters = ab",
            "verp_delimiter_filter = -=",
        ):
            error = self.assertRaises(ConfigError, self.make_factory, text + "\n")
            self.assertIn("default_verp_delimiters", str(error))

    def test_unknown_option(self) -> None:
        error = self.assertRaises(
            ConfigError, config_from_text, "receive_override_options = no_milters, no_foo\n"
        )
        self.assertIn("main.cf, line 1: parameter receive_override_options", str(error))
        self.assertIn('"no_foo"', str(error))

    def test_reload(self) -> None:
        self.factory.reconfigure(config_from_text("receive_override_options = no_milters\n"))
        client = self.connect()
        client.send(packet())
        self.assertEqual(self.cleanup.begun[0].treatment, Treatment(milters=False))


class LocalClientTests(ServerTestCase):
    """qmqpd_local_header_rewrite_clients"""

    def client(self, text: str, address: str = "192.0.2.1", table: Table | None = None) -> Connection:
        def open_(name: str, parameter: str) -> Any:
            return table if name.startswith("tcp:") else open_table(name, parameter)

        config = config_from_text(text + "remote_header_rewrite_domain = domain.invalid\n")
        lists = read_client_lists(
            config,
            lambda words, parameter, parents: HostMatchList(words, parameter, parents),
            open_,
            lambda address: address == "192.0.2.1",
        )
        factory = self.make_factory(
            "remote_header_rewrite_domain = domain.invalid\n", lists={"local": lists.local}
        )
        return Connection(factory, IPv4Address("TCP", address, 9))

    def is_local(self, text: str, address: str = "192.0.2.1") -> bool:
        self.cleanup = MemoryCleanup()
        self.client(text, address).send(packet())
        treatment = self.cleanup.begun[0].treatment
        self.assertIn(treatment, (Treatment(), Treatment(remote_domain="domain.invalid")))
        return treatment.remote_domain is None

    def test_words(self) -> None:
        own = "qmqpd_local_header_rewrite_clients ="
        inherited = f"{own} $local_header_rewrite_clients\n"
        for text, address, local in (
            # As Postfix: whatever local_header_rewrite_clients says, mail by QMQP is local.
            ("", "203.0.113.9", True),
            ("local_header_rewrite_clients =\n", "203.0.113.9", True),
            (f"{own} static:all, permit_mynetworks\n", "203.0.113.9", True),
            (f"{own}\n", "192.0.2.1", False),
            (inherited, "192.0.2.1", True),
            (inherited, "192.0.2.2", False),
            (f"local_header_rewrite_clients = permit_mynetworks\n{inherited}", "127.0.0.9", True),
            (f"mynetworks = 192.0.2.0/24\n{own} permit_mynetworks\n", "192.0.2.200", True),
            (f"mynetworks = !192.0.2.200, 192.0.2.0/24\n{own} permit_mynetworks\n", "192.0.2.200", False),
            (f"{own} check_address_map inline:{{ {{192.0.2.3 = x}} }}\n", "192.0.2.3", True),
            (f"{own} inline:{{ {{192.0.2.3 = x}} }}\n", "192.0.2.3", True),
            (f"{own} inline:{{ {{192.0.2 = x}} {{client.example = x}} }}\n", "192.0.2.3", False),
            (f"{own} permit_sasl_authenticated permit_tls_clientcerts\n", "192.0.2.1", False),
            (f"{own} permit_tls_all_clientcerts, permit_inet_interfaces\n", "192.0.2.1", True),
        ):
            self.assertEqual((text, address, self.is_local(text, address)), (text, address, local))

    def test_mistakes(self) -> None:
        for value in ("permit_foo", "check_address_map", "check_address_map permit_mynetworks", "127.0.0.1"):
            error = self.assertRaises(
                ConfigError, self.client, f"qmqpd_local_header_rewrite_clients = {value}\n"
            )
            self.assertIn("qmqpd_local_header_rewrite_clients: ", str(error))

    def test_table_that_takes_its_time(self) -> None:
        for answer, local in ((b"x", True), (None, False)):
            self.cleanup = MemoryCleanup()
            table = Table()
            client = self.client("qmqpd_local_header_rewrite_clients = tcp:test\n", table=table)
            self.assertFalse(client.transport.reading)
            self.assertEqual(table.asked, [b"192.0.2.1"])
            table.answer.callback(answer)
            client.send(packet())
            self.assertEqual(self.cleanup.begun[0].treatment.remote_domain is None, local)

    def test_table_that_cannot_say(self) -> None:
        table = Table()
        client = self.client("qmqpd_local_header_rewrite_clients = tcp:test\n", table=table)
        table.answer.errback(TableError("tcp:test: connection refused"))
        self.clock.advance(1)
        self.assertIn(b"ZError: server configuration error", client.reply)
        self.assertEqual(self.cleanup.begun, [])

    def test_own_addresses(self) -> None:
        """permit_inet_interfaces"""
        for interfaces, address, ours in (
            (["192.0.2.1", "[2001:db8::1]"], "192.0.2.1", True),
            (["192.0.2.1", "[2001:db8::1]"], "2001:db8::1", True),
            (["192.0.2.1"], "127.0.0.1", False),
            (["loopback-only"], "127.0.0.1", True),
            (["loopback-only"], "::1", True),
            (["loopback-only"], "192.0.2.1", False),
        ):
            self.assertEqual(OwnAddresses(interfaces, is_local_address).matches("", address), ours)
        self.assertTrue(OwnAddresses(["all"], is_local_address).matches("", "127.0.0.1"))
        self.assertFalse(OwnAddresses(["all"], is_local_address).matches("", "192.0.2.1"))

    def test_own_addresses_come_and_go(self) -> None:
        """Whether an address is ours is remembered until a reload."""
        ours: set[str] = set()
        text = "qmqpd_local_header_rewrite_clients = permit_inet_interfaces\n"

        def read() -> ClientLists:
            return read_client_lists(
                config_from_text(text),
                lambda words, parameter, parents: HostMatchList(words, parameter, parents),
                open_table,
                ours.__contains__,
            )

        def local(lists: ClientLists) -> bool:
            assert lists.local is not None
            return any(clients.matches("", "192.0.2.1") for clients in lists.local)

        before = read()
        self.assertFalse(local(before))
        ours.add("192.0.2.1")
        self.assertFalse(local(before))
        self.assertTrue(local(read()))


class ServiceTests(ServerTestCase):
    """What -o options of a qmqpd line in master.cf say."""

    MASTER = (
        "127.0.0.1:628 inet n - n - 5 qmqpd\n"
        "127.0.0.1:629 inet n - n - - qmqpd -o receive_override_options=no_milters -o content_filter=scan:\n"
        "  -o cleanup_service_name=other\n"
        "other unix n - n - 0 cleanup -o header_checks=\n"
    )

    def services(self, master: str, main: str = "") -> list[Intake]:
        config = config_from_text(f"qmqpd_authorized_clients = 127.0.0.1\n{main}", master)
        return list(intakes(config, [], open_table))

    def test_each_line_is_a_service(self) -> None:
        usual, special = self.services(self.MASTER)
        self.assertEqual(
            (usual.service, usual.cleanup, usual.max_connections), ("127.0.0.1:628", "cleanup", 5)
        )
        self.assertEqual((special.service, special.cleanup), ("127.0.0.1:629", "other"))
        self.assertEqual(special.config.string("content_filter"), "scan:")
        self.assertEqual(special.config.string("service_name"), "127.0.0.1:629")

    def only_cleanup(self, _name: str) -> ICleanup:
        return cast(ICleanup, self.cleanup)

    def test_mail_goes_to_the_cleanup_of_its_service(self) -> None:
        cleanups = {"cleanup": MemoryCleanup(), "other": MemoryCleanup()}
        reactor: Any = MemoryReactorClock()
        services = self.services(self.MASTER)
        listeners = Listeners(
            reactor,
            lambda name: cast(ICleanup, cleanups[name]),
            self.names,  # type: ignore[arg-type]
            services,
            1000,
        )
        listeners.bind((None, None))
        first, second = (server[1] for server in reactor.tcpServers)
        for factory in (first, second):
            Connection(factory, IPv4Address("TCP", "127.0.0.1", 9)).send(packet())
        self.assertEqual([message.treatment for message in cleanups["cleanup"].accepted], [Treatment()])
        self.assertEqual(
            [message.treatment for message in cleanups["other"].accepted],
            [Treatment(milters=False, content_filter="scan:")],
        )
        # A reload may choose another one.
        changed = self.services(self.MASTER.replace("  -o cleanup_service_name=other\n", ""))
        listeners.reconfigure(changed)
        Connection(second, IPv4Address("TCP", "127.0.0.1", 9)).send(packet())
        self.assertEqual(len(cleanups["cleanup"].accepted), 2)

    def test_proxied_endpoint(self) -> None:
        """A haproxy: description in master.cf, as Twisted has it."""
        reactor: Any = MemoryReactorClock()
        services = self.services("haproxy:tcp:628 inet n - n - - qmqpd\n")
        listeners = Listeners(reactor, self.only_cleanup, self.names, services, 1000)  # type: ignore[arg-type]
        listeners.bind((None, None))
        self.assertEqual(listeners.endpoints, ["haproxy:tcp:628"])
        [(_port, factory, *_rest)] = reactor.tcpServers
        connection = factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", 9))
        self.assertEqual(type(connection).__name__, "ProxiedConnection")

    def test_unknown_cleanup_service(self) -> None:
        master = "628 inet n - n - - qmqpd -o cleanup_service_name=foo\nfoo unix - - n - - smtp\n"
        error = self.assertRaises(ConfigError, self.services, master)
        self.assertIn("master.cf, line 1: cleanup_service_name = foo: ", str(error))

    def test_unknown_option(self) -> None:
        master = "628 inet n - n - - qmqpd -o receive_override_options=no_foo\n"
        error = self.assertRaises(ConfigError, self.services, master)
        self.assertIn(
            'master.cf, line 1: parameter receive_override_options: unknown value "no_foo"', str(error)
        )

    def test_refresh(self) -> None:
        """max_use of each line counts for itself."""
        looked: list[None] = []
        reactor: Any = MemoryReactorClock()
        services = self.services("628 inet n - n - - qmqpd -o max_use=1\n", "inet_interfaces = 127.0.0.1\n")
        listeners = Listeners(
            reactor,
            self.only_cleanup,
            self.names,  # type: ignore[arg-type]
            services,
            1000,
            refresh=lambda: looked.append(None),
        )
        listeners.bind((None, None))
        client = Connection(reactor.tcpServers[0][1], IPv4Address("TCP", "127.0.0.1", 9))
        client.send(packet())
        client.end()
        self.assertEqual(looked, [None])
