"""
cleanup(8): headers, addresses, limits; turns what a client sends into one queue file.

Public: L{Cleanup}, an L{ICleanup<qmqpd_tx.interfaces.ICleanup>}.
"""

from qmqpd_tx.cleanup.dates import MailDate, Timezone, ZoneName, local_timezone, local_zone_name
from qmqpd_tx.cleanup.service import Cleanup

__all__ = ["Cleanup", "MailDate", "Timezone", "ZoneName", "local_timezone", "local_zone_name"]
