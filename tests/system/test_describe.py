"""
From master.cf's service column to Twisted endpoint descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.qmqp.endpoints import endpoint_descriptions


def describe(service: str, text: str = "", service_type: str = "inet") -> Sequence[str]:
    """
    @return: the endpoints, without what they have in common.
    """
    found = endpoint_descriptions(service, config_from_text(text), service_type)
    return [one.removesuffix(":backlog=256") for one in found]


class DescribeTests(SynchronousTestCase):
    """One line."""

    def test_interfaces(self) -> None:
        """
        A bare port is on inet_interfaces, as far as inet_protocols goes, each address once.
        """
        for text, expected in (
            ("inet_protocols = ipv4", ["tcp:628:interface=0.0.0.0"]),
            ("inet_protocols = ipv6", [r"tcp6:628:interface=\:\:"]),
            ("inet_protocols = ipv4\ninet_interfaces = loopback-only", ["tcp:628:interface=127.0.0.1"]),
            ("inet_protocols = ipv6\ninet_interfaces = loopback-only", [r"tcp6:628:interface=\:\:1"]),
            (
                "inet_protocols = ipv4\ninet_interfaces = 192.0.2.1, 192.0.2.2 192.0.2.1",
                ["tcp:628:interface=192.0.2.1", "tcp:628:interface=192.0.2.2"],
            ),
        ):
            self.assertEqual(describe("628", text), expected, text)

    def test_host(self) -> None:
        """
        A host of its own counts instead of inet_interfaces.
        """
        text = "inet_interfaces = 192.0.2.9\n"
        self.assertEqual(describe("192.0.2.1:99", text), ["tcp:99:interface=192.0.2.1"])
        self.assertEqual(
            describe("[2001:db8::1]:99", "inet_protocols = ipv6"), [r"tcp6:99:interface=2001\:db8\:\:1"]
        )

    def test_endpoint(self) -> None:
        """
        A Twisted endpoint of any kind that is installed stays as it is, whatever the type column says.
        """
        tcp, unix = "tcp:99:interface=192.0.2.1", "unix:/run/qmqp:mode=600"
        systemd = "systemd:domain=INET:index=0"
        for service in (tcp, unix, systemd):
            for service_type in ("inet", "unix"):
                self.assertEqual(describe(service, service_type=service_type), [service])

    def test_refused(self) -> None:
        """
        What makes no sense is named.
        """
        for service, text, service_type in (
            ("0", "", "inet"),
            ("65536", "", "inet"),
            ("nonesuch", "", "inet"),
            ("127.0.0.1:", "", "inet"),
            ("::1:628", "inet_protocols = ipv4", "inet"),
            ("628", "", "unix"),
            ("qmqp", "", "fifo"),
        ):
            problem = self.assertRaises(ConfigError, describe, service, text, service_type)
            self.assertIn(f"service {service}: ", str(problem))
        problem = self.assertRaises(ConfigError, describe, "628", "inet_interfaces =")
        self.assertIn("inet_interfaces is empty", str(problem))
