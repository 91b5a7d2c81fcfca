"""
Which scheduler is used: what the C{qmgr} line of master.cf says. Pure.

Takes the lines of master.cf, gives what makes a scheduler. The line's command column decides: C{qmgr} for
the preemptive one, C{oqmgr} for the one that serves destinations in turn, first come, first served. Without
such a line it is the preemptive one. Anything else, or two lines that disagree, is a L{ConfigError} that
names the line and the remedy. Answers to master(5), qmgr(8) and oqmgr(8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings

MakeScheduler = Callable[[Callable[[str], TransportSettings], RecipientLimits], IQueueScheduler]
"""Makes a scheduler from what gives a transport's settings by its name, and the limits for all."""

SERVICE: Final = "qmgr"
"""The service column of the line."""

SCHEDULERS: Final[Mapping[str, MakeScheduler]] = {
    "qmgr": PreemptiveScheduler,
    "oqmgr": RoundRobinScheduler,
}
"""What the command column may say."""


class MasterLine(Protocol):
    """What is needed of a line of master.cf."""

    @property
    def name(self) -> str:
        """The service column."""

    @property
    def command(self) -> str:
        """The command column."""

    def where(self) -> str:
        """
        @return: file and line.
        """


def select_scheduler(services: Iterable[MasterLine]) -> MakeScheduler:
    """
    @param services: the lines of master.cf.
    @return: the class to give to L{QueueManager<qmqpd_tx.qmgr.service.QueueManager>}.
    @raise ConfigError: there is no such queue manager, or more than one.
    """
    found: MasterLine | None = None
    for line in services:
        if line.name != SERVICE:
            continue
        if line.command not in SCHEDULERS:
            raise ConfigError(
                f"{line.where()}: {SERVICE}: there is no queue manager {line.command}: write qmgr or oqmgr "
                f"in the command column"
            )
        if found is not None and found.command != line.command:
            raise ConfigError(
                f"{line.where()}: {SERVICE}: {line.command} here, but {found.command} at {found.where()}: "
                f"remove one of the lines"
            )
        found = line
    return SCHEDULERS[found.command if found is not None else SERVICE]
