"""
What cleanup(8) reads from the configuration: one frozen value, made once per (re)load. Pure.

Fails with L{ConfigError<qmqpd_tx.interfaces.ConfigError>} (from the configuration) or not at all.
"""

from __future__ import annotations

from typing import Self

from attrs import frozen

from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.addresses import AddressRewriter
from qmqpd_tx.cleanup.headers import HeaderRules, header_kinds
from qmqpd_tx.cleanup.mailboxes import CLEAN, CLEAN_DOTTED, complete_addresses
from qmqpd_tx.interfaces import IConfig


@frozen(slots=True)
class Settings:
    """
    @ivar hostname: C{myhostname}, for Received and Message-Id.
    @ivar mail_name: the program's name in the Received header.
    @ivar rewriter: makes addresses complete.
    @ivar rules: how headers are treated.
    @ivar hopcount_limit: from how many Received headers on, ours included, mail is refused.
    @ivar size_limit: C{message_size_limit} for the whole queue file, bytes; 0: none.
    @ivar duplicate_limit: how many recipients the duplicate filter remembers; 0: all.
    @ivar empty_recipient: C{empty_address_recipient}.
    @ivar undisclosed: C{undisclosed_recipients_header}; empty: none.
    @ivar own_daemons: the forms of C{MAILER-DAEMON} that mean the null sender.
    """

    hostname: bytes
    mail_name: bytes
    rewriter: AddressRewriter
    rules: HeaderRules
    hopcount_limit: int
    size_limit: int
    duplicate_limit: int
    empty_recipient: bytes
    undisclosed: bytes
    own_daemons: frozenset[bytes]

    @classmethod
    def from_config(cls, config: IConfig) -> Self:
        """
        @param config: the configuration.
        """

        def text(name: str) -> bytes:
            return config.string(name).encode("utf-8", "surrogateescape")

        rewriter = AddressRewriter(
            origin=text("myorigin"),
            domain=text("mydomain"),
            append_origin=config.boolean("append_at_myorigin"),
            append_domain=config.boolean("append_dot_mydomain"),
            swap_bangpath=config.boolean("swap_bangpath"),
            percent_hack=config.boolean("allow_percent_hack"),
        )

        def complete(name: bytes, value: bytes) -> bytes | None:
            return complete_addresses(name, value, rewriter.rewrite, quote_address)

        drop = frozenset(word.lower().encode() for word in config.words("message_drop_headers"))
        rules = HeaderRules(
            kinds=header_kinds(drop),
            size_limit=config.integer("header_size_limit"),
            line_limit=config.integer("line_length_limit"),
            complete=complete,
            clean=CLEAN_DOTTED if rewriter.append_domain else CLEAN,
        )
        return cls(
            hostname=text("myhostname"),
            mail_name=text("mail_name"),
            rewriter=rewriter,
            rules=rules,
            hopcount_limit=config.integer("hopcount_limit"),
            size_limit=config.integer("message_size_limit"),
            duplicate_limit=config.integer("duplicate_filter_limit"),
            empty_recipient=rewriter.rewrite(text("empty_address_recipient")),
            undisclosed=text("undisclosed_recipients_header"),
            own_daemons=frozenset((b"mailer-daemon", rewriter.rewrite(b"mailer-daemon").lower())),
        )
