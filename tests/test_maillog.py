"""
The mail log: what a person, pflogsumm or a log collector sees of an event.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.maillog import MailLog
from qmqpd_tx.maillog.render import delay_text, external, printable
from qmqpd_tx.maillog.sinks import DescriptorSink

SETTINGS = "compatibility_level = 3.6\nmyhostname = relay.example.org\n"
START = 1795323652.25


def stamp(now: float) -> str:
    """
    @return: C{Nov 22 05:00:52}, by another road than the code's.
    """
    month, day, clock = time.ctime(now).split()[1:4]
    return f"{month} {day:>2} {clock}"


class Case(SynchronousTestCase):
    """A log to a file in a scratch folder, on a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "mail.log"

    def open(self, settings: str = "", **arguments: object) -> MailLog:
        """
        @return: a log to C{self.path}.
        """
        maillog = MailLog(self.config(settings), self.clock, **arguments)  # type: ignore[arg-type]
        self.addCleanup(maillog.close)
        return maillog

    def config(self, settings: str = "") -> object:
        """
        @return: a configuration that logs to C{self.path}.
        """
        return config_from_text(
            f"{SETTINGS}maillog_file = {self.path}\nmaillog_file_prefixes = {self.folder}\n{settings}"
        )

    def logger(self, maillog: MailLog, program: str = "smtp") -> Logger:
        """
        @return: a logger whose events only C{maillog} sees.
        """
        return Logger(namespace=f"qmqpd_tx.{program}", observer=LogPublisher(maillog.observer))

    def lines(self) -> list[str]:
        """
        @return: the lines of the log file.
        """
        return self.path.read_text("utf-8").splitlines()

    def texts(self) -> list[str]:
        """
        @return: what follows C{program[pid]: }.
        """
        return [line.split("]: ", 1)[1] for line in self.lines()]


