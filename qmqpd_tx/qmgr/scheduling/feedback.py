"""
How many deliveries one destination gets at a time, and when it counts as dead.

Takes the results of deliveries, gives a concurrency window. Pure: no clock, no I/O. Answers to qmgr(8)'s
concurrency scheduler as SCHEDULER_README describes it: positive feedback takes effect at the end of a
sequence of 1/feedback successes, negative feedback at its start, and death is not a window of zero
but a number of failed pseudo-cohorts. Where Postfix was seen to round in another way than that document says,
we do as Postfix does.

A feedback setting that makes no sense raises L{ValueError} when it is parsed, never later.
"""

from __future__ import annotations

import enum
import math
import re
from typing import Final

from attrs import field, frozen

_FORM: Final = re.compile(
    r"\s*(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?)"
    r"(?:\s*/\s*(?:(?P<divisor>\d+(?:\.\d*)?|\.\d+)|(?P<scale>concurrency|sqrt_concurrency)))?\s*"
)


_ROUNDING_ERROR: Final = 0.000001


class Scale(enum.Enum):
    """What a feedback amount is divided by; the value is the word in main.cf."""

    CONSTANT = ""
    CONCURRENCY = "concurrency"
    SQRT_CONCURRENCY = "sqrt_concurrency"

    @property
    def number(self) -> int:
        """
        The number in the lines of C{destination_concurrency_feedback_debug}. Ours ends at 2, Postfix's at 1.
        """
        return _NUMBERS[self]


_NUMBERS: Final = {Scale.CONSTANT: 0, Scale.CONCURRENCY: 1, Scale.SQRT_CONCURRENCY: 2}


@frozen(slots=True)
class Feedback:
    """
    An amount of feedback for one delivery.

    @ivar number: between 0 and 1, inclusive.
    @ivar scale: what it is divided by.
    """

    number: float
    scale: Scale = Scale.CONSTANT

    @classmethod
    def parse(cls, text: str) -> Feedback:
        """
        @param text: C{number}, C{number/number}, C{number/concurrency} or C{number/sqrt_concurrency},
            as in C{default_destination_concurrency_positive_feedback}.
        @raise ValueError: it is none of these, or the number is outside 0..1.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(
                f'bad feedback "{text}": specify a number from 0 to 1, number/number, '
                "number/concurrency or number/sqrt_concurrency"
            )
        number = float(found["number"])
        if found["divisor"] is not None:
            divisor = float(found["divisor"])
            if divisor == 0:
                raise ValueError(f'bad feedback "{text}": division by zero')
            number /= divisor
        if number > 1:
            raise ValueError(f'bad feedback "{text}": the amount must be in the range 0 to 1')
        return cls(number, Scale(found["scale"] or ""))

    def amount(self, concurrency: int) -> float:
        """
        @param concurrency: the present window, at least 1.
        @return: the feedback for one delivery.
        """
        if self.scale is Scale.CONSTANT:
            return self.number
        if self.scale is Scale.CONCURRENCY:
            return self.number / concurrency
        return self.number / math.sqrt(concurrency)


@frozen(slots=True)
class WindowSettings:
    """
    @ivar initial: C{initial_destination_concurrency}.
    @ivar limit: C{destination_concurrency_limit}; 0 means no limit.
    @ivar positive: feedback of a delivery without connection or handshake failure.
    @ivar negative: feedback of a connection or handshake failure.
    @ivar cohort_limit: how many failed pseudo-cohorts make a destination dead; 0 means never.
    @ivar rounding: by what part of one feedback a step is taken early. A half is Postfix's; 0 is the
        pseudocode of SCHEDULER_README, with which the figures in there were measured.
    @ivar start: the window a destination starts with: the initial one, within the limit.
    """

    initial: int = 5
    limit: int = 20
    positive: Feedback = Feedback(1.0)
    negative: Feedback = Feedback(1.0)
    cohort_limit: int = 1
    rounding: float = 0.5
    start: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        start = min(self.initial, self.limit) if self.limit else self.initial
        object.__setattr__(self, "start", max(1, start))


class Window:
    """
    The concurrency window of one destination.

    The rounding is Postfix's, as it was seen: a step up is taken when all but half a step of feedback is
    there, and a step down while less than half a step is left of the last one. So the first of two
    whole failures after a success takes two.

    @ivar concurrency: how many deliveries may be under way, at least 1.
    @ivar success: positive feedback that has not taken effect yet; below 0 when it took effect early.
    @ivar failure: how much negative feedback the next step down is away.
    @ivar failed_cohorts: how many pseudo-cohorts have failed since the last success.
    """

    __slots__ = ("concurrency", "failed_cohorts", "failure", "settings", "success")

    def __init__(self, settings: WindowSettings) -> None:
        self.settings = settings
        self.concurrency = settings.start
        self.success = 0.0
        self.failure = 0.0
        self.failed_cohorts = 0.0

    def adopt(self, settings: WindowSettings) -> None:
        """
        Take new settings after a reload; what was learnt stays, within the new limit.
        """
        self.settings = settings
        if settings.limit:
            self.concurrency = min(self.concurrency, settings.limit)

    def succeeded(self, busy: int) -> bool:
        """
        A delivery ended without connection or handshake failure.

        @param busy: deliveries under way, this one included. A window that is far above what is in use
            does not grow: negative feedback would come too late.
        @return: whether feedback was given: not at the limit, nor when the window is not in use.
        """
        self.failed_cohorts = 0.0
        settings = self.settings
        concurrency = self.concurrency
        if concurrency == settings.limit or concurrency >= busy + settings.start:
            return False
        feedback = settings.positive.amount(concurrency)
        success = self.success + feedback
        # Without early steps, three times a third has to be one.
        enough = 1.0 - (feedback * settings.rounding or _ROUNDING_ERROR)
        if success >= enough:
            while success >= enough:
                concurrency += 1
                success -= 1.0
            self.failure = 0.0
            if settings.limit and concurrency > settings.limit:
                concurrency = settings.limit
            self.concurrency = concurrency
        self.success = success
        return True

    def failed(self) -> bool:
        """
        A delivery ended with connection or handshake failure.

        @return: whether the destination is dead now.
        """
        settings = self.settings
        self.failed_cohorts += 1.0 / self.concurrency
        if settings.cohort_limit and self.failed_cohorts >= settings.cohort_limit - _ROUNDING_ERROR:
            return True
        feedback = settings.negative.amount(self.concurrency)
        self.failure -= feedback
        enough = feedback * settings.rounding or -_ROUNDING_ERROR
        while self.failure < enough:
            self.concurrency -= 1
            self.failure += 1.0
            self.success = 0.0
        self.concurrency = max(1, self.concurrency)
        return False
