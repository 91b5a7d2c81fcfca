"""
Side by side with Postfix: what C{postconf} prints for a configuration, C{qmqpd-tx postconf} prints too;
and a value that Postfix's programs refuse is refused here.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from click.testing import CliRunner
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.admin.context import Context
from qmqpd_tx.admin.postconf import postconf_command
from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import config_from_text
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.parameters import PARAMETERS
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.qmqp.settings import read_settings
from qmqpd_tx.spool.memory import MemoryMailQueue
from tests.peers import require, require_root, scratch

Finished = subprocess.CompletedProcess[str]

MACHINE = {"alias_maps", "config_directory", "mail_version", "mynetworks", "process_id", "queue_directory"}
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

INTAKE = """\
compatibility_level = 3.6
myhostname = mx.example.org
header_checks = pcre:/etc/header, regexp:{
  {/^X-A:/ WARN}
  {/^X-B:/ PREPEND X-C: d}
 }
nested_header_checks =
body_checks = static:{DUNNO this}
canonical_maps = inline:{ {a@b = c@d}, {e@f = g@h} } hash:$mine/canonical
mine = /etc/tables
virtual_maps = lmdb:$mine/old
recipient_bcc_maps = $sender_bcc_maps, unionmap:{static:x, $virtual_alias_maps}
sender_bcc_maps = ${always_bcc?{inline:{x=$always_bcc}}:{fail:nobody}}
always_bcc = archive@$mydomain
masquerade_domains = $mydomain, !keep.$mydomain
masquerade_exceptions = root
    postmaster
