"""
Everything that cleanup(8) does to addresses, by class of address: one object for each configuration.

Takes addresses as the client sent them, in internal form, and the values of headers; gives them complete and
mapped. In this order, as ADDRESS_REWRITING_README has it and a running Postfix does it:

  1. made complete (L{AddressRewriter}); C{MAILER-DAEMON} as a sender is the null sender, which nothing maps;
  2. C{sender_canonical_maps} or C{recipient_canonical_maps}, then C{canonical_maps};
  3. masquerading;
  4. for envelope recipients: C{recipient_bcc_maps} is asked, then C{virtual_alias_maps} expands.

Fails with L{TableError<qmqpd_tx.interfaces.TableError>} when a table cannot say, with
L{IntakeError<qmqpd_tx.interfaces.IntakeError>} when virtual aliases have no end. What nothing changes is
remembered, if the tables are stable: nearly all addresses of nearly all mail.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, evolve, field, frozen

from qmqpd_tx.address.classes import OwnAddresses
from qmqpd_tx.address.mailboxes import CLEAN, CLEAN_DOTTED, addresses_of_clean, parse_addresses
from qmqpd_tx.address.own import own_addresses
from qmqpd_tx.address.rewrite import AddressRewriter
from qmqpd_tx.address.syntax import quote_address
from qmqpd_tx.cleanup.aliases import VirtualAliases
from qmqpd_tx.cleanup.canonical import AddressMap
from qmqpd_tx.cleanup.chain import NO_CHAIN, Chain
from qmqpd_tx.cleanup.mapsettings import MapSettings
from qmqpd_tx.cleanup.remembered import Remembered
from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.message import QueueID
from qmqpd_tx.tables import OpenTable, open_table

SENDER_HEADERS = frozenset(
    b"from sender reply-to errors-to return-receipt-to disposition-notification-to mail-followup-to"
    b" resent-from resent-sender return-path".split()
)
"""The headers whose addresses are mapped as senders."""

RECIPIENT_HEADERS = frozenset(
    b"to cc bcc apparently-to resent-to resent-cc resent-bcc resent-reply-to".split()
)
"""The headers whose addresses are mapped as recipients; C{Resent-Reply-To} too, as in Postfix."""


@frozen(slots=True)
class AddressMaps:
    """
    See the module. Made by L{from_config}; L{variant} makes the others.

    @ivar rewriter: makes addresses complete.
    @ivar header_rewriter: makes those in headers complete; L{None}: headers stay as they are.
    @ivar envelope_sender: what is done to envelope senders.
    @ivar envelope_recipient: what is done to envelope recipients.
    @ivar header_sender: what is done to the addresses in L{SENDER_HEADERS}.
    @ivar header_recipient: what is done to the addresses in L{RECIPIENT_HEADERS}.
    @ivar aliases: virtual aliases; L{None}: none.
    @ivar always_bcc: who gets a copy of all mail; C{b""}: nobody.
    @ivar sender_bcc: who gets one, by sender; L{None}: nobody.
    @ivar recipient_bcc: who gets one, by recipient; L{None}: nobody.
    @ivar empty_recipient: C{empty_address_recipient}.
    @ivar own_daemons: the forms of C{MAILER-DAEMON} that mean the null sender, in lower case.
    @ivar keep_original: C{enable_original_recipient}.
    @ivar duplicate_limit: C{duplicate_filter_limit}; 0: none.
    @ivar token_limit: C{header_address_token_limit}.
    @ivar ordinary: what becomes of recipients as clients send them, where nobody gets a copy for them.
    @ivar senders: what L{sender} gives for senders as clients send them.
    @ivar headers: what L{header} gives for headers without their last line ends; C{b""}: nothing changes. The
        mail of a list, or of a program, has the same addresses in its headers again and again.
    @ivar maps_headers: whether complete addresses in headers may change, too.
    """

    rewriter: AddressRewriter
    header_rewriter: AddressRewriter | None
    envelope_sender: Chain
    envelope_recipient: Chain
    header_sender: Chain
    header_recipient: Chain
    aliases: VirtualAliases | None
    always_bcc: bytes
    sender_bcc: AddressMap | None
    recipient_bcc: AddressMap | None
    empty_recipient: bytes
    own_daemons: frozenset[bytes]
    keep_original: bool
    duplicate_limit: int
    token_limit: int
    ordinary: Remembered[Sequence[bytes]]
    _variants: dict[tuple[bool, str | None], AddressMaps] = Factory(dict)
    senders: Remembered[bytes] = Factory(lambda: Remembered(True, len))
    headers: Remembered[bytes] = Factory(lambda: Remembered(True, len))
    maps_headers: bool = field(init=False)

    @maps_headers.default
    def _maps_headers(self) -> bool:
        return self.header_rewriter is not None and bool(self.header_sender or self.header_recipient)

    @classmethod
    def from_config(
        cls, config: IConfig, open_table: OpenTable = open_table, own: OwnAddresses = own_addresses
    ) -> AddressMaps:
        """
        @param config: the configuration.
        @param open_table: opens one table for a parameter.
        @param own: gives the network addresses of this system under a configuration.
        @return: what is done to mail from this system's users.
        @raise ConfigError: a table, a list or a class in the configuration cannot be used.
        """
        read = MapSettings(config, open_table, own)
        rewriter = read.rewriter
        masquerade = read.masquerade()
        masqueraded = config.words("masquerade_classes")
        both = read.map("canonical_maps", "canonical"), config.words("canonical_classes")
        senders = (
            read.map("sender_canonical_maps", "canonical"),
            config.words("sender_canonical_classes"),
        )
        recipients = (
            read.map("recipient_canonical_maps", "canonical"),
            config.words("recipient_canonical_classes"),
        )

        def chain(name: str) -> Chain:
            # The classes of sender_canonical_maps are all of senders, and so on: the order is of no account.
            maps = [
                one for one, classes in (senders, recipients, both) if one is not None and name in classes
            ]
            return Chain(maps, masquerade if name in masqueraded else None)

        sender_bcc = read.map("sender_bcc_maps", either=True)
        recipient_bcc = read.map("recipient_bcc_maps", either=True)
        envelope_recipient = chain("envelope_recipient")
        aliases = read.aliases()
        daemon = b"mailer-daemon"
        return cls(
            rewriter=rewriter,
            header_rewriter=rewriter,
            envelope_sender=chain("envelope_sender"),
            envelope_recipient=envelope_recipient,
            header_sender=chain("header_sender"),
            header_recipient=chain("header_recipient"),
            aliases=aliases,
            always_bcc=read.text("always_bcc").strip(),
            sender_bcc=sender_bcc,
            recipient_bcc=recipient_bcc,
            empty_recipient=rewriter.rewrite(read.text("empty_address_recipient")),
            own_daemons=frozenset((daemon, rewriter.rewrite(daemon).lower())),
            keep_original=config.boolean("enable_original_recipient"),
            duplicate_limit=config.integer("duplicate_filter_limit"),
            token_limit=config.integer("header_address_token_limit"),
            ordinary=Remembered(
                envelope_recipient.stable
                and (recipient_bcc is None or recipient_bcc.lookup.stable)
                and (aliases is None or aliases.map.lookup.stable),
                _total,
            ),
        )

    def variant(self, mappings: bool = True, remote_domain: str | None = None) -> AddressMaps:
        """
        @param mappings: whether more is done than to make addresses complete.
        @param remote_domain: as in L{Treatment<qmqpd_tx.interfaces.Treatment>}.
        @return: the same, for mail that is treated so.
        """
        if mappings and remote_domain is None:
            return self
        key = mappings, remote_domain
        made = self._variants.get(key)
        if made is None:
            header_rewriter: AddressRewriter | None = self.rewriter
            if remote_domain is not None:
                header_rewriter = (
                    self.rewriter.remote(remote_domain.encode("utf-8", "surrogateescape"))
                    if remote_domain
                    else None
                )
            made = evolve(
                self,
                header_rewriter=header_rewriter,
                variants={},
                senders=Remembered(True, len),
                headers=Remembered(True, len),
            )
            if not mappings:
                made = evolve(
                    made,
                    envelope_sender=NO_CHAIN,
                    envelope_recipient=NO_CHAIN,
                    header_sender=NO_CHAIN,
                    header_recipient=NO_CHAIN,
                    aliases=None,
                    always_bcc=b"",
                    sender_bcc=None,
                    recipient_bcc=None,
                    ordinary=Remembered(True, _total),
                )
            self._variants[key] = made
        return made

    async def sender(self, address: bytes, queue_id: QueueID) -> bytes:
        """
        @param address: the envelope sender as the client sent it, in internal form.
        @param queue_id: for the log.
        @return: the envelope sender to store.
        @raise TableError: a table cannot say.
        """
        complete = self.rewriter.rewrite(address)
        if not complete or complete.lower() in self.own_daemons:
            sender = b""
        elif not self.envelope_sender:
            sender = complete
        else:
            sender = await self.envelope_sender.apply(complete, queue_id)
            if self.envelope_sender.known(complete) is None:
                return sender
        self.senders.add(address, sender)
        return sender

    async def header(self, name: bytes, value: bytes, queue_id: QueueID) -> bytes | None:
        """
        @param name: the header's name.
        @param value: what follows the colon, without the final newline; may be folded.
        @param queue_id: for the log.
        @return: L{None} when nothing changes, or the header has no addresses that are ours to change; else
            the new value with its leading space.
        @raise TableError: a table cannot say.
        """
        lower = name.lower()
        if lower in RECIPIENT_HEADERS:
            chain = self.header_recipient
        elif lower in SENDER_HEADERS:
            chain = self.header_sender
        else:
            return None
        rewriter = self.header_rewriter
        if rewriter is None:
            return None
        clean = CLEAN_DOTTED if rewriter.append_domain else CLEAN
        complete: list[bytes] = []
        mapped: list[bytes] = []
        if clean.fullmatch(value):
            complete = addresses_of_clean(value)
            mapped = await self._mapped(chain, complete, queue_id)
            if mapped == complete:
                self._remember(chain, complete, name, value, b"")
                return None
        parsed = parse_addresses(value, self.token_limit)
        if parsed is None:
            return None
        if parsed.addresses != complete:
            # It was not clean, or it has more than may be read.
            complete = parsed.complete(rewriter)
            mapped = await self._mapped(chain, complete, queue_id)
        rendered = parsed.render(name, [quote_address(address) for address in mapped])
        self._remember(chain, complete, name, value, rendered or b"")
        return rendered

    def _remember(
        self, chain: Chain, complete: Sequence[bytes], name: bytes, value: bytes, result: bytes
    ) -> None:
        # An address that is not remembered may be another time, or there is something to warn of each time.
        if not chain or all(chain.known(address) is not None for address in complete):
            self.headers.add(b"%b:%b" % (name, value), result)

    @staticmethod
    async def _mapped(chain: Chain, addresses: list[bytes], queue_id: QueueID) -> list[bytes]:
        if not chain:
            return addresses
        known = [chain.known(address) for address in addresses]
        return [
            await chain.apply(address, queue_id) if one is None else one
            for address, one in zip(addresses, known, strict=True)
        ]


def _total(addresses: Sequence[bytes]) -> int:
    return sum(map(len, addresses))
