"""
Lookup tables by type, and the lists of domains and hosts that use them.

Public: L{ILookupTable} and L{ILookupTableType} (the contracts), L{open_table} and L{TableList}
(C{type:name} parameters), L{DomainMatchList} and L{HostMatchList}. A pure library: it reads files
when it is told to open something, and does no other I/O.
"""

from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType
from qmqpd_tx.tables.matchlist import DomainMatchList, HostMatchList
from qmqpd_tx.tables.registry import TableList, open_table, supported_types

__all__ = [
    "DomainMatchList",
    "HostMatchList",
    "ILookupTable",
    "ILookupTableType",
    "TableList",
    "open_table",
    "supported_types",
]
