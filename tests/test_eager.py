"""Coroutines that mostly do not wait end the same way, whether they wait or not."""

from __future__ import annotations

import gc
import sys
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.eager import eager, now_or_later


class EagerTests(SynchronousTestCase):
    """Every way to end."""

    def run_eagerly(self, *waits: Deferred[Any]) -> list[object]:
        """
        @return: what came of a coroutine that adds up what it waits for, caught errors as their text.
        """
        results: list[object] = []

        async def total() -> int:
            found = 0
            for wait in waits:
                try:
                    found += await wait
                except KeyError as problem:
                    found += len(str(problem))
            return found

        def failed(failure: Failure) -> None:
            results.append(failure.type)

        eager(total(), results.append, failed)
        return results

    def test_nothing_to_wait_for(self) -> None:
        """The result is there at once."""
        self.assertEqual(self.run_eagerly(), [0])
        self.assertEqual(self.run_eagerly(succeed(1), succeed(2)), [3])

    def test_forgotten(self) -> None:
        """A wait that nobody can end any more goes in silence, whatever the garbage collector ends first."""
        noise: list[object] = []
        ended: list[str] = []

        async def wait(never: Deferred[None]) -> None:
            try:
                await never
            finally:
                ended.append("end")

        before, sys.unraisablehook = sys.unraisablehook, noise.append
        try:
            for close in (True, False):
                waiter = wait(Deferred())
                result = now_or_later(waiter)
                if close:
                    waiter.close()
                del waiter, result
                gc.collect()
        finally:
            sys.unraisablehook = before
        self.assertEqual((ended, noise), (["end", "end"], []))

    def test_waits(self) -> None:
        """The result comes when the last Deferred has fired."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        results = self.run_eagerly(first, succeed(10), second)
        first.callback(1)
        self.assertEqual(results, [])
        second.callback(5)
        self.assertEqual(results, [16])

    def test_fails(self) -> None:
        """An error ends it, at once or later."""
        self.assertEqual(self.run_eagerly(fail(ValueError())), [ValueError])
        late: Deferred[int] = Deferred()
        results = self.run_eagerly(late)
        late.errback(ValueError())
        self.assertEqual(results, [ValueError])

    def test_catches(self) -> None:
        """An error reaches the coroutine, which may go on."""
        late: Deferred[int] = Deferred()
        results = self.run_eagerly(fail(KeyError("a")), late, succeed(100))
        late.errback(KeyError("bc"))
        self.assertEqual(results, [107])
