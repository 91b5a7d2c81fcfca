"""
Coroutines that mostly do not wait. Pure.

L{Deferred.fromCoroutine<twisted.internet.defer.Deferred.fromCoroutine>} makes a Deferred, a context and a
chain of callbacks even for a coroutine that has its answer at once, which is a tenth of what a message costs.
L{eager} and L{now_or_later} take the answer without any of that, and fall back on a Deferred only when there
is something to wait for. L{ready} is for what gives L{None} instead of a Deferred; where each microsecond of
a message counts, its two lines are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def eager(
    coroutine: Coroutine[Deferred[Any], Any, T],
    succeeded: Callable[[T], None],
    failed: Callable[[Failure], None],
) -> None:
    """
    Run a coroutine that awaits Deferreds.

    @param succeeded: called with the result; at once, if there is one at once.
    @param failed: called with the failure.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as done:
        succeeded(done.value)
    except Exception:
        failed(Failure())  # type: ignore[no-untyped-call]
    else:
        Deferred.fromCoroutine(_rest(coroutine, awaited)).addCallbacks(succeeded, failed)


def now_or_later(coroutine: Coroutine[Deferred[Any], Any, T]) -> T | Deferred[T]:
    """
    Run a coroutine that awaits Deferreds.

    @return: its result, if there is one at once; else a Deferred that gives it.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return Deferred.fromCoroutine(_rest(coroutine, awaited))


async def ready(waiting: Deferred[None] | None) -> None:
    """
    Wait for what a step has given: L{None} when there is nothing to wait for, else a Deferred.
    """
    if waiting is not None:
        await waiting


async def _rest(coroutine: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]) -> T:
    """
    The rest of a coroutine that has begun to wait.
    """
    while True:
        problem: BaseException | None = None
        result: Any = None
        try:
            result = await awaited
        except GeneratorExit:
            # What it waits for is forgotten, and so is it. The garbage collector may have ended it before.
            coroutine.close()
            raise
        except BaseException as raised:
            problem = raised
        try:
            awaited = coroutine.send(result) if problem is None else coroutine.throw(problem)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
