"""What a configuration is warned of."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text


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
