"""
Lookup tables by type, and the lists of domains and hosts that use them.

Public: L{ILookupTable} and L{ILookupTableType} (the contracts), L{Tables} (the open tables of a mail system),
L{open_table} (one table), L{TableList} (C{type:name} parameters), L{DomainMatchList}, L{HostMatchList} and
L{StringMatchList}. A library: it reads files when it is told to open something, and tables that ask a server
do so through the reactor that they were given.
"""

from qmqpd_tx.tables.interface import ILookupTable, ILookupTableType, IPatternTable, TableContext
from qmqpd_tx.tables.keeper import Tables, open_table
from qmqpd_tx.tables.lists import OpenTable, TableList
from qmqpd_tx.tables.matchlist import DomainMatchList, HostMatchList, StringMatchList
from qmqpd_tx.tables.registry import supported_types

__all__ = [
    "DomainMatchList",
    "HostMatchList",
    "ILookupTable",
    "ILookupTableType",
    "IPatternTable",
    "OpenTable",
    "StringMatchList",
    "TableContext",
    "TableList",
    "Tables",
    "open_table",
    "supported_types",
]
