"""The syntax of main.cf and master.cf."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.config.default_master import DEFAULT_MASTER_CF
from qmqpd_tx.config.main_cf import parse_main_cf
from qmqpd_tx.config.master_cf import MasterService, effective, parse_master_cf
from qmqpd_tx.interfaces import ConfigError


def values(text: str) -> dict[str, str]:
    """
    @return: raw values by name.
    """
    return {name: setting.value for name, setting in parse_main_cf(text).items()}


class MainTests(SynchronousTestCase):
    """L{parse_main_cf}."""

    def test_settings(self) -> None:
        """
        White space around name and value does not count; the value may hold C{=}.
        """
        self.assertEqual(values("a = 1\nb=x = y \n\tc\r\nd \t =\n"), {"a": "1", "b": "x = y\tc", "d": ""})

    def test_comments(self) -> None:
        """
        Comments and blank lines, indented or not, are left out; C{#} inside a value is a part of it.
        """
        self.assertEqual(values("# x\n\n   \n  # y\na = b # c\n"), {"a": "b # c"})

    def test_continuation(self) -> None:
        """
        An indented line continues the parameter above, even after comments and blank lines.
        """
        text = "a = 1,\n# comment\n   2\n\n   \n  # comment\n\t3\nb = 4"
        self.assertEqual(
            config_from_text(text + "\nmydestination = $a").words("mydestination"), ("1", "2", "3")
        )
        self.assertEqual(values("a\n = 1")["a"], "1")

    def test_lastWins(self) -> None:
        """
        Of two definitions the last one counts, with its own place.
        """
        setting = parse_main_cf("a = 1\n\nb = 2\na = 3\n", "/x/main.cf")["a"]
        self.assertEqual((setting.value, setting.where()), ("3", "/x/main.cf, line 4"))

    def test_errors(self) -> None:
        """
        A line that is no setting is refused with its number and what to write.
        """
        for text, message in {
            "# ok\nfoo": "main.cf, line 2: missing '=' after attribute name: \"foo\"",
            "a = 1\nfoo bar = 1": "main.cf, line 2: missing '=' after attribute name",
            "= 1": "main.cf, line 1: missing attribute name",
            "\n  a = 1": "main.cf, line 2: logical line must not start with whitespace",
        }.items():
            error = self.assertRaises(ConfigError, parse_main_cf, text)
            self.assertTrue(str(error).startswith(message), str(error))
            self.assertIn("write name = value", str(error))

    def test_onlyNewlines(self) -> None:
        """
        Other line separators of Unicode do not end a line.
        """
        self.assertEqual(values("a = b\u2028c\x85d\x1ce\n"), {"a": "b\u2028c\x85d\x1ce"})


class MasterTests(SynchronousTestCase):
    """L{parse_master_cf}."""

    def one(self, line: str) -> MasterService:
        """
        @return: the only service.
        """
        (service,) = parse_master_cf(line)
        return service

    def test_columns(self) -> None:
        """
        All eight columns, and what C{-} stands for.
        """
        service = self.one("# c\n6628 inet n - y 30? 50 qmqpd -v\n")
        self.assertEqual(
            (service.name, service.type, service.private, service.unpriv, service.chroot),
            ("6628", "inet", False, True, True),
        )
        self.assertEqual((service.wakeup, service.wakeup_when_used, service.maxproc), (30, True, 50))
        self.assertEqual((service.command, service.arguments, service.line), ("qmqpd", ("-v",), 2))
        other = self.one("x unix - n - - - smtp")
        self.assertEqual(
            (other.private, other.unpriv, other.chroot, other.wakeup, other.maxproc),
            (True, False, False, 0, None),
        )

    def test_endpoints(self) -> None:
        """
        The service column may be a Twisted endpoint string.
        """
        for name in ("tcp:6628:interface=127.0.0.1", "unix:/x/y:mode=600", "[::1]:628", "127.0.0.1:628"):
            self.assertEqual(self.one(f"{name} inet n - n - - qmqpd").name, name)

    def test_overrides(self) -> None:
        """
        The forms of C{-o}, over several lines.
        """
        service = self.one(
            "x unix - - n - - smtp -v -o a=b\n  -o { c = d  e }\n# comment\n\t-o{f=$g} -D -vo h= \n"
        )
        self.assertEqual(dict(service.overrides), {"a": "b", "c": "d  e", "f": "$g", "h": ""})
        self.assertEqual(service.arguments, ("-v", "-D", "-v"))

    def test_braces(self) -> None:
        """
        C{{ }} protects white space in an argument.
        """
        service = self.one("x unix - n n - - pipe flags=F argv=/bin/x { a  b } {} {c} d}")
        self.assertEqual(service.arguments, ("flags=F", "argv=/bin/x", "a  b", "", "c", "d}"))

    def test_optionsEnd(self) -> None:
        """
        After the first argument that is no option, C{-o} belongs to the command that is run.
        """
        service = self.one("x unix - n n - - pipe -o a=b argv=/bin/x -o c=d")
        self.assertEqual(dict(service.overrides), {"a": "b"})
        self.assertEqual(service.arguments, ("argv=/bin/x", "-o", "c=d"))

    def test_lastWins(self) -> None:
        """
        Of two lines with one name and type the last one counts; another type is another service.
        """
        lines = parse_master_cf(
            "smtp unix - - n - - smtp\nsmtp inet n - n - - smtpd\nsmtp unix - - n - - lmtp\n"
        )
        services = effective(lines)
        self.assertEqual(len(lines), 3)
        self.assertEqual(
            [(service.name, service.type, service.command) for service in services],
            [("smtp", "unix", "lmtp"), ("smtp", "inet", "smtpd")],
        )

    def test_errors(self) -> None:
        """
        A bad line is refused with its number, the column and what to write.
        """
        for line, messages in {
            "x unix - - n - -": ("7 columns where 8 are needed",),
            "x foo - - n - - smtp": ('bad service type "foo"', "inet, unix"),
            "x unix q - n - - smtp": ("column private", "y, n or -"),
            "x unix - Y n - - smtp": ("column unpriv",),
            "x unix - - 1 - - smtp": ("column chroot",),
            "x unix - - n 5x - smtp": ("column wakeup", "seconds"),
            "x unix - - n - -1 smtp": ("column maxproc", "number"),
            "x inet y - n - - smtp": ("cannot be private",),
            "x unix - - n - - smtp -o": ("sets nothing", "-o name=value"),
            "x unix - - n - - smtp -o foo": ("sets nothing",),
            "x unix - - n - - smtp -o {a b=c}": ("sets nothing",),
            "x unix - - n - - smtp { a": ("not closed",),
            "x unix - - n - - smtp {a}b": ("white space",),
            "  x unix - - n - - smtp": ("start with whitespace",),
        }.items():
            error = self.assertRaises(ConfigError, parse_master_cf, "\n" + line)
            self.assertTrue(str(error).startswith("master.cf, line 2: "), str(error))
            for message in messages:
                self.assertIn(message, str(error))

    def test_builtIn(self) -> None:
        """
        Without a master.cf there are Postfix's services that this program has, and no qmqpd.
        """
        services = {service.name: service.command for service in parse_master_cf(DEFAULT_MASTER_CF)}
        self.assertEqual(
            {name: services.get(name) for name in ("smtp", "relay", "local", "discard", "error", "retry")},
            {
                "smtp": "smtp",
                "relay": "smtp",
                "local": "local",
                "discard": "discard",
                "error": "error",
                "retry": "error",
            },
        )
        for name in ("qmgr", "cleanup", "bounce", "defer", "trace", "rewrite"):
            self.assertIn(name, services)
        self.assertNotIn("qmqpd", services.values())


class AnyTextTests(SynchronousTestCase):
    """No text does worse than a L{ConfigError}."""

    @settings(max_examples=300)
    @given(st.text(st.one_of(st.sampled_from("a=#$ {}\n\t-xo/?y"), st.characters())))
    def test_main(self, text: str) -> None:
        """
        Any main.cf gives settings or a L{ConfigError} of one line.
        """
        try:
            config_from_text(text)
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1)

    @settings(max_examples=300)
    @given(
        name=st.sampled_from(
            ["mydestination", "qmqpd_timeout", "hash_queue_depth", "soft_bounce", "myhostname"]
        ),
        value=st.text(st.one_of(st.sampled_from("a$ {}?:0123456789smhd-"), st.characters())),
    )
    def test_values(self, name: str, value: str) -> None:
        """
        Any value of any type is good or gives a L{ConfigError} that names the parameter.
        """
        try:
            config_from_text(f"{name} = {value}")
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1)

    @settings(max_examples=300)
    @given(st.text(st.one_of(st.sampled_from("a=# {}\n\t-xo?y"), st.characters())))
    def test_master(self, text: str) -> None:
        """
        Any master.cf gives services or a L{ConfigError} of one line.
        """
        for attempt in (text, f"x unix - - n - - smtp {text}"):
            try:
                parse_master_cf(attempt)
            except ConfigError as error:
                self.assertEqual(len(str(error).splitlines()), 1)
