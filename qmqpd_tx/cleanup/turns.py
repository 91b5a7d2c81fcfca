"""
The steps of one message, one after the other.

Takes coroutines; runs each when those before it are done. Nearly all have their result at once, and then
nothing is made to wait for it. Holds the steps that wait, and nothing of them afterwards. What a step fails
with is handed to the one who was told to take it, and the next step goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from qmqpd_tx.eager import now_or_later

Step = Coroutine[Deferred[Any], Any, None]


class Turns:
    """The steps of one message."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Deferred[None] | None = None

    def take(self, step: Step, failed: Callable[[Failure], None]) -> Deferred[None] | None:
        """
        Take a step, after those before it.

        @param failed: takes what the step failed with.
        @return: L{None} when it is done, or a Deferred that fires when it is; it never fails.
        """
        if self._last is not None:
            step = _in_turn(self._last, step)
        try:
            outcome = now_or_later(step)
        except Exception:
            failed(Failure())  # type: ignore[no-untyped-call]
            return None
        return None if outcome is None else self._wait(outcome, failed)

    def _wait(self, outcome: Deferred[None], failed: Callable[[Failure], None]) -> Deferred[None]:
        caller: Deferred[None] = Deferred()
        turn: Deferred[None] = Deferred()
        self._last = turn

        def ended(result: Failure | None) -> None:
            if self._last is turn:
                self._last = None
            if isinstance(result, Failure):
                failed(result)
            turn.callback(None)
            caller.callback(None)

        outcome.addBoth(ended)
        return caller


async def _in_turn(before: Deferred[None], step: Step) -> None:
    try:
        await before
    except BaseException:
        step.close()
        raise
    await step
