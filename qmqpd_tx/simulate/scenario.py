"""
What a scenario says: values, and no behaviour.

Times of day are seconds after the midnight of the first simulated day. L{read<qmqpd_tx.simulate.read>} makes
a L{Scenario} from TOML.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from attrs import frozen

DAY = 86400.0
"""Seconds."""


class Shape(enum.Enum):
    """How lengths of time are distributed; the value is the word in a scenario."""

    CONSTANT = "constant"
    UNIFORM = "uniform"
    NORMAL = "normal"
    LOGNORMAL = "lognormal"


@frozen(slots=True)
class Latency:
    """
    A length of time, random or not. Never under 0.

    @ivar shape: which distribution.
    @ivar first: the constant; the lower bound; the mean; or the median, seconds.
    @ivar second: the upper bound; or the standard deviation, seconds; or that of the logarithm.
    """

    shape: Shape = Shape.CONSTANT
    first: float = 0.0
    second: float = 0.0


class Above(enum.Enum):
    """What a server does with connections above its limit; the value is the word in a scenario."""

    CONNECT = "connect-timeout"
    """The kernel takes a few; for the others the connection is not established."""
    GREETING = "greeting-timeout"
    """
    All look established to the client; those that the server's kernel could not take never get a greeting.
    """
    REPLY = "421"
    """The server answers with 421 at once and closes."""


@frozen(slots=True)
class ServerLimit:
    """
    How many connections a server serves at a time.

    @ivar concurrency: so many.
    @ivar above: what becomes of others.
    @ivar backlog: how many established connections wait in the server's kernel until one is free.
    @ivar turnaround: from the end of one connection until its process takes the next.
    @ivar retries: when, in seconds after the first, a connection that found no room is tried again by TCP.
    """

    concurrency: int
    above: Above
    backlog: int
    turnaround: Latency
    retries: Sequence[float]


class Stage(enum.Enum):
    """Where a delivery is refused; the value is the word in a scenario."""

    CONNECT = "connect"
    GREETING = "greeting"
    MAIL = "mail"
    RECIPIENT = "rcpt"


@frozen(slots=True)
class Refusal:
    """
    Something that fails at random.

    @ivar at: where.
    @ivar probability: 0 to 1; for each recipient at C{RECIPIENT}, for each delivery elsewhere.
    @ivar code: the SMTP reply code; without meaning at C{CONNECT}.
    """

    at: Stage
    probability: float
    code: int


class OutageKind(enum.Enum):
    """What an outage looks like; the value is the word in a scenario."""

    REFUSE = "refuse"
    TIMEOUT = "timeout"
    REPLY = "421"
    RECIPIENT = "4xx"
    """The server answers each recipient with 451."""


@frozen(slots=True)
class Outage:
    """
    A time in which a server does not take mail.

    @ivar begin: when it begins.
    @ivar end: when it is over.
    @ivar kind: what it looks like.
    @ivar daily: it comes again each day.
    """

    begin: float
    end: float
    kind: OutageKind
    daily: bool


@frozen(slots=True)
class Cache:
    """
    Connections that are kept for the next delivery.

    @ivar idle: how long an unused one is kept, seconds (C{smtp_connection_cache_time_limit}).
    @ivar age: how long after its start one is used again (C{smtp_connection_reuse_time_limit}).
    """

    idle: float
    age: float


@frozen(slots=True)
class DestinationPlan:
    """
    Domains and the servers behind them, all alike.

    @ivar name: what it is called in figures.
    @ivar domains: its domains.
    @ivar transport: the master.cf name of the transport.
    @ivar nexthop: the next hop of all domains, or L{None}: each domain is its own.
    @ivar one_server: all domains have one server, though each is a destination of its own.
    @ivar connect: until the connection is established.
    @ivar greeting: from then until the server is ready for mail.
    @ivar message: what each message takes.
    @ivar recipient: what each recipient takes.
    @ivar report: from the end of a delivery until the queue manager hears of it, seconds.
    @ivar bandwidth: bytes a second, 0 for any.
    @ivar connect_timeout: how long the client tries to connect, seconds (C{smtp_connect_timeout}).
    @ivar greeting_timeout: how long the client waits for a greeting (C{smtp_helo_timeout}).
    @ivar limit: the server's limit, or L{None}.
    @ivar cache: the client's connection cache, or L{None}.
    @ivar refusals: what fails at random.
    @ivar greylisting: how long each recipient is refused after its first attempt, seconds; 0 for not at all.
    @ivar outages: when it is down.
    """

    name: str
    domains: Sequence[str]
    transport: str
    nexthop: str | None
    one_server: bool
    connect: Latency
    greeting: Latency
    message: Latency
    recipient: Latency
    report: float
    bandwidth: float
    connect_timeout: float
    greeting_timeout: float
    limit: ServerLimit | None
    cache: Cache | None
    refusals: Sequence[Refusal]
    greylisting: float
    outages: Sequence[Outage]


class Spread(enum.Enum):
    """How recipients are spread over the domains of a destination; the value is the word in a scenario."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    ZIPF = "zipf"
    """The second domain gets half of what the first gets, the third a third."""


@frozen(slots=True)
class ArrivalPlan:
    """
    Some mail.

    @ivar label: the class of mail that it belongs to, for figures.
    @ivar begin: when the first message may come.
    @ivar end: when the last may come; the same as C{begin} for all at once.
    @ivar messages: how many.
    @ivar poisson: they come at random, not at regular distances.
    @ivar recipients: of each message.
    @ivar size: bytes of each message.
    @ivar targets: the destinations' names with their weights.
    @ivar spread: how recipients are spread over a destination's domains.
    """

    label: str
    begin: float
    end: float
    messages: int
    poisson: bool
    recipients: int
    size: int
    targets: Mapping[str, float]
    spread: Spread


@frozen(slots=True)
class Question:
    """
    What somebody wants to know.

    @ivar label: of which class of mail.
    @ivar by: by which time of day it is to be out, or L{None}.
    @ivar within: within how many seconds after its arrival each is to be out, or L{None}.
    @ivar share: what part of it, over 0 to 1.
    """

    label: str
    by: float | None
    within: float | None
    share: float


class Until(enum.Enum):
    """When a run ends; the value is the word in a scenario. It never lasts longer than its limit."""

    DRAINED = "drained"
    """No message is left."""
    FIRST_RUNS = "first-runs"
    """Each message has been tried once."""
    LIMIT = "limit"
    """The time is up."""


@frozen(slots=True)
class Scenario:
    """
    @ivar file: its name, for messages.
    @ivar title: one line about it.
    @ivar config: the path of main.cf or of its folder, or L{None}.
    @ivar parameters: main.cf parameters over those.
    @ivar scheduler: C{qmgr} or C{oqmgr}.
    @ivar documented_feedback: concurrency feedback is rounded as SCHEDULER_README describes it, not as
        Postfix does it today.
    @ivar start: the time of day at which it begins.
    @ivar limit: how long it lasts at most, seconds.
    @ivar steps: how many calls of the clock may be made, before it is given up.
    @ivar until: when it ends.
    @ivar seed: of all chance.
    @ivar destinations: where mail goes.
    @ivar arrivals: what mail comes.
    @ivar questions: what somebody wants to know.
    """

    file: str
    title: str
    config: str | None
    parameters: Mapping[str, str]
    scheduler: str
    documented_feedback: bool
    start: float
    limit: float
    steps: int
    until: Until
    seed: int
    destinations: Sequence[DestinationPlan]
    arrivals: Sequence[ArrivalPlan]
    questions: Sequence[Question]
