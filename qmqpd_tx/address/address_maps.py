"""
Tables that are searched by an address when mail is routed: who has moved, who sends how, who exists.

Each takes an address in internal form, and gives what its tables say; searched in the order of
L{AddressLookup<qmqpd_tx.address.lookup.AddressLookup>}, with bare user names for the domains of this system
and for C{myorigin}. A table that has to ask somebody is waited for. Tables are opened by the constructors,
which raise L{ConfigError}; lookups fail with L{TableError<qmqpd_tx.interfaces.TableError>}. Answer to
relocated(5), to C{sender_dependent_relayhost_maps} and C{sender_dependent_default_transport_maps}, and to the
recipient tables of ADDRESS_CLASS_README.
"""

from __future__ import annotations

from collections.abc import Mapping

from qmqpd_tx.address.classes import AddressClass, AddressClasses
from qmqpd_tx.address.lookup import AddressLookup
from qmqpd_tx.address.transport_maps import Override, parse_route
from qmqpd_tx.interfaces import IConfig, TableError
from qmqpd_tx.tables import OpenTable, TableList

_DUNNO = b"dunno"


class AddressTables:
    """
    The tables of one parameter.

    @ivar immediate: whether no lookup has to be waited for.
    @param config: read once, here.
    @param parameter: which.
    @param classes: says whose users have bare names.
    @param open_table: opens a table.
    @raise ConfigError: a table cannot be opened.
    """

    def __init__(
        self, config: IConfig, parameter: str, classes: AddressClasses, open_table: OpenTable
    ) -> None:
        self.parameter = parameter
        utf8 = config.boolean("smtputf8_enable")
        self._tables = TableList(config.string(parameter), parameter, open_table, utf8)
        delimiters = config.string("recipient_delimiter").encode("utf-8", "surrogateescape")
        special = config.boolean("owner_request_special")
        self._lookup = AddressLookup(self._tables, delimiters, classes.is_ours_now, special, either=True)
        self._classes = classes

    def __bool__(self) -> bool:
        return bool(self._tables)

    async def find(self, address: bytes) -> bytes | None:
        """
        @return: the value, or L{None} when there is no entry.
        @raise TableError: a table cannot say.
        """
        try:
            if self._classes.local_is_immediate:
                found = await self._lookup.find(address)
            else:
                ours = await self._classes.is_ours(address.rpartition(b"@")[2])
                found = await self._lookup.find(address, ours)
        except TableError as error:
            raise TableError(f"{self.parameter} lookup failure: {error}") from None
        return None if found is None else found.value


class SenderMaps(AddressTables):
    """
    Tables that are searched by the sender: one of the C{sender_dependent_...} parameters.

    @param null_key: what stands for the null sender, as in C{empty_address_relayhost_maps_lookup_key}.
    """

    def __init__(
        self, config: IConfig, parameter: str, null_key: str, classes: AddressClasses, open_table: OpenTable
    ) -> None:
        super().__init__(config, parameter, classes, open_table)
        self._null_key = config.string(null_key).encode("utf-8", "surrogateescape")

    async def of(self, sender: bytes) -> str:
        """
        @return: what the tables have for a sender; C{""}: nothing, or C{DUNNO}.
        @raise TableError: a table cannot say.
        """
        value = await self.find(sender or self._null_key)
        if value is None or value.lower() == _DUNNO:
            return ""
        return value.decode("utf-8", "surrogateescape").strip()


class SenderTransports(SenderMaps):
    """
    C{sender_dependent_default_transport_maps}.
    """

    async def route_of(self, sender: bytes) -> Override | None:
        """
        @return: what to use in place of C{default_transport}, or L{None}: nothing else.
        @raise TableError: a table cannot say, or names no transport.
        """
        text = await self.of(sender)
        if not text:
            return None
        route = parse_route(text)
        if not route.transport:
            raise TableError(f"{self.parameter}: null transport is not allowed: {text}")
        return route


_RECIPIENT_MAPS: Mapping[AddressClass, tuple[str, str]] = {
    AddressClass.LOCAL: ("local_recipient_maps", "local recipient table"),
    AddressClass.MAILBOX: ("virtual_mailbox_maps", "virtual mailbox table"),
    AddressClass.RELAY: ("relay_recipient_maps", "relay recipient table"),
}


class RecipientMaps:
    """
    Who exists, by address class. A class without tables has everybody.

    @param config: read once, here.
    @param classes: says whose users have bare names.
    @param open_table: opens a table.
    @raise ConfigError: a table cannot be opened.
    """

    def __init__(self, config: IConfig, classes: AddressClasses, open_table: OpenTable) -> None:
        self._tables = {
            which: (AddressTables(config, parameter, classes, open_table), table)
            for which, (parameter, table) in _RECIPIENT_MAPS.items()
        }

    async def missing_from(self, which: AddressClass, address: bytes) -> str | None:
        """
        @return: the table in which the recipient should be and is not, in Postfix's words; L{None}: it
            exists, as far as anybody knows.
        @raise TableError: a table cannot say.
        """
        tables, name = self._tables.get(which, (None, ""))
        if not tables or await tables.find(address) is not None:
            return None
        return name
