"""Queue ids: unique, in order, harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import SpoolError
from qmqpd_tx.message import LogKind, Queue, QueueID
from qmqpd_tx.spool import queueid
from qmqpd_tx.spool.files import QueuePaths


class QueueIDTests(SynchronousTestCase):
    """Names of messages."""

    @given(st.lists(st.floats(0, 1e10), max_size=20))
    def test_increasing(self, times: list[float]) -> None:
        """Whatever the clock does, ids increase, as text."""
        ids = queueid.QueueIDs()
        found = [ids.next(when) for when in times]
        self.assertEqual(found, sorted(set(found)))
        self.assertTrue(all(queueid.valid(one) for one in found))

    @given(st.integers(0, 30**11 - 1))
    def test_round_trip(self, number: int) -> None:
        """An id is a number."""
        self.assertEqual(queueid.decode(queueid.encode(number)), number)

    def test_floor(self) -> None:
        """Ids seen elsewhere are not given again."""
        ids = queueid.QueueIDs()
        seen = queueid.encode(2_000_000_000_000_000)
        ids.seen(seen)
        ids.seen(queueid.encode(5))
        self.assertGreater(ids.next(1000.0), seen)

    def test_no_more(self) -> None:
        """When there are no more ids, none is given twice."""
        ids = queueid.QueueIDs()
        ids.seen(QueueID("Y" * 10 + "X"))
        self.assertEqual(ids.next(0.0), "Y" * 11)
        self.assertRaises(SpoolError, ids.next, 0.0)
        self.assertRaises(SpoolError, queueid.QueueIDs().next, 1e12)

    def test_valid(self) -> None:
        """Nothing else passes for an id."""
        good = queueid.encode(1_700_000_000_000_000)
        self.assertTrue(queueid.valid(good))
        for bad in (
            "",
            good[:-1],
            good + "0",
            good + "\n",
            good[:-1] + "/",
            good[:-1] + "a",
            "." * 11,
            None,
            b"x",
        ):
            self.assertFalse(queueid.valid(bad), bad)

    def test_paths(self) -> None:
        """Subfolders are named after the last digits, which change fastest."""
        paths = QueuePaths("/q/", ("deferred", "defer"), 2)
        name = QueueID("0123456789B")
        self.assertEqual(paths.message(Queue.DEFERRED, name), "/q/deferred/B/9/0123456789B")
        self.assertEqual(paths.message(Queue.ACTIVE, name), "/q/active/0123456789B")
        self.assertEqual(paths.log(LogKind.DEFER, name), "/q/defer/B/9/0123456789B")
        self.assertEqual(paths.log(LogKind.BOUNCE, name), "/q/bounce/0123456789B")