message_strip_characters = \\0
non_smtpd_milters = inet:localhost:8891, { unix:/run/x.sock, connect_timeout = 3s, default_action=accept }
milter_macro_defaults = a=1, {b=two words}
milter_macro_v = $mail_name
receive_override_options = no_address_mappings
relocated_maps = texthash:/etc/relocated
strict_8bitmime = yes
in_flow_delay = 2
debug_peer_list = 192.0.2.0/24 [2001:db8::]/32 $mydomain
undisclosed_recipients_header = To: nobody in particular:;
duplicate_filter_limit = $virtual_alias_expansion_limit
milter_protocol = $milter_command_timeout
odd_transport_maps = x
cleanup_delay = $in_flow_delay
header_size_limit = oops
"""
"""A configuration of intake."""

ASKED: Sequence[Sequence[str]] = (
    ("-n",),
    ("-n", "-x"),
    ("-n", "-H"),
    ("-x", "mime_header_checks", "nested_header_checks", "header_checks"),
    ("-h", "-x", "header_checks"),
    ("-x", "virtual_alias_maps", "virtual_alias_domains", "virtual_maps"),
    ("-x", "recipient_bcc_maps"),
    ("-x", "sender_bcc_maps"),
    ("-x", "-o", "always_bcc=", "sender_bcc_maps", "always_bcc"),
    ("-x", "-o", "header_checks=static:x", "mime_header_checks", "header_checks"),
    ("-x", "masquerade_domains", "masquerade_exceptions", "masquerade_classes"),
    ("-x", "-o", "mydomain=other.test", "masquerade_domains", "debug_peer_list"),
    ("non_smtpd_milters", "milter_macro_defaults", "milter_macro_v", "milter_macro_daemon_name"),
    ("-x", "milter_macro_daemon_name", "milter_macro_v"),
    ("-d", "milter_macro_v", "milter_macro_daemon_name", "milter_connect_macros", "milter_mail_macros"),
    ("milter_data_macros", "milter_end_of_data_macros", "milter_helo_macros", "milter_rcpt_macros"),
    ("milter_connect_timeout", "milter_command_timeout", "milter_content_timeout"),
    ("-d", "in_flow_delay", "header_size_limit", "hopcount_limit", "duplicate_filter_limit"),
    ("in_flow_delay", "header_size_limit", "duplicate_filter_limit", "milter_protocol"),
    ("-x", "duplicate_filter_limit", "milter_protocol", "cleanup_delay"),
    ("strict_8bitmime", "strict_7bit_headers", "strict_8bitmime_body", "strict_mime_encoding_domain"),
    ("-h", "message_drop_headers", "message_strip_characters", "message_reject_characters"),
    ("canonical_classes", "sender_canonical_classes", "recipient_canonical_classes"),
    ("-x", "propagate_unmatched_extensions", "recipient_delimiter", "canonical_maps"),
    ("-x", "undisclosed_recipients_header", "empty_address_recipient", "header_from_format"),
    ("-d", "append_dot_mydomain", "append_at_myorigin", "swap_bangpath", "allow_percent_hack"),
    ("-x", "-o", "compatibility_level=0", "append_dot_mydomain", "smtputf8_enable"),
    ("-d", "-x", "smtputf8_enable", "smtputf8_autodetect_classes", "local_header_rewrite_clients"),
    ("-d", "address_verify_relayhost", "address_verify_transport_maps", "show_user_unknown_table_name"),
    ("-x", "address_verify_relayhost", "address_verify_local_transport"),
    ("-d", "-h", "parent_domain_matches_subdomains", "proxy_read_maps"),
    ("-x", "relocated_maps", "transport_maps", "sender_dependent_relayhost_maps"),
    ("-d", "body_checks_size_limit", "mime_nesting_limit", "mime_boundary_length_limit"),
    ("-d", "virtual_alias_address_length_limit", "virtual_alias_recursion_limit"),
    ("-d", "lmdb_map_size", "hash_queue_names", "berkeley_db_create_buffer_size"),
    ("-d", "max_idle", "max_use", "ipc_timeout", "daemon_timeout", "debug_peer_level"),
)
"""What is asked about L{INTAKE}."""

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

CLEANUP_VALUES: Mapping[str, Sequence[str]] = {
    "header_size_limit": ("1", "0"),
    "header_address_token_limit": ("1", "0"),
    "body_checks_size_limit": ("1", "0", "x"),
    "mime_nesting_limit": ("1", "0", "1k"),
    "mime_boundary_length_limit": ("1", "0"),
    "hopcount_limit": ("1", "0"),
    "duplicate_filter_limit": ("1", "0"),
    "virtual_alias_recursion_limit": ("1", "0"),
    "virtual_alias_expansion_limit": ("1", "0"),
    "virtual_alias_address_length_limit": ("1", "0"),
    "queue_file_attribute_count_limit": ("1", "0"),
    "in_flow_delay": ("0", "10s", "11s", "x"),
    "milter_connect_timeout": ("1s", "0"),
    "milter_command_timeout": ("1s", "0"),
    "milter_content_timeout": ("1h", "0"),
    "masquerade_classes": ("envelope_sender,header_recipient", "", "sender"),
    "canonical_classes": ("header_sender", "", "headers"),
    "sender_canonical_classes": ("header_sender", "header_recipient", "nobody"),
    "recipient_canonical_classes": ("envelope_recipient", "all"),
    "propagate_unmatched_extensions": (
        "canonical, virtual, alias, forward, include, generic",
        "",
        "relocated",
    ),
    "header_from_format": ("standard", "obsolete", "other"),
    "strict_8bitmime": ("yes", "maybe"),
    "strict_7bit_headers": ("no", "1"),
    "detect_8bit_encoding_header": ("no", ""),
    "always_add_missing_headers": ("yes", "always"),
    "enable_original_recipient": ("no", "none"),
    "always_bcc": ("not an address", ""),
    "header_checks": ("", "nope:x", "no-colon", "static:x"),
    "virtual_alias_maps": ("", "nope:x", "no-colon", "static:x"),
    "recipient_bcc_maps": ("nope:x", "inline:{a=b}"),
    "smtputf8_autodetect_classes": ("all", "sendmail, verify", "nobody"),
}
"""Values that cleanup(8) checks when it starts."""

QMQPD_VALUES: Mapping[str, Sequence[str]] = {
    "qmqpd_timeout": ("1s", "0"),
    "qmqpd_error_delay": ("0", "-1"),
    "qmqpd_client_port_logging": ("yes", "maybe"),
    "receive_override_options": ("no_milters, no_address_mappings", "", "no_mappings"),
    "verp_delimiter_filter": ("-=+", "", "-"),
    "default_verp_delimiters": ("-=", "", "+", "ab", "-=+"),
    "debug_peer_level": ("1", "0", "two"),
    "content_filter": ("smtp:[127.0.0.1]:10025", ""),
    "max_use": ("1", "0"),
    "max_idle": ("1s", "0"),
    "daemon_timeout": ("1s", "0"),
    "ipc_timeout": ("1s", "0"),
    "smtputf8_enable": ("no", "never"),
    "enable_idna2003_compatibility": ("yes", "2003"),
    "soft_bounce": ("yes", "soft"),
}
"""Values that qmqpd(8) checks when it starts."""

STRICTER = frozenset(
    {
        "header_checks = nope:x",
        "recipient_bcc_maps = nope:x",
        "smtputf8_autodetect_classes = nobody",
        "virtual_alias_maps = nope:x",
    }
)
"""What Postfix finds out when the first mail needs it, and we at the start."""

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


LINES = """\
smtp unix - - n - - smtp
smtp inet n - n - - smtpd
smtp unix - - n - 3 smtp -o a=b -v
mytrans unix - n n - - pipe -v { a  b } { c d }
mytrans unix - n n - - pipe {a} { c d }
mytrans unix - n n - - pipe -o { a = b } {} x
mytrans unix - n n - - pipe x {-o} { -o } {} {a=b c}
"""
"""Lines of one name and type, and arguments in braces."""

REPEATED = """\
mine = a b
    c
