"""
The cleanup services of one mail system.

Part of the composition root: takes a configuration; gives the cleanup service with a name, made when it is
first asked for. C{cleanup} is the usual one, and that of mail made here; a qmqpd line of master.cf chooses
another with C{cleanup_service_name}. Each has the C{-o} options of its own line in master.cf. All of them
hand over to one queue manager. Fails with L{ConfigError<qmqpd_tx.interfaces.ConfigError>} when a
configuration cannot be used. Answers to master(8), the part that starts cleanup(8).
"""

from __future__ import annotations

from collections.abc import Callable

from qmqpd_tx.cleanup import Cleanup
from qmqpd_tx.config import Config
from qmqpd_tx.interfaces import IArrivals, IConfig

CLEANUP = "cleanup"
"""The name and the command of the usual cleanup service, which needs no line in master.cf."""


class Cleanups:
    """
    @param make: makes a cleanup service with a configuration.
    @param config: the configuration of all.
    """

    def __init__(self, make: Callable[[IConfig], Cleanup], config: Config) -> None:
        self._make = make
        self._config = config
        self._arrivals: IArrivals | None = None
        self._made: dict[str, Cleanup] = {}

    def named(self, name: str = CLEANUP) -> Cleanup:
        """
        @return: the service with this name.
        @raise ConfigError: its configuration cannot be used.
        """
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._make(self._config.of_service(name, CLEANUP))
            made.arrivals = self._arrivals
        return made

    def hand_over_to(self, arrivals: IArrivals) -> None:
        """
        @param arrivals: who hears of what was committed.
        """
        self._arrivals = arrivals
        for made in self._made.values():
            made.arrivals = arrivals

    def reconfigure(self, config: Config) -> None:
        """
        Use another configuration for messages that begin from now on.

        @raise ConfigError: it cannot be used; to be called with the old one then.
        """
        self._config = config
        for name, made in self._made.items():
            made.reconfigure(config.of_service(name, CLEANUP))
