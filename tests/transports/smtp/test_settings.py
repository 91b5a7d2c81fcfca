"""Configuration that cannot be used is refused, naming parameter and remedy."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.interfaces import ConfigError, IDeliveryAgent, IDeliveryTransport, TransportContext
from qmqpd_tx.transports.smtp import SMTPAgent
from tests.transports.smtp.support import Zone, config


class Settings(SynchronousTestCase):
    def make(self, text: str = "", arguments: tuple[str, ...] = ()):
        context = TransportContext("relay", config(text), MemoryReactorClock(), Zone({}), arguments)
        return SMTPAgent().transport(context)

    def test_interfaces(self) -> None:
        verifyObject(IDeliveryAgent, SMTPAgent())
        verifyObject(IDeliveryTransport, self.make())
        self.assertEqual((SMTPAgent.command, self.make().program), ("smtp", "smtp"))

    def test_bad_values(self) -> None:
        for name, value in [
            ("smtp_tcp_port", "nonsense"),
            ("inet_protocols", "ipv5"),
            ("smtp_address_preference", "ipv9"),
            ("smtp_dns_support_level", "dnssec"),
            ("smtp_host_lookup", "hosts"),
        ]:
            failure = self.assertRaises(ConfigError, self.make, f"{name} = {value}\n")
            self.assertIn(name, str(failure))
            self.assertRegex(str(failure), "specify |use ")

    def test_arguments(self) -> None:
        self.make(arguments=("-v",))
        failure = self.assertRaises(ConfigError, self.make, "", ("flags=R",))
        self.assertIn("flags=R", str(failure))

    def test_a_bad_reconfiguration_changes_nothing(self) -> None:
        transport = self.make()
        self.assertRaises(ConfigError, transport.reconfigure, config("smtp_tcp_port = nonsense\n"))
        transport.reconfigure(config("smtp_tcp_port = submission\n"))
