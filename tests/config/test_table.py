"""The parameter table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import qmqpd_tx
from qmqpd_tx.config import config_from_text
from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.parameters import PARAMETERS, TRANSPORT_PARAMETERS
from qmqpd_tx.config.parameters.transports import transport_member
from qmqpd_tx.config.reference import reference
from qmqpd_tx.config.table import Parameter, Type, by_name

MANUAL = """
allow_min_user address_verify_pending_request_limit bounce_queue_lifetime config_directory
confirm_delay_cleared content_filter daemon_timeout debug_peer_level debug_peer_list
default_delivery_slot_cost default_delivery_slot_discount default_delivery_slot_loan
default_destination_concurrency_failed_cohort_limit default_destination_concurrency_limit
default_destination_concurrency_negative_feedback default_destination_concurrency_positive_feedback
default_destination_rate_delay default_destination_recipient_limit default_extra_recipient_limit
default_filter_nexthop default_minimum_delivery_slots default_recipient_limit
default_recipient_refill_delay default_recipient_refill_limit default_transport_rate_delay
defer_transports delay_logging_resolution_limit destination_concurrency_feedback_debug helpful_warnings
hopcount_limit html_directory initial_destination_concurrency ipc_timeout line_length_limit max_idle
max_use maximal_backoff_time maximal_queue_lifetime message_size_limit minimal_backoff_time
notify_classes process_id process_name qmgr_clog_warn_time qmgr_daemon_timeout qmgr_fudge_factor
qmgr_ipc_timeout qmgr_message_active_limit qmgr_message_recipient_limit qmgr_message_recipient_minimum
qmqpd_authorized_clients qmqpd_client_port_logging qmqpd_error_delay qmqpd_timeout queue_directory
queue_run_delay readme_directory receive_override_options soft_bounce syslog_facility syslog_name
transport_retry_time verp_delimiter_filter
"""
"""What the manual pages of qmqpd(8), qmgr(8) and oqmgr(8) name."""

MEMBERS = """
delivery_slot_cost delivery_slot_discount delivery_slot_loan destination_concurrency_failed_cohort_limit
destination_concurrency_limit destination_concurrency_negative_feedback
destination_concurrency_positive_feedback destination_rate_delay destination_recipient_limit
extra_recipient_limit initial_destination_concurrency minimum_delivery_slots recipient_limit
recipient_refill_delay recipient_refill_limit transport_rate_delay
"""
"""What they name as C{transport_...}."""

IN_EXPRESSIONS = {
    "compatibility_level",
    "multi_instance_name",
    "process_id",
    "process_name",
    "service_name",
}
"""What has effect in the values of other parameters only."""

ACCESSORS = {
    "string": None,
    "integer": Type.INTEGER,
    "boolean": Type.BOOLEAN,
    "seconds": Type.TIME,
    "words": Type.LIST,
}
MEMBER_ACCESSORS = {"transport_integer", "transport_seconds", "transport_string"}


class TableTests(SynchronousTestCase):
    """The rows."""

    def test_manual(self) -> None:
        """
        Every parameter of the manual pages has a row.
        """
        self.assertEqual(set(MANUAL.split()) - set(PARAMETERS), set())
        self.assertEqual(set(MEMBERS.split()) - set(TRANSPORT_PARAMETERS), set())

    def test_rows(self) -> None:
        """
        Every row has help of one line, and a name that is not among those known by name only.
        """
        for name, row in PARAMETERS.items():
            self.assertEqual(name, row.name)
            self.assertTrue(row.help.endswith("."), name)
            self.assertEqual(len(row.help.splitlines()), 1, name)
            self.assertNotIn(name, KNOWN)

    def test_defaults(self) -> None:
        """
        Every default is good by its own row, at every compatibility level.
        """
        for level in ("0", "1", "2", "3.6"):
            config = config_from_text(f"compatibility_level = {level}")
            for name in PARAMETERS:
                config.string(name)

    def test_members(self) -> None:
        """
        Each family has a default parameter; the longest suffix counts.
        """
        for suffix, row in TRANSPORT_PARAMETERS.items():
            self.assertIn(row.default, PARAMETERS)
            self.assertTrue(row.help.endswith("."), suffix)
        member = transport_member("my_smtp_extra_recipient_limit")
        assert member is not None
        self.assertEqual((member.transport, member.suffix), ("my_smtp", "extra_recipient_limit"))
        self.assertIsNone(transport_member("initial_destination_concurrency"))
        self.assertIsNone(transport_member("foo"))

    def test_twice(self) -> None:
        """
        Two rows of one name are a mistake.
        """
        row = Parameter(name="x", type=Type.STRING)
        self.assertRaises(ValueError, by_name, (row,), (row,))


class UseTests(SynchronousTestCase):
    """What the program asks for is in the table."""

    def test_types(self) -> None:
        """
        Every parameter that some module reads by name exists, and is of the type that is asked for.
        """
        wrong = []
        for path, line, accessor, name in self.reads():
            if accessor in MEMBER_ACCESSORS:
                good = name in TRANSPORT_PARAMETERS
            else:
                row = PARAMETERS.get(name)
                wanted = ACCESSORS[accessor]
                good = row is not None and (wanted is None or row.type is wanted)
            if not good:
                wrong.append(f"{path}:{line}: {accessor}({name!r})")
        self.assertEqual(wrong, [])

    def test_effect(self) -> None:
        """
        A parameter has effect exactly when some module outside of the table names it (or its suffix).
        """
        named = self.named()
        suffixes = {row.default: suffix for suffix, row in TRANSPORT_PARAMETERS.items()}
        for name, row in PARAMETERS.items():
            member = transport_member(name)
            suffix = suffixes.get(name) if member is None else member.suffix
            used = name in named or suffix in named or name in IN_EXPRESSIONS
            self.assertEqual(row.effect, used, f"{name}: effect={row.effect}, but that is not so")

    def named(self) -> set[str]:
        """
        @return: all string constants of the package, but for the table's.
        """
        package = Path(qmqpd_tx.__file__).parent
        table = package / "config"
        found = set()
        for path in package.rglob("*.py"):
            if path.parent.name == "parameters" or path in {table / "known.py", table / "reference.py"}:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
        return found

    def reads(self) -> Iterator[tuple[str, int, str, str]]:
        """
        @return: file, line, accessor and name of each call like C{config.integer("name")}.
        """
        package = Path(qmqpd_tx.__file__).parent
        for path in sorted(package.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in {*ACCESSORS, *MEMBER_ACCESSORS}
                    and node.args
                    and isinstance(node.args[-1], ast.Constant)
                    and isinstance(node.args[-1].value, str)
                    and "config" in ast.unparse(node.func.value).lower()
                ):
                    yield str(path.relative_to(package)), node.lineno, node.func.attr, node.args[-1].value


class ReferenceTests(SynchronousTestCase):
    """L{reference}."""

    def test_entries(self) -> None:
        """
        Every row has its entry, in alphabetical order, with default, type, bounds and effect.
        """
        text = reference()
        positions = []
        for name in sorted(PARAMETERS):
            position = text.find(f"\n{name}\n{'-' * len(name)}\n")
            self.assertGreater(position, 0, name)
            positions.append(position)
        self.assertEqual(positions, sorted(positions))
        self.assertIn("<transport>_destination_rate_delay\n", text)
        entry = text[text.index("\nhash_queue_depth\n") :].split("\n.. _")[0]
        self.assertIn(":Default: ``1``\n:Type: integer\n:Values: from 1 to 16", entry)
        self.assertNotIn(":Effect:", entry)
        entry = text[text.index("\nsetgid_group\n") :].split("\n.. _")[0]
        self.assertIn(":Effect: none", entry)
        entry = text[text.index("\nqueue_commit_threads\n") :].split("\n.. _")[0]
        self.assertIn(":Postfix: does not have this parameter", entry)
