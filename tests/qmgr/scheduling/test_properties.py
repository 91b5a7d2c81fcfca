"""
What holds for both schedulers whatever happens.

A world of messages, transports and destinations that fail, are throttled, withdrawn, flushed and configured
anew, under a clock that also goes back; a model beside it counts what may be under way, and each entry.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any

from attrs import evolve
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from qmqpd_tx.interfaces import Destination, Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import Wait
from qmqpd_tx.qmgr.scheduling.feedback import Feedback, WindowSettings
from qmqpd_tx.qmgr.scheduling.jobs import JobState, Lane
from qmqpd_tx.qmgr.scheduling.preemptive import PreemptiveScheduler
from qmqpd_tx.qmgr.scheduling.roundrobin import RoundRobinScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from tests.qmgr.scheduling.support import BROKEN, REFUSED, MakeScheduler, Scheduler, one, send, take

TRANSPORTS = ("smtp", "local", "slow", "paced")
NEXTHOPS = ("a", "b", "c", "d")
# To shrink a failure of a whole world takes minutes: for a diagnosis, leave out the phases here.
QUICK: dict[str, Any] = {"phases": (Phase.reuse, Phase.generate)}


@st.composite
def transport_settings(draw: st.DrawFn) -> dict[str, TransportSettings]:
    """Settings of all transports."""
    window = WindowSettings(
        initial=draw(st.integers(1, 5)),
        limit=draw(st.integers(1, 6)),
        positive=Feedback.parse(draw(st.sampled_from(["1", "0.4", "1/concurrency"]))),
        negative=Feedback.parse(draw(st.sampled_from(["1", "0.4", "1/concurrency"]))),
        cohort_limit=draw(st.integers(0, 2)),
    )
    slots: dict[str, Any] = {
        "slot_cost": draw(st.integers(0, 5)),
        "minimum_slots": draw(st.integers(0, 3)),
        "slot_discount": draw(st.sampled_from([0, 50, 100])),
        "slot_loan": draw(st.integers(0, 3)),
        "pool": draw(st.integers(0, 12)),
        "extra_pool": draw(st.integers(0, 8)),
        "refill_limit": draw(st.integers(1, 6)),
    }
    return {
        "smtp": TransportSettings(
            window,
            recipient_limit=draw(st.integers(0, 3)),
            process_limit=draw(st.integers(0, 8)),
            **slots,
        ),
        "local": TransportSettings(WindowSettings(limit=2), recipient_limit=1, process_limit=3, **slots),
        "slow": TransportSettings(WindowSettings(limit=1), rate_delay=7.5, recipient_limit=2, **slots),
        "paced": TransportSettings(WindowSettings(limit=3), transport_rate_delay=0.25, **slots),
    }


class Source:
    """A message as the queue manager has it: what is not read yet."""

    def __init__(self, unread: deque[tuple[str, str, Recipient]], known: bool) -> None:
        self.total = len(unread) if known else None
        self.unread = unread
        self.reading = 0
        self.left = len(unread)
        self.stopped = False


class World(RuleBasedStateMachine):
    """
    The queue manager's part, played at random.
    """

    make: MakeScheduler
    fits_documented_bound = False

    @initialize(
        kinds=transport_settings(),
        limit=st.integers(1, 40),
        minimum=st.integers(1, 5),
        fudge=st.integers(10, 100),
    )
    def setup(self, kinds: dict[str, TransportSettings], limit: int, minimum: int, fudge: int) -> None:
        """A scheduler with settings."""
        self.kinds = kinds
        self.limits = RecipientLimits(limit, minimum, fudge)
        self.scheduler: Scheduler = type(self).make(lambda name: self.kinds[name], self.limits)
        self.now = 1000000.0
        self.serial = 0
        self.sources: dict[int, Source] = {}
        self.under_way: list[Entry] = []
        self.busy: Counter[Any] = Counter()
        self.expected: Counter[tuple[int, int]] = Counter()
        self.tried: Counter[tuple[int, int]] = Counter()
        self.back: Counter[tuple[int, int]] = Counter()
        self.ended_at: dict[Any, float] = {}
        self.in_memory: Counter[int] = Counter()
        self.clock_went_back = False

    # --- what the queue manager does ---

    @rule(
        parts=st.lists(
            st.tuples(st.sampled_from(TRANSPORTS), st.sampled_from(NEXTHOPS), st.integers(1, 12)),
            min_size=1,
            max_size=4,
        ),
        known=st.booleans(),
    )
    def arrive(self, parts: list[tuple[str, str, int]], known: bool) -> None:
        """A message becomes active."""
        self.serial += 1
        job = self.serial
        unread: deque[tuple[str, str, Recipient]] = deque()
        for transport, nexthop, count in parts:
            for _ in range(count):
                position = len(unread)
                # Few local mailboxes, so that they are shared.
                address = b"u%d@%s" % (position % 3 if transport == "local" else position, nexthop.encode())
                unread.append((transport, nexthop, Recipient(address, b"", position)))
        source = self.sources[job] = Source(unread, known)
        size = self.scheduler.begin(job, self.now, source.total)
        self._read(job, size)

    @rule()
    def read_on(self) -> None:
        """The reader's turn."""
        wanted = self.scheduler.refill(self.now)
        if wanted is not None:
            job, size = wanted
            assert size >= 1
            self._read(job, size)

    @rule(pick=st.integers(0, 1000))
    def finish_read(self, pick: int) -> None:
        """A read that took its time is done."""
        waiting = [job for job, source in self.sources.items() if source.reading]
        if waiting:
            job = waiting[pick % len(waiting)]
            source = self.sources[job]
            count = source.reading
            source.reading = 0
            self._found(job, count)

    @rule(limit=st.integers(1, 20))
    def deliver(self, limit: int) -> None:
        """Begin deliveries."""
        for _ in range(limit):
            entry = self.scheduler.next(self.now)
            if entry is None:
                self._idle()
                return
            self._begun(entry)

    def _idle(self) -> None:
        """Nothing is begun only if everything waits for something else than its turn."""
        for job in self.sources:
            for found in self.scheduler.waiting(job, self.now):
                assert found.wait is not Wait.TURN, found

    @rule(pick=st.integers(0, 1000), fails=st.sampled_from([False, False, True]))
    def finish(self, pick: int, fails: bool) -> None:
        """A delivery ends."""
        if self.under_way:
            self._end(self.under_way[pick % len(self.under_way)], fails)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 1.0, 7.5, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def clock_set_back(self) -> None:
        """The clock is set."""
        self.now -= 500.0
        self.ended_at.clear()

    @rule(pick=st.integers(0, 1000))
    def withdraw(self, pick: int) -> None:
        """A message is held or deleted."""
        if self.sources:
            jobs = list(self.sources)
            job = jobs[pick % len(jobs)]
            source = self.sources[job]
            source.stopped = True
            source.left -= len(source.unread)
            source.unread.clear()
            self._returned(self.scheduler.withdraw(job, self.now))
            self._settle(job)

    @rule(transport=st.sampled_from(TRANSPORTS))
    def throttle(self, transport: str) -> None:
        """A transport breaks."""
        self._returned(self.scheduler.throttle(transport, BROKEN, self.now))
        assert self.scheduler.dead(transport, "anything", self.now) == BROKEN

    @rule()
    def flush(self) -> None:
        """Trigger F."""
        for destination in list(self.ended_at):
            if isinstance(destination, Destination) and self.scheduler.dead(
                destination.transport, destination.nexthop, self.now
            ):
                # What was dead starts anew; what only rests does not.
                del self.ended_at[destination]
        self.scheduler.flush()
        for transport in TRANSPORTS:
            for nexthop in NEXTHOPS:
                assert self.scheduler.dead(transport, nexthop, self.now) is None

    @rule(kinds=transport_settings(), limit=st.integers(1, 40))
    def reconfigure(self, kinds: dict[str, TransportSettings], limit: int) -> None:
        """Reload."""
        for name in TRANSPORTS:
            # What is under way goes on, however narrow the new limits are.
            if any(entry.destination.transport == name for entry in self.under_way):
                kinds[name] = self.kinds[name]
            else:
                # Entries that were cut stay as they are.
                kinds[name] = evolve(kinds[name], recipient_limit=self.kinds[name].recipient_limit)
        self.kinds = kinds
        self.limits = RecipientLimits(limit, self.limits.minimum, self.limits.fudge_factor)
        self.scheduler.reconfigure(lambda name: self.kinds[name], self.limits)

    # --- what must hold ---

    @invariant()
    def counts_agree(self) -> None:
        """What is in memory is what was read and is not done."""
        total = sum(self.in_memory.values())
        assert self.scheduler.recipients() == total
        self.check_memory(total)
        for job in self.sources:
            for waiting in self.scheduler.waiting(job, self.now):
                assert waiting.entry.job == job
                assert waiting.ahead >= 0

    def teardown(self) -> None:
        """
        In the end everything was delivered or returned, once.
        """
        if not hasattr(self, "scheduler"):
            return
        idle = 0
        while self.sources:
            before = (sum(self.tried.values()), sum(self.back.values()), len(self.under_way))
            for _ in list(self.sources):
                self.finish_read(0)
            self.read_on()
            self.deliver(1000)
            while self.under_way:
                self._end(self.under_way[0], False)
            if before == (sum(self.tried.values()), sum(self.back.values()), len(self.under_way)):
                idle += 1
                when = self.scheduler.wakeup(self.now)
                if when is not None:
                    self.now = max(self.now, when)
                assert idle < 50, "something waits for ever"
            else:
                idle = 0
        assert self.tried + self.back == self.expected
        assert all(count == 1 for count in (self.tried + self.back).values())
        assert self.scheduler.recipients() == 0
        # Nothing is left but what is remembered for a time.
        self.now += 100000.0
        assert take(self.scheduler, self.now) == []
        assert list(self.scheduler.destinations(self.now)) == []
        self.check_pools_full()

    def check_pools_full(self) -> None:
        """See L{Preemptive}."""

    def check_memory(self, total: int) -> None:
        """See L{Preemptive}."""

    # --- parts ---

    def _read(self, job: int, size: int) -> None:
        source = self.sources[job]
        count = min(size, len(source.unread))
        if job % 3:
            self._found(job, count)
        else:
            source.reading = count or 1

    def _found(self, job: int, count: int) -> None:
        source = self.sources[job]
        batch = [source.unread.popleft() for _ in range(min(count, len(source.unread)))]
        self.scheduler.refilled(job, len(batch), bool(source.unread), self.now)
        self.in_memory[job] += len(batch)
        groups: defaultdict[tuple[str, str], list[Recipient]] = defaultdict(list)
        for transport, nexthop, recipient in batch:
            self.expected[job, recipient.position] += 1
            groups[transport, nexthop].append(recipient)
        for (transport, nexthop), group in groups.items():
            key = nexthop
            pieces = [group]
            if self.scheduler.per_recipient(transport):
                pieces = [[recipient] for recipient in group]
            for piece in pieces:
                if len(pieces) > 1 or self.scheduler.per_recipient(transport):
                    key = piece[0].address.decode("latin-1")
                if source.stopped or self.scheduler.dead(transport, key, self.now) is not None:
                    self.scheduler.forgo(job, len(piece), self.now)
                    self._out(job, piece, self.back)
                else:
                    self.scheduler.add(job, transport, nexthop, piece, self.now)
        self._settle(job)

    def _begun(self, entry: Entry) -> None:
        destination = entry.destination
        limits = self.kinds[destination.transport]
        note(f"begun {entry.job} {destination}")
        self.busy[destination] += 1
        self.busy[destination.transport] += 1
        assert self.busy[destination] <= limits.window.limit
        status = self.scheduler.destination(destination.transport, destination.nexthop, self.now)
        assert status is not None
        assert self.busy[destination] == status.busy <= status.window
        if limits.process_limit:
            assert self.busy[destination.transport] <= limits.process_limit
        if limits.recipient_limit:
            assert 0 < len(entry.recipients) <= limits.recipient_limit
        if limits.rate_delay:
            assert self.now >= self.ended_at.get(destination, -1e9) + limits.rate_delay
        if limits.transport_rate_delay:
            assert self.busy[destination.transport] == 1
            assert self.now >= self.ended_at.get(destination.transport, -1e9) + limits.transport_rate_delay
        self.under_way.append(entry)

    def _end(self, entry: Entry, fails: bool) -> None:
        self.under_way.remove(entry)
        self.busy[entry.destination] -= 1
        self.busy[entry.destination.transport] -= 1
        self.ended_at[entry.destination] = self.ended_at[entry.destination.transport] = self.now
        self._out(entry.job, entry.recipients, self.tried)
        returned = self.scheduler.done(entry, REFUSED if fails else None, self.now)
        assert fails or not returned
        for each in returned:
            assert each.destination == entry.destination
        self._returned(returned)
        self._settle(entry.job)

    def _returned(self, entries: Any) -> None:
        for entry in entries:
            self._out(entry.job, entry.recipients, self.back)
        for job in {entry.job for entry in entries}:
            self._settle(job)

    def _out(self, job: int, batch: Any, where: Counter[tuple[int, int]]) -> None:
        self.in_memory[job] -= len(batch)
        self.sources[job].left -= len(batch)
        where.update((job, recipient.position) for recipient in batch)

    def _settle(self, job: int) -> None:
        """A message without work leaves."""
        source = self.sources.get(job)
        if source is not None and not source.left and not source.reading:
            assert not self.in_memory[job]
            del self.sources[job]
            self.scheduler.end(job, self.now)


