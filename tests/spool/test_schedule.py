"""The index of deferred mail agrees with a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import QueuedEntry
from qmqpd_tx.message import QueueID
from qmqpd_tx.spool.index import DueIndex

steps = st.lists(
    st.tuples(st.sampled_from(["set", "drop", "due"]), st.sampled_from("abcdef"), st.integers(0, 9)),
    max_size=200,
)


class DueIndexTests(SynchronousTestCase):
    """Due times."""

    @given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)), steps)
    def test_as_a_dictionary(self, start: dict[str, int], actions: list[tuple[str, str, int]]) -> None:
        """Any sequence of changes gives what sorting a dictionary gives."""
        truth = dict(start)
        index = DueIndex((QueueID(name), float(when)) for name, when in start.items())
        for action, name, number in actions:
            if action == "set":
                truth[name] = number
                index.set(QueueID(name), float(number))
            elif action == "drop":
                self.assertEqual(index.drop(QueueID(name)), truth.pop(name, None))
            else:
                found = index.due(float(number), 3)
                waiting = sorted((when, one) for one, when in truth.items() if when <= number)
                self.assertEqual(found, [QueuedEntry(QueueID(one), when) for when, one in waiting[:3]])
            self.assertEqual(index.next_due(), min(truth.values(), default=None))
            self.assertEqual(len(index), len(truth))
            self.assertEqual("a" in index, "a" in truth)
