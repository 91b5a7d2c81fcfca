"""
postkick(1) and postqueue -s on a running service: what is tried, and when.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.support import command
from tests.peers import free_port
from tests.service import RunningService, qmqp_send, wait_until
from tests.system.support import Destination, scratch


def closed(port: int) -> str:
    """
    @return: main.cf lines by which two domains lead to one port.
    """
    return (
        f"transport_maps = inline:{{ {{one.test = smtp:[127.0.0.1]:{port}}}, "
        f"{{two.test = smtp:[127.0.0.1]:{port}}} }}\n"
        "minimal_backoff_time = 1000s\nmaximal_backoff_time = 1000s\n"
    )


class Case(SynchronousTestCase):
    """A service with deferred mail for two domains, whose server comes up later."""

    settings = ""

    def setUp(self) -> None:
        self.port = free_port()
        self.service = RunningService(scratch(self), free_port(), closed(self.port) + self.settings)
        self.service.start()
        self.addCleanup(self.service.stop)
        self.ids = {}
        for site in ("one.test", "two.test"):
            reply = qmqp_send(
                self.service.port, b"Subject: x\n\nx\n", b"a@source.test", [f"b@{site}".encode()]
            )
            self.ids[site] = reply.decode().split()[-1]
            self.wait_for(site, "deferred")

    def wait_for(self, site: str, queue: str | None) -> None:
        """
        Wait until a message is in a queue, or in none.
        """

        def there() -> bool:
            found = [name for name in self.service.queued() if name.endswith(self.ids[site])]
            return not found if queue is None else [name.partition("/")[0] for name in found] == [queue]

        wait_until(there, 10, f"{site} in {queue}")

    def run_it(self, *arguments: str) -> tuple[int, str]:
        """
        @return: exit status and standard error.
        """
        status, output, errors = command("-c", str(self.service.scratch), *arguments)
        self.assertEqual(output, "")
        return status, errors

    def attempts(self) -> int:
        """
        @return: how often delivery was tried for real.
        """
        return self.service.log_text().count("(queue active)")


class KickTests(Case):
    """postkick public qmgr LETTERS."""

    def test_letters(self) -> None:
        """D alone finds nothing due; A alone does nothing; A and D find all, F wakes the dead destination."""
        self.assertEqual(self.run_it("postkick", "public", "qmgr", "D"), (0, ""))
        self.assertEqual(self.run_it("postkick", "public", "qmgr", "?"), (0, ""))
        self.service.wait_for_log("request ignored")
        self.assertEqual(self.attempts(), 2)
        with Destination(port=self.port) as destination:
            self.assertEqual(self.run_it("postkick", "public", "qmgr", "FAD"), (0, ""))
            for site in self.ids:
                self.wait_for(site, None)
            self.assertEqual(sorted(destination.recipients), ["b@one.test", "b@two.test"])


class SiteTests(Case):
    """postqueue -s SITE."""

    settings = "fast_flush_domains = one.test\n"

    def test_one_site(self) -> None:
        """Only the mail of that site is tried, dead destination or not."""
        with Destination(port=self.port) as destination:
            self.assertEqual(self.run_it("postqueue", "-s", "ONE.test"), (0, ""))
            self.wait_for("one.test", None)
            self.assertEqual(destination.recipients, ["b@one.test"])
            self.wait_for("two.test", "deferred")

    def test_refused(self) -> None:
        """Sites that are not served, and what is no site at all."""
        status, errors = self.run_it("postqueue", "-s", "two.test")
        text = 'qmqpd-tx: Flush service is not configured for destination "two.test"\n'
        self.assertEqual((status, errors), (69, text))
        for site in ("a b", "", "192.0.2.1", "[127.0.0.1]:1", "x" * 400):
            status, errors = self.run_it("postqueue", "-s", site)
            self.assertEqual(status, 69)
            self.assertIn("Cannot flush mail queue - invalid destination: ", errors)
