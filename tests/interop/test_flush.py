"""
Postfix's C{postqueue -s} and our flush service: the same sites are served, the others are refused in the same
words, and the same mail is tried.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import NotEligible
from qmqpd_tx.message import QueueID
from tests.cleanup.cases import COMPLETE, Case
from tests.flush.support import FlushTestCase, queue_id, to
from tests.interop.scripted_smtp import ScriptedServer
from tests.interop.test_content import SETTINGS, qmqp
from tests.interop.test_destinations import postqueue
from tests.peers import PrivatePostfix, free_port, require, scratch
from tests.service import RunningService, qmqp_send, wait_until

DOMAINS = {"relay_domains": "y.test, .sub.test", "fast_flush_domains": "$relay_domains, z.test"}
MESSAGES = (
    (b"a@y.test", b"b@Y.test"),
    (b"c@Z.Test", b"d@none.test"),
    (b"e@w.y.test",),
    (b"f@none.test",),
    (b"g@sub.test", b"h@a.sub.test", b"i@y.test"),
)
SITES = (
    "y.test",
    "Y.TEST",
    "w.y.test",
    "never.y.test",
    "z.test",
    "none.test",
    "sub.test",
    "a.sub.test",
    "[127.0.0.1]:25",
    "[127.0.0.1",
    "[IPv6:::1]",
    "127.0.0.1",
    "z.test.",
    "@y.test",
    "a@y.test",
    "a/b",
    "../x",
    "",
    " ",
    "y.test ",
    "-x",
    "a" * 300,
)
FAILED = 69
"""The exit status of postqueue for a site that is not served."""


class FlushComparison(FlushTestCase):
    """Postfix defers some mail and flushes sites; so do we."""

    def setUp(self) -> None:
        super().setUp()
        self.server = ScriptedServer()
        self.addCleanup(self.server.stop)
        self.server.script = {"rcpt": b"450 4.2.1 later"}
        relay = {"relayhost": f"[127.0.0.1]:{self.server.port}", "minimal_backoff_time": "1000s"}
        self.postfix = PrivatePostfix({**SETTINGS, **relay, **DOMAINS})
        self.addCleanup(self.postfix.stop)
        self.postfix.start()
        self.restart("".join(f"{name} = {value}\n" for name, value in DOMAINS.items()))

    def postqueue(self, site: str) -> tuple[int, str]:
        """
        @return: exit status and complaint of Postfix's command.
        """
        done = subprocess.run(
            [require("postqueue"), "-c", str(self.postfix.config), "-s", site],
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode()

    def ours(self, site: str) -> tuple[int, str]:
        """
        @return: what our command should say.
        """
        answers: list[tuple[int, str]] = []

        def refused(failure: Failure) -> None:
            failure.trap(NotEligible)
            answers.append((FAILED, f"postqueue: fatal: {failure.value}\n"))

        self.service.flush_site(site).addCallback(lambda _: answers.append((0, ""))).addErrback(refused)
        (answer,) = answers
        return answer

    def attempts(self) -> dict[str, int]:
        """
        @return: how often Postfix has tried each recipient.
        """
        counts: dict[str, int] = {}
        for address in re.findall(r"to=<([^>]*)>.*status=deferred", self.postfix.log()):
            counts[address] = counts.get(address, 0) + 1
        return counts

    def idle(self) -> bool:
        """
        @return: whether Postfix has deferred all mail.
        """
        places = [path.relative_to(self.postfix.spool).parts[0] for path in self.postfix.queue_files()]
        return places == ["deferred"] * len(MESSAGES)

    def test_same_sites(self) -> None:
        """
        Each site is served or refused alike, and gets the same messages tried, with all of their recipients.
        """
        ids: dict[QueueID, tuple[bytes, ...]] = {}
        for number, recipients in enumerate(MESSAGES):
            reply = qmqp(self.postfix.port, Case("x", COMPLETE + b"\n\n", recipients=recipients))
            self.assertTrue(reply.startswith(b"K"), reply)
            ids[queue_id(number)] = recipients
            self.service.deferred(queue_id(number), to(*recipients))

        def deferred_again(tried: QueueID) -> Deferred[None]:
            self.service.deferred(tried, to(*ids[tried]))
            return self.manager.deliver(tried)

        self.manager.instead = deferred_again
        wait_until(lambda: sum(self.attempts().values()) == sum(map(len, MESSAGES)), 20, "first attempts")
        wait_until(self.idle, 20, "all in deferred")
        for site in SITES:
            before = self.attempts()
            answer = self.ours(site)
            self.assertEqual(self.postqueue(site), answer, site)
            expected = dict(before)
            for tried in self.manager.take():
                for recipient in ids[tried]:
                    expected[recipient.decode()] += 1
            if expected != before:
                wait_until(
                    lambda expected=expected: self.attempts() == expected, 20, f"{expected} for {site}"
                )
                wait_until(self.idle, 20, "all in deferred again")
            self.assertEqual(self.attempts(), expected, site)

    def test_disabled(self) -> None:
        """
        Without C{fast_flush_domains} every site is refused.
        """
        self.postfix.command("postconf", "-e", "fast_flush_domains=")
        self.postfix.command("postfix", "reload")
        self.restart("fast_flush_domains =\n")
        wait_until(lambda: self.postqueue("y.test") == self.ours("y.test"), 10, "the same refusal")
        self.assertEqual(self.ours("y.test")[0], FAILED)


class FlushServiceTests(SynchronousTestCase):
    """Our whole service and our own C{postqueue -s}."""

    def setUp(self) -> None:
        self.server = ScriptedServer()
        self.addCleanup(self.server.stop)
        self.server.script = {"rcpt": b"450 4.2.1 later"}
        folder = scratch()
        self.addCleanup(shutil.rmtree, folder)
        settings = f"relayhost = [127.0.0.1]:{self.server.port}\nminimal_backoff_time = 1000s\n"
        self.service = RunningService(folder, free_port(), settings + "fast_flush_domains = y.test, z.test\n")
        self.service.start()
        self.addCleanup(self.service.stop)

    def attempts(self) -> list[str]:
        """
        @return: who was tried, in order of the alphabet.
        """
        return sorted(re.findall(r"to=<([^>]*)>.*status=deferred", self.service.log_text()))

    def test_flush(self) -> None:
        """
        The site's mail is tried, and no other; after a crash of the service too.
        """
        for recipient in (b"a@y.test", b"b@z.test", b"c@none.test"):
            reply = qmqp_send(self.service.port, b"Subject: x\n\nx\n", b"s@ex.test", [recipient])
            self.assertEqual(reply[:1], b"K", reply)
        tried = ["a@y.test", "b@z.test", "c@none.test"]
        for _ in range(2):
            wait_until(lambda tried=tried: self.attempts() == tried, 20, f"{tried}")
            wait_until(lambda: len(self.deferred()) == 3, 20, "all in deferred")
            postqueue(self.service, "-s", "Y.test")
            tried = sorted([*tried, "a@y.test"])
            wait_until(lambda tried=tried: self.attempts() == tried, 20, f"{tried}")
            wait_until(lambda: len(self.deferred()) == 3, 20, "all in deferred")
            self.service.stop(9)
            self.service.start()
        self.assertRaises(subprocess.CalledProcessError, postqueue, self.service, "-s", "none.test")
        self.assertEqual(self.attempts(), tried)

    def deferred(self) -> list[str]:
        """
        @return: the files in deferred.
        """
        return [name for name in self.service.queued() if name.startswith("deferred/")]
