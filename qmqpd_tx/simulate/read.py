"""
From a TOML file to a L{Scenario<qmqpd_tx.simulate.scenario.Scenario>}.

Takes a path or text; gives a scenario in which all names are known and all numbers are within bounds.
Whatever is wrong raises L{ConfigError}, one line with file, table, key, value and remedy.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Final

from qmqpd_tx.interfaces import ConfigError
from qmqpd_tx.simulate.fields import Fields, short
from qmqpd_tx.simulate.scenario import (
    DAY,
    Above,
    ArrivalPlan,
    Cache,
    DestinationPlan,
    Latency,
    Outage,
    OutageKind,
    Question,
    Refusal,
    Scenario,
    ServerLimit,
    Shape,
    Spread,
    Stage,
    Until,
)

FILE_LIMIT: Final = 4 << 20
"""The largest scenario, bytes."""

TABLES: Final = 200
"""How many destinations, arrivals or questions there may be."""

DOMAINS: Final = 1_000_000
"""How many domains there may be, all destinations together."""

MESSAGES: Final = 2_000_000
"""How many messages there may be, all arrivals together."""

RECIPIENTS: Final = 5_000_000
"""How many recipients there may be, all messages together."""

LONGEST: Final = 35 * DAY
"""How long a run may last."""

STEPS: Final = 20_000_000
"""After how many steps it is given up, unless the scenario says otherwise: half an hour or so."""

_DOMAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9_])?")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}")
_NEXTHOP: Final = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,255}")
_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*/\s*(second|minute|hour|day)")
_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": DAY}

_SYN_RETRIES: Final = (1.0, 3.0, 7.0, 15.0)
"""
When a SYN is repeated within 30 seconds (Linux; RFC 6298: the first time-out is a second, then doubled).
"""


def load_scenario(path: str | os.PathLike[str], seed: int | None = None) -> Scenario:
    """
    @param path: of the TOML file.
    @param seed: instead of the one in the file.
    @raise ConfigError: it cannot be read or used.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
        text = data.decode("utf-8")
    except OSError as problem:
        raise ConfigError(f"{name}: cannot be read: {problem.strerror}: check the name") from None
    except (UnicodeDecodeError, ValueError):
        raise ConfigError(f"{name}: is no UTF-8 text: save it as UTF-8") from None
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{name}: is longer than {FILE_LIMIT} bytes: make it shorter")
    return scenario_from_text(text, name, seed)


def scenario_from_text(text: str, file: str = "scenario", seed: int | None = None) -> Scenario:
    """
    @param text: TOML.
    @param file: what to call it in messages.
    @param seed: instead of the one in the text.
    @raise ConfigError: it cannot be used.
    """
    try:
        top = Fields(file, tomllib.loads(text))
    except (ValueError, RecursionError) as problem:
        # Not all that tomllib finds wrong with a number or a date is a TOMLDecodeError.
        raise ConfigError(f"{file}: not TOML: {problem}: see https://toml.io") from None
    destinations = _destinations(top)
    arrivals = _arrivals(top, {plan.name for plan in destinations})
    labels = {plan.label for plan in arrivals}
    folder = os.path.dirname(os.path.abspath(file))
    config = top.text("config", None)
    scenario = Scenario(
        file=file,
        title=top.text("title", ""),
        config=None if config is None else os.path.join(folder, config),
        parameters=_parameters(top.table("main")),
        scheduler=top.text("scheduler", "qmgr", ("qmgr", "oqmgr")),
        documented_feedback=top.text("feedback", "postfix", ("postfix", "documented")) == "documented",
        start=top.time("start", 0.0),
        limit=top.span("limit", 5 * DAY, 1, LONGEST),
        steps=top.whole("steps", STEPS, 1, 100 * STEPS),
        until=Until(top.text("until", "drained", [one.value for one in Until])),
        seed=top.whole("seed", 1, 0, 1 << 62),
        destinations=destinations,
        arrivals=arrivals,
        questions=[_question(fields, labels) for fields in top.tables("question", "[[question]]", TABLES)],
    )
    top.end()
    if scenario.start >= DAY:
        raise top.bad("start", "is not on the first day", 'write a time before "24:00"')
    for plan, fields in zip(arrivals, top.tables("arrival", "[[arrival]]", TABLES), strict=True):
        if plan.begin < scenario.start:
            key = "at" if "at" in fields else "from"
            raise fields.bad(key, "is before the start", f'begin with start = "{_clock(plan.begin)}"')
        if plan.end > scenario.start + scenario.limit:
            key = "at" if "at" in fields else "to"
            raise fields.bad(key, "is after the end", "make limit longer")
    return scenario if seed is None else _with_seed(scenario, seed)