class PostfixLineTests(Case):
    """Lines in Postfix's shape."""

    def test_addresses(self) -> None:
        """
        Addresses are shown in external form, so that nothing in them looks like another field; or as they are
        (C{info_log_address_format}), also after a reload.
        """
        maillog = self.open()
        log = self.logger(maillog)
        forged = b"x>, status=sent, to=<y@dst.test"

        def show() -> None:
            log.info(
                "{queue_id}: to=<{to}>, orig_to=<{orig_to}>",
                queue_id="ABC",
                to=forged,
                orig_to="\u00fc r@d".encode(),
            )
            log.info(
                "{queue_id}: from=<{sender}>, to=<{recipient}>", queue_id="ABC", sender=b"", recipient=b"a@b"
            )
            maillog.flush()

        show()
        maillog.reconfigure(self.config("info_log_address_format = internal\n"))  # type: ignore[arg-type]
        show()
        for route in (b"@a.test,@b.test:x@c.test", b"@a.test:x y@c.test", b"@a>:x@c.test", b"@a.test@b.test"):
            self.assertEqual(external(route).startswith(b"@"), b">" not in route and b":" in route)
        self.assertEqual(external(b"@a.test:x y@c.test"), b'@a.test:"x y"@c.test')
        usual = "ABC: from=<>, to=<a@b>"
        self.assertEqual(
            self.texts(),
            [
                'ABC: to=<"x>, status=sent, to=<y"@dst.test>, orig_to=<"\u00fc r"@d>',
                usual,
                "ABC: to=<x>, status=sent, to=<y@dst.test>, orig_to=<\u00fc r@d>",
                usual,
            ],
        )

    def test_no_utf8(self) -> None:
        """
        With C{smtputf8_enable = no} each byte beyond ASCII is a C{?}, in JSON's text of the line, too.
        """
        for settings in ("", "maillog_format = json\n"):
            maillog = self.open(settings + "smtputf8_enable = no\n")
            log = self.logger(maillog)
            log.info("to=<{to}>: {text}", to="j\u00f6\n@d".encode(), text="\u20ac\udcff")
            log.info("to=<{to}>", to=b"j@d")
            maillog.flush()
        texts = [*self.lines()[:2], *(json.loads(line)["message"] for line in self.lines()[2:])]
        self.assertEqual(
            [text.partition("to=")[2] for text in texts], ['<"j???"@d>: ????', "<j@d>"] * 2, texts
        )

    def test_line(self) -> None:
        """Time, short host name, program with pid, and the text with its fields."""
        maillog = self.open(pid=lambda: 123)
        event = {
            "log_level": LogLevel.info,
            "log_namespace": "qmqpd_tx.smtp",
            "log_time": START,
            "log_format": "{queue_id}: to=<{to}>, relay={relay}, delay={delay}, "
            "dsn={dsn}, status={status} ({text})",
            "queue_id": "7E64163497B",
            "to": b"b@dst.test",
            "relay": "127.0.0.1[127.0.0.1]:2525",
            "delay": 1.54,
            "dsn": "2.0.0",
            "status": "sent",
            "text": "250 100% Ok",
        }
        maillog(event)
        maillog.flush()
        self.assertEqual(
            self.path.read_text(),
            f"{stamp(START)} relay postfix/smtp[123]: 7E64163497B: to=<b@dst.test>, "
            "relay=127.0.0.1[127.0.0.1]:2525, delay=1.5, dsn=2.0.0, status=sent (250 100% Ok)\n",
        )

    def test_day_of_one_digit(self) -> None:
        """The day has two columns, and the month is English in every locale."""
        maillog = self.open()
        moment = time.mktime((2026, 3, 5, 7, 8, 9, 0, 0, -1))
        maillog(
            {
                "log_level": LogLevel.info,
                "log_namespace": "qmqpd_tx.qmgr",
                "log_time": moment,
                "log_format": "x",
            }
        )
        maillog.flush()
        self.assertTrue(self.lines()[0].startswith("Mar  5 07:08:09 relay "), self.lines()[0])

    def test_levels(self) -> None:
        """Levels are told by Postfix's words before the text; debug is dropped."""
        log = self.logger(maillog := self.open())
        log.debug("one")
        log.info("two")
        log.warn("three")
        log.error("four")
        log.critical("five")
        maillog.flush()
        self.assertEqual(self.texts(), ["two", "warning: three", "error: four", "fatal: five"])

    def test_verbose(self) -> None:
        """Verbose shows debug events, and what Twisted says."""
        maillog = self.open(verbose=True)
        self.logger(maillog).debug("one")
        Logger(namespace="twisted.internet", observer=LogPublisher(maillog)).info("two")
        maillog.flush()
        self.assertEqual(self.texts(), ["one", "two"])

    def test_foreign_events(self) -> None:
        """Other packages' information is left out; their warnings are shown as twistd's."""
        maillog = self.open(pid=lambda: 7)
        log = Logger(namespace="twisted.internet.protocol", observer=LogPublisher(maillog))
        log.info("Starting factory {factory!r}", factory=self)
        log.warn("beware of {what!r:>5}", what="x")
        maillog.flush()
        self.assertEqual(
            [line.split("relay ")[1] for line in self.lines()],
            ["postfix/twistd[7]: warning: beware of   'x'"],
        )

    def test_program_field(self) -> None:
        """An event can say which program it speaks for; syslog_name comes before that."""
        maillog = self.open("syslog_name = mx2\n", pid=lambda: 7)
        self.logger(maillog).info("x", program="relay/smtp")
        maillog.flush()
        self.assertIn(" mx2/relay/smtp[7]: x", self.lines()[0])

    def test_pid_changes(self) -> None:
        """A service that has become a daemon logs its new process id."""
        pids = [1]
        log = self.logger(maillog := self.open(pid=lambda: pids[0]))
        log.info("x")
        maillog.flush()
        pids[0] = 2
        log.info("x")
        maillog.flush()
        self.assertEqual([line.split("[")[1] for line in self.lines()], ["1]: x", "2]: x"])

    def test_braces_and_percent(self) -> None:
        """Braces that are doubled, and percent signs, come out as they should."""
        log = self.logger(maillog := self.open())
        log.info("{{{name}}} 100% %s", name="50%")
        maillog.flush()
        self.assertEqual(self.texts(), ["{50%} 100% %s"])

    def test_missing_field(self) -> None:
        """A broken call to the logger is reported in the log, and raises nothing."""
        log = self.logger(maillog := self.open())
        log.info("{absent}: x")
        log.info("fine")
        maillog.flush()
        self.assertEqual(len(self.lines()), 2)
        self.assertIn("absent", self.lines()[0])

    def test_failure(self) -> None:
        """A failure is one line: what was done, what happened, where; not fatal, the service goes on."""
        log = self.logger(maillog := self.open())
        try:
            raise ValueError("bad\nthing")
        except ValueError:
            log.failure("while delivering {queue_id}", queue_id="ABC")
        maillog.flush()
        (text,) = self.texts()
        self.assertTrue(text.startswith("error: while delivering ABC: Traceback"), text)
        self.assertIn("ValueError: bad", text)
        self.assertIn("test_maillog.py", text)

    def test_huge_failure(self) -> None:
        """A traceback cannot fill the disk."""
        log = self.logger(maillog := self.open())
        log.failure("x", failure=Failure(ValueError("y" * 1_000_000)))
        maillog.flush()
        self.assertLess(len(self.lines()[0]), 10_000)

    def test_delays(self) -> None:
        """Floats look like Postfix's delays."""
        expected = {
            0.0: "0",
            0.004: "0",
            0.056: "0.06",
            0.5: "0.5",
            2.61: "2.6",
            9.99: "10",
            12.3: "12",
            86400.2: "86400",
            -0.001: "0",
        }
        for seconds, text in expected.items():
            self.assertEqual(delay_text(seconds), text)


