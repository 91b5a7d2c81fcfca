"""
What the configuration says about the mapping of addresses.

Takes a configuration and opens the tables that it names; gives the parts of which
L{AddressMaps<qmqpd_tx.cleanup.mapping.AddressMaps>} is made. Fails with
L{ConfigError<qmqpd_tx.interfaces.ConfigError>} that names the parameter and the word. Start-up and reload
only.
"""

from __future__ import annotations

from qmqpd_tx.address.classes import AddressClasses, OwnAddresses
from qmqpd_tx.address.lookup import AddressLookup
from qmqpd_tx.address.rewrite import AddressRewriter
from qmqpd_tx.cleanup.aliases import VirtualAliases
from qmqpd_tx.cleanup.canonical import AddressMap
from qmqpd_tx.cleanup.masquerade import Masquerade
from qmqpd_tx.cleanup.remembered import Remembered
from qmqpd_tx.interfaces import IConfig
from qmqpd_tx.tables import OpenTable, StringMatchList, TableList


class LocalDomains:
    """
    The domains whose users may stand in tables without a domain: C{myorigin}, those in C{mydestination}, and
    literals of this system's own addresses.

    @ivar immediate: whether to ask it by a call; otherwise L{find} waits for the answer.
    @param classes: the lists of domains.
    """

    def __init__(self, classes: AddressClasses) -> None:
        self._classes = classes
        self.immediate = classes.local_is_immediate
        self._known: Remembered[bool] = Remembered(classes.stable, int)

    def __call__(self, domain: bytes) -> bool:
        """
        @return: whether it is one of them.
        """
        known = self._known.get(domain)
        if known is None:
            known = self._classes.is_ours_now(domain)
            self._known.add(domain, known)
        return known

    async def find(self, domain: bytes) -> bool:
        """
        @return: whether it is one of them.
        @raise TableError: a table cannot say.
        """
        return await self._classes.is_ours(domain)


class MapSettings:
    """
    @ivar rewriter: makes addresses complete.
    @param config: the configuration.
    @param open_table: opens one table for a parameter.
    @param own: gives the network addresses of this system.
    """

    def __init__(self, config: IConfig, open_table: OpenTable, own: OwnAddresses) -> None:
        self._config = config
        self._open_table = open_table
        self._own = own
        self._local: LocalDomains | None = None
        self._delimiters = self.text("recipient_delimiter")
        self._special = config.boolean("owner_request_special")
        self._propagate = frozenset(config.words("propagate_unmatched_extensions"))
        self.rewriter = AddressRewriter.from_config(config)

    def text(self, parameter: str) -> bytes:
        """
        @return: the text of a parameter.
        """
        return self._config.string(parameter).encode("utf-8", "surrogateescape")

    def map(self, parameter: str, extensions: str = "", either: bool = False) -> AddressMap | None:
        """
        @param parameter: that names tables.
        @param extensions: the word in C{propagate_unmatched_extensions} that makes it keep extensions.
        @param either: whether addresses are also asked for as they are without quotes.
        @return: L{None} when it names none.
        """
        utf8 = self._config.boolean("smtputf8_enable")
        tables = TableList(self._config.string(parameter), parameter, self._open_table, utf8)
        if not tables:
            return None
        if self._local is None:
            self._local = LocalDomains(AddressClasses(self._config, self._own, self._open_table))
        local = self._local
        lookup = AddressLookup(tables, self._delimiters, local, self._special, either)
        ours = None if local.immediate else local.find
        return AddressMap(parameter, lookup, self.rewriter, extensions in self._propagate, ours)

    def masquerade(self) -> Masquerade:
        """
        @return: C{masquerade_domains} with its exceptions.
        """
        return Masquerade(
            [word.encode("utf-8", "surrogateescape") for word in self._config.words("masquerade_domains")],
            StringMatchList(
                self._config.words("masquerade_exceptions"), "masquerade_exceptions", self._open_table
            ),
        )

    def aliases(self) -> VirtualAliases | None:
        """
        @return: C{virtual_alias_maps} with its limits; L{None} when there are none.
        """
        config = self._config
        found = self.map("virtual_alias_maps", "virtual")
        if found is None:
            return None
        return VirtualAliases(
            found,
            config.integer("virtual_alias_recursion_limit"),
            config.integer("virtual_alias_expansion_limit"),
            config.integer("virtual_alias_address_length_limit"),
        )
