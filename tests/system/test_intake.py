"""
Intake in the running service: checks, maps, lists and files, from a client's message to what is delivered,
and how changes to them take effect by themselves.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.support import command
from tests.peers import free_port
from tests.service import RunningService, environment, qmqp_send, wait_until
from tests.system.support import Destination, relay, scratch

NO_DELAY = "qmqpd_error_delay = 0\n"
SEND = (sys.executable, "-c", "from qmqpd_tx.admin.main import main; main()", "send")
TRANSPORTS = "smtp unix - - n - - smtp\nerror unix - - n - - error\nretry unix - - n - - error\n"


def replace(path: Path, text: str) -> None:
    """
    Put another file in the place of one, as editors do.
    """
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class Case(SynchronousTestCase):
    """Messages that go in, and commands that look at them."""

    def send(
        self, port: int, subject: str, *recipients: bytes, sender: bytes = b"a@source.test", body: bytes = b""
    ) -> bytes:
        """
        @return: the reply.
        """
        content = b"Subject: %b\n\nbody\n%b" % (subject.encode(), body)
        return qmqp_send(port, content, sender, list(recipients or (b"b@destination.test",)))

    def delivered(self, destination: Destination, *recipients: str) -> None:
        """
        Assert that messages for these, and no others, arrive.
        """
        wanted = sorted(recipients)
        wait_until(lambda: len(destination.recipients) >= len(wanted), 10, f"mail for {wanted}")
        self.assertEqual(sorted(destination.recipients), wanted)
        destination.recipients.clear()

    def run_command(self, service: RunningService, *arguments: str) -> tuple[int, str]:
        """
        @return: the status of a command, and all that it says.
        """
        status, output, errors = command("-c", str(service.scratch), *arguments)
        return status, output + errors


class ActionTests(Case):
    """What checks decide."""

    RULES = (
        "/^Subject: hold/ HOLD look at it\n"
        "/^Subject: discard/ DISCARD\n"
        "/^Subject: redirect/ REDIRECT other@redirected.test\n"
        "/^Subject: filter/ FILTER scan:[127.0.0.1]:%d\n"
        "/^Subject: copy/ BCC log@copied.test\n"
        "/^Subject: no/ REJECT 5.7.2 not here\n"
        "/^Subject: later/ REJECT 4.7.2 not now\n"
        "/^Subject: old/ REPLACE Subject: new\n"
    )

    def test_actions(self) -> None:
        """
        Each action does to delivered mail what it says.
        """
        folder = scratch(self)
        with Destination() as usual, Destination() as scanner:
            (folder / "checks").write_text(self.RULES % scanner.port)
            settings = f"{relay(usual)}{NO_DELAY}header_checks = regexp:{folder}/checks\n"
            master = TRANSPORTS + "scan unix - - n - - smtp\n"
            with RunningService(folder, free_port(), settings, master=master) as service:
                port = service.port
                self.assertEqual(self.send(port, "discard")[:1], b"K")
                self.assertEqual(self.send(port, "no"), b"DError: 5.7.2 not here")
                self.assertEqual(self.send(port, "later"), b"ZError: 4.7.2 not now")
                self.assertEqual(self.send(port, "redirect", b"b@d.test", b"c@d.test")[:1], b"K")
                self.delivered(usual, "other@redirected.test")
                self.assertEqual(self.send(port, "copy")[:1], b"K")
                self.delivered(usual, "b@destination.test", "log@copied.test")
                self.assertEqual(self.send(port, "old")[:1], b"K")
                self.delivered(usual, "b@destination.test")
                self.assertIn(b"Subject: new\r\n", usual.messages[-1])
                self.assertEqual(self.send(port, "filter", b"x@a.test", b"y@b.test")[:1], b"K")
                self.delivered(scanner, "x@a.test", "y@b.test")
                self.assertEqual(usual.recipients, [])
                self.assertEqual(service.queued(), [])

    def test_hold(self) -> None:
        """
        A held message stays, through a restart, too; it is listed as such; when it is released, it waits
        for a queue run.
        """
        folder = scratch(self)
        with Destination() as destination:
            settings = (
                f"{relay(destination)}header_checks = regexp:{{{{/^Subject: hold/ HOLD look at it}}}}\n"
            )
            with RunningService(folder, free_port(), settings) as service:
                queue_id = self.send(service.port, "hold").split()[-1].decode()
                self.assertEqual(service.queued(), [f"hold/{queue_id}"])
                self.assertIn(f"{queue_id}!", self.run_command(service, "postqueue", "-p")[1])
                self.assertIn("look at it", service.wait_for_log(f"{queue_id}: hold: header Subject: hold"))
                self.assertEqual(self.run_command(service, "postqueue", "-f")[0], 0)
                service.stop()
                service.start()
                self.assertEqual(self.send(service.port, "usual")[:1], b"K")
                self.delivered(destination, "b@destination.test")
                self.assertEqual(service.queued(), [f"hold/{queue_id}"])
                _, told = self.run_command(service, "postsuper", "-H", queue_id)
                self.assertIn("Released from hold: 1 message", told)
                self.assertEqual(service.queued(), [f"deferred/{queue_id}"])
                self.assertEqual(self.run_command(service, "postqueue", "-f")[0], 0)
                self.delivered(destination, "b@destination.test")
                wait_until(lambda: not service.queued(), 10, "an empty queue")

    def test_requeue(self) -> None:
        """
        A message that waits is mapped by today's tables when it is handed over again.
        """
        folder = scratch(self)
        table = folder / "aliases"
        table.write_text("b@destination.test dead@nowhere.test\n")
        with Destination() as destination:
            settings = (
                f"virtual_alias_maps = texthash:{table}\ntable_check_interval = 1s\n"
                f"transport_maps = inline:{{ {{nowhere.test=retry:4.0.0 not now}} }}\n{relay(destination)}"
            )
            with RunningService(folder, free_port(), settings, master=TRANSPORTS) as service:
                queue_id = self.send(service.port, "x").split()[-1].decode()
                wait_until(lambda: service.queued() == [f"deferred/{queue_id}"], 10, "a deferred message")
                replace(table, "b@destination.test live@destination.test\n")
                service.wait_for_log("reload -- configuration")
                self.assertEqual(self.run_command(service, "postsuper", "-h", queue_id)[0], 0)
                self.assertEqual(service.queued(), [f"hold/{queue_id}"])
                self.assertEqual(self.run_command(service, "postsuper", "-r", queue_id)[0], 0)
                self.delivered(destination, "live@destination.test")

    def test_send(self) -> None:
        """
        C{qmqpd-tx send} tells by its status what a check has decided.
        """
        settings = (
            NO_DELAY + "header_checks = regexp:{{/^Subject: no/ REJECT} {/^Subject: later/ REJECT 4.7.2 x}}\n"
        )
        with (
            Destination() as destination,
            RunningService(scratch(self), free_port(), settings + relay(destination)) as service,
        ):
            server = f"127.0.0.1:{service.port}"
            for subject, status in ((b"no", 31), (b"later", 71), (b"fine", 0)):
                ended = subprocess.run(
                    [*SEND, "--server", server, "--from", "a@source.test", "b@destination.test"],
                    input=b"Subject: %b\n\nx\n" % subject,
                    env=environment(),
                    capture_output=True,
                    check=False,
                    timeout=30,
                )
                self.assertEqual(ended.returncode, status, ended.stderr)
            self.delivered(destination, "b@destination.test")


class ServiceTests(Case):
    """Options of single services in master.cf."""

    def test_options(self) -> None:
        """
        One qmqpd line without checks, one without mapping, one with another cleanup service.
        """
        folder = scratch(self)
        ports = [free_port() for _ in range(4)]
        options = (
            "",
            "-o receive_override_options=no_header_body_checks",
            "-o receive_override_options=no_address_mappings",
            "-o cleanup_service_name=other",
        )
        master = "".join(
            f"127.0.0.1:{port} inet n - n - - qmqpd {option}\n"
            for port, option in zip(ports, options, strict=True)
        )
        master += (
            "other unix n - n - 0 cleanup\n  -o { header_checks = regexp:{{/^Subject: other/ REJECT}} }\n"
        )
        master += "  -o virtual_alias_maps=static:other@x.test\n" + TRANSPORTS
        with Destination() as destination:
            settings = (
                f"{relay(destination)}{NO_DELAY}header_checks = regexp:{{{{/^Subject: no/ REJECT}}}}\n"
                "virtual_alias_maps = inline:{{b@destination.test=mapped@x.test}}\n"
            )
            with RunningService(folder, ports[0], settings, master=master, listen=()) as service:
                replies = [self.send(port, "no")[:1] for port in ports]
                self.assertEqual(replies, [b"D", b"K", b"D", b"K"])
                self.delivered(destination, "mapped@x.test", "other@x.test")
                replies = [self.send(port, "other")[:1] for port in ports]
                self.assertEqual(replies, [b"K", b"K", b"K", b"D"])
                self.delivered(destination, "mapped@x.test", "mapped@x.test", "b@destination.test")
                self.assertNotIn("no effect here", service.log_text())

    def test_debug_peer(self) -> None:
        """
        The protocol of clients in debug_peer_list is logged, and that of no others.
        """
        ports = [free_port() for _ in range(2)]
        lists = ("192.0.2.1", "192.0.2.2, 127.0.0.0/8")
        master = "".join(
            f"127.0.0.1:{port} inet n - n - - qmqpd -o {{ debug_peer_list = {clients} }}\n"
            for port, clients in zip(ports, lists, strict=True)
        )
        with RunningService(scratch(self), ports[0], master=master + TRANSPORTS, listen=()) as service:
            for port, name in zip(ports, (b"quiet@x.test", b"loud@x.test"), strict=True):
                self.assertEqual(self.send(port, "x", sender=name)[:1], b"K")
            text = service.wait_for_log("read netstring data loud@x.test")
            self.assertNotIn("read netstring data quiet@x.test", text)


class ChangeTests(Case):
    """What changes by itself."""

    def is_read(self, pipe: Path) -> bool:
        """
        @return: whether somebody reads a named pipe; who does then waits for L{writer} to be closed.
        """
        try:
            self.writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENXIO)
            return False
        return True

    def test_tables(self) -> None:
        """
        A changed table is read again without a signal; a broken one is refused, and the old one stays, until
        it is mended.
        """
        folder = scratch(self)
        aliases, checks, sites = folder / "aliases", folder / "checks", folder / "sites"
        sites.write_text("site.test x\n")
        aliases.write_text("list@x.test one@x.test\n")
        checks.write_text("/^Subject: no/ REJECT first\n")
        with Destination() as destination:
            settings = (
                f"{relay(destination)}{NO_DELAY}virtual_alias_maps = texthash:{aliases}\n"
                f"header_checks = regexp:{checks}\ntable_check_interval = 1s\n"
                f"fast_flush_domains = texthash:{sites}\n"
            )
            with RunningService(folder, free_port(), settings) as service:
                port = service.port
                self.assertEqual(self.send(port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "one@x.test")
                replace(aliases, "list@x.test two@x.test, three@x.test\n")
                text = service.wait_for_log("reload -- configuration")
                self.assertIn(f"table {aliases} has changed -- reloading", text)
                self.assertEqual(self.send(port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "two@x.test", "three@x.test")
                replace(checks, "/^Subject: no(/ REJECT second\n")
                text = service.wait_for_log("reload refused")
                self.assertIn(f"header_checks: regexp:{checks}, line 1: ", text)
                self.assertEqual(self.send(port, "no"), b"DError: 5.7.1 first")
                self.assertEqual(self.send(port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "two@x.test", "three@x.test")
                self.assertEqual(self.run_command(service, "postqueue", "-s", "other.test")[0], 69)
                replace(sites, "other.test x\n")
                replace(checks, "/^Subject: no/ REJECT third\n")
                wait_until(lambda: service.log_text().count("reload -- ") == 2, 10, "another reload")
                self.assertEqual(self.send(port, "no"), b"DError: 5.7.1 third")
                self.assertEqual(self.run_command(service, "postqueue", "-s", "other.test")[0], 0)
                self.assertEqual(service.log_text().count("reload refused"), 1)

    def test_long_reading(self) -> None:
        """
        While a changed table is being read, which may take long, mail is taken as before; what it has become
        by the end of that is what is in force then.
        """
        folder = scratch(self)
        aliases, slow = folder / "aliases", folder / "slow"
        aliases.write_text("list@x.test one@x.test\n")
        # Who reads this one waits until somebody writes.
        os.mkfifo(slow)
        with Destination() as destination:
            settings = f"{relay(destination)}{NO_DELAY}virtual_alias_maps = texthash:{aliases}\n"
            with RunningService(folder, free_port(), settings + "table_check_interval = 1s\n") as service:
                aliases.unlink()
                os.link(slow, aliases)
                wait_until(lambda: self.is_read(slow), 10, "a reader")
                self.assertEqual(self.send(service.port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "one@x.test")
                # Another reload waits for the one under way.
                service.signal(signal.SIGHUP)
                self.assertEqual(self.send(service.port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "one@x.test")
                replace(aliases, "list@x.test two@x.test\n")
                os.close(self.writer)
                service.wait_for_log("reload -- configuration")
                self.assertEqual(self.send(service.port, "x", b"list@x.test")[:1], b"K")
                self.delivered(destination, "two@x.test")
                self.assertEqual(service.log_text().count("reload -- configuration"), 1)

    def test_main_cf(self) -> None:
        """
        After max_use connections a changed main.cf is read.
        """
        with Destination() as old, Destination() as new:
            settings = relay(old) + NO_DELAY + "max_use = 3\n"
            with RunningService(scratch(self), free_port(), settings) as service:
                with service.config.open("a") as config:
                    config.write(relay(new) + "header_checks = regexp:{{/^Subject: no/ REJECT}}\n")
                replies = [self.send(service.port, "no")[:1]]
                while replies[-1] == b"K" and len(replies) < 9:
                    replies.append(self.send(service.port, "no")[:1])
                self.assertEqual(replies[-1], b"D")
                self.assertIn("the configuration has changed -- reloading", service.log_text())
                accepted = len(replies) - 1
                # The service's own test of its port may have been a connection, too.
                self.assertIn(accepted, (1, 2, 3))
                self.assertEqual(self.send(service.port, "x")[:1], b"K")
                wait_until(lambda: len(new.recipients) >= 1, 10, "mail at the new destination")