class HostileFieldTests(Case):
    """Nothing from the network forges a line."""

    def test_control_characters(self) -> None:
        """As Postfix: a control character, or a byte that is no UTF-8, is a question mark; UTF-8 stays."""
        log = self.logger(maillog := self.open(), "cleanup")
        log.info("{queue_id}: message-id={id}", queue_id="B46E240C20E", id=b"<\xc3\xa9\xff\x01\t\x7fx@y>")
        maillog.flush()
        self.assertEqual(self.texts(), ["B46E240C20E: message-id=<é????x@y>"])

    def test_program_and_format(self) -> None:
        """Not even a program name, or a text that came to be a format, breaks the line."""
        log = self.logger(maillog := self.open())
        log.info("a\nb", program="x\ny")
        log.info("{broken\n")
        maillog.flush()
        self.assertEqual(len(self.lines()), 2)
        self.assertIn("postfix/x?y[", self.lines()[0])

    @given(st.lists(st.one_of(st.text(), st.binary()), min_size=3, max_size=3))
    def test_any_field(self, values: list[str | bytes]) -> None:
        """Whatever the fields hold, an event is exactly one line, in either format."""
        for format in ("postfix", "json"):
            read, write = os.pipe()
            sink = DescriptorSink(write)
            maillog = MailLog(
                config_from_text(f"{SETTINGS}maillog_format = {format}\n"),
                Clock(),
                foreground=True,
                sink=sink,
            )
            log = Logger(namespace="qmqpd_tx.x", observer=LogPublisher(maillog))
            log.info("{a}{b}", a=values[0], b=values[1], queue_id=values[2])
            maillog.flush()
            sink.close()
            with open(read, "rb") as stream:
                output = stream.read()
            self.assertEqual(output.count(b"\n"), 1)
            self.assertEqual(len(output.decode("utf-8").splitlines()), 1)
            self.assertFalse(any(byte < 32 for byte in output[:-1]))

    def test_long_field(self) -> None:
        """A line is bounded."""
        log = self.logger(maillog := self.open())
        log.info("{x}", x="y" * 1_000_000)
        maillog.flush()
        self.assertLess(len(self.lines()[0]), 10_000)

    def test_field_that_refuses(self) -> None:
        """An object that cannot be shown costs its line, not the service."""

        class Refuses:
            def __str__(self) -> str:
                raise RuntimeError("no")

            __repr__ = __str__

        for settings in ("", "maillog_format = json\n"):
            log = self.logger(maillog := self.open(settings))
            log.info("{x}", x=Refuses())
            log.info("next")
            maillog.flush()
        self.assertEqual(len(self.lines()), 4)

    def test_bidirectional_text(self) -> None:
        """Characters that reorder a terminal's line are shown as question marks."""
        self.assertEqual(printable("a\u202eb\u2028c\x85d\x9be"), "a?b?c?d?e")


