"""
Which class schedules, by the name that master.cf's command column has for it. Pure.
"""

from __future__ import annotations

from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.selection import MakeScheduler


def scheduler_named(name: str) -> MakeScheduler:
    """
    @param name: C{qmgr} or C{oqmgr}.
    @return: what makes that scheduler.
    """
    return RoundRobinScheduler if name == "oqmgr" else PreemptiveScheduler
