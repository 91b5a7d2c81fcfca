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

    @given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)), steps, st.integers(1, 4))
    def test_walk(self, start: dict[str, int], actions: list[tuple[str, str, int]], limit: int) -> None:
        """
        A walk, with any changes between its slices, gives what was there at its begin and has stayed, once,
        in order of time.
        """
        index = DueIndex((QueueID(name), float(when)) for name, when in start.items())
        walk = index.walk()
        stayed = dict(start)
        given_out: list[QueuedEntry] = []
        left = list(actions)
        while True:
            for action, name, number in left[:3]:
                # A new time that is the old one cannot be told from staying.
                if action == "set" and start.get(name) != number:
                    index.set(QueueID(name), float(number))
                    stayed.pop(name, None)
                elif action == "drop":
                    index.drop(QueueID(name))
                    stayed.pop(name, None)
            left = left[3:]
            expected = sorted((when, name) for name, when in stayed.items())[:limit]
            found = walk.take(limit)
            self.assertEqual(found, [QueuedEntry(QueueID(name), when) for when, name in expected])
            if not found:
                break
            given_out += found
            for entry in found:
                del stayed[entry.queue_id]
        self.assertEqual(len({entry.queue_id for entry in given_out}), len(given_out))

    def test_many_changes(self) -> None:
        """Messages that are deferred again and again leave nothing behind, and no change pays for all."""
        names = [QueueID(f"{number:05}") for number in range(5000)]
        index = DueIndex((name, 1e6) for name in names)
        for turn in range(20):
            for number, name in enumerate(names):
                index.drop(name)
                index.set(name, 2e6 + turn * 100 + number % 7)
        self.assertEqual(len(index.due(1e9, 10**6)), 5000)
        self.assertEqual(index.next_due(), 2e6 + 1900)
        self.assertLess(len(index._heap) + len(index._old), 4 * len(names))
