"""
Figures over many values in little memory. Pure.

Takes values one by one, gives counts, means, deviations, quantiles. Memory does not grow with the number of
values, but for L{Instants}, which grows with the seconds in which something happened.
"""

from __future__ import annotations

import math
from typing import Final

_BASE: Final = 1.01
_LOG_BASE: Final = math.log(_BASE)
_SMALLEST: Final = 0.001


class Samples:
    """
    Mean and standard deviation of values.

    @ivar count: how many.
    @ivar maximum: the greatest, 0 without any.
    """

    __slots__ = ("_squares", "_sum", "count", "maximum")

    def __init__(self) -> None:
        self.count = 0
        self.maximum = 0.0
        self._sum = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """
        Take a value.
        """
        self.count += 1
        self._sum += value
        self._squares += value * value
        if value > self.maximum:
            self.maximum = value

    def mean(self) -> float:
        """
        @return: the mean, 0 without values.
        """
        return self._sum / self.count if self.count else 0.0

    def deviation(self) -> float:
        """
        @return: the standard deviation.
        """
        if not self.count:
            return 0.0
        return math.sqrt(max(0.0, self._squares / self.count - self.mean() ** 2))


class Level:
    """
    A number that changes in time: its mean and deviation over the time in which it was not 0.

    @ivar value: the number now.
    @ivar maximum: the greatest it was.
    @ivar integral: the sum of value times seconds.
    """

    __slots__ = ("_seconds", "_since", "_squares", "integral", "maximum", "value")

    def __init__(self) -> None:
        self.value = 0
        self.maximum = 0
        self.integral = 0.0
        self._since = 0.0
        self._seconds = 0.0
        self._squares = 0.0

    def add(self, change: int, now: float) -> None:
        """
        @param change: what is added to the number.
        """
        self.settle(now)
        self.value += change
        if self.value > self.maximum:
            self.maximum = self.value

    def settle(self, now: float) -> None:
        """
        Count the time up to now.
        """
        value = self.value
        if value:
            seconds = now - self._since
            self._seconds += seconds
            self.integral += value * seconds
            self._squares += value * value * seconds
        self._since = now

    def mean(self) -> float:
        """
        @return: the mean over the time.
        """
        return self.integral / self._seconds if self._seconds else 0.0

    def deviation(self) -> float:
        """
        @return: the standard deviation over the time.
        """
        if not self._seconds:
            return 0.0
        return math.sqrt(max(0.0, self._squares / self._seconds - self.mean() ** 2))


class Durations:
    """
    Times of very different length: quantiles to one percent of their value, or a millisecond.

    @ivar count: how many.
    @ivar minimum: the shortest, exactly.
    @ivar maximum: the longest, exactly.
    """

    __slots__ = ("_buckets", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float, count: int = 1) -> None:
        """
        Take one, so often.
        """
        bucket = math.ceil(math.log(seconds / _SMALLEST) / _LOG_BASE) if seconds > _SMALLEST else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += count
        if seconds < self.minimum:
            self.minimum = seconds
        if seconds > self.maximum:
            self.maximum = seconds

    def quantile(self, share: float) -> float | None:
        """
        @param share: between 0 and 1.
        @return: what that share of the times does not exceed, or L{None} without times.
        """
        wanted = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                middle = _SMALLEST * _BASE ** (bucket - 0.5) if bucket else 0.0
                return min(max(middle, self.minimum), self.maximum)
        return None

    def up_to(self, seconds: float) -> int:
        """
        @return: how many were not longer.
        """
        if seconds >= self.maximum:
            return self.count
        limit = math.log(seconds / _SMALLEST) / _LOG_BASE if seconds > _SMALLEST else 0.0
        return sum(count for bucket, count in self._buckets.items() if bucket <= limit + 0.5)


class Instants:
    """
    When something happened, to the second.

    @ivar count: how often.
    @ivar first: the first time, exactly; L{None} for never.
    @ivar last: the last time, exactly.
    """

    __slots__ = ("_seconds", "count", "first", "last")

    def __init__(self) -> None:
        self.count = 0
        self.first: float | None = None
        self.last: float | None = None
        self._seconds: dict[int, int] = {}

    def add(self, now: float, count: int = 1) -> None:
        """
        It happened, so often. Times do not go back.
        """
        second = math.ceil(now)
        self._seconds[second] = self._seconds.get(second, 0) + count
        self.count += count
        if self.first is None:
            self.first = now
        self.last = now

    def quantile(self, share: float) -> float | None:
        """
        @return: by when that share of it had happened, or L{None}.
        """
        wanted = math.ceil(share * self.count)
        for second, count in self._seconds.items():
            wanted -= count
            if wanted <= 0:
                return float(second) if self.last is None else min(float(second), self.last)
        return None

    def up_to(self, when: float) -> int:
        """
        @return: how often it happened until then.
        """
        return sum(count for second, count in self._seconds.items() if second <= when)

    def series(self) -> list[tuple[int, int]]:
        """
        @return: seconds, in order, and how often it had happened by then.
        """
        total = 0
        found = []
        for second, count in self._seconds.items():
            total += count
            found.append((second, total))
        return found
