"""
pflogsumm reads our mail log as it reads Postfix's.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.maillog import MailLog
from tests.peers import PrivatePostfix, require, smtp_sink

LINE = re.compile(r"(\w{3} [ \d]\d [\d:]{8}) (\S+) postfix/(\S+)\[(\d+)\]: (.*)")


def report(path: Path) -> str:
    """
    @return: what pflogsumm says of a log.
    """
    done = subprocess.run(
        [require("pflogsumm"), str(path)],
        # Rows with equal counts come in the order of a Perl hash.
        env={**os.environ, "LC_ALL": "C", "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def total(text: str, what: str) -> int:
    """
    @return: one of the grand totals.
    """
    match = re.search(rf"^\s*(\d+)\s+{what}\b", text, re.MULTILINE)
    assert match is not None, text
    return int(match[1])


class PflogsummTests(SynchronousTestCase):
    """Totals of a log that L{MailLog} has written."""

    def setUp(self) -> None:
        require("pflogsumm")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "mail.log"
        clock = Clock()
        clock.advance(time.time())
        self.maillog = MailLog(
            config_from_text(
                f"myhostname = relay.test\nmaillog_file = {self.path}\n"
                f"maillog_file_prefixes = {self.folder}\n"
            ),
            clock,
        )
        self.publisher = LogPublisher(self.maillog)

    def logger(self, program: str) -> Logger:
        """
        @return: a program's logger.
        """
        return Logger(namespace=f"qmqpd_tx.{program}", observer=self.publisher)

    def test_totals(self) -> None:
        """
        Delivered, deferred and bounced recipients, bytes, senders and warnings are counted from our events.
        (Mail that comes by QMQP is not counted as received: pflogsumm looks for smtpd and pickup only.)
        """
        qmqpd, cleanup, qmgr, smtp, local, bounce = map(
            self.logger, ("qmqpd", "cleanup", "qmgr", "smtp", "local", "bounce")
        )
        for number in range(10):
            queue_id = f"4B2K7D{number:05d}"
            qmqpd.info("{queue_id}: client={client}", queue_id=queue_id, client="localhost[127.0.0.1]")
            cleanup.info("{queue_id}: message-id={id}", queue_id=queue_id, id=b"<%d@source.test>" % number)
            qmgr.info(
                "{queue_id}: from=<{sender}>, size={size}, nrcpt={count} (queue active)",
                queue_id=queue_id,
                sender=b"s@source.test",
                size=1000,
                count=1,
            )
            if number < 5:
                outcome, dsn, text, program = "sent", "2.0.0", "250 2.0.0 Ok", smtp
            elif number < 7:
                outcome, dsn, text, program = "sent", "2.0.0", "delivered to maildir", local
            elif number < 9:
                outcome, dsn, text, program = "deferred", "4.4.1", "connect to x[192.0.2.1]:25: refused", smtp
            else:
                outcome, dsn, text, program = "bounced", "5.1.1", "host x said: 550 5.1.1 no\nsuch user", smtp
            program.info(
                "{queue_id}: to=<{to}>, relay={relay}, delay={delay}, delays={delays}, dsn={dsn}, "
                "status={status} ({text})",
                queue_id=queue_id,
                to=b"r@dst.test",
                relay="127.0.0.1[127.0.0.1]:2525",
                delay=0.05,
                delays="0.01/0.01/0.01/0.02",
                dsn=dsn,
                status=outcome,
                text=text,
            )
            if outcome == "bounced":
                bounce.info(
                    "{queue_id}: sender non-delivery notification: {notice}",
                    queue_id=queue_id,
                    notice="4B2K7D0000Z",
                )
            if outcome != "deferred":
                qmgr.info("{queue_id}: removed", queue_id=queue_id)
        smtp.warn("{queue_id}: something is odd", queue_id="4B2K7D00000")
        self.maillog.close()
        text = report(self.path)
        counted = {what: total(text, what) for what in ("delivered", "deferred", "bounced", "recipients")}
        self.assertEqual(counted, {"delivered": 7, "deferred": 2, "bounced": 1, "recipients": 1})
        self.assertEqual(total(text, "bytes delivered"), 7000)
        self.assertIn("something is odd", text)

    def test_same_report_as_for_postfix(self) -> None:
        """What Postfix logged of a real run, logged by us as events, makes the very same report."""
        with (
            smtp_sink() as sink,
            PrivatePostfix(
                {
                    "relayhost": f"[127.0.0.1]:{sink.port}",
                    "transport_maps": "inline:{{deferred.test=smtp:[127.0.0.1]:1}, "
                    "{bounced.test=error:5.1.2 no such domain}}",
                }
            ) as postfix,
        ):
            for domain, count in (("delivered.test", 7), ("deferred.test", 2), ("bounced.test", 1)):
                subprocess.run(
                    [
                        require("qmqp-source"),
                        *("-m", str(count), "-f", "s@source.test", "-t", f"r@{domain}"),
                        f"127.0.0.1:{postfix.port}",
                    ],
                    check=True,
                    timeout=60,
                )
            deadline = time.monotonic() + 30
            while postfix.log().count("status=") < 11 and time.monotonic() < deadline:
                time.sleep(0.02)
            theirs = postfix.log()
        (self.folder / "postfix.log").write_text(theirs)
        levels = {"warning: ": LogLevel.warn, "fatal: ": LogLevel.critical, "error: ": LogLevel.error}
        for line in theirs.splitlines():
            match = LINE.fullmatch(line)
            assert match is not None, line
            stamp, _, program, _, text = match.groups()
            level = next(
                (level for prefix, level in levels.items() if text.startswith(prefix)), LogLevel.info
            )
            year = time.localtime().tm_year
            self.maillog(
                {
                    "log_level": level,
                    "log_namespace": f"qmqpd_tx.{program}",
                    "log_time": time.mktime(time.strptime(f"{year} {stamp}", "%Y %b %d %H:%M:%S")),
                    "log_format": "{text}",
                    "text": text if level is LogLevel.info else text.partition(": ")[2],
                }
            )
        self.maillog.close()
        ours, expected = report(self.path), report(self.folder / "postfix.log")
        self.assertEqual(ours, expected)
        self.assertEqual(total(ours, "delivered"), 8)  # seven, and the bounce
        self.assertEqual((total(ours, "deferred"), total(ours, "bounced")), (2, 1))
