"""
Real clients and real destinations around the whole service: every message arrives once.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.peers import Peer, free_port, require, smtp_sink
from tests.service import CLEAN, RunningService, qmqp_send, wait_until

MEMORY_LIMIT = 160 * 1024 * 1024
"""
Peak resident bytes of the service with a 10 MB message or 50,000 recipients: Python, Twisted and the code are
50 MB of it.
"""


def settings(sink: Peer) -> str:
    """
    @return: main.cf lines that send everything to the sink.
    """
    return f"relayhost = [127.0.0.1]:{sink.port}\n"


def received(sink: Peer) -> int:
    """
    @return: how many messages the sink has counted (its C{-c} output).
    """
    counts = re.findall(rb"mesg=(\d+)", sink.output())
    return int(counts[-1]) if counts else 0


class DeliveryTests(SynchronousTestCase):
    """
    The main job, from outside.
    """

    def test_five_thousand_messages(self) -> None:
        """
        50 qmqp-source sessions hand over 5,000 messages; smtp-sink gets each once; pflogsumm agrees.
        """
        source, summary = require("qmqp-source"), require("pflogsumm")
        with (
            smtp_sink("-c") as sink,
            RunningService(self.mktemp(), free_port(), settings(sink)) as service,
        ):
            subprocess.run(
                [
                    *(source, "-s", "50", "-m", "5000", "-l", "4096", "-f", "a@source.test"),
                    *("-t", "b@destination.test", f"127.0.0.1:{service.port}"),
                ],
                check=True,
                timeout=120,
            )
            wait_until(lambda: not service.queued(), 120, "an empty queue")
            wait_until(lambda: received(sink) >= 5000, 10, "the sink's count")
            time.sleep(0.2)  # a message too many would show up now
            self.assertEqual(received(sink), 5000)
            service.wait_for_log(": removed")
            self.assertIn(service.stop(), CLEAN)
            delivered = r"/smtp\[\d+\]: (\w+): to=<b@destination\.test>.* status=sent"
            sent = Counter(re.findall(delivered, service.log_text()))
            self.assertEqual(len(sent), 5000)
            self.assertEqual(set(sent.values()), {1})
            report = subprocess.run(
                [summary, str(service.log)], capture_output=True, text=True, check=True, timeout=60
            ).stdout
        self.assertRegex(report, r"\b5000\s+delivered\b")
        # "received" is 0 for QMQP, from Postfix's log too: see docs/differences.rst.
        for what in ("deferred", "bounced", "rejected"):
            self.assertRegex(report, rf"\b0\s+{what}\b")

    def test_nullmailer(self) -> None:
        """
        nullmailer's QMQP client delivers through us.
        """
        client = require("nullmailer-qmqp")
        with (
            smtp_sink("-c") as sink,
            RunningService(self.mktemp(), free_port(), settings(sink)) as service,
        ):
            message = self.mktemp()
            with open(message, "w") as file:
                file.write("sender@source.test\none@destination.test\ntwo@destination.test\n\n")
                file.write("From: sender@source.test\nSubject: by nullmailer\n\nHello.\n")
            with open(message) as file:
                # The client reads the message from descriptor 3.
                done = subprocess.run(
                    [
                        *("sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh"),
                        *(client, "--host=127.0.0.1", f"--port={service.port}"),
                    ],
                    stdin=file,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
            self.assertEqual(done.returncode, 0, done)
            wait_until(lambda: not service.queued(), 30, "an empty queue")
            log = service.wait_for_log(": removed")
            self.assertEqual(len(re.findall(r"to=<(?:one|two)@destination\.test>.* status=sent", log)), 2)

    def test_large_message(self) -> None:
        """
        A message of 10 MB passes, in bounded memory.
        """
        with (
            smtp_sink("-c") as sink,
            RunningService(self.mktemp(), free_port(), settings(sink)) as service,
        ):
            idle = service.peak_memory()
            content = b"Subject: large\n\n" + (b"0123456789abcdef" * 4)[:-1].ljust(64, b"\n") * 156_000
            reply = qmqp_send(service.port, content, b"a@source.test", [b"b@destination.test"])
            self.assertEqual(reply[:1], b"K", reply)
            wait_until(lambda: received(sink) == 1, 60, "the delivery")
            peak = service.peak_memory()
        print(f"10 MB message: peak RSS {peak / 2**20:.0f} MB, {idle / 2**20:.0f} MB of it at start")
        self.assertLess(peak - idle, 8 * 2**20)
        self.assertLess(peak, MEMORY_LIMIT)

    def test_many_recipients(self) -> None:
        """
        A message with 50,000 recipients passes, each delivered once, in bounded memory.
        """
        with (
            smtp_sink("-c") as sink,
            RunningService(self.mktemp(), free_port(), settings(sink)) as service,
        ):
            idle = service.peak_memory()
            recipients = [b"user%d@d%d.destination.test" % (n, n % 100) for n in range(50_000)]
            reply = qmqp_send(service.port, b"Subject: list\n\nHello.\n", b"a@source.test", recipients)
            self.assertEqual(reply[:1], b"K", reply)
            wait_until(lambda: not service.queued(), 120, "an empty queue")
            peak = service.peak_memory()
            self.assertIn(service.stop(), CLEAN)
            sent = Counter(re.findall(r"to=<(user\d+)@\S+>.* status=sent", service.log_text()))
        print(f"50,000 recipients: peak RSS {peak / 2**20:.0f} MB, {idle / 2**20:.0f} MB of it at start")
        self.assertEqual(len(sent), 50_000)
        self.assertEqual(set(sent.values()), {1})
        self.assertLess(peak, MEMORY_LIMIT)
