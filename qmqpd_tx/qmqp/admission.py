"""
Who a client is to us: whether it may use the service, whether limits and the verbose log apply to it, and how
its mail is treated.

Takes lists of clients; answers questions about one client. A list whose tables answer at once is matched at
once, and then nothing here waits; another one, with a table that has to ask a server, is waited for. A table
that cannot say is never taken for a yes or a no: C{TableError<qmqpd_tx.interfaces.TableError>} goes to the
caller, but for the verbose log, which then stays as it is. Answers to Postfix's match lists in qmqpd(8), and
to postconf(5): local_header_rewrite_clients.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError

from qmqpd_tx.events import Logger
from qmqpd_tx.interfaces import Treatment
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.qmqp.settings import Settings

log = Logger(namespace="qmqpd_tx.qmqpd")

REMEMBERED_CLIENTS = 10_000
"""Of how many clients it is remembered whether they may use the service."""


class ClientList(Protocol):
    """A list of clients, as C{qmqpd_authorized_clients}."""

    immediate: bool
    """Whether L{matches} may be called."""

    stable: bool
    """Whether a client that is asked for twice has the same answer."""

    def matches(self, name: str, address: str) -> bool:
        """
        @raise Exception: the list cannot be consulted.
        """

    def find(self, name: str, address: str) -> Coroutine[Any, Any, bool]:
        """
        As L{matches}, for any list.
        """


@frozen(slots=True)
class ClientLists:
    """
    The lists of one service.

    @ivar access: C{qmqpd_authorized_clients}.
    @ivar debug: C{debug_peer_list}; L{None}: empty.
    @ivar exceptions: C{qmqpd_client_event_limit_exceptions}; L{None}: empty.
    @ivar local: C{qmqpd_local_header_rewrite_clients}: local are those in any of these; L{None}: all are.
    """

    access: ClientList
    debug: ClientList | None = None
    exceptions: ClientList | None = None
    local: Sequence[ClientList] | None = None


async def _listed(clients: ClientList, client: ClientInfo) -> bool:
    if clients.immediate:
        return clients.matches(client.name, client.address)
    return await clients.find(client.name, client.address)


class Admission:
    """
    What is known of clients under one configuration.

    @ivar level: C{debug_peer_level}, or 0 when no client is to be logged verbosely.
    """

    __slots__ = ("_authorized", "_lists", "_remote", "_usual", "level")

    def __init__(self, lists: ClientLists, settings: Settings) -> None:
        """
        @param lists: the clients.
        @param settings: the usual treatment, and that of mail from elsewhere.
        """
        self._lists = lists
        self._authorized: dict[tuple[str, str], bool] = {}
        self._usual = settings.treatment
        self._remote = evolve(settings.treatment, remote_domain=settings.remote_domain)
        self.level = settings.debug_level if lists.debug is not None else 0

    async def debug_level(self, client: ClientInfo) -> int:
        """
        @return: how much to log of this client: 0 is as usual.
        """
        if not self.level or self._lists.debug is None:
            return 0
        try:
            return self.level if await _listed(self._lists.debug, client) else 0
        except CancelledError:
            raise
        except Exception as reason:
            log.warn("debug_peer_list: {reason}", reason=str(reason) or repr(reason))
            return 0

    async def authorized(self, client: ClientInfo) -> bool:
        """
        @return: whether it may use the service.
        @raise Exception: this cannot be said.
        """
        # Nearly every connection is from a client that was here before.
        key = client.name, client.address
        authorized = self._authorized.get(key)
        if authorized is None:
            access = self._lists.access
            authorized = await _listed(access, client)
            if access.stable:
                if len(self._authorized) >= REMEMBERED_CLIENTS:
                    self._authorized.clear()
                self._authorized[key] = authorized
        return authorized

    async def excepted(self, client: ClientInfo) -> bool:
        """
        @return: whether the limits for clients do not apply.
        @raise Exception: this cannot be said.
        """
        exceptions = self._lists.exceptions
        return exceptions is not None and await _listed(exceptions, client)

    async def treatment(self, client: ClientInfo) -> Treatment:
        """
        @return: what is to be done to its mail.
        @raise Exception: this cannot be said.
        """
        local = self._lists.local
        if local is None:
            return self._usual
        for clients in local:
            if await _listed(clients, client):
                return self._usual
        return self._remote
