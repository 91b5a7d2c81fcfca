"""A whole configuration: values by type, defaults, overrides, errors."""

from __future__ import annotations

import os
from pathlib import Path

from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.config import Host, config_from_text, load_config
from qmqpd_tx.interfaces import ConfigError, IConfig

HOST = Host(name="relay.example.org", process_id=42)


class ValueTests(SynchronousTestCase):
    """The accessors."""

    def test_interface(self) -> None:
        """
        A configuration provides what the other rooms rely on.
        """
        verifyObject(IConfig, config_from_text(""))

    def test_types(self) -> None:
        """
        Each type as Python has it.
        """
        config = config_from_text(
            "qmqpd_timeout = 3m\nmaximal_queue_lifetime = 2\nhash_queue_depth = +2\nsoft_bounce = YES\n"
            "mydestination = a, b {c, d},\n\te\nrelayhost = [x]:25\n"
            "default_destination_concurrency_negative_feedback = 1 / sqrt_concurrency\n"
        )
        self.assertEqual(config.seconds("qmqpd_timeout"), 180.0)
        self.assertEqual(config.seconds("maximal_queue_lifetime"), 2 * 86400.0)
        self.assertEqual(config.seconds("bounce_queue_lifetime"), 5 * 86400.0)
        self.assertEqual(config.seconds("delay_warning_time"), 0.0)
        self.assertEqual(config.integer("hash_queue_depth"), 2)
        self.assertIs(config.boolean("soft_bounce"), True)
        self.assertIs(config.boolean("qmqpd_client_port_logging"), False)
        self.assertEqual(config.words("mydestination"), ("a", "b", "{c, d}", "e"))
        self.assertEqual(config.string("relayhost"), "[x]:25")
        self.assertEqual(
            config.string("default_destination_concurrency_negative_feedback"), "1/sqrt_concurrency"
        )

    def test_timeUnits(self) -> None:
        """
        A number and one unit, or the parameter's own unit.
        """
        for text, seconds in {"7": 7, "7s": 7, "7m": 420, "7h": 25200, "7d": 604800, "1w": 604800}.items():
            config = config_from_text(f"qmqpd_timeout = {text}")
            self.assertEqual(config.seconds("qmqpd_timeout"), seconds)
        self.assertEqual(config_from_text("delay_warning_time = 4").seconds("delay_warning_time"), 4 * 3600)

    def test_misuse(self) -> None:
        """
        A wrong name or type is the program's mistake, not a value.
        """
        config = config_from_text("own = 1")
        self.assertRaises(KeyError, config.string, "own")
        self.assertRaises(KeyError, config.integer, "nope")
        self.assertRaises(TypeError, config.integer, "qmqpd_timeout")
        self.assertRaises(TypeError, config.seconds, "hash_queue_depth")
        self.assertRaises(TypeError, config.boolean, "relayhost")
        self.assertRaises(TypeError, config.words, "relayhost")

    def test_hostDefaults(self) -> None:
        """
        myhostname comes from the host, mydomain from myhostname, and others from both.
        """
        config = config_from_text("", directory="/etc/x", host=HOST)
        self.assertEqual(config.string("myhostname"), "relay.example.org")
        self.assertEqual(config.string("mydomain"), "example.org")
        self.assertEqual(
            config.words("mydestination"), ("relay.example.org", "localhost.example.org", "localhost")
        )
        self.assertEqual(config.string("config_directory"), "/etc/x")
        self.assertEqual(config.expand("$process_id"), "42")
        other = config_from_text("myhostname = mx.test", host=HOST)
        self.assertEqual((other.string("mydomain"), other.string("myorigin")), ("test", "mx.test"))
        self.assertEqual(config_from_text("myhostname = mx", host=HOST).string("mydomain"), "localdomain")

    def test_reference(self) -> None:
        """
        A value may refer to a parameter that is only known by name, and to a user's own.
        """
        config = config_from_text("own = 9\nrelayhost = $own ${own?x} ${smtpd_soft_error_limit}")
        self.assertEqual(config.string("relayhost"), "9 x 10")

    def test_compatibilityLevel(self) -> None:
        """
        Defaults depend on compatibility_level, as in Postfix.
        """
        self.assertTrue(config_from_text("").boolean("append_dot_mydomain"))
        self.assertFalse(config_from_text("compatibility_level = 3.6").boolean("append_dot_mydomain"))
        self.assertEqual(config_from_text("compatibility_level = 2").words("relay_domains"), ())

    def test_source(self) -> None:
        """
        Every setting remembers its place; raw values are as written.
        """
        config = config_from_text("\n\nrelayhost = $a\na = 1\n")
        source = config.source("relayhost")
        assert source is not None
        self.assertEqual((source.where(), config.raw("relayhost")), ("main.cf, line 3", "$a"))
        self.assertTrue(config.is_set("a"))
        self.assertFalse(config.is_set("mydestination"))
        self.assertIsNone(config.source("mydestination"))
        self.assertEqual(config.raw("mydestination"), "$myhostname, localhost.$mydomain, localhost")
        self.assertRaises(KeyError, config.raw, "nope")

    def test_frozen(self) -> None:
        """
        A configuration does not change.
        """
        config = config_from_text("")
        self.assertRaises(FrozenInstanceError, setattr, config, "file", "x")


