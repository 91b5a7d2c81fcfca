"""
flush(8): which deferred messages wait for a site, so that one site's mail can be tried at once.

Public: L{FlushService}, an L{IFlush<qmqpd_tx.interfaces.IFlush>}.
"""

from qmqpd_tx.flush.service import FlushService, valid_site

__all__ = ["FlushService", "valid_site"]