class RoundRobin(World):
    """The world with oqmgr's scheduler."""

    make = RoundRobinScheduler


class Preemptive(World):
    """The world with qmgr's scheduler."""

    make = PreemptiveScheduler

    def check_memory(self, total: int) -> None:
        """
        SCHEDULER_README's upper bounds. A reload may make them smaller than what is in memory already, so the
        widest ones that were in force count; and the minimum, which each message may read whatever the
        limits say, comes on top of the limit for all.
        """
        pools = sum(kind.pool + kind.extra_pool for kind in self.kinds.values())
        self.pools = max(getattr(self, "pools", 0), pools)
        self.limit = max(getattr(self, "limit", 0), self.limits.limit)
        self.most = max(getattr(self, "most", 0), len(self.sources))
        floor = self.limits.minimum * self.most
        assert total <= max(floor + self.pools, self.limit) + floor
        for lane in self.scheduler._transports.values():
            slots = sum(job.slots for job in self._jobs(lane))
            grants = sum(job.grant for job in self._jobs(lane))
            assert lane.pool + lane.extra + slots == lane.settings.pool + lane.settings.extra_pool
            assert lane.extra + grants == lane.settings.extra_pool

    def _jobs(self, lane: Lane) -> list[JobState]:
        messages = self.scheduler._messages.values()
        return [job for message in messages for job in message.jobs.values() if job.transport is lane]

    def check_pools_full(self) -> None:
        """All slots are back."""
        for lane in self.scheduler._transports.values():
            assert (lane.pool, lane.extra) == (lane.settings.pool, lane.settings.extra_pool)
            assert not lane.jobs
            assert not lane.waiting
            assert not lane.busy


