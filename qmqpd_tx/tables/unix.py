"""
The user and group databases of the system, as tables: C{unix:passwd.byname} and C{unix:group.byname}.

Takes a name; gives the line of passwd(5) or group(5). The system may have to ask a server (NIS, LDAP), so
that the look-up is done in a thread, and nothing is kept. "No such user" is told apart from "cannot be found
out", which is a L{TableError<qmqpd_tx.interfaces.TableError>}. Any other name of a table is a L{ConfigError}.
Answers to Postfix's unix dictionary (DATABASE_README).
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from qmqpd_tx.interfaces import ConfigError, TableError
from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext
from qmqpd_tx.tables.words import fold


def _user(name: str) -> str:
    user = pwd.getpwnam(name)
    return ":".join(map(str, user))


def _group(name: str) -> str:
    group = grp.getgrnam(name)
    return ":".join(map(str, (*group[:3], ",".join(group.gr_mem))))


_DATABASES: Mapping[str, Callable[[str], str]] = {"group.byname": _group, "passwd.byname": _user}


@implementer(ILookupTable)
class UnixTable:
    """
    A database of the system.

    @param name: C{type:name}.
    @param look_up: gives the line of a name, or raises L{KeyError}; blocks.
    @param in_thread: runs what blocks.
    """

    __slots__ = ("_in_thread", "_look_up", "name")
    fixed_keys = True
    immediate = False
    stable = False
    sources: Sequence[str] = ()

    def __init__(
        self, name: str, look_up: Callable[[str], str], in_thread: Callable[..., Deferred[bytes | None]]
    ) -> None:
        self.name = name
        self._look_up = look_up
        self._in_thread = in_thread

    def lookup(self, key: bytes) -> Deferred[bytes | None] | None:
        """See L{ILookupTable.lookup}."""
        # What no name of an account can hold is not asked for: an address, most of the time.
        if not key or b"@" in key or b"\0" in key or b":" in key or b"\n" in key:
            return None
        return self._in_thread(self._ask, fold(key)).addErrback(self._failed)

    def _ask(self, key: bytes) -> bytes | None:
        try:
            line = self._look_up(key.decode("utf-8", "surrogateescape"))
        except (KeyError, UnicodeError):
            return None
        return line.encode("utf-8", "surrogateescape")

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)  # type: ignore[no-untyped-call]
        raise TableError(f"{self.name}: {failure.getErrorMessage()}")

    def close(self) -> None:
        """See L{ILookupTable}."""


@implementer(ILookupTableType)
class UnixType:
    """Opens C{unix:} tables."""

    type = "unix"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        """See L{ILookupTableType.open}."""
        look_up = _DATABASES.get(name)
        if look_up is None:
            raise ConfigError(
                f"{context.parameter}: unknown table: unix:{name}; there are: "
                + ", ".join(f"unix:{known}" for known in _DATABASES)
            )
        return UnixTable(f"unix:{name}", look_up, context.in_thread)
