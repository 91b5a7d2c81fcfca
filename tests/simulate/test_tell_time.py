"""
The simulated clock keeps the contract of IReactorTime, in order and without real time.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from qmqpd_tx.simulate.clock import SimulatedClock


class ClockTests(SynchronousTestCase):
    """A clock that jumps."""

    def setUp(self) -> None:
        """A clock at 100."""
        self.clock = SimulatedClock(100.0)
        self.made: list[tuple[float, object]] = []

    def note(self, what: object) -> None:
        """What calls do here."""
        self.made.append((self.clock.seconds(), what))

    def test_interfaces(self) -> None:
        """It provides what it says."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IDelayedCall, self.clock.callLater(1, self.note, 1))

    def test_order(self) -> None:
        """Calls are made at their times, and at one time in the order of their making."""
        self.clock.callLater(2, self.note, "b")
        self.clock.callLater(1, self.note, "a")
        self.clock.callLater(2, self.note, "c")
        self.clock.callLater(9, self.note, "late")
        self.assertFalse(self.clock.run(105.0))
        self.assertEqual(self.made, [(101.0, "a"), (102.0, "b"), (102.0, "c")])
        self.assertEqual(self.clock.seconds(), 105.0)

    def test_calls_from_calls(self) -> None:
        """A call may make another one, for now or later."""

        def more() -> None:
            self.note("first")
            self.clock.callLater(0, self.note, "now")
            self.clock.callLater(1, self.note, "later")

        self.clock.callLater(1, more)
        self.clock.run(110.0)
        self.assertEqual(self.made, [(101.0, "first"), (101.0, "now"), (102.0, "later")])

    def test_cancel(self) -> None:
        """A cancelled call is not made, and neither cancelled again nor put off."""
        call = self.clock.callLater(1, self.note, 1)
        call.cancel()
        self.assertFalse(call.active())
        self.clock.run(110.0)
        self.assertEqual(self.made, [])
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.assertRaises(AlreadyCancelled, call.reset, 1)

    def test_called(self) -> None:
        """A call that was made cannot be cancelled."""
        call = self.clock.callLater(1, self.note, 1)
        self.clock.run(110.0)
        self.assertRaises(AlreadyCalled, call.cancel)

    def test_move(self) -> None:
        """A call can be put off, and brought forward; it is made once."""
        off, forward = (
            self.clock.callLater(1, self.note, "off"),
            self.clock.callLater(9, self.note, "forward"),
        )
        off.delay(4)
        forward.reset(2)
        self.assertEqual((off.getTime(), forward.getTime()), (105.0, 102.0))
        self.assertEqual(set(self.clock.getDelayedCalls()), {off, forward})
        self.clock.run(200.0)
        self.assertEqual(self.made, [(102.0, "forward"), (105.0, "off")])

    def test_stop(self) -> None:
        """A call may end the run; the rest waits for the next one."""
        self.clock.callLater(1, self.clock.stop)
        self.clock.callLater(1, self.note, "rest")
        self.assertTrue(self.clock.run(110.0))
        self.assertEqual((self.made, self.clock.seconds()), ([], 101.0))
        self.clock.run(110.0)
        self.assertEqual(self.made, [(101.0, "rest")])

    def test_no_past(self) -> None:
        """Nothing happens before now."""
        self.assertRaises(ValueError, self.clock.callLater, -1, self.note, 1)
        self.assertRaises(ValueError, self.clock.callLater, float("nan"), self.note, 1)

    def test_cancelled_calls_do_not_pile_up(self) -> None:
        """A timer for each delivery that is nearly always cancelled costs no memory."""
        kept = [self.clock.callLater(5, self.note, number) for number in range(3)]
        for _ in range(20_000):
            self.clock.callLater(300, self.note, "never").cancel()
        self.assertLess(len(self.clock._heap), 3000)
        self.clock.run(1000.0)
        self.assertEqual([what for _, what in self.made], [0, 1, 2])
        self.assertFalse(any(call.active() for call in kept))

    @given(st.lists(st.tuples(st.floats(0, 1000), st.sampled_from(["keep", "cancel", "delay", "reset"]))))
    def test_any_order(self, plan: list[tuple[float, str]]) -> None:
        """Whatever is done to calls, they are made in the order of their final times, once each."""
        clock = SimulatedClock(0.0)
        made: list[float] = []
        wanted = []
        for delay, verb in plan:
            call = clock.callLater(delay, lambda: made.append(clock.seconds()))
            if verb == "cancel":
                call.cancel()
                continue
            if verb == "delay":
                call.delay(7)
            elif verb == "reset":
                call.reset(3)
            wanted.append(call.getTime())
        clock.run(2000.0)
        self.assertEqual(made, sorted(wanted))
