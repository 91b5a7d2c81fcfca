"""
What a start warns of.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import free_port
from tests.service import RunningService
from tests.system.support import scratch


class WarnTests(SynchronousTestCase):
    """The log of a start."""

    def test_without_effect(self) -> None:
        """
        Parameters of Postfix's that do nothing here are named, all in one line; unknown ones one line each.
        """
        settings = "smtpd_banner = hello\nluser_relay = $user\nnonesuch_parameter = 1\n"
        with RunningService(scratch(self), free_port(), settings) as service:
            text = service.wait_for_log("accepting mail on")
        self.assertIn(
            "warning: these parameters are known to Postfix but have no effect here: "
            "luser_relay, smtpd_banner\n",
            text,
        )
        self.assertRegex(text, "warning: .*nonesuch_parameter")

    def test_silenced(self) -> None:
        """
        C{helpful_warnings = no} ends that.
        """
        settings = "smtpd_banner = hello\nhelpful_warnings = no\n"
        with RunningService(scratch(self), free_port(), settings) as service:
            self.assertNotIn("warning: ", service.wait_for_log("accepting mail on"))

    def test_no_warnings(self) -> None:
        """
        A main.cf without mistakes brings none.
        """
        with RunningService(scratch(self), free_port()) as service:
            self.assertNotIn("warning: ", service.wait_for_log("accepting mail on"))

    def test_unsupported_transport(self) -> None:
        """
        Lines of master.cf for delivery agents that this program does not have are named, each.
        """
        master = (
            "smtp unix - - n - - smtp\nspecial unix - n n - - pipe flags=R user=nobody argv=/bin/true\n"
            "virtual unix - n n - - virtual\npickup unix n - n 60 1 pickup\n"
        )
        with RunningService(scratch(self), free_port(), master=master) as service:
            text = service.wait_for_log("accepting mail on")
        for name in ("special (pipe)", "virtual (virtual)"):
            self.assertIn(f"warning: not supported yet, and not started: {name}\n", text)
        self.assertNotIn("pickup", text)
