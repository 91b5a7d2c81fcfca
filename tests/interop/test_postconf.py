"""
Side by side with Postfix: what C{postconf} prints for a configuration, C{qmqpd-tx postconf} prints too;
and a value that Postfix's programs refuse is refused here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.context import Context
from qmqpd_tx.admin.postconf import postconf_command
from qmqpd_tx.config import config_from_text
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.parameters import PARAMETERS
from qmqpd_tx.interfaces import ConfigError
from tests.peers import require

Finished = subprocess.CompletedProcess[str]

MACHINE = {"config_directory", "mail_version", "mynetworks", "process_id", "queue_directory"}
"""Defaults that are this program's own, or change from run to run."""

COMMON = """\
compatibility_level = 3.6
myhostname = mx.example.org
a = 1
b = two words
nested = <$a>
blank = $nope
empty =
dollar = $$x
spaced = a   b
"""

EXPRESSIONS = (
    "plain",
    "$a ${a} $(a) ${ a }",
    "$a.$b,$a/$a-",
    "$nested$nested",
    "$nope|",
    "$$a $$$a",
    "$dollar",
    "${a?yes}|${nope?yes}|${empty?yes}",
    "${a:no}|${nope:no}|${empty:no}",
    "${blank?set}|$blank|",
    "${a?{yes}:{no}} ${nope?{yes}:{no}}",
    "${nope ? {yes} : {no} }",
    "${nope?{x}:y z}",
    "${a?$a:$a}",
    "${{x${a? b }y} == {x b y} ? {kept} : {cut}}",
    "${{x${a?{ b }}y} == {x b y} ? {kept} : {cut}}",
    "${a?{${nope:{$$x}}}}",
    "${a?{x{y}z}}",
    "$(a?yes)",
    "${a?}|${nope:}|",
    "${a?x}:y}",
    "${a?}}",
    "${a?:b}",
    "${a:?b}",
    "${a?{b}:c:d}",
    "${nope?{b}:c}d}",
    "${{10} > {9} ? {number} : {text}}",
    "${{a10} > {a9} ? {number} : {text}}",
    "${{010} == {10} ? {same} : {other}}",
    "${{5} < {4a} ? {less} : {more}}",
    "${{-1} < {0} ? {less} : {more}}",
    "${{A} < {a} ? less}",
    "${{a}==  {a}}|${{a} == {b}}|",
    "${{a}!={b}?{c}}|${{a}!={b}:{c}}",
    "${{2} <= {2} ? {y}}${{2} >= {2} ? {y}}${{2} < {2} ? {y}}${{3} > {2} ? {y}}",
    "${{$a} == {1} ? {$b} : {n}}",
    "${{ a } == {a} ? {same} : {other}}",
    "${{$spaced} == {a   b} ? {same} : {other}}",
    "${{3.10} >level {3.9} ? {y} : {n}}",
    "${{3.10} > {3.9} ? {y} : {n}}",
    "${{$compatibility_level} <level {1} ? {y} : {n}}",
    "${{1} <=level {1.0.0} ? {y} : {n}}",
    "{ $a } { b }",
    "$myhostname $mydomain $mail_name",
    "$hash_queue_depth $smtpd_soft_error_limit $smtpd_timeout",
    "$append_dot_mydomain $relay_domains.",
    "$mynetworks_style $syslog_name $relay_transport",
    "$smtp_fallback_relay|$virtual_alias_domains|",
    "$",
    "a $-x",
    "${}",
    "${a",
    "$(a}",
    "${a.b}",
    "${a b}",
    "${{a}}",
    "${{a} = {b} ? {c}}",
    "${{a} == b ? {c}}",
    "${a?{b} {c}}",
    "${a?{b}:{c} d}",
    "${{x} <level {1} ? {y}}",
    "$mydestination",
)
"""Values of a parameter; those at the end are malformed."""

LAYOUTS = (
    "mydestination = b\n    c\n",
    "mydestination = b\n# x\n   # y\n\n   \n  c\n",
    "mydestination\n = a\n",
    "mydestination  \t=  a \t b  \n",
    "mydestination = b\r\n\tc\r\n",
    "mydestination = a # b\n",
    "mydestination = a = b\n",
    "mydestination = a\nmyorigin = x\nmydestination = b\n",
    "mydestination = a\n b",
    "mydestination =\nmyorigin = x\n",
    "own = 1\nmydestination = $own\nunused = 2\n",
    "mydestination\n",
    "my destination = a\n",
    "= a\n",
)
"""Whole files."""

