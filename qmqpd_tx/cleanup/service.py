"""
The cleanup service: where messages enter.

Takes a queue store and who is to hear of arrivals; gives L{IIncomingMessage}s. Durability, errors and what is
done to a message: see L{qmqpd_tx.cleanup.incoming}. Answers to cleanup(8).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from qmqpd_tx.cleanup.dates import MailDate, Timezone, ZoneName, local_timezone, local_zone_name
from qmqpd_tx.cleanup.errors import intake_error
from qmqpd_tx.cleanup.incoming import IncomingMessage
from qmqpd_tx.cleanup.settings import Settings
from qmqpd_tx.interfaces import (
    FULL_TREATMENT,
    IArrivals,
    ICleanup,
    IConfig,
    IMailQueue,
    IStoredMessage,
    SpoolError,
    Treatment,
)
from qmqpd_tx.message import ClientInfo
from qmqpd_tx.milter import InThread
from qmqpd_tx.tables import OpenTable, open_table


@implementer(ICleanup)
class Cleanup:
    """
    See L{ICleanup}.

    @ivar arrivals: hears of each committed message; may be set later. L{None}: messages are only stored
        (a front end without a queue manager).
    """

    def __init__(
        self,
        *,
        config: IConfig,
        clock: IReactorTime,
        queue: IMailQueue,
        arrivals: IArrivals | None = None,
        open_table: OpenTable = open_table,
        reactor: Any = None,
        in_thread: InThread | None = None,
        timezone: Timezone = local_timezone,
        zone_name: ZoneName = local_zone_name,
    ) -> None:
        """
        @param config: the configuration.
        @param clock: tells arrival times.
        @param queue: where messages go.
        @param arrivals: who hears of them.
        @param open_table: opens lookup tables.
        @param reactor: for connections to mail filters; L{None}: as the clock.
        @param in_thread: does what waits for a disk, as C{deferToThread}; L{None}: large messages wait for
            mail filters in memory.
        @param timezone: POSIX seconds to seconds east of UTC.
        @param zone_name: POSIX seconds to the time zone's name.
        """
        self.arrivals = arrivals
        self._clock = clock
        self._queue = queue
        self._date = MailDate(timezone, zone_name)
        self._read = partial(
            Settings.from_config,
            open_table=open_table,
            reactor=clock if reactor is None else reactor,
            in_thread=in_thread,
        )
        self._settings = self._read(config)

    def reconfigure(self, config: IConfig) -> None:
        """
        Use another configuration for messages that begin from now on.

        @raise ConfigError: it cannot be used; the old one stays.
        """
        self._settings = self._read(config)

    def begin(
        self,
        client: ClientInfo | None,
        verp_delimiters: bytes | None = None,
        treatment: Treatment = FULL_TREATMENT,
    ) -> IncomingMessage:
        """See L{ICleanup.begin}."""
        now = self._clock.seconds()
        try:
            writer = self._queue.create(now)
        except SpoolError as error:
            raise intake_error(error) from error
        return IncomingMessage(
            self._settings, treatment, writer, client, now, self._date, verp_delimiters, self._arrived
        )

    def _arrived(self, stored: IStoredMessage) -> None:
        if self.arrivals is None:
            stored.close()
        else:
            self.arrivals.arrived(stored)
