"""
C{proxy:type:name}: the table C{type:name}.

Postfix asks proxymap(8) for it, so that many processes share few open tables. Here one process has them all,
and tables are shared anyway: the prefix is accepted, and means nothing. Answers to Postfix's dict_proxy.
"""

from __future__ import annotations

from typing import cast

from zope.interface import implementer

from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, TableContext


@implementer(ILookupTableType)
class ProxyType:
    """Opens C{proxy:} tables."""

    type = "proxy"

    def open(self, name: str, context: TableContext) -> ILookupTable:
        return cast(ILookupTable, context.open(name))
