"""The best candidate is the one that a walk over all jobs would find."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.qmgr.scheduling.candidates import Candidates
from qmqpd_tx.qmgr.scheduling.jobs import LAST, JobState, Lane, MessageState
from qmqpd_tx.qmgr.scheduling.ordered import Ordered
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings


class CandidateTests(SynchronousTestCase):
    """Against the obvious way."""

    @settings(max_examples=200)
    @given(
        st.lists(st.tuples(st.integers(1, 8), st.floats(0, 10), st.integers(0, 5)), min_size=1, max_size=30),
        st.lists(
            st.tuples(st.integers(0, 29), st.integers(0, 29), st.integers(0, 12), st.integers(-2, 3)),
            max_size=30,
        ),
    )
    def test_same_as_a_walk(
        self, kinds: list[tuple[int, float, int]], steps: list[tuple[int, int, int, int]]
    ) -> None:
        """Whatever comes and goes, for every current job and every limit."""
        candidates = Candidates()
        lane = Lane("smtp", TransportSettings(), candidates)
        jobs = []
        began = 0.0
        for serial, (waiting, later, selected) in enumerate(kinds):
            began += later
            job = JobState(MessageState(serial, serial, began, 0), lane)
            job.waiting, job.selected = waiting, selected
            jobs.append(job)
            candidates.changed(job)
        now = began + 5.0
        for which, at, limit, change in steps:
            job = jobs[which % len(jobs)]
            current = jobs[at % len(jobs)]
            job.waiting = max(0, job.waiting + change)
            if job.waiting:
                candidates.changed(job)
            else:
                candidates.forget(job)
            if change == 3 and job is not current:
                job.place = (*current.place[:-1], current.before, LAST)
                current.before += 1
            if not current.waiting:
                continue
            behind = [
                each for each in jobs if each.waiting and each.waiting <= limit and each.place > current.place
            ]
            best = candidates.best(current, limit, now)
            if not behind:
                self.assertIsNone(best)
                continue
            assert best is not None
            self.assertIn(best, behind)
            score = max((now - each.message.began) / (each.waiting + each.selected) for each in behind)
            self.assertAlmostEqual(
                (now - best.message.began) / (best.waiting + best.selected), score, places=6
            )

    def test_many_at_once(self) -> None:
        """A hundred thousand that nobody has asked for do not hold up the first who asks."""
        candidates = Candidates()
        lane = Lane("smtp", TransportSettings(), candidates)
        jobs = []
        for serial in range(100000):
            job = JobState(MessageState(serial, serial, 0.0, 0), lane)
            job.waiting = 1
            candidates.changed(job)
            jobs.append(job)
        self.assertIs(candidates.best(jobs[0], 5, 1.0), jobs[1])
        self.assertTrue(sum(bool(job.count) for job in jobs) < 1000)


class OrderedTests(SynchronousTestCase):
    """The order itself."""

    @settings(max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.booleans()), max_size=200))
    def test_first(self, steps: list[tuple[int, int, bool]]) -> None:
        """The first is one with the smallest key, after any coming, moving and going."""
        subject: Ordered[int] = Ordered()
        model: dict[int, tuple[int]] = {}
        for item, number, stays in steps:
            if stays:
                key = (number,)
                subject.push(item, key)
                model[item] = key
            else:
                subject.discard(item)
                model.pop(item, None)
            first = subject.first()
            self.assertEqual(len(subject), len(model))
            if model:
                assert first is not None
                self.assertEqual(model[first], min(model.values()))
            else:
                self.assertIsNone(first)
