"""
Addresses: their parts, their quoting, and where their mail goes (trivial-rewrite(8)).

Public: L{Router} (an L{IRouter<qmqpd_tx.interfaces.IRouter>}), L{own_addresses}, and the functions of
L{qmqpd_tx.address.syntax}. A pure library but for the reading of tables when a router is made.
"""

from qmqpd_tx.address.own import own_addresses
from qmqpd_tx.address.resolve import Router
from qmqpd_tx.address.syntax import (
    quote_address,
    quote_local_part,
    split_address,
    split_extension,
    unquote_local_part,
    valid_address,
    valid_hostname,
    valid_literal,
)

__all__ = [
    "Router",
    "own_addresses",
    "quote_address",
    "quote_local_part",
    "split_address",
    "split_extension",
    "unquote_local_part",
    "valid_address",
    "valid_hostname",
    "valid_literal",
]
