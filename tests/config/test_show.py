"""C{qmqpd-tx postconf}."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.context import CommandError, Context
from qmqpd_tx.admin.postconf import postconf_command
from qmqpd_tx.config import load_config

MAIN = """\
relayhost = [a]:25,
   b   c
mydestination = $mine
mine = x.test
mytrans_destination_rate_delay = 2s
oops = 1
"""

MASTER = """\
127.0.0.1:6629 inet n - n 30? 50 qmqpd -v -o qmqpd_timeout=5
   -o { syslog_name = a  b }
mytrans unix - n n - - smtp -o smtp_helo_name=$mine
"""


class PostconfTests(SynchronousTestCase):
    """The command, as people run it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "main.cf").write_text(MAIN)
        (self.folder / "master.cf").write_text(MASTER)

    def run_command(self, *arguments: str) -> Result:
        """
        @return: what the command did.
        """
        return CliRunner().invoke(postconf_command, arguments, obj=Context(self.folder))

    def lines(self, *arguments: str) -> Sequence[str]:
        """
        @return: what a command that works prints on standard output.
        """
        result = self.run_command(*arguments)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.stdout.splitlines()

    def test_set(self) -> None:
        """
        C{-n} prints what is set and known, sorted, with single spaces.
        """
        self.assertEqual(
            self.lines("-n"),
            [
                f"config_directory = {self.folder}",
                "mine = x.test",
                "mydestination = $mine",
                "mytrans_destination_rate_delay = 2s",
                "relayhost = [a]:25, b c",
            ],
        )

    def test_all(self) -> None:
        """
        Without options all parameters are printed, sorted, set ones as set.
        """
        lines = self.lines()
        self.assertEqual([line.split(" =")[0] for line in lines], sorted(x.split(" =")[0] for x in lines))
        for line in ("qmqpd_timeout = 300s", "mydestination = $mine", "transport_maps ="):
            self.assertIn(line, lines)
        self.assertIn("mytrans_recipient_limit = $default_recipient_limit", lines)

    def test_defaults(self) -> None:
        """
        C{-d} prints defaults whatever is set, even where no main.cf is.
        """
        self.assertEqual(self.lines("-d", "relayhost", "mydestination")[0], "relayhost =")
        (self.folder / "main.cf").unlink()
        self.assertIn("qmqpd_answer_time_limit = 60s", self.lines("-d"))
        (self.folder / "main.cf").write_text("what is this\n")
        self.assertEqual(self.lines("-d", "relayhost", "mytrans_recipient_limit")[0], "relayhost =")

    def test_names(self) -> None:
        """
        Named parameters come in the order in which they were asked for; unknown ones are warned of.
        """
        result = self.run_command("relayhost", "nope", "oops", "mail_name")
        self.assertEqual(result.stdout, "relayhost = [a]:25, b c\nmail_name = Postfix\n")
        self.assertIn("postconf: warning: nope: unknown parameter\n", result.stderr)
        self.assertIn("postconf: warning: oops: unknown parameter\n", result.stderr)
        self.assertIn("main.cf, line 6: unused parameter: oops=1\n", result.stderr)

    def test_layout(self) -> None:
        """
        C{-h} prints values only, C{-H} names only.
        """
        self.assertEqual(self.lines("-h", "relayhost", "transport_maps"), ["[a]:25, b c", ""])
        self.assertEqual(self.lines("-H", "relayhost"), ["relayhost"])

    def test_expanded(self) -> None:
        """
        C{-x} replaces expressions; C{-o} sets a parameter for the while.
        """
        self.assertEqual(self.lines("-x", "mydestination"), ["mydestination = x.test"])
        self.assertEqual(self.lines("-x", "-o", "mine=y", "mydestination"), ["mydestination = y"])

    def test_services(self) -> None:
        """
        C{-M} prints master.cf in columns; C{-x} replaces expressions in options.
        """
        inet = (
            "127.0.0.1:6629 inet n    -       n       30?     50      qmqpd -v -o qmqpd_timeout=5 "
            "-o {syslog_name=a  b}"
        )
        unix = "mytrans    unix  -       n       n       -       -       smtp -o smtp_helo_name=$mine"
        self.assertEqual(self.lines("-M"), [inet, unix])
        self.assertEqual(self.lines("-Mx", "mytrans"), [unix.replace("$mine", "x.test")])
        self.assertEqual(self.lines("-M", "*/inet"), [inet])
        self.assertEqual(self.lines("-M", "mytrans/unix"), [unix])
        result = self.run_command("-M", "mytrans/inet")
        self.assertEqual(result.stdout, "")
        self.assertIn('postconf: warning: unmatched request: "mytrans/inet"\n', result.stderr)

    def test_several_lines_of_a_service(self) -> None:
        """
        C{-M} prints all lines of one name and type, although the last one counts.
        """
        (self.folder / "master.cf").write_text(
            "x unix - - n - - smtp\ny unix - - n - - smtp\nx unix - - n - 3 lmtp\n"
        )
        listed = self.lines("-M")
        self.assertEqual([line.split()[0] + line.split()[-1] for line in listed], ["xsmtp", "ysmtp", "xlmtp"])
        self.assertEqual(self.lines("-M", "x/unix"), [listed[0], listed[2]])

    def test_braces(self) -> None:
        """
        C{-M} prints braces around white space, but for the argument that ends the options.
        """
        for written, printed in (
            ("-v { a b } {  c d }", "-v a b {c d}"),
            ("-o { a = b } {} { c  d }", "-o a=b  {c  d}"),
            ("x { a b } {c} {-o} {} y", "x {a b} c -o  y"),
        ):
            (self.folder / "master.cf").write_text(f"x unix - - n - - pipe {written}\n")
            self.assertEqual(self.lines("-M")[0].partition("pipe ")[2], printed)

    def test_repeated(self) -> None:
        """
        A setting that a later line replaces is warned of.
        """
        with (self.folder / "main.cf").open("a") as stream:
            stream.write("mine = y\nmine =\n z\n")
        expected = [
            f"postconf: warning: {self.folder}/main.cf, line {line}: overriding earlier entry: mine={value}"
            for line, value in ((7, "x.test"), (8, "y"))
        ]
        for arguments in (("mine",), ("-o", "mine=q", "mine"), ("-n",), ("-M",)):
            self.assertEqual(self.run_command(*arguments).stderr.splitlines()[:2], expected, arguments)
        self.assertEqual(self.run_command("-d", "mine").stderr.count("overriding"), 0)
        config = load_config(self.folder / "main.cf")
        self.assertEqual([f"postconf: warning: {text}" for text in config.warnings()[:2]], expected)

    def test_badValue(self) -> None:
        """
        A configuration that cannot run is shown all the same, with the reason.
        """
        (self.folder / "main.cf").write_text("qmqpd_timeout = 3x\n")
        result = self.run_command("qmqpd_timeout")
        self.assertEqual((result.exit_code, result.stdout), (0, "qmqpd_timeout = 3x\n"))
        self.assertIn('main.cf, line 1: parameter qmqpd_timeout: bad time value "3x"', result.stderr)

    def test_badFile(self) -> None:
        """
        A file that cannot be understood, or is not there, ends in an error with status 78.
        """
        (self.folder / "main.cf").write_text("what is this\n")
        result = self.run_command()
        self.assertNotEqual(result.exit_code, 0)
        self.assertIn("main.cf, line 1: missing '='", result.stderr)
        (self.folder / "main.cf").unlink()
        result = CliRunner().invoke(postconf_command, [], obj=Context(self.folder), standalone_mode=False)
        self.assertIsInstance(result.exception, CommandError)
        assert isinstance(result.exception, CommandError)
        self.assertEqual(int(result.exception.status), 78)

    def test_usage(self) -> None:
        """
        Options that contradict each other, and attempts to edit, are refused.
        """
        for arguments in (("-d", "-n"), ("-h", "-H"), ("-M", "-n"), ("relayhost=x",), ("-o", "x")):
            self.assertEqual(self.run_command(*arguments).exit_code, 2, arguments)

    def test_controlCharacters(self) -> None:
        """
        A value cannot put control characters on the terminal.
        """
        (self.folder / "main.cf").write_bytes(b"relayhost = \x1b[2J\xff\n")
        self.assertEqual(self.lines("relayhost"), ["relayhost = ?[2J?"])