class TransportTests(SynchronousTestCase):
    """C{<transport>_} parameters."""

    def test_fallback(self) -> None:
        """
        A transport's own setting counts, else the default parameter, set or not.
        """
        config = config_from_text(
            "smtp_destination_concurrency_limit = 7\ndefault_destination_recipient_limit = 9\n"
            "slow_destination_rate_delay = 2m\nslow_initial_destination_concurrency = 1\n"
            "slow_destination_concurrency_positive_feedback = 1/8\n"
        )
        self.assertEqual(config.transport_integer("smtp", "destination_concurrency_limit"), 7)
        self.assertEqual(config.transport_integer("relay", "destination_concurrency_limit"), 20)
        self.assertEqual(config.transport_integer("relay", "destination_recipient_limit"), 9)
        self.assertEqual(config.transport_seconds("slow", "destination_rate_delay"), 120.0)
        self.assertEqual(config.transport_seconds("smtp", "destination_rate_delay"), 0.0)
        self.assertEqual(config.transport_integer("slow", "initial_destination_concurrency"), 1)
        self.assertEqual(config.transport_integer("smtp", "initial_destination_concurrency"), 5)
        feedback = "destination_concurrency_positive_feedback"
        self.assertEqual(config.transport_string("slow", feedback), "1/8")
        self.assertEqual(config.transport_string("smtp", feedback), "1")

    def test_local(self) -> None:
        """
        Local delivery has defaults of its own.
        """
        config = config_from_text("")
        self.assertEqual(config.transport_integer("local", "destination_recipient_limit"), 1)
        self.assertEqual(config.transport_integer("local", "destination_concurrency_limit"), 2)

    def test_reference(self) -> None:
        """
        A transport's parameter may refer to another's, set or not.
        """
        config = config_from_text(
            "smtp_recipient_limit = $relay_recipient_limit\ndefault_recipient_limit = 3"
        )
        self.assertEqual(config.transport_integer("smtp", "recipient_limit"), 3)

    def test_bad(self) -> None:
        """
        A transport's own setting is checked as its default parameter is.
        """
        error = self.assertRaises(ConfigError, config_from_text, "\nany_destination_rate_delay = 1y")
        self.assertIn("main.cf, line 2: parameter any_destination_rate_delay: bad time", str(error))

    def test_unknownSuffix(self) -> None:
        """
        A suffix that does not exist is the program's mistake.
        """
        self.assertRaises(KeyError, config_from_text("").transport_integer, "smtp", "nope")


class OverrideTests(SynchronousTestCase):
    """C{-o} options."""

    def test_overrides(self) -> None:
        """
        Overrides give a new configuration; what refers to them follows; the old one stays.
        """
        config = config_from_text("myhostname = a.test", host=HOST)
        changed = config.with_overrides({"myhostname": "b.test", "qmqpd_timeout": "1m"})
        self.assertEqual(changed.string("smtp_helo_name"), "b.test")
        self.assertEqual(changed.seconds("qmqpd_timeout"), 60)
        self.assertEqual(config.string("smtp_helo_name"), "a.test")
        self.assertEqual(config.seconds("qmqpd_timeout"), 300)

    def test_service(self) -> None:
        """
        A master.cf line's overrides may use C{$service_name}; a bad one names the line.
        """
        config = config_from_text(
            "",
            "x unix - - n - - smtp\n  -o syslog_name=postfix/$service_name\n\n"
            "y unix - - n - - smtp -o smtp_helo_timeout=never\n",
        )
        good, bad = config.services
        self.assertEqual(config.for_service(good).string("syslog_name"), "postfix/x")
        error = self.assertRaises(ConfigError, config.for_service, bad)
        self.assertIn("master.cf, line 4: parameter smtp_helo_timeout: bad time value", str(error))


