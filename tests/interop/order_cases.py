"""
In which order deliveries are begun: scenarios for Postfix and for us, and how they are run.

Every scenario has a transport of its own. Its first messages are plugs: as many as its deliveries may be at
a time, each held by the sink, so that all others wait in the active queue until the sink lets the plugs go.
From then on it answers one delivery, waits for the next to come, answers the next one, and so on; thus the
order in which deliveries come is that in which the queue manager chose them, however slow the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby

from attrs import field, frozen

from qmqpd_tx.interfaces import Entry
from qmqpd_tx.message import Recipient
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.feedback import WindowSettings
from qmqpd_tx.qmgr.scheduling.settings import TransportSettings
from tests.interop.qmgr_peers import Delivery, Side, Sink, Stage, routes

CONTENT = b"Subject: order\n\nHello.\n"


@frozen
class Mail:
    """
    A message.

    @ivar name: one word; the local part of its sender.
    @ivar recipients: how many it has at each destination, by the destination's letter.
    @ivar pause: how long to wait before it is sent, in seconds.
    @ivar backwards: whether its recipients are in descending order. The queue manager sorts those that it has
        read, so that the sink sees which they were.
    """

    name: str
    recipients: Mapping[str, int]
    pause: float = 0.0
    backwards: bool = False


def singles(count: int, letter: str = "a", name: str = "s") -> Sequence[Mail]:
    """
    @return: messages with one recipient.
    """
    return [Mail(f"{name}{number}", {letter: 1}) for number in range(1, count + 1)]


@frozen
class Scenario:
    """
    @ivar name: also its transport's.
    @ivar start: the messages that wait when the plugs go.
    @ivar settings: C{<transport>_...} parameters by suffix.
    @ivar later: further messages, by how many deliveries must have come (without plugs).
    @ivar width: how many deliveries are under way at a time at each destination.
    @ivar limit: its recipient limit.
    @ivar stuck: a destination whose deliveries are held until all others are done.
    @ivar settle: how long to wait after messages have become active, in seconds, so that all their recipients
        are resolved; also the age that they have at least. Postfix knows ages in whole seconds: where
        messages of about the same size compete, one of them must not seem twice as old as the other.
    """

    name: str
    start: Sequence[Mail]
    settings: Mapping[str, int] = field(factory=dict)
    later: Mapping[int, Sequence[Mail]] = field(factory=dict)
    width: int = 1
    limit: int = 2
    stuck: str = ""
    settle: float = 0.2

    @property
    def destinations(self) -> Sequence[str]:
        """The letters of its destinations."""
        everything = [*self.start, *(mail for mails in self.later.values() for mail in mails)]
        return sorted({letter for mail in everything for letter in mail.recipients})

    def parameters(self) -> dict[str, str]:
        """
        @return: its lines of main.cf, without transport_maps.
        """
        values = {
            "destination_concurrency_limit": self.width,
            "initial_destination_concurrency": self.width,
            "destination_recipient_limit": self.limit,
            **self.settings,
        }
        return {f"{self.name}_{suffix}": str(value) for suffix, value in values.items()}


def runs(names: Sequence[str]) -> str:
    """
    @return: a sequence with repetitions counted, as in C{"big*4 s1 big*2"}.
    """
    groups = [(name, len(list(group))) for name, group in groupby(names)]
    return " ".join(name if count == 1 else f"{name}*{count}" for name, count in groups)


class Stepper:
    """
    The sinks of all scenarios; runs one scenario after the other on one side.
    """

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._scenarios = scenarios
        self.sinks = {
            one.name: {letter: Sink(hold=Stage.END) for letter in one.destinations} for one in scenarios
        }

    def settings(self) -> dict[str, str]:
        """
        @return: main.cf parameters for all scenarios.
        """
        table = {
            f"{name}:{letter}.{name}.test": sink
            for name, sinks in self.sinks.items()
            for letter, sink in sinks.items()
        }
        result = routes(table)
        for one in self._scenarios:
            result |= one.parameters()
        return result

    def master(self) -> str:
        """
        @return: lines of master.cf.
        """
        return "".join(f"{one.name} unix - - n - - smtp\n" for one in self._scenarios)

    def stop(self) -> None:
        """Stop all sinks."""
        for sinks in self.sinks.values():
            for sink in sinks.values():
                sink.stop()

    def send(self, side: Side, scenario: Scenario, mail: Mail) -> None:
        """
        Send a message, and wait until it is in the active queue.
        """
        recipients = [
            f"{number:05}@{letter}.{scenario.name}.test".encode()
            for letter, many in mail.recipients.items()
            for number in (range(many - 1, -1, -1) if mail.backwards else range(many))
        ]
        side.send(*recipients, sender=f"{mail.name}@source.test".encode(), message=CONTENT)

    def run(self, side: Side, scenario: Scenario) -> list[Delivery]:
        """
        @return: the deliveries, in their order; their C{sender} says of which message.
        """
        return _Run(self, side, scenario).run()


class _Run:
    """One scenario on one side."""

    def __init__(self, stepper: Stepper, side: Side, scenario: Scenario) -> None:
        self._stepper = stepper
        self._side = side
        self._scenario = scenario
        self._sinks = stepper.sinks[scenario.name]
        # How many recipients were sent and have come, how many deliveries were answered and have come.
        self._sent = dict.fromkeys(self._sinks, 0)
        self._came = dict.fromkeys(self._sinks, 0)
        self._released = dict.fromkeys(self._sinks, 0)
        self._seen = dict.fromkeys(self._sinks, 0)
        self._order: list[Delivery] = []

    def run(self) -> list[Delivery]:
        scenario, width = self._scenario, self._scenario.width
        for letter in self._sinks:
            for number in range(width):
                self._add([Mail(f"plug{number}", {letter: 1})])
                self._wait(letter)
        plugs = len(self._order)
        self._add(scenario.start)
        time.sleep(scenario.settle)
        later = dict(scenario.later)
        while letters := [letter for letter in self._sinks if self._released[letter] < self._seen[letter]]:
            # Round by round, so that no destination is far ahead of another.
            letter = min(letters, key=lambda each: (each == scenario.stuck, self._released[each]))
            self._sinks[letter].release()
            self._released[letter] += 1
            self._wait(letter)
            for count in [count for count in later if len(self._order) - plugs >= count]:
                self._add(later.pop(count))
                time.sleep(scenario.settle)
        return self._order[plugs:]

    def _add(self, mails: Sequence[Mail]) -> None:
        for mail in mails:
            time.sleep(mail.pause)
            self._stepper.send(self._side, self._scenario, mail)
            for letter, count in mail.recipients.items():
                self._sent[letter] += count

    def _wait(self, letter: str) -> None:
        """Until the destination has as many deliveries as it may, or all that there are."""
        sink = self._sinks[letter]
        want = self._released[letter] + self._scenario.width
        end = time.monotonic() + 20
        while self._seen[letter] < want and self._came[letter] < self._sent[letter]:
            if len(sink.deliveries) > self._seen[letter]:
                delivery = sink.deliveries[self._seen[letter]]
                self._order.append(delivery)
                self._seen[letter] += 1
                self._came[letter] += len(delivery.recipients)
                continue
            assert time.monotonic() < end, (
                f"{self._scenario.name} on {self._side.name}: "
                f"no delivery came to {letter} after {names(self._order)}"
            )
            time.sleep(0.001)
        # It is held a moment after it is noted.
        while len(sink.held()) < self._seen[letter] - self._released[letter]:
            time.sleep(0.001)


def names(deliveries: Sequence[Delivery]) -> str:
    """
    @return: of which messages they were, with repetitions counted.
    """
    return order(steps(deliveries))


def transport_settings(scenario: Scenario) -> TransportSettings:
    """
    @return: what the scheduler is told of a scenario's transport.
    """
    fields = {
        "delivery_slot_cost": "slot_cost",
        "minimum_delivery_slots": "minimum_slots",
        "delivery_slot_discount": "slot_discount",
        "delivery_slot_loan": "slot_loan",
        "recipient_limit": "pool",
        "extra_recipient_limit": "extra_pool",
        "recipient_refill_limit": "refill_limit",
        "recipient_refill_delay": "refill_delay",
    }
    return TransportSettings(
        window=WindowSettings(initial=scenario.width, limit=scenario.width),
        recipient_limit=scenario.limit,
        process_limit=0,
        **{fields[suffix]: value for suffix, value in scenario.settings.items()},
    )


Step = tuple[str, str, Sequence[int]]
"""A delivery: of which message, to which destination, and the numbers of its recipients."""


def steps(deliveries: Sequence[Delivery]) -> list[Step]:
    """
    @return: what came to a sink, as L{play} says it.
    """
    return [
        (
            one.sender.partition(b"@")[0].decode(),
            one.recipients[0].partition(b"@")[2][:1].decode(),
            [int(address.partition(b"@")[0]) for address in one.recipients],
        )
        for one in deliveries
    ]


def play(subject: IQueueScheduler, scenario: Scenario) -> list[Step]:
    """
    The same without servers: what a scheduler does in a scenario.
    """
    return _Play(subject, scenario).play()


class _Play:
    """One scenario on a scheduler alone."""

    def __init__(self, subject: IQueueScheduler, scenario: Scenario) -> None:
        self._subject = subject
        self._scenario = scenario
        self._now = 1_000_000.0
        self._order: list[Step] = []
        self._open: dict[str, list[Entry]] = {letter: [] for letter in scenario.destinations}
        self._unread: dict[str, list[Recipient]] = {}
        self._left: dict[str, int] = {}
        self._released = dict.fromkeys(self._open, 0)

    def play(self) -> list[Step]:
        scenario = self._scenario
        for letter in self._open:
            for number in range(scenario.width):
                self._begin(Mail(f"plug{number}{letter}", {letter: 1}))
        plugs = len(self._order)
        for mail in scenario.start:
            self._begin(mail)
        self._now += scenario.settle
        later = dict(scenario.later)
        while letters := [letter for letter, entries in self._open.items() if entries]:
            letter = min(letters, key=lambda each: (each == scenario.stuck, self._released[each]))
            self._released[letter] += 1
            self._done(self._open[letter].pop(0))
            for count in [count for count in later if len(self._order) - plugs >= count]:
                for mail in later.pop(count):
                    self._begin(mail)
                self._now += scenario.settle
        return self._order[plugs:]

    def _begin(self, mail: Mail) -> None:
        self._now += mail.pause + 0.01
        self._unread[mail.name] = recipients = [
            Recipient(address, address, position)
            for letter, many in mail.recipients.items()
            for position, number in enumerate(range(many - 1, -1, -1) if mail.backwards else range(many))
            for address in [b"%05d@%s.test" % (number, letter.encode())]
        ]
        self._left[mail.name] = len(recipients)
        self._read(mail.name, self._subject.begin(mail.name, self._now, len(recipients)))
        self._take()

    def _read(self, name: str, count: int) -> None:
        unread = self._unread[name]
        found = unread[:count]
        del unread[:count]
        self._subject.refilled(name, len(found), bool(unread), self._now)
        for letter in self._open:
            here = [one for one in found if one.address[6:].startswith(letter.encode())]
            if here:
                self._subject.add(name, self._scenario.name, f"{letter}.test", here, self._now)

    def _take(self) -> None:
        while True:
            wanted = self._subject.refill(self._now)
            if wanted is not None:
                self._read(*wanted)
                continue
            entry = self._subject.next(self._now)
            if entry is None:
                return
            letter = entry.nexthop[0]
            self._open[letter].append(entry)
            self._order.append(
                (entry.job, letter, [int(one.address.partition(b"@")[0]) for one in entry.recipients])
            )

    def _done(self, entry: Entry) -> None:
        self._now += 0.002
        self._subject.done(entry, None, self._now)
        self._left[entry.job] -= len(entry.recipients)
        if not self._left[entry.job]:
            self._subject.end(entry.job, self._now)
        self._take()


def order(found: Sequence[Step]) -> str:
    """
    @return: of which messages the deliveries were, and to which destinations if there are several.
    """
    several = len({letter for _, letter, _ in found}) > 1
    return runs([f"{name}/{letter}" if several else name for name, letter, _ in found])


def slices(found: Sequence[Step]) -> str:
    """
    @return: the numbers of the recipients of messages with many, in their order; other messages by name.
    """
    words: list[str | list[int]] = []
    for name, _, numbers in found:
        if not name.startswith("big"):
            words.append(name)
            continue
        for number in numbers:
            last = words[-1] if words else ""
            if isinstance(last, list) and number == last[1] + 1:
                last[1] = number
            else:
                words.append([number, number])
    return " ".join(word if isinstance(word, str) else f"{word[0]}-{word[1]}" for word in words)
