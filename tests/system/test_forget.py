"""
What is left of a message that is gone: nothing, and nothing for the garbage collector either.

A message is dozens of objects. If they knew each other in circles they would stay until the collector looks
at all there is; that was a seventh of the time that a message took.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.cleanup.support import Intake
from tests.qmgr.clock_world import Destination, World

CONTENT = b"From: a@source.test\nSubject: one\n\n" + b"text\n" * 100
SETTINGS = """
header_checks = inline:{{x=INFO}}
body_checks = inline:{{text=INFO}}
canonical_maps = inline:{{a@source.test=b@source.test}}
virtual_alias_maps = inline:{{list@dest.test={one@dest.test, two@dest.test}}}
"""
ROOMS = ("qmqpd_tx.cleanup", "qmqpd_tx.qmgr", "qmqpd_tx.spool")


class ForgetTests(SynchronousTestCase):
    """Messages that came, and went."""

    def left(self, action: Callable[[], object]) -> Counter[str]:
        """
        @return: the classes of those of our objects that only the garbage collector can remove after this.
        """
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            action()
            gc.collect()
            return Counter(
                type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith(ROOMS)
            )
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    def test_intake(self) -> None:
        """Messages that are checked and mapped, in one piece and in several."""
        intake = Intake(SETTINGS)
        intake.store(CONTENT)

        def two() -> None:
            intake.store(CONTENT, recipients=[b"list@dest.test", b"three@dest.test"])
            self.successResultOf(intake.send([CONTENT[:30], CONTENT[30:60], CONTENT[60:]]))

        self.assertEqual(self.left(two), Counter())

    def test_delivery(self) -> None:
        """Messages that are delivered."""
        world = World({"a.test": Destination()})
        self.addCleanup(world.stop)
        world.send(b"first@a.test")
        self.assertEqual(self.left(lambda: world.send(b"second@a.test")), Counter())
        self.assertEqual(len(world.status_lines(b"second@a.test")), 1)
