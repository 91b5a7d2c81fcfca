"""
bounce(8): logs of what went wrong, and non-delivery notices.

Public: L{Bounces}, an L{IBounces<qmqpd_tx.interfaces.IBounces>}.
"""

from qmqpd_tx.bounce.records import FailedRecipient, decode_log, decode_record, encode_outcome
from qmqpd_tx.bounce.service import Bounces

__all__ = ["Bounces", "FailedRecipient", "decode_log", "decode_record", "encode_outcome"]