class JSONTests(Case):
    """The other renderer."""

    def test_object(self) -> None:
        """One object a line, with the line's columns and every field by its name and type."""
        log = self.logger(maillog := self.open("maillog_format = json\n", pid=lambda: 9))
        log.warn(
            "{queue_id}: to=<{to}>, delay={delay}, nrcpt={n}",
            queue_id="ABC",
            to=b"a\xff\n@b",
            delay=0.25,
            n=3,
        )
        maillog.flush()
        record = json.loads(self.lines()[0])
        self.assertLess(abs(record.pop("time") - time.time()), 60)
        self.assertEqual(
            record,
            {
                "host": "relay",
                "program": "postfix/smtp",
                "pid": 9,
                "level": "warning",
                "queue_id": "ABC",
                "message": 'warning: ABC: to=<"a??"@b>, delay=0.25, nrcpt=3',
                "to": "a\ufffd\n@b",
                "delay": 0.25,
                "n": 3,
            },
        )

    def test_without_queue_id(self) -> None:
        """What belongs to no message has no queue_id; a field cannot pose as a column."""
        log = self.logger(maillog := self.open("maillog_format = json\n"))
        log.info("x", host="forged", pid="forged")
        maillog.flush()
        record = json.loads(self.lines()[0])
        self.assertNotIn("queue_id", record)
        self.assertEqual((record["host"], record["pid"]), ("relay", os.getpid()))

    def test_failure(self) -> None:
        """A failure's traceback is in the message."""
        log = self.logger(maillog := self.open("maillog_format = json\n"))
        log.failure("x", failure=Failure(ValueError("why")))
        maillog.flush()
        record = json.loads(self.lines()[0])
        self.assertIn("ValueError: why", record["message"])
        self.assertEqual(record["level"], "error")


