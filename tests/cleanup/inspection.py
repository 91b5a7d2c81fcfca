"""
One message through the header section and the body of an inspection, without a queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from zope.interface import implementer

from qmqpd_tx.cleanup.checks import ContentChecks, short_lines
from qmqpd_tx.cleanup.header_rules import HeaderRules, header_kinds
from qmqpd_tx.cleanup.headers import HeaderSection
from qmqpd_tx.cleanup.inspector import Inspector
from qmqpd_tx.cleanup.opening import Opening
from qmqpd_tx.cleanup.verdict import Verdict
from qmqpd_tx.config import config_from_text
from qmqpd_tx.interfaces import TableError
from qmqpd_tx.maillog.render import TextFormatter
from qmqpd_tx.message import ClientInfo, QueueID
from qmqpd_tx.tables import ILookupTable
from qmqpd_tx.tables.interface import FOLD

CLIENT = ClientInfo("127.0.0.1", "localhost")
QUEUE_ID = QueueID("4ZABCDEF")
DROPPED = frozenset((b"bcc", b"content-length", b"return-path", b"resent-bcc"))
WHERE = f"from {CLIENT.label()}; from=<s@ex.test> to=<r@dest.test>"
"""What the log says of the message."""


@implementer(ILookupTable)
class Patterns:
    """
    A table of Python patterns, one rule a line: C{PATTERN = ACTION}. C{TableError} as the action raises it.

    @ivar keys: what was looked up.
    @ivar blocks: what was asked about as a whole.
    """

    fixed_keys = False
    stable = True
    sources = ()

    def __init__(self, text: str, filters: bool = False, immediate: bool = True) -> None:
        """
        @param filters: whether it can be asked about a whole block; then it finds only what is in one.
        """
        self.name = "patterns:"
        self.immediate = immediate
        self.keys: list[bytes] = []
        self.blocks: list[bytes] = []
        rules = [line.split(" = ", 1) for line in text.splitlines() if " = " in line]
        self._rules = [
            (re.compile(pattern.encode("latin-1"), re.I | re.M), action.encode("latin-1"))
            for pattern, action in rules
        ]
        if filters:
            self.may_match = self._may_match

    def _may_match(self, block: bytes) -> bool:
        self.blocks.append(block)
        block = block.replace(FOLD, b"\n")
        return any(pattern.search(block) for pattern, _ in self._rules)

    def lookup(self, key: bytes) -> bytes | None:
        """See L{ILookupTable.lookup}."""
        self.keys.append(key)
        for pattern, action in self._rules:
            match = pattern.search(key)
            if match is not None:
                if action == b"TableError":
                    raise TableError("patterns: is broken")
                return match.expand(action)
        return None

    def close(self) -> None:
        """See L{ILookupTable.close}."""


def content_checks(
    tables: Mapping[str, Patterns | str] = {}, settings: str = "", line_limit: int = 0
) -> ContentChecks:
    """
    @param tables: by parameter; a text makes L{Patterns} without a filter.
    @param settings: further main.cf lines.
    @param line_limit: C{line_length_limit} below what a configuration allows; 0: as configured.
    """
    opened = {
        f"patterns:{parameter}": Patterns(table) if isinstance(table, str) else table
        for parameter, table in tables.items()
    }
    text = "".join(f"{parameter} = patterns:{parameter}\n" for parameter in tables)
    config = config_from_text("myhostname = relay.test\n" + text + settings)
    checks = ContentChecks.from_config(config, lambda name, parameter: opened[name])
    if not line_limit:
        return checks
    return evolve(checks, line_limit=line_limit, lines_are_short=short_lines(line_limit))


@frozen
class Inspected:
    """
    What became of a message.

    @ivar content: what is stored.
    @ivar log: the lines of the log, without the queue id.
    """

    content: bytes
    verdict: Verdict
    log: list[str]

    @property
    def reply(self) -> str:
        """The refusal; empty: there is none."""
        error = self.verdict.error
        return "" if error is None else f"{'D' if error.permanent else 'Z'}{error.text}"


def opened(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """
    @return: the chunks, with what is done to the start of a message.
    """
    opening = Opening(limit)
    for data in chunks:
        given = data if opening.is_over else opening.feed(data)
        if given:
            yield given
    if not opening.is_over and (given := opening.close()):
        yield given


def inspect(checks: ContentChecks, chunks: Iterable[bytes], looks: bool = True) -> Inspected:
    """
    @param chunks: the content.
    @param looks: whether tables are looked up.
    """
    verdict = Verdict()
    inspector = Inspector(checks, verdict, QUEUE_ID, CLIENT, looks)
    rules = HeaderRules(
        header_kinds(DROPPED), checks.header_limit, checks.line_limit, lambda name, value: None
    )
    headers = HeaderSection(rules, inspector)
    stored: list[bytes | Deferred[bytes]] = []
    body: bytes | None = None
    first = True
    with capturedLogs() as events:
        for data in opened(chunks, checks.line_limit):
            section = None
            end = data.find(b"\n\n") + 1
            if first and end and not data.startswith(b"\n"):
                section = headers.section(data[:end])
            first = False
            if section is not None:
                stored += section
                body = data[end:]
                stored.append(inspector.body(body))
            elif body is not None:
                stored.append(inspector.body(data))
            else:
                output, body = headers.feed(data)
                stored += output
                if body is not None:
                    stored.append(inspector.body(body))
        if body is None:
            output, body = headers.close()
            stored += [*output, inspector.body(body)]
        stored.append(inspector.body_end())
        inspector.remarks.tell(b"s@ex.test", b"r@dest.test")
    show = TextFormatter()
    log = [
        show.text(event).replace(f"{QUEUE_ID}: ", "")
        for event in events
        if event.get("log_namespace") == "qmqpd_tx.cleanup"
    ]
    pieces = [piece for piece in stored if isinstance(piece, bytes)]
    assert len(pieces) == len(stored)
    return Inspected(b"".join(pieces), verdict, log)