VALUES: Mapping[str, Sequence[str]] = {
    "ipc_timeout": (
        *("3", "3s", "3m", "3h", "3d", "3w", "+5", "05", "2147483647"),
        *("3x", "3 s", "3S", "-1", "1.5h", "", "0", "0x10", "2147483648", "99999999999s", "4000w"),
    ),
    "helpful_warnings": ("yes", "no", "YES", "No", "true", "1", "on", "", "y", "yes x"),
    "hash_queue_depth": ("1", "2", "+1", "01", "0", "-1", "a", "1x", "", "1.0", "0x10", "2147483648"),
    "message_size_limit": ("1024", "9999999999999999", "99999999999999999999", "1M"),
    "line_length_limit": ("512", "511"),
    "header_size_limit": ("1", "0"),
    "delay_logging_resolution_limit": ("0", "6", "7"),
    "trigger_timeout": ("1", "0"),
    "default_process_limit": ("1", "0"),
    "myhostname": ("a.test", "a_b.test", "", "-x.test", "x..y", "[192.0.2.1]"),
    "mail_name": ("x", ""),
    "queue_directory": ("/tmp", ""),
    "syslog_facility": ("mail", "local0", "post"),
    "compatibility_level": ("2", "3.6", "x"),
    "inet_protocols": ("ipv4", "all", "ipv5"),
}
"""Values that every Postfix program checks; some good, some not."""

MASTER = """\
# comment
6628 inet n - n - 50 qmqpd
127.0.0.1:6629 inet n - n 30? 50 qmqpd -v -o qmqpd_timeout=5
   -o { syslog_name = a  b }
   # comment

   -o smtp_helo_name=$mine -D
tcp:6630:interface=127.0.0.1 inet n - n - - qmqpd
mytrans unix - n n - - pipe
   flags=Fq. user=bsmtp
   argv=/x { a  b } { c } $recipient -o d=e
smtp unix - - n 0? 0 smtp
relay unix - - n - - smtp
	-o syslog_name=${multi_instance_name?{$multi_instance_name}:{postfix}}/$service_name
"""

LISTING = """\
mine = x.test
mytrans_destination_rate_delay = 2s
mytrans_time_limit = 2s
smtp_destination_concurrency_limit = $default_destination_recipient_limit
relayhost = [a]:25,
   b   c
mydestination = $mine ${nope:other}
smtpd_banner = $mail_name
oops = 1
nobody_destination_rate_delay = 5s
"""


