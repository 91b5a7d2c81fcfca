"""
Wires a scenario: the real queue manager and scheduler, the clock, the queue in memory, and what stands in for
the rest. Then runs it.

Takes a L{Scenario}, gives a L{World} with all that was counted. Raises L{ConfigError} for a configuration
that cannot be used. What the queue manager logs as an error is a defect, in it or here, and is kept in
L{World.problems}.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import evolve
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner, globalLogPublisher
from zope.interface import implementer

from qmqpd_tx.config import Config, Host, config_from_text, load_config
from qmqpd_tx.config.parameters.transports import transport_member
from qmqpd_tx.config.warn import unknown
from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.maillog.render import TextFormatter
from qmqpd_tx.qmgr.scheduling.control import IQueueScheduler
from qmqpd_tx.qmgr.scheduling.settings import RecipientLimits, TransportSettings
from qmqpd_tx.qmgr.selection import SCHEDULERS
from qmqpd_tx.qmgr.service import QueueManager
from qmqpd_tx.simulate.arrivals import Arrivals
from qmqpd_tx.simulate.behaviour import Behaviour
from qmqpd_tx.simulate.chance import source
from qmqpd_tx.simulate.clock import SimulatedClock
from qmqpd_tx.simulate.fields import short
from qmqpd_tx.simulate.parts import CountingBounces, Network, ScenarioRouter, Transports
from qmqpd_tx.simulate.queue import WatchedQueue
from qmqpd_tx.simulate.records import DestinationRecord, IDeliveryLog, MailClass, MessageRecord
from qmqpd_tx.simulate.samples import Sample, Sampler
from qmqpd_tx.simulate.scenario import Scenario, Until

_PROBLEMS: Final = 20
"""How many problems are kept."""

_HOST: Final = Host(name="mail.simulate.test")


def simulated_midnight() -> float:
    """
    @return: the first midnight of every simulation, POSIX seconds: a Monday without a change of the clocks
        near it, in this machine's time zone, so that log lines show the time of day.
    """
    return time.mktime((2026, 1, 5, 0, 0, 0, 0, 0, -1))


def scenario_config(scenario: Scenario) -> Config:
    """
    @return: the configuration that the scenario names, with its own parameters over it.
    @raise ConfigError: it cannot be used.
    """
    path = scenario.config
    if path is None:
        config = config_from_text("", host=_HOST)
    elif os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ConfigError(f"{scenario.file}: config: {path}: is no file: name a main.cf or its folder")
    else:
        config = load_config(os.path.join(path, "main.cf") if os.path.isdir(path) else path)
    try:
        config = config.with_overrides(scenario.parameters)
    except ConfigError as problem:
        text = str(problem).removeprefix("-o option: ")
        raise ConfigError(f"{scenario.file}: main: {text}") from None
    # The service would only warn; but here nobody reads the log, and the answer would be another question's.
    transports = {plan.transport for plan in scenario.destinations}
    for name in unknown(config.settings, config.services):
        member = transport_member(name)
        if name in scenario.parameters and (member is None or member.transport not in transports):
            raise ConfigError(
                f"{scenario.file}: main: there is no parameter {short(name)}: check its name in postconf -d"
            )
    return config


class World:
    """
    One scenario, running.

    @ivar scenario: the scenario.
    @ivar config: its configuration.
    @ivar midnight: of the first day, POSIX seconds.
    @ivar clock: the time.
    @ivar classes: what was counted, by class of mail.
    @ivar destinations: what was counted, by destination.
    @ivar sampler: what it looked like over time.
    @ivar ended: why it ended: L{None} for the time limit.
    @ivar problems: what went wrong in the simulation itself.
    """

    def __init__(
        self,
        scenario: Scenario,
        log: IDeliveryLog | None = None,
        sampled: Callable[[Sample], None] | None = None,
    ) -> None:
        """
        @param log: where each delivery is written, or L{None}.
        @param sampled: is told each row of figures over time.
        @raise ConfigError: the configuration cannot be used.
        """
        self.scenario = scenario
        self.config = scenario_config(scenario)
        self.midnight = simulated_midnight()
        self.clock = SimulatedClock(self.midnight + scenario.start, scenario.steps)
        self.classes: dict[str, MailClass] = {}
        for plan in scenario.arrivals:
            mail = self.classes.setdefault(plan.label, MailClass(plan.label))
            mail.planned += plan.messages * plan.recipients
        self.destinations = [
            DestinationRecord(plan.name, len(plan.domains)) for plan in scenario.destinations
        ]
        self.queue = WatchedQueue(self._run_ended)
        self.problems: list[str] = []
        self.ended: Until | None = None
        self._first_runs = 0
        self._messages = sum(plan.messages for plan in scenario.arrivals)
        behaviours = [
            Behaviour(plan, record, source(scenario.seed, "destination", plan.name), self.midnight)
            for plan, record in zip(scenario.destinations, self.destinations, strict=True)
        ]
        network = Network(behaviours, self.clock, self.queue.records, log)

        def make(settings: Callable[[str], TransportSettings], limits: RecipientLimits) -> IQueueScheduler:
            if scenario.documented_feedback:
                settings = _documented(settings)
            network.scheduler = SCHEDULERS[scenario.scheduler](settings, limits)
            return network.scheduler

        self._manager = QueueManager(
            config=self.config,
            clock=self.clock,
            queue=self.queue,
            router=ScenarioRouter(scenario.destinations),
            transports=Transports(network, [plan.transport for plan in scenario.destinations]),
            bounces=CountingBounces(self.queue.records, self.clock),
            random=source(scenario.seed, "queue manager"),
            process_limit=self._process_limit,
            scheduler=make,
        )
        self.sampler = Sampler(self.clock, self.queue, self.destinations, sampled)

    def run(self, observer: ILogObserver | None = None) -> None:
        """
        Run it to its end.

        @param observer: is told all log events, with the simulated time.
        @raise ConfigError: it takes more steps than the scenario allows.
        """
        with _listening(_Listener(self, observer)):
            self.queue.start()
            self._manager.startService()
            self._arrivals = Arrivals(
                self.scenario, self.classes, self.clock, self.midnight, self.queue, self._manager
            )
            self.clock.run(self.midnight + self.scenario.start + self.scenario.limit)
            if self.clock.exhausted:
                hours = (self.since_midnight() - self.scenario.start) / 3600
                raise ConfigError(
                    f"{self.scenario.file}: steps = {self.scenario.steps}: are over after {hours:.1f} "
                    f"simulated hours: make limit shorter, have less mail or fewer retries, or allow more"
                )
            now = self.clock.seconds()
            for record in self.destinations:
                record.busy.settle(now)
            self.sampler.look()

    def since_midnight(self) -> float:
        """
        @return: the time of day, seconds.
        """
        return self.clock.seconds() - self.midnight

    def _process_limit(self, transport: str) -> int:
        for service in self.config.services:
            if service.name == transport and service.type == "unix" and service.maxproc is not None:
                return service.maxproc
        return self.config.integer("default_process_limit")

    def _run_ended(self, record: MessageRecord, left: bool) -> None:
        """A message was deferred or has left; see whether that was the end."""
        if left:
            record.mail.finished += 1
        if not record.runs:
            self._first_runs += 1
        if self._arrivals.left:
            return
        until = self.scenario.until
        drained = until is Until.DRAINED and not self.queue.records
        if drained or (until is Until.FIRST_RUNS and self._first_runs == self._messages):
            self._end(until)

    def _end(self, until: Until) -> None:
        self.ended = until
        self.clock.stop()


@implementer(ILogObserver)
class _Listener:
    """Keeps problems, and passes events on with the simulated time."""

    def __init__(self, world: World, observer: ILogObserver | None) -> None:
        self._world = world
        self._observer = observer
        self._formatter = TextFormatter()

    def __call__(self, event: LogEvent) -> None:
        level = event["log_level"]
        if level is not LogLevel.info and level is not LogLevel.debug:
            problems = self._world.problems
            if level is not LogLevel.warn and len(problems) < _PROBLEMS:
                problems.append(self._formatter.text(event))
        if self._observer is not None:
            self._observer({**event, "log_time": self._world.clock.seconds()})


@contextmanager
def _listening(observer: ILogObserver) -> Iterator[None]:
    globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)


def _documented(settings: Callable[[str], TransportSettings]) -> Callable[[str], TransportSettings]:
    """
    @return: the same settings, but with the rounding of feedback that SCHEDULER_README describes.
    """

    def documented(transport: str) -> TransportSettings:
        found = settings(transport)
        return evolve(found, window=evolve(found.window, rounding=0.0))

    return documented


def quiet() -> None:
    """
    For a process that does nothing else: events that nobody listens to are dropped and not kept.
    """
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
