"""
What cleanup(8) reads from the configuration: one frozen value, made once per (re)load. Pure.

Fails with L{ConfigError<qmqpd_tx.interfaces.ConfigError>} (from the configuration) or not at all.
"""

from __future__ import annotations

import re
from typing import Any, Self

from attrs import field, frozen

from qmqpd_tx.address.mailboxes import CLEAN, CLEAN_DOTTED, complete_addresses
from qmqpd_tx.address.smtputf8 import Detection
from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.characters import characters, pattern
from qmqpd_tx.cleanup.checks import ContentChecks
from qmqpd_tx.cleanup.header_rules import HeaderRules, header_kinds
from qmqpd_tx.cleanup.mapping import AddressMaps
from qmqpd_tx.cleanup.milters import Milters
from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.milter import InThread
from qmqpd_tx.tables import OpenTable


@frozen(slots=True)
class Settings:
    """
    @ivar hostname: C{myhostname}, for Received and Message-Id.
    @ivar mail_name: the program's name in the Received header.
    @ivar maps: what is done to addresses.
    @ivar checks: header and body checks.
    @ivar milters: mail filters.
    @ivar rejected: finds C{message_reject_characters}; L{None}: there are none.
    @ivar stripped: C{message_strip_characters}.
    @ivar rules: how headers are treated.
    @ivar size_limit: C{message_size_limit} for the whole queue file, bytes; 0: none.
    @ivar always_add: C{always_add_missing_headers}.
    @ivar undisclosed: C{undisclosed_recipients_header}; empty: none.
    @ivar detection: which mail is looked at for what needs SMTPUTF8.
    @ivar by: the clause of the Received header that says who has received the message.
    """

    hostname: bytes
    mail_name: bytes
    maps: AddressMaps
    checks: ContentChecks
    milters: Milters
    rejected: re.Pattern[bytes] | None
    stripped: bytes
    rules: HeaderRules
    size_limit: int
    always_add: bool
    undisclosed: bytes
    detection: Detection
    by: bytes = field(init=False)

    @by.default
    def _by(self) -> bytes:
        return b"by %b (%b)" % (self.hostname, self.mail_name)

    @classmethod
    def from_config(
        cls, config: IConfig, open_table: OpenTable, reactor: Any, in_thread: InThread | None
    ) -> Self:
        """
        @param config: the configuration.
        @param open_table: opens lookup tables.
        @param reactor: for connections to mail filters, and their time limits.
        @param in_thread: does what waits for a disk, for large messages that wait for mail filters.
        @raise ConfigError: a table or a filter cannot be used.
        """

        def text(name: str) -> bytes:
            return config.string(name).encode("utf-8", "surrogateescape")

        maps = AddressMaps.from_config(config, open_table)
        rewriter = maps.rewriter

        def complete(name: bytes, value: bytes) -> bytes | None:
            return complete_addresses(name, value, rewriter, quote_address, maps.token_limit)

        drop = frozenset(word.lower().encode() for word in config.words("message_drop_headers"))
        rules = HeaderRules(
            kinds=header_kinds(drop),
            size_limit=config.integer("header_size_limit"),
            line_limit=config.integer("line_length_limit"),
            received_limit=config.integer("hopcount_limit") - 1,
            complete=complete,
            clean=CLEAN_DOTTED if rewriter.append_domain else CLEAN,
        )
        return cls(
            hostname=text("myhostname"),
            mail_name=text("mail_name"),
            maps=maps,
            checks=ContentChecks.from_config(config, open_table),
            milters=Milters.from_config(config, reactor, in_thread),
            rejected=pattern(characters(text("message_reject_characters"))),
            stripped=characters(text("message_strip_characters")),
            rules=rules,
            size_limit=config.integer("message_size_limit"),
            always_add=config.boolean("always_add_missing_headers"),
            undisclosed=text("undisclosed_recipients_header"),
            detection=Detection.from_config(config),
        )
