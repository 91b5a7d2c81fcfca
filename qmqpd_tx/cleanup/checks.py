"""
Header and body checks: which there are. One frozen value, made once per (re)load.

Takes the configuration; gives the tables and limits by which an
L{Inspector<qmqpd_tx.cleanup.inspector.Inspector>} goes. Fails with
L{ConfigError<qmqpd_tx.interfaces.ConfigError>}: a table cannot be opened, or is one that has to be waited
for, which a check in the middle of a message cannot. Answers to header_checks(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Self

from attrs import field, frozen

from qmqpd_tx.cleanup.actions import Check
from qmqpd_tx.interfaces import ConfigError, IConfig
from qmqpd_tx.tables.interface import FOLD, ILookupTable
from qmqpd_tx.tables.lists import OpenTable, TableList

Prefilter = Callable[[bytes], bool]
"""Takes a block of keys; whether one of them may be found."""


@frozen(slots=True)
class CheckTable:
    """
    The tables of one parameter.

    @ivar check: which check this is.
    @ivar lookup: takes a header or a line; gives the action, or L{None}.
        Raises L{TableError<qmqpd_tx.interfaces.TableError>}.
    @ivar may_match: takes a block of keys; False when none of them is found, as in
        L{IPatternTable<qmqpd_tx.tables.interface.IPatternTable>}.
    """

    check: Check
    lookup: Callable[[bytes], bytes | None]
    may_match: Prefilter


def _prefilter(tables: list[ILookupTable]) -> Prefilter:
    filters: list[Prefilter | None] = [getattr(table, "may_match", None) for table in tables]
    if len(filters) == 1 and filters[0] is not None:
        return filters[0]
    if not all(filters):
        return lambda block: True
    return lambda block: any(may_match(block) for may_match in filters if may_match is not None)


def _check_table(
    text: str, open_table: OpenTable, check: Check, filters: dict[str, Prefilter]
) -> CheckTable | None:
    tables = TableList(text, check.parameter, open_table)
    if not tables:
        return None
    for table in tables.tables:
        if not table.immediate:
            raise ConfigError(
                f"{check.parameter}: {table.name}: a table that has to be waited for cannot be used here; "
                "use one that is a file, as pcre, regexp, cidr or lmdb"
            )
    lookup = tables.tables[0].lookup if len(tables.tables) == 1 else tables.lookup_now
    # The same function for the same tables, so that they are asked about a block only once.
    if text not in filters:
        filters[text] = _prefilter(tables.tables)
    return CheckTable(check, lookup, filters[text])


def keys_of(section: bytes) -> bytes:
    """
    @param section: whole headers.
    @return: the block of keys that they are, as in L{IPatternTable<qmqpd_tx.tables.interface.IPatternTable>}.
    """
    return section.replace(b"\n ", FOLD + b" ").replace(b"\n\t", FOLD + b"\t")


def short_lines(limit: int) -> Callable[[bytes], object]:
    """
    @return: a function that takes whole lines and says whether all of them are within C{limit} bytes, in one
        pass.
    """
    return re.compile(rb"(?:[^\n]{0,%d}+\n)*" % limit).fullmatch


@frozen(slots=True)
class ContentChecks:
    """
    @ivar headers: C{header_checks}; L{None}: there are none.
    @ivar mime: C{mime_header_checks}.
    @ivar nested: C{nested_header_checks}.
    @ivar body: C{body_checks}.
    @ivar milter: C{milter_header_checks}.
    @ivar body_limit: C{body_checks_size_limit}: how much of each part body checks see, bytes.
    @ivar header_limit: C{header_size_limit}, bytes.
    @ivar line_limit: C{line_length_limit}: longer lines are seen in pieces, bytes.
    @ivar nesting_limit: C{mime_nesting_limit}.
    @ivar boundary_limit: C{mime_boundary_length_limit}, bytes.
    @ivar structured: whether MIME structure matters (not C{disable_mime_input_processing}).
    @ivar strict_headers: whether 8-bit bytes in headers are refused.
    @ivar strict_body: whether 8-bit bytes in what is declared to be 7bit are refused.
    @ivar strict_encoding: C{strict_mime_encoding_domain}.
    @ivar lines_are_short: takes whole lines; whether all of them are within C{line_length_limit}.
    @ivar strict: whether the form of messages matters.
    @ivar looks: whether there is a table for what clients send.
    """

    headers: CheckTable | None
    mime: CheckTable | None
    nested: CheckTable | None
    body: CheckTable | None
    milter: CheckTable | None
    body_limit: int
    header_limit: int
    line_limit: int
    nesting_limit: int
    boundary_limit: int
    structured: bool
    strict_headers: bool
    strict_body: bool
    strict_encoding: bool
    lines_are_short: Callable[[bytes], object]
    strict: bool = field(init=False)
    looks: bool = field(init=False)

    @strict.default
    def _strict(self) -> bool:
        return self.strict_headers or self.strict_body or self.strict_encoding

    @looks.default
    def _looks(self) -> bool:
        return any(table is not None for table in (self.headers, self.mime, self.nested, self.body))

    @classmethod
    def from_config(cls, config: IConfig, open_table: OpenTable) -> Self:
        """
        @param config: the configuration.
        @param open_table: opens a table for a parameter.
        @raise ConfigError: a table cannot be used.
        """
        filters: dict[str, Prefilter] = {}

        def table(text: str, check: Check) -> CheckTable | None:
            return _check_table(text, open_table, check, filters)

        line_limit = config.integer("line_length_limit")
        structured = not config.boolean("disable_mime_input_processing")
        strict = config.boolean("strict_8bitmime")
        return cls(
            headers=table(config.string("header_checks"), Check("header_checks", "header")),
            mime=table(config.string("mime_header_checks"), Check("mime_header_checks", "header")),
            nested=table(config.string("nested_header_checks"), Check("nested_header_checks", "header")),
            body=table(config.string("body_checks"), Check("body_checks", "body")),
            milter=table(
                config.string("milter_header_checks"), Check("milter_header_checks", "header", prepends=False)
            ),
            body_limit=config.integer("body_checks_size_limit"),
            header_limit=config.integer("header_size_limit"),
            line_limit=line_limit,
            nesting_limit=config.integer("mime_nesting_limit"),
            boundary_limit=config.integer("mime_boundary_length_limit"),
            structured=structured,
            strict_headers=structured and (strict or config.boolean("strict_7bit_headers")),
            strict_body=structured and (strict or config.boolean("strict_8bitmime_body")),
            strict_encoding=structured and config.boolean("strict_mime_encoding_domain"),
            lines_are_short=short_lines(line_limit),
        )