def _with_seed(scenario: Scenario, seed: int) -> Scenario:
    values = {name: getattr(scenario, name) for name in Scenario.__slots__ if not name.startswith("__")}
    return Scenario(**{**values, "seed": seed})


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):02d}:{int(seconds // 60 % 60):02d}"


def _parameters(fields: Fields) -> Mapping[str, str]:
    found = {}
    for name in fields.values:
        value = fields.get(name)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63):
            value = str(value)
        if not isinstance(value, str):
            raise fields.bad(name, "is no text", "write the value as in main.cf, in quotation marks")
        found[name] = value
    return found


# --- destinations -----------------------------------------------------------------------------------


def _destinations(top: Fields) -> Sequence[DestinationPlan]:
    found: list[DestinationPlan] = []
    domains: dict[str, str] = {}
    places: dict[tuple[str, str], str] = {}
    tables = top.tables("destination", "[[destination]]", TABLES)
    for fields in tables:
        plan = _destination(fields)
        if any(plan.name == other.name for other in found):
            raise fields.bad("name", "is there already", "give each destination a name of its own")
        for domain in plan.domains:
            if domain in domains:
                raise fields.bad("domains", f"{domain} is also of {domains[domain]}", "name each domain once")
            domains[domain] = plan.name
        for host in plan.domains if plan.nexthop is None else [plan.nexthop]:
            if (other := places.setdefault((plan.transport, host), plan.name)) != plan.name:
                raise fields.bad("nexthop", f"{host} is also where {other} goes", "make it one destination")
        if len(domains) > DOMAINS:
            raise fields.bad("domains", "are too many", f"have at most {DOMAINS} in all")
        found.append(plan)
    if not found:
        raise ConfigError(f"{top.where}: there is no [[destination]]: add at least one")
    return found


def _destination(fields: Fields) -> DestinationPlan:
    name = fields.text("name")
    if not _NAME.fullmatch(name):
        raise fields.bad("name", "cannot be a name", "use letters, digits, points, - and _, 60 at most")
    nexthop = fields.text("nexthop", None)
    if nexthop is not None and not _NEXTHOP.fullmatch(nexthop):
        raise fields.bad("nexthop", "is no next hop", 'write a host, as in "[mail.example.org]:25"')
    transport = fields.text("transport", "smtp")
    if not _NAME.fullmatch(transport):
        raise fields.bad("transport", "is no transport", 'write a name of master.cf, as in "smtp"')
    latency = fields.table("latency")
    connect_timeout = fields.span("connect_timeout", 30, 0.001, 3600)
    plan = DestinationPlan(
        name=name,
        domains=_domains(fields, name),
        transport=transport,
        nexthop=nexthop,
        one_server=fields.flag("one_server", False),
        connect=_latency(latency, "connect", 0.02),
        greeting=_latency(latency, "greeting", 0.03),
        message=_latency(latency, "message", 0.1),
        recipient=_latency(latency, "recipient", 0.02),
        report=latency.span("report", 0, 0, 60),
        bandwidth=fields.number("bandwidth", 0, 0, 1e12),
        connect_timeout=connect_timeout,
        greeting_timeout=fields.span("greeting_timeout", 300, 0.001, 3600),
        limit=_limit(fields.table("limit"), connect_timeout) if "limit" in fields else None,
        cache=_cache(fields.table("cache")) if "cache" in fields else None,
        refusals=[_refusal(one) for one in fields.tables("refusal", "[[destination.refusal]]", TABLES)],
        greylisting=fields.span("greylisting", 0, 0, DAY),
        outages=[_outage(one) for one in fields.tables("outage", "[[destination.outage]]", TABLES)],
    )
    latency.end()
    fields.end()
    return plan


def _domains(fields: Fields, name: str) -> Sequence[str]:
    value = fields.get("domains", [f"{name.lower()}.test"])
    if isinstance(value, int) and not isinstance(value, bool):
        count = fields.whole("domains", 1, 1, DOMAINS)
        return [f"d{number}.{name.lower()}.test" for number in range(1, count + 1)]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise fields.bad("domains", "is no list", 'write a number, or names as in ["example.org"]')
    for domain in value:
        if not isinstance(domain, str) or not _DOMAIN.fullmatch(domain):
            raise fields.bad("domains", f"{short(domain)} is no domain", 'write names as in "example.org"')
    return [domain.lower() for domain in value]


def _latency(fields: Fields, key: str, default: float) -> Latency:
    value = fields.get(key, default)
    if not isinstance(value, dict):
        return Latency(Shape.CONSTANT, fields.span(key, default, 0, 3600))
    remedy = "write a number of seconds, or { uniform = [0.1, 0.5] }, normal or lognormal likewise"
    if len(value) != 1:
        raise fields.bad(key, "is not one distribution", remedy)
    ((word, numbers),) = value.items()
    if word not in ("uniform", "normal", "lognormal") or not isinstance(numbers, list) or len(numbers) != 2:
        raise fields.bad(key, "is no distribution", remedy)
    inner = Fields(f"{fields.where}: {key}: {word}", {"first": numbers[0], "second": numbers[1]})
    first = inner.number("first", 0, 0, 3600)
    second = inner.number("second", 0, 0, 10 if word == "lognormal" else 3600)
    if word == "uniform" and second < first:
        raise fields.bad(key, "ends before it begins", "write the smaller number first")
    if word == "lognormal" and first <= 0:
        raise fields.bad(key, "has a median of 0", "write a median over 0")
    return Latency(Shape(word), first, second)


def _limit(fields: Fields, connect_timeout: float) -> ServerLimit:
    retries = fields.get("retries", list(_SYN_RETRIES))
    if not isinstance(retries, list) or len(retries) > 20:
        raise fields.bad("retries", "is no list", "write seconds after the first try, as in [1, 3, 7, 15]")
    times = Fields(f"{fields.where}: retries", {str(number): one for number, one in enumerate(retries, 1)})
    limit = ServerLimit(
        concurrency=fields.whole("concurrency", None, 1, 1_000_000),
        above=Above(fields.text("above", "connect-timeout", [one.value for one in Above])),
        backlog=fields.whole("backlog", 0, 0, 1_000_000),
        turnaround=_latency(fields, "turnaround", 0),
        retries=sorted(times.number(key, 0, 0.001, 3600) for key in times.values),
    )
    fields.end()
    return limit


def _cache(fields: Fields) -> Cache:
    cache = Cache(idle=fields.span("idle", 2, 0.001, 3600), age=fields.span("age", 300, 0.001, DAY))
    fields.end()
    return cache


def _refusal(fields: Fields) -> Refusal:
    at = Stage(fields.text("at", "rcpt", [one.value for one in Stage]))
    refusal = Refusal(
        at=at,
        probability=fields.number("probability", 1, 0, 1),
        code=fields.whole("code", 450, 400, 599),
    )
    fields.end()
    return refusal


def _outage(fields: Fields) -> Outage:
    outage = Outage(
        begin=fields.time("from"),
        end=fields.time("to"),
        kind=OutageKind(fields.text("kind", "timeout", [one.value for one in OutageKind])),
        daily=fields.flag("daily", False),
    )
    fields.end()
    if outage.end <= outage.begin:
        raise fields.bad("to", "is not after the beginning", 'write "+1 02:00" for the next day')
    if outage.daily and outage.end - outage.begin >= DAY:
        raise fields.bad("to", "is a day or more later", "a daily outage is shorter than a day")
    return outage


# --- arrivals and questions -------------------------------------------------------------------------


def _arrivals(top: Fields, names: set[str]) -> Sequence[ArrivalPlan]:
    found = []
    messages = recipients = 0
    for fields in top.tables("arrival", "[[arrival]]", TABLES):
        plan = _arrival(fields, names)
        messages += plan.messages
        recipients += plan.messages * plan.recipients
        if messages > MESSAGES:
            key = "rate" if "rate" in fields else "messages"
            raise fields.bad(key, "makes too many messages", f"have at most {MESSAGES} in all")
        if recipients > RECIPIENTS:
            raise fields.bad("recipients", "are too many", f"have at most {RECIPIENTS} in all")
        found.append(plan)
    if not found:
        raise ConfigError(f"{top.where}: there is no [[arrival]]: add at least one")
    return found


def _arrival(fields: Fields, names: set[str]) -> ArrivalPlan:
    if ("at" in fields) == ("from" in fields or "to" in fields):
        raise ConfigError(f'{fields.where}: has no time: write either at = "09:00", or both from and to')
    begin = fields.time("at") if "at" in fields else fields.time("from")
    end = begin if "at" in fields else fields.time("to")
    if end < begin:
        raise fields.bad("to", "is before the beginning", 'write "+1 02:00" for the next day')
    plan = ArrivalPlan(
        label=fields.text("class"),
        begin=begin,
        end=end,
        messages=_messages(fields, end - begin),
        poisson=fields.flag("poisson", False),
        recipients=fields.whole("recipients", 1, 1, RECIPIENTS),
        size=fields.whole("size", 4000, 0, 1 << 30),
        targets=_targets(fields, names),
        spread=Spread(fields.text("spread", "round-robin", [one.value for one in Spread])),
    )
    if not _NAME.fullmatch(plan.label):
        raise fields.bad("class", "cannot be a name", "use letters, digits, points, - and _, 60 at most")
    fields.end()
    return plan


def _messages(fields: Fields, seconds: float) -> int:
    if "rate" not in fields:
        return fields.whole("messages", 1, 1, MESSAGES)
    if "messages" in fields:
        raise fields.bad("rate", "there is messages, too", "write one of them")
    rate = fields.text("rate")
    remedy = 'write it as "10/minute"; second, hour and day are the others'
    if not (found := _RATE.fullmatch(rate)):
        raise fields.bad("rate", "is no rate", remedy)
    count = round(float(found[1]) / _PERIODS[found[2]] * seconds)
    if not 1 <= count <= MESSAGES:
        raise fields.bad("rate", f"makes {count} messages", f"from 1 to {MESSAGES} are possible")
    return count


def _targets(fields: Fields, names: set[str]) -> Mapping[str, float]:
    value = fields.get("to_destination", next(iter(names)) if len(names) == 1 else None)
    if value is None:
        raise fields.bad("to_destination", "is missing", "name a [[destination]]")
    if isinstance(value, str):
        value = {value: 1.0}
    if not isinstance(value, dict) or not value:
        raise fields.bad("to_destination", "is no destination", 'write a name, or { "name" = weight, ... }')
    weights = Fields(f"{fields.where}: to_destination", value)
    for name in value:
        if name not in names:
            raise fields.bad(
                "to_destination",
                "there is no such destination",
                f"use one of {', '.join(sorted(names)[:20])}",
            )
    return {name: weights.number(name, 1, 0.000001, 1e9) for name in value}


def _question(fields: Fields, labels: set[str]) -> Question:
    label = fields.text("class", next(iter(labels)) if len(labels) == 1 else None)
    if label not in labels:
        raise fields.bad("class", "no such mail arrives", f"use one of {', '.join(sorted(labels)[:20])}")
    if ("by" in fields) == ("within" in fields):
        raise ConfigError(f'{fields.where}: asks nothing: write either by = "09:00" or within = "1m"')
    question = Question(
        label=label,
        by=fields.time("by") if "by" in fields else None,
        within=fields.span("within", 0, 0.001, LONGEST) if "within" in fields else None,
        share=fields.number("share", 1, 0.000001, 1),
    )
    fields.end()
    return question