nope = 1
mine =
nope = 2
mine = d
"""


class PostconfTests(SynchronousTestCase):
    """Both programs on the same copied folder."""

    def setUp(self) -> None:
        self.postconf = require("postconf")
        self.postmap = require("postmap")
        self.top = Path(self.mktemp()).absolute()
        self.folders = 0

    def folder(self, main_cf: str, master_cf: str = MASTER) -> Path:
        """
        @return: a new configuration folder. Its files look old: Postfix waits for a second before it
            believes a file that has just changed.
        """
        self.folders += 1
        folder = self.top / str(self.folders)
        folder.mkdir(parents=True)
        for name, text in (("main.cf", main_cf), ("master.cf", master_cf)):
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

    def test_intake(self) -> None:
        """
        Parameters of intake: defaults, expansion, C{-o} and layout.
        """
        self.assertSame([(INTAKE, arguments) for arguments in ASKED])

    def test_cleanup_values(self) -> None:
        """
        What Postfix's cleanup(8) starts with, ours starts with, and what it refuses, is refused here.
        """
        self.compare_starts("cleanup", CLEANUP_VALUES)

    def test_qmqpd_values(self) -> None:
        """
        What Postfix's qmqpd(8) starts with, ours starts with, and what it refuses, is refused here.
        """
        self.compare_starts("qmqpd", QMQPD_VALUES)

    def compare_starts(self, program: str, values: Mapping[str, Sequence[str]]) -> None:
        """
        @raise FailTest: naming all values on which Postfix's program and we disagree.
        """
        require_root()
        texts = [f"{name} = {value}" for name, options in values.items() for value in options]
        with ThreadPoolExecutor(12) as pool:
            theirs = list(pool.map(lambda text: self.starts(program, text), texts))
        different = []
        for text, their in zip(texts, theirs, strict=True):
            try:
                config = config_from_text(f"compatibility_level = 3.6\n{text}\n")
                Cleanup(config=config, clock=Clock(), queue=MemoryMailQueue())
                read_settings(config, 0)
                our = True
            except ConfigError:
                our = False
            if our != (their and text not in STRICTER):
                different.append(f"{text}: Postfix {their}, ours {our}")
        self.assertEqual(different, [], "\n".join(different))

    def starts(self, program: str, parameter: str) -> bool:
        """
        @return: whether one of Postfix's daemons, alone, gets as far as saying something to its client.
        """
        folder = scratch()
        try:
            queue = folder / "queue"
            for each in ("incoming", "pid", "public", "private"):
                (queue / each).mkdir(parents=True)
                shutil.chown(queue / each, "postfix")
            (folder / "main.cf").write_text(
                f"compatibility_level = 3.6\n{parameter}\n"
                f"queue_directory = {queue}\ndata_directory = {folder}\n"
                f"maillog_file = {folder}/log\nmaillog_file_prefixes = {folder}\n"
            )
            our_end, its_end = socket.socketpair()
            with our_end, its_end:
                process = subprocess.Popen(
                    [f"/usr/lib/postfix/sbin/{program}", "-S"],
                    stdin=its_end,
                    stdout=its_end,
                    stderr=subprocess.DEVNULL,
                    env={"MAIL_CONFIG": str(folder), "PATH": os.environ["PATH"]},
                )
                its_end.close()
                our_end.settimeout(60)
                try:
                    return bool(our_end.recv(1000))
                finally:
                    our_end.close()
                    process.wait(60)
        finally:
            shutil.rmtree(folder)

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

    def test_lines_of_services(self) -> None:
        """
        All lines of master.cf are printed, with braces where both print them.
        """
        folder = self.folder("", LINES)
        for arguments in (("-M",), ("-M", "smtp/unix"), ("-M", "mytrans")):
            theirs = self.theirs(self.postconf, "-c", str(folder), *arguments)
            self.assertEqual(self.ours(folder, *arguments), (True, theirs.stdout))

    def test_repeated(self) -> None:
        """
        What is set more than once is warned of in the same words; where main.cf makes no sense, defaults are
        shown.
        """
        folder = self.folder(REPEATED)
        for arguments in (("mine",), ("-o", "mine=x", "mine"), ("-M",), ("-d", "mail_name")):
            theirs = self.theirs(self.postconf, "-c", str(folder), *arguments).stderr.splitlines()
            result = CliRunner().invoke(postconf_command, arguments, obj=Context(folder))
            self.assertEqual(
                [line for line in result.stderr.splitlines() if "overriding" in line],
                [line[line.index("postconf: ") :] for line in theirs if "overriding" in line],
            )
        self.assertSame([("mail_name = x\nnonsense\n", ("-d", "-x", "mail_name", "relayhost"))])

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
