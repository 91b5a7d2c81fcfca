"""
What deliveries do to the concurrency window, and when a destination is left alone: tables read off a running
Postfix, for Postfix and for us.

Numbers are the windows, or the open connections, after each step; C{5x3} is short for 5 5 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


def runs(text: str) -> str:
    """
    @return: numbers without the x.
    """
    words = (word.partition("x") for word in text.split())
    return " ".join(" ".join([word] * int(count or 1)) for word, _, count in words)


@frozen
class Growth:
    """
    What deliveries do to a window.

    @ivar positive: positive feedback.
    @ivar negative: negative feedback.
    @ivar initial: the initial concurrency.
    @ivar limit: the concurrency limit.
    @ivar script: C{+} for a delivery that goes well, C{-} for one that is refused.
    @ivar windows: the window after each; see L{runs}.
    """

    positive: str
    negative: str
    initial: int
    limit: int
    script: str
    windows: str


def up(positive: str, windows: str, initial: int = 5, limit: int = 20) -> Growth:
    """
    @return: a case without a failure.
    """
    windows = runs(windows)
    return Growth(positive, "1", initial, limit, "+" * len(windows.split()), windows)


def down(positive: str, negative: str, script: str, windows: str) -> Growth:
    """
    @return: a case with failures.
    """
    return Growth(positive, negative, 12, 20, script, runs(windows))


_MIXED = "----------+-+-++--++++--"

GROWTH: Mapping[str, Growth] = {
    "one": up("1", "6 7 8 9 10 11 12 13 14 15 16 17 18 19 20x6"),
    "half": up("0.5", "5 6x2 7x2 8x2 9x2 10x2 11x2 12x2 13x2 14x2 15x2 16x2 17"),
    "cohort": up("1/concurrency", "5x4 6x6 7x7 8x8 9x9 10x4"),
    "halfcohort": up("0.5/concurrency", "5x9 6x12 7x3"),
    "none": up("0", "5x12"),
    "threetenths": up("0.3", "5x2 6x4 7x3 8x3 9x4 10x3 11x3 12x2"),
    "twofifths": up("2/5", "5 6x3 7x2 8x3 9x2 10x3 11x2 12x3 13x2 14x3"),
    "seventenths": up("0.7", "6x2 7 8x2 9 10x2 11 12 13x2 14 15x2 16 17x2 18 19 20x4"),
    "lowlimit": up("0.9", "6 7 8x8", limit=8),
    "toomany": up("1", "6x8", initial=10, limit=6),
    "nolimit": up("1", "2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25", 1, 0),
    # The first whole failure after a success takes two away: half of a step's feedback is enough for it.
    "minus": down("1", "1", "-" * 14 + "+-+-++--", "10 9 8 7 6 5 4 3 2 1x5 2 1 2 1 2 3 1x2"),
    "minushalf": down("1", "0.5", "-" * 14 + "++--++--", "11 10x2 9x2 8x2 7x2 6x2 5x2 4 5 6 5 4 5 6 5 4"),
    "minuscohort": down("1", "1/concurrency", "-" * 34, "11x10 10x10 9x9 8x5"),
    "minusnone": down("1", "0", "------++--", "12x6 13 14x3"),
    "uneven": down("0.5", "0.3", _MIXED, "11x2 10x4 9x3 8x3 9 8x2 9 8x3 9x2 10 9x2"),
    "even": down("0.4", "0.4", _MIXED, "11 10x3 9x2 8x3 7x3 8 7x2 8 7 6x2 7x3 6 5"),
    "coarse": down("0.7", "0.7", "------+-+-++--++++--", "10x2 9 8x2 7 8 6 7 5 6x2 4x2 5x2 6 7 5x2"),
}


@frozen
class Suspension:
    """
    How many connections it takes until a destination is left alone.

    @ivar initial: the initial concurrency.
    @ivar cohorts: the failed cohort limit.
    @ivar negative: negative feedback.
    @ivar held: how many connections are open after each refusal, from none on; see L{runs}.
    @ivar ours: the same for us, where we differ.
    """

    initial: int
    cohorts: int
    negative: str
    held: str
    ours: str = ""

    def on(self, name: str) -> str:
        """
        @param name: of the side.
        @return: C{held}, or C{ours}, in full.
        """
        return runs(self.held if name == "Postfix" or not self.ours else self.ours)


SUSPENSION: Mapping[str, Suspension] = {
    "five": Suspension(5, 1, "1", "5 4 3 2 1 0"),
    "fivetwo": Suspension(5, 2, "1", "5 4 3 2 1 0"),
    "fivefive": Suspension(5, 5, "1", "5 4 3 2 1x3 0"),
    "fiveten": Suspension(5, 10, "1", "5 4 3 2 1x8 0"),
    "deadone": Suspension(1, 1, "1", "1 0"),
    "deadonetwo": Suspension(1, 2, "1", "1x2 0"),
    "onefive": Suspension(1, 5, "1", "1x5 0"),
    "oneten": Suspension(1, 10, "1", "1x10 0"),
    "steady": Suspension(5, 1, "0", "5x5 4 3 2 1 0"),
    # Ten times a fifth is two; in Postfix it is a little less.
    "steadytwo": Suspension(5, 2, "0", "5x11 4 3 2 1 0", "5x10 4 3 2 1 0"),
    "deadcohort": Suspension(5, 1, "1/concurrency", "5 4x3 3 2 1 0"),
    "cohorttwo": Suspension(5, 2, "1/concurrency", "5 4x3 3x3 2 1 0"),
    "deadhalf": Suspension(5, 1, "0.5", "5 4 3x2 2 1 0"),
    "wide": Suspension(12, 1, "1", "12 11 10 9 8 7 6 5 4 3 2 1 0"),
    "never": Suspension(5, 0, "1", "5 4 3 2 1x14 0"),
}


@frozen
class Unused:
    """
    A window that is not used grows only to what is under way and the initial concurrency together.

    @ivar kept: how many deliveries are open all the time.
    @ivar initial: the initial concurrency.
    @ivar windows: the window after each single delivery beside them.
    """

    kept: int
    initial: int
    windows: str


UNUSED: Mapping[str, Unused] = {
    "keepone": Unused(1, 5, "6 7 7 7 7 7 7"),
    "keepthree": Unused(3, 5, "6 7 8 9 9 9 9"),
    "keeptwo": Unused(1, 2, "3 4 4 4 4 4 4"),
}


@frozen
class Limited:
    """
    A server that takes five connections at a time and refuses others with 421. The window begins with five.

    @ivar feedback: positive and negative.
    @ivar refused: how many connections were refused at the start and after each delivery.
    """

    feedback: str
    refused: str


LIMITED: Mapping[str, Limited] = {
    "limitone": Limited("1", runs("0 1x2 2x2 3x2 4x2 5x2 6x2")),
    "limitcohort": Limited("1/concurrency", runs("0x5 1x5 2x3")),
    "limitnone": Limited("0", runs("0x13")),
}
