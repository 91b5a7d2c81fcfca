"""What a configuration is warned of."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.parameters import PARAMETERS
from tests.config.manual import entries

READ_ONLY = ("config_directory", "process_id", "process_name", "service_name")
BY_DEFAULT = ("virtual_maps",)
"""Names that only defaults of other parameters know."""


class WarnTests(SynchronousTestCase):
    """L{Config.warnings}."""

    def test_nothing(self) -> None:
        """
        Nothing is said about an empty configuration, or one with parameters that work.
        """
        self.assertEqual(config_from_text("").warnings(), [])
        config = config_from_text("qmqpd_timeout = 5s\nsmtp_destination_rate_delay = 1s\nrelayhost = x")
        self.assertEqual(config.warnings(), [])

    def test_withoutEffect(self) -> None:
        """
        Parameters of Postfix that do nothing here are named in one line, those of master.cf too.
        """
        config = config_from_text(
            "smtpd_banner = x\nsmtpd_peername_lookup = no\nlmtp_tcp_port = 24\n",
            "628 inet n - n - - qmqpd -o setgid_group=x\n",
        )
        self.assertEqual(
            config.warnings(),
            [
                "these parameters are known to Postfix but have no effect here: "
                "lmtp_tcp_port, setgid_group, smtpd_banner, smtpd_peername_lookup"
            ],
        )

    def test_manual(self) -> None:
        """
        No parameter of the manual pages of intake passes in silence: it has effect, or is named.
        """
        config = config_from_text("")
        for entry in entries():
            if entry.name in (*READ_ONLY, *BY_DEFAULT):
                continue
            value = config.string(entry.name) if entry.name in PARAMETERS else KNOWN.get(entry.name, "no")
            named = config_from_text(f"{entry.name} = {value}\n").warnings()
            if entry.effect:
                self.assertEqual(named, [], entry.name)
            else:
                self.assertRegex("".join(named), f"(no effect here|unused parameter): {entry.name}")

    def test_options(self) -> None:
        """
        C{-o} options on lines that nobody reads are named, whatever they are; on others they count.
        """
        unread = ("bounce unix - - n - 0 bounce", "smtps inet n - n - - smtpd", "x unix n - n - 1 qmgr")
        for line in (*unread, "y unix - - n - - trivial-rewrite"):
            config = config_from_text("", f"{line} -o bounce_size_limit=1 -o smtpd_banner=x\n")
            command = line.split()[-1]
            self.assertEqual(
                config.warnings(),
                [
                    f"master.cf, line 1: -o options of {command} have no effect here: "
                    "bounce_size_limit, smtpd_banner"
                ],
            )
        for line in (
            "cleanup unix n - n - 0 cleanup",
            "other unix n - n - 0 cleanup",
            "rewrite unix - - n - - trivial-rewrite",
            "qmgr unix n - n 300 1 oqmgr",
            "628 inet n - n - - qmqpd",
            "smtp unix - - n - - smtp",
            "mine unix - - n - - plugin",
        ):
            config = config_from_text("", f"{line} -o bounce_size_limit=1 -o smtpd_banner=x\n")
            self.assertEqual(
                config.warnings(),
                ["these parameters are known to Postfix but have no effect here: smtpd_banner"],
            )

    def test_unknown(self) -> None:
        """
        A name that nobody knows is told with its place, in main.cf and master.cf.
        """
        config = config_from_text(
            "relayhots = [x]\nsmtp_destination_foo = 1\n", "x unix - - n - - smtp -o smtp_hello_name=y\n"
        )
        self.assertEqual(
            config.warnings(),
            [
                "main.cf, line 1: unused parameter: relayhots=[x]",
                "main.cf, line 2: unused parameter: smtp_destination_foo=1",
                "master.cf, line 1: unused parameter: smtp_hello_name=y",
            ],
        )

    def test_transports(self) -> None:
        """
        C{<transport>_} parameters count for transports in master.cf only; daemons are none.
        """
        text = "{}_destination_rate_delay = 1s\n"
        master = "mine unix - - n - - smtp\nqmgr unix - - n - - qmgr\n"
        self.assertEqual(config_from_text(text.format("mine"), master).warnings(), [])
        for name in ("other", "qmgr"):
            (warning,) = config_from_text(text.format(name), master).warnings()
            self.assertIn(f"unused parameter: {name}_destination_rate_delay=1s", warning)

    def test_inUse(self) -> None:
        """
        A user's own name is in use when a value, an option, or a table in main.cf refers to it.
        """
        config = config_from_text(
            "mine = 1\nyours = 2\nours = 3\nmymap_query = x\nwhose = 4\n"
            "relayhost = $mine\nmydestination = ${mine?{$ours}}\ntransport_maps = ldap:mymap\n",
            "x unix - - n - - smtp -o smtp_helo_name=$yours\n",
        )
        self.assertEqual(config.warnings(), ["main.cf, line 5: unused parameter: whose=4"])

    def test_contradiction(self) -> None:
        """
        Values that do not fit together are told.
        """
        (warning,) = config_from_text("maximal_backoff_time = 200s").warnings()
        self.assertIn("minimal_backoff_time: 300s is more than maximal_backoff_time, 200s", warning)

    def test_silenced(self) -> None:
        """
        helpful_warnings = no silences them all.
        """
        self.assertEqual(config_from_text("x = 1\nsetgid_group = x\nhelpful_warnings = no").warnings(), [])
