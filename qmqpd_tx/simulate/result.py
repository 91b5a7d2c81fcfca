"""
From what was counted to figures that can be shown or kept: values, also as JSON.

Takes a L{World<qmqpd_tx.simulate.world.World>} at its end. Times of day are seconds after the first midnight.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from qmqpd_tx.simulate.records import DestinationRecord, Failure, MailClass, Tries
from qmqpd_tx.simulate.scenario import Question, Until
from qmqpd_tx.simulate.world import World


@frozen(slots=True)
class ClassFigures:
    """
    One class of mail.

    @ivar name: its name.
    @ivar messages: how many arrived.
    @ivar finished: how many have left the queue.
    @ivar recipients: how many arrived.
    @ivar delivered: of these.
    @ivar bounced: refused for good, of these.
    @ivar expired: given up as too old, of these.
    @ivar waiting: still in the queue, of these.
    @ivar first_deferrals: put off in the first run of their message.
    @ivar deferrals: how often one was put off, in all.
    @ivar untried: of these, how often without a try.
    @ivar first: when the first was delivered.
    @ivar median: when half of those delivered were.
    @ivar most: when 95 % were.
    @ivar last: when the last was.
    @ivar delay_median: after its arrival, in seconds.
    @ivar delay_most: what 95 % did not exceed.
    @ivar delay_longest: the longest.
    """

    name: str
    messages: int
    finished: int
    recipients: int
    delivered: int
    bounced: int
    expired: int
    waiting: int
    first_deferrals: int
    deferrals: int
    untried: int
    first: float | None
    median: float | None
    most: float | None
    last: float | None
    delay_median: float | None
    delay_most: float | None
    delay_longest: float | None


@frozen(slots=True)
class DestinationFigures:
    """
    One destination of the scenario.

    @ivar name: its name.
    @ivar domains: how many it has.
    @ivar attempts: deliveries that were tried.
    @ivar busiest: the most deliveries after first runs that were begun within one minute of the clock.
    @ivar connections: connections that were begun.
    @ivar recipients: of these deliveries.
    @ivar delivered: recipients.
    @ivar bounced: recipients.
    @ivar first_deferred: percentage of recipients put off, in first runs of messages.
    @ivar deferred: the same in all runs.
    @ivar first_failures: recipients put off by failures of the destination in first runs, by what failed.
    @ivar failures: the same in all runs.
    @ivar busy: mean number of deliveries under way, as long as there were any.
    @ivar busy_deviation: its standard deviation.
    @ivar busy_most: the greatest.
    @ivar window: mean of the concurrency window, over deliveries in first runs.
    @ivar window_deviation: its standard deviation.
    @ivar window_most: the greatest.
    @ivar deaths: how often a domain of it was declared dead.
    @ivar dead_seconds: for how long, all domains together.
    """

    name: str
    domains: int
    attempts: int
    busiest: int
    connections: int
    recipients: int
    delivered: int
    bounced: int
    first_deferred: float
    deferred: float
    first_failures: Mapping[str, int]
    failures: Mapping[str, int]
    busy: float
    busy_deviation: float
    busy_most: int
    window: float
    window_deviation: float
    window_most: int
    deaths: int
    dead_seconds: float


@frozen(slots=True)
class Answer:
    """
    The answer to a question of the scenario.

    @ivar question: in words.
    @ivar yes: whether it is so.
    @ivar share: what part is out in time, 0 to 1.
    """

    question: str
    yes: bool
    share: float


@frozen(slots=True)
class Figures:
    """
    All of one run.

    @ivar scenario: its file.
    @ivar title: its title.
    @ivar scheduler: its scheduler.
    @ivar seed: its seed.
    @ivar start: when it began.
    @ivar end: when it ended.
    @ivar ended: why.
    @ivar classes: of mail.
    @ivar destinations: of the scenario.
    @ivar answers: to its questions.
    @ivar problems: what went wrong in the simulation itself.
    """

    scenario: str
    title: str
    scheduler: str
    seed: int
    start: float
    end: float
    ended: str
    classes: Sequence[ClassFigures]
    destinations: Sequence[DestinationFigures]
    answers: Sequence[Answer]
    problems: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """
        @return: what C{json.dumps} takes.
        """
        return asdict(self)


def figures(world: World) -> Figures:
    """
    @param world: at its end.
    @return: what came of it.
    """
    scenario = world.scenario
    return Figures(
        scenario=scenario.file,
        title=scenario.title,
        scheduler=scenario.scheduler,
        seed=scenario.seed,
        start=scenario.start,
        end=world.since_midnight(),
        ended=(world.ended or Until.LIMIT).value,
        classes=[_mail(mail, world.midnight) for mail in world.classes.values()],
        destinations=[_destination(record) for record in world.destinations],
        answers=[
            _answer(question, world.classes[question.label], world.midnight)
            for question in scenario.questions
        ],
        problems=world.problems,
    )


def _mail(mail: MailClass, midnight: float) -> ClassFigures:
    delivered, delays = mail.delivered, mail.delays

    def of_day(when: float | None) -> float | None:
        return None if when is None else round(when - midnight, 3)

    def rounded(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 3)

    return ClassFigures(
        name=mail.name,
        messages=mail.messages,
        finished=mail.finished,
        recipients=mail.arrived.count,
        delivered=delivered.count,
        bounced=mail.bounced,
        expired=mail.expired,
        waiting=mail.arrived.count - delivered.count - mail.bounced - mail.expired,
        first_deferrals=mail.first_deferrals,
        deferrals=mail.deferrals,
        untried=mail.untried,
        first=of_day(delivered.first),
        median=of_day(delivered.quantile(0.5)),
        most=of_day(delivered.quantile(0.95)),
        last=of_day(delivered.last),
        delay_median=rounded(delays.quantile(0.5)),
        delay_most=rounded(delays.quantile(0.95)),
        delay_longest=rounded(delays.maximum) if delays.count else None,
    )


def _destination(record: DestinationRecord) -> DestinationFigures:
    first, later = record.first, record.later
    recipients = first.recipients + later.recipients
    return DestinationFigures(
        name=record.name,
        domains=record.domains,
        attempts=first.deliveries + later.deliveries,
        busiest=record.busiest,
        connections=record.connections,
        recipients=recipients,
        delivered=record.delivered,
        bounced=record.bounced,
        first_deferred=_percent(first.deferred, first.recipients),
        deferred=_percent(first.deferred + later.deferred, recipients),
        first_failures=_failures(first),
        failures=_failures(first, later),
        busy=round(record.busy.mean(), 3),
        busy_deviation=round(record.busy.deviation(), 3),
        busy_most=record.busy.maximum,
        window=round(first.window.mean(), 3),
        window_deviation=round(first.window.deviation(), 3),
        window_most=int(max(first.window.maximum, later.window.maximum)),
        deaths=record.deaths,
        dead_seconds=round(record.dead_seconds, 3),
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 3) if whole else 0.0


def _failures(*tries: Tries) -> Mapping[str, int]:
    return {
        failure.value: count for failure in Failure if (count := sum(one.failures[failure] for one in tries))
    }


def _answer(question: Question, mail: MailClass, midnight: float) -> Answer:
    if question.by is not None:
        by = midnight + question.by
        # Who is refused for good is out as well; and nobody can ask for what comes later.
        out, wanted = mail.delivered.up_to(by) + mail.gone.up_to(by), mail.arrived.up_to(by)
        text = f"{mail.name}: {_part(question.share)} out by {clock_text(question.by)}"
    else:
        within = question.within or 0.0
        out, wanted = mail.delays.up_to(within), mail.planned - mail.gone.count
        text = f"{mail.name}: {_part(question.share)} delivered within {span_text(within)}"
    share = out / wanted if wanted else 1.0
    return Answer(text, share >= question.share, round(share, 6))


def _part(share: float) -> str:
    return "all" if share >= 1 else f"{share * 100:g} %"


def clock_text(seconds: float | None) -> str:
    """
    @return: a time of day, as in C{09:00:00}, and C{+1 09:00:00} on the next day.
    """
    if seconds is None:
        return "-"
    whole = int(seconds)
    day, rest = divmod(whole, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"+{day} {text}" if day else text


def span_text(seconds: float | None) -> str:
    """
    @return: a length of time, as in C{0.25 s}, C{12 s}, C{5 min 20 s}, C{3 h 05 min}.
    """
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"