class PostconfTests(SynchronousTestCase):
    """Both programs on the same copied folder."""

    def setUp(self) -> None:
        self.postconf = require("postconf")
        self.postmap = require("postmap")
        self.top = Path(self.mktemp()).absolute()
        self.folders = 0

    def folder(self, main_cf: str) -> Path:
        """
        @return: a new configuration folder. Its files look old: Postfix waits for a second before it
            believes a file that has just changed.
        """
        self.folders += 1
        folder = self.top / str(self.folders)
        folder.mkdir(parents=True)
        for name, text in (("main.cf", main_cf), ("master.cf", MASTER)):
            (folder / name).write_bytes(text.encode())
            os.utime(folder / name, (1, 1))
        return folder

    def theirs(self, *command: str) -> Finished:
        """
        @return: what a program of Postfix's did.
        """
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def all_theirs(self, commands: Sequence[Sequence[str]]) -> Sequence[Finished]:
        """
        @return: what the programs did. They run side by side, as each sleeps for a second before it ends
            with a fatal error.
        """
        with ThreadPoolExecutor(24) as pool:
            return list(pool.map(lambda command: self.theirs(*command), commands))

    def ours(self, folder: Path, *arguments: str) -> tuple[bool, str]:
        """
        @return: whether our postconf was content, and what it printed.
        """
        result = CliRunner().invoke(postconf_command, arguments, obj=Context(folder))
        return result.exit_code == 0, result.stdout

    def assertSame(self, cases: Sequence[tuple[str, Sequence[str]]]) -> None:
        """
        For each main.cf and arguments, both print the same, or both refuse.
        """
        folders = [self.folder(main_cf) for main_cf, _ in cases]
        all_theirs = self.all_theirs(
            [
                [self.postconf, "-c", str(folder), *arguments]
                for folder, (_, arguments) in zip(folders, cases, strict=True)
            ]
        )
        for folder, (main_cf, arguments), theirs in zip(folders, cases, all_theirs, strict=True):
            self.assertEqual(
                self.ours(folder, *arguments),
                (theirs.returncode == 0, theirs.stdout),
                f"{main_cf}\n{arguments}\n{theirs.stderr}",
            )

    def test_expressions(self) -> None:
        """
        Expressions give the same text; malformed ones are refused by both.
        """
        self.assertSame(
            [
                (f"{COMMON}mydestination = {expression}\n", ["-x", "mydestination"])
                for expression in EXPRESSIONS
            ]
        )

    def test_layouts(self) -> None:
        """
        Continuation, comments, white space and repetition are read alike.
        """
        self.assertSame([(text, ["-n"]) for text in LAYOUTS])
        self.assertSame([(text, ["-x", "mydestination"]) for text in LAYOUTS])

    def test_values(self) -> None:
        """
        Values that Postfix's programs refuse are refused here, and those that they take are taken.
        """
        texts = [
            f"compatibility_level = 3.6\n{name} = {value}\n"
            for name, values in VALUES.items()
            for value in values
        ]
        all_theirs = self.all_theirs(
            [[self.postmap, "-c", str(self.folder(text)), "-q", "x", "static:y"] for text in texts]
        )
        for text, theirs in zip(texts, all_theirs, strict=True):
            try:
                config_from_text(text)
                good = True
            except ConfigError:
                good = False
            self.assertEqual(good, theirs.stdout == "y\n", f"{text}\n{theirs.stderr}")

    def test_listing(self) -> None:
        """
        The forms of listing print the same lines in the same order.
        """
        names = (
            "relayhost",
            "nope",
            "mytrans_time_limit",
            "smtp_time_limit",
            "relayhost",
            "mytrans_recipient_limit",
        )
        listings: Sequence[Sequence[str]] = (
            ("-n",),
            ("-n", "-h"),
            ("-n", "-H"),
            ("-n", "-x"),
            ("-n", "-x", "-o", "mine=y"),
            names,
            ("-x", *names),
            ("-h", *names),
            ("-d", "relayhost", "oops", "mydomain", "smtp_tcp_port"),
            ("-d", "-x", "smtp_helo_name", "relay_domains"),
            ("-n", "relayhost", "mail_name"),
            ("-M",),
            ("-M", "-x"),
            ("-M", "smtp"),
            ("-M", "smtp/unix", "6628/inet"),
            ("-M", "*/inet"),
            ("-M", "nope"),
        )
        self.assertSame([(LISTING, arguments) for arguments in listings])

    def test_unknown(self) -> None:
        """
        Names that Postfix calls unused are warned of here.
        """
        their = {
            line.rpartition("unused parameter: ")[2]
            for line in self.theirs(self.postconf, "-c", str(self.folder(LISTING)), "-n").stderr.splitlines()
            if "main.cf: unused parameter" in line
        }
        config = config_from_text(LISTING, MASTER)
        our = {
            line.rpartition("unused parameter: ")[2]
            for line in config.warnings()
            if line.startswith("main.cf") and "unused parameter" in line
        }
        self.assertEqual(our, their)
        self.assertEqual(len(their), 2)

    def test_defaults(self) -> None:
        """
        Every default is Postfix's, but for those of machine and program.
        """
        folder = self.folder("")
        theirs = self.theirs(self.postconf, "-c", str(folder), "-d").stdout
        their = dict(self.split(line) for line in theirs.splitlines())
        our = dict(self.split(line) for line in self.ours(folder, "-d")[1].splitlines())
        for name, row in PARAMETERS.items():
            if row.own:
                self.assertNotIn(name, their)
            elif name not in MACHINE:
                self.assertEqual(our[name], their[name], name)
        for name, default in KNOWN.items():
            self.assertEqual(" ".join(default.split()), their.get(name), name)

    def split(self, line: str) -> tuple[str, str]:
        """
        @return: name and value of a line.
        """
        name, _, value = line.partition(" =")
        return name, value.strip()
