"""
Chance, by seed: lengths of time, and which domain is next. Pure.

Takes plans and a L{Random<random.Random>}; gives functions that give the next value. Each part of a scenario
has a source of its own, so that a change to one part does not stir the others.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from qmqpd_tx.simulate.scenario import ArrivalPlan, Latency, Shape, Spread

LONGEST = 3600.0
"""No random length of time is longer, seconds."""

T = TypeVar("T")


def source(seed: int, *names: object) -> Random:
    """
    @return: the source of one part of a scenario.
    """
    return Random("/".join(map(str, (seed, *names))))


def lengths(latency: Latency, random: Random) -> Callable[[], float]:
    """
    @return: what gives lengths of time, seconds.
    """
    first, second = latency.first, latency.second
    if latency.shape is Shape.UNIFORM:
        return lambda: random.uniform(first, second)
    if latency.shape is Shape.NORMAL:
        return lambda: min(max(0.0, random.gauss(first, second)), LONGEST)
    if latency.shape is Shape.LOGNORMAL:
        mean = math.log(first)
        return lambda: min(random.lognormvariate(mean, second), LONGEST)
    return lambda: first


def times(plan: ArrivalPlan, random: Random) -> Iterator[float]:
    """
    @return: when the messages of an arrival come, seconds after midnight, in order.
    """
    span = plan.end - plan.begin
    if not plan.poisson:
        return (plan.begin + span * number / plan.messages for number in range(plan.messages))
    return _at_random(plan, span, random)


def _at_random(plan: ArrivalPlan, span: float, random: Random) -> Iterator[float]:
    """So many points of a span, in order, one by one: each is the first of those that are left."""
    at = 0.0
    for left in range(plan.messages, 0, -1):
        at += (span - at) * (1.0 - random.random() ** (1.0 / left))
        yield plan.begin + at


def weighted(values: Sequence[T], weights: Sequence[float], random: Random) -> Callable[[], T]:
    """
    @return: what gives one of the values, each as often as its weight says.
    """
    if len(values) == 1:
        only = values[0]
        return lambda: only
    sums = list(itertools.accumulate(weights))
    total = sums[-1]
    return lambda: values[min(bisect_left(sums, random.random() * total), len(values) - 1)]


def domains(names: Sequence[str], spread: Spread, random: Random) -> Callable[[], str]:
    """
    @return: what gives the domain of the next recipient.
    """
    if spread is Spread.ROUND_ROBIN:
        return itertools.cycle(names).__next__
    if spread is Spread.ZIPF:
        return weighted(names, [1.0 / rank for rank in range(1, len(names) + 1)], random)
    return lambda: names[random.randrange(len(names))]
