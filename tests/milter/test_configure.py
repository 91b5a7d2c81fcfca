"""
Which filters there are: the forms of non_smtpd_milters, and mistakes in it.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.cleanup.milters import Milters
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.milter.settings import DefaultAction, FilterAddress
from tests.cleanup.support import config
from tests.milter.memory import settings_of


class FilterTests(SynchronousTestCase):
    """Filters."""

    def test_none(self) -> None:
        """By default there are none, and no message needs a stage."""
        self.assertEqual(settings_of("").filters, ())
        self.assertFalse(Milters.from_config(config(""), None).active)
        self.assertTrue(Milters.from_config(config("non_smtpd_milters = unix:/x\n"), None).active)

    def test_addresses(self) -> None:
        """The forms of addresses."""
        for text, address in (
            ("inet:localhost:8891", FilterAddress("localhost", 8891)),
            ("inet:127.0.0.1:8891", FilterAddress("127.0.0.1", 8891)),
            ("inet:[127.0.0.1]:8891", FilterAddress("127.0.0.1", 8891)),
            ("inet:[::1]:8891", FilterAddress("::1", 8891)),
            ("inet6:[IPv6:::1]:8891", FilterAddress("::1", 8891)),
            ("inet:8891@localhost", FilterAddress("localhost", 8891)),
            ("inet6:8891@[::1]", FilterAddress("::1", 8891)),
            ("inet:localhost:smtp", FilterAddress("localhost", 25)),
            ("unix:/run/filter.sock", FilterAddress(path="/run/filter.sock")),
            ("local:/run/filter.sock", FilterAddress(path="/run/filter.sock")),
        ):
            (found,) = settings_of(f"non_smtpd_milters = {text}\n").filters
            self.assertEqual((found.name, found.address), (text, address))

    def test_settings(self) -> None:
        """Each filter has the common settings, or its own."""
        first, second, third = settings_of(
            "non_smtpd_milters = inet:a:1, { inet:b:2, connect_timeout=10s, default_action=accept }\n"
            "    { unix:/c { command_timeout = 1m } content_timeout=2m,protocol=2 }\n"
            "milter_connect_timeout = 7s\nmilter_default_action = reject\n"
        ).filters
        self.assertEqual(
            (first.connect_timeout, first.command_timeout, first.content_timeout, first.default_action),
            (7, 30, 300, DefaultAction.REJECT),
        )
        self.assertEqual((second.connect_timeout, second.default_action), (10, DefaultAction.ACCEPT))
        self.assertEqual(
            (third.connect_timeout, third.command_timeout, third.content_timeout, third.version),
            (7, 60, 120, 2),
        )

    def test_mistakes(self) -> None:
        """Each mistake is refused at the start, and named."""
        for text, part in (
            ("foo", '"foo"'),
            ("inet:127.0.0.1", '"inet:127.0.0.1"'),
            ("inet:host:99999", "host:99999"),
            ("inet:host:nosuchservice", "nosuchservice"),
            ("unix:", '"unix:"'),
            ("{}", '"{}"'),
            ("{ inet:a:1, bogus=1 }", '"bogus=1"'),
            ("{ inet:a:1, accept }", '"accept"'),
            ("{ inet:a:1, connect_timeout=abc }", '"abc"'),
            ("{ inet:a:1, connect_timeout=0 }", '"0"'),
            ("{ inet:a:1, default_action=zork }", '"zork"'),
            ("{ inet:a:1, protocol=5 }", '"5"'),
            ("{ inet:a:1 }x", '"{ inet:a:1 }x"'),
        ):
            error = self.assertRaises(ConfigError, settings_of, f"non_smtpd_milters = {text}\n")
            self.assertIn(part, str(error))

    def test_other_mistakes(self) -> None:
        """So are those in other parameters."""
        for text in (
            "milter_default_action = zork\n",
            "milter_protocol = 5\n",
            "milter_protocol = no_header_reply\nnon_smtpd_milters = unix:/x\n",
            "milter_macro_defaults = x\n",
            "milter_connect_timeout = 0\n",
        ):
            self.assertRaises(ConfigError, settings_of, text)
