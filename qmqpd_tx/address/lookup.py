"""
Addresses in tables: which keys are tried for an address, in which order.

Takes an address in internal form; gives the value of the first key that a list of tables has, and the
extension that this key left out. The keys are in external form (quotes where a local part needs them), each
of them asked of all tables before the next: C{user+ext@domain}, C{user@domain}; C{user+ext} and C{user} where
the domain is this system's own; C{@domain}. Tables that match patterns are asked for the whole address only.
Fails with L{TableError<qmqpd_tx.interfaces.TableError>} when a table cannot say. Answers to the search order
of canonical(5), virtual(5), relocated(5) and generic(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from qmqpd_tx.address.syntax import quote_local_part, split_extension
from qmqpd_tx.tables import TableList

IsLocal = Callable[[bytes], bool]
"""Says of a domain whether bare user names in tables mean its users."""


@frozen(slots=True)
class Found:
    """
    What a table has for an address.

    @ivar value: the table's value.
    @ivar extension: the part of the local part that the key left out, with its delimiter; C{b""}: none.
    """

    value: bytes
    extension: bytes = b""


class AddressLookup:
    """
    The tables of one parameter.

    @ivar immediate: whether no lookup has to be waited for.
    @ivar stable: whether answers may be kept.
    @param tables: the tables.
    @param delimiters: the characters of C{recipient_delimiter}.
    @param is_local: which domains' users have bare keys.
    @param special: C{owner_request_special}.
    @param either: whether each key is also asked for in internal form: so Postfix does it where mail is
        routed, and for automatic bcc recipients.
    """

    __slots__ = (
        "_delimiters",
        "_either",
        "_fixed",
        "_is_local",
        "_special",
        "_tables",
        "immediate",
        "stable",
    )

    def __init__(
        self,
        tables: TableList,
        delimiters: bytes,
        is_local: IsLocal,
        special: bool = True,
        either: bool = False,
    ) -> None:
        self._tables = tables
        self._delimiters = delimiters
        self._is_local = is_local
        self._special = special
        self._either = either
        self._fixed = any(table.fixed_keys for table in tables.tables)
        self.immediate = tables.immediate
        self.stable = tables.stable

    def __bool__(self) -> bool:
        return bool(self._tables)

    async def find(self, address: bytes, ours: bool | None = None) -> Found | None:
        """
        Does not suspend when the tables answer at once.

        @param address: in internal form.
        @param ours: whether its domain's users have bare keys, from who knows; L{None}: C{is_local} does.
        @return: the first entry, or L{None} when there is none.
        @raise TableError: a table could not say.
        """
        local, at, domain = address.rpartition(b"@")
        if not at:
            local, domain = domain, b""
        quoted = quote_local_part(local)
        if self.immediate:
            look = self._tables.lookup_now
            value = look(quoted + at + domain)
            if value is not None:
                return Found(value)
            for key, partial, extension in self._more(local, quoted, at, domain, ours):
                value = look(key, partial)
                if value is not None:
                    return Found(value, extension)
            return None
        value = await self._tables.lookup(quoted + at + domain)
        if value is not None:
            return Found(value)
        for key, partial, extension in self._more(local, quoted, at, domain, ours):
            value = await self._tables.lookup(key, partial)
            if value is not None:
                return Found(value, extension)
        return None

    def _more(
        self, local: bytes, quoted: bytes, at: bytes, domain: bytes, ours: bool | None
    ) -> Iterator[tuple[bytes, bool, bytes]]:
        """
        The keys after the whole address, each with whether it is a part, and the extension that it leaves
        out.
        """
        either = self._either
        if either and quoted != local:
            yield local + at + domain, False, b""
        if not self._fixed:
            return
        for name, rest, extension in self._parts(local, at, domain, ours):
            external = quote_local_part(name) if name else name
            yield external + rest, True, extension
            if either and external != name:
                yield name + rest, True, extension

    def _parts(
        self, local: bytes, at: bytes, domain: bytes, ours: bool | None
    ) -> Iterator[tuple[bytes, bytes, bytes]]:
        """
        The parts of an address that are keys: local part, what follows it, and the extension that is left
        out.
        """
        user: bytes | None = None
        extension = b""
        if self._delimiters:
            base, after = split_extension(local, self._delimiters, self._special)
            if after is not None:
                user, extension = base, local[len(base) :]
                yield user, at + domain, extension
        if not at:
            return
        if self._is_local(domain) if ours is None else ours:
            yield local, b"", b""
            if user is not None:
                yield user, b"", extension
        yield b"", at + domain, b""
