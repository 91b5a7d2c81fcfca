"""
The DNS servers that the service asks: C{dns_resolver_addresses}, and the names of clients.
"""

from __future__ import annotations

import socket
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.resolver import dns_servers, make_resolver
from tests.peers import free_port
from tests.service import RunningService, wait_until
from tests.system.names import CLIENT, NAME, NameServer
from tests.system.support import scratch


class ParameterTests(SynchronousTestCase):
    """C{dns_resolver_addresses}."""

    def test_forms(self) -> None:
        """
        Address, address and port, IPv6 with and without brackets.
        """
        text = (
            "dns_resolver_addresses = 192.0.2.1, 192.0.2.2:5353 [2001:db8::1] [2001:db8::2]:5300 2001:db8::3"
        )
        self.assertEqual(
            dns_servers(config_from_text(text)),
            [
                ("192.0.2.1", 53),
                ("192.0.2.2", 5353),
                ("2001:db8::1", 53),
                ("2001:db8::2", 5300),
                ("2001:db8::3", 53),
            ],
        )

    def test_refused(self) -> None:
        """
        Names, bad ports and rubbish are refused.
        """
        ports = "192.0.2.1:0", "192.0.2.1:x", "192.0.2.1:65536"
        for word in ("localhost", *ports, "[::1", "[::1]x", ":53", "[]"):
            config = config_from_text(f"dns_resolver_addresses = {word}\n")
            self.assertRaises(ConfigError, dns_servers, config)

    def test_no_polling(self) -> None:
        """
        With servers of its own, or in a chroot, nothing looks at /etc/resolv.conf again.
        """
        for text, frozen, calls in (
            ("", False, 1),
            ("", True, 0),
            ("dns_resolver_addresses = ::1", False, 0),
        ):
            clock = Clock()
            make_resolver(clock, config_from_text(text), frozen)
            self.assertEqual(len(clock.getDelayedCalls()), calls, (text, frozen))


class NameTests(SynchronousTestCase):
    """The names of clients, with a real DNS server."""

    def service(self, server: NameServer, settings: str = "") -> RunningService:
        """
        @return: a service that asks only this server.
        """
        common = f"dns_resolver_addresses = {server.address}\nqmqpd_error_delay = 0\n"
        return RunningService(scratch(self), free_port(), common + settings)

    def connect(self, service: RunningService) -> socket.socket:
        """
        @return: a connection from the client's address.
        """
        return socket.create_connection(("127.0.0.1", service.port), 10, source_address=(CLIENT, 0))

    def test_authorized_by_name(self) -> None:
        """
        A client is known, logged and authorized by its confirmed name, which is asked for once.
        """
        settings = "qmqpd_authorized_clients = .example.test\nparent_domain_matches_subdomains =\n"
        with NameServer() as server, self.service(server, settings) as service:
            before = server.questions
            for _ in range(2):
                with self.connect(service) as client:
                    client.sendall(b"15:2:x\n,1:a,3:b@c,,")
                    self.assertIn(b":KOk", client.recv(100))
            service.wait_for_log(f"client={NAME}[{CLIENT}]")
            self.assertLessEqual(server.questions - before, 6)

    def test_silent_server(self) -> None:
        """
        With a DNS that says nothing a client is C{unknown} after qmqpd_client_name_timeout.
        """
        settings = f"qmqpd_client_name_timeout = 1s\nqmqpd_authorized_clients = {CLIENT}\n"
        with NameServer(answers=False) as server, self.service(server, settings) as service:
            began = time.monotonic()
            with self.connect(service) as client:
                client.sendall(b"15:2:x\n,1:a,3:b@c,,")
                self.assertIn(b":KOk", client.recv(100))
            self.assertLess(time.monotonic() - began, 4)
            service.wait_for_log(f"client=unknown[{CLIENT}]")

    def test_stop_meanwhile(self) -> None:
        """
        The end of the service does not wait for a name.
        """
        settings = "qmqpd_client_name_timeout = 60s\nqmgr_shutdown_time_limit = 60s\n"
        with NameServer(answers=False) as server, self.service(server, settings) as service:
            service.wait_for_log("accepting mail on")
            with self.connect(service) as client:
                client.sendall(b"15:2:x\n,1:a,3:b@c,,")
                wait_until(lambda: server.questions > 0, 5, "a question")
                began = time.monotonic()
                service.stop()
                self.assertLess(time.monotonic() - began, 20)
                self.assertEqual(client.recv(100), b"")
            self.assertNotIn("Traceback", service.log_text())
            self.assertEqual(service.output.read_text(), "")