class ErrorTests(SynchronousTestCase):
    """Bad values are refused with place, name, value, bounds and remedy."""

    def test_values(self) -> None:
        """
        One example of each kind.
        """
        for setting, message in {
            "qmqpd_timeout = 3x": 'bad time value "3x": use a number and one of s, m, h, d, w',
            "qmqpd_timeout = 1h30m": 'bad time value "1h30m": use a number and one of s, m, h, d, w',
            "qmqpd_timeout =": 'bad time value "": use a number and one of s, m, h, d, w',
            "qmqpd_timeout = -1s": 'bad time value "-1s": use a number and one of s, m, h, d, w',
            "qmqpd_timeout = 0": 'time value "0" is out of bounds: use a time of at least 1s',
            "qmqpd_timeout = 9999w": 'time value "9999w" is too large: use at most 2147483647s',
            "hash_queue_depth = 99": "value 99 is out of bounds: use a whole number from 1 to 16",
            "hash_queue_depth = 1k": 'bad numerical value "1k": use a whole number from 1 to 16',
            "line_length_limit = 10": "value 10 is out of bounds: use a whole number of at least 512",
            "soft_bounce = true": 'bad boolean value "true": use yes or no',
            "syslog_facility = post": 'unknown value "post": use auth,',
            "inet_protocols = ipv4, ipv5": 'unknown value "ipv5": use all, ipv4 or ipv6',
            "mail_name =": "the value must not be empty",
            "myhostname = a..b": 'bad host name "a..b"',
            "mydestination = a {b": '"{" is not closed',
            "default_destination_concurrency_positive_feedback = 1/x": 'bad feedback value "1/x"',
            "relayhost = ${": '"{" is not closed with "}"',
        }.items():
            name = setting.split(" ")[0]
            error = self.assertRaises(ConfigError, config_from_text, f"# comment\n{setting}\n")
            self.assertTrue(
                str(error).startswith(f"main.cf, line 2: parameter {name}: {message}"), str(error)
            )

    def test_expanded(self) -> None:
        """
        A value that is bad only after expansion is shown both ways.
        """
        error = self.assertRaises(ConfigError, config_from_text, "x = 5y\nqmqpd_timeout = $x")
        self.assertIn('line 2: parameter qmqpd_timeout: bad time value "5y"', str(error))
        self.assertIn('"$x" before expansion', str(error))

    def test_controlCharacters(self) -> None:
        """
        A value cannot put control characters into the message.
        """
        error = self.assertRaises(ConfigError, config_from_text, "soft_bounce = \x1b[2Jyes")
        self.assertIn('"?[2Jyes"', str(error))


class FileTests(SynchronousTestCase):
    """L{load_config}."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_withoutMaster(self) -> None:
        """
        Without a master.cf the built-in services count.
        """
        (self.folder / "main.cf").write_text("relayhost = x\n")
        config = load_config(self.folder / "main.cf")
        self.assertEqual(config.string("relayhost"), "x")
        self.assertEqual(config.string("config_directory"), os.path.abspath(self.folder))
        self.assertFalse(config.has_master_cf)
        self.assertIn("smtp", [service.name for service in config.services])

    def test_withMaster(self) -> None:
        """
        A master.cf beside main.cf is read.
        """
        (self.folder / "main.cf").write_bytes(b"relayhost = x # caf\xe9\n")
        (self.folder / "master.cf").write_text("628 inet n - n - - qmqpd\n")
        config = load_config(str(self.folder / "main.cf"))
        self.assertTrue(config.has_master_cf)
        self.assertEqual([service.command for service in config.services], ["qmqpd"])

    def test_errors(self) -> None:
        """
        Errors name the file by the path that was given.
        """
        path = self.folder / "main.cf"
        error = self.assertRaises(ConfigError, load_config, path)
        self.assertIn(f"{path}: cannot be read: No such file or directory", str(error))
        path.write_text("qmqpd_timeout = x")
        error = self.assertRaises(ConfigError, load_config, path)
        self.assertTrue(str(error).startswith(f"{path}, line 1: parameter qmqpd_timeout"), str(error))
        path.write_text("")
        (self.folder / "master.cf").mkdir()
        error = self.assertRaises(ConfigError, load_config, path)
        self.assertIn("master.cf: cannot be read: Is a directory", str(error))