class Mailings(RuleBasedStateMachine):
    """
    One transport, one delivery at a time, and mail of all sizes: who is delayed by how much.
    """

    @initialize(
        cost=st.integers(2, 6),
        minimum=st.integers(0, 4),
        discount=st.sampled_from([0, 50, 100]),
        loan=st.integers(0, 4),
        nested=st.booleans(),
    )
    def setup(self, cost: int, minimum: int, discount: int, loan: int, nested: bool) -> None:
        """A scheduler."""
        self.cost = cost
        # Single messages cannot be overtaken, so that nothing is nested.
        self.nested = nested
        self.scheduler = PreemptiveScheduler(
            lambda name: TransportSettings(
                process_limit=1,
                recipient_limit=1,
                slot_cost=cost,
                minimum_slots=minimum,
                slot_discount=discount,
                slot_loan=loan,
            )
        )
        self.now = 0.0
        self.sizes: list[int] = []
        self.sequence: list[int] = []
        self.arrived_at: list[int] = []

    @rule(size=st.sampled_from([1, 1, 1, 2, 3, 5, 10, 20, 50]))
    def arrive(self, size: int) -> None:
        """A message comes."""
        if self.sizes and not self.nested:
            size = 1
        job = len(self.sizes)
        self.sizes.append(size)
        self.arrived_at.append(len(self.sequence))
        batch = [Recipient(b"u%d@%d" % (number, job), b"", number) for number in range(size)]
        self.scheduler.begin(job, self.now, size)
        self.scheduler.refilled(job, size, False, self.now)
        self.scheduler.add(job, "smtp", "relay", batch, self.now)

    @rule(count=st.integers(1, 30), seconds=st.sampled_from([0.0, 0.1, 10.0]))
    def deliver(self, count: int, seconds: float) -> None:
        """Deliveries."""
        self.now += seconds
        for _ in range(count):
            entry = self.scheduler.next(self.now)
            if entry is None:
                assert len(self.sequence) == sum(self.sizes)
                return
            self.sequence.append(entry.job)
            self.scheduler.done(entry, None, self.now)
            self.now += 0.01

    def teardown(self) -> None:
        """
        Nobody waits longer than k/(k-1) times what it would have waited behind the older ones; (k+1)/k times
        where nobody overtook an overtaker. A message counts as served when its last entry is.
        """
        if not hasattr(self, "scheduler"):
            return
        while len(self.sequence) < sum(self.sizes):
            self.deliver(1000, 1.0)
        last = {job: place for place, job in enumerate(self.sequence, 1)}
        k = self.cost
        worst = k / (k - 1) if self.nested else (k + 1) / k
        older = 0
        for job, size in enumerate(self.sizes):
            older += size
            assert last[job] <= older * worst, (job, self.sizes, self.sequence)


