"""
Where each parameter of the manual pages of intake is tested, or why it is different here.

Knows the names that qmqpd(8), cleanup(8) and trivial-rewrite(8) list; looks through the tests and through
docs/differences.rst. C{python -m tests.config.manual} prints the page C{intake-parameters} of the
documentation.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

from qmqpd_tx.config.known import KNOWN
from qmqpd_tx.config.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"
DIFFERENCES = ROOT / "docs" / "differences.rst"

VERSION = "3.7.11"
"""The Postfix whose pages these are; qmqpd(8) has all that older ones have, too."""

_LISTED = {
    "qmqpd": """
    config_directory content_filter daemon_timeout debug_peer_level debug_peer_list
    enable_idna2003_compatibility hopcount_limit ipc_timeout line_length_limit max_idle max_use
    message_size_limit process_id process_name qmqpd_authorized_clients qmqpd_client_port_logging
    qmqpd_error_delay qmqpd_timeout queue_directory receive_override_options service_name
    smtputf8_autodetect_classes smtputf8_enable soft_bounce syslog_facility syslog_name
    verp_delimiter_filter
    """,
    "cleanup": """
    always_add_missing_headers always_bcc body_checks body_checks_size_limit canonical_classes
    canonical_maps cleanup_replace_stray_cr_lf config_directory daemon_timeout
    delay_logging_resolution_limit delay_warning_time detect_8bit_encoding_header
    disable_mime_input_processing duplicate_filter_limit empty_address_recipient enable_errors_to
    enable_idna2003_compatibility enable_long_queue_ids enable_original_recipient
    header_address_token_limit header_checks header_from_format header_size_limit hopcount_limit
    in_flow_delay info_log_address_format ipc_timeout masquerade_classes masquerade_domains
    masquerade_exceptions max_idle max_use message_drop_headers message_reject_characters
    message_size_limit message_strip_characters milter_command_timeout milter_connect_macros
    milter_connect_timeout milter_content_timeout milter_data_macros milter_default_action
    milter_end_of_data_macros milter_end_of_header_macros milter_header_checks milter_helo_macros
    milter_macro_daemon_name milter_macro_defaults milter_macro_v milter_mail_macros milter_protocol
    milter_rcpt_macros milter_unknown_command_macros mime_boundary_length_limit mime_header_checks
    mime_nesting_limit myhostname myorigin nested_header_checks non_smtpd_milters process_id process_name
    propagate_unmatched_extensions queue_directory queue_file_attribute_count_limit recipient_bcc_maps
    recipient_canonical_classes recipient_canonical_maps remote_header_rewrite_domain sender_bcc_maps
    sender_canonical_classes sender_canonical_maps service_name smtputf8_autodetect_classes
    smtputf8_enable soft_bounce strict_7bit_headers strict_8bitmime strict_8bitmime_body
    strict_mime_encoding_domain syslog_facility syslog_name undisclosed_recipients_header
    virtual_alias_address_length_limit virtual_alias_expansion_limit virtual_alias_maps
    virtual_alias_recursion_limit virtual_maps
    """,
    "trivial-rewrite": """
    address_verify_default_transport address_verify_local_transport address_verify_relay_transport
    address_verify_relayhost address_verify_sender_dependent_default_transport_maps
    address_verify_sender_dependent_relayhost_maps address_verify_transport_maps
    address_verify_virtual_transport allow_min_user allow_percent_hack append_at_myorigin
    append_dot_mydomain config_directory daemon_timeout default_transport
    empty_address_default_transport_maps_lookup_key empty_address_recipient
    empty_address_relayhost_maps_lookup_key helpful_warnings ipc_timeout local_transport max_idle max_use
    myorigin parent_domain_matches_subdomains process_id process_name queue_directory recipient_delimiter
    relay_transport relayhost relocated_maps remote_header_rewrite_domain resolve_dequoted_address
    resolve_null_domain resolve_numeric_domain sender_dependent_default_transport_maps
    sender_dependent_relayhost_maps service_name show_user_unknown_table_name swap_bangpath
    syslog_facility syslog_name transport_maps virtual_transport
    """,
}

PAGES: Mapping[str, Sequence[str]] = {page: names.split() for page, names in _LISTED.items()}
"""The parameters that each page lists."""

NO_PROOF = ("tests/config/manual.py", "tests/config/test_table.py", "tests/interop/test_postconf.py")
"""Files that name parameters without showing what they do."""


@frozen
class Entry:
    """
    One parameter.

    @ivar name: its name.
    @ivar pages: which pages list it.
    @ivar effect: whether it has a row in the table of parameters, and has effect.
    @ivar different: whether docs/differences.rst names it.
    @ivar tests: the test files that name it.
    """

    name: str
    pages: Sequence[str]
    effect: bool
    different: bool
    tests: Sequence[str]


@cache
def entries() -> Sequence[Entry]:
    """
    @return: all parameters of the pages, by name.
    """
    named = _named_in_tests()
    literals = set(re.findall(r"``(\w+)\b[^`]*``", DIFFERENCES.read_text("utf-8")))
    found = []
    for name in sorted({name for names in PAGES.values() for name in names}):
        row = PARAMETERS.get(name)
        found.append(
            Entry(
                name,
                [page for page, names in PAGES.items() if name in names],
                row is not None and row.effect,
                name in literals,
                named.get(name, ()),
            )
        )
    return found


def _named_in_tests() -> Mapping[str, Sequence[str]]:
    """
    @return: for each parameter the test files in which a string holds its name. Comments and documentation do
        not count.
    """
    known = {*PARAMETERS, *KNOWN}
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in NO_PROOF:
            words = {word for text in _strings(path) for word in re.findall(r"\w+", text)}
            for word in words & known:
                found.setdefault(word, []).append(name)
    return found


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        statements = getattr(node, "body", None)
        if isinstance(statements, list):
            node.body = [  # type: ignore[attr-defined]
                each
                for each in statements
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            yield value if isinstance(value, str) else value.decode("latin-1")
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def page() -> str:
    """
    @return: reStructuredText.
    """
    lines = [
        "Intake, parameter by parameter",
        "==============================",
        "",
        "All parameters that the manual pages qmqpd(8), cleanup(8) and trivial-rewrite(8) of Postfix",
        f"{VERSION} list: where each is tested, and whether something about it is meant to differ here.",
        "How it differs is in :doc:`differences`, and what each means in :doc:`parameters`.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 30 20 15 35",
        "",
        "   * - parameter",
        "     - listed by",
        "     - here",
        "     - tests",
    ]
    for entry in entries():
        here = ["in effect"] if entry.effect else []
        here += ["different"] if entry.different else []
        tests = [test.removeprefix("tests/") for test in entry.tests] if entry.effect else []
        lines += [
            f"   * - ``{entry.name}``",
            f"     - {', '.join(entry.pages)}",
            f"     - {', '.join(here) or '-'}",
            f"     - {', '.join(f'``{test}``' for test in tests[:4]) or '-'}",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
