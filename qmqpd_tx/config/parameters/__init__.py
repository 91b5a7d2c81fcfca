"""
The parameter table: every main.cf parameter that this program knows by type.

Gives L{PARAMETERS}, by name, and L{TRANSPORT_PARAMETERS}, by suffix. To add a parameter, add a row to
the module of its subject; nothing else needs to change.
"""

from __future__ import annotations

from collections.abc import Mapping

from qmqpd_tx.config.parameters import (
    bounce,
    cleanup,
    files,
    flush,
    general,
    local,
    milter,
    qmgr,
    qmqpd,
    routing,
    smtp,
    tables,
)
from qmqpd_tx.config.parameters.transports import TRANSPORT_PARAMETERS
from qmqpd_tx.config.table import Parameter, by_name

PARAMETERS: Mapping[str, Parameter] = by_name(
    bounce.PARAMETERS,
    cleanup.PARAMETERS,
    files.PARAMETERS,
    flush.PARAMETERS,
    general.PARAMETERS,
    local.PARAMETERS,
    milter.PARAMETERS,
    qmgr.PARAMETERS,
    qmqpd.PARAMETERS,
    routing.PARAMETERS,
    smtp.PARAMETERS,
    tables.PARAMETERS,
)

__all__ = ["PARAMETERS", "TRANSPORT_PARAMETERS"]