class WritingTests(Case):
    """When and where lines are written."""

    def test_turn(self) -> None:
        """Lines of one turn are written at its end."""
        log = self.logger(self.open())
        log.info("one")
        log.info("two")
        self.assertEqual(self.lines(), [])
        self.clock.advance(0)
        self.assertEqual(self.texts(), ["one", "two"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_error_at_once(self) -> None:
        """An error is written at once, after what waited."""
        log = self.logger(self.open())
        log.info("one")
        log.error("two")
        self.assertEqual(self.texts(), ["one", "error: two"])

    def test_close(self) -> None:
        """At the end what waits is written, nothing is left on the clock, and late events are not lost."""
        log = self.logger(maillog := self.open())
        log.info("one")
        maillog.close()
        self.assertEqual(self.texts(), ["one"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        log.info("late")
        self.assertEqual(self.texts(), ["one", "late"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_thread(self) -> None:
        """An event of another thread is written without touching the reactor's clock."""
        log = self.logger(self.open())
        thread = threading.Thread(target=lambda: log.info("from afar"))
        thread.start()
        thread.join()
        self.assertEqual(self.texts(), ["from afar"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rotation(self) -> None:
        """After a rename, reopen goes on in a new file; nothing is lost."""
        log = self.logger(maillog := self.open())
        log.info("old")
        self.path.rename(self.folder / "mail.log.1")
        log.info("still old")
        maillog.reopen()
        log.info("new")
        maillog.flush()
        self.assertEqual(self.texts(), ["new"])
        old = (self.folder / "mail.log.1").read_text()
        self.assertEqual([line.split("]: ")[1] for line in old.splitlines()], ["old", "still old"])

    def test_rotation_fails(self) -> None:
        """When the new file cannot be opened the old one stays in use, and says so."""
        log = self.logger(maillog := self.open())
        moved = self.folder / "mail.log.1"
        self.path.rename(moved)
        self.path.mkdir()
        maillog.reopen()
        log.info("on")
        maillog.flush()
        texts = moved.read_text()
        self.assertIn("warning: cannot reopen maillog_file", texts)
        self.assertIn("]: on\n", texts)

    def test_appends(self) -> None:
        """A file that exists is continued."""
        self.path.write_text("before\n")
        log = self.logger(maillog := self.open())
        log.info("after")
        maillog.flush()
        self.assertEqual(len(self.lines()), 2)

    def test_disk_full(self) -> None:
        """A log that cannot be written loses lines, says how many when it can again, and never raises."""
        full = os.open("/dev/full", os.O_WRONLY)
        sink = DescriptorSink(full)
        log = self.logger(maillog := self.open(sink=sink))
        log.info("lost")
        log.error("lost too")
        working = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        os.dup2(working, full)
        os.close(working)
        log.info("back")
        maillog.flush()
        self.assertEqual(self.texts(), ["back", "warning: 2 log lines were lost: No space left on device"])

    def test_slow_reader(self) -> None:
        """A pipe that nobody reads holds up nothing and holds a bounded number of lines."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        sink = DescriptorSink(write)
        log = self.logger(maillog := self.open(sink=sink))
        for _ in range(50):
            log.info("{x}", x="y" * 8000)
            log.info("{x}", x="y" * 8000)
            for _ in range(10):
                log.info("{x}", x="z" * 8000)
            maillog.flush()
        self.assertGreater(sink.dropped, 0)
        os.set_blocking(read, False)
        output = b""
        for _ in range(100):
            try:
                output += os.read(read, 1 << 20)
            except BlockingIOError:
                maillog.flush()
        sink.close()
        os.close(read)
        lines = output.decode().splitlines()
        self.assertIn("log lines were lost: the reader is too slow", lines[-1])
        self.assertTrue(all("postfix/" in line for line in lines))

    def test_reconfigure(self) -> None:
        """A reload moves on to another file and format; the old file has all of before."""
        log = self.logger(maillog := self.open())
        log.info("old")
        other = self.folder / "other.log"
        maillog.reconfigure(
            config_from_text(
                f"{SETTINGS}maillog_file = {other}\nmaillog_file_prefixes = {self.folder}\n"
                "maillog_format = json\n"
            )
        )
        log.info("new")
        maillog.flush()
        self.assertEqual(self.texts(), ["old"])
        self.assertEqual(json.loads(other.read_text())["message"], "new")

    def test_bad_reload(self) -> None:
        """A configuration that cannot be used is refused, and the log goes on as it was."""
        log = self.logger(maillog := self.open())
        for settings, word in (
            ("maillog_format = xml", "maillog_format"),
            ("syslog_facility = nowhere", "syslog_facility"),
            (f"maillog_file = {self.folder}/absent/file", "absent"),
            ("maillog_file = /etc/passwd", "maillog_file_prefixes"),
        ):
            with self.assertRaises(ConfigError) as caught:
                maillog.reconfigure(self.config(settings + "\n"))  # type: ignore[arg-type]
            self.assertIn(word, str(caught.exception))
        log.info("still here")
        maillog.flush()
        self.assertEqual(self.texts(), ["still here"])


class SyslogTests(Case):
    """Lines to syslog."""

    def test_syslog(self) -> None:
        """Without a file, in the background: text under the program's name, at facility and level."""
        import syslog

        sent: list[tuple[str, int, str]] = []
        maillog = MailLog(
            config_from_text(f"{SETTINGS}syslog_facility = local3\nsyslog_name = mx\n"),
            self.clock,
            syslog_sender=lambda *line: sent.append(line),
        )
        log = self.logger(maillog, "qmgr")
        log.info("{queue_id}: removed", queue_id="ABC")
        log.warn("odd\n")
        log.error("bad", program="relay/smtp")
        self.assertEqual(
            sent,
            [
                ("mx/qmgr", syslog.LOG_LOCAL3 | syslog.LOG_INFO, "ABC: removed"),
                ("mx/qmgr", syslog.LOG_LOCAL3 | syslog.LOG_WARNING, "warning: odd?"),
                ("mx/relay/smtp", syslog.LOG_LOCAL3 | syslog.LOG_ERR, "error: bad"),
            ],
        )

    def test_to_syslog(self) -> None:
        """twistd's --syslog wins over maillog_file."""
        sent: list[str] = []
        maillog = self.open(to_syslog=True, syslog_sender=lambda ident, priority, text: sent.append(text))
        self.logger(maillog).info("x")
        self.assertEqual(sent, ["x"])
        self.assertFalse(self.path.exists())

    def test_nobody_listens(self) -> None:
        """A syslog that fails is no reason to fail."""

        def sender(ident: str, priority: int, text: str) -> None:
            raise OSError("no /dev/log")

        maillog = self.open(to_syslog=True, syslog_sender=sender)
        maillog(
            {"log_level": LogLevel.info, "log_namespace": "qmqpd_tx.x", "log_time": START, "log_format": "x"}
        )