class WorldTests(SynchronousTestCase):
    """Every entry once, within all limits."""

    def test_round_robin(self) -> None:
        """oqmgr's scheduler."""
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            RoundRobin, settings=settings(max_examples=60, stateful_step_count=40, **QUICK)
        )

    def test_preemptive(self) -> None:
        """qmgr's scheduler."""
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Preemptive, settings=settings(max_examples=120, stateful_step_count=40, **QUICK)
        )

    def test_delay(self) -> None:
        """Preemption never delays a message beyond the documented bound."""
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Mailings, settings=settings(max_examples=80, stateful_step_count=30, **QUICK)
        )


class StarvationTests(SynchronousTestCase):
    """Everybody gets a turn."""

    @settings(max_examples=60)
    @given(st.integers(2, 8), st.integers(20, 60))
    def test_round_robin(self, count: int, flood: int) -> None:
        """
        While one destination is flooded, each of the others gets its turn within one round of all.
        """
        turns = self.flooded(RoundRobinScheduler, count, flood)
        last = max(turns.index(("single", number)) for number in range(count))
        self.assertTrue(last <= count + 3, turns[: count + 6])

    @settings(max_examples=60)
    @given(st.integers(2, 8), st.integers(20, 60))
    def test_preemptive(self, count: int, flood: int) -> None:
        """
        A destination that is flooded keeps nobody waiting for longer than its window takes.
        """
        turns = self.flooded(PreemptiveScheduler, count, flood, process_limit=0)
        last = max(turns.index(("single", number)) for number in range(count))
        self.assertTrue(last <= count + 3, turns[: count + 6])

    def flooded(self, make: MakeScheduler, count: int, flood: int, process_limit: int = 2) -> list[object]:
        """The order in which deliveries end."""
        kind = TransportSettings(WindowSettings(limit=3), process_limit=process_limit)
        subject = make(lambda name: kind, None)
        for number in range(flood):
            send(subject, ("flood", number), "flood.test", one())
        for number in range(count):
            send(subject, ("single", number), f"d{number}.test", one())
        turns: list[object] = []
        under_way = deque(take(subject))
        while under_way:
            entry = under_way.popleft()
            turns.append(entry.job)
            subject.done(entry, None, 0.0)
            under_way.extend(take(subject))
        self.assertEqual(len(turns), count + flood)
        return turns
