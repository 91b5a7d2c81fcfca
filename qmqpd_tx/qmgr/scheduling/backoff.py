"""
When a message that waits is tried again, and when it has waited long enough.

Takes times, gives times. Pure. Answers to qmgr(8): the interval doubles because it is the age of the
message, kept between C{minimal_backoff_time} and C{maximal_backoff_time}; a message is too old when an
attempt fails after C{maximal_queue_lifetime}, not before.

Beyond Postfix: C{deferred_retry_jitter} makes the interval longer by a part of itself that is drawn for each
message, so that what has failed together does not come back together.
"""

from __future__ import annotations

from random import Random
from typing import Self

from attrs import frozen

from qmqpd_tx.interfaces import IConfig


@frozen(slots=True)
class RetryPolicy:
    """
    @ivar minimal: C{minimal_backoff_time}, seconds.
    @ivar maximal: C{maximal_backoff_time}, seconds.
    @ivar lifetime: C{maximal_queue_lifetime}, seconds; 0 means that mail is tried once.
    @ivar bounce_lifetime: C{bounce_queue_lifetime}, the same for mail that must not bounce.
    @ivar jitter: C{deferred_retry_jitter}: by how much an interval may be longer, as a part of it, 0 to 1.
    """

    minimal: float = 300.0
    maximal: float = 4000.0
    lifetime: float = 432000.0
    bounce_lifetime: float = 432000.0
    jitter: float = 0.0

    @classmethod
    def from_config(cls, config: IConfig) -> Self:
        """
        @param config: where the five parameters are read.
        """
        return cls(
            minimal=config.seconds("minimal_backoff_time"),
            maximal=config.seconds("maximal_backoff_time"),
            lifetime=config.seconds("maximal_queue_lifetime"),
            bounce_lifetime=config.seconds("bounce_queue_lifetime"),
            jitter=config.integer("deferred_retry_jitter") / 100,
        )

    def next_attempt(self, now: float, arrival_time: float, random: Random | None = None) -> float:
        """
        @param random: for the jitter; without it there is none.
        @return: when a message that failed now is due again, POSIX seconds. An arrival in the future
            (the clock was set back) counts as new mail.
        """
        interval = max(self.minimal, min(now - arrival_time, self.maximal))
        if self.jitter and random is not None:
            interval *= 1.0 + random.uniform(0.0, self.jitter)
        return now + interval

    def expired(self, now: float, arrival_time: float, is_bounce: bool) -> bool:
        """
        @param is_bounce: whether the sender is the null sender or the double-bounce address.
        @return: whether a message that failed now is to be returned instead of kept.
        """
        lifetime = self.bounce_lifetime if is_bounce else self.lifetime
        return lifetime <= 0 or now - arrival_time >= lifetime
