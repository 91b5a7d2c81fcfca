"""
Queue ids: the names of messages.

Takes the time in POSIX seconds; gives strings that are unique within one C{queue_directory}, sort by
arrival, and are safe in a path and in a log line. Answers to the long queue ids of Postfix
(C{enable_long_queue_ids}).

An id is the arrival time in microseconds, as L{LENGTH} base-30 digits of L{ALPHABET}, which has no
vowels (no id ever spells a word) and is in ASCII order (so ids sort as text). Eleven digits last until
the year 2531.

Uniqueness does not depend on the clock: an id is always greater than the one before, and at start-up
the store raises the floor above every id it finds in its folders. A clock that steps back only makes
ids run ahead of it for a while.

Nothing that is not L{valid} may be made part of a path; every entrance of the store checks that.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeGuard

from qmqpd_tx.interfaces import SpoolError
from qmqpd_tx.message import QueueID

ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXY"
"""The digits, in ASCII order."""

LENGTH = 11
"""The length of every id."""

_BASE = len(ALPHABET)
_HIGHEST = _BASE**LENGTH - 1
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
_DIGITS = {digit: value for value, digit in enumerate(ALPHABET)}
_VALID = re.compile(f"[{ALPHABET}]{{{LENGTH}}}")


def valid(name: object) -> TypeGuard[QueueID]:
    """
    @return: whether C{name} is the text of a queue id.
    """
    return isinstance(name, str) and _VALID.fullmatch(name) is not None


def encode(number: int) -> QueueID:
    """
    @param number: microseconds; what does not fit is brought to the nearest end.
    @return: the id.
    """
    high, low = divmod(min(max(number, 0), _HIGHEST), _BASE**4)
    return QueueID(_leading(high) + _PAIRS[low // _BASE**2] + _PAIRS[low % _BASE**2])


@lru_cache(8)
def _leading(number: int) -> str:
    """
    @return: all digits of an id but the last four, which alone change within most of a second.
    """
    digits = ""
    for _ in range(LENGTH - 4):
        number, digit = divmod(number, _BASE)
        digits = ALPHABET[digit] + digits
    return digits


def decode(queue_id: QueueID) -> int:
    """
    @param queue_id: a L{valid} id.
    @return: its number, microseconds.
    """
    number = 0
    for digit in queue_id:
        number = number * _BASE + _DIGITS[digit]
    return number


class QueueIDs:
    """
    The generator.

    @ivar last: the number of the greatest id given out or seen.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = -1

    def next(self, now: float) -> QueueID:
        """
        @param now: POSIX seconds.
        @return: an id greater than all before.
        @raise SpoolError: there is none.
        """
        number = int(now * 1_000_000)
        if number <= self.last:
            number = self.last + 1
        if number > _HIGHEST:
            raise SpoolError("there are no more queue ids: is the clock right?")
        self.last = number
        return encode(number)

    def seen(self, queue_id: QueueID) -> None:
        """
        Never give out this id or a smaller one.

        @param queue_id: a L{valid} id.
        """
        self.last = max(self.last, decode(queue_id))
